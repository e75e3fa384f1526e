//! What packet sockets must see although INPUT does not accept it: DHCP.
//!
//! A DHCP client has no address yet: it sends and receives by packet socket, which
//! in a kernel sees frames before any rule does (so do some servers and relays).
//! Frames that INPUT accepts reach it through the TAP like everything else.
//! Others of this protocol are written there too, but addressed to another
//! machine: the kernel shows them to packet sockets and to nothing else.
//!
//! Limits: [`KEPT_MAX`] a burst and [`RATE`] a second of each worker.

use arrayvec::ArrayVec;

use super::{Pipeline, Worker};
use crate::clock::Nanos;
use crate::packet::PortId;
use crate::port::{Frame, Port};
use crate::verdict::Disposition;
use crate::wire::{ethernet, ethertype, proto};

/// Frames of one burst that are shown at most.
const KEPT_MAX: usize = 16;
/// Frames that are shown in a second at most.
const RATE: u32 = 1000;
/// A unicast address that no port has.
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
/// Where servers and relays listen, and clients.
const PORTS: [u16; 2] = [67, 68];

/// Copies of what a burst holds for packet sockets.
#[derive(Debug, Default)]
pub(super) struct Overheard {
    /// By place in the burst.
    kept: ArrayVec<(usize, Frame), KEPT_MAX>,
    /// When the current second began, and how many may still be shown in it.
    second: Nanos,
    left: u32,
}

impl<P: Port, L: Pipeline> Worker<P, L> {
    /// Copies what may have to be shown, before the engine changes it.
    pub(super) fn overhear(&mut self, now: Nanos) {
        let Overheard { kept, second, left } = &mut self.overheard;
        for (at, frame) in self.burst.iter().enumerate() {
            if !is_dhcp(self.pool.memory().bytes(frame)) {
                continue;
            }
            if now.saturating_sub(*second) >= Nanos::SECOND {
                (*second, *left) = (now, RATE);
            }
            if *left == 0 || kept.is_full() {
                return;
            }
            let (memory, free) = self.pool.split();
            let copied = crate::port::pool::copy_in(memory, free, memory.bytes(frame));
            let Some(mut copy) = copied else { return };
            memory.bytes_mut(&mut copy)[..NOBODY.len()].copy_from_slice(&NOBODY);
            *left -= 1;
            kept.push((at, copy));
        }
    }

    /// Shows what INPUT did not accept.
    pub(super) fn show(&mut self, decided: &[(PortId, usize, usize, Disposition)]) {
        for (at, frame) in self.overheard.kept.drain(..) {
            let (port, .., disposition) = decided[at];
            let accepted = matches!(disposition, Disposition::Deliver | Disposition::Delivered);
            let (memory, free) = self.pool.split();
            match &mut self.host {
                // A full queue loses it, as a socket's would.
                Some(host) if !accepted => host.show(memory, free, port, frame),
                _ => free.put(frame),
            }
        }
    }
}

/// Whether an untagged frame is DHCP over IPv4, by its ports.
fn is_dhcp(frame: &[u8]) -> bool {
    const L3: usize = ethernet::HEADER;
    let Some(ip) = frame.get(L3..L3 + 20) else { return false };
    let later = ip[6] & 0x1f != 0 || ip[7] != 0;
    if frame[12..L3] != ethertype::IPV4.to_be_bytes() || ip[9] != proto::UDP || later {
        return false;
    }
    let to = L3 + usize::from(ip[0] & 0x0f) * 4 + 2;
    let Some(port) = frame.get(to..).and_then(<[u8]>::first_chunk) else { return false };
    PORTS.contains(&u16::from_be_bytes(*port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::Packet;

    #[test]
    fn dhcp_is_told_by_its_ports() {
        let udp = |dport| Packet::udp("0.0.0.0", 68, "255.255.255.255", dport).build();
        assert!(is_dhcp(&udp(67)) && is_dhcp(&udp(68)));
        assert!(!is_dhcp(&udp(69)));
        let mut fragment = udp(68);
        fragment[21] = 1;
        assert!(!is_dhcp(&fragment));
        for cut in 0..38 {
            assert!(!is_dhcp(&udp(68)[..cut]), "{cut}");
        }
        assert!(!is_dhcp(&Packet::tcp("198.18.1.2", 1, "198.18.1.1", 68, 2).build()));
        assert!(!is_dhcp(&Packet::udp("2001:db8::1", 1, "2001:db8::2", 68).build()));
    }
}
