//! Tests of the replay library: verdicts, reasons, the contract's keys.

use dataplane::clock::Nanos;
use dataplane::packet::Mac;
use dataplane::wire::build::Packet as Frame;

use super::*;
use crate::iptables;
use crate::replay::event::Verdict;
use crate::replay::topology::TopologyFile;

const TOPOLOGY: &str = r#"
mode = "routed"
[[port]]
name = "eth0"
mac = "02:00:00:00:01:01"
addresses = ["198.18.1.1/24", "2001:db8:1::1/64"]
[[port]]
name = "eth1"
mac = "02:00:00:00:01:02"
addresses = ["198.18.2.1/24", "2001:db8:2::1/64"]
[[neighbour]]
dev = "eth0"
address = "198.18.1.2"
mac = "02:00:00:00:02:01"
[[neighbour]]
dev = "eth1"
address = "198.18.2.2"
mac = "02:00:00:00:02:02"
[conntrack]
max = 1000
"#;

fn replay(rules: &str) -> Replay {
    let file = TopologyFile::parse(std::path::Path::new("topo.toml"), TOPOLOGY).unwrap();
    let mut setup = Setup::new(file.topology, 0);
    for sysctl in &file.conntrack {
        setup.conntrack.set(&sysctl.name, sysctl.value).unwrap();
    }
    let names = iptables::TableNames::well_known();
    setup.v4 = iptables::parse(rules, "rules.v4", Family::V4, &names).unwrap().ruleset;
    Replay::new(setup).unwrap()
}

fn from(side: u8, frame: Frame) -> Vec<u8> {
    frame.macs(Mac([2, 0, 0, 0, 2, side]), Mac([2, 0, 0, 0, 1, side])).build()
}

const STATEFUL: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i eth0 -p udp -m udp --dport 53 -j ACCEPT
COMMIT
";

#[test]
fn a_reply_passes_and_a_stranger_does_not() {
    let mut replay = replay(STATEFUL);
    let (eth0, eth1) = (Source::Port(PortId(0)), Source::Port(PortId(1)));
    let at = Nanos::from_secs(1_700_000_000);
    let stranger = from(2, Frame::udp("198.18.2.2", 53, "198.18.1.2", 4000));
    let fed = replay.feed(eth1, at, &stranger);
    assert_eq!(fed.event.verdict, Verdict::Drop);
    assert_eq!((fed.event.ctstate, fed.sent.len()), (Some("NEW"), 0));
    let query = from(1, Frame::udp("198.18.1.2", 4000, "198.18.2.2", 53));
    let fed = replay.feed(eth0, at, &query);
    assert_eq!(fed.event.verdict, Verdict::Accept);
    assert_eq!(fed.event.out, ["eth1"]);
    let path: Vec<_> = fed.event.path.iter().map(|step| (step.chain.as_str(), step.rule)).collect();
    assert_eq!(path, [("FORWARD", Some(2))]);
    assert_eq!(fed.sent[0].frame[..12], [2, 0, 0, 0, 2, 2, 2, 0, 0, 0, 1, 2]);
    assert_eq!(fed.sent[0].frame[22], 63, "TTL");
    let fed = replay.feed(eth1, at, &stranger);
    assert_eq!((fed.event.verdict, fed.event.ctstate), (Verdict::Accept, Some("ESTABLISHED")));
    let counted = |rule| replay.counted(Family::V4, TableId::Filter, "FORWARD", rule).packets;
    assert_eq!((counted(Some(0)), counted(Some(1)), counted(None)), (1, 1, 1));
    let rows: Vec<_> = replay.connections(Family::V4).iter().map(ToString::to_string).collect();
    let row = "udp      17 30 src=198.18.1.2 dst=198.18.2.2 sport=4000 dport=53 \
               src=198.18.2.2 dst=198.18.1.2 sport=53 dport=4000 mark=0 use=1";
    assert_eq!(rows, [row]);
}

#[test]
fn a_fragment_is_stolen_and_the_last_one_tells_what_became_of_the_datagram() {
    let (eth0, mut replay) = (Source::Port(PortId(0)), replay(STATEFUL));
    let datagram = |to| Frame::udp("198.18.1.2", 4000, to, 53).payload_len(1992).id(7);
    for (to, out) in [("198.18.2.2", "eth1"), ("198.18.1.1", "host")] {
        let first = from(1, datagram(to).fragment(0, 1200, true));
        let fed = replay.feed(eth0, Nanos(5), &first);
        let Event { verdict, reason, ctstate, .. } = fed.event;
        assert_eq!((verdict, reason, ctstate), (Verdict::Stolen, None, None));
        let fed = replay.feed(eth0, Nanos(6), &from(1, datagram(to).fragment(1200, 800, false)));
        let Event { verdict, ctstate, out: left, answers, .. } = fed.event;
        assert_eq!((verdict, ctstate), (Verdict::Accept, Some("NEW")));
        assert_eq!((left, answers), (vec![out.to_owned()], vec![]));
    }
    let over = |offset| from(1, datagram("198.18.2.2").fragment(offset, 800, true));
    replay.feed(eth0, Nanos(7), &over(0));
    let fed = replay.feed(eth0, Nanos(8), &over(400));
    let ended = (fed.event.verdict, fed.event.reason, fed.event.ctstate);
    assert_eq!(ended, (Verdict::InvalidDrop, Some("reassembly_overlap"), None));
}

#[test]
fn what_ends_a_packet_is_named() {
    let mut replay = replay("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n");
    let mut end = |source, frame: Vec<u8>| {
        let event = replay.feed(source, Nanos(5), &frame).event;
        (event.verdict, event.reason.unwrap_or(""))
    };
    let eth0 = Source::Port(PortId(0));
    let udp = |dst| Frame::udp("198.18.1.2", 1, dst, 2);
    assert_eq!(end(eth0, from(1, udp("198.18.2.2"))), (Verdict::Accept, ""));
    assert_eq!(end(eth0, from(1, udp("198.18.2.9"))), (Verdict::Drop, "neighbour_unresolved"));
    assert_eq!(end(eth0, from(2, udp("198.18.2.2"))), (Verdict::InvalidDrop, "not_for_us"));
    assert_eq!(end(eth0, vec![0; 9]), (Verdict::InvalidDrop, "frame_truncated"));
    let spoiled = udp("198.18.2.2").bad_ip_checksum();
    assert_eq!(end(eth0, from(1, spoiled)), (Verdict::InvalidDrop, "ip_checksum"));
    assert_eq!(end(eth0, from(1, udp("198.18.1.1"))), (Verdict::Accept, ""), "to the machine");
    let own = Frame::udp("198.18.2.1", 1, "198.18.2.2", 2).build();
    assert_eq!(end(Source::Host, own), (Verdict::Accept, ""));
}

#[test]
fn events_keep_the_contract_s_keys() {
    let mut replay = replay(STATEFUL);
    let query = from(1, Frame::udp("198.18.1.2", 4000, "198.18.2.2", 53));
    let event = replay.feed(Source::Port(PortId(0)), Nanos(7), &query).event;
    let ctid = event.ctid.unwrap();
    let text = serde_json::to_string(&event).unwrap();
    let expected = format!(
        r#"{{"n":0,"t_ns":7,"in":"eth0","len":42,"verdict":"accept","reason":null,"ctstate":"NEW","ctid":{ctid},"out":["eth1"],"path":[{{"table":"filter","chain":"FORWARD","rule":2,"target":"ACCEPT","hook":"FORWARD"}}],"mark":0,"tuple":{{"src":"198.18.1.2","dst":"198.18.2.2","proto":17,"sport":4000,"dport":53}},"reply":{{"src":"198.18.2.2","dst":"198.18.1.2","proto":17,"sport":53,"dport":4000}},"answers":[],"answer_path":[]}}"#
    );
    assert_eq!(text, expected);
}
