//! recent, hashlimit and connlimit, packet by packet before the kernel.
//!
//! Every test leaves room for a loaded machine: what must have passed has, with a wide
//! margin, and what must not have would need as much delay.

use super::conn::Conn;
use super::packet::{Host, alice, bob, carol, dave, mail, tcp, udp, v6, web};
use super::script::{Script, both, both_v6};

/// Packets that each of the first `N` rules in FORWARD has counted.
#[track_caller]
fn forward<const N: usize>(t: &mut Script<'_>) -> [u64; N] {
    std::array::from_fn(|n| t.count(&format!("filter FORWARD {n}")))
}

fn datagram(t: &mut Script<'_>, from: Host, to: Host, dport: u16) {
    t.send(udp(from, 4000, to.ip, dport, b"x"));
}

/// A few thousand different packets, the same for both sides.
struct Dice(u32);

impl Dice {
    fn throw(&mut self, sides: u32) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((self.0 >> 16) % sides) as usize
    }
}

#[test]
fn recent_sets_asks_updates_and_removes() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -m recent --rcheck --name a",
            "-A FORWARD -m recent --update --hitcount 3 --name a",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name a",
            "-A FORWARD -p udp -m udp --dport 9 -m recent --remove --name a",
            "-A FORWARD -p udp -m udp --dport 9 -m recent ! --remove --name a",
            "-A FORWARD -m recent ! --rcheck --name a --rdest",
        ]);
        let ports = [7_u16, 7, 9, 11];
        datagram(t, alice(), web(), 11);
        assert_eq!(forward(t), [0, 0, 0, 0, 0, 1]);
        datagram(t, alice(), web(), 7);
        datagram(t, alice(), web(), 11);
        assert_eq!(forward(t), [1, 0, 1, 0, 0, 3]);
        datagram(t, web(), alice(), 11);
        assert_eq!(forward(t), [1, 0, 1, 0, 0, 3], "the destination is on the list");
        datagram(t, alice(), web(), 9);
        assert_eq!(forward(t), [2, 0, 1, 1, 1, 4], "what was removed is not there any more");
        let mut dice = Dice(7);
        for _ in 0..80 {
            let hosts = [alice(), bob(), carol(), web()];
            let (from, to) = (hosts[dice.throw(4)], hosts[dice.throw(4)]);
            if from.port != to.port {
                datagram(t, from, to, ports[dice.throw(4)]);
            }
        }
    });
}

#[test]
fn recent_forgets_by_seconds_and_reaps() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -m recent --rcheck --seconds 2 --name a",
            "-A FORWARD -m recent --rcheck --seconds 2 --hitcount 2 --name a",
            "-A FORWARD -m recent --update --seconds 100 --hitcount 3 --name b",
            "-A FORWARD -m recent ! --update --seconds 2 --reap --name c",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name a",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name b",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name c",
            "-A FORWARD -p udp -m udp --dport 11 -m recent --rcheck --seconds 2 --reap --name a",
            "-A FORWARD -m recent --rcheck --name a",
        ]);
        datagram(t, alice(), web(), 7);
        datagram(t, alice(), web(), 7);
        datagram(t, alice(), web(), 13);
        assert_eq!(forward(t), [2, 1, 0, 1, 2, 2, 2, 0, 3]);
        t.wait_ms(3_000);
        datagram(t, bob(), web(), 7);
        datagram(t, alice(), web(), 13);
        let [lately, often, ..] = forward::<9>(t);
        assert_eq!((lately, often), (2, 1), "too long ago");
        // The oldest was seen too long ago and is dropped, on whoever's behalf.
        datagram(t, bob(), web(), 11);
        datagram(t, alice(), web(), 13);
        datagram(t, bob(), web(), 13);
    });
}

#[test]
fn recent_lists_masks_ttls_and_only_so_many_addresses() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -m recent --rcheck --name n --mask 255.255.255.0",
            "-A FORWARD -m recent --rcheck --name n",
            "-A FORWARD -m recent --rcheck --rttl --name t",
            "-A FORWARD -m recent --update --rttl --hitcount 2 --name t",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name n --mask 255.255.255.0",
            "-A FORWARD -p tcp -m tcp --dport 7 -m recent --set --name t",
            "-A FORWARD -p udp -m udp --dport 9 -m recent --set --name f --rdest",
            "-A FORWARD -p udp -m udp --dport 13 -m recent --rcheck --name f --rdest",
        ]);
        datagram(t, alice(), web(), 7);
        datagram(t, bob(), web(), 11);
        datagram(t, carol(), web(), 11);
        // The first rule's mask is the list's.
        assert_eq!(forward(t), [1, 1, 0, 0, 1, 0, 0, 0]);
        for ttl in [64, 64, 60, 64, 60] {
            t.send(tcp(alice(), 5000, web().ip, 7).flags("S").ttl(ttl));
        }
        let to = |last: u8| Host { ip: [203, 0, 113, last].into(), ..web() };
        (1..=105).for_each(|last| datagram(t, alice(), to(last), 9));
        for last in [1, 5, 6, 105] {
            datagram(t, alice(), to(last), 13);
        }
        assert_eq!(t.count("filter FORWARD 7"), 2, "the first five gave way");
    });
}

#[test]
fn recent_and_hashlimit_work_on_ipv6() {
    both_v6(|t| {
        t.rules(&[
            "-A FORWARD -m recent --rcheck --name s",
            "-A FORWARD -p udp -m udp --dport 7 -m recent --set --name s --mask ffff:ffff:ffff:ffff::",
            "-A FORWARD -m recent --rcheck --name s --mask ffff:ffff:ffff:ffff::",
            "-A FORWARD -m hashlimit --hashlimit-upto 3/hour --hashlimit-burst 2 --hashlimit-mode srcip,dstport --hashlimit-srcmask 64 --hashlimit-name h",
        ]);
        for (from, port) in
            [(alice(), 7), (bob(), 7), (carol(), 7), (alice(), 8), (bob(), 8), (bob(), 8)]
        {
            datagram(t, v6(from), v6(web()), port);
        }
        assert_eq!(forward::<4>(t)[1], 3);
    });
}

#[test]
fn hashlimit_keeps_a_bucket_for_each_key() {
    both(|t| {
        let hash = |rest: &str| format!("-A FORWARD -m hashlimit --hashlimit-{rest}");
        let rules = [
            hash("upto 3/hour --hashlimit-burst 4 --hashlimit-mode srcip --hashlimit-name a"),
            hash(
                "above 3/hour --hashlimit-burst 3 --hashlimit-mode dstip,dstport --hashlimit-name b",
            ),
            hash("upto 3/hour --hashlimit-burst 9 --hashlimit-name c"),
            hash(
                "above 2/hour --hashlimit-burst 3 --hashlimit-mode srcip,srcport,dstip,dstport --hashlimit-srcmask 24 --hashlimit-dstmask 16 --hashlimit-name d",
            ),
            // Shares what the first rule of that name says.
            hash("above 1000/sec --hashlimit-burst 100 --hashlimit-name c"),
            hash("upto 16b/s --hashlimit-burst 600b --hashlimit-mode srcip --hashlimit-name e"),
            hash(
                "above 5/sec --hashlimit-burst 7 --hashlimit-mode srcip --hashlimit-rate-match --hashlimit-rate-interval 3600 --hashlimit-name f",
            ),
            hash(
                "above 1kb/s --hashlimit-mode srcip --hashlimit-rate-match --hashlimit-rate-interval 3600 --hashlimit-name g",
            ),
        ];
        t.rules(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        let mut dice = Dice(11);
        for _ in 0..70 {
            let hosts = [alice(), bob(), carol(), web(), mail()];
            let (from, to) = (hosts[dice.throw(5)], hosts[dice.throw(5)]);
            if from.port != to.port {
                let payload = vec![7; dice.throw(200)];
                t.send(udp(
                    from,
                    4000 + dice.throw(2) as u16,
                    to.ip,
                    7 + dice.throw(2) as u16,
                    &payload,
                ));
            }
        }
        let counted: [u64; 8] = forward(t);
        let counting = counted.iter().filter(|count| **count > 0).count();
        assert!(counting >= 7, "{counted:?}");
    });
}

#[test]
fn hashlimit_refills_expires_and_fills_up() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -p udp -m udp --dport 7 -m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-htable-expire 60000 --hashlimit-name a",
            "-A FORWARD -p udp -m udp --dport 8 -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-htable-expire 500 --hashlimit-htable-gcinterval 100 --hashlimit-name b",
            "-A FORWARD -p udp -m udp --dport 9 -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 1 --hashlimit-mode dstip --hashlimit-htable-size 3 --hashlimit-htable-max 3 --hashlimit-name c",
            "-A FORWARD -p udp -m udp --dport 9",
        ]);
        for dport in [7, 7, 8, 8] {
            datagram(t, alice(), web(), dport);
        }
        assert_eq!(forward(t), [1, 1, 0, 0]);
        t.wait_ms(1_500);
        for dport in [7, 8] {
            datagram(t, alice(), web(), dport);
        }
        assert_eq!(forward(t), [2, 2, 0, 0], "one by time, the other forgotten");
        let to = |last: u8| Host { ip: [203, 0, 113, last].into(), ..web() };
        (1..=5).for_each(|last| datagram(t, alice(), to(last), 9));
        datagram(t, alice(), to(1), 9);
        assert_eq!(forward(t), [2, 2, 3, 4], "a full table drops");
    });
}

/// Ticks pass between packets, so that the kernel looks at its lists again.
fn after(t: &mut Script<'_>) {
    t.wait_ms(13);
}

#[test]
fn connlimit_counts_what_is_in_the_table() {
    both(|t| {
        let conn = |rest: &str| format!("-A FORWARD -m connlimit --connlimit-{rest}");
        let rules = [
            conn("above 0"),
            conn("above 1"),
            conn("upto 2"),
            conn("above 2 --connlimit-mask 24"),
            conn("above 1 --connlimit-daddr"),
            "-A FORWARD -p udp -m connlimit --connlimit-above 2 -j DROP".to_owned(),
        ];
        t.rules(&rules.iter().map(String::as_str).collect::<Vec<_>>());
        let mut dice = Dice(3);
        for _ in 0..60 {
            let (clients, servers) = ([alice(), bob(), carol()], [web(), mail()]);
            let (from, to) = (clients[dice.throw(3)], servers[dice.throw(2)]);
            after(t);
            t.send(udp(from, 4000 + dice.throw(5) as u16, to.ip, 7, b"x"));
            if dice.throw(3) == 0 {
                after(t);
                t.send(udp(to, 7, from.ip, 4000 + dice.throw(5) as u16, b"y"));
            }
        }
        let counted: [u64; 6] = forward(t);
        assert!(counted.iter().all(|count| *count > 0), "{counted:?}");
    });
}

#[test]
fn connlimit_forgets_closed_connections() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m connlimit --connlimit-above 2 -j REJECT --reject-with tcp-reset",
            "-A FORWARD -m connlimit --connlimit-above 1",
        ]);
        let mut open: Vec<Conn> = [4001, 4002]
            .map(|port| {
                after(t);
                let mut conn = Conn::new(alice(), port, web(), 80);
                conn.open(t);
                conn
            })
            .into();
        after(t);
        t.send(tcp(alice(), 4003, web().ip, 80).flags("S"));
        assert_eq!(t.count("filter FORWARD 0"), 1);
        after(t);
        // A reset closes the first, a third fits.
        let first = open.remove(0);
        t.send(first.up("RA"));
        after(t);
        t.send(tcp(alice(), 4004, web().ip, 80).flags("S"));
        assert_eq!(t.count("filter FORWARD 0"), 1);
        after(t);
        t.send(tcp(alice(), 4005, web().ip, 80).flags("S"));
        t.send(tcp(bob(), 4005, dave().ip, 80).flags("S"));
        assert_eq!(t.count("filter FORWARD 0"), 2);
    });
}

#[test]
fn connlimit_looks_at_packets_without_a_connection() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -m connlimit --connlimit-above 1",
            "-t raw -A PREROUTING -p udp -m udp --dport 9 -j NOTRACK",
            "-A FORWARD -m connlimit --connlimit-above 1",
        ]);
        for (sport, dport) in [(1, 7), (2, 7), (1, 7), (3, 9), (4, 9), (2, 7), (4, 9)] {
            after(t);
            t.send(udp(alice(), 4000 + sport, web().ip, dport, b"x"));
        }
        let raw = t.count("raw PREROUTING 0");
        assert!(raw > 0, "{raw}");
    });
}

#[test]
fn connlimit_and_assured_connections() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -m connlimit --connlimit-above 0",
            "-A FORWARD -m connlimit --connlimit-above 1",
            "-A FORWARD -m connlimit --connlimit-above 2",
            "-A FORWARD -m connlimit --connlimit-above 3",
        ]);
        let go = |t: &mut Script<'_>, segment: super::packet::Segment| {
            after(t);
            t.send(segment);
        };
        // The list of a lonely connection is empty once that is closed: its packets are
        // dropped until another one comes.
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        go(t, c.up("RA"));
        go(t, c.up("A"));
        go(t, c.down("A"));
        go(t, tcp(alice(), 5001, web().ip, 80).flags("S"));
        go(t, c.up("A"));
        // An assured connection's packets forget closed ones before and behind its own.
        let mut d: Vec<Conn> = [6001, 6002, 6003, 6004]
            .map(|port| {
                let mut conn = Conn::new(bob(), port, dave(), 80);
                after(t);
                conn.open(t);
                conn
            })
            .into();
        go(t, d[1].server_sends("RA", &[]));
        go(t, d[3].client_sends("RA", &[]));
        for at in [0, 2, 1, 3] {
            go(t, d[at].up("A"));
        }
        go(t, tcp(bob(), 6002, dave().ip, 80).flags("S").seq(900_000));
        assert!(t.count("filter FORWARD 3") > 0);
    });
}
