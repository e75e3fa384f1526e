//! Real programs through the daemon on AF_XDP, behind MASQUERADE. Needs root.

mod netns;
#[path = "clients/stage.rs"]
mod stage;

use std::time::Duration;

use stage::{GATEWAY, NARROW, SERVER, SERVER6, Stage, said, same};

/// The policy of a small office: new connections only to a few services, so that
/// data connections get through as RELATED or not at all; one service inside.
const OFFICE: &str = "*raw
-A PREROUTING -i g0 -p tcp -m tcp --dport 21 -j CT --helper ftp
-A PREROUTING -i g0 -p udp -m udp --dport 69 -j CT --helper tftp
-A PREROUTING -i g0 -p udp -m udp --dport 5060 -j CT --helper sip
COMMIT
*nat
-A PREROUTING -d 198.18.2.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.7.0.2:80
-A POSTROUTING -s 10.7.0.0/24 -d 10.7.0.2/32 -o g0 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.7.0.0/24 -o g1 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -i g0 -o g1 -p tcp -m multiport --dports 21,5201 -j ACCEPT
-A FORWARD -i g0 -o g1 -p udp -m multiport --dports 69,5060,33434:33534 -j ACCEPT
-A FORWARD -i g0 -o g1 -p icmp -m icmp --icmp-type 8 -j ACCEPT
COMMIT
";

const OFFICE6: &str = "*raw
-A PREROUTING -i g0 -p tcp -m tcp --dport 21 -j CT --helper ftp
COMMIT
*nat
-A POSTROUTING -s fd00:7::/64 -o g1 -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i g0 -o g1 -p tcp -m multiport --dports 21,5201 -j ACCEPT
-A FORWARD -i g0 -o g1 -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
COMMIT
";

const FTP_SERVER: &str = "
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
import socket, sys
users = DummyAuthorizer()
users.add_anonymous(sys.argv[1], perm='elradfmw')
FTPHandler.authorizer = users
# It compares addresses as texts, and the kernel writes IPv6 ones in full, as we do.
FTPHandler.permit_foreign_addresses = True
listener = socket.create_server(('::', 21), family=socket.AF_INET6, dualstack_ipv6=True)
FTPServer(listener, FTPHandler).serve_forever()
";

#[test]
fn ftp_active_and_passive_behind_masquerade() {
    let mut stage = Stage::new();
    stage.start(OFFICE, OFFICE6, &[]);
    let original = stage.payload("original", 300_000);
    let script = stage.file("ftp.py", FTP_SERVER);
    let line = format!("/usr/bin/python3 {} {}", script.display(), stage.directory.display());
    let _server = stage.spawn(&stage.server, &line);
    stage.until_open(&stage.server, "21");
    // curl's words for EPSV, PASV, EPRT and PORT.
    let modes = [
        ("EPSV", SERVER, ""),
        ("PASV", SERVER, "--disable-epsv"),
        ("EPRT", SERVER, "--ftp-port -"),
        ("PORT", SERVER, "--ftp-port - --disable-eprt"),
        ("EPSV in IPv6", SERVER6, ""),
        ("EPRT in IPv6", SERVER6, "--ftp-port -"),
    ];
    for (mode, server, options) in modes {
        let copy = stage.directory.join("copy");
        let _ = std::fs::remove_file(&copy);
        let host = if server.contains(':') { format!("[{server}]") } else { server.to_owned() };
        let (path, max) = (copy.display(), "--max-time 20 --silent --show-error");
        let line = format!("curl {max} {options} -o {path} 'ftp://{host}/original'");
        let output = stage.client.attempt(&line);
        assert!(output.status.success(), "{mode}: {}\n{}", said(&output), stage.errors());
        assert!(same(&original, &copy), "{mode}: the copy differs");
    }
    // And up, which is data the other way.
    let line = format!(
        "curl --max-time 20 -sS --ftp-port - -T {} ftp://{SERVER}/sent",
        original.display()
    );
    let output = stage.client.attempt(&line);
    assert!(output.status.success(), "{}", said(&output));
    assert!(same(&original, &stage.directory.join("sent")));
    // Without the helper the data connection is nobody's.
    let mute = OFFICE.replace("-j CT --helper ftp", "");
    let path = stage.file("mute.v4", &mute);
    stage.cli(&["apply", "--rules", path.to_str().unwrap()]);
    let line = format!("curl --max-time 3 -sS -o /dev/null ftp://{SERVER}/original");
    assert!(!stage.client.attempt(&line).status.success(), "no helper, no data");
}

#[test]
fn tftp_behind_masquerade() {
    let mut stage = Stage::new();
    stage.start(OFFICE, OFFICE6, &[]);
    let original = stage.payload("original", 40_000);
    let root = stage.directory.display().to_string();
    let line = format!(
        "dnsmasq --no-daemon --conf-file=/dev/null --port=0 --enable-tftp --tftp-root={root} --user=root"
    );
    let _server = stage.spawn(&stage.server, &line);
    stage.until_open(&stage.server, "69");
    let copy = stage.directory.join("copy");
    let get = |copy: &std::path::Path| {
        let path = copy.display();
        stage.client.attempt(&format!("curl --max-time 10 -sS -o {path} tftp://{SERVER}/original"))
    };
    let output = get(&copy);
    assert!(output.status.success(), "{}\n{}", said(&output), stage.errors());
    assert!(same(&original, &copy));
    // Without the helper nothing comes back.
    let path = stage.file("mute.v4", &OFFICE.replace("-j CT --helper tftp", ""));
    stage.cli(&["apply", "--rules", path.to_str().unwrap()]);
    stage.client.run("sleep 0.1");
    assert!(!get(&stage.directory.join("none")).status.success(), "no helper, no data");
}

/// `traceroute` and path MTU discovery: errors from routers beyond the translation.
#[test]
fn icmp_errors_find_their_way_through_nat() {
    let mut stage = Stage::new();
    stage.start(OFFICE, OFFICE6, &[]);
    let hops = stage.client.run(&format!("traceroute -n -q 1 -w 2 {SERVER}"));
    let hops: Vec<&str> =
        hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["10.7.0.1", "198.18.2.254", SERVER]);
    // The link behind the provider is narrow: the sender is told, through NAT.
    let output = stage.client.attempt(&format!("ping -c 2 -W 1 -M do -s 1400 {SERVER}"));
    assert!(said(&output).contains(&format!("mtu = {NARROW}")), "{}", said(&output));
    let learnt = stage.client.run(&format!("ip route get {SERVER}"));
    assert!(learnt.contains(&format!("mtu {NARROW}")), "{learnt}");
    let output = stage.client.attempt(&format!("ping -6 -c 2 -W 1 -M do -s 1400 {SERVER6}"));
    assert!(said(&output).contains(&format!("{NARROW}")), "{}", said(&output));
    // Large pings: fragments out, fragments back.
    for (server, options) in [(SERVER, "-4"), (SERVER6, "-6")] {
        let output =
            stage.client.attempt(&format!("ping {options} -c 3 -i 0.2 -W 1 -s 4000 {server}"));
        assert!(said(&output).contains(" 3 received"), "{}", said(&output));
    }
    // A large TCP transfer discovers the MTU by itself.
    let _server = stage.spawn(&stage.server, "iperf3 -s");
    stage.until_open(&stage.server, "5201");
    stage.client.run(&format!("iperf3 -c {SERVER} -n 5M"));
}

#[test]
fn a_service_inside_is_reached_from_outside_and_from_the_same_lan() {
    let mut stage = Stage::new();
    stage.start(OFFICE, OFFICE6, &[]);
    let root = stage.directory.join("www");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("page"), "inside\n").unwrap();
    let line = format!("/usr/bin/python3 -m http.server --directory {} 80", root.display());
    let _service = stage.spawn(&stage.client, &line);
    stage.until_open(&stage.client, "80");
    let get = format!("curl --max-time 5 -sS http://{GATEWAY}:8080/page");
    for host in [&stage.server, &stage.neighbour, &stage.client] {
        let output = host.attempt(&get);
        assert_eq!(said(&output), "inside\n", "{}", host.name());
    }
}

#[test]
fn sip_calls_behind_masquerade() {
    let mut stage = Stage::new();
    stage.start(OFFICE, OFFICE6, &[]);
    let trace = stage.directory.join("uas.log");
    let line = format!(
        "sipp -sn uas -i {SERVER} -p 5060 -nostdin -trace_msg -message_file {} -m 3",
        trace.display()
    );
    let _server = stage.spawn(&stage.server, &line);
    stage.until_open(&stage.server, "5060");
    let line = format!(
        "cd {} && TERM=dumb timeout 30 sipp -sn uac -i 10.7.0.2 -p 5060 -m 3 -r 3 -d 200 -nostdin {SERVER}:5060 >uac.out 2>&1",
        stage.directory.display()
    );
    let output = stage.client.attempt(&line);
    let out = std::fs::read_to_string(stage.directory.join("uac.out")).unwrap_or_default();
    assert!(output.status.success(), "{}\n{out}", said(&output));
    let seen = std::fs::read_to_string(&trace).unwrap();
    assert!(seen.contains(&format!("Via: SIP/2.0/UDP {GATEWAY}:")), "{seen}");
    assert!(seen.contains(&format!("c=IN IP4 {GATEWAY}")), "media goes to the gateway: {seen}");
    assert!(!seen.contains("10.7.0.2:5060>"), "an inside address got out: {seen}");
}

/// The translations, counters of connections and windows last over a restart.
#[test]
fn a_restart_in_the_middle_of_a_transfer_through_snat() {
    let mut stage = Stage::new();
    let state = stage.directory.join("state");
    // Closed, as gateways are by default: a kernel that carries on would answer for the
    // gateway's own address with resets.
    let pins = stage.pins();
    let (state, pins) = (state.to_str().unwrap(), pins.to_str().unwrap());
    let arguments = ["--state", state, "--on-failure", "closed", "--pin-dir", pins];
    // Mid-stream packets open nothing: only the saved connection carries the transfer.
    let rules = OFFICE.to_owned();
    let more = [&arguments[..], &["--sysctl", "tcp_loose=0"]].concat();
    stage.start(&rules, OFFICE6, &more);
    let _server = stage.spawn(&stage.server, "iperf3 -s");
    stage.until_open(&stage.server, "5201");
    let line = format!("timeout 60 iperf3 -c {SERVER} -t 6 -i 0.5 -J");
    let report = std::thread::scope(|scope| {
        let client = stage.client.name().to_owned();
        let transfer = scope.spawn(move || {
            std::process::Command::new("ip")
                .args(["netns", "exec", &client, "sh", "-c", &line])
                .output()
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(2500));
        stage.end("TERM");
        stage.start(&rules, OFFICE6, &more);
        transfer.join().unwrap()
    });
    assert!(report.status.success(), "{}\n{}", said(&report), stage.errors());
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let rates: Vec<u64> = report["intervals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interval| interval["sum"]["bits_per_second"].as_f64().unwrap() as u64 / 1_000_000)
        .collect();
    println!("Mbit/s by half-second, restarted after 2.5 s: {rates:?}");
    assert!(rates[rates.len() - 3..].iter().all(|&rate| rate > 0), "{rates:?}");
}

/// Loss and reordering are the network's; the translation must not add to them.
#[test]
fn a_lossy_reordering_path_through_snat() {
    let mut stage = Stage::new();
    // A frame crosses two wires.
    stage.start(OFFICE, OFFICE6, &["--inject-faults", "loss=0.5,reordering=0.5"]);
    let _server = stage.spawn(&stage.server, "iperf3 -s");
    stage.until_open(&stage.server, "5201");
    let mib = std::env::var("PORTCULLIS_LOSSY_MIB").unwrap_or_else(|_| "50".to_owned());
    let report = stage.client.run(&format!("timeout 120 iperf3 -c {SERVER} -n {mib}M -J"));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let sent = &report["end"]["sum_sent"];
    println!(
        "{mib} MiB through SNAT with loss and reordering: {:.0} Mbit/s, {} retransmissions",
        sent["bits_per_second"].as_f64().unwrap() / 1e6,
        sent["retransmits"]
    );
}
