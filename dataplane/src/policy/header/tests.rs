//! Changed headers: what `Parsed` says of them must stay true, and sums right.

use proptest::prelude::*;

use super::*;
use crate::clock::Nanos;
use crate::conntrack::{Config, Conntrack, Template, Tracking};
use crate::fib::{Mode, Network, PortInfo, Realms, Topology};
use crate::frame::FrameBuf;
use crate::packet::{Mac, PortId};
use crate::policy::Hook;
use crate::policy::scene::Scene;
use crate::wire::build::{L4, Packet, Tcp};
use crate::wire::{self, Frame};

const SYN: u8 = flags::SYN;
const HOSTS: [(&str, &str); 2] = [("198.18.1.2", "198.18.2.2"), ("2001:db8:1::2", "2001:db8:2::2")];

/// Two ports, of which the first has the smaller MTU.
fn network() -> Network {
    let port = |index: usize, mtu| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: Mac::default(),
        mtu,
        addresses: vec![
            (format!("198.18.{}.1", index + 1).parse().unwrap(), 24),
            (format!("2001:db8:{}::1", index + 1).parse().unwrap(), 64),
        ],
        up: true,
    };
    Network::build(&Topology {
        mode: Mode::Routed,
        ports: vec![port(0, 1400), port(1, 1500)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
    })
    .unwrap()
}

/// Changes a frame that may grow by `room`; checks that everything still agrees.
fn changed(frame: &[u8], room: usize, target: HeaderTarget) -> Result<Vec<u8>, DropReason> {
    let Ok(Frame::Ip(mut parsed)) = wire::parse(frame, Mac::default()) else {
        panic!("{frame:02x?}")
    };
    let before = parsed;
    let mut buf = [frame, &vec![0; room]].concat();
    let mut config = Config::new([0; 16]);
    config.set("max", 1).unwrap();
    let conntrack = Conntrack::new(config).unwrap();
    let network = network();
    let mut view = PacketView {
        parsed: &mut parsed,
        frame: FrameBuf::new(&mut buf, frame.len()),
        has_link_header: true,
        input: Some(PortId(0)),
        output: Some(PortId(1)),
        mark: 0,
        tracking: Tracking::NONE,
        template: Template::default(),
        conntrack: &conntrack,
        network: &network,
        way_mtu: 1500,
        realms: Realms::default(),
        now: Nanos(1),
        hook: Hook::Forward,
        scene: Scene::still(),
        owner: None,
        sender: Default::default(),
        priority: 0,
        traced: false,
    };
    let result = change(target, &mut view);
    let after = view.frame.to_vec();
    match wire::parse(&after, Mac::default()) {
        Ok(Frame::Ip(read)) => assert_eq!(parsed, Parsed { pkt_type: before.pkt_type, ..read }),
        other => panic!("{other:?}"),
    }
    result.map(|()| after).map_err(|failure| match failure {
        Failure::Drop(reason) => reason,
        Failure::Tell(message) => panic!("{message:?}"),
    })
}

fn syn(hosts: (&str, &str), options: &[u8], payload: usize) -> Packet {
    let tcp = Tcp { options: options.to_vec(), ..Tcp::new(4000, 80, SYN) };
    let ends = (hosts.0.parse().unwrap(), hosts.1.parse().unwrap());
    Packet::between(ends.0, ends.1, L4::Tcp(tcp)).payload_len(payload)
}

/// The TCP options of a frame, and whether its layer 4 sum holds.
fn options(frame: &[u8]) -> (Vec<u8>, bool) {
    let Ok(Frame::Ip(parsed)) = wire::parse(frame, Mac::default()) else { panic!() };
    let segment = tcp::Packet::new_checked(parsed.l4_bytes(frame)).unwrap();
    (segment.option_bytes().to_vec(), checksum::transport_ok(frame, &parsed))
}

#[test]
fn a_segment_size_is_only_lowered() {
    let told = |mss: u16| [&[2, 4][..], &mss.to_be_bytes()].concat();
    for hosts in HOSTS {
        let lowered = |from: u16, target| {
            let frame = syn(hosts, &told(from), 0).build();
            let (options, holds) =
                options(&changed(&frame, 0, HeaderTarget::TcpMss(target)).unwrap());
            assert!(holds);
            be16(&options, 2)
        };
        for (from, to, left) in
            [(1460, 1400, 1400), (1400, 1400, 1400), (1399, 1400, 1399), (9, 0, 0)]
        {
            assert_eq!(lowered(from, TcpMss::Set(to)), left);
        }
        // The way back is the narrower one.
        let headers = if hosts.0.contains(':') { 60 } else { 40 };
        assert_eq!(lowered(9000, TcpMss::ClampToPmtu), 1400 - headers);
        assert_eq!(lowered(500, TcpMss::ClampToPmtu), 500);
    }
}

#[test]
fn a_segment_size_is_told_where_there_is_room_for_it() {
    for (hosts, default) in HOSTS.into_iter().zip([536_u16, 1220]) {
        let set = |mss| HeaderTarget::TcpMss(TcpMss::Set(mss));
        for (mss, expected) in [(1400, default), (default, default), (300, 300)] {
            let frame = syn(hosts, &[4, 2, 1, 1], 0).build();
            let after = changed(&frame, 4, set(mss)).unwrap();
            let [high, low] = expected.to_be_bytes();
            assert_eq!(options(&after), (vec![2, 4, high, low, 4, 2, 1, 1], true));
        }
        // Data behind it, or no place left in the header: it goes as it is.
        for packet in [syn(hosts, &[4, 2, 1, 1], 1), syn(hosts, &[1; 40], 0)] {
            let frame = packet.build();
            assert_eq!(changed(&frame, 4, set(1400)).unwrap(), frame);
        }
        let frame = syn(hosts, &[1; 36], 0).build();
        assert_eq!(options(&changed(&frame, 4, set(1400)).unwrap()).0.len(), 40);
        assert_eq!(changed(&frame, 3, set(1400)), Err(DropReason::Hotdrop));
    }
}

#[test]
fn lengths_of_other_options_are_believed() {
    let set = HeaderTarget::TcpMss(TcpMss::Set(500));
    let at = |list: &[u8]| {
        let frame = syn(HOSTS[0], list, 1).build();
        let after = options(&changed(&frame, 0, set).unwrap()).0;
        after.windows(2).position(|pair| pair == [1, 0xf4])
    };
    let mss = [2, 4, 5, 180];
    assert_eq!(at(&[&[9, 4, 0, 0][..], &mss].concat()), Some(6));
    assert_eq!(at(&[&[9, 0, 1, 1][..], &mss].concat()), Some(6), "no length counts as one");
    assert_eq!(at(&[&[9, 8, 0, 0][..], &mss].concat()), None, "hidden in another");
    assert_eq!(at(&[2, 3, 5, 180, 1, 1, 1, 1]), None, "of another length");
    assert_eq!(at(&[0, 0, 0, 0, 2, 4, 5, 180]), Some(6), "the end of the list is passed over");
    assert_eq!(at(&[1, 1, 1, 2]), None, "cut off");
}

#[test]
fn a_header_that_cannot_be_read_ends_the_packet() {
    let clamp = HeaderTarget::TcpMss(TcpMss::ClampToPmtu);
    for offset in [0x40, 0xf0] {
        let mut frame = syn(HOSTS[0], &[], 0).build();
        frame[14 + 20 + 12] = offset;
        assert_eq!(changed(&frame, 4, clamp), Err(DropReason::Hotdrop));
    }
}

fn any_change() -> impl Strategy<Value = HeaderTarget> {
    let hops = prop_oneof![
        any::<u8>().prop_map(HopChange::Set),
        any::<u8>().prop_map(HopChange::Increment),
        any::<u8>().prop_map(HopChange::Decrement),
    ];
    let ecn = (any::<Option<bool>>(), any::<Option<bool>>(), proptest::option::of(0..4_u8));
    prop_oneof![
        hops.prop_map(HeaderTarget::Hops),
        any::<(u8, u8)>().prop_map(|(clear, toggle)| HeaderTarget::Tos { clear, toggle }),
        (0..64_u8).prop_map(HeaderTarget::Dscp),
        ecn.prop_map(|(ece, cwr, ect)| HeaderTarget::Ecn(EcnTarget { ece, cwr, ect })),
        any::<u16>().prop_map(|mss| HeaderTarget::TcpMss(TcpMss::Set(mss))),
        Just(HeaderTarget::TcpMss(TcpMss::ClampToPmtu)),
    ]
}

proptest! {
    /// Whatever is changed, both checksums hold afterwards and nothing else moves.
    #[test]
    fn sums_follow(
        target in any_change(), v6 in any::<bool>(), tos in any::<u8>(), ttl in any::<u8>(),
        mss in any::<Option<u16>>(), payload in 0..3_usize,
    ) {
        let list = mss.map_or(vec![], |mss| [&[2, 4][..], &mss.to_be_bytes()].concat());
        let frame = syn(HOSTS[usize::from(v6)], &list, payload).tos(tos).ttl(ttl).build();
        let after = changed(&frame, 4, target).unwrap();
        prop_assert!(options(&after).1);
        if !v6 {
            prop_assert_eq!(checksum::internet(&after[14..34]), 0);
        }
        let l4 = if v6 { 54 } else { 34 };
        prop_assert_eq!(&after[l4..l4 + 12], &frame[l4..l4 + 12]);
        prop_assert_eq!(&after[after.len() - payload..], &frame[frame.len() - payload..]);
    }
}
