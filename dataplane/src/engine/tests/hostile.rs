//! Sound headers around noise: options and extension headers that no one sends.

use proptest::prelude::*;

use super::*;
use crate::policy::target::{RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};
use crate::wire::{Frame, parse};

/// A router whose way to the server takes small packets only, and which refuses port 53.
fn narrow(tracked: bool) -> Rig {
    let mut topology = topology();
    topology.ports[1].mtu = 300;
    let (mut v4, mut v6) = builders();
    let (filter, forward, accept) = (TableId::Filter, Hook::Forward, ChainPolicy::Accept);
    let reject = Spec::any(Target::Reject(RejectWith::Icmp(3))).udp_dport(53, 53);
    v4.builtin(filter, forward, accept, vec![reject]);
    let reject = Spec::any(Target::Reject(RejectWith::Icmp6(1))).udp_dport(53, 53);
    v6.builtin(filter, forward, accept, vec![reject]);
    (v4.needs_conntrack, v6.needs_conntrack) = (tracked, tracked);
    Rig::new(&topology, join(v4, v6))
}

/// Bytes near to options: known kinds with lengths and pointers near to sound ones.
fn options(kinds: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let option = (prop::sample::select(kinds), 0u8..42, 0u8..42, any::<u8>()).prop_map(
        |(kind, length, pointer, flag)| {
            let mut option = vec![kind];
            if kind > 1 {
                option.extend([length, pointer, flag]);
                option.resize(usize::from(length).max(1), 0);
            }
            option
        },
    );
    prop::collection::vec(option, 0..5).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    })
}

/// Everything that left is a sound packet that fills its frame.
fn check(rig: &mut Rig, sent: &Sent) -> Result<(), TestCaseError> {
    let answers = rig.seen.emitted.drain(..).map(|(_, frame)| frame);
    let forwarded =
        matches!(sent.disposition, Disposition::Transmit(_)).then(|| sent.frame.clone());
    for frame in answers.chain(forwarded) {
        let Ok(Frame::Ip(parsed)) = parse(&frame, Mac::default()) else {
            return Err(TestCaseError::fail(format!("sent {frame:x?}")));
        };
        prop_assert_eq!(usize::from(parsed.l3 + parsed.l3_len), frame.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ipv4_options_of_any_kind_leave_sound_packets(
        options in options(vec![0, 1, 7, 0x44, 0x82, 0x83, 0x86, 0x88, 0x89, 0x94, 0x1f]),
        (ttl, payload, port) in (1u8..4, 0usize..600, 52u16..54),
        fragment in prop::option::of(0u16..4),
        to in prop::sample::select(vec![SERVER, "198.18.1.1", "192.0.2.1"]),
    ) {
        let packet = Packet::udp(CLIENT, 5000, to, port).ttl(ttl).payload_len(payload);
        let mut packet = packet.options(&options);
        if let Some(offset) = fragment {
            packet = packet.fragment(offset * 8, payload & !7, true);
        }
        let mut rig = narrow(fragment.is_none());
        let sent = rig.up(packet);
        check(&mut rig, &sent)?;
    }

    #[test]
    fn ipv6_extension_headers_of_any_kind_leave_sound_packets(
        chain in prop::collection::vec(
            (prop::sample::select(vec![0u8, 43, 44, 51, 60, 59, 17, 135]), 0u8..4,
             prop::collection::vec(any::<u8>(), 30)),
            0..5,
        ),
        noise in options(vec![0, 1, 5, 7, 0x31, 0x3e, 0xc2, 0x80]),
        (ttl, cut, tracked) in (1u8..4, 0usize..120, any::<bool>()),
    ) {
        let mut frame = Packet::udp(CLIENT6, 5000, SERVER6, 53).ttl(ttl).build();
        frame[..6].copy_from_slice(&PORT_MACS[0].0);
        frame[6..12].copy_from_slice(&HOST_MACS[0].0);
        let udp = frame.split_off(54);
        for (at, (next, words, mut body)) in chain.into_iter().enumerate() {
            if at == 0 {
                body[..noise.len().min(30)].copy_from_slice(&noise[..noise.len().min(30)]);
                frame[20] = next % 60;
            }
            frame.extend([next, words]);
            body.resize((usize::from(words) + 1) * 8 - 2, 0);
            frame.extend(body);
        }
        frame.extend(udp);
        frame.truncate(frame.len() - cut.min(frame.len() - 54));
        let length = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        let mut rig = narrow(tracked);
        let sent = rig.arrive(INSIDE, &frame);
        check(&mut rig, &sent)?;
    }
}
