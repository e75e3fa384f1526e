//! IPv4 options as a router meets them: malformed ones are answered with a
//! parameter problem, source routes are refused, record-route gets an address.
//!
//! Not done, unlike the kernel: the timestamp option passes as it came, because
//! the engine knows no time of day; and ICMP errors do not echo options.

use crate::wire::ipv4;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const CIPSO: u8 = 134;
const STRICT_SOURCE_ROUTE: u8 = 137;
const ROUTER_ALERT: u8 = 148;

/// What the options of a packet ask of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    Pass,
    /// Something that [`record`] does.
    Record,
    /// A source route, which no one should honour.
    SourceRoute,
    /// Malformed at this offset in the IP header.
    Problem(u8),
}

/// Reads the options of an IP header (`header` is the whole of it).
pub(super) fn read(header: &[u8]) -> Asked {
    let mut asked = Asked::Pass;
    let mut seen = [false; 256];
    let mut at = ipv4::HEADER;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => {
                let clean = header[at..].iter().all(|&byte| byte == END);
                return if clean || asked != Asked::Pass { asked } else { Asked::Record };
            }
            NO_OPERATION => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let length = header.get(at + 1).map_or(0, |&length| usize::from(length));
        let Some(option) = header.get(at..at + length).filter(|option| option.len() >= 2) else {
            return Asked::Problem(at as u8);
        };
        let once = matches!(
            kind,
            RECORD_ROUTE | TIMESTAMP | CIPSO | LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE
        );
        let again = std::mem::replace(&mut seen[usize::from(kind)], true);
        if once && again {
            return Asked::Problem(at as u8);
        }
        if let Some(offset) = problem(kind, option) {
            return Asked::Problem((at + offset) as u8);
        }
        match kind {
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => asked = Asked::SourceRoute,
            RECORD_ROUTE if asked == Asked::Pass && has_room(option) => asked = Asked::Record,
            _ => {}
        }
        at += length;
    }
    asked
}

/// Where in a single option the kernel finds fault with it.
fn problem(kind: u8, option: &[u8]) -> Option<usize> {
    let pointer = option.get(2).map_or(0, |&pointer| usize::from(pointer));
    let fits = |bytes: usize| pointer > option.len() || pointer - 1 + bytes <= option.len();
    match kind {
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE | RECORD_ROUTE if option.len() < 3 => Some(1),
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE | RECORD_ROUTE if pointer < 4 => Some(2),
        RECORD_ROUTE if !fits(4) => Some(2),
        TIMESTAMP | ROUTER_ALERT if option.len() < 4 => Some(1),
        TIMESTAMP if pointer < 5 => Some(2),
        TIMESTAMP if pointer > option.len() => {
            let (overflow, form) = (option[3] >> 4, option[3] & 15);
            (overflow == 15 && form != 3).then_some(3)
        }
        TIMESTAMP => {
            let slot = if matches!(option[3] & 15, 1 | 3) { 8 } else { 4 };
            (!fits(slot)).then_some(2)
        }
        // No domain of interpretation is configured here.
        CIPSO => Some(if option.len() < 8 { 1 } else { 2 }),
        _ => None,
    }
}

fn has_room(record_route: &[u8]) -> bool {
    usize::from(record_route[2]) <= record_route.len()
}

/// Does what [`Asked::Record`] asks: writes `address` into record-route, and
/// clears what stands behind the end of the list. [`read`] has checked the header.
/// Gives the place of the address in the header, if there was room for one.
pub(super) fn record(header: &mut [u8], address: u32) -> Option<usize> {
    let mut at = ipv4::HEADER;
    let mut place = None;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => {
                header[at..].fill(END);
                break;
            }
            NO_OPERATION => at += 1,
            _ => {
                let length = usize::from(header[at + 1]);
                let option = &mut header[at..at + length];
                if kind == RECORD_ROUTE && has_room(option) {
                    let slot = usize::from(option[2]) - 1;
                    option[slot..slot + 4].copy_from_slice(&address.to_be_bytes());
                    option[2] += 4;
                    place = Some(at + slot);
                }
                at += length;
            }
        }
    }
    fill_checksum(header);
    place
}

/// Replaces the address that [`record`] wrote at `place`.
pub(super) fn complete(header: &mut [u8], place: usize, address: u32) {
    header[place..place + 4].copy_from_slice(&address.to_be_bytes());
    fill_checksum(header);
}

fn fill_checksum(header: &mut [u8]) {
    if let Ok(mut ip) = ipv4::Packet::new_header(header) {
        ip.fill_checksum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel answered when it was asked (Linux 6.18).
    #[test]
    fn options_are_read_as_the_kernel_reads_them() {
        for (options, asked) in [
            (&[1, 1, 1, 1][..], Asked::Pass),
            (&[7, 7, 4, 0, 0, 0, 0, 0], Asked::Record),
            (&[7, 7, 8, 1, 2, 3, 4, 0], Asked::Pass),
            (&[7, 3, 4, 0], Asked::Pass),
            (&[7, 7, 6, 0, 0, 0, 0, 0], Asked::Problem(22)),
            (&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0], Asked::Pass),
            (&[68, 4, 5, 0xf0], Asked::Problem(23)),
            (&[131, 7, 4, 198, 18, 2, 2, 0], Asked::SourceRoute),
            (&[131, 7, 8, 198, 18, 2, 2, 0], Asked::SourceRoute),
            (&[148, 4, 0, 0], Asked::Pass),
            (&[7, 0x30, 4, 0], Asked::Problem(20)),
            (&[0x1f, 4, 0, 0], Asked::Pass),
            (&[0x1f, 1, 0, 0], Asked::Problem(20)),
            (&[134, 6, 0, 0, 0, 1, 0, 0], Asked::Problem(21)),
            (&[0, 7, 7, 7], Asked::Record),
            (&[7, 7, 4, 0, 0, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0, 0], Asked::Problem(27)),
        ] {
            let mut header = vec![0; 20];
            header.extend_from_slice(options);
            assert_eq!(read(&header), asked, "{options:?}");
        }
    }
}
