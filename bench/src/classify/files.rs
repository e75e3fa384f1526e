//! The text that other programs read: ClassBench rules and traces.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use classifier::{Address, Key, Rule};

/// How a family writes its addresses.
pub(super) trait Text: Address {
    /// Name in results.
    const FAMILY: &'static str;
    /// In a rule.
    fn rule_text(self) -> String;
    /// In a trace.
    fn trace_text(self) -> String;
}

impl Text for u32 {
    const FAMILY: &'static str = "v4";
    fn rule_text(self) -> String {
        Ipv4Addr::from_bits(self).to_string()
    }
    fn trace_text(self) -> String {
        self.to_string()
    }
}

impl Text for u128 {
    const FAMILY: &'static str = "v6";
    fn rule_text(self) -> String {
        Ipv6Addr::from_bits(self).to_string()
    }
    fn trace_text(self) -> String {
        self.rule_text()
    }
}

/// The rules as ClassBench writes them. Masks are prefixes.
pub(super) fn rules<A: Text>(rules: &[Rule<A>]) -> String {
    let mut text = String::with_capacity(rules.len() * 80);
    for rule in rules {
        let length = |mask: A| mask.to_u128().count_ones();
        let written = writeln!(
            text,
            "@{}/{}\t{}/{}\t{} : {}\t{} : {}\t0x{:02x}/0x{:02X}\t0x0000/0x0000",
            rule.src.value().rule_text(),
            length(rule.src.mask()),
            rule.dst.value().rule_text(),
            length(rule.dst.mask()),
            rule.sport.low,
            rule.sport.high,
            rule.dport.low,
            rule.dport.high,
            rule.proto.value(),
            rule.proto.mask(),
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

/// The keys as a trace: source, destination, ports, protocol.
pub(super) fn trace<A: Text>(keys: &[Key<A>]) -> String {
    let mut text = String::with_capacity(keys.len() * 48);
    for key in keys {
        let (src, dst) = (key.src.trace_text(), key.dst.trace_text());
        let written = writeln!(text, "{src}\t{dst}\t{}\t{}\t{}", key.sport, key.dport, key.proto);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::filters::FilterSet;
    use super::*;
    use crate::sets;

    #[test]
    fn rules_are_read_back() {
        let set = FilterSet::generated(200, 1);
        assert_eq!(sets::parse_classbench(&rules(&set.rules)), Ok(set.rules));
    }

    #[test]
    fn traces_are_decimal_in_v4_and_textual_in_v6() {
        let key =
            Key { src: 0x0102_0304_u32, dst: 5, sport: 6, dport: 7, proto: 17, ..Key::zero() };
        assert_eq!(trace(&[key]), "16909060\t5\t6\t7\t17\n");
        let key =
            Key { src: 0x2001_u128 << 112, dst: 5, sport: 6, dport: 7, proto: 6, ..Key::zero() };
        assert_eq!(trace(&[key]), "2001::\t::5\t6\t7\t6\n");
    }
}
