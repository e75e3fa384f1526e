//! Command lines of the `conntrack` tool, understood and refused.

use super::options::ParseError;
use super::parse::{Action, Request, Wanted, parse};
use crate::api::protocol::{ConntrackFilter, NatEnd, StatusName};
use crate::iptables::TableNames;

fn names() -> TableNames {
    TableNames::well_known().with_labels("1 bravo\n5 foxtrot\n")
}

fn understood(line: &str) -> Result<Wanted, ParseError> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    match parse(&words, &names())? {
        Request::Do(wanted) => Ok(*wanted),
        other => panic!("{line}: {other:?}"),
    }
}

/// The filter as JSON, which is how it travels.
fn filter(line: &str) -> String {
    let wanted = understood(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    serde_json::to_string(&wanted.filter).unwrap()
}

#[test]
fn filters_say_what_they_say_to_the_tool() {
    let host = r#"{"address":"198.18.1.2","mask":"255.255.255.255"}"#;
    let net = r#"{"address":"198.18.1.0","mask":"255.255.255.0"}"#;
    let net6 = r#"{"address":"2001:db8::","mask":"ffff:ffff::"}"#;
    let table = [
        ("-L", "{}".to_owned()),
        ("-L -s 198.18.1.2", format!(r#"{{"src":{host}}}"#)),
        ("-L --orig-src=198.18.1.0/24", format!(r#"{{"src":{net}}}"#)),
        ("-L -s 198.18.1.0 --mask-src 255.255.255.0", format!(r#"{{"src":{net}}}"#)),
        ("-L -d 2001:db8::/32 -f ipv6", format!(r#"{{"family":"v6","dst":{net6}}}"#)),
        ("-L -r 198.18.1.2", format!(r#"{{"reply_src":{host}}}"#)),
        ("-L -q198.18.1.2", format!(r#"{{"reply_dst":{host}}}"#)),
        ("-L -p UDP", r#"{"proto":17}"#.to_owned()),
        ("-L -p 99", r#"{"proto":99}"#.to_owned()),
        ("-Lp tcp --dport http", r#"{"proto":6,"dport":80}"#.to_owned()),
        ("-L --sport 7 -p tcp", r#"{"proto":6,"sport":7}"#.to_owned()),
        (
            "-L -p udplite --orig-port-src 1 --orig-port-dst 2 --reply-port-src 3 --reply-port-dst 4",
            r#"{"proto":136,"sport":1,"dport":2,"reply_sport":3,"reply_dport":4}"#.to_owned(),
        ),
        (
            "-L -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 77",
            r#"{"proto":1,"icmp_type":8,"icmp_code":0,"icmp_id":77}"#.to_owned(),
        ),
        ("-L -p icmpv6 --icmpv6-type 128", r#"{"proto":58,"icmp_type":128}"#.to_owned()),
        ("-L -p gre --srckey 0xa --dstkey 32", r#"{"proto":47,"sport":10,"dport":32}"#.to_owned()),
        ("-L -p tcp --state listen", r#"{"proto":6,"state":"SYN_SENT2"}"#.to_owned()),
        ("-L -m 0x10/0x30", r#"{"mark":{"value":16,"mask":48}}"#.to_owned()),
        ("-L -m 010", r#"{"mark":{"value":8,"mask":4294967295}}"#.to_owned()),
        ("-L -u assured,UNREPLIED", r#"{"status":["ASSURED","UNREPLIED"]}"#.to_owned()),
        ("-L -w 5", r#"{"zone":5}"#.to_owned()),
        ("-L --orig-zone 5 --reply-zone 6", r#"{"orig_zone":5,"reply_zone":6}"#.to_owned()),
        ("-L -l bravo,7 -l foxtrot", r#"{"labels":[1,7,5]}"#.to_owned()),
        ("-L -n", r#"{"nat":{"which":"source"}}"#.to_owned()),
        (
            "-L -g 198.18.1.2 -u ASSURED",
            r#"{"status":["ASSURED"],"nat":{"which":"destination","to":"198.18.1.2"}}"#.to_owned(),
        ),
        ("-L --any-nat -p tcp", r#"{"proto":6,"nat":{"which":"any"}}"#.to_owned()),
    ];
    for (line, wanted) in table {
        assert_eq!(filter(line), wanted, "{line}");
        let parsed: ConntrackFilter = serde_json::from_str(&wanted).unwrap();
        assert_eq!(understood(line).unwrap().filter, parsed, "{line}");
    }
    assert_eq!(understood("-L -j").unwrap().filter.nat.unwrap().which, NatEnd::Any);
    let status = understood("-L -u SEEN_REPLY").unwrap().filter.status;
    assert_eq!(status, [StatusName::SeenReply]);
}

#[test]
fn commands_are_options_or_words() {
    let action = |line| understood(line).unwrap().action;
    for (line, wanted) in [
        ("-L", Action::List),
        ("--dump", Action::List),
        ("list conntrack", Action::List),
        ("-p tcp list", Action::List),
        ("conntrack list", Action::List),
        ("-C", Action::Count),
        ("count", Action::Count),
        ("-F", Action::Flush),
        ("delete -s 198.18.1.2", Action::Delete),
        ("-Dp gre", Action::Delete),
        ("--delete", Action::Delete),
        ("-G -p udp -s 198.18.1.2 -d 198.18.2.2 --sport 1 --dport 2", Action::Get),
        ("stats --json", Action::Stats),
        ("-E -e NEW,destroy", Action::Watch),
        ("watch -b 1000000", Action::Watch),
        ("-L expect", Action::List),
        ("flush expect", Action::Flush),
    ] {
        assert_eq!(action(line), wanted, "{line}");
    }
    // Joined with a command, the protocol still narrows what is deleted.
    assert_eq!(understood("-Dp gre").unwrap().filter.proto, Some(47));
    let shape = understood("-L -o extended,id -o labels,ktimestamp").unwrap().shape;
    assert!(shape.extended && shape.id && shape.labels && shape.start && !shape.save);
    let words = ["--socket=/x", "-L", "--json"].map(str::to_owned);
    let Request::Do(wanted) = parse(&words, &names()).unwrap() else { panic!() };
    assert_eq!((wanted.socket, wanted.json), (Some("/x".into()), true));
    for line in [vec![], vec!["-h"], vec!["-L", "--help"]] {
        let words: Vec<String> = line.into_iter().map(str::to_owned).collect();
        assert_eq!(parse(&words, &names()), Ok(Request::Help));
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_remedy() {
    for (line, said) in [
        ("", "say what to do"),
        ("-L -x", "unknown option `-x`"),
        ("-L --nosuch", "unknown option `--nosuch`"),
        ("-L --mask 1", "could be --mask-src or --mask-dst"),
        ("-L -p", "`-p` needs a value"),
        ("-L --json=1", "takes no value"),
        ("-L -F", "`list` and `flush` are two commands"),
        ("-L bogus", "`bogus` is not a command"),
        ("-L dying", "use the table conntrack"),
        ("-L -p udp -p tcp", "`--protonum` is given twice"),
        ("-L -n -g", "given twice"),
        ("-L -p nosuch", "`nosuch` is no protocol; write tcp"),
        ("-L -s foo", "`foo` is no address; write 198.51.100.7"),
        ("-L -s 198.18.1.2/33", "is no network"),
        ("-L -p tcp --dport 70000", "`70000` is no port"),
        ("-L -p tcp --dport 7:9", "`7:9` is no port"),
        ("-L -p tcp --dport +7", "`+7` is no port"),
        ("-L --dport 9", "`dport` needs `-p tcp"),
        ("-L -p icmp --sport 3", "`sport` needs `-p tcp"),
        ("-L -p tcp --icmp-type 8", "`icmp-type` needs `-p icmp`"),
        ("-L -p icmp --icmp-type 256", "`256` is no ICMP type"),
        ("-L -p udp --state ESTABLISHED", "`state` needs `-p tcp"),
        ("-L -p tcp --state OPEN", "`OPEN` is no state"),
        ("-L -f inet", "`inet` is no family; write ipv4 or ipv6"),
        ("-L -m x", "`x` is no mark"),
        ("-L -m 1/", "`` is no mark"),
        ("-L -w 70000", "`70000` is no zone"),
        ("-L -u UNSET", "`UNSET` is no status; there are ASSURED"),
        ("-L -l nosuch", "`nosuch` is no label"),
        ("-L -l 128", "`128` is no label"),
        ("-L -o xml", "use --json"),
        ("-L -o foo", "`foo` is no output"),
        ("-L -e NEW", "`event-mask` does not go with list; it goes with watch"),
        ("-L --mask-src 255.0.0.0", "without the address"),
        ("-C -p udp", "`protonum` does not go with count"),
        ("-F -s 198.18.1.2", "`src` does not go with flush; filters go with"),
        ("-G -p udp", "give -p, -s, -d"),
        ("-E -e OLD", "`OLD` is no event"),
        ("-D expect", "`expect` does not go with delete; it goes with list"),
        ("-L expect -p tcp", "list all of it"),
        ("-L -z", "take the difference of two listings"),
        ("-L -t 5", "CT --timeout"),
        ("-I -p udp", "connections are made by packets"),
        ("-U -m 1", "CONNMARK"),
        ("-L -p tcp --orig-vtag 1", "filter by ports"),
    ] {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            let only_filter = ["-p".to_owned(), "tcp".to_owned()];
            assert_eq!(parse(&only_filter, &names()), Err(ParseError::NoCommand));
            continue;
        }
        match parse(&words, &names()) {
            Err(error) => assert!(error.to_string().contains(said), "{line}: {error}"),
            Ok(found) => panic!("{line}: {found:?}"),
        }
    }
}
