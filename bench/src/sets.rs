//! Rule sets and keys to measure and test classifiers with: ClassBench text,
//! generated sets of any size, and keys that nearly or just hit a rule.
//!
//! Also compiled into the classifier's own tests, which use the same sets.

use classifier::{Address, ClassSet, Key, Masked, PortRange, Rule};

/// A small seeded generator (splitmix64): the same numbers on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound.max(1) as u64) as usize
    }
    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    /// Any element.
    pub(crate) fn pick<'s, T>(&mut self, from: &'s [T]) -> &'s T {
        &from[self.below(from.len())]
    }
    fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }
}

/// A line of a ClassBench file that is not a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Counted from 1.
    pub(crate) line: usize,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: not a ClassBench rule", self.line)
    }
}

/// Reads ClassBench rules: `@src/len  dst/len  lo : hi  lo : hi  proto/mask  flags/mask`.
/// The flags column is ignored, as everybody does.
///
/// # Errors
/// The first line that cannot be read.
pub(crate) fn parse_classbench(text: &str) -> Result<Vec<Rule<u32>>, BadLine> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_line(line).ok_or(BadLine { line: index + 1 })).collect()
}

fn parse_line(line: &str) -> Option<Rule<u32>> {
    let words: Vec<&str> = line.strip_prefix('@')?.split_whitespace().collect();
    let prefix = |word: &str| {
        let (address, len) = word.split_once('/')?;
        let len: u32 = len.parse().ok().filter(|&len| len <= 32)?;
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some(Masked::new(address.to_bits(), u32::MAX.checked_shl(32 - len).unwrap_or(0)))
    };
    let range = |low: &str, high: &str| {
        Some(PortRange { low: low.parse().ok()?, high: high.parse().ok()? })
    };
    let hex = |word: &str| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let [src, dst, slow, ":", shigh, dlow, ":", dhigh, proto, ..] = words[..] else {
        return None;
    };
    let (proto, mask) = proto.split_once('/')?;
    Some(Rule {
        src: prefix(src)?,
        dst: prefix(dst)?,
        sport: range(slow, shigh)?,
        dport: range(dlow, dhigh)?,
        proto: Masked::new(hex(proto)?, hex(mask)?),
        ..Rule::default()
    })
}

/// The same rules over IPv6: every bit of an address is kept and a hashed bit of
/// the prefix so far follows every second one, behind a fixed /16. Nesting of
/// prefixes is preserved; masks must be contiguous.
pub(crate) fn widen(rules: &[Rule<u32>]) -> Vec<Rule<u128>> {
    let field = |masked: Masked<u32>| {
        let len = masked.mask().leading_ones();
        let (mut address, mut at) = (0x2001_u128 << 112, 111_u32);
        for bit in 0..len {
            address |= u128::from(masked.value() >> (31 - bit) & 1) << at;
            at -= 1;
            if bit % 2 == 1 {
                let so_far = u64::from(masked.value() >> (31 - bit)) << 8 | u64::from(bit);
                address |= u128::from(Rng(so_far).bits() & 1) << at;
                at -= 1;
            }
        }
        let mask = if len == 0 { 0 } else { u128::MAX << (at + 1) };
        Masked::new(address, mask)
    };
    let wide = |rule: &Rule<u32>| Rule {
        src: field(rule.src),
        dst: field(rule.dst),
        sport: rule.sport,
        dport: rule.dport,
        proto: rule.proto,
        flags: rule.flags,
        iif: rule.iif,
        oif: rule.oif,
        state: rule.state,
        l4: rule.l4,
    };
    rules.iter().map(wide).collect()
}

/// `count` rules shaped like real policies: host and prefix pairs from a bounded
/// address plan, mostly exact destination ports, some ranges, few wildcards,
/// some interfaces and states, a few exact duplicates.
pub(crate) fn generate(count: usize, seed: u64) -> Vec<Rule<u32>> {
    let mut rng = Rng(seed);
    let sites: Vec<u32> = (0..64 + count / 256).map(|_| rng.bits() as u32).collect();
    let mut rules: Vec<Rule<u32>> = Vec::with_capacity(count);
    while rules.len() < count {
        if !rules.is_empty() && rng.one_in(200) {
            let copy = *rng.pick(&rules);
            rules.push(copy);
            continue;
        }
        rules.push(generated_rule(&mut rng, &sites));
    }
    rules
}

fn generated_rule(rng: &mut Rng, sites: &[u32]) -> Rule<u32> {
    let mut address = |lens: &[u32]| {
        let host = rng.pick(sites) ^ (rng.bits() as u32 & 0xfff);
        let len = *rng.pick(lens);
        Masked::new(host, u32::MAX.checked_shl(32 - len).unwrap_or(0))
    };
    let src = address(&[32, 32, 32, 30, 28, 27, 24, 24, 22, 16, 0, 0]);
    let dst = address(&[32, 32, 32, 32, 29, 28, 24, 24, 23, 16]);
    let exact = |port| PortRange { low: port, high: port };
    let dport = match rng.below(10) {
        0 => PortRange::ANY,
        1 => PortRange { low: 1024, high: u16::MAX },
        2 => {
            let low = rng.bits() as u16 | 1024;
            PortRange { low, high: low.saturating_add(rng.below(200) as u16) }
        }
        3..6 => exact(rng.bits() as u16),
        _ => exact(*rng.pick(&[22, 25, 53, 80, 110, 123, 143, 389, 443, 993, 3306, 8080])),
    };
    let sport = if rng.one_in(20) { exact(rng.bits() as u16) } else { PortRange::ANY };
    let any_proto = dport.is_any() && sport.is_any() && rng.one_in(2);
    let proto =
        if any_proto { Masked::default() } else { Masked::new(*rng.pick(&[6, 6, 17]), 255) };
    let mut class = |one_in: usize, classes: usize| {
        if rng.one_in(one_in) { ClassSet(1 << rng.below(classes)) } else { ClassSet::ANY }
    };
    let (iif, oif, state) = (class(4, 6), class(6, 6), class(3, 5));
    Rule { src, dst, sport, dport, proto, iif, oif, state, ..Rule::default() }
}

/// A key at a corner of the rule: every field inside, at an end or anywhere.
pub(crate) fn corner_key<A: Address>(rng: &mut Rng, rule: &Rule<A>) -> Key<A> {
    let mut address = |field: Masked<A>| {
        let free = match rng.below(3) {
            0 => 0,
            1 => u128::MAX,
            _ => rng.wide(),
        };
        field.value() | (A::from_u128(free) & !field.mask())
    };
    let (src, dst) = (address(rule.src), address(rule.dst));
    let mut port = |range: PortRange| match rng.below(3) {
        0 => range.low,
        1 => range.high,
        _ => {
            range.low.saturating_add(rng.below(range.high.abs_diff(range.low) as usize + 1) as u16)
        }
    };
    let (sport, dport) = (port(rule.sport), port(rule.dport));
    let mut byte = |field: Masked<u8>| field.value() | rng.bits() as u8 & !field.mask();
    let (proto, flags) = (byte(rule.proto), byte(rule.flags));
    let mut class = |set: ClassSet| {
        let bits: Vec<u32> = (0..64).filter(|bit| set.0 >> bit & 1 == 1).collect();
        if bits.is_empty() || set.is_any() && rng.one_in(8) { 0 } else { 1 << *rng.pick(&bits) }
    };
    let (iif, oif) = (class(rule.iif), class(rule.oif));
    let (state, l4) = (class(rule.state), class(rule.l4));
    Key { src, dst, sport, dport, proto, flags, iif, oif, state, l4 }
}

/// A corner key with one small step taken: a bit flipped in an address (inside
/// or outside the mask), a port just past the end of a range, another class.
pub(crate) fn near_key<A: Address>(rng: &mut Rng, rule: &Rule<A>) -> Key<A> {
    let mut key = corner_key(rng, rule);
    let flip = |rng: &mut Rng, x: A| {
        let bit = 1_u128 << rng.below(A::BITS as usize);
        A::from_u128(x.to_u128() ^ bit)
    };
    match rng.below(12) {
        0 => key.src = flip(rng, key.src),
        1 => key.dst = flip(rng, key.dst),
        2 => key.sport = rule.sport.high.wrapping_add(1),
        3 => key.sport = rule.sport.low.wrapping_sub(1),
        4 => key.dport = rule.dport.high.wrapping_add(1),
        5 => key.dport = rule.dport.low.wrapping_sub(1),
        6 => key.proto ^= 1 << rng.below(8),
        7 => key.flags ^= 1 << rng.below(8),
        8 => key.iif = 1 << rng.below(64),
        9 => key.oif = 1 << rng.below(64),
        10 => key.state = if rng.one_in(2) { 0 } else { 1 << rng.below(64) },
        _ => key.l4 = 1 << rng.below(64),
    }
    key
}
