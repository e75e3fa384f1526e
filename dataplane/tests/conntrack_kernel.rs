//! Connection tracking against the kernel: scripted and seeded-random exchanges
//! go through a netfilter router in a namespace and through [`Conntrack`].
//! After every packet its state and the whole connection table must agree.
//!
//! The router writes each packet's state into the TOS byte, so that the packet
//! which comes out says what the kernel thought of it. Needs root.

mod exchange;
#[path = "../../control/tests/lab/mod.rs"]
mod lab;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack, CtState, Extensions, Row, Template};
use dataplane::packet::Mac;
use dataplane::policy::target::{CtTarget, ZoneId, ZoneScope};
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{Frame, parse};
use exchange::Step;
use lab::clock::{Clock, pause_ms};
use lab::{Lab, host_mac, port_mac};

/// Packets with this TTL are dropped in FORWARD.
const DENIED_TTL: u8 = 77;

/// Side of the router a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Inside = 0,
    Outside = 1,
}

/// Both trackers, side by side.
struct Twins {
    kernel: Lab,
    ours: Conntrack,
    clock: Clock,
    /// What happened so far, for a failure's report.
    story: Vec<String>,
    packets: usize,
}

impl Twins {
    fn new(settings: &[(&str, u64)]) -> Self {
        let kernel = Lab::new();
        for v6 in [false, true] {
            kernel.restore(v6, &rules(v6)).expect("loading the rules");
        }
        let mut config = Config::new([3; 16]);
        for &(name, value) in settings {
            kernel.router().sysctl(&format!("netfilter/nf_conntrack_{name}"), &value.to_string());
            config.set(name, value).expect("a setting");
        }
        config.set("max", 4096).expect("max");
        let ours = Conntrack::new(config).expect("a table");
        Self { kernel, ours, clock: Clock::start(), story: Vec::new(), packets: 0 }
    }

    fn now(&self) -> Nanos {
        Nanos(self.clock.now_ns()) + Nanos::from_secs(1000)
    }

    /// Plays an exchange from empty tables. A disagreement is shrunk to the
    /// steps that it needs.
    fn play(&mut self, name: &str, script: &[Step]) {
        if self.attempt(script).is_ok() {
            return;
        }
        let mut script = script.to_vec();
        let mut at = 0;
        while at < script.len() {
            let step = script.remove(at);
            if self.attempt(&script).is_ok() {
                script.insert(at, step);
                at += 1;
            }
        }
        let complaint = self.attempt(&script).err();
        panic!("{name}:\n{}", complaint.as_deref().unwrap_or("it does not happen every time"));
    }

    fn attempt(&mut self, script: &[Step]) -> Result<(), String> {
        let outcome = script.iter().try_for_each(|step| match step {
            Step::Send(side, packet) => self.send(*side, packet),
            Step::Wait(milliseconds) => {
                pause_ms(*milliseconds);
                Ok(())
            }
        });
        let outcome = outcome.map_err(|why| format!("{}\n{why}", self.story.join("\n")));
        self.flush();
        outcome
    }

    /// Sends a packet through both and compares state and table.
    fn send(&mut self, side: Side, packet: &Packet) -> Result<(), String> {
        let port = side as usize;
        let (from, to) = (Mac(host_mac(port, 10)), Mac(port_mac(port)));
        let frame = packet.clone().tos(0).macs(from, to).build();
        let kernel = self.kernel_state(port, &frame);
        let ours = self.our_state(port, &frame);
        self.packets += 1;
        self.story.push(format!("{side:?} {} -> {kernel}", describe(packet)));
        if kernel == ours { self.compare_tables() } else { Err(format!("ours: {ours}")) }
    }

    fn kernel_state(&self, port: usize, frame: &[u8]) -> String {
        let v6 = frame[12] == 0x86;
        // The router may speak for itself meanwhile (group reports): look for our packet.
        let l4 = if v6 { 54 } else { 34 };
        let out = self.kernel.inject(port, frame);
        let forwarded =
            out.iter().find(|sent| sent.port == 1 - port && sent.frame[l4..] == frame[l4..]);
        let Some(sent) = forwarded else { return "dropped".to_owned() };
        let tos = if v6 { sent.frame[14] << 4 | sent.frame[15] >> 4 } else { sent.frame[15] };
        let known = STATES.iter().find(|&&(_, mark)| mark == tos);
        known.map_or_else(|| format!("tos {tos:#x}"), |(state, _)| state.name().to_owned())
    }

    fn our_state(&self, port: usize, frame: &[u8]) -> String {
        let verdict = || {
            let Ok(Frame::Ip(parsed)) = parse(frame, Mac(port_mac(port))) else { return None };
            let target = instruction(parsed.ttl);
            if target.notrack {
                return Some(CtState::Untracked.name());
            }
            let terms = Template::of(&target, None).terms(0, Extensions::default());
            let subject = self.ours.subject(&parsed, frame, terms.zones.original);
            let tracked =
                self.ours.track_subject(&subject, &parsed, frame, false, &terms, self.now());
            let mut tracking = tracked.ok()?;
            if parsed.ttl == DENIED_TTL {
                self.ours.discard(tracking);
                return None;
            }
            self.ours.confirm(&mut tracking, self.now()).ok()?;
            Some(tracking.state.name())
        };
        verdict().unwrap_or("dropped").to_owned()
    }

    fn compare_tables(&self) -> Result<(), String> {
        let now = self.now();
        let mut kernel: Vec<Line> =
            self.kernel.conntrack().iter().map(|line| Line::of_kernel(line)).collect();
        let mut ours: Vec<Line> = self.ours.rows(now).map(|row| Line::of_row(&row)).collect();
        kernel.sort();
        ours.sort();
        let close = kernel.len() == ours.len()
            && kernel.iter().zip(&ours).all(|(theirs, our)| {
                theirs.what == our.what && theirs.timeout.abs_diff(our.timeout) <= 1
            });
        if close { Ok(()) } else { Err(format!("kernel: {kernel:#?}\nours: {ours:#?}")) }
    }

    /// Starts over with empty tables.
    fn flush(&mut self) {
        self.kernel.flush_conntrack();
        let ids: Vec<_> = self.ours.rows(self.now()).map(|row| row.view.id).collect();
        ids.into_iter().for_each(|id| assert!(self.ours.remove(id)));
        assert!(self.ours.is_empty(), "{} connections leaked", self.ours.len());
        self.story.clear();
    }
}

const STATES: [(CtState, u8); 5] = [
    (CtState::Invalid, 0x04),
    (CtState::New, 0x08),
    (CtState::Established, 0x10),
    (CtState::Related, 0x18),
    (CtState::Untracked, 0x20),
];

fn rules(v6: bool) -> String {
    let mut text = String::from("*raw\n");
    for hops in exchange::ZONED {
        let what = match hops {
            40 => "-j CT --zone 3",
            41 => "-j CT --zone-orig 2",
            42 => "-j CT --zone-reply 2",
            43 => "-j CT --zone-orig 1",
            _ => "-j CT --notrack",
        };
        let hops =
            if v6 { format!("-m hl --hl-eq {hops}") } else { format!("-m ttl --ttl-eq {hops}") };
        text += &format!("-A PREROUTING {hops} {what}\n");
    }
    text += "COMMIT\n*mangle\n";
    for (state, tos) in STATES {
        let state = state.name();
        text += &format!("-A FORWARD -m conntrack --ctstate {state} -j TOS --set-tos {tos}/0xff\n");
    }
    // The TTL is taken down before FORWARD.
    let hops = if v6 { "-m hl --hl-eq 76" } else { "-m ttl --ttl-eq 76" };
    text += &format!("COMMIT\n*filter\n-A FORWARD {hops} -j DROP\nCOMMIT\n");
    text
}

/// What the raw table says of a packet.
fn instruction(hops: u8) -> CtTarget {
    let zone = match hops {
        40 => Some((ZoneScope::Both, ZoneId::Fixed(3))),
        41 => Some((ZoneScope::Original, ZoneId::Fixed(2))),
        42 => Some((ZoneScope::Reply, ZoneId::Fixed(2))),
        43 => Some((ZoneScope::Original, ZoneId::Fixed(1))),
        _ => None,
    };
    CtTarget { zone, notrack: hops == 44, ..CtTarget::default() }
}

/// One connection in a form that both sides can be brought to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    what: String,
    timeout: u64,
}

impl Line {
    fn of_kernel(line: &str) -> Self {
        Self::of_words(line.split_whitespace().skip(2))
    }
    fn of_row(row: &Row) -> Self {
        Self::of_words(row.to_string().split_whitespace())
    }
    /// Protocol name and number, timeout, the rest.
    fn of_words<'w>(words: impl Iterator<Item = &'w str>) -> Self {
        let words: Vec<&str> = words.collect();
        let timeout = words[2].parse().expect("a timeout");
        let rest = words.iter().enumerate().filter(|&(at, word)| {
            let kernels_own = ["use=", "zone=0", "timeout=", "stream_timeout="];
            at != 2 && !kernels_own.iter().any(|own| word.starts_with(own))
        });
        let rest: Vec<String> = rest.map(|(_, word)| canonical(word)).collect();
        Self { what: rest.join(" "), timeout }
    }
}

/// IPv6 addresses have two spellings.
fn canonical(word: &str) -> String {
    match word.split_once('=') {
        Some((name, value)) if value.contains(':') => {
            format!("{name}={}", value.parse::<std::net::Ipv6Addr>().expect("an address"))
        }
        _ => word.to_owned(),
    }
}

fn describe(packet: &Packet) -> String {
    let rest = format!("ttl {} payload {}", packet.ttl, packet.payload.len());
    match &packet.l4 {
        L4::Tcp(tcp) => {
            let Tcp { sport, dport, seq, ack, flags, window, options, .. } = tcp;
            let names = ["F", "S", "R", "P", "A", "U", "E", "C"].iter().enumerate();
            let flags: String =
                names.filter(|(bit, _)| flags >> bit & 1 != 0).map(|(_, name)| *name).collect();
            format!("{sport}>{dport} [{flags}] seq {seq} ack {ack} win {window} {options:?} {rest}")
        }
        L4::Sctp { tag, .. } => {
            format!(
                "{} > {} tag {tag:x} chunks {:02x?} {rest}",
                packet.src, packet.dst, packet.payload
            )
        }
        other => format!("{} > {} {other:?} {rest}", packet.src, packet.dst),
    }
}

#[test]
fn scripts_agree() {
    let mut twins = Twins::new(&[]);
    for (name, script) in exchange::scripts() {
        twins.play(&name, &script);
    }
}

fn random_tcp(settings: &[(&str, u64)], seeds: std::ops::Range<u64>) {
    const STEPS: usize = 30;
    let mut twins = Twins::new(settings);
    let conversations = seeds.end - seeds.start;
    for seed in seeds {
        twins.play(&format!("seed {seed}"), &exchange::random_tcp(seed, STEPS));
    }
    assert_eq!(twins.packets, conversations as usize * STEPS);
}

#[test]
fn random_sctp_agrees() {
    const STEPS: usize = 16;
    let mut twins = Twins::new(&[("acct", 1)]);
    for seed in 0..500 {
        twins.play(&format!("sctp seed {seed}"), &exchange::random_sctp(seed, STEPS));
    }
    assert_eq!(twins.packets, 500 * STEPS);
}

#[test]
fn random_zones_agree() {
    const STEPS: usize = 16;
    let mut twins = Twins::new(&[("acct", 1)]);
    for seed in 0..400 {
        twins.play(&format!("zones seed {seed}"), &exchange::random_zones(seed, STEPS));
    }
    assert_eq!(twins.packets, 400 * STEPS);
}

#[test]
fn random_tcp_agrees() {
    random_tcp(&[], 0..250);
}

#[test]
fn random_tcp_agrees_when_strict_about_beginnings_and_lax_about_resets() {
    random_tcp(&[("tcp_loose", 0), ("tcp_ignore_invalid_rst", 1)], 10_000..10_060);
}

#[test]
fn random_tcp_agrees_when_liberal_and_quick_to_count_repeats() {
    let settings = [
        ("tcp_be_liberal", 1),
        ("tcp_max_retrans", 1),
        ("tcp_timeout_max_retrans", 200),
        ("tcp_timeout_unacknowledged", 100),
        ("checksum", 0),
        ("acct", 1),
    ];
    random_tcp(&settings, 20_000..20_060);
}
