//! Filters against connections that nearly pass, and lines against the tool's own.

use std::net::IpAddr;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, ConnView, Conntrack, Saved, Tuple, status};
use dataplane::packet::Family;

use super::{Columns, Form, Rows, matches, save_line};
use crate::api::protocol::{
    AddressFilter, ConntrackFilter, ConntrackRow, FamilyName, MarkFilter, NatEnd, NatFilter,
    StatusName,
};
use crate::iptables::TableNames;

const NOW: Nanos = Nanos::from_secs(10_000);

fn v4(text: &str) -> u128 {
    u128::from(u32::from(text.parse::<std::net::Ipv4Addr>().unwrap()))
}

fn saved(proto: u8, sport: u16, dport: u16) -> Saved {
    let (src, dst) = (v4("198.18.1.2"), v4("198.18.2.2"));
    let original = Tuple { src, dst, sport, dport, proto, family: Family::V4, zone: 0 };
    Saved {
        number: 1,
        master: None,
        left: Nanos(99_500_000_000),
        age: None,
        status: 0,
        mark: 0,
        original,
        reply: original.inverted().unwrap(),
        words: [0; Saved::WORDS],
    }
}

fn table(saved: &Saved) -> Conntrack {
    let mut config = Config::new([3; 16]);
    config.set("max", 16).unwrap();
    let table = Conntrack::new(config).unwrap();
    table.import(saved, Nanos(0), NOW).unwrap();
    table
}

fn row(saved: &Saved) -> ConntrackRow {
    let table = table(saved);
    let ports = ["g0".to_owned(), "g1".to_owned()];
    let rows = Rows { table: &table, ports: &ports, now: NOW, utc_offset: Nanos(0) };
    let found = table.rows(NOW).next().unwrap();
    rows.row(&found)
}

fn view(saved: &Saved) -> ConnView {
    table(saved).rows(NOW).next().unwrap().view
}

fn line(saved: &Saved) -> String {
    row(saved).text
}

#[test]
fn lines_are_the_tools_own() {
    let mut udp = saved(17, 11, 20);
    udp.reply.dst = v4("198.18.3.1");
    udp.status = status::FIXED_TIMEOUT;
    udp.mark = 16;
    assert_eq!(
        line(&udp),
        "udp      17 99 src=198.18.1.2 dst=198.18.2.2 sport=11 dport=20 [UNREPLIED] \
         src=198.18.2.2 dst=198.18.3.1 sport=20 dport=11 mark=16 use=1"
    );
    assert_eq!(
        save_line(&row(&saved(17, 12, 20))),
        "-A -t 99 -u UNSET -s 198.18.1.2 -d 198.18.2.2 -r 198.18.2.2 -q 198.18.1.2 -p udp \
         --sport 12 --dport 20 --reply-port-src 20 --reply-port-dst 12"
    );
    let gre = saved(47, 10, 32);
    assert_eq!(
        line(&gre),
        "gre      47 99 src=198.18.1.2 dst=198.18.2.2 srckey=0xa dstkey=0x20 [UNREPLIED] \
         src=198.18.2.2 dst=198.18.1.2 srckey=0x20 dstkey=0xa mark=0 use=1"
    );
    assert_eq!(
        save_line(&row(&gre)),
        "-A -t 99 -u UNSET -s 198.18.1.2 -d 198.18.2.2 -r 198.18.2.2 -q 198.18.1.2 -p gre \
         --srckey 10 --dstkey 32 --reply-key-src 32 --reply-key-dst 10"
    );
    let mut zoned = saved(17, 1, 3);
    zoned.original.zone = 5;
    assert_eq!(
        line(&zoned),
        "udp      17 99 src=198.18.1.2 dst=198.18.2.2 sport=1 dport=3 zone-orig=5 [UNREPLIED] \
         src=198.18.2.2 dst=198.18.1.2 sport=3 dport=1 mark=0 use=1"
    );
    zoned.reply.zone = 5;
    zoned.status = status::SEEN_REPLY | status::ASSURED;
    assert_eq!(
        line(&zoned),
        "udp      17 99 src=198.18.1.2 dst=198.18.2.2 sport=1 dport=3 \
         src=198.18.2.2 dst=198.18.1.2 sport=3 dport=1 [ASSURED] mark=0 zone=5 use=1"
    );
    zoned.status |= status::SRC_NAT;
    zoned.reply.dst = v4("198.18.2.1");
    assert_eq!(
        save_line(&row(&zoned)),
        "-A -t 99 -u SEEN_REPLY,ASSURED -w 5 -s 198.18.1.2 -d 198.18.2.2 -r 198.18.2.2 \
         -n 198.18.2.1 -p udp --sport 1 --dport 3 --reply-port-src 3 --reply-port-dst 1"
    );
}

#[test]
fn columns_come_where_the_tool_has_them() {
    let names = TableNames::well_known().with_labels("1 bravo\n5 foxtrot\n");
    let mut row = row(&saved(17, 35798, 9));
    row.labels = vec![1, 5, 7];
    row.helper = Some("tftp".to_owned());
    (row.age_s, row.start_s, row.id) = (Some(3), Some(1_795_315_085), 42);
    let all = Columns {
        extended: true,
        id: true,
        start: true,
        labels: Some(&names),
        ..Columns::default()
    };
    assert_eq!(
        all.line(&row),
        "ipv4     2 udp      17 99 src=198.18.1.2 dst=198.18.2.2 sport=35798 dport=9 [UNREPLIED] \
         src=198.18.2.2 dst=198.18.1.2 sport=9 dport=35798 mark=0 delta-time=3 \
         [start=Sun Nov 22 02:38:05 2026] helper=tftp use=1 id=42 labels=bravo,foxtrot,7"
    );
    let event = Columns { form: Form::Event, ..Columns::default() };
    (row.age_s, row.helper) = (None, None);
    assert_eq!(
        event.line(&row),
        "udp      17 99 src=198.18.1.2 dst=198.18.2.2 sport=35798 dport=9 [UNREPLIED] \
         src=198.18.2.2 dst=198.18.1.2 sport=9 dport=35798"
    );
}

/// One field of a filter that passes `saved(17, 11, 20)` as [`near`] has it, and one that just does not.
fn pairs() -> Vec<(&'static str, ConntrackFilter, ConntrackFilter)> {
    let none = ConntrackFilter::default;
    let net = |address: &str, mask: &str| {
        let [address, mask] = [address, mask].map(|text| text.parse::<IpAddr>().unwrap());
        Some(AddressFilter { address, mask })
    };
    let full = "255.255.255.255";
    let nat = |which, to: Option<&str>| {
        Some(NatFilter { which, to: to.map(|text| text.parse().unwrap()) })
    };
    let with = |change: &dyn Fn(&mut ConntrackFilter)| {
        let mut filter = none();
        change(&mut filter);
        filter
    };
    macro_rules! pair {
        ($field:ident, $hit:expr, $miss:expr) => {
            (stringify!($field), with(&|f| f.$field = $hit), with(&|f| f.$field = $miss))
        };
    }
    vec![
        pair!(family, Some(FamilyName::V4), Some(FamilyName::V6)),
        pair!(proto, Some(17), Some(136)),
        pair!(src, net("198.18.1.0", "255.255.255.0"), net("198.18.1.3", full)),
        pair!(src, net("198.18.1.3", "255.255.255.254"), net("198.18.1.3", "255.255.255.255")),
        pair!(dst, net("198.18.2.2", full), net("198.18.3.2", full)),
        pair!(reply_src, net("198.18.2.2", full), net("198.18.1.2", full)),
        pair!(reply_dst, net("198.18.3.1", full), net("198.18.1.2", full)),
        pair!(src, net("0.0.0.0", "0.0.0.0"), net("::", "::")),
        pair!(sport, Some(11), Some(20)),
        pair!(dport, Some(20), Some(11)),
        pair!(reply_sport, Some(20), Some(11)),
        pair!(reply_dport, Some(11), Some(20)),
        pair!(icmp_type, None, Some(0)),
        pair!(
            mark,
            Some(MarkFilter { value: 0x10, mask: 0x30 }),
            Some(MarkFilter { value: 0x10, mask: u32::MAX })
        ),
        pair!(
            status,
            vec![StatusName::SeenReply, StatusName::SrcNat],
            vec![StatusName::SeenReply, StatusName::Assured]
        ),
        pair!(status, vec![], vec![StatusName::Unreplied]),
        pair!(orig_zone, Some(5), Some(0)),
        pair!(zone, Some(0), Some(5)),
        pair!(reply_zone, Some(0), Some(5)),
        pair!(labels, vec![0, 127], vec![0, 126]),
        pair!(nat, nat(NatEnd::Source, None), nat(NatEnd::Destination, None)),
        pair!(nat, nat(NatEnd::Any, Some("198.18.3.1")), nat(NatEnd::Source, Some("198.18.1.2"))),
        pair!(state, None, Some("ESTABLISHED".to_owned())),
    ]
}

#[test]
fn each_part_of_a_filter_decides() {
    let mut near = saved(17, 11, 20);
    near.reply.dst = v4("198.18.3.1");
    near.status = status::SEEN_REPLY | status::SRC_NAT;
    near.mark = 0x51;
    near.original.zone = 5;
    let view = view(&near);
    let passes = |filter: &ConntrackFilter| matches(filter, &view, None, || 1 << 127 | 1);
    assert!(passes(&ConntrackFilter::default()));
    for (field, hit, miss) in pairs() {
        assert!(passes(&hit), "{field}: {hit:?}");
        assert!(!passes(&miss), "{field}: {miss:?}");
    }
    let closed = ConntrackFilter { state: Some("CLOSE".to_owned()), ..ConntrackFilter::default() };
    assert!(matches(&closed, &view, Some("CLOSE"), || 0));
}

#[test]
fn translation_is_seen_in_ports_and_identifiers_too() {
    let find = |saved: &Saved, which| {
        let filter = NatFilter { which, to: None };
        let filter = ConntrackFilter { nat: Some(filter), ..ConntrackFilter::default() };
        matches(&filter, &view(saved), None, || 0)
    };
    let ends = |saved: &Saved| {
        [NatEnd::Source, NatEnd::Destination, NatEnd::Any].map(|end| find(saved, end))
    };
    let plain = saved(17, 11, 20);
    assert_eq!(ends(&plain), [false, false, false]);
    let mut ported = plain;
    ported.reply.dport = 12;
    assert_eq!(ends(&ported), [true, false, true]);
    let mut redirected = plain;
    redirected.reply.sport = 8080;
    assert_eq!(ends(&redirected), [false, true, true]);
    let ping = saved(1, 77, 8 << 8);
    assert_eq!(ends(&ping), [false, false, false]);
    let mut renamed = ping;
    renamed.reply.sport = 78;
    assert_eq!(ends(&renamed), [true, false, true]);
}
