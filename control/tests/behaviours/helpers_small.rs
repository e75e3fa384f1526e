//! Amanda, SANE and NetBIOS names before both.

use super::conn::Conn;
use super::helpers_forms::Dice;
use super::packet::{Host, Packet, Segment, alice, bob, host, router, tcp, udp, v6, web};
use super::script::{Extra, Script, both, both_v6, both_with};

const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.177/32 -j DNAT --to-destination 198.18.3.10";
const AMANDA: &str = "-t raw -A PREROUTING -p udp -m udp --dport 10080 -j CT --helper amanda";
const SANE: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 6566 -j CT --helper sane";
/// Counts what the helper says of what it expected.
const TOLD: &str = "-A FORWARD -m helper --helper amanda";
const TOLD_SANE: &str = "-A FORWARD -m helper --helper sane";

/// A backup server inside asks a client outside, which answers as said.
struct Backup {
    asked: Host,
    as_addressed: std::net::IpAddr,
    as_seen: (std::net::IpAddr, u16),
    who: Host,
}

impl Backup {
    #[track_caller]
    fn ask(t: &mut Script<'_>, who: Host, asked: Host, as_addressed: &str) -> Self {
        let as_addressed = as_addressed.parse().unwrap();
        let out = t.send(udp(who, 850, as_addressed, 10_080, b"Amanda 2.4 REQ\n")).passes("NEW");
        let as_seen = (out.ip().src(), out.ip().sport());
        Self { asked, as_addressed, as_seen, who }
    }
    fn answers(&self, text: &[u8]) -> Packet {
        udp(self.asked, 10_080, self.as_seen.0, self.as_seen.1, text)
    }
    fn fetches(&self, port: u16) -> Segment {
        tcp(self.who, 900, self.as_addressed, port).flags("S").seq(5)
    }
}

const ANSWERS: [&str; 24] = [
    "Amanda 2.4 REP HANDLE 000 SEQ 1\nCONNECT DATA 5001 MESG 5002 INDEX 5003\nOPTIONS ;\n",
    "CONNECT DATA 5011 MESG 5012 INDEX 5013 STATE 5014\n",
    "CONNECT DATA 5021 MESG 5022 INDEX 5023 STATE 5024",
    "CONNECT STATE 5034 INDEX 5033 MESG 5032 DATA 5031 \n",
    "CONNECT DATA  5041 MESG 5042\n",
    "CONNECT DATA x MESG 5052\n",
    "CONNECT DATA 0 MESG 5062\n",
    "CONNECT DATA 99999 MESG 65536 INDEX 5073\n",
    "CONNECT DATA 123456 MESG 7\n",
    "CONNECT DATA +5091 MESG 5092\n",
    "connect DATA 5101\n",
    "CONNECT data 5111 MESG 5112\n",
    "CONNECT DATA\nMESG 5122\n",
    "CONNECT \nDATA 5131\n",
    "CONNECT DATA 5141",
    "DATA 5151 CONNECT MESG 5152\n",
    "CONNECT CONNECT DATA 5161\n",
    "xCONNECT xDATA 5171y\n",
    "CONNECT DATA 5181 DATA 5182 MESG 5181 INDEX 5183\n",
    "CONNECT DATA 65535 MESG 65535\n",
    "CONNECT DATA 5201 MESG 5\n",
    "CONNECT DATA ",
    "CONNECT DATA 521\n",
    "\n",
];

#[track_caller]
fn backup(t: &mut Script<'_>, who: Host, asked: Host, as_addressed: &str) {
    let backup = Backup::ask(t, who, asked, as_addressed);
    t.flows();
    for answer in ANSWERS {
        t.send(backup.answers(answer.as_bytes()));
        t.expectations();
    }
    t.send(backup.answers(ANSWERS[0].as_bytes())).passes("ESTABLISHED");
    t.send(backup.fetches(5001)).passes("RELATED");
    t.send(backup.fetches(5001)).passes("RELATED");
    t.send(backup.fetches(5002).seq(7)).passes("RELATED");
    t.expectations();
    t.send(backup.fetches(5009));
    t.flows();
}

#[test]
fn amanda_answers() {
    both(|t| {
        t.rules(&[AMANDA, TOLD]);
        backup(t, alice(), web(), "198.18.3.10");
    });
}

#[test]
fn amanda_answers_under_source_translation() {
    both(|t| {
        t.rules(&[AMANDA, SNAT, TOLD]);
        backup(t, alice(), web(), "198.18.3.10");
    });
}

#[test]
fn amanda_answers_of_a_translated_client() {
    both(|t| {
        t.rules(&[AMANDA, SNAT, DNAT, TOLD]);
        backup(t, alice(), web(), "198.18.3.177");
    });
}

#[test]
fn amanda_in_ipv6() {
    for rules in [
        &[AMANDA, TOLD][..],
        &[AMANDA, TOLD, "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 2001:db8:3::100"],
    ] {
        both_v6(|t| {
            t.rules(rules);
            backup(t, v6(alice()), v6(web()), "2001:db8:3::a");
        });
    }
}

/// Two backup servers behind one address, asked to the same ports: the second's are
/// moved, which can make the text longer.
#[test]
fn amanda_ports_that_are_expected_already() {
    both(|t| {
        t.rules(&[AMANDA, SNAT, TOLD]);
        let one = Backup::ask(t, alice(), web(), "198.18.3.10");
        let other = Backup::ask(t, bob(), web(), "198.18.3.10");
        let last = b"CONNECT DATA 65535\n";
        t.send(one.answers(last)).passes("ESTABLISHED");
        t.send(other.answers(last)).passes("ESTABLISHED");
        t.expectations();
        // No port is above it.
        let third = Backup::ask(t, host(false, 0, 254), web(), "198.18.3.10");
        t.send(third.answers(b"CONNECT DATA 65535 MESG 6001\n"));
        t.expectations();
    });
}

#[test]
fn damaged_amanda_answers() {
    for rules in [&[AMANDA][..], &[AMANDA, SNAT]] {
        both(|t| {
            let mut dice = Dice(11);
            t.rules(rules);
            let backup = Backup::ask(t, alice(), web(), "198.18.3.10");
            for _ in 0..150 {
                let which = dice.below(2);
                let text = dice.damaged(ANSWERS[which].as_bytes());
                t.send(backup.answers(&text));
                t.expectations();
            }
        });
    }
}

const START: &[u8] = &[0, 0, 0, 7, 0, 0, 0, 1];
const OTHER: &[u8] = &[0, 0, 0, 6, 0, 0, 0, 1];

fn scan(t: &mut Script<'_>, client: Host, scanner: Host, as_addressed: &str) {
    let mut c = Conn::new(client, 4001, scanner, 6566);
    c.service.0 = as_addressed.parse().unwrap();
    c.open(t);
    let answers: [&[u8]; 9] = [
        &[0, 0, 0, 0, 0, 0, 0x20, 1],
        &[0, 0, 0, 0, 0, 0, 0x20, 2, 0, 0, 0, 9],
        &[0, 0, 0, 1, 0, 0, 0x20, 3],
        &[0, 0, 0, 0, 0, 1, 0x20, 4],
        &[0, 0, 0, 0, 0, 0, 0x20],
        &[0, 0, 0, 0, 0, 0, 0, 0],
        &[0],
        &[],
        &[0, 0, 0, 0, 0, 0, 0x20, 5],
    ];
    let requests: [&[u8]; 5] = [START, OTHER, &START[..7], &[START, b"more"].concat(), &[]];
    for request in requests {
        for answer in answers {
            t.send(c.client_sends("PA", request)).passes("ESTABLISHED");
            t.send(c.server_sends("PA", answer)).passes("ESTABLISHED");
            t.expectations();
            // A second answer to one request.
            t.send(c.server_sends("PA", answers[8])).passes("ESTABLISHED");
            t.expectations();
        }
    }
    t.send(c.client_sends("PA", START)).passes("ESTABLISHED");
    t.send(c.client_sends("PA", &START[..4])).passes("ESTABLISHED");
    t.send(c.server_sends("PA", answers[0])).passes("ESTABLISHED");
    let data = tcp(client, 4100, c.service.0, 0x2001).flags("S").seq(5);
    t.send(data.clone()).passes("RELATED");
    t.expectations();
    t.send(data).passes("RELATED");
    t.send(tcp(client, 4101, c.service.0, 0x2001).flags("S").seq(5)).passes("NEW");
    t.flows();
}

#[test]
fn sane_answers() {
    for rules in [&[SANE, TOLD_SANE][..], &[SANE, SNAT, TOLD_SANE]] {
        both(|t| {
            t.rules(rules);
            scan(t, alice(), web(), "198.18.3.10");
        });
    }
    both(|t| {
        t.rules(&[SANE, SNAT, DNAT, TOLD_SANE]);
        scan(t, alice(), web(), "198.18.3.177");
    });
}

#[test]
fn sane_in_ipv6() {
    both_v6(|t| {
        t.rules(&[SANE, TOLD_SANE]);
        scan(t, v6(alice()), v6(web()), "2001:db8:3::a");
    });
}

/// The kernel gets a copy of what it says to everybody; it is not counted there.
const NO_COPIES: &str = "-t raw -A PREROUTING -i eth0 -s 198.18.1.1/32 -j DROP";
const NAMES: [&str; 4] = [
    NO_COPIES,
    "-t raw -A OUTPUT -p udp -m udp --dport 137 -j CT --helper netbios-ns",
    "-t raw -A PREROUTING -p udp -m udp --dport 137 -j CT --helper netbios-ns",
    "-A INPUT -m helper --helper netbios-ns",
];
/// The kernel goes by the broadcast address that an interface was given.
const BROADCAST: Extra<'_> = Extra {
    v6: false,
    ip: &[
        "addr del 198.18.1.1/24 dev eth0",
        "addr add 198.18.1.1/24 broadcast 198.18.1.255 dev eth0",
        "neigh replace 198.18.1.10 lladdr 02:00:00:00:01:0a dev eth0 nud permanent",
        "neigh replace 198.18.1.11 lladdr 02:00:00:00:01:0b dev eth0 nud permanent",
    ],
    topology: "",
};

/// Asks from port 137 as the router, and answers from there and elsewhere.
#[test]
fn netbios_names() {
    both_with(&BROADCAST, |t| {
        t.rules(&NAMES);
        let here = router(0);
        t.send(udp(here, 137, "198.18.1.255".parse().unwrap(), 137, b"who?"));
        t.expectations();
        t.flows();
        for (from, port) in [(alice(), 137), (alice(), 138), (web(), 137)] {
            t.send(udp(from, port, here.ip, 137, b"me"));
        }
        t.send(udp(alice(), 137, here.ip, 137, b"me")).dropped("RELATED");
        t.send(udp(alice(), 137, here.ip, 999, b"me"));
        t.expectations();
        t.flows();
        // Asked again: it lasts longer.
        t.send(udp(here, 137, "198.18.1.255".parse().unwrap(), 137, b"who?"));
        t.expectations();
        // To one host and through us: nobody is expected.
        t.send(udp(here, 1137, alice().ip, 137, b"who?"));
        t.send(udp(host(false, 0, 11), 137, web().ip, 137, b"who?"));
        t.expectations();
        // The kernel's timers are late by a quarter of a second.
        t.wait_ms(3500);
        t.send(udp(bob(), 137, here.ip, 137, b"me"));
        t.expectations();
        t.rules(&NAMES);
    });
}
