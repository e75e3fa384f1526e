//! Differences against packets: what the interpreter says of both policies.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::conntrack::CtState;
use dataplane::packet::{Family, L4Class, Mac};
use dataplane::policy::Hook;
use dataplane::sets::Registry;
use dataplane::wire::{self, Frame};
use proptest::prelude::*;

use super::*;
use crate::interpret::generate::{self, PORTS};
use crate::interpret::{DropCause, Interpreter, Packet, Subject, Tracked, Verdict as Walked};
use crate::iptables;
use crate::model::Chain;
use crate::region::{Point, stands_for};
use dataplane::clock::Nanos;
use dataplane::packet::PortId;

const STATES: [CtState; 5] =
    [CtState::Invalid, CtState::New, CtState::Established, CtState::Related, CtState::Untracked];

#[derive(Clone, Debug)]
struct Probe {
    frame: Vec<u8>,
    ports: [usize; 2],
    state: CtState,
}

fn probes(family: Family) -> impl Strategy<Value = Vec<Probe>> {
    let one = (generate::frame(family), 0..PORTS.len(), 0..PORTS.len(), 0..STATES.len());
    let one = one.prop_map(|(frame, input, output, state)| Probe {
        frame,
        ports: [input, output],
        state: STATES[state],
    });
    prop::collection::vec(one, 60..80)
}

/// What is done to a policy.
#[derive(Clone, Debug)]
enum Edit {
    Remove(usize, usize),
    Swap(usize, usize),
    Insert(usize, usize, usize),
    Policy,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let chain = 0_usize..5;
    let at = 0_usize..30;
    prop::collection::vec(
        prop_oneof![
            3 => (chain.clone(), at.clone()).prop_map(|(chain, at)| Edit::Remove(chain, at)),
            3 => (chain.clone(), at.clone()).prop_map(|(chain, at)| Edit::Swap(chain, at)),
            2 => (chain, at.clone(), at).prop_map(|(chain, from, to)| Edit::Insert(chain, from, to)),
            1 => Just(Edit::Policy),
        ],
        1..4,
    )
}

fn edited(rules: &Ruleset, edits: &[Edit]) -> Ruleset {
    let mut rules = rules.clone();
    for edit in edits {
        let chains: &mut Vec<Chain> = &mut rules.tables[0].chains;
        match *edit {
            Edit::Remove(chain, at) => {
                let list = &mut chains[chain].rules;
                if !list.is_empty() {
                    list.remove(at % list.len());
                }
            }
            Edit::Swap(chain, at) => {
                let list = &mut chains[chain].rules;
                if list.len() > 1 {
                    let at = at % (list.len() - 1);
                    list.swap(at, at + 1);
                }
            }
            Edit::Insert(chain, from, to) => {
                // A copy keeps to chains behind its own.
                let list = &mut chains[chain].rules;
                if !list.is_empty() {
                    let rule = list[from % list.len()].clone();
                    list.insert(to % list.len(), rule);
                }
            }
            Edit::Policy => {
                if let Some((policy, _)) = &mut chains[0].policy {
                    use dataplane::policy::ChainPolicy::{Accept, Drop};
                    *policy = if *policy == Accept { Drop } else { Accept };
                }
            }
        }
    }
    rules
}

/// The verdict and what the packet's mark is then; `None`: beyond what regions tell.
fn walked(rules: &Ruleset, probe: &Probe) -> Option<(String, Fate)> {
    let Ok(Frame::Ip(parsed)) = wire::parse(&probe.frame, Mac::default()) else { return None };
    if parsed.l4_class == L4Class::Odd {
        return None;
    }
    let mut subject = Subject {
        packet: Packet::read(&probe.frame)?,
        input: PORTS[probe.ports[0]],
        output: PORTS[probe.ports[1]],
        has_link_header: true,
        path_mtu: 1500,
        realms: Default::default(),
        mark: 0,
        tracked: Tracked { state: probe.state, original: true, connection: None },
        template: None,
        now: Nanos::from_secs(100),
        utc_offset: Nanos(0),
        minutes_west: 0,
        dice: Default::default(),
        hook: Hook::Forward,
        cpu: 0,
        owner: None,
        priority: 0,
        network: None,
        conntrack: None,
    };
    let table = rules.tables[0].id;
    let mut walker = Interpreter::new(rules);
    let fate = match walker.table(table, Hook::Forward, &mut subject, &mut |_| {}) {
        Walked::Accept => Fate::Accept,
        // A match that finds its header malformed drops it.
        Walked::Drop(DropCause::Hotdrop) => return None,
        Walked::Drop(_) => Fate::Drop,
        Walked::Reject(with) => Fate::reject(with),
        Walked::Translate(nat) => Fate::Translate(format!("{nat:?}")),
        Walked::Synproxy(_) => return None,
    };
    Some((format!("{fate:?} {:x}", subject.mark), fate))
}

/// A probe as regions see it; ports are those of the report.
fn point(probe: &Probe, ports: &[String]) -> Option<Point> {
    let Ok(Frame::Ip(parsed)) = wire::parse(&probe.frame, Mac::default()) else { return None };
    let bit = |name: &str| PortId(stands_for(ports, name) as u8).bit();
    Some(Point {
        src: parsed.src,
        dst: parsed.dst,
        sport: parsed.sport,
        dport: parsed.dport,
        proto: parsed.proto,
        flags: parsed.tcp_flags,
        classes: [
            bit(PORTS[probe.ports[0]]),
            bit(PORTS[probe.ports[1]]),
            probe.state.bit(),
            parsed.l4_class.bit(),
        ],
        atoms: Vec::new(),
    })
}

fn difference(old: &Ruleset, new: &Ruleset) -> Option<Report> {
    let sets = Arc::new(Registry::default());
    let (old, new) = (Policy { rules: old, sets: &sets }, Policy { rules: new, sets: &sets });
    compare(old, new, &BTreeSet::new(), Bounds { effort: 3_000_000, tries: 8 }, &mut |_| {}).ok()
}

fn check(rules: &Ruleset, edits: &[Edit], probes: &[Probe]) -> Result<(), TestCaseError> {
    // Other tables have no such hook.
    if !matches!(rules.tables[0].id, TableId::Filter | TableId::Mangle) {
        return Ok(());
    }
    let other = edited(rules, edits);
    let Some(report) = difference(rules, &other) else { return Ok(()) };
    let ports = ports([rules, &other]).expect("few are named");
    let table = rules.tables[0].id.name();
    let at_forward = |it: &&Change| it.hook == "FORWARD" && it.table == table;
    let changes: Vec<&Change> = report.changes.iter().filter(at_forward).collect();
    // Prerouting and the others are empty.
    prop_assert_eq!(changes.len(), report.changes.len());
    for probe in probes {
        let (Some(one), Some(two)) = (walked(rules, probe), walked(&other, probe)) else {
            continue;
        };
        let Some(point) = point(probe, &ports) else { continue };
        let holds =
            |region: &Region| Region { atoms: Vec::new(), ..region.clone() }.contains(&point);
        if one.0 != two.0 && report.complete {
            let told = changes.iter().any(|it| it.raw.iter().any(holds));
            prop_assert!(
                told,
                "{probe:?}: {one:?} becomes {two:?}, which no change says: {report:#?}"
            );
        }
        for change in &changes {
            let sure = |it: &Region| it.atoms.is_empty() && it.contains(&point);
            if change.raw.iter().any(sure) {
                let said = [&change.before, &change.after].map(|it| it.verdict);
                let met = [&one.1, &two.1].map(|fate| Said::of(fate).verdict);
                prop_assert_eq!(said, met, "{:?} against {:?}", probe, change);
            }
        }
    }
    for change in &changes {
        let sure = change.raw.iter().any(|it| it.atoms.is_empty() && !it.is_empty());
        let fragment = change.raw.iter().all(|it| it.classes[3] != L4Class::Whole.bit());
        let witness = change.witness.as_ref();
        // What is static is confirmed by a packet, unless only odd protocols are left.
        if sure && !fragment && change.raw.len() == 1 && common(&change.raw[0]) {
            prop_assert!(witness.is_some_and(|it| it.confirmed), "{change:#?}");
        }
    }
    Ok(())
}

fn common(region: &Region) -> bool {
    [6, 17, 132].iter().any(|it| region.proto.contains(*it))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_changes_is_what_packets_meet_v4(
        rules in generate::ruleset(Family::V4), edits in edits(), probes in probes(Family::V4),
    ) {
        check(&rules, &edits, &probes)?;
    }

    #[test]
    fn what_changes_is_what_packets_meet_v6(
        rules in generate::ruleset(Family::V6), edits in edits(), probes in probes(Family::V6),
    ) {
        check(&rules, &edits, &probes)?;
    }
}

fn parsed(rules: &str) -> Ruleset {
    let text = format!("*filter\n:FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n");
    let parsed = iptables::parse(&text, "test", Family::V4, &TableNames::well_known());
    parsed.expect("the rules load").ruleset
}

fn found(old: &str, new: &str) -> Report {
    difference(&parsed(old), &parsed(new)).expect("both compile")
}

#[test]
fn a_port_more_is_one_region_with_a_witness() {
    let rule = |ports: &str| format!("-A FORWARD -p tcp -m multiport --dports {ports} -j ACCEPT\n");
    let report = found(&rule("80"), &rule("80,443"));
    assert!(report.complete, "{report:#?}");
    let [change] = &report.changes[..] else { panic!("{report:#?}") };
    assert_eq!((change.table, change.hook), ("filter", "FORWARD"));
    assert_eq!(change.before.verdict, Verdict::Drop);
    assert_eq!(change.before.rule, None);
    assert_eq!((change.after.verdict, change.after.line), (Verdict::Accept, Some(4)));
    assert_eq!(change.regions, ["proto tcp dport 443"]);
    let witness = change.witness.as_ref().expect("there is a packet");
    assert!(witness.confirmed && witness.packet.contains(&"dport=443".to_owned()), "{witness:?}");
}

#[test]
fn moving_what_does_not_meet_changes_nothing_and_what_meets_does() {
    let (a, b) =
        ("-A FORWARD -s 198.18.0.0/24 -j ACCEPT\n", "-A FORWARD -s 198.19.0.0/24 -j DROP\n");
    let report = found(&format!("{a}{b}"), &format!("{b}{a}"));
    assert!(report.complete && report.changes.is_empty(), "{report:#?}");
    let c = "-A FORWARD -p udp -j DROP\n";
    let report = found(&format!("{a}{c}"), &format!("{c}{a}"));
    assert_eq!(report.changes.len(), 1);
    assert_eq!(report.changes[0].regions[0], "src 198.18.0.0/24 proto udp");
}

#[test]
fn comments_and_logs_change_no_fate() {
    let report = found(
        "-A FORWARD -p tcp -m comment --comment a -j ACCEPT\n",
        "-A FORWARD -j LOG\n-A FORWARD -p tcp -m comment --comment b -j ACCEPT\n",
    );
    assert!(report.complete && report.changes.is_empty(), "{report:#?}");
}

#[test]
fn unknowns_are_named() {
    let report = found(
        "-A FORWARD -p tcp -j ACCEPT\n",
        "-A FORWARD -p tcp -m limit --limit 5/sec -j ACCEPT\n",
    );
    let [change] = &report.changes[..] else { panic!("{report:#?}") };
    assert_eq!(change.unknowns, ["-m limit --limit 5/sec"]);
    assert!(change.regions[0].ends_with("unless -m limit --limit 5/sec"), "{:?}", change.regions);
}

#[test]
fn a_policy_changes_what_no_rule_takes() {
    let rules = "-A FORWARD -p tcp -j ACCEPT\n";
    let old = parsed(rules);
    let new = edited(&old, &[Edit::Policy]);
    let report = difference(&old, &new).expect("both compile");
    assert!(report.complete, "{report:#?}");
    let regions: usize = report.changes.iter().map(|it| it.region_count).sum();
    assert!(regions >= 3, "all but TCP: {report:#?}");
    assert!(report.changes.iter().all(|it| it.witness.as_ref().is_some_and(|it| it.confirmed)));
}
