//! ICMP types and codes by the names that ipset has for them.

/// `type << 8 | code` by name; the first of two names is the one that is printed.
const V4: &[(&str, u16)] = &[
    ("echo-reply", 0x0000),
    ("pong", 0x0000),
    ("network-unreachable", 0x0300),
    ("host-unreachable", 0x0301),
    ("protocol-unreachable", 0x0302),
    ("port-unreachable", 0x0303),
    ("fragmentation-needed", 0x0304),
    ("source-route-failed", 0x0305),
    ("network-unknown", 0x0306),
    ("host-unknown", 0x0307),
    ("network-prohibited", 0x0309),
    ("host-prohibited", 0x030a),
    ("TOS-network-unreachable", 0x030b),
    ("TOS-host-unreachable", 0x030c),
    ("communication-prohibited", 0x030d),
    ("host-precedence-violation", 0x030e),
    ("precedence-cutoff", 0x030f),
    ("source-quench", 0x0400),
    ("network-redirect", 0x0500),
    ("host-redirect", 0x0501),
    ("TOS-network-redirect", 0x0502),
    ("TOS-host-redirect", 0x0503),
    ("echo-request", 0x0800),
    ("ping", 0x0800),
    ("router-advertisement", 0x0900),
    ("router-solicitation", 0x0a00),
    ("ttl-zero-during-transit", 0x0b00),
    ("ttl-zero-during-reassembly", 0x0b01),
    ("ip-header-bad", 0x0c00),
    ("required-option-missing", 0x0c01),
    ("timestamp-request", 0x0d00),
    ("timestamp-reply", 0x0e00),
    ("address-mask-request", 0x1100),
    ("address-mask-reply", 0x1200),
];

const V6: &[(&str, u16)] = &[
    ("no-route", 0x0100),
    ("communication-prohibited", 0x0101),
    ("address-unreachable", 0x0103),
    ("port-unreachable", 0x0104),
    ("packet-too-big", 0x0200),
    ("ttl-zero-during-transit", 0x0300),
    ("ttl-zero-during-reassembly", 0x0301),
    ("bad-header", 0x0400),
    ("unknown-header-type", 0x0401),
    ("unknown-option", 0x0402),
    ("echo-request", 0x8000),
    ("ping", 0x8000),
    ("echo-reply", 0x8100),
    ("pong", 0x8100),
    ("router-solicitation", 0x8500),
    ("router-advertisement", 0x8600),
    ("neighbour-solicitation", 0x8700),
    ("neigbour-solicitation", 0x8700),
    ("neighbour-advertisement", 0x8800),
    ("neigbour-advertisement", 0x8800),
    ("redirect", 0x8900),
];

const fn table(proto: u8) -> &'static [(&'static str, u16)] {
    if proto == 58 { V6 } else { V4 }
}

/// By name, or as `TYPE/CODE`.
pub(super) fn parse(text: &str, proto: u8) -> Option<u16> {
    let named = table(proto).iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, value)) = named {
        return Some(*value);
    }
    let (kind, code) = text.split_once('/')?;
    let (kind, code) = (super::value::number(kind, 255)?, super::value::number(code, 255)?);
    Some((kind << 8 | code) as u16)
}

/// As it is printed.
pub(super) fn print(value: u16, proto: u8) -> String {
    let named = table(proto).iter().find(|(_, it)| *it == value);
    named.map_or_else(|| format!("{}/{}", value >> 8, value & 0xff), |(name, _)| (*name).to_owned())
}
