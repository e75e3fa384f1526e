//! One policy in the words of each subject: rules that no flow meets, then what lets the
//! flows pass.

use std::fmt::Write as _;

use crate::sets::Rng;
use crate::traffic::SERVICE;

/// A policy. Its rules name one host each, so that a kernel can have them as a set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Rules that drop, none of which the flows meet.
    pub(crate) rules: usize,
    /// Whether what is established is accepted before them.
    pub(crate) conntrack: bool,
    pub(crate) seed: u64,
}

impl Policy {
    /// Source, destination and port of each rule that drops.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (String, String, u16)> + use<> {
        let mut rng = Rng(self.seed);
        (0..self.rules).map(move |_| {
            let bits = rng.bits();
            let [a, b, c, d, ..] = bits.to_le_bytes();
            let port = 10_000 + (bits >> 48) as u16 % 50_000;
            (format!("10.1.{a}.{b}"), format!("10.2.{c}.{d}"), port)
        })
    }

    /// For `iptables-restore`, and for Portcullis.
    pub(crate) fn iptables(&self) -> String {
        let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n\
                        :OUTPUT ACCEPT [0:0]\n"
            .to_owned();
        if self.conntrack {
            text += "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
        }
        for (from, to, port) in self.dropped() {
            let rule = format!("-A FORWARD -s {from}/32 -d {to}/32 -p udp -m udp");
            let written = writeln!(text, "{rule} --dport {port} -j DROP");
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        text + &format!("-A FORWARD -p udp -m udp --dport {SERVICE} -j ACCEPT\nCOMMIT\n")
    }

    /// The same for `nft`, with a verdict map in the place of the rules.
    pub(crate) fn nft(&self) -> String {
        let state = "ct state established,related accept";
        let state = if self.conntrack { state } else { "" };
        let mut text = "table ip bench {\n map verdicts {\n type ipv4_addr . ipv4_addr . \
                        inet_service : verdict\n elements = {\n"
            .to_owned();
        // A map holds a key once.
        let distinct: std::collections::BTreeSet<_> = self.dropped().collect();
        for (from, to, port) in distinct {
            let written = writeln!(text, "{from} . {to} . {port} : drop,");
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        text + &format!(
            "}}\n }}\n chain forward {{\n type filter hook forward priority filter; policy drop;\n \
             {state}\n ip saddr . ip daddr . udp dport vmap @verdicts\n \
             udp dport {SERVICE} accept\n }}\n}}\n"
        )
    }
}
