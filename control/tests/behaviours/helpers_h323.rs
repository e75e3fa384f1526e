//! H.323 before both: gatekeepers, calls, control channels and media, with and without
//! translation.

use super::conn::Conn;
use super::h323_messages::*;
use super::packet::{Host, Packet, alice, far, hop, mail, udp, v6, web};
use super::script::{Script, both, both_v6};

const RAS: &str = "-t raw -A PREROUTING -p udp -m udp --dport 1719 -j CT --helper RAS";
const Q931: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 1720 -j CT --helper Q.931";
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10";

fn at(host: Host, port: u16) -> At {
    (host.ip, port)
}

fn to(text: &str, port: u16) -> At {
    (text.parse().unwrap(), port)
}

/// What the world calls alice: herself, or the outside address.
fn seen(outside: Option<&str>) -> Host {
    outside.map_or(alice(), |text| Host { ip: text.parse().unwrap(), ..alice() })
}

fn up(payload: &[u8]) -> Packet {
    udp(alice(), 1719, web().ip, 1719, payload)
}

fn down(to: Host, payload: &[u8]) -> Packet {
    udp(web(), 1719, to.ip, 1719, payload)
}

/// A terminal finds its gatekeeper, registers, calls, is called, and leaves.
fn registration(t: &mut Script<'_>, own: Host, known: Host) {
    let (request, confirm) = (gatekeeper_request(at(own, 1719)), at(mail(), 1719));
    t.send(udp(own, 1719, mail().ip, 1719, &request)).passes("NEW");
    let answer = gatekeeper_confirm(if own.ip.is_ipv4() { at(web(), 1719) } else { confirm });
    t.send(udp(v(own, mail()), 1719, known.ip, 1719, &answer)).passes("ESTABLISHED");
    t.expectations();
    let gate = v(own, web());
    let send = |payload: &[u8]| udp(own, 1719, gate.ip, 1719, payload);
    let back = |payload: &[u8]| udp(gate, 1719, known.ip, 1719, payload);
    let call = [to("127.0.0.1", 1720), at(own, 1720)];
    t.send(send(&registration_request(&call, &[at(own, 1719)], Some(60))))
        .passes(if own.ip.is_ipv4() { "RELATED" } else { "NEW" });
    t.expectations();
    t.send(back(&registration_confirm(&[at(known, 1720)], Some(90)))).passes("ESTABLISHED");
    t.expectations();
    t.flows();
    t.send(back(&registration_confirm(&[at(gate, 1720)], None))).passes("ESTABLISHED");
    let called = at(v(own, far()), 1720);
    t.send(send(&admission_request(Some(called), Some(at(own, 1720))))).passes("ESTABLISHED");
    t.send(back(&admission_confirm(called))).passes("ESTABLISHED");
    t.expectations();
    t.send(send(&admission_request(Some(at(own, 1720)), None))).passes("ESTABLISHED");
    t.send(back(&admission_confirm(at(known, 1720)))).passes("ESTABLISHED");
    t.send(send(&location_request(at(own, 1719)))).passes("ESTABLISHED");
    let located = location_confirm(at(v(own, hop()), 1720), at(gate, 1719));
    t.send(back(&located)).passes("ESTABLISHED");
    t.expectations();
    t.send(send(&info_response(at(own, 1719), &[at(own, 1720)]))).passes("ESTABLISHED");
    // A call by way of the gatekeeper.
    let mut c = Conn::new(gate, 5001, own, 1720);
    c.service = at(known, 1720);
    let syn = t.send(c.client_sends("S", &[])).passes("RELATED");
    c.peer = (syn.ip().src(), syn.ip().sport());
    c.syn_ack(t);
    t.send(c.up("A")).passes("ESTABLISHED");
    let setup = Call { h245: Some(at(gate, 5002)), ..Call::default() };
    t.send(c.client_sends("PA", &setup.packet(Body::Setup))).passes("ESTABLISHED");
    let connect = Call { h245: Some(at(own, 5003)), ..Call::default() };
    t.send(c.server_sends("PA", &connect.packet(Body::Connect))).passes("ESTABLISHED");
    t.expectations();
    t.send(send(&unregistration_request(&[at(own, 1720)]))).passes("ESTABLISHED");
    t.expectations();
    t.flows();
}

/// The same host in this one's family.
fn v(like: Host, host: Host) -> Host {
    if like.ip.is_ipv4() { host } else { v6(host) }
}

#[test]
fn a_registration_without_translation() {
    both(|t| {
        t.rules(&[RAS]);
        registration(t, alice(), alice());
    });
}

#[test]
fn a_registration_through_source_translation() {
    both(|t| {
        t.rules(&[RAS, SNAT]);
        registration(t, alice(), seen(Some("198.18.3.100")));
    });
}

#[test]
fn lifetimes_and_where_they_are_said() {
    both(|t| {
        t.rules(&[RAS]);
        let call = [at(alice(), 1720)];
        // The kernel reads past a number that counts: without room, it reads nothing.
        t.send(up(&short_registration_request(&call, 60))).passes("NEW");
        t.expectations();
        t.send(down(alice(), &registration_confirm(&call, None))).passes("ESTABLISHED");
        t.flows();
        t.send(up(&registration_request(&call, &call, None))).passes("ESTABLISHED");
        t.send(down(alice(), &registration_confirm(&call, None))).passes("ESTABLISHED");
        t.flows();
        t.send(up(&registration_request(&call, &call, Some(70_000)))).passes("ESTABLISHED");
        t.send(down(alice(), &registration_confirm(&[], None))).passes("ESTABLISHED");
        t.flows();
        t.send(down(alice(), &registration_confirm(&[], Some(1)))).passes("ESTABLISHED");
        t.expectations();
        t.send(up(&unregistration_request(&[]))).passes("ESTABLISHED");
        t.flows();
    });
}

/// A call's connection.
fn signalling(t: &mut Script<'_>, own: Host, other: Host, service: Option<&str>) -> Conn {
    let mut c = Conn::new(own, 4001, other, 1720);
    if let Some(service) = service {
        c.service.0 = service.parse().unwrap();
    }
    c.open(t);
    c
}

fn rtp(from: Host, sport: u16, to: Host, dport: u16) -> Packet {
    udp(from, sport, to.ip, dport, b"\x80\0\0\0media")
}

/// Somebody calls: every message, with a control channel and a fast start, and what is
/// expected then.
fn call(t: &mut Script<'_>, own: Host, other: Host, known: Host, service: Option<&str>) {
    let mut c = signalling(t, own, other, service);
    let mut port = 6000;
    for body in Body::ALL {
        port += 10;
        let fast = [
            open(Some(at(own, port)), Some(at(own, port + 1))).channel(),
            Open {
                reverse: Some((None, Some(at(own, port + 3)))),
                forward: None,
                ..open(None, None)
            }
            .channel(),
        ];
        let message = Call {
            h245: Some(at(own, port + 5)),
            destination: Some((c.service.0, 1720)),
            source: Some(at(own, 4001)),
            fast_start: fast.to_vec(),
            ..Call::default()
        };
        t.send(c.client_sends("PA", &message.packet(body))).passes("ESTABLISHED");
        t.expectations();
        let answer = Call {
            h245: Some(at(other, port + 1005)),
            fast_start: vec![open(Some(at(other, port + 1000)), None).channel()],
            ..Call::default()
        };
        t.send(c.server_sends("PA", &answer.packet(body))).passes("ESTABLISHED");
        t.expectations();
        if body == Body::Setup {
            t.send(rtp(other, 9000, known, 6010)).passes("RELATED");
            t.send(rtp(other, 9001, known, 6011)).passes("RELATED");
            t.send(rtp(own, 6010, Host { ip: c.service.0, ..other }, 7010)).passes("RELATED");
            t.flows();
        }
    }
    // The control channel, opened by who was told.
    let mut h = Conn::new(other, 5001, own, port + 5);
    h.service = at(known, port + 5);
    let syn = t.send(h.client_sends("S", &[])).passes("RELATED");
    h.peer = (syn.ip().src(), syn.ip().sport());
    h.syn_ack(t);
    t.send(h.up("A")).passes("ESTABLISHED");
    control(t, &mut h, own, other);
    t.flows();
}

/// Channels are opened and acknowledged on a control channel that `other` opened.
fn control(t: &mut Script<'_>, h: &mut Conn, own: Host, other: Host) {
    for message in others() {
        t.send(h.server_sends("PA", &tpkt(&message))).passes("ESTABLISHED");
    }
    for (nth, carries) in [
        Carries::G711,
        Carries::G7231,
        Carries::H261,
        Carries::H263,
        Carries::T120,
        Carries::UserData,
    ]
    .into_iter()
    .enumerate()
    {
        let port = 8000 + 20 * nth as u16;
        let open = Open {
            carries,
            forward: Some((None, Some(at(own, port + 1)))),
            reverse: (nth % 2 == 0).then_some((Some(at(own, port + 2)), None)),
            stack: Some(at(own, port + 5)),
        };
        t.send(h.server_sends("PA", &tpkt(&open.message()))).passes("ESTABLISHED");
        t.expectations();
        let ack = acknowledge(
            (nth % 2 == 1).then_some((Some(at(other, port + 1000)), None)),
            Some((Some(at(other, port + 1002)), Some(at(other, port + 1003)))),
            (nth % 3 == 0).then_some(at(other, port + 1005)),
        );
        t.send(h.client_sends("PA", &tpkt(&ack))).passes("ESTABLISHED");
        t.expectations();
    }
}

#[test]
fn a_call_without_translation() {
    both(|t| {
        t.rules(&[Q931]);
        call(t, alice(), web(), alice(), None);
    });
}

#[test]
fn a_call_through_source_translation() {
    both(|t| {
        t.rules(&[Q931, SNAT]);
        call(t, alice(), web(), seen(Some("198.18.3.100")), None);
    });
}

#[test]
fn a_call_to_a_translated_destination() {
    both(|t| {
        t.rules(&[Q931, DNAT]);
        call(t, alice(), web(), alice(), Some("198.18.3.77"));
    });
}

#[test]
fn a_call_in_ipv6() {
    both_v6(|t| {
        t.rules(&[Q931]);
        call(t, v6(alice()), v6(web()), v6(alice()), None);
    });
}
