//! Names that iptables knows and we do not honour, so that a refusal can say "not
//! yet", "never, because" and "nobody knows this" apart.

/// Match modules of the kernel's tools, supported here or not.
const MATCHES: &[&str] = &[
    "ah",
    "bpf",
    "cluster",
    "connlimit",
    "cpu",
    "dccp",
    "devgroup",
    "dst",
    "ecn",
    "esp",
    "eui64",
    "frag",
    "hashlimit",
    "hbh",
    "icmp",
    "icmp6",
    "icmpv6",
    "ipv6-icmp",
    "ipcomp",
    "ipv6header",
    "hl",
    "mh",
    "nfacct",
    "quota",
    "rateest",
    "recent",
    "rt",
    "sctp",
    "srh",
    "statistic",
    "string",
    "tcpmss",
    "time",
    "ttl",
    "u32",
];

/// Targets of the kernel's tools that are not supported here.
const TARGETS: &[&str] =
    &["CHECKSUM", "CLASSIFY", "DNPT", "IDLETIMER", "RATEEST", "SNPT", "TCPOPTSTRIP", "TEE"];

/// A match or target that is refused for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused {
    name: &'static str,
    /// Why.
    pub(crate) reason: &'static str,
    /// What to write instead.
    pub(crate) remedy: &'static str,
}

const fn refused(name: &'static str, reason: &'static str, remedy: &'static str) -> Refused {
    Refused { name, reason, remedy }
}

/// Matches that are refused for good: of today's tools, of earlier ones, and from elsewhere.
const REFUSED_MATCHES: &[Refused] = &[
    refused(
        "account",
        "it is in no kernel: a patch of its own counted addresses",
        "read the rules' counters, or use `-m recent' or a set with counters",
    ),
    refused(
        "cgroup",
        "the control group of a packet's socket is not known outside the kernel",
        "compare the service's user: `-m owner --uid-owner USER' in OUTPUT",
    ),
    refused(
        "condition",
        "it is in no kernel: xtables-addons switched rules by files in /proc",
        "use a set that you fill and empty, or load the rules anew",
    ),
    refused(
        "dstlimit",
        "hashlimit has replaced it long ago",
        "use `-m hashlimit --hashlimit-mode dstip'",
    ),
    refused("fuzzy", "no kernel has it any more", "use `-m limit' or `-m hashlimit'"),
    refused(
        "geoip",
        "it is in no kernel: xtables-addons had databases of countries",
        "make a set of the country's networks and use `-m set'",
    ),
    refused(
        "ipp2p",
        "it is in no kernel: xtables-addons guessed at protocols by their text",
        "match ports, or use `-m string'",
    ),
    refused(
        "ipv4options",
        "no kernel has it any more; source-routed packets are dropped anyway",
        "use `-m u32' to look for options",
    ),
    refused(
        "ipvs",
        "the kernel's load balancer does not see packets that pass here",
        "balance with DNAT and `-m statistic', and remove the rule",
    ),
    refused(
        "nth",
        "statistic has replaced it",
        "use `-m statistic --mode nth --every N --packet M'",
    ),
    refused(
        "osf",
        "its fingerprints of operating systems are loaded into the kernel, where only it can read them",
        "match what tells them apart: `-m ttl', `-m tcpmss', `--tcp-option'",
    ),
    refused(
        "psd",
        "it is in no kernel: a patch of its own looked for port scans",
        "use `-m recent' or `-m hashlimit' on new connections",
    ),
    refused(
        "random",
        "statistic has replaced it",
        "use `-m statistic --mode random --probability P'",
    ),
    refused(
        "socket",
        "the sockets of this machine cannot be looked through from outside its kernel at the time \
         a packet arrives",
        "match the addresses and ports of the service, or `-m addrtype --dst-type LOCAL'",
    ),
    refused("unclean", "no kernel has it any more", "use `-m conntrack --ctstate INVALID'"),
];

/// Targets that are refused for good.
const REFUSED_TARGETS: &[Refused] = &[
    refused(
        "CLUSTERIP",
        "the kernel has dropped it, and it answers ARP with a group's address",
        "share the address by VRRP, or choose packets with `-m cluster'",
    ),
    refused(
        "CONNSECMARK",
        "security contexts belong to the kernel's SELinux, which does not see these packets",
        "use CONNMARK and `-m connmark'",
    ),
    refused(
        "DELUDE",
        "it is in no kernel: xtables-addons lied to port scanners",
        "use REJECT or DROP",
    ),
    refused(
        "LED",
        "a lamp of this machine is the kernel's to switch",
        "watch the rule's counters, and switch the lamp by /sys/class/leds",
    ),
    refused(
        "MIRROR",
        "no kernel has it any more: it sent packets back to whoever claimed to be their source",
        "use REJECT or DROP",
    ),
    refused(
        "NFQUEUE",
        "verdicts of a process would come later than the packets can wait here",
        "run the inspection (an IPS, say) in line behind a port of its own, or copy packets to it \
         with NFLOG or TEE",
    ),
    refused(
        "QUEUE",
        "verdicts of a process would come later than the packets can wait here",
        "copy packets to the process with NFLOG or TEE",
    ),
    refused("SAME", "SNAT has replaced it", "use `-j SNAT --to-source FROM-TO --persistent'"),
    refused(
        "SECMARK",
        "security contexts belong to the kernel's SELinux, which does not see these packets",
        "use MARK and `-m mark'",
    ),
    refused(
        "SYSRQ",
        "it is in no kernel: xtables-addons let packets from outside command it",
        "use ssh and /proc/sysrq-trigger",
    ),
    refused(
        "TARPIT",
        "it is in no kernel: xtables-addons held on to connections",
        "use DROP, or REJECT --reject-with tcp-reset",
    ),
    refused(
        "TPROXY",
        "it hands packets to a transparent socket, which only this machine's kernel can look up",
        "let the proxy listen on a port and use REDIRECT or DNAT; it finds the first destination \
         in the connection table",
    ),
    refused("ULOG", "the kernel has dropped it; NFLOG has replaced it", "use `-j NFLOG'"),
];

/// Whether the kernel's tools have a match of that name.
pub(crate) fn is_match(name: &str) -> bool {
    MATCHES.contains(&name)
}

/// Whether the kernel's tools have a target of that name.
pub(crate) fn is_target(name: &str) -> bool {
    TARGETS.contains(&name)
}

/// The same, refused for good or not.
pub(crate) fn is_known_target(name: &str) -> bool {
    is_target(name) || refused_target(name).is_some()
}

/// Why a match is refused for good, if it is.
pub(crate) fn refused_match(name: &str) -> Option<&'static Refused> {
    REFUSED_MATCHES.iter().find(|refused| refused.name == name)
}

/// Why a target is refused for good, if it is.
pub(crate) fn refused_target(name: &str) -> Option<&'static Refused> {
    REFUSED_TARGETS.iter().find(|refused| refused.name == name)
}

/// Names of all matches and targets that are refused for good.
#[cfg(test)]
pub(crate) fn refused_names() -> impl Iterator<Item = &'static str> {
    REFUSED_MATCHES.iter().chain(REFUSED_TARGETS).map(|refused| refused.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of them is explained to people, too.
    #[test]
    fn refusals_are_listed_in_the_documentation() {
        let text = include_str!("../../../docs/compatibility.md");
        for name in refused_names() {
            assert!(text.contains(&format!("| `{name}` | ")), "{name}");
        }
    }
}
