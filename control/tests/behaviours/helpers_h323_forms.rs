//! H.323 before both: how messages lie in a stream, calls that are forwarded, ports that
//! are taken, and messages that were damaged at random.

use super::conn::Conn;
use super::h323_messages::*;
use super::packet::{Host, alice, bob, carol, far, hop, mail, udp, v6, web};
use super::script::{Script, both, both_v6};

const RAS: &str = "-t raw -A PREROUTING -p udp -m udp --dport 1719 -j CT --helper RAS";
const Q931: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 1720 -j CT --helper Q.931";
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10";
/// What comes in must be expected: the router would ask for itself otherwise.
const EXPECTED: &str = "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP";

fn at(host: Host, port: u16) -> At {
    (host.ip, port)
}

fn signalling(t: &mut Script<'_>, own: Host, port: u16, other: Host) -> Conn {
    let mut c = Conn::new(own, port, other, 1720);
    c.open(t);
    c
}

/// A control channel from web to alice, which a call of hers brought.
fn control(t: &mut Script<'_>, c: &mut Conn, port: u16) -> Conn {
    let setup = Call { h245: Some(at(c.client.0, port)), ..Call::default() };
    t.send(c.client_sends("PA", &setup.packet(Body::Setup))).passes("ESTABLISHED");
    let mut h = Conn::new(c.server.0, 5001, c.client.0, port);
    h.service = (c.peer.0, port);
    let syn = t.send(h.client_sends("S", &[])).passes("RELATED");
    h.peer = (syn.ip().src(), syn.ip().sport());
    h.syn_ack(t);
    t.send(h.up("A")).passes("ESTABLISHED");
    h
}

fn alerting(own: Host, port: u16) -> Vec<u8> {
    Call { h245: Some(at(own, port)), ..Call::default() }.packet(Body::Alerting)
}

/// Messages whole, several at a time, in parts, and behind a header of their own.
fn framing(t: &mut Script<'_>) {
    let mut c = signalling(t, alice(), 4001, web());
    let mut say = |t: &mut Script<'_>, part: &[u8]| {
        t.send(c.client_sends("PA", part)).passes("ESTABLISHED");
        t.expectations()
    };
    let port =
        |all: &[String], port: u16| all.iter().any(|line| line.contains(&format!("dport={port}")));
    let three: Vec<u8> = (6001..6004).flat_map(|port| alerting(alice(), port)).collect();
    assert!(port(&say(t, &three), 6003));
    // Half a message, and its rest: neither is read.
    let message = alerting(alice(), 6010);
    let (head, tail) = message.split_at(30);
    say(t, head);
    assert!(!port(&say(t, tail), 6010));
    // A whole one and the head of the next.
    say(t, &[&alerting(alice(), 6011)[..], head].concat());
    say(t, &[tail, &alerting(alice(), 6012)[..]].concat());
    // The header comes alone.
    let message = alerting(alice(), 6020);
    let (header, body) = message.split_at(4);
    say(t, header);
    assert!(port(&say(t, body), 6020));
    let message = alerting(alice(), 6021);
    let (header, body) = message.split_at(4);
    say(t, header);
    say(t, &body[..20]);
    say(t, &body[20..]);
    say(t, header);
    // What follows is longer; and another message comes in between.
    say(t, &[body, &alerting(alice(), 6022)[..]].concat());
    say(t, header);
    say(t, &alerting(alice(), 6023));
    assert!(!port(&say(t, body), 6021) || port(&say(t, b""), 6021));
    // A pure acknowledgement in between.
    say(t, header);
    t.send(c.up("A")).passes("ESTABLISHED");
    let mut say = |t: &mut Script<'_>, part: &[u8]| {
        t.send(c.client_sends("PA", part)).passes("ESTABLISHED");
        t.expectations()
    };
    say(t, body);
    // Things that are no messages, and lengths that cannot be.
    for odd in [
        &b"\x03"[..],
        b"\x03\0",
        b"\x03\0\0",
        b"\x03\0\0\x04",
        b"\x03\0\0\0",
        b"\x03\0\0\x03more",
        b"\x03\0\0\x04more",
        b"\x03\0\xff\xff",
        b"\x03\x01\0\x10",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        say(t, odd);
        say(t, body);
        say(t, &[odd, &alerting(alice(), 6030)[..]].concat());
        say(t, &[&alerting(alice(), 6031)[..], odd].concat());
    }
    // One that cannot be read hides those behind it.
    let bad = tpkt(&[8, 2, 0, 1, 5]);
    assert!(!port(&say(t, &[&bad[..], &alerting(alice(), 6040)[..]].concat()), 6040));
}

#[test]
fn messages_in_a_stream() {
    both(|t| {
        t.rules(&[Q931]);
        framing(t);
    });
}

#[test]
fn messages_in_a_translated_stream() {
    both(|t| {
        t.rules(&[Q931, SNAT]);
        framing(t);
    });
}

/// Elements around the user information.
#[test]
fn elements_of_q931() {
    both(|t| {
        t.rules(&[Q931]);
        let mut c = signalling(t, alice(), 4001, web());
        let call = |port| Call { h245: Some(at(alice(), port)), ..Call::default() };
        let user = |port| {
            let user = call(port).user(Body::Alerting);
            [&[0x7e][..], &(user.len() as u16 + 1).to_be_bytes(), &[5], &user].concat()
        };
        let forms: Vec<Vec<u8>> = vec![
            [&[8, 0, 1][..], &user(7001)].concat(),
            [&[8, 2, 0, 1, 1, 0x96][..], &user(7002)].concat(),
            [&[8, 15][..], &[0; 15], &[1], &user(7003)].concat(),
            [&[9, 0, 1][..], &user(7004)].concat(),
            [&[8, 0, 1, 4, 200, 1][..], &user(7005)].concat(),
            [&[8, 0, 1, 4, 0][..], &user(7006)].concat(),
            [&user(7007)[..], &[0]].concat(),
            [&[8, 0, 1][..], &user(7008), &[0, 0, 0]].concat(),
            vec![8],
            vec![8, 0],
            vec![8, 0, 1],
            vec![8, 0, 1, 0x96],
            vec![8, 0, 1, 0x7e],
            vec![8, 0, 1, 0x7e, 0, 0],
            vec![8, 0, 1, 0x7e, 0, 1, 5],
            vec![8, 200, 1],
        ];
        for form in forms {
            t.send(c.client_sends("PA", &tpkt(&form))).passes("ESTABLISHED");
            t.expectations();
        }
    });
}

/// Setups of senders that know more than the kernel, or less.
#[test]
fn extensions_of_a_setup() {
    both(|t| {
        t.rules(&[Q931, SNAT]);
        let mut c = signalling(t, alice(), 4001, web());
        for known in 9..40 {
            let call = Call {
                h245: Some(at(alice(), 6100)),
                source: Some(at(alice(), 4001)),
                fast_start: vec![open(Some(at(alice(), 6000 + 2 * known)), None).channel()],
                tunnelled: vec![open(Some(at(alice(), 6200)), None).message()],
                known: known.into(),
                ..Call::default()
            };
            t.send(c.client_sends("PA", &call.packet(Body::Setup))).passes("ESTABLISHED");
            t.expectations();
        }
    });
}

/// H.245 in the messages of a call.
fn tunnel(t: &mut Script<'_>) {
    let mut c = signalling(t, alice(), 4001, web());
    let mut messages = others().to_vec();
    messages.push(open(Some(at(alice(), 6001)), Some(at(alice(), 6002))).message());
    messages.push(acknowledge(None, Some((Some(at(alice(), 6011)), None)), None));
    messages.push(open(Some(at(alice(), 6021)), None).message());
    for body in [Body::Setup, Body::ReleaseComplete, Body::Facility, Body::Progress] {
        let call =
            Call { h245: Some(at(alice(), 6030)), tunnelled: messages.clone(), ..Call::default() };
        t.send(c.client_sends("PA", &call.packet(body))).passes("ESTABLISHED");
        assert!(!t.expectations().is_empty());
    }
    let call = Call {
        alternative: Some(at(far(), 1720)),
        tunnelled: messages[2..].to_vec(),
        ..Call::default()
    };
    t.send(c.client_sends("PA", &call.packet(Body::Facility))).passes("ESTABLISHED");
    t.expectations();
}

#[test]
fn a_tunnel() {
    both(|t| {
        t.rules(&[Q931]);
        tunnel(t);
    });
    both(|t| {
        t.rules(&[Q931, SNAT]);
        tunnel(t);
    });
}

/// The called end forwards calls: to others on its side, to the caller's side, over
/// the next router and to the middle.
fn forwarding(t: &mut Script<'_>, own: Host, other: Host, known: Host, like: fn(Host) -> Host) {
    let mut c = Conn::new(own, 4001, other, 1720);
    c.open(t);
    for (nth, host) in
        [mail(), bob(), far(), hop(), carol(), web(), alice()].into_iter().enumerate()
    {
        let port = 1720 + nth as u16;
        let to = |port| Call { alternative: Some(at(like(host), port)), ..Call::default() };
        t.send(c.server_sends("PA", &to(port).packet(Body::Facility))).passes("ESTABLISHED");
        t.expectations();
        t.send(c.client_sends("PA", &to(port + 20).packet(Body::Facility))).passes("ESTABLISHED");
        t.expectations();
    }
    // The caller calls again, and who was called calls somebody behind us.
    let mut again = Conn::new(own, 4002, like(mail()), 1720);
    let syn = t.send(again.client_sends("S", &[])).passes("RELATED");
    again.peer = (syn.ip().src(), syn.ip().sport());
    again.syn_ack(t);
    t.send(again.up("A")).passes("ESTABLISHED");
    let setup = Call { h245: Some(at(own, 4003)), ..Call::default() };
    t.send(again.client_sends("PA", &setup.packet(Body::Setup))).passes("ESTABLISHED");
    t.expectations();
    let mut inward = Conn::new(other, 4004, like(bob()), 1741);
    inward.service.0 = if known.ip == own.ip { like(bob()).ip } else { known.ip };
    let syn = t.send(inward.client_sends("S", &[])).passes("RELATED");
    inward.peer = (syn.ip().src(), syn.ip().sport());
    inward.syn_ack(t);
    t.flows();
    t.counters();
}

#[test]
fn forwarded_calls() {
    both(|t| {
        t.rules(&[Q931]);
        forwarding(t, alice(), web(), alice(), |host| host);
    });
}

#[test]
fn forwarded_calls_through_source_translation() {
    both(|t| {
        t.rules(&[Q931, SNAT]);
        forwarding(
            t,
            alice(),
            web(),
            Host { ip: "198.18.3.100".parse().unwrap(), ..alice() },
            |host| host,
        );
    });
}

#[test]
fn forwarded_calls_in_ipv6() {
    both_v6(|t| {
        t.rules(&[Q931]);
        forwarding(t, v6(alice()), v6(web()), v6(alice()), v6);
    });
}

#[test]
fn a_call_forwarded_behind_a_translated_destination() {
    both(|t| {
        t.rules(&[Q931, DNAT]);
        let mut c = Conn::new(alice(), 4001, web(), 1720);
        c.service.0 = "198.18.3.77".parse().unwrap();
        c.open(t);
        for (host, port) in [(far(), 1720), (bob(), 1721), (mail(), 1722)] {
            let to = Call { alternative: Some(at(host, port)), ..Call::default() };
            t.send(c.server_sends("PA", &to.packet(Body::Facility))).passes("ESTABLISHED");
            t.expectations();
        }
        let mut again = Conn::new(alice(), 4002, far(), 1720);
        again.service.0 = "198.18.3.77".parse().unwrap();
        let syn = t.send(again.client_sends("S", &[])).passes("RELATED");
        again.peer = (syn.ip().src(), syn.ip().sport());
        again.syn_ack(t);
        t.flows();
    });
}

/// Two callers with the same ports: without translation they cannot be confused, behind
/// one outside address the second gets the next pair.
#[test]
fn two_with_the_same_ports() {
    for rules in [&[Q931, EXPECTED][..], &[Q931, SNAT, EXPECTED]] {
        both(|t| {
            t.rules(rules);
            for host in [alice(), bob()] {
                let mut c = signalling(t, host, if host == bob() { 4002 } else { 4001 }, web());
                for port in [6000, 6003, 6000, 6100, 6200, 6300, 6400, 65_533, 65_535, 1, 2] {
                    let call = Call {
                        fast_start: vec![open(Some(at(host, port)), None).channel()],
                        ..Call::default()
                    };
                    t.send(c.client_sends("PA", &call.packet(Body::Connect))).passes("ESTABLISHED");
                    t.expectations();
                }
            }
            t.send(udp(web(), 9000, "198.18.3.100".parse().unwrap(), 6004, b"media"));
        });
    }
}

/// What cannot be told from another's expectation is dropped.
#[test]
fn expected_by_another() {
    both(|t| {
        t.rules(&[Q931, RAS]);
        let mut one = signalling(t, alice(), 4001, web());
        let two = signalling(t, alice(), 4002, web());
        let media = |port| Call {
            fast_start: vec![open(Some(at(alice(), port)), None).channel()],
            ..Call::default()
        };
        let h245 = |port| Call { h245: Some(at(alice(), port)), ..Call::default() };
        for message in [media(6000).packet(Body::Setup), h245(6010).packet(Body::Alerting)] {
            t.send(one.client_sends("PA", &message)).passes("ESTABLISHED");
            t.send(two.up("PA").data(&message)).dropped("ESTABLISHED");
        }
        // Half of a pair.
        t.send(one.client_sends("PA", &h245(6020).packet(Body::Alerting))).passes("ESTABLISHED");
        let both_at = Call { h245: Some(at(alice(), 6020)), ..media(6030) };
        t.send(two.up("PA").data(&both_at.packet(Body::Connect))).dropped("ESTABLISHED");
        t.expectations();
        // A gatekeeper names the same host to two, and says two things to one.
        for (port, passes) in [(1719, true), (1720, false)] {
            t.send(udp(alice(), port, web().ip, 1719, &gatekeeper_request(at(alice(), port))))
                .passes("NEW");
            let confirm = admission_confirm(at(far(), 1720));
            let seen = t.send(udp(web(), 1719, alice().ip, port, &confirm));
            assert_eq!(seen.out.len(), usize::from(passes));
            t.send(udp(web(), 1719, alice().ip, port, &confirm));
            t.expectations();
        }
    });
}

/// Registrations with many addresses, and none.
fn many_addresses(t: &mut Script<'_>, known: &str) {
    let others: Vec<At> = (1..12).map(|nth| at(bob(), nth)).collect();
    let forms: Vec<Vec<At>> = vec![
        vec![],
        others.clone(),
        [&others[..9], &[at(alice(), 1720)]].concat(),
        [&others[..10], &[at(alice(), 1721)]].concat(),
        vec![("127.0.0.1".parse().unwrap(), 1722), at(alice(), 1722), at(alice(), 1723)],
        vec![("2001:db8::1".parse().unwrap(), 1724), at(alice(), 1724)],
        vec![at(alice(), 0), at(alice(), 1725)],
    ];
    for form in forms {
        let request = registration_request(&form, &form, None);
        t.send(udp(alice(), 1722, web().ip, 1719, &request));
        t.expectations();
        let confirm = registration_confirm(&form, Some(100));
        t.send(udp(web(), 1719, known.parse().unwrap(), 1722, &confirm));
        t.send(udp(alice(), 1722, web().ip, 1719, &info_response(at(alice(), 1722), &form)));
    }
}

#[test]
fn registrations_with_many_addresses() {
    both(|t| {
        t.rules(&[RAS]);
        many_addresses(t, "198.18.1.10");
    });
    both(|t| {
        t.rules(&[RAS, SNAT]);
        many_addresses(t, "198.18.3.100");
    });
}

/// A generator for damage; the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
    /// The message with a few bits changed, and bytes missing or repeated.
    fn damaged(&mut self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(text.len());
            match self.below(8) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, self.below(256) as u8),
                2 => text[at] = self.below(256) as u8,
                3 if self.below(2) == 0 => text.truncate(at.max(1)),
                4 => text[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                _ => text[at] ^= 1 << self.below(8),
            }
            if text.is_empty() {
                text.push(0);
            }
        }
        text
    }
}

fn ras_samples(host: Host) -> Vec<Vec<u8>> {
    let [own, call] = [at(host, 1719), at(host, 1720)];
    vec![
        gatekeeper_request(own),
        gatekeeper_confirm(at(mail(), 1719)),
        registration_request(&[call, own], &[own], Some(60)),
        registration_confirm(&[call], Some(60)),
        unregistration_request(&[call]),
        admission_request(Some(call), Some(call)),
        admission_confirm(at(far(), 1720)),
        location_request(own),
        location_confirm(at(far(), 1720), own),
        info_response(own, &[call, own]),
    ]
}

/// How many damaged messages of each kind.
const DAMAGED: usize = 200;

fn damaged_ras(t: &mut Script<'_>, seed: u64, known: &str) {
    let mut dice = Dice(seed);
    let samples = ras_samples(alice());
    t.send(udp(alice(), 1719, web().ip, 1719, &samples[0])).passes("NEW");
    for _ in 0..DAMAGED {
        let which = dice.below(samples.len());
        let message = dice.damaged(&samples[which]);
        if dice.below(3) > 0 {
            t.send(udp(alice(), 1719, web().ip, 1719, &message));
        } else {
            t.send(udp(web(), 1719, known.parse().unwrap(), 1719, &message));
        }
        t.expectations();
    }
}

#[test]
fn damaged_registrations() {
    both(|t| {
        t.rules(&[RAS, EXPECTED]);
        damaged_ras(t, 1, "198.18.1.10");
    });
    both(|t| {
        t.rules(&[RAS, SNAT, EXPECTED]);
        damaged_ras(t, 2, "198.18.3.100");
    });
}

/// Says it, damaged or not, in a message of its own; it need not pass.
fn say(t: &mut Script<'_>, c: &mut Conn, client: bool, text: &[u8]) {
    let segment = if client { c.up("PA") } else { c.down("PA") };
    let seen = t.send(segment.data(text));
    assert_eq!(seen.state, "ESTABLISHED");
    if !seen.out.is_empty() {
        let next = if client { &mut c.cseq } else { &mut c.sseq };
        *next = next.wrapping_add(text.len() as u32);
        let ack = if client { c.down("A") } else { c.up("A") };
        t.send(ack).passes("ESTABLISHED");
    }
    t.expectations();
}

fn damaged_calls(t: &mut Script<'_>, seed: u64) {
    let mut dice = Dice(seed);
    let mut c = signalling(t, alice(), 4001, web());
    for _ in 0..DAMAGED {
        let port = 6000 + 2 * dice.below(4) as u16;
        let channel = Open {
            reverse: (dice.below(2) == 0).then_some((Some(at(alice(), port + 10)), None)),
            stack: (dice.below(2) == 0).then_some(at(alice(), port + 20)),
            carries: [Carries::G711, Carries::T120, Carries::H263][dice.below(3)],
            ..open(Some(at(alice(), port)), Some(at(alice(), port + 1)))
        };
        let mut call = Call { h245: Some(at(alice(), port + 40)), ..Call::default() };
        (call.destination, call.source) = (Some(at(mail(), 1720)), Some(at(alice(), 4001)));
        if dice.below(2) == 0 {
            call.fast_start = vec![channel.channel(), channel.channel()];
        }
        if dice.below(3) == 0 {
            call.tunnelled = vec![channel.message()];
        }
        let body = Body::ALL[dice.below(Body::ALL.len())];
        let message = call.q931(body);
        let at = message.len() - call.user(body).len();
        let damaged = dice.damaged(&message[at..]);
        let mut whole = message[..at].to_vec();
        whole[at - 3..at - 1].copy_from_slice(&(damaged.len() as u16 + 1).to_be_bytes());
        whole.extend(damaged);
        let text = if dice.below(8) == 0 { dice.damaged(&tpkt(&whole)) } else { tpkt(&whole) };
        say(t, &mut c, dice.below(4) > 0, &text);
    }
}

#[test]
fn damaged_calls_without_translation() {
    both(|t| {
        t.rules(&[Q931, EXPECTED]);
        damaged_calls(t, 3);
    });
}

#[test]
fn damaged_calls_through_translation() {
    both(|t| {
        t.rules(&[Q931, SNAT, EXPECTED]);
        damaged_calls(t, 4);
    });
}

fn damaged_control(t: &mut Script<'_>, seed: u64) {
    let mut dice = Dice(seed);
    let mut c = signalling(t, alice(), 4001, web());
    let mut h = control(t, &mut c, 6900);
    for _ in 0..DAMAGED {
        let port = 6000 + 2 * dice.below(4) as u16;
        let channel = Open {
            reverse: (dice.below(2) == 0).then_some((Some(at(alice(), port + 10)), None)),
            stack: (dice.below(2) == 0).then_some(at(alice(), port + 20)),
            carries: [Carries::G711, Carries::T120, Carries::H261, Carries::UserData]
                [dice.below(4)],
            ..open(Some(at(alice(), port)), Some(at(alice(), port + 1)))
        };
        let message = match dice.below(3) {
            0 => acknowledge(
                (dice.below(2) == 0).then_some((Some(at(alice(), port)), None)),
                Some((Some(at(alice(), port + 2)), Some(at(alice(), port + 3)))),
                (dice.below(2) == 0).then_some(at(alice(), port + 20)),
            ),
            _ => channel.message(),
        };
        let text = tpkt(&dice.damaged(&message));
        say(t, &mut h, dice.below(4) == 0, &text);
    }
}

#[test]
fn damaged_control_channels() {
    both(|t| {
        t.rules(&[Q931]);
        damaged_control(t, 5);
    });
    both(|t| {
        t.rules(&[Q931, SNAT]);
        damaged_control(t, 6);
    });
}
