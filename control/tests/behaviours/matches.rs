//! What matches about connections answer, and which CT rule is heard: beyond the
//! numbered lines.

use super::conn::Conn;
use super::packet::{alice, echo, error, hop, tcp, udp, web};
use super::script::{Script, both, both_v6};

/// Packets that each of the first `N` rules in FORWARD has counted.
#[track_caller]
fn forward<const N: usize>(t: &mut Script<'_>) -> [u64; N] {
    std::array::from_fn(|n| t.count(&format!("filter FORWARD {n}")))
}

#[test]
fn connbytes_counts_as_the_kernel_counts() {
    both(|t| {
        let ask = |range: &str, way: &str, mode: &str| {
            let (not, range) = match range.strip_prefix("! ") {
                Some(range) => ("! ", range),
                None => ("", range),
            };
            format!(
                "-A FORWARD -m connbytes {not}--connbytes {range} --connbytes-dir {way} \
                 --connbytes-mode {mode}"
            )
        };
        let rules = [
            ask("1", "both", "packets"),
            ask("1:1", "original", "packets"),
            ask("2:", "original", "packets"),
            ask("0:0", "reply", "packets"),
            ask("! 1:3", "both", "packets"),
            ask("100:160", "both", "bytes"),
            ask("41:", "reply", "bytes"),
            ask("! 45:", "both", "avgpkt"),
            ask("40:40", "original", "avgpkt"),
            ask("0:0", "reply", "avgpkt"),
        ];
        let mut rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        rules.push("-t raw -A PREROUTING -p udp -m udp --dport 53 -j NOTRACK");
        t.rules(&rules);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        c.talk(t);
        c.talk(t);
        // Nothing is known of a connection that is none.
        let before: [u64; 10] = forward(t);
        assert_eq!(before[..5], [9, 2, 7, 1, 6]);
        t.send(udp(alice(), 4001, web().ip, 53, b"?")).passes("UNTRACKED");
        assert_eq!(forward::<10>(t), before);
        assert_eq!(t.flows()[0].field("packets", 0), "6");
    });
}

#[test]
fn connlabel_sets_and_finds_labels() {
    both(|t| {
        t.rules(&[
            "-t mangle -A PREROUTING -p udp -m udp --dport 53 -m connlabel --label 3 --set",
            "-t raw -A PREROUTING -p udp -m udp --dport 55 -j NOTRACK",
            "-A FORWARD -m connlabel --label 3",
            "-A FORWARD -m connlabel ! --label 3",
            "-A FORWARD -m connlabel --label 127",
            "-A FORWARD -p udp -m udp --sport 53 -m connlabel ! --label 9 --set",
            "-A FORWARD -m connlabel --label 9",
        ]);
        t.send(udp(alice(), 4001, web().ip, 53, b"?")).passes("NEW");
        assert_eq!(forward(t), [1, 0, 0, 0, 0]);
        // `! --set` sets, and so does not hold.
        t.send(udp(web(), 53, alice().ip, 4001, b"!")).passes("ESTABLISHED");
        assert_eq!(forward(t), [2, 0, 0, 0, 1]);
        t.send(udp(alice(), 4001, web().ip, 54, b"?")).passes("NEW");
        t.send(udp(alice(), 4001, web().ip, 55, b"?")).passes("UNTRACKED");
        assert_eq!(forward(t), [2, 2, 0, 0, 1]);
    });
}

/// The data connection of an FTP session, and what rules say of its helper.
#[track_caller]
fn expected_by_ftp(t: &mut Script<'_>, port: &[u8]) {
    t.rules(&[
        "-A FORWARD -m helper --helper ftp",
        "-A FORWARD -m helper ! --helper ftp",
        "-A FORWARD -m helper --helper ftp-2121",
        "-A FORWARD -m helper --helper f",
        "-A FORWARD -m helper --helper \"\"",
        "-A FORWARD -m helper ! --helper \"\"",
        "-A FORWARD -m helper --helper irc",
        "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp",
    ]);
    let (mut c, mut data) = match port.starts_with(b"EPRT") {
        true => {
            let (alice, web) = (super::packet::v6(alice()), super::packet::v6(web()));
            (Conn::new(alice, 4001, web, 21), Conn::new(web, 20, alice, 51_210))
        }
        false => (Conn::new(alice(), 4001, web(), 21), Conn::new(web(), 20, alice(), 51_210)),
    };
    c.open(t);
    t.send(c.server_sends("PA", b"220 here\r\n")).passes("ESTABLISHED");
    t.send(c.client_sends("PA", b"USER alice\r\n")).passes("ESTABLISHED");
    t.send(c.down("A")).passes("ESTABLISHED");
    t.send(c.client_sends("PA", port)).passes("ESTABLISHED");
    assert_eq!(forward(t), [0, 7, 0, 0, 0, 7, 0], "the control connection was not expected");
    t.send(data.client_sends("S", &[])).passes("RELATED");
    data.syn_ack(t);
    assert_eq!(forward(t), [2, 7, 2, 0, 2, 7, 0]);
}

#[test]
fn helper_looks_at_who_expected_the_connection() {
    both(|t| expected_by_ftp(t, b"PORT 198,18,1,10,200,10\r\n"));
}

#[test]
fn helper_looks_at_who_expected_the_connection_v6() {
    both_v6(|t| {
        let host = super::packet::v6(alice()).ip;
        let port = format!("EPRT |2|{host}|51210|\r\n");
        expected_by_ftp(t, port.as_bytes());
    });
}

#[test]
fn the_first_ct_rule_is_heard() {
    both(|t| {
        let state = |port: u16, state: &str| {
            let port = format!("-t raw -A PREROUTING -p udp -m udp --dport {port}");
            format!("{port} -m conntrack --ctstate {state}")
        };
        let seen: Vec<String> = (53..57)
            .flat_map(|port| ["INVALID", "NEW", "UNTRACKED"].map(|name| state(port, name)))
            .collect();
        let mut rules = vec![
            "-t raw -A PREROUTING -p udp -m udp --dport 53 -j CT --zone 5",
            "-t raw -A PREROUTING -p udp -m udp --dport 54 -j NOTRACK",
            "-t raw -A PREROUTING -p udp -m udp --dport 55 -j CT",
            "-t raw -A PREROUTING -p udp -m udp --dport 53:55 -j NOTRACK",
            "-t raw -A PREROUTING -p udp -m udp --dport 53:55 -j CT --zone 6",
        ];
        rules.extend(seen.iter().map(String::as_str));
        t.rules(&rules);
        let ask = |port| udp(alice(), 4001, web().ip, port, b"?");
        t.send(ask(53)).passes("NEW");
        t.send(ask(54)).passes("UNTRACKED");
        t.send(ask(55)).passes("NEW");
        t.send(ask(56)).passes("NEW");
        let counts: Vec<u64> = (5..17).map(|n| t.count(&format!("raw PREROUTING {n}"))).collect();
        assert_eq!(counts, [0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0]);
        let zones: Vec<String> =
            t.flows().iter().map(|flow| flow.field("zone", 0).to_owned()).collect();
        assert!(zones.contains(&"5".to_owned()) && !zones.contains(&"6".to_owned()), "{zones:?}");
        t.send(tcp(alice(), 4001, web().ip, 80).flags("S")).passes("NEW");
    });
}

#[test]
fn shifted_ports_mapped_networks_and_redirected_queries() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p udp -m udp --dport 514 -j NOTRACK",
            "-t nat -N web",
            "-t nat -A PREROUTING -d 198.18.1.1/32 -p tcp -m tcp --dport 80 -j web",
            "-t nat -A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353",
            "-t nat -A PREROUTING -d 203.0.113.0/24 -j NETMAP --to 198.18.3.0/24",
            "-t nat -A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 5000:5009 -j DNAT \
             --to-destination 198.18.3.10:8000-8009/5000",
            "-t nat -A POSTROUTING -o eth2 -p icmp -j SNAT --to-source 198.18.3.50",
            "-t nat -A POSTROUTING -o eth2 -p udp -j SNAT --to-source 198.18.3.60:6000-6000",
            "-t nat -A POSTROUTING -o eth2 -j MASQUERADE",
            "-t nat -A web -p tcp -j DNAT --to-destination 198.18.3.10:8080",
            "-A FORWARD -p tcp -m tcp --dport 8080 -m conntrack --ctstate DNAT --ctorigdstport 80",
            "-A FORWARD -p tcp -m tcp --dport 8003 -m conntrack --ctorigdstport 5003",
            "-A FORWARD -m conntrack --ctstate SNAT",
            "-A INPUT -p udp -m udp --dport 5353 -m conntrack --ctstate DNAT",
        ]);
        let to = |address: &str| address.parse().unwrap();
        let syn = |address: &str, dport| tcp(alice(), 4001, to(address), dport).flags("S").seq(9);
        let out = t.send(syn("198.18.1.1", 80)).passes("NEW");
        assert_eq!((out.ip().dst(), out.ip().dport()), (web().ip, 8080));
        let back = tcp(web(), 8080, out.ip().src(), out.ip().sport());
        let back = t.send(back.flags("SA").seq(5).ack(10)).passes("ESTABLISHED");
        assert_eq!((back.ip().src(), back.ip().sport()), (to("198.18.1.1"), 80));
        let late = t.send(error(hop(), out.ip().src(), 11, 0, out.ip().0)).passes("RELATED");
        assert_eq!((late.ip().dst(), late.ip().quoted().dport()), (alice().ip, 80));
        for dport in [5000, 5003, 5009] {
            let out = t.send(syn("192.0.2.1", dport)).passes("NEW");
            assert_eq!((out.ip().dst(), out.ip().dport()), (web().ip, dport + 3000));
        }
        let out = t.send(udp(alice(), 4001, to("203.0.113.10"), 9, b"?")).passes("NEW");
        assert_eq!((out.ip().src(), out.ip().dst()), (to("198.18.3.60"), web().ip));
        assert_eq!((out.ip().sport(), out.ip().dport()), (6000, 9));
        t.send(udp(alice(), 4002, to("203.0.113.10"), 9, b"?")).dropped("NEW");
        let out = t.send(echo(8, alice(), web().ip, 7, 1)).passes("NEW");
        assert_eq!((out.ip().src(), out.ip().icmp_id()), (to("198.18.3.50"), 7));
        t.send(udp(alice(), 4003, web().ip, 53, b"?"));
        assert_eq!(t.count("filter INPUT 0"), 1);
        let out = t.send(udp(alice(), 4004, web().ip, 514, b"!")).passes("UNTRACKED");
        assert_eq!(out.ip().src(), alice().ip);
        assert_eq!(forward(t), [1, 1, 2]);
    });
}
