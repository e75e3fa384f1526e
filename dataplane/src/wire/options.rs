//! IPv4 options as a router treats them: checked and filled in on receipt,
//! completed on the way out, carried back by ICMP errors, cut from fragments.
//!
//! Everything here works on an IPv4 header in place and allocates nothing. The
//! header checksum is left alone: the caller decides when it is made true again.

use super::{be32, ipv4, put32};

/// Most option bytes that a header has room for.
pub const MAX: usize = 40;

/// End of the list.
const END: u8 = 0;
/// No operation.
const NOP: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 0x44;
const LOOSE_SOURCE_ROUTE: u8 = 0x83;
const CIPSO: u8 = 0x86;
const STRICT_SOURCE_ROUTE: u8 = 0x89;
const ROUTER_ALERT: u8 = 0x94;
/// Options with this bit are in every fragment.
const COPIED: u8 = 0x80;
/// Values of the timestamp option's flag: times alone, each behind its
/// address, and only at the addresses that the sender listed.
const TIME_ONLY: u8 = 0;
const TIME_AND_ADDRESS: u8 = 1;
const LISTED_ADDRESSES: u8 = 3;

/// What a header's options ask for, once received. Positions are bytes from
/// the start of the header; zero: no such option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    record_route: u8,
    timestamp: u8,
    source_route: u8,
    cipso: u8,
    /// A slot was taken on receipt whose address the way out decides.
    route_slot: bool,
    stamp_address: bool,
    stamp_time: bool,
    /// Bytes of the header have changed since its checksum was right.
    changed: bool,
}

/// The router that handles a header.
pub struct Router<'a> {
    /// The address it answers to, for a packet from there.
    pub address: u32,
    /// Time of day, as [`time_of_day`].
    pub time: u32,
    /// Whether an address is neither its own nor a group's.
    pub foreign: &'a dyn Fn(u32) -> bool,
}

/// A list that cannot be read: where the trouble is, in bytes from the start
/// of the header, as the ICMP parameter problem points to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub u8);

/// Milliseconds since midnight UTC as the timestamp option has them, from
/// nanoseconds since any midnight UTC.
pub const fn time_of_day(nanos: u64) -> u32 {
    (nanos / 1_000_000 % 86_400_000) as u32
}

impl Options {
    /// Whether the packet names routers that it wants to pass.
    pub fn source_routed(&self) -> bool {
        self.source_route != 0
    }

    /// Reads the options of an IPv4 header and fills in what is due on receipt:
    /// the next slots of record route and timestamp, zeroes behind the list's end.
    /// What was read before the trouble is in `self` also when it fails.
    ///
    /// # Errors
    /// [`Malformed`]. The header may have changed before that was found.
    pub fn receive(&mut self, header: &mut [u8], router: &Router<'_>) -> Result<(), Malformed> {
        let mut at = ipv4::HEADER;
        while let Some(&kind) = header.get(at) {
            match kind {
                END => {
                    self.changed |= header[at..].iter().any(|&byte| byte != END);
                    header[at..].fill(END);
                    return Ok(());
                }
                NOP => at += 1,
                _ => {
                    let length = header.get(at + 1).map_or(0, |&length| usize::from(length));
                    if length < 2 || at + length > header.len() {
                        return Err(Malformed(at as u8));
                    }
                    let option = &mut header[at..at + length];
                    self.option(option, at as u8, router)
                        .map_err(|offset| Malformed(at as u8 + offset))?;
                    at += length;
                }
            }
        }
        Ok(())
    }

    /// One option at `at`. Fails with the offset of the trouble in the option.
    fn option(&mut self, option: &mut [u8], at: u8, router: &Router<'_>) -> Result<(), u8> {
        match option[0] {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => {
                pointer(option, 3, 4)?;
                first(self.source_route)?;
                self.source_route = at;
                Ok(())
            }
            RECORD_ROUTE => {
                first(self.record_route)?;
                self.record(option, router)?;
                self.record_route = at;
                Ok(())
            }
            TIMESTAMP => {
                first(self.timestamp)?;
                self.stamp(option, router)?;
                self.timestamp = at;
                Ok(())
            }
            ROUTER_ALERT if option.len() < 4 => Err(1),
            // Without a domain of interpretation configured, every label is wrong.
            CIPSO => {
                first(self.cipso)?;
                self.cipso = at;
                Err(if option.len() < 8 { 1 } else { 2 })
            }
            _ => Ok(()),
        }
    }

    fn record(&mut self, option: &mut [u8], router: &Router<'_>) -> Result<(), u8> {
        let slot = pointer(option, 3, 4)?;
        if slot > option.len() {
            return Ok(());
        }
        room(option, slot, 4)?;
        put32(option, slot - 1, router.address);
        option[2] += 4;
        (self.route_slot, self.changed) = (true, true);
        Ok(())
    }

    fn stamp(&mut self, option: &mut [u8], router: &Router<'_>) -> Result<(), u8> {
        let slot = pointer(option, 4, 5)?;
        let flag = option[3] & 15;
        if slot > option.len() {
            return self.overflow(option, flag);
        }
        room(option, slot, 4)?;
        match flag {
            TIME_ONLY => put32(option, slot - 1, router.time),
            TIME_AND_ADDRESS | LISTED_ADDRESSES => {
                room(option, slot, 8)?;
                if flag == TIME_AND_ADDRESS {
                    put32(option, slot - 1, router.address);
                    self.stamp_address = true;
                } else if (router.foreign)(be32(option, slot - 1)) {
                    return Ok(());
                }
                put32(option, slot + 3, router.time);
            }
            _ => return Ok(()),
        }
        option[2] += if flag == TIME_ONLY { 4 } else { 8 };
        (self.stamp_time, self.changed) = (true, true);
        Ok(())
    }

    /// Counts a router that found no room for its timestamp.
    fn overflow(&mut self, option: &mut [u8], flag: u8) -> Result<(), u8> {
        if flag == LISTED_ADDRESSES {
            return Ok(());
        }
        if option[3] >> 4 == 15 {
            return Err(3);
        }
        option[3] += 0x10;
        self.changed = true;
        Ok(())
    }

    /// Completes the options of a packet that is sent on: the recorded route has
    /// `source`, the address of the way out (a timestamp keeps the one towards
    /// the sender, as in the kernel). Returns whether the header's checksum is no
    /// longer that of its bytes.
    pub fn forward(&mut self, header: &mut [u8], source: u32) -> bool {
        if self.route_slot {
            let option = usize::from(self.record_route);
            let slot_end = option + usize::from(header[option + 2]) - 1;
            put32(header, slot_end - 4, source);
        }
        std::mem::take(&mut self.changed)
    }

    /// Whether [`Options::forward`] needs a source address.
    pub fn wants_source(&self) -> bool {
        self.route_slot
    }

    /// Writes the options that an ICMP error about this header carries: those
    /// that record, continued. Returns how many bytes of `out` they take, a
    /// multiple of four; `None` when no error may be sent: a slot is cut short,
    /// or the packet has come along a source route, which is not retraced.
    pub fn echo(&self, header: &[u8], router: &Router<'_>, out: &mut [u8; MAX]) -> Option<usize> {
        let mut used = 0;
        let mut copy = |at: u8| {
            let source = option_at(header, at);
            let place = used..used + source.len();
            used = place.end;
            out[place.clone()].copy_from_slice(source);
            place
        };
        let record_route = (self.record_route != 0).then(|| copy(self.record_route));
        let timestamp = (self.timestamp != 0).then(|| copy(self.timestamp));
        if self.source_route != 0 {
            let route = option_at(header, self.source_route);
            if route.len() >= 7 && route[2] >= 8 {
                return None;
            }
        }
        if self.cipso != 0 {
            copy(self.cipso);
        }
        if let Some(place) = record_route {
            self.echo_route(&mut out[place], router)?;
        }
        if let Some(place) = timestamp {
            self.echo_stamp(&mut out[place], router)?;
        }
        let padded = used.next_multiple_of(4);
        out[used..padded].fill(END);
        Some(padded)
    }

    fn echo_route(&self, option: &mut [u8], router: &Router<'_>) -> Option<()> {
        let slot = usize::from(option[2]);
        if self.route_slot && slot <= option.len() {
            room(option, slot, 4).ok()?;
            put32(option, slot - 1, router.address);
            option[2] += 4;
        }
        Some(())
    }

    fn echo_stamp(&self, option: &mut [u8], router: &Router<'_>) -> Option<()> {
        let mut slot = usize::from(option[2]);
        let flag = option[3] & 15;
        if slot > option.len() {
            return Some(());
        }
        if self.stamp_address {
            room(option, slot, 4).ok()?;
            put32(option, slot - 1, router.address);
            slot += 4;
        }
        if self.stamp_time {
            room(option, slot, 4).ok()?;
            if flag != LISTED_ADDRESSES {
                put32(option, slot - 1, router.time);
                slot += 4;
            } else if room(option, slot, 8).is_ok() && !(router.foreign)(be32(option, slot - 1)) {
                put32(option, slot + 3, router.time);
                slot += 8;
            }
        }
        option[2] = slot as u8;
        Some(())
    }
}

/// An option's pointer, if the option is at least `length` bytes long and the
/// pointer at least `least`.
fn pointer(option: &[u8], length: usize, least: u8) -> Result<usize, u8> {
    if option.len() < length {
        Err(1)
    } else if option[2] < least {
        Err(2)
    } else {
        Ok(option[2].into())
    }
}

/// Whether `bytes` fit at the slot that the pointer names.
fn room(option: &[u8], slot: usize, bytes: usize) -> Result<(), u8> {
    if slot + bytes - 1 > option.len() { Err(2) } else { Ok(()) }
}

/// Whether an option that may occur once has not been met at `held`.
fn first(held: u8) -> Result<(), u8> {
    if held == 0 { Ok(()) } else { Err(0) }
}

/// The option at a position that [`Options::receive`] has noted; its length
/// lies inside the header.
fn option_at(header: &[u8], at: u8) -> &[u8] {
    let rest = &header[at.into()..];
    &rest[..rest[1].into()]
}

/// Turns the options that only a datagram's first fragment carries into
/// no-operations. A list that cannot be read is left as it is from there on.
pub fn blank_uncopied(options: &mut [u8]) {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            END => return,
            NOP => 1,
            _ => match options.get(at + 1) {
                Some(&length) if length >= 2 && at + usize::from(length) <= options.len() => {
                    usize::from(length)
                }
                _ => return,
            },
        };
        if kind & COPIED == 0 {
            options[at..at + length].fill(NOP);
        }
        at += length;
    }
}
