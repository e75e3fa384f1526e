//! The reader and the printer against what was observed of the tool.

use std::collections::BTreeMap;

use dataplane::sets::{CreateSpec, Entry, SetName};

use super::command::{self, Author, Context, Options, Verb};
use super::fault::Fault;
use super::{lexer, print};
use crate::diagnostics::Code;
use crate::iptables::TableNames;

/// Reads lines one after the other; gives what they create and add, as it is printed.
fn lines(text: &str) -> Result<Vec<String>, (usize, Fault)> {
    let names = TableNames::well_known();
    let mut specs: BTreeMap<SetName, CreateSpec> = BTreeMap::new();
    let mut printed = Vec::new();
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let refused = |fault| (number + 1, fault);
        lexer::split(line, &mut words).map_err(refused)?;
        Options::take(&mut words).map_err(refused)?;
        if words.is_empty() {
            continue;
        }
        let lookup = |name: &SetName| specs.get(name).copied();
        let mut warnings = Vec::new();
        let context = Context { names: &names, lookup: &lookup, author: Author::Operator };
        match command::read(&words, context, &mut warnings).map_err(refused)? {
            Verb::Create { name, spec } => {
                printed.push(print::create(&name, &spec));
                specs.insert(name, spec);
            }
            Verb::Element { name, written, extras, .. } => {
                let spec = specs[&name];
                let _ = written.each(|element| {
                    let entry = Entry { element: *element, extras: (*extras).clone() };
                    printed.push(print::entry(&entry, &spec, &names));
                    Ok::<(), ()>(())
                });
            }
            _ => {}
        }
    }
    Ok(printed)
}

/// What one element in a set with these options is printed as.
fn elements(options: &str, element: &str) -> String {
    match lines(&format!("create a {options}\nadd a {element}")) {
        Ok(printed) => printed[1..].join(" | "),
        Err((line, fault)) => format!("{line}: {:?} {}", fault.code, fault.message),
    }
}

/// Options, an element, and what it is printed as.
const ELEMENTS: &[(&str, &str, &str)] = &[
    ("hash:ip", "10.0.0.0/30", "10.0.0.0 | 10.0.0.1 | 10.0.0.2 | 10.0.0.3"),
    ("hash:ip", "10.0.0.3-10.0.0.1", "10.0.0.1 | 10.0.0.2 | 10.0.0.3"),
    ("hash:ip", "10.0.0.9/31", "10.0.0.8 | 10.0.0.9"),
    ("hash:ip", "10.0.0.1/32", "10.0.0.1"),
    ("hash:ip", "10.1", "10.0.0.1"),
    ("hash:ip", "010.0.0.1", "8.0.0.1"),
    ("hash:ip", "[10.0.0.1]", "10.0.0.1"),
    ("hash:ip netmask 24", "10.0.0.5-10.0.2.7", "10.0.0.0 | 10.0.1.0 | 10.0.2.0"),
    ("hash:ip netmask 24", "10.0.0.0/23", "10.0.0.0 | 10.0.1.0"),
    ("hash:ip family inet6", "2001:DB8::0:1", "2001:db8::1"),
    ("hash:ip family inet6", "2001:db8::/128", "2001:db8::"),
    ("hash:ip -6", "::ffff:10.0.0.1", "::ffff:10.0.0.1"),
    ("hash:net", "10.0.2.7/24", "10.0.2.0/24"),
    ("hash:net", "10.0.2.7/32", "10.0.2.7"),
    ("hash:net", "10.0.0.1-10.0.0.6", "10.0.0.1 | 10.0.0.2/31 | 10.0.0.4/31 | 10.0.0.6"),
    ("hash:net", "10.0.0.0-10.0.3.255", "10.0.0.0/22"),
    ("hash:net", "128.0.0.0-255.255.255.255", "128.0.0.0/1"),
    ("hash:net", "0.0.0.0-127.255.255.255", "0.0.0.0/1"),
    ("hash:net", "10.0.0.0/024", "10.0.0.0/20"),
    ("hash:net", "10.0.0.0/24 nomatch", "10.0.0.0/24 nomatch"),
    ("hash:net family inet6", "2001:db8::1/32", "2001:db8::/32"),
    ("hash:ip,port", "10.0.0.1,80", "10.0.0.1,tcp:80"),
    ("hash:ip,port", "10.0.0.1,udp:53-54", "10.0.0.1,udp:53 | 10.0.0.1,udp:54"),
    ("hash:ip,port", "10.0.0.1,82-81", "10.0.0.1,tcp:81 | 10.0.0.1,tcp:82"),
    ("hash:ip,port", "10.0.0.1,0x50", "10.0.0.1,tcp:80"),
    ("hash:ip,port", "10.0.0.1,TCP:010", "10.0.0.1,tcp:8"),
    ("hash:ip,port", "10.0.0.1,[ftp-data]-[ftp]", "10.0.0.1,tcp:20 | 10.0.0.1,tcp:21"),
    ("hash:ip,port", "10.0.0.1,icmp:ping", "10.0.0.1,icmp:echo-request"),
    ("hash:ip,port", "10.0.0.1,icmp:ECHO-request", "10.0.0.1,icmp:echo-request"),
    ("hash:ip,port", "10.0.0.1,icmp:99/3", "10.0.0.1,icmp:99/3"),
    ("hash:ip,port", "10.0.0.1,47:0", "10.0.0.1,gre:0"),
    ("hash:ip,port", "10.0.0.1,255:0", "10.0.0.1,255:0"),
    (
        "hash:ip,port -6",
        "2001:db8::1,icmpv6:neigbour-solicitation",
        "2001:db8::1,ipv6-icmp:neighbour-solicitation",
    ),
    (
        "hash:ip,port,ip",
        "10.0.0.0/31,1-2,1.1.1.1",
        "10.0.0.0,tcp:1,1.1.1.1 | 10.0.0.0,tcp:2,1.1.1.1 | 10.0.0.1,tcp:1,1.1.1.1 \
             | 10.0.0.1,tcp:2,1.1.1.1",
    ),
    (
        "hash:ip,port,net",
        "10.0.0.1,1,10.1.0.0-10.1.0.2 nomatch",
        "10.0.0.1,tcp:1,10.1.0.0/31 nomatch | 10.0.0.1,tcp:1,10.1.0.2 nomatch",
    ),
    ("hash:net,iface", "0.0.0.0/0,physdev:eth1", "0.0.0.0/0,physdev:eth1"),
    ("hash:net,iface", "10.1.1.1,eth nomatch wildcard", "10.1.1.1,eth nomatch wildcard"),
    ("hash:mac", "2:0:0:0:0:a", "02:00:00:00:00:0A"),
    ("hash:ip,mac", "10.0.0.1,02:00:00:00:00:0a", "10.0.0.1,02:00:00:00:00:0A"),
    ("hash:ip,mark", "10.0.0.1,16", "10.0.0.1,0x00000010"),
    ("bitmap:ip range 10.0.0.0/24", "10.0.0.8/31", "10.0.0.8 | 10.0.0.9"),
    ("bitmap:ip,mac range 10.0.0.0/24", "10.0.0.8", "10.0.0.8"),
    ("bitmap:port range 0-100", "udp:domain", "53"),
    ("bitmap:port range 0-100", "9-7", "7 | 8 | 9"),
    ("hash:ip counters", "10.0.0.1 bytes 0x10", "10.0.0.1 packets 0 bytes 16"),
    ("hash:ip comment", "10.0.0.1 comment x\"y z\"", "10.0.0.1 comment \"xy z\""),
    ("hash:ip comment", "10.0.0.1 comment a\\b", "10.0.0.1 comment \"a\\b\""),
    (
        "hash:net timeout 9 counters comment skbinfo",
        "10.0.0.0/24 skbqueue 3 nomatch comment x skbmark 0x5/0xff skbprio ffff:10 timeout 7",
        "10.0.0.0/24 timeout 7 nomatch packets 0 bytes 0 comment \"x\" skbmark 0x5/0xff \
             skbprio ffff:10 skbqueue 3",
    ),
    ("hash:ip skbinfo", "10.0.0.1 skbmark 0x1/ skbprio 0:0 skbqueue 0", "10.0.0.1 skbmark 0x1"),
];

#[test]
fn elements_stand_for_what_ipset_makes_of_them() {
    for &(options, element, printed) in ELEMENTS {
        assert_eq!(elements(options, element), printed, "{options} :: {element}");
    }
}

#[test]
fn what_ipset_refuses_is_refused_at_its_place() {
    // The column is that of the caret.
    let cases = [
        ("create a hash:ip fam inet6", Code::UnknownOption, 18),
        ("create a hash:ip family inet4", Code::BadValue, 25),
        ("create a hash:ip -4 -6", Code::RepeatedOption, 21),
        ("create a hash:ip timeout 2147484", Code::BadValue, 26),
        ("create a hash:ip timeout", Code::MissingOption, 18),
        ("create a hash:ip netmask 0", Code::BadValue, 26),
        ("create a hash:ip netmask 24 bitmask 255.0.0.0", Code::ConflictingOptions, 37),
        ("create a hash:ip bitmask 0.0.0.0", Code::BadValue, 26),
        ("create a hash:ip range 10.0.0.0/8", Code::UnknownOption, 18),
        ("create a hash:net netmask 24", Code::UnknownOption, 19),
        ("create a hash:IP", Code::UnknownSetType, 10),
        ("create a", Code::MissingOption, 1),
        ("create \"\" hash:ip", Code::MissingOption, 1),
        ("create abcdefghijklmnopqrstuvwxyz123456 hash:ip", Code::BadValue, 8),
        ("create a bitmap:ip", Code::MissingOption, 10),
        ("create a bitmap:ip range 10.0.0.9", Code::BadValue, 26),
        ("create a bitmap:port range 5", Code::BadValue, 28),
        ("crate a hash:ip", Code::BadCommand, 1),
        ("create a\"b hash:ip", Code::UnterminatedQuote, 9),
        ("add b 1.1.1.1", Code::MissingSet, 5),
        ("destroy a b", Code::UnexpectedText, 11),
    ];
    for (line, code, column) in cases {
        let (_, fault) = lines(line).expect_err(line);
        assert_eq!((fault.code, fault.start + 1), (code, column), "{line}: {}", fault.message);
    }
}

#[test]
fn elements_that_ipset_refuses_are_refused_at_their_place() {
    let cases = [
        ("hash:ip", "foo.invalid", Code::HostName, 7),
        ("hash:ip", "::1", Code::BadValue, 7),
        ("hash:ip", "10.0.0.1/0", Code::BadValue, 7),
        ("hash:ip", "10.0.0.1/33", Code::BadValue, 16),
        ("hash:ip", "10.0.0.1-5", Code::BadValue, 16),
        ("hash:ip", "0xa.0.0.1", Code::BadValue, 7),
        ("hash:ip", "10.0.0.1,1", Code::BadValue, 7),
        ("hash:ip", "10.0.0.1 timeout 5", Code::NoExtension, 16),
        ("hash:ip", "10.0.0.1 nomatch", Code::UnknownOption, 16),
        ("hash:ip bitmask 255.0.0.255", "10.0.0.0/24", Code::BadValue, 7),
        ("hash:ip -6", "2001:db8::/127", Code::BadValue, 7),
        ("hash:ip timeout 5", "1.1.1.1 timeout 3 timeout 4", Code::RepeatedOption, 25),
        ("hash:ip comment", "1.1.1.1 comment", Code::MissingOption, 15),
        ("hash:ip skbinfo", "1.1.1.1 skbmark 5", Code::BadValue, 23),
        ("hash:ip skbinfo", "1.1.1.1 skbprio 10", Code::BadValue, 23),
        ("hash:net", "0.0.0.0-255.255.255.255", Code::BadValue, 7),
        ("hash:net -6", "::1-::4", Code::BadValue, 7),
        ("hash:ip,port", "10.0.0.1", Code::BadValue, 7),
        ("hash:ip,port", "10.0.0.1,", Code::BadValue, 7),
        ("hash:ip,port", "10.0.0.1,tcp:65536", Code::BadValue, 20),
        ("hash:ip,port", "10.0.0.1,gre:5", Code::BadValue, 20),
        ("hash:ip,port", "10.0.0.1,0:0", Code::BadValue, 18),
        ("hash:ip,port", "10.0.0.1,256:0", Code::BadValue, 16),
        ("hash:ip,port", "10.0.0.1,icmp:5", Code::BadValue, 21),
        ("hash:ip,port", "10.0.0.1,icmpv6:1/1", Code::BadValue, 23),
        ("hash:ip,port", "10.0.0.1,ftp-data", Code::BadValue, 16),
        ("hash:ip,port", "10.0.0.1,[80]", Code::BadValue, 16),
        ("hash:ip,port,ip", "10.0.0.1,80,10.0.0.2/31", Code::BadValue, 19),
        ("hash:net,iface", "10.0.0.0/24,abcdefghijklmnop", Code::BadValue, 19),
        ("bitmap:ip,mac range 10.0.0.0/24", "10.0.0.1,02:00:00:00:00", Code::BadValue, 16),
        ("bitmap:port range 0-9", "gre:0", Code::BadValue, 7),
    ];
    for (options, element, code, column) in cases {
        let (line, fault) =
            lines(&format!("create a {options}\nadd a {element}")).expect_err(element);
        assert_eq!(
            (line, fault.code, fault.start + 1),
            (2, code, column),
            "{options} :: {element}: {}",
            fault.message
        );
        assert!(fault.end > fault.start, "{element}: an empty place");
    }
}

#[test]
fn create_lines_are_printed_in_the_normal_form() {
    let cases = [
        (
            "create a iphash",
            "create a hash:ip family inet hashsize 1024 maxelem 65536 bucketsize 12",
        ),
        (
            "-N a hash:ip,port --hashsize 1000 netmask 24 timeout 5",
            "create a hash:ip,port family inet hashsize 1024 maxelem 65536 timeout 5 bucketsize 12 \
             netmask 24",
        ),
        (
            "create a hash:ip bitmask 255.255.0.255 skbinfo comment counters initval 0x1f",
            "create a hash:ip family inet hashsize 1024 maxelem 65536 bitmask 255.255.0.255 \
             counters comment skbinfo bucketsize 12 initval 0x0000001f",
        ),
        ("create a bitmap:ip range 10.0.0.9/16", "create a bitmap:ip range 10.0.0.0-10.0.255.255"),
        (
            "create a bitmap:ip from 10.0.0.9 to 10.0.0.1",
            "create a bitmap:ip range 10.0.0.1-10.0.0.9",
        ),
        ("create a bitmap:port range http-[https]", "create a bitmap:port range 80-443"),
        ("create a list:set timeout 3", "create a list:set size 8 timeout 3"),
        (
            "create \"a b\" hash:mac",
            "create \"a b\" hash:mac hashsize 1024 maxelem 65536 bucketsize 12",
        ),
    ];
    for (line, printed) in cases {
        assert_eq!(lines(line).unwrap(), [printed], "{line}");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn scrap() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "create",
            "add",
            "del",
            "test",
            "-N",
            "-A",
            "a",
            "b",
            "hash:ip",
            "hash:net",
            "hash:ip,port",
            "hash:net,iface",
            "hash:ip,port,net",
            "bitmap:port",
            "bitmap:ip",
            "list:set",
            "range",
            "0-9",
            "10.0.0.0/24",
            "family",
            "inet6",
            "timeout",
            "5",
            "counters",
            "comment",
            "\"x y\"",
            "\"",
            "skbinfo",
            "skbmark",
            "0x1/0xff",
            "netmask",
            "24",
            "10.0.0.1",
            "10.0.0.1-10.0.0.9",
            "10.0.0.1,tcp:80",
            "10.0.0.1,icmp:ping",
            "2001:db8::/32",
            "0.0.0.0/0",
            "10.0.0.0/24,eth0",
            "nomatch",
            "wildcard",
            "-exist",
            "-!",
            "before",
            "after",
            "[ftp-data]-[http]",
            "10.0.0.1,[",
            "-o",
            "-f",
            "é,é",
        ]);
        prop::collection::vec(prop_oneof![4 => words.prop_map(str::to_owned), 1 => ".{0,12}"], 0..9)
            .prop_map(|words| words.join(" "))
    }

    proptest! {
        /// Nothing that can be written makes the reader panic, and every fault has a place.
        #[test]
        fn any_text_is_read_or_refused(text in prop::collection::vec(scrap(), 1..6)) {
            let mut source = vec!["create a hash:ip".to_owned(), "create b hash:net".to_owned()];
            source.extend(text.into_iter().filter(|line| !line.trim().is_empty()));
            let source = source.join("\n");
            if let Err((number, fault)) = lines(&source) {
                let line = source.lines().nth(number - 1).unwrap_or_default();
                let span = lexer::span(line, number as u32, fault.start, fault.end);
                prop_assert!(span.len >= 1 && span.column >= 1);
                prop_assert!(fault.start <= line.len());
            }
        }

        /// What is printed is read back as the same.
        #[test]
        fn printed_elements_are_read_back(ip in any::<u32>(), len in 1u8..=32, port in any::<u16>(),
            proto in prop::sample::select(vec![6u8, 17, 132, 136, 1, 47, 255]), nomatch in any::<bool>()) {
            let address = std::net::Ipv4Addr::from(ip);
            let port = match proto {
                1 => format!("{}/{}", port >> 8, port & 0xff),
                47 | 255 => "0".to_owned(),
                _ => port.to_string(),
            };
            let written = format!("{address}/{len},{proto}:{port}{}", if nomatch { " nomatch" } else { "" });
            let once = elements("hash:net,port", &written);
            prop_assert_eq!(elements("hash:net,port", &once), once);
        }
    }
}
