//! NAT against the kernel, packet for packet: the same rules and packets go
//! through netfilter in a namespace and through the engine; every frame that
//! leaves, every delivery and the whole connection table must agree after each
//! packet. Ports that are drawn at random are compared by name. Needs root.

mod lab;
mod nat;

use dataplane::wire::build::Packet;
use dataplane::wire::proto;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};
use nat::Field::{Dport, Id, Sport};
use nat::From::{Host, Router};
use nat::Twins;

const INSIDE: nat::From = Host(0, 10);
const SERVER: nat::From = Host(1, 10);

fn both(run: impl Fn(bool)) {
    run(false);
    run(true);
}

/// Some rules of a nat table; `{P.H}` is host H on port P's network.
fn rules(v6: bool, lines: &[&str]) -> String {
    let mut text = String::from("*nat\n");
    for line in lines {
        text += line;
        text += "\n";
    }
    text += "COMMIT\n";
    for port in 0..3 {
        for host in [1, 10, 11, 20, 21, 22, 23, 24, 25, 254] {
            let address = lab::address(v6, port, host);
            let bracketed = if v6 { format!("[{address}]") } else { address.to_string() };
            text = text.replace(&format!("{{{port}.{host}}}"), &address.to_string());
            text = text.replace(&format!("{{[{port}.{host}]}}"), &bracketed);
        }
    }
    text.replace("icmpx", if v6 { "ipv6-icmp" } else { "icmp" })
}

fn twins(v6: bool, lines: &[&str]) -> Twins {
    Twins::new(v6, &rules(v6, lines))
}

fn tcp(src: &str, sport: u16, dst: &str, dport: u16, flags: u8) -> Packet {
    Packet::tcp(src, sport, dst, dport, flags)
}

/// An error of the family's own numbers: port unreachable.
fn unreachable(src: &str, dst: &str, quoted: &Packet) -> Packet {
    let v6 = src.contains(':');
    let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
    Packet::error(src, dst, kind, code, 0, &quoted.clone().build())
}

#[test]
fn every_protocol_is_translated_and_back() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        let data = [1; 7];
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN).payload(&data).tcp_options(&[2, 4, 5, 0xb4]));
        twins.send(SERVER, tcp(&b, 80, &n, 4000, SYN | ACK).seq(5000, 1008));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, ACK).seq(1008, 5001));
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53).payload(&data));
        twins.send(SERVER, Packet::udp(&b, 53, &n, 4000).payload(&data));
        twins.send(INSIDE, Packet::ping(&a, &b, 77, 1).payload(&data));
        twins.send(SERVER, Packet::pong(&b, &n, 77, 1).payload(&data));
        for (number, bytes) in [
            (99, &[1, 2, 3][..]),
            (proto::GRE, &[0, 0, 8, 0, 1, 2, 3, 4]),
            (proto::GRE, &[0x30, 1, 0x88, 0x0b, 0, 0, 0, 9, 1, 2, 3, 4]),
            (proto::ESP, &[1; 20]),
        ] {
            twins.send(INSIDE, Packet::raw(&a, &b, number, bytes));
            twins.send(SERVER, Packet::raw(&b, &n, number, bytes));
        }
        // Too short for the kernel to change a key that may be there.
        twins.send(Host(0, 11), Packet::raw(&twins.at(0, 11), &b, proto::GRE, &[0, 0, 8, 0]));
        if !v6 {
            twins.send(INSIDE, Packet::udp(&a, 4001, &b, 53).no_udp_checksum());
            twins.send(INSIDE, Packet::icmp(&a, &b, 13, 0, 0x1234_0001).payload(&[0; 12]));
        }
        // Whole, and untracked because invalid.
        twins.send(INSIDE, tcp(&a, 4002, &b, 80, SYN | ACK));
        twins.send(INSIDE, tcp(&a, 4003, &b, 80, SYN).bad_l4_checksum());
    });
}

#[test]
fn sctp_and_udplite_keep_their_sums() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        let (a, b) = (twins.at(0, 10), twins.at(1, 10));
        for number in [proto::SCTP, proto::UDPLITE] {
            let mut l4 = vec![0x0f, 0xa0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0];
            match number {
                proto::SCTP => {
                    l4.extend([1, 0, 0, 20, 0, 0, 0, 9, 0, 0, 4, 0, 0, 1, 0, 1, 0, 0, 0, 1])
                }
                _ => l4.extend([1; 11]),
            }
            let bits = |text: &str| dataplane::wire::build::address_bits(text.parse().unwrap());
            let family =
                if v6 { dataplane::packet::Family::V6 } else { dataplane::packet::Family::V4 };
            dataplane::wire::checksum::fill_transport(family, bits(&a), bits(&b), number, &mut l4);
            twins.send(INSIDE, Packet::raw(&a, &b, number, &l4));
        }
    });
}

/// Behaviours 29, 32, 33, 34.
#[test]
fn clashes_move_within_the_class_of_the_port_and_the_mapping_is_used_again() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j MASQUERADE"]);
        let (a, c, b, n) = (twins.at(0, 10), twins.at(0, 11), twins.at(1, 10), twins.at(1, 1));
        let other = twins.at(1, 11);
        for (port, low, high) in [(300, 1, 511), (700, 600, 1023), (4000, 1024, 65535)] {
            twins.send(INSIDE, Packet::udp(&a, port, &b, 65053));
            let chosen = twins.send_naming(Host(0, 11), Sport, Packet::udp(&c, port, &b, 65053));
            assert!(chosen.iter().all(|port| (low..=high).contains(port)), "{chosen:?}");
            // The next destination: the same port; somebody else keeps his.
            twins.send(Host(0, 11), Packet::udp(&c, port, &other, 65053));
            twins.send(INSIDE, Packet::udp(&a, port, &other, 65053));
            twins.send(INSIDE, Packet::udp(&a, port, &other, 65054));
        }
        let back = |names: &[u16]| Packet::udp(&b, 65053, &n, names[2]);
        twins.send_with(SERVER, &back);
        twins.flush();
        twins.send(INSIDE, Packet::ping(&a, &b, 5, 1));
        twins.send_naming(Host(0, 11), Id, Packet::ping(&c, &b, 5, 1));
        twins.send(SERVER, Packet::pong(&b, &n, 5, 1));
        twins.send_with(SERVER, &|names| Packet::pong(&b, &n, names[0], 1));
    });
}

/// Behaviour 35, and its kin.
#[test]
fn small_ranges_of_ports_are_used_up() {
    both(|v6| {
        let lines = [
            "-A POSTROUTING -p udp --dport 53 -j SNAT --to-source {[1.20]}:5000-5001",
            "-A POSTROUTING -p udp --dport 54 -j SNAT --to-source {[1.20]}:5000",
            "-A POSTROUTING -p udp --dport 55 -j SNAT --to-source {[1.20]}:5000-5000",
            "-A POSTROUTING -p icmpx -j SNAT --to-source {1.20}",
        ];
        let mut twins = twins(v6, &lines);
        let (a, c, b) = (twins.at(0, 10), twins.at(0, 11), twins.at(1, 10));
        // In range, kept; then the only one left; then none.
        twins.send(INSIDE, Packet::udp(&a, 5001, &b, 53));
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
        twins.send(Host(0, 11), Packet::udp(&c, 4000, &b, 53));
        twins.send(Host(0, 11), Packet::udp(&c, 5001, &b, 53));
        for dport in [54, 55] {
            twins.send(INSIDE, Packet::udp(&a, 4000, &b, dport));
            twins.send(INSIDE, Packet::udp(&a, 4001, &b, dport));
            twins.send(Host(0, 11), Packet::udp(&c, 5000, &b, dport));
        }
        twins.send(INSIDE, Packet::udp(&a, 4000, &twins.at(1, 11), 54));
    });
}

/// Behaviour 36.
#[test]
fn random_ports_are_new_for_every_destination() {
    both(|v6| {
        for option in ["--random", "--random-fully"] {
            let snat = format!("-A POSTROUTING -o eth1 -j SNAT --to-source {{1.20}} {option}");
            let masquerade = format!("-A POSTROUTING -o eth2 -j MASQUERADE {option}");
            let mut twins = twins(v6, &[&snat, &masquerade]);
            let a = twins.at(0, 10);
            let mut ports = Vec::new();
            for (port, host) in [(1, 10), (1, 11), (2, 10), (2, 11)] {
                let to = twins.at(port, host);
                let chosen = twins.send_naming(INSIDE, Sport, Packet::udp(&a, 4000, &to, 53));
                ports.push(chosen);
                twins.send(INSIDE, Packet::udp(&a, 4000, &to, 53));
            }
            for side in 0..2 {
                let mut own: Vec<_> = ports.iter().map(|chosen| chosen[side]).collect();
                own.dedup();
                assert!(own.len() > 2, "{own:?}");
            }
        }
    });
}

/// Behaviour 37.
#[test]
fn null_bindings_give_way() {
    both(|v6| {
        let lines = ["-A PREROUTING -d {1.20} -j DNAT --to-destination {1.10}"];
        let mut twins = twins(v6, &lines);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        twins.send(INSIDE, Packet::udp(&a, 4000, &n, 53));
        twins.send_naming(INSIDE, Sport, Packet::udp(&a, 4000, &b, 53));
        twins.send(SERVER, Packet::udp(&b, 53, &a, 4000));
        twins.send_with(SERVER, &|names| Packet::udp(&b, 53, &a, names[0]));
        // The other way round: the translated one gives way.
        twins.flush();
        twins.send(INSIDE, tcp(&a, 4000, &b, 53, SYN));
        twins.send_naming(INSIDE, Sport, tcp(&a, 4000, &n, 53, SYN));
        // Identifiers clash at once, in PREROUTING, and are counted up from zero.
        twins.flush();
        twins.send(INSIDE, Packet::ping(&a, &b, 5, 1));
        twins.send(INSIDE, Packet::ping(&a, &n, 5, 1));
        twins.send(INSIDE, Packet::ping(&a, &b, 0, 1));
        twins.send(INSIDE, Packet::ping(&a, &n, 0, 1));
        for id in [1, 2, 0, 5] {
            twins.send(SERVER, Packet::pong(&b, &a, id, 1));
        }
    });
}

/// Behaviour 38.
#[test]
fn hairpin_works_both_ways() {
    both(|v6| {
        let lines = [
            "-A PREROUTING -d {1.1} -p tcp --dport 80 -j DNAT --to-destination {[0.11]}:8080",
            "-A POSTROUTING -s {0.10} -d {0.11} -j MASQUERADE",
        ];
        let mut twins = twins(v6, &lines);
        let (a, c, n, r) = (twins.at(0, 10), twins.at(0, 11), twins.at(1, 1), twins.at(0, 1));
        twins.send(INSIDE, tcp(&a, 4000, &n, 80, SYN));
        twins.send(Host(0, 11), tcp(&c, 8080, &r, 4000, SYN | ACK).seq(5, 1001));
        twins.send(INSIDE, tcp(&a, 4000, &n, 80, ACK).seq(1001, 6));
        let quoted = tcp(&c, 8080, &r, 4000, ACK).seq(6, 1001);
        twins.send(INSIDE, unreachable(&a, &n, &tcp(&n, 80, &a, 4000, ACK).seq(6, 1001)));
        twins.send(Host(0, 11), unreachable(&c, &r, &tcp(&r, 4000, &c, 8080, ACK).seq(1001, 6)));
        drop(quoted);
    });
}

/// One flow's packet there or back, as seen where the client is called so.
type Flow = dyn Fn(&str, bool) -> Packet;

/// Behaviours 25, 26, 27, 30.
#[test]
fn errors_are_translated() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        let (hop, inside) = (twins.at(1, 11), twins.at(0, 11));
        let flows: Vec<Box<Flow>> = vec![
            {
                let b = b.clone();
                Box::new(move |us: &str, back| match back {
                    false => tcp(us, 4000, &b, 80, SYN).payload(&[7; 40]),
                    true => tcp(&b, 80, us, 4000, SYN | ACK).seq(5, 1041),
                })
            },
            {
                let b = b.clone();
                Box::new(move |us: &str, back| match back {
                    false => Packet::udp(us, 4000, &b, 53).payload(&[7; 40]),
                    true => Packet::udp(&b, 53, us, 4000).payload(&[8; 41]),
                })
            },
            {
                let b = b.clone();
                Box::new(move |us: &str, back| match back {
                    false => Packet::ping(us, &b, 9, 1).payload(&[7; 40]),
                    true => Packet::pong(&b, us, 9, 1).payload(&[7; 40]),
                })
            },
        ];
        for flow in &flows {
            twins.send(INSIDE, flow(&a, false));
            twins.send(Host(1, 11), unreachable(&hop, &n, &flow(&n, false).ttl(1)));
            twins.send(SERVER, unreachable(&b, &n, &flow(&n, false)));
            // To the wrong one, and about nothing.
            twins.send(SERVER, unreachable(&b, &a, &flow(&n, false)));
            twins.send(SERVER, unreachable(&b, &n, &flow(&hop, false)));
            twins.send(SERVER, flow(&n, true));
            twins.send(INSIDE, unreachable(&a, &b, &flow(&a, true)));
            twins.send(Host(0, 11), unreachable(&inside, &b, &flow(&a, true)));
            // Cut short: four, eight, nineteen and twenty bytes of layer 4.
            let header = if v6 { 40 } else { 20 };
            for quoted in [4, 7, 8, 19, 20] {
                let cut = flow(&n, false).build()[..14 + header + quoted].to_vec();
                let (kind, code) = if v6 { (3, 0) } else { (11, 0) };
                twins.send(Host(1, 11), Packet::error(&hop, &n, kind, code, 0, &cut));
            }
        }
        if !v6 {
            // A redirect, and one about a flow that is not translated.
            let quoted = flows[1](&n, false).build();
            twins.send(Host(1, 11), Packet::error(&hop, &n, 5, 1, 0x0a00_0001, &quoted));
            let plain = Packet::udp(&a, 5000, &twins.at(2, 10), 53);
            twins.send(INSIDE, plain.clone());
            let from = twins.at(2, 11);
            let redirect = Packet::error(&from, &a, 5, 1, 0x0a00_0001, &plain.clone().build());
            twins.send(Host(2, 11), redirect);
        }
    });
}

/// Behaviours 4 and 59 under DNAT.
#[test]
fn what_the_router_says_about_translated_packets() {
    both(|v6| {
        let reject = if v6 { "icmp6-adm-prohibited" } else { "icmp-host-prohibited" };
        let mut text = rules(
            v6,
            &[
                "-A PREROUTING -i eth1 -d {1.20} -j DNAT --to-destination {0.10}",
                "-A POSTROUTING -o eth1 -s {0.10} -j SNAT --to-source {1.20}",
            ],
        );
        text += &format!(
            "*filter\n-A FORWARD -p tcp --dport 23 -j REJECT --reject-with tcp-reset\n\
             -A FORWARD -p udp --dport 23 -j REJECT --reject-with {reject}\nCOMMIT\n"
        );
        let mut twins = Twins::new(v6, &text);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        twins.send(SERVER, Packet::udp(&b, 999, &n, 53).payload(&[1; 50]).ttl(1));
        twins.send(SERVER, tcp(&b, 999, &n, 53, SYN).ttl(1));
        twins.send(INSIDE, Packet::udp(&a, 999, &b, 53).payload(&[1; 50]).ttl(1));
        for _ in 0..2 {
            twins.send(SERVER, tcp(&b, 999, &n, 23, SYN).seq(77, 0));
            twins.send(SERVER, Packet::udp(&b, 999, &n, 23).payload(&[1; 50]));
            twins.send(INSIDE, tcp(&a, 999, &b, 23, SYN).seq(77, 0));
            twins.send(INSIDE, Packet::udp(&a, 999, &b, 23).payload(&[1; 50]));
        }
        // Known connections as well.
        twins.send(SERVER, Packet::udp(&b, 999, &n, 53));
        twins.send(SERVER, Packet::udp(&b, 999, &n, 53).ttl(1));
        twins.send(INSIDE, Packet::udp(&a, 53, &b, 999));
        twins.send(INSIDE, Packet::udp(&a, 53, &b, 999).ttl(1));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN).ttl(1));
        // No route (from a host that no error was sent to: those share a limit).
        let nowhere = if v6 { "2001:db8:dead::1" } else { "192.0.2.1" };
        twins.send(Host(0, 11), Packet::udp(&twins.at(0, 11), 53, nowhere, 9));
    });
}

#[test]
fn addresses_of_a_pool_are_the_kernels_choice() {
    both(|v6| {
        let lines = [
            "-A POSTROUTING -o eth1 -p udp --dport 53 -j SNAT --to-source {1.20}-{1.25}",
            "-A POSTROUTING -o eth1 -p udp --dport 54 -j SNAT --to-source {1.20}-{1.25} --persistent",
            "-A PREROUTING -i eth1 -p udp --dport 55 -j DNAT --to-destination {0.20}-{0.25}",
            "-A PREROUTING -i eth1 -p udp --dport 56 -j DNAT --to-destination {0.20}-{0.25} --persistent",
        ];
        let mut text = rules(v6, &lines);
        if v6 {
            // Over several words, the last of which is not ordered.
            text = text.replace("2001:db8:1::19 --persistent", "2001:db8:1::19");
            text = text.replace(
                "--dport 53 -j SNAT --to-source 2001:db8:2::14-2001:db8:2::19",
                "--dport 53 -j SNAT --to-source 2001:db8:2::ffff:fff0-2001:db8:2:1::2:10",
            );
        }
        let mut twins = Twins::new(v6, &text);
        for port in 0..2 {
            for host in 0..40 {
                let client = if v6 {
                    format!("2001:db8:{}::{:x}", port + 1, 0x100 + host * 7)
                } else {
                    format!("198.18.{}.{}", port + 1, 100 + host)
                };
                let server = twins.at(1 - port, 10 + (host % 2) as u8);
                for dport in [53, 54, 55, 56] {
                    twins.send(Host(port, 10), Packet::udp(&client, 4000 + host, &server, dport));
                }
            }
        }
    });
}

#[test]
fn destination_ports() {
    both(|v6| {
        let lines = [
            "-A PREROUTING -i eth1 -p tcp --dport 80:89 -j DNAT --to-destination {[0.10]}:84-86",
            "-A PREROUTING -i eth1 -p tcp --dport 1000:1009 -j DNAT --to-destination {[0.10]}:2000-2009/1000",
            "-A PREROUTING -i eth1 -p tcp --dport 70 -j DNAT --to-destination {[0.10]}:1000-60000 --random",
            "-A PREROUTING -i eth1 -p udp -j REDIRECT --to-ports 500-502",
        ];
        let mut twins = twins(v6, &lines);
        let (b, n) = (twins.at(1, 10), twins.at(1, 20));
        // One source port, three destination ports: the search moves on, from the
        // lowest; then the source gives way.
        for dport in [80, 84, 85, 1000, 1003, 1009] {
            twins.send(SERVER, tcp(&b, 4000, &n, dport, SYN));
        }
        for dport in [86, 89] {
            twins.send_naming(SERVER, Sport, tcp(&b, 4000, &n, dport, SYN));
        }
        twins.send(SERVER, tcp(&b, 4001, &n, 86, SYN));
        twins.send(SERVER, tcp(&b, 4001, &n, 89, SYN));
        twins.send_naming(SERVER, Dport, tcp(&b, 4000, &n, 70, SYN));
        for dport in [501, 9, 10] {
            twins.send(SERVER, Packet::udp(&b, 4000, &n, dport));
        }
    });
}

#[test]
fn redirect_netmap_and_the_routers_own() {
    both(|v6| {
        let lines = if v6 {
            [
                "-A PREROUTING -i eth0 -p tcp -j REDIRECT --to-ports 3128",
                "-A PREROUTING -i eth1 -d 2001:db8:1:1::/64 -j NETMAP --to 2001:db8:1::/64",
                "-A POSTROUTING -o eth1 -s 2001:db8:1::/64 -j NETMAP --to 2001:db8:1:1::/64",
                "-A OUTPUT -d {2.10} -j DNAT --to-destination {1.10}",
                "-A OUTPUT -d {2.11} -p tcp -j REDIRECT --to-ports 3128",
                "-A INPUT -s {1.11} -p udp -j SNAT --to-source {1.21}",
            ]
        } else {
            [
                "-A PREROUTING -i eth0 -p tcp -j REDIRECT --to-ports 3128",
                "-A PREROUTING -i eth1 -d 10.1.1.0/24 -j NETMAP --to 198.18.1.0/24",
                "-A POSTROUTING -o eth1 -s 198.18.1.0/24 -j NETMAP --to 10.1.1.0/24",
                "-A OUTPUT -d {2.10} -j DNAT --to-destination {1.10}",
                "-A OUTPUT -d {2.11} -p tcp -j REDIRECT --to-ports 3128",
                "-A INPUT -s {1.11} -p udp -j SNAT --to-source {1.21}",
            ]
        };
        let mut twins = twins(v6, &lines);
        let (a, b, r) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 1));
        let (far, own) = (twins.at(2, 10), twins.at(2, 1));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN));
        let mapped = if v6 { "2001:db8:1:1::a" } else { "10.1.1.10" };
        twins.send(SERVER, Packet::udp(&b, 4000, mapped, 53));
        twins.send(INSIDE, Packet::udp(&a, 53, &b, 4000));
        twins.send(INSIDE, Packet::udp(&a, 54, &b, 4000));
        twins.send(SERVER, Packet::udp(&b, 4000, mapped, 54));
        // Our own: another way, and back to ourselves.
        twins.send(Router, Packet::udp(&own, 4000, &far, 53).id(7));
        twins.send(SERVER, Packet::udp(&b, 53, &own, 4000));
        twins.send(Router, tcp(&own, 4000, &twins.at(2, 11), 80, SYN).id(7));
        // INPUT.
        twins.send(Host(1, 11), Packet::udp(&twins.at(1, 11), 4000, &r, 53));
        let direct = Packet::udp(&r, 53, &twins.at(1, 11), 4000).id(7);
        twins.send_naming(Router, Sport, direct);
        twins.send(Router, Packet::udp(&r, 53, &twins.at(1, 21), 4000).id(7));
    });
}

/// Behaviour 31, and a nat table that comes late.
#[test]
fn mappings_outlive_rules_and_late_tables_change_nothing_old() {
    both(|v6| {
        let track = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
        let mut twins = Twins::new(v6, track);
        let (a, b) = (twins.at(0, 10), twins.at(1, 10));
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
        let late = rules(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        twins.install(&format!("{track}{late}"));
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
        twins.send(INSIDE, Packet::udp(&a, 4001, &b, 53));
        let n = twins.at(1, 20);
        twins.send(SERVER, unreachable(&b, &a, &Packet::udp(&a, 4000, &b, 53)));
        if !v6 {
            let quoted = Packet::udp(&a, 4000, &b, 53).build();
            twins.send(SERVER, Packet::error(&b, &a, 5, 1, 0x0a00_0001, &quoted));
        }
        let empty = rules(v6, &[":POSTROUTING ACCEPT [0:0]"]);
        twins.install(&format!("{track}{empty}"));
        twins.send(SERVER, Packet::udp(&b, 53, &n, 4001));
        twins.send(INSIDE, Packet::udp(&a, 4001, &b, 53));
        twins.send(INSIDE, Packet::udp(&a, 4002, &b, 53));
    });
}

/// Behaviour 40.
#[test]
fn fragments_are_translated_once_and_keep_their_sizes() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        let there = Packet::udp(&a, 4000, &b, 53).payload_len(2000).id(77);
        for (offset, len, more) in [(1200, 808, false), (0, 800, true), (800, 400, true)] {
            twins.send(INSIDE, there.clone().fragment(offset, len, more));
        }
        let back = Packet::udp(&b, 53, &n, 4000).payload_len(3000).id(78);
        for (offset, len, more) in [(0, 1400, true), (1400, 1400, true), (2800, 208, false)] {
            twins.send(SERVER, back.clone().fragment(offset, len, more));
        }
        let echo = Packet::ping(&a, &b, 5, 1).payload_len(4000).id(79);
        for (offset, len, more) in [(0, 1448, true), (1448, 1448, true), (2896, 1112, false)] {
            twins.send(INSIDE, echo.clone().fragment(offset, len, more));
        }
    });
}

/// MASQUERADE and REDIRECT on a port with several addresses.
#[test]
fn the_address_of_a_port_is_the_kernels_choice() {
    both(|v6| {
        let lines = [
            "-A POSTROUTING -o eth1 -j MASQUERADE",
            "-A PREROUTING -i eth1 -p tcp --dport 80 -j REDIRECT --to-ports 8080",
            "-A PREROUTING -i eth1 -p tcp --dport 81 -j DNAT --to-destination {0.1}",
        ];
        let mut twins = Twins::with_addresses(v6, &rules(v6, &lines));
        let (a, b, r) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 1));
        let far = if v6 { "2001:db8:78::5" } else { "10.77.0.5" };
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
        twins.send(INSIDE, Packet::udp(&a, 4000, far, 53));
        for dport in [80, 81] {
            twins.send(SERVER, tcp(&b, 4000, &r, dport, SYN));
            twins.send(SERVER, tcp(&b, 4001, &twins.at(2, 10), dport, SYN));
        }
        if v6 {
            twins.send(SERVER, tcp("fe80::10", 4000, "fe80::77", 80, SYN));
        } else {
            twins.send(SERVER, tcp(&b, 4002, "198.18.2.9", 80, SYN));
        }
    });
}

/// Headers between IP and layer 4, in packets and in what errors quote.
#[test]
fn options_and_extension_headers_are_stepped_over() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j SNAT --to-source {1.20}"]);
        let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
        let dress = |packet: Packet| match v6 {
            false => packet.options(&[1, 1, 1, 1]),
            true => packet.extension(proto::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]),
        };
        for packet in [
            |us: &str, b: &str| Packet::udp(us, 4000, b, 53).payload(&[7; 40]),
            |us: &str, b: &str| tcp(us, 4000, b, 80, SYN).payload(&[7; 40]),
            |us: &str, b: &str| Packet::ping(us, b, 9, 1).payload(&[7; 40]),
        ] {
            twins.send(INSIDE, dress(packet(&a, &b)));
            twins.send(SERVER, unreachable(&b, &n, &dress(packet(&n, &b))));
            twins.send(SERVER, dress(unreachable(&b, &n, &packet(&n, &b))));
        }
        twins.send(INSIDE, dress(Packet::udp(&a, 4000, &b, 53)).ttl(1));
    });
}

/// Two connections that differ in the zone of their original tuples alone want one
/// reply tuple: without NAT the second is dropped, with it it is given a port.
#[test]
fn zones_of_one_direction_clash_in_the_other() {
    both(|v6| {
        let hops = if v6 { "hl --hl-eq" } else { "ttl --ttl-eq" };
        let zones = format!(
            "*raw\n-A PREROUTING -i eth0 -m {hops} 60 -j CT --zone-orig 7\n\
             -A PREROUTING -i eth0 -m {hops} 61 -j CT --zone-orig 8\nCOMMIT\n"
        );
        let mut twins = Twins::new(v6, &zones);
        let (a, b) = (twins.at(0, 10), twins.at(1, 10));
        let query = |ttl| Packet::udp(&a, 4000, &b, 53).ttl(ttl);
        twins.send(INSIDE, query(60));
        twins.send(INSIDE, query(61));
        twins.send(SERVER, Packet::udp(&b, 53, &a, 4000));
        twins.send(INSIDE, query(61));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN).ttl(60));
        twins.send(INSIDE, tcp(&a, 4000, &b, 80, SYN).ttl(61));
        twins.flush();
        twins.install(&format!("{zones}{}", rules(v6, &[":POSTROUTING ACCEPT [0:0]"])));
        twins.send(INSIDE, query(60));
        twins.send_naming(INSIDE, Sport, query(61));
        twins.send(SERVER, Packet::udp(&b, 53, &a, 4000));
        twins.send_with(SERVER, &|names| Packet::udp(&b, 53, &a, names[0]));
    });
}

/// Path MTU discovery through a translation, in both directions.
#[test]
fn packets_that_are_too_big_are_reported_to_who_sent_them() {
    both(|v6| {
        let lines = [
            "-A POSTROUTING -o eth1 -s {0.10} -j SNAT --to-source {1.20}",
            "-A PREROUTING -i eth1 -d {1.20} -j DNAT --to-destination {0.10}",
        ];
        for narrow in [0, 1] {
            let mut twins = Twins::narrow(v6, &rules(v6, &lines), &[narrow]);
            let (a, b, n) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 20));
            let large = |packet: Packet| packet.payload_len(1440).df();
            for _ in 0..2 {
                if narrow == 1 {
                    twins.send(INSIDE, large(Packet::udp(&a, 4000, &b, 53)));
                    twins.send(INSIDE, large(tcp(&a, 4000, &b, 80, SYN)));
                } else {
                    twins.send(SERVER, large(Packet::udp(&b, 53, &n, 4000)));
                    twins.send(SERVER, large(tcp(&b, 80, &n, 4000, SYN)));
                }
                // From now on they are known.
                twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
                twins.send(SERVER, Packet::udp(&b, 53, &n, 4000));
            }
            if !v6 && narrow == 1 {
                twins.send(INSIDE, Packet::udp(&a, 4001, &b, 53).payload_len(1440));
            }
            // A router further on says so.
            let sent = Packet::udp(&n, 4000, &b, 53).payload_len(1300).ttl(60).build();
            let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
            let hop = twins.at(1, 11);
            let error = Packet::error(&hop, &n, kind, code, 1280, &sent[..14 + 548]);
            twins.send(Host(1, 11), error);
        }
    });
}

/// A closed connection makes room for a newer one of the same ends.
#[test]
fn closed_connections_give_way_to_larger_sequence_numbers() {
    both(|v6| {
        let lines = ["-A POSTROUTING -p tcp -j SNAT --to-source {[1.20]}:5000-5001"];
        let mut twins = twins(v6, &lines);
        let (a, c, b, n) = (twins.at(0, 10), twins.at(0, 11), twins.at(1, 10), twins.at(1, 20));
        for port in [5000, 5001] {
            twins.send(INSIDE, tcp(&a, port, &b, 80, SYN).seq(1000, 0));
            twins.send(SERVER, tcp(&b, 80, &n, port, SYN | ACK).seq(9000, 1001));
            twins.send(INSIDE, tcp(&a, port, &b, 80, ACK).seq(1001, 9001));
            if port == 5000 {
                twins.send(INSIDE, tcp(&a, port, &b, 80, RST | ACK).seq(1001, 9001));
            }
        }
        // Older than the closed one, then newer.
        twins.send(Host(0, 11), tcp(&c, 4000, &b, 80, SYN).seq(900, 0));
        twins.send(Host(0, 11), tcp(&c, 4000, &b, 80, SYN).seq(2000, 0));
        twins.send(INSIDE, tcp(&a, 5001, &b, 80, FIN | ACK).seq(1001, 9001));
        twins.send(SERVER, tcp(&b, 80, &n, 5001, FIN | ACK).seq(9001, 1002));
        twins.send(INSIDE, tcp(&a, 5001, &b, 80, ACK).seq(1002, 9002));
        twins.send(Host(0, 11), tcp(&c, 4001, &b, 80, SYN).seq(2000, 0));
        twins.send(Host(0, 11), tcp(&c, 4002, &b, 80, SYN).seq(2000, 0));
    });
}

/// Behaviour 47.
#[test]
fn a_mapping_does_not_shadow_a_local_service() {
    both(|v6| {
        let lines = ["-A POSTROUTING -o eth1 -j MASQUERADE"];
        let mut twins = twins(v6, &lines);
        let (a, b, r) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 1));
        // The client claims the service's own port towards the server.
        twins.send(INSIDE, Packet::udp(&a, 53, &b, 4000));
        twins.send(SERVER, Packet::udp(&b, 4000, &r, 53));
        twins.send(SERVER, Packet::udp(&b, 4001, &r, 53));
        // The server came first: the client's mapping gives way.
        twins.flush();
        twins.send(SERVER, Packet::udp(&b, 4000, &r, 53));
        twins.send_naming(INSIDE, Sport, Packet::udp(&a, 53, &b, 4000));
        twins.send(SERVER, Packet::udp(&b, 4000, &r, 53));
    });
}

/// An address that goes takes its masqueraded connections with it; so does a port.
#[test]
fn masqueraded_connections_die_with_their_address() {
    both(|v6| {
        let mut twins = twins(v6, &["-A POSTROUTING -o eth1 -j MASQUERADE"]);
        let (a, b, r) = (twins.at(0, 10), twins.at(1, 10), twins.at(1, 1));
        twins.send(INSIDE, Packet::udp(&a, 4000, &b, 53));
        twins.send(INSIDE, Packet::udp(&a, 4000, &twins.at(2, 10), 53));
        let len = if v6 { 64 } else { 24 };
        let family = if v6 { dataplane::packet::Family::V6 } else { dataplane::packet::Family::V4 };
        let own = format!("{r}/{len}");
        twins.kernel.router().run("ip", &["addr", "del", &own, "dev", "eth1"], "").unwrap();
        let bits = dataplane::wire::build::address_bits(r.parse().unwrap());
        let port = dataplane::packet::PortId(1);
        lab::clock::pause_ms(20);
        let table = twins.ours.conntrack();
        assert_eq!(table.forget_masqueraded(port, Some((family, bits)), 0, usize::MAX), None);
        twins.compare_tables();
    });
}
