//! Compares what the two sides did. Ports and identifiers that NAT drew at
//! random are compared up to a bijection: each one that came out before any packet
//! of the script had it is replaced by the number of its first appearance.

use std::collections::BTreeMap;

use super::flow::Flow;
use super::packet::View;
use super::script::{Frame, Observed, Transcript};

/// Stand-ins for random numbers start here; scripts stay away from it.
const STAND_IN: u16 = 0xee00;

/// Packets and bytes of every rule and policy in `iptables-save -c` output, by
/// `TABLE CHAIN INDEX`.
pub fn counters(text: &str) -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    let (mut table, mut next) = (String::new(), BTreeMap::<String, usize>::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
            next.clear();
        } else if let Some(chain) = line.strip_prefix(':') {
            let words: Vec<&str> = chain.split(' ').collect();
            if let [name, policy, count] = words.as_slice()
                && *policy != "-"
            {
                found.extend(pair(count).map(|count| (format!("{table} {name} policy"), count)));
            }
        } else if let Some((count, rule)) = line.split_once("] ") {
            let chain = rule.split(' ').nth(1).unwrap_or_default();
            let index = next.entry(chain.to_owned()).or_default();
            let count = pair(&format!("{count}]"));
            found.extend(count.map(|count| (format!("{table} {chain} {index}"), count)));
            *index += 1;
        }
    }
    found
}

fn pair(word: &str) -> Option<(u64, u64)> {
    let (packets, bytes) = word.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?))
}

/// Where the ports or identifiers of a packet stand, those of a quoted packet
/// included: (offset of the number, offsets of the checksums that cover it).
fn numbers(ip: &[u8]) -> Vec<(usize, Vec<usize>)> {
    let mut found = Vec::new();
    collect(ip, 0, &[], &mut found);
    found
}

fn collect(ip: &[u8], base: usize, covering: &[usize], found: &mut Vec<(usize, Vec<usize>)>) {
    let view = View(ip);
    if ip.len() < if view.v6() { 44 } else { 24 } || view.piece().0 != 0 {
        return;
    }
    let (proto, l4) = (view.proto(), view.l4());
    let start = base + ip.len() - l4.len();
    let own = match proto {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    let mut covers = covering.to_vec();
    // A checksum of zero is UDP's way of having none.
    let present = l4.len() >= own + 2 && (proto != 17 || l4[own..own + 2] != [0, 0]);
    covers.extend(present.then_some(start + own));
    match proto {
        6 | 17 => {
            found.push((start, covers.clone()));
            found.push((start + 2, covers));
        }
        1 | 58 if l4.len() >= 8 && view.is_error() => {
            collect(&l4[8..], start + 8, &covers, found);
        }
        1 if l4.len() >= 8 && matches!(l4[0], 0 | 8 | 13..=18) => found.push((start + 4, covers)),
        58 if l4.len() >= 8 && matches!(l4[0], 128 | 129) => found.push((start + 4, covers)),
        _ => {}
    }
}

/// The ports and identifiers of a packet.
pub fn mentioned(ip: &[u8]) -> Vec<u16> {
    numbers(ip).iter().map(|(at, _)| word(ip, *at)).collect()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A packet in words.
pub fn describe(ip: &[u8]) -> String {
    let view = View(ip);
    let ends = format!("{} > {}", view.src(), view.dst());
    match view.proto() {
        6 if ip.len() >= 40 => format!(
            "{ends} tcp {} > {} flags {:#04x} seq {} ack {} len {}",
            view.sport(),
            view.dport(),
            view.l4()[13],
            view.seq(),
            view.ack(),
            view.payload().len()
        ),
        17 if view.l4().len() >= 8 => format!("{ends} udp {} > {}", view.sport(), view.dport()),
        1 | 58 if view.l4().len() >= 8 => format!("{ends} icmp {:?}", view.icmp_kind()),
        proto => format!("{ends} proto {proto}"),
    }
}

/// The stand-ins of one transcript.
struct Names<'t> {
    known: &'t BTreeMap<u16, usize>,
    given: BTreeMap<u16, u16>,
    step: usize,
}

impl Names<'_> {
    fn of(&mut self, number: u16) -> u16 {
        let known = self.known.get(&number).is_some_and(|step| *step <= self.step);
        if known && !self.given.contains_key(&number) {
            return number;
        }
        let next = STAND_IN + self.given.len() as u16;
        *self.given.entry(number).or_insert(next)
    }
    fn frame(&mut self, frame: &Frame) -> Frame {
        let mut frame = frame.clone();
        if !matches!(frame.bytes.get(12..14), Some([8, 0] | [0x86, 0xdd])) {
            return frame;
        }
        let ip = &mut frame.bytes[14..];
        router_made(ip);
        if View(ip).is_v6_fragment() {
            // The kernel draws the identification anew.
            ip[44..48].fill(0);
        }
        for (at, covers) in numbers(ip) {
            let (old, new) = (word(ip, at), self.of(word(ip, at)));
            ip[at..at + 2].copy_from_slice(&new.to_be_bytes());
            replaced(ip, old, new, &covers);
        }
        frame
    }
    fn flow(&mut self, flow: &Flow) -> Flow {
        let word = |word: &str| match word.split_once('=') {
            Some((name @ ("sport" | "dport" | "id"), value)) => {
                let number = value.parse().expect("a port");
                format!("{name}={}", self.of(number))
            }
            _ => word.to_owned(),
        };
        let facts: Vec<String> = flow.facts.split(' ').map(word).collect();
        Flow { facts: facts.join(" "), timeout_s: flow.timeout_s }
    }
}

/// A number covered by these checksums, innermost last, changed. Each checksum
/// that changes is itself covered by those before it.
fn replaced(ip: &mut [u8], old: u16, new: u16, covers: &[usize]) {
    let Some((&last, outer)) = covers.split_last() else { return };
    let before = word(ip, last);
    let after = mended(before, old, new);
    ip[last..last + 2].copy_from_slice(&after.to_be_bytes());
    for &at in outer {
        let sum = mended(mended(word(ip, at), old, new), before, after);
        ip[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// RFC 1624, equation 3.
fn mended(sum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// The identification of the ICMP errors that the router makes is random. They
/// are known by their precedence, which no packet of a script has.
fn router_made(ip: &mut [u8]) {
    if ip.len() > 20 && ip[0] >> 4 == 4 && ip[1] & 0xe0 == 0xc0 && ip[9] == 1 {
        let (sum, id) = (word(ip, 10), word(ip, 4));
        ip[10..12].copy_from_slice(&mended(sum, id, 0).to_be_bytes());
        ip[4..6].fill(0);
    }
}

/// The differences in words; empty when there are none.
pub fn differences(theirs: &Transcript, own: &Transcript) -> Vec<String> {
    let mut names =
        [theirs, own].map(|t| Names { known: &t.known, given: BTreeMap::new(), step: 0 });
    let mut all = Vec::new();
    for (step, ((note, kernel), (_, ours))) in theirs.steps.iter().zip(&own.steps).enumerate() {
        let [one, other] = &mut names;
        (one.step, other.step) = (step, step);
        all.extend(differ(kernel, ours, one, other).map(|text| format!("{note}: {text}")));
    }
    if theirs.steps.len() != own.steps.len() {
        all.push(format!("{} steps by the kernel, {} by us", theirs.steps.len(), own.steps.len()));
    }
    all
}

fn differ(
    kernel: &Observed,
    ours: &Observed,
    k: &mut Names<'_>,
    o: &mut Names<'_>,
) -> Option<String> {
    match (kernel, ours) {
        (Observed::Packet(state, out), Observed::Packet(own_state, own_out)) => {
            let out: Vec<Frame> = out.iter().map(|frame| k.frame(frame)).collect();
            let own_out: Vec<Frame> = own_out.iter().map(|frame| o.frame(frame)).collect();
            let same = state == own_state && out == own_out;
            (!same).then(|| {
                format!("\n  kernel {state} {}\n  ours   {own_state} {}", hex(&out), hex(&own_out))
            })
        }
        (Observed::Table(flows, took_s), Observed::Table(own, _)) => {
            let mut flows: Vec<Flow> = flows.iter().map(|flow| k.flow(flow)).collect();
            let mut own: Vec<Flow> = own.iter().map(|flow| o.flow(flow)).collect();
            flows.sort();
            own.sort();
            // At least a second: both sides round.
            let near = |(a, b): (&Flow, &Flow)| {
                a.facts == b.facts && a.timeout_s.abs_diff(b.timeout_s) <= *took_s
            };
            let same = flows.len() == own.len() && flows.iter().zip(&own).all(near);
            (!same).then(|| format!("\n  kernel {flows:#?}\n  ours   {own:#?}"))
        }
        (Observed::Counters(counters), Observed::Counters(own)) => {
            let unlike = counters.iter().filter(|(key, count)| own.get(*key) != Some(count));
            let lines: Vec<String> = unlike
                .map(|(key, count)| format!("\n  {key}: kernel {count:?}, ours {:?}", own.get(key)))
                .collect();
            (!lines.is_empty()).then(|| lines.concat())
        }
        (kernel, ours) => {
            (kernel != ours).then(|| format!("\n  kernel {kernel:?}\n  ours   {ours:?}"))
        }
    }
}

fn hex(frames: &[Frame]) -> String {
    let one = |frame: &Frame| {
        let digits: String = frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\n    eth{} {digits}", frame.port)
    };
    if frames.is_empty() { "nothing".to_owned() } else { frames.iter().map(one).collect() }
}

#[test]
fn random_numbers_are_compared_up_to_a_bijection() {
    use super::packet::{alice, udp, web};
    let frame = |port| {
        let ip = udp(alice(), port, web().ip, 53, b"payload").ip;
        Frame { port: 2, bytes: crate::lab::frames::ip_frame([0; 6], [0; 6], &ip) }
    };
    let transcript = |ports: &[u16]| {
        let step =
            |port: &u16| (String::new(), Observed::Packet("NEW".to_owned(), vec![frame(*port)]));
        Transcript { steps: ports.iter().map(step).collect(), known: [(53, 0), (7, 0)].into() }
    };
    let unlike = |a: &[u16], b: &[u16]| !differences(&transcript(a), &transcript(b)).is_empty();
    assert!(!unlike(&[4001, 4002, 4001], &[9, 8, 9]));
    assert!(unlike(&[4001, 4002, 4001], &[9, 8, 8]));
    assert!(unlike(&[4001, 4001], &[9, 8]));
    assert!(unlike(&[4001], &[7]), "a number that the script names is itself");
    assert!(unlike(&[7], &[53]));
}
