//! The match modules, one file a family.

mod addrtype;
mod bpf;
mod comment;
mod connbytes;
mod connlabel;
mod connlimit;
mod conntrack;
mod dccp;
mod devgroup;
mod ecn;
mod frag;
pub(crate) mod hashlimit;
mod helper;
mod icmp;
mod iprange;
mod ipsec;
mod ipv6header;
mod length;
mod limit;
mod mac;
mod mark;
mod measure;
mod mh;
mod multiport;
mod numbers;
mod one;
mod options;
mod owner;
mod physdev;
mod pkttype;
mod policy;
mod rateest;
mod realm;
mod recent;
mod rpfilter;
mod rt;
mod sctp;
mod set;
mod srh;
mod statistic;
mod string;
mod tcp;
mod tcpmss;
mod time;
mod tos;
mod ttl;
mod u32;
mod udp;

use dataplane::packet::Family;
use dataplane::policy::matches::{Neg, Range};

use super::extension::{Context, MatchModule, Operand, Problem};
use crate::diagnostics::Code;
use numbers::{header_length, named_value_mask, unless_all, value_mask, warn_unread};
use one::One;

pub(crate) use addrtype::KINDS as ADDRESS_KINDS;
pub(crate) use connbytes::{DIRECTIONS as CONNBYTES_DIRECTIONS, UNITS as CONNBYTES_UNITS};
pub(crate) use conntrack::{STATE_NAMES, STATUS_NAMES};
pub(crate) use dccp::TYPE_NAMES as DCCP_TYPES;
pub(crate) use ipv6header::HEADER_NAMES;
pub(crate) use limit::RATE_UNITS;
pub(crate) use rateest::name as estimator_name;
pub(crate) use sctp::{CHUNK_NAMES, SCOPES as CHUNK_SCOPES};
pub(crate) use set::named_set;
pub(crate) use string::ALGORITHMS as STRING_ALGORITHMS;
pub(crate) use tcp::FLAG_NAMES;
pub(crate) use time::{DAY_NAMES, date_text, time_text};
pub(crate) use tos::{dscp_value, tos_value};

/// A fresh module of that name, if this family has it and we support it.
pub(crate) fn load(name: &str, family: Family) -> Option<Box<dyn MatchModule>> {
    let v4 = family == Family::V4;
    Some(match name {
        "addrtype" => Box::new(addrtype::AddrType::new(family)),
        "comment" => Box::new(comment::Comment::default()),
        "connbytes" => Box::new(connbytes::Connbytes::default()),
        "connlabel" => Box::new(connlabel::Connlabel::default()),
        "connlimit" => Box::new(connlimit::ConnLimit::new(family)),
        "conntrack" => Box::new(conntrack::Conntrack::default()),
        "state" => Box::new(conntrack::State::default()),
        "icmp" if v4 => Box::new(icmp::Icmp::new(false)),
        "icmp6" | "icmpv6" | "ipv6-icmp" if !v4 => Box::new(icmp::Icmp::new(true)),
        "hashlimit" => Box::new(hashlimit::HashLimit::new(family)),
        "helper" => Box::new(One::new(&helper::HELPER)),
        "iprange" => Box::new(iprange::IpRange::default()),
        "length" => Box::new(One::new(&length::LENGTH)),
        "limit" => Box::new(limit::Limit::default()),
        "mac" => Box::new(One::new(&mac::MAC)),
        "mark" => Box::new(One::new(&mark::MARK)),
        "connmark" => Box::new(One::new(&mark::CONNMARK)),
        "multiport" => Box::new(multiport::Multiport::default()),
        "pkttype" => Box::new(One::new(&pkttype::PKTTYPE)),
        "physdev" => Box::new(physdev::Physdev::default()),
        "owner" => Box::new(owner::Owner::default()),
        "policy" => Box::new(policy::Policy::default()),
        "devgroup" => Box::new(devgroup::DevGroup::default()),
        "realm" if v4 => Box::new(One::new(&realm::REALM)),
        "rpfilter" => Box::new(rpfilter::RpFilter::default()),
        "set" => Box::new(set::Set::default()),
        "recent" => Box::new(recent::Recent::new(family)),
        "tcp" => Box::new(tcp::Tcp::default()),
        "tos" => Box::new(tos::Tos::default()),
        "dscp" => Box::new(tos::Dscp::default()),
        "ttl" if v4 => Box::new(ttl::Hops::new(false)),
        "hl" if !v4 => Box::new(ttl::Hops::new(true)),
        "string" => Box::new(string::StringModule::default()),
        "u32" => Box::new(u32::U32::default()),
        "bpf" => Box::new(bpf::Bpf::default()),
        "statistic" => Box::new(statistic::Statistic::default()),
        "time" => Box::new(time::Time::default()),
        "quota" => Box::new(One::new(&measure::QUOTA)),
        "cpu" => Box::new(One::new(&measure::CPU)),
        "cluster" => Box::new(measure::Cluster::default()),
        "nfacct" => Box::new(measure::Nfacct::default()),
        "rateest" => Box::new(rateest::Rateest::default()),
        "udp" => Box::new(udp::Udp::default()),
        "sctp" => Box::new(sctp::Sctp::default()),
        "dccp" => Box::new(dccp::Dccp::default()),
        "ah" => Box::new(ipsec::Ah::new(family)),
        "esp" => Box::new(ipsec::Esp::default()),
        "ipcomp" => Box::new(ipsec::Ipcomp::default()),
        "tcpmss" => Box::new(One::new(&tcpmss::TCPMSS)),
        "ecn" => Box::new(ecn::Ecn::default()),
        "eui64" if !v4 => Box::new(ipv6header::Eui64),
        "ipv6header" if !v4 => Box::new(ipv6header::Ipv6Header::default()),
        "rt" if !v4 => Box::new(rt::Rt::default()),
        "hbh" if !v4 => Box::new(options::Options::new(false)),
        "dst" if !v4 => Box::new(options::Options::new(true)),
        "frag" if !v4 => Box::new(frag::Frag::default()),
        "mh" if !v4 => Box::new(mh::Mh::default()),
        "srh" if !v4 => Box::new(srh::Srh::default()),
        _ => return None,
    })
}

/// The module that an option of an unnamed match loads after `-p`.
pub(crate) fn of_protocol(proto: u8, family: Family) -> Option<&'static str> {
    Some(match (proto, family) {
        (6, _) => "tcp",
        (17, _) => "udp",
        (1, Family::V4) => "icmp",
        (58, Family::V6) => "icmp6",
        (132, _) => "sctp",
        (33, _) => "dccp",
        (50, _) => "esp",
        (51, _) => "ah",
        (108, _) => "ipcomp",
        (135, Family::V6) => "mh",
        _ => return None,
    })
}

/// The error of a port that is none.
fn bad_port(operand: &Operand<'_>, part: &str) -> Problem {
    let problem = operand.bad(format!("`{part}' is no port or service"));
    if part.contains(',') {
        problem.remedy("a list of ports needs `-m multiport --dports' (or --sports, --ports)")
    } else if part.contains('-') && part.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        problem.remedy("a range is written LOW:HIGH")
    } else {
        problem.remedy("write a number from 0 to 65535 or a name from /etc/services")
    }
}

/// `--dport 0:65535` compares nothing and the tools drop it.
fn unless_all_ports(ports: Neg<Range<u16>>) -> Option<Neg<Range<u16>>> {
    let all = ports.value.low == 0 && ports.value.high == u16::MAX;
    (ports.negated || !all).then_some(ports)
}

/// Warns of a range that nothing lies in; the tools take it.
fn warn_reversed<T: PartialOrd>(
    range: &Range<T>,
    operand: &Operand<'_>,
    context: &mut Context<'_>,
) {
    if range.low > range.high {
        context.warnings.push(Problem::new(
            Code::NeverMatches,
            operand.span,
            format!("`{}' is reversed: no value lies in it", operand.text),
        ));
    }
}
