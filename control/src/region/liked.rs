//! Packets of a region that people know when they see them.

use dataplane::packet::{Family, MAX_PORTS};
use dataplane::policy::state_class;
use dataplane::wire::proto;

use super::{Point, Ranges, Region};

/// What people like to see in a packet, before anything else.
const PROTOCOLS: [u8; 9] = [6, 17, 1, 58, 132, 47, 50, 103, 89];
/// Services that everybody knows.
const SERVICES: [u16; 5] = [443, 80, 22, 53, 25];
/// Where connections come from.
const EPHEMERAL: u16 = 40_000;
/// TCP's SYN.
const SYN: u8 = 2;

/// The same packet with values that people know, where the region has them: a new connection to
/// a known service, if that is left open. `nth` is how often that was tried: later ones keep more of
/// what was picked.
pub fn liked(region: &Region, mut point: Point, family: Family, nth: u64) -> Point {
    if let Some(proto) = PROTOCOLS.into_iter().find(|it| region.proto.contains(*it)) {
        point.proto = proto;
    }
    if nth > 2 {
        return point;
    }
    let nets: [u128; 2] = match family {
        Family::V4 => [0xc612_0000, 0xc613_0000],
        Family::V6 => [0x2001_0db8 << 96, 0x2001_0db8 << 96 | 1 << 80],
    };
    let like = |set: &Ranges, value: u128, to: &mut u128| {
        if set.contains(value) {
            *to = value;
        }
    };
    like(&region.src, nets[0] + 2, &mut point.src);
    like(&region.dst, nets[1] + 2, &mut point.dst);
    if nth == 0 {
        ports(region, &mut point);
    }
    if region.flags.contains(SYN) {
        point.flags = SYN;
    }
    if region.classes[2] & state_class::NEW != 0 {
        point.classes[2] = state_class::NEW;
    }
    // Interfaces with names.
    for at in [0, 1] {
        let named = region.classes[at].trailing_zeros();
        if (named as usize) < MAX_PORTS {
            point.classes[at] = 1 << named;
        }
    }
    point
}

fn ports(region: &Region, point: &mut Point) {
    match point.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            if region.sport.contains(EPHEMERAL.into()) {
                point.sport = EPHEMERAL;
            }
            let open = |it: &u16| region.dport.contains(u128::from(*it));
            point.dport = SERVICES.into_iter().find(open).unwrap_or(point.dport);
        }
        // Echo requests.
        proto::ICMP if region.sport.contains(8) => point.sport = 8,
        proto::ICMPV6 if region.sport.contains(128) => point.sport = 128,
        _ => {}
    }
}
