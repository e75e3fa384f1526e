//! `string`, `u32`, `bpf`, `quota`, `statistic` and `time` against netfilter: hundreds of
//! rules over each packet, compared by their counters. Needs root.
//!
//! `PORTCULLIS_DIFF_RULESETS` and `PORTCULLIS_DIFF_SEED` make the run longer, or another.

#[allow(dead_code, reason = "shared with the differential test, which uses all of it")]
mod diff;
mod lab;

use dataplane::clock::{Nanos, wall_us};
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::measure::MeasureMatch;
use dataplane::policy::measure::time::DAY_S;
use dataplane::policy::scene::{Dice, Scene};
use diff::extra::payload;
use diff::packets::{self, Entry, Packet};
use diff::rng::Rng;
use diff::rules::{RuleText, RulesetText};
use diff::{Case, compare, kernel, replay};
use lab::Lab;
use lab::frames::{self, Ip};
use portcullis::iptables::{TableNames, parse};
use portcullis::model::MatchBody;

/// Rules that each packet meets.
const RULES: usize = 150;
/// Packets of one ruleset.
const PACKETS: usize = 60;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A ruleset with these matches in mangle FORWARD, which only count.
fn counting(v6: bool, matches: Vec<String>) -> RulesetText {
    let mut rules = RulesetText::empty(v6);
    let mangle = rules.tables.iter_mut().find(|table| table.name == "mangle");
    let chains = mangle.into_iter().flat_map(|table| &mut table.chains);
    for chain in chains.filter(|chain| chain.name == "FORWARD") {
        let rule = |text: &String| RuleText { parts: vec![text.clone()], target: String::new() };
        chain.rules = matches.iter().map(rule).collect();
    }
    rules
}

/// Packets from one network to another, of all lengths and contents.
fn plain_packets(rng: &mut Rng, v6: bool) -> Vec<Packet> {
    let one = |rng: &mut Rng| {
        let (from, to) = (lab::address(v6, 0, 10), lab::address(v6, 1, 10));
        let mut ip = Ip::new(from, to, rng.pick(&[17, 6, 253]));
        ip.tos = rng.pick(&[0, 0x10, 0xff]);
        let len = rng.pick(&[0, 1, 3, 7, 8, 9, 20, 21, 33, 64, 200, 1_200]);
        // Few letters, so that patterns nearly fit in many places.
        let letters = b"abAB\x00\xff\xdf";
        let body: Vec<u8> = (0..len).map(|_| rng.pick(letters)).collect();
        let bytes = frames::ip_frame(lab::port_mac(0), lab::host_mac(0, 10), &ip.packet(&body));
        Packet { entry: Entry::Port(0), bytes, note: format!("{len} bytes") }
    };
    (0..PACKETS).map(|_| one(rng)).collect()
}

fn check(lab: &Lab, case: &Case, seed: u64) {
    let (theirs, times) = kernel::run(lab, case).expect("the kernel takes the rules");
    let ours = replay::run(case, &times).expect("so do we");
    let found = compare::differences(case, &theirs, &ours);
    let first: Vec<_> = found.iter().take(8).collect();
    let rules = case.rules.text();
    assert!(found.is_empty(), "seed {seed}: {} differences: {first:#?}\n{rules}", found.len());
}

#[test]
fn bytes_and_amounts_are_judged_as_the_kernel_judges_them() {
    let mut lab = Lab::new();
    lab.join_links();
    let first = setting("PORTCULLIS_DIFF_SEED", 1);
    let mut hits = 0;
    for seed in first..first + setting("PORTCULLIS_DIFF_RULESETS", 8) {
        let mut rng = Rng(seed);
        let v6 = rng.chance(40);
        let rules = packets::Rules { conntrack: false, rejects: false };
        let packets = match rng.chance(50) {
            true => packets::generate(&mut rng, v6, PACKETS, rules),
            false => plain_packets(&mut rng, v6),
        };
        let one = |rng: &mut Rng| {
            let like = &packets[rng.below(packets.len())].bytes;
            match rng.below(10) {
                0..4 => payload::string(rng, like.get(14..).unwrap_or_default()),
                4..8 => payload::on_bytes(rng, v6),
                _ => payload::on_amounts(rng, false),
            }
        };
        let matches = (0..RULES).map(|_| one(&mut rng)).collect();
        let case =
            Case { rules: counting(v6, matches), packets, default_routes: false, conntrack: false };
        check(&lab, &case, seed);
        hits += kernel::run(&lab, &case).map_or(0, |(seen, _)| {
            seen.counters.values().filter(|(packets, _)| *packets > 0).count()
        });
    }
    assert!(hits > 100, "{hits} rules were met in all");
}

/// Loads the matches on the kernel's side, and sends one packet past them.
fn met(lab: &Lab, matches: &[String]) -> Vec<bool> {
    lab.restore(false, &counting(false, matches.to_vec()).text()).expect("the kernel takes them");
    let ip = Ip::new(lab::address(false, 0, 10), lab::address(false, 1, 10), 17);
    let packet = ip.packet(&frames::udp(&ip, 1, 2, 3));
    lab.inject(0, &frames::ip_frame(lab::port_mac(0), lab::host_mac(0, 10), &packet));
    let (counters, _) = diff::read_saved(&lab.save(false));
    let key = |rule| ("mangle".to_owned(), "FORWARD".to_owned(), Some(rule));
    (0..matches.len()).map(|rule| counters[&key(rule)].0 > 0).collect()
}

fn parsed(matches: &[String]) -> Vec<Match> {
    let text = counting(false, matches.to_vec()).text();
    let names = TableNames::well_known();
    let parsed = parse(&text, "rules", Family::V4, &names).expect("we take them");
    let mangle = parsed.ruleset.tables.iter().find(|table| table.id.name() == "mangle");
    let chain = mangle.and_then(|table| table.chain("FORWARD")).expect("the chain");
    let one = |rule: &portcullis::model::Rule| match &rule.matches[0].body {
        MatchBody::Plain(body) => body.clone(),
        other => panic!("not a plain match: {other:?}"),
    };
    chain.rules.iter().map(one).collect()
}

/// Rules whose bounds lie around this moment.
fn around_now(rng: &mut Rng, now_s: u64) -> String {
    let mut text = "-m time".to_owned();
    let near = |rng: &mut Rng| rng.pick(&[-86_400_i64, -3_600, -2, -1, 0, 1, 2, 3_600, 86_400]);
    let of_day = |s: i64| {
        let s = s.rem_euclid(i64::from(DAY_S));
        format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
    };
    let date = |s: i64| {
        let days = s.div_euclid(i64::from(DAY_S));
        // Years from 2000 on, by counting.
        let (mut year, mut left) = (1970, days);
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        while left >= 365 + i64::from(leap(year)) {
            left -= 365 + i64::from(leap(year));
            year += 1;
        }
        let months = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while left >= months[month] {
            left -= months[month];
            month += 1;
        }
        format!("{year}-{:02}-{:02}T{}", month + 1, left + 1, of_day(s))
    };
    let now_s = now_s as i64;
    let (start, stop) = (now_s + near(rng), now_s + near(rng));
    if rng.chance(60) {
        text += &format!(" --timestart {} --timestop {}", of_day(start), of_day(stop));
        let (start, stop) = (start.rem_euclid(86_400), stop.rem_euclid(86_400));
        if start >= stop && rng.chance(50) {
            text += " --contiguous";
        }
    }
    if rng.chance(40) {
        text += &format!(" --datestart {}", date(now_s + near(rng)));
    }
    if rng.chance(40) {
        text += &format!(" --datestop {}", date(now_s + near(rng)));
    }
    if rng.chance(30) {
        let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let bang = if rng.chance(50) { "! " } else { "" };
        text += &format!(" {bang}--weekdays {},{}", rng.pick(&days), rng.pick(&days));
    }
    if rng.chance(30) {
        let bang = if rng.chance(50) { "! " } else { "" };
        text += &format!(" {bang}--monthdays {},{}", 1 + rng.below(31), 1 + rng.below(31));
    }
    text
}

#[test]
fn times_around_now_hold_as_in_the_kernel() {
    let lab = Lab::new();
    let (mut rng, dice) = (Rng(setting("PORTCULLIS_DIFF_SEED", 1)), Dice::default());
    let scene = Scene { utc_offset: Nanos(0), minutes_west: 0, cpu: 0, dice: &dice };
    let (mut compared, mut held) = (0, 0);
    for _ in 0..6 {
        let matches: Vec<String> =
            (0..100).map(|_| around_now(&mut rng, wall_us() / 1_000_000)).collect();
        let ours = parsed(&matches);
        let before = Nanos(wall_us() * 1_000);
        let theirs = met(&lab, &matches);
        let after = Nanos(wall_us() * 1_000);
        for ((found, theirs), text) in ours.iter().zip(theirs).zip(&matches) {
            let Match::Measure(MeasureMatch::Time(time)) = found else { panic!("{text}") };
            let all = (before.as_secs()..=after.as_secs()).map(Nanos::from_secs);
            let outcomes: Vec<bool> = all.map(|now| time.matches(now, &scene)).collect();
            // A bound passed by in between.
            if outcomes.iter().any(|outcome| *outcome != outcomes[0]) {
                continue;
            }
            assert_eq!(outcomes[0], theirs, "{text} at {}", before.as_secs());
            compared += 1;
            held += u32::from(theirs);
        }
    }
    assert!(compared > 300 && held > 50, "{compared} compared, {held} held");
}

#[test]
fn chances_are_as_in_the_kernel() {
    const THROWS: u32 = 3_000;
    let lab = Lab::new();
    let shares = [0.02, 0.1, 0.5, 0.9];
    let text = |share: &f64| format!("-m statistic --mode random --probability {share}");
    let matches: Vec<String> = shares.iter().map(text).collect();
    lab.restore(false, &counting(false, matches.clone()).text()).expect("the kernel takes them");
    let ip = Ip::new(lab::address(false, 0, 10), lab::address(false, 1, 10), 17);
    let packet = ip.packet(&frames::udp(&ip, 1, 2, 3));
    let frame = frames::ip_frame(lab::port_mac(0), lab::host_mac(0, 10), &packet);
    for _ in 0..THROWS {
        lab.inject(0, &frame);
    }
    let (counters, _) = diff::read_saved(&lab.save(false));
    let dice = Dice::new(7);
    for (at, (share, found)) in shares.iter().zip(parsed(&matches)).enumerate() {
        let Match::Measure(MeasureMatch::Random(below)) = found else { panic!("{found:?}") };
        let throw = |_: &u32| dice.throw() & (MeasureMatch::CHANCES - 1) < below.value;
        let ours = (0..THROWS).filter(throw).count() as f64;
        let key = ("mangle".to_owned(), "FORWARD".to_owned(), Some(at));
        let theirs = counters[&key].0 as f64;
        let expected = share * f64::from(THROWS);
        let deviation = (expected * (1.0 - share)).sqrt();
        for (who, seen) in [("kernel", theirs), ("ours", ours)] {
            assert!((seen - expected).abs() < 6.0 * deviation, "{who}: {seen} of {expected}");
        }
    }
}
