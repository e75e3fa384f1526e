//! Floods of SYNs: what is established stays, who is answered gets in, and who
//! fills the table is named.

use super::*;
use crate::conntrack::CtState;
use crate::wire::tcp::flags::{ACK, SYN};

const ESTABLISHED: u32 = 10_000;
const TABLE: u64 = 16_384;
const SYNS: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// 198.18.1.77
const FLOODER: u32 = 0xc612_014d;

/// A router that tracks, with a small table and so many established connections.
fn flooded(established: u32) -> Rig {
    let (mut v4, v6) = builders();
    v4.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(v4, v6));
    let mut config = Config::new([7; 16]);
    config.set("max", TABLE).unwrap();
    rig.conntrack = Conntrack::new(config).unwrap();
    for nth in 0..established {
        assert!(connects(&mut rig, CLIENT, nth));
    }
    rig
}

/// Ports of the `nth` connection.
fn ports(nth: u32) -> (u16, u16) {
    (1024 + (nth % 60_000) as u16, 80 + (nth / 60_000) as u16)
}

fn passes(sent: &Sent) -> bool {
    matches!(sent.disposition, Disposition::Transmit(_) | Disposition::AwaitNeighbour { .. })
}

/// Whether a client gets through its handshake.
fn connects(rig: &mut Rig, client: &str, nth: u32) -> bool {
    let (sport, dport) = ports(nth);
    let tcp = |flags| Packet::tcp(client, sport, SERVER, dport, flags);
    let answer = Packet::tcp(SERVER, dport, client, sport, SYN | ACK).seq(900, 101);
    passes(&rig.up(tcp(SYN).seq(100, 0)))
        && passes(&rig.down(answer))
        && passes(&rig.up(tcp(ACK).seq(101, 901)))
}

fn syn(rig: &mut Rig, source: u32, sport: u16) -> Disposition {
    // Nobody reads them.
    rig.seen.outcomes.clear();
    let source = std::net::Ipv4Addr::from(source).to_string();
    rig.up(Packet::tcp(&source, sport, SERVER, 80, SYN)).disposition
}

#[test]
fn a_flood_from_everywhere_costs_no_established_connection() {
    let mut rig = flooded(ESTABLISHED);
    for nth in 0..SYNS {
        // All of 16.0.0.0/4, in no order.
        syn(&mut rig, 0x1000_0000 | nth.wrapping_mul(0x9e37_79b1) >> 4, 4000);
        if nth % 10_000 == 0 {
            rig.now = rig.now + Nanos::from_millis(100);
            assert!(connects(&mut rig, CLIENT, ESTABLISHED + nth), "after {nth} SYNs");
        }
    }
    for nth in 0..ESTABLISHED {
        let (sport, dport) = ports(nth);
        let data = Packet::tcp(CLIENT, sport, SERVER, dport, ACK).seq(101, 901).payload_len(1);
        assert!(passes(&rig.up(data)), "connection {nth} is lost");
        let tracking = rig.seen.outcomes.pop().unwrap().tracking;
        assert_eq!(tracking.state, CtState::Established, "connection {nth}");
    }
    let counters = rig.conntrack.counters();
    assert!(counters.early_drop > u64::from(SYNS) - TABLE, "{counters:?}");
    assert!(rig.conntrack.pressure().crowded);
    assert_eq!(rig.conntrack.pressure().offenders, [], "nobody stands out");
}

#[test]
fn a_flood_from_one_host_stops_at_its_quota_and_the_host_is_named() {
    let mut rig = flooded(ESTABLISHED);
    let quota = dropped(DropReason::ConntrackQuota);
    let refused = (0..60_000).filter(|&nth| syn(&mut rig, FLOODER, nth) == quota).count();
    assert!(refused > 50_000, "{refused}");
    let pressure = rig.conntrack.pressure();
    assert!(pressure.refused >= refused as u64);
    assert_eq!(pressure.offenders[0].prefix.to_string(), "198.18.1.77/32");
    // Its neighbours get in.
    for nth in 0..100 {
        assert!(connects(&mut rig, "198.18.1.78", nth));
    }
    // With room in the table nobody has a quota.
    let ids: Vec<_> = rig.conntrack.rows(rig.now).map(|row| row.view.id).collect();
    ids.into_iter().for_each(|id| assert!(rig.conntrack.remove(id)));
    rig.conntrack.sweep(rig.now, 1);
    assert!(!rig.conntrack.pressure().crowded);
    assert!(matches!(syn(&mut rig, FLOODER, 9), Disposition::Transmit(_)));
}
