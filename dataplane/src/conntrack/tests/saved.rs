//! Connections that change tables.

use super::super::status::{ASSURED, SEEN_REPLY, SRC_NAT};
use super::super::{ImportError, Memory, Saved, SeqShift};
use super::*;
use crate::policy::target::HelperKind;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// Everything in the table.
fn all(lab: &Lab) -> Vec<Saved> {
    (0..lab.ct.places()).filter_map(|at| lab.ct.export(at, lab.now)).collect()
}

/// Another process, `elapsed` later by the wall clock: another hash key, another
/// clock.
fn restarted(lab: &Lab, elapsed: u64) -> Lab {
    let mut config = Config::new([9; 16]);
    config.set("max", 1024).unwrap();
    config.set("tcp_loose", 0).unwrap();
    let after = Lab { ct: Conntrack::new(config).unwrap(), now: Nanos::from_secs(50_000) };
    for saved in all(lab) {
        let _ = after.ct.import(&saved, Nanos::from_secs(elapsed), after.now);
    }
    after
}

fn established() -> Lab {
    let lab = Lab::new(&[("tcp_loose", 0)]);
    lab.pass(&Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0)).unwrap();
    lab.pass(&Packet::tcp(B, 80, A, 1000, SYN | ACK).seq(9, 2)).unwrap();
    lab.pass(&Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10)).unwrap();
    lab
}

#[test]
fn a_connection_goes_on_where_it_was_though_both_ends_went_on() {
    let lab = established();
    // What the ends said in the meantime is far beyond the window.
    let data = Packet::tcp(A, 1000, B, 80, ACK).seq(1_000_000_000, 10).payload(&[0; 100]);
    assert_eq!(lab.denied(&data), CtState::Invalid);
    let after = restarted(&lab, 10);
    assert_eq!(after.entry(), "431990 ESTABLISHED [ASSURED]");
    assert_eq!(after.state(&data), CtState::Established);
    // The answer acknowledges what we have not seen.
    let ack = Packet::tcp(B, 80, A, 1000, ACK).seq(10, 1_000_900_000);
    assert_eq!(after.state(&ack), CtState::Established);
    assert_eq!(
        after.state(&Packet::tcp(A, 1000, B, 80, ACK).seq(1_000_900_000, 10)),
        CtState::Established
    );
}

#[test]
fn windows_are_learned_for_a_while_and_then_enforced() {
    let mut after = restarted(&established(), 0);
    assert_eq!(
        after.state(&Packet::tcp(A, 1000, B, 80, ACK).seq(500_000, 10)),
        CtState::Established
    );
    assert_eq!(
        after.state(&Packet::tcp(B, 80, A, 1000, ACK).seq(10, 500_000)),
        CtState::Established
    );
    let astray = Packet::tcp(A, 1000, B, 80, ACK).seq(900_000_000, 10).payload(&[0; 9]);
    after.wait(121);
    assert_eq!(after.denied(&astray), CtState::Invalid);
}

#[test]
fn a_guessed_reset_does_not_end_what_was_restored() {
    let after = restarted(&established(), 0);
    after.state(&Packet::tcp(B, 80, A, 1000, RST).seq(77_777, 0));
    assert_eq!(after.row().view.tcp.map(|state| state.name()), Some("ESTABLISHED"));
    // The real one is where the other end expects it.
    after.state(&Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10));
    after.state(&Packet::tcp(B, 80, A, 1000, RST).seq(10, 0));
    assert_eq!(after.row().view.tcp.map(|state| state.name()), Some("CLOSE"));
}

#[test]
fn everything_a_connection_carries_comes_along() {
    let lab = established();
    let id = lab.row().view.id;
    lab.ct.set_mark(id, 0x55);
    let shift = SeqShift { position: 7, before: -3, after: 4 };
    {
        let entry = lab.ct.store.lock(id).unwrap();
        entry.add_status(SRC_NAT);
        entry.update_extras(|extras| {
            extras.set_labels(1 << 100 | 1);
            extras.set_helper(Some(HelperKind::Irc));
            extras.set_timeouts(Some(3));
            extras.set_masquerade_port(Some(4));
            extras.set_events(5);
            extras.set_shift(Direction::Reply, shift);
            extras.set_synproxy((1, 2, 3));
            extras.set_start(lab.now.0 - 8_000_000_000);
            extras.set_memory(&Memory { numbers: [[6, 7], [8, 9]], flags: 5, ..Memory::default() });
        });
        entry.account(Direction::Original, 1500);
    }
    let [saved] = all(&lab)[..] else { panic!("one connection") };
    assert_eq!((saved.master, saved.age), (None, Some(Nanos::from_secs(8))));
    assert_eq!((saved.mark, saved.masquerade_port()), (0x55, Some(4)));
    assert_eq!(saved.status & (SEEN_REPLY | ASSURED | SRC_NAT), SEEN_REPLY | ASSURED | SRC_NAT);
    let after = restarted(&lab, 2);
    let [again] = all(&after)[..] else { panic!("one connection") };
    assert_eq!(again.left, saved.left.saturating_sub(Nanos::from_secs(2)));
    assert_eq!(again.age, Some(Nanos::from_secs(10)));
    let number = again.number;
    // Only TCP's windows are forgotten, and they once and for all.
    let third = restarted(&after, 0);
    let [third] = all(&third)[..] else { panic!("one connection") };
    assert_eq!(Saved { number, ..third }, again);
    assert_eq!(again.words[1 + 8..], saved.words[1 + 8..]);
    assert_eq!((again.original, again.reply), (saved.original, saved.reply));
}

#[test]
fn what_is_over_or_in_the_way_is_not_imported() {
    let lab = Lab::new(&[]);
    lab.pass(&Packet::udp(A, 1, B, 53)).unwrap();
    assert!(lab.track(&Packet::udp(A, 2, B, 53)).is_ok(), "an unconfirmed one is not exported");
    let [saved] = all(&lab)[..] else { panic!("one connection") };
    let second = Nanos::SECOND;
    let import = |saved: &Saved, elapsed| lab.ct.import(saved, Nanos(elapsed), lab.now);
    assert_eq!(import(&saved, 30 * second.0), Err(ImportError::Expired));
    assert_eq!(import(&saved, 0), Err(ImportError::Clash));
    let mut wrong = saved;
    wrong.original.src = 1 << 40;
    assert_eq!(import(&wrong, 0), Err(ImportError::Unsound));
    let full = Lab::new(&[]);
    full.ct.set("max", 1).unwrap();
    full.pass(&Packet::udp(A, 9, B, 9)).unwrap();
    assert_eq!(full.ct.import(&saved, Nanos(0), full.now), Err(ImportError::Full));
    assert_eq!(full.ct.len(), 1, "nothing was evicted for it");
    // The stream's probation goes on.
    let mut after = restarted(&lab, 1);
    after.state(&Packet::udp(B, 53, A, 1));
    assert_eq!(after.entry(), "30 -");
    after.wait(2);
    after.state(&Packet::udp(A, 1, B, 53));
    assert_eq!(after.entry(), "120 - [ASSURED]");
    // Restored connections end like others.
    let closing = restarted(&established(), 0);
    closing.state(&Packet::tcp(A, 1000, B, 80, FIN | ACK).seq(2, 10));
    assert_eq!(closing.entry(), "120 FIN_WAIT [ASSURED]");
}
