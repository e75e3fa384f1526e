//! Names that iptables knows and we do not honour yet, so that a refusal can
//! say "not yet" apart from "nobody knows this".

/// Match modules of the kernel's tools, supported here or not.
const MATCHES: &[&str] = &[
    "addrtype",
    "ah",
    "bpf",
    "cgroup",
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
    "ipvs",
    "hl",
    "mh",
    "nfacct",
    "osf",
    "owner",
    "physdev",
    "policy",
    "quota",
    "rateest",
    "realm",
    "recent",
    "rpfilter",
    "rt",
    "sctp",
    "socket",
    "srh",
    "statistic",
    "string",
    "tcpmss",
    "time",
    "ttl",
    "u32",
];

/// Targets of the kernel's tools that are not supported here.
const TARGETS: &[&str] = &[
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNSECMARK",
    "DNPT",
    "HMARK",
    "IDLETIMER",
    "LED",
    "NFQUEUE",
    "QUEUE",
    "RATEEST",
    "SECMARK",
    "SNPT",
    "TCPOPTSTRIP",
    "TEE",
    "TPROXY",
    "ULOG",
];

/// Matches that today's tools refuse too, with what replaces them.
const GONE: &[(&str, &str)] = &[
    ("ipv4options", "-m u32"),
    ("ipp2p", "nothing in the kernel"),
    ("geoip", "-m set with the country's networks"),
    ("dstlimit", "-m hashlimit"),
    ("random", "-m statistic --mode random"),
    ("nth", "-m statistic --mode nth"),
    ("unclean", "-m conntrack --ctstate INVALID"),
    ("condition", "nothing in the kernel"),
    ("account", "the counters of a rule"),
    ("fuzzy", "-m limit"),
];

/// Whether the kernel's tools have a match of that name.
pub(crate) fn is_match(name: &str) -> bool {
    MATCHES.contains(&name)
}

/// Whether the kernel's tools have a target of that name.
pub(crate) fn is_target(name: &str) -> bool {
    TARGETS.contains(&name)
}

/// What replaces a match that the tools no longer have.
pub(crate) fn replacement(name: &str) -> Option<&'static str> {
    GONE.iter().find(|(gone, _)| *gone == name).map(|(_, instead)| *instead)
}
