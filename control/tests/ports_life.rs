//! What becomes of the ports of a running daemon when their devices go down, up,
//! away and back, change, and when the disk is full. Needs root.

#[path = "ports_life/lab.rs"]
mod lab;
mod netns;
#[path = "ports_life/paths.rs"]
mod paths;

use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use lab::{Lab, OPEN, Stream, alone, millis, spread};

#[test]
fn a_deleted_device_comes_back_by_itself_fifty_times() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    lab.start(OPEN, &[]);
    assert!(lab.pings());
    let frames = lab.frames();
    let (descriptors, resident) = (lab.descriptors(), lab.resident());
    let stream = lab.stream(&lab.server, "198.18.2.2");
    let mut back = Vec::new();
    for cycle in 0..50 {
        lab.gateway.run("ip link del g1");
        if cycle % 25 == 0 {
            lab.until_in_service(1, false);
            assert_eq!(lab.out(1).as_deref(), Some("there is no device g1"));
            assert_eq!(lab.port(1)["xdp"], "none");
            let text = String::from_utf8(lab.cli(&["show", "ports"]).stdout).unwrap();
            let note = "note: port g1 is out of service: there is no device g1";
            assert!(text.contains(note), "{text}");
            assert!(lab.out(0).is_none(), "the other one is there");
            let (free, lent, held) = lab.frames();
            assert_eq!(held, frames.2, "{free} free, {lent} lent");
            assert!(lent < frames.1, "what g1 had is free: {lent} of {}", frames.1);
        }
        lab.wire(1);
        let made = monotonic();
        let arrived = stream.next(made, None);
        let arrived = arrived.unwrap_or_else(|| panic!("cycle {cycle}: {}", lab.errors()));
        back.push(arrived - made);
    }
    drop(stream);
    let (middle, longest) = spread(&mut back);
    println!("device made to first datagram: median {middle:.1} ms, longest {longest:.1} ms");
    assert!(longest < 3000.0);
    lab.until("the frames come to rest", || lab.frames() == frames);
    lab.until("descriptors are closed", || lab.descriptors() <= descriptors);
    let grown = lab.resident().saturating_sub(resident);
    println!("resident memory: {resident} KiB and {grown} more");
    assert!(grown < 2048, "{grown} KiB more");
    let lines = lab.errors().lines().count();
    assert!(lines < 40, "{lines} lines for 100 changes:\n{}", lab.errors());
    assert!(lab.pings());
}

#[test]
fn the_host_road_is_rejoined() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    let rules = OPEN.replace(":OUTPUT ACCEPT", ":OUTPUT DROP").replace(
        "COMMIT",
        "-A INPUT -p icmp -m icmp --icmp-type 8\n-A OUTPUT -p icmp -m icmp --icmp-type 0 -j ACCEPT\nCOMMIT",
    );
    lab.start(&rules, &[]);
    let asked = || lab.server.attempt("ping -c 1 -W 1 198.18.2.1").status.success();
    assert!(asked(), "{}", lab.errors());
    for _ in 0..3 {
        lab.gateway.run("ip link del g1");
        lab.until_in_service(1, false);
        lab.wire(1);
        lab.until_in_service(1, true);
        lab.until("the gateway answers", asked);
    }
    let rules = lab.json(&["show", "rules", "--chain", "INPUT"]);
    let met = rules["chains"][0]["rules"][0]["packets"].as_u64().unwrap();
    assert!(met >= 4, "INPUT saw them: {met}");
    // What OUTPUT does not allow does not leave either.
    let refused = lab.gateway.attempt("ping -c 1 -W 1 198.18.2.2");
    assert!(!refused.status.success(), "OUTPUT is enforced on the new device");
}

/// The reason that `show ports` gives once a port is out.
fn reason(lab: &Lab) -> String {
    lab.until_in_service(1, false);
    lab.out(1).unwrap_or_default()
}

fn comes_back(lab: &Lab, what: &str) {
    let took = lab.until_in_service(1, true);
    lab.until(&format!("pings after {what}"), || lab.pings());
    println!("{what}: in service {:.1} ms after the command", millis(took));
}

#[test]
fn a_device_that_is_changed_is_followed_or_put_out_of_service() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    lab.start(OPEN, &[]);
    assert!(lab.pings());
    let attached = |name: &str| lab.gateway.run(&format!("ip link show {name}")).contains("xdp");
    assert!(attached("g1"));

    lab.gateway.run("ip link set g1 name gx");
    assert_eq!(reason(&lab), "there is no device g1");
    lab.until("the program is taken off", || !attached("gx"));
    assert!(!lab.pings(), "what comes by g0 does not leave by a device that is no port");
    lab.gateway.run("ip link set gx name g1");
    comes_back(&lab, "renamed and renamed back");

    let server = lab.server.name().to_owned();
    lab.gateway.run(&format!("ip link set g1 netns {server}"));
    assert_eq!(reason(&lab), "there is no device g1");
    lab.until("the program is taken off", || !lab.server.run("ip link show g1").contains("xdp"));
    lab.server.run(&format!("ip link set g1 netns {}", lab.gateway.name()));
    lab.gateway.run("ip link set g1 up; ip addr add 198.18.2.1/24 dev g1");
    comes_back(&lab, "moved away and back");

    lab.gateway.run("ip link add br0 type bridge; ip link set g1 master br0");
    let why = reason(&lab);
    assert!(why.contains("belongs to br0") && why.contains("nomaster"), "{why}");
    lab.gateway.run("ip link set g1 nomaster");
    comes_back(&lab, "enslaved and released");

    lab.gateway.run("ip link set g1 mtu 1400");
    lab.until("the MTU is followed", || lab.port(1)["mtu"] == 1400);
    assert!(lab.out(1).is_none());
    let long = lab.client.attempt("ping -c 1 -W 1 -M do -s 1400 198.18.2.2");
    let said = String::from_utf8_lossy(&long.stdout).into_owned();
    assert!(said.contains("Frag needed and DF set (mtu = 1400)"), "{said}");
    lab.gateway.run("ip link set g1 mtu 3900");
    let why = reason(&lab);
    assert!(why.contains("ip link set g1 mtu 3818"), "{why}");
    lab.gateway.run("ip link set g1 mtu 1500");
    comes_back(&lab, "MTU too large and back");

    lab.gateway.run("ip link set g1 address 02:00:00:00:00:99");
    lab.until("the MAC is followed", || lab.port(1)["mac"] == "02:00:00:00:00:99");
    let stream = lab.stream(&lab.server, "198.18.2.2");
    let seen = lab.server.run("timeout 5 tcpdump -e -n -c 1 -i b0 udp port 9 2>/dev/null");
    drop(stream);
    assert!(seen.contains("02:00:00:00:00:99 >"), "frames leave with the new address: {seen}");
    lab.until("pings with the new address", || lab.pings());
}

#[test]
fn a_queue_count_that_does_not_fit_is_reported_with_its_remedy() {
    let _alone = alone();
    let mut lab = Lab::new(3);
    lab.gateway.run("ethtool -L g0 rx 2 tx 2; ethtool -L g1 rx 2 tx 2");
    lab.start(OPEN, &[]);
    assert!(lab.pings());
    // The kernel itself refuses to take away a queue that a socket is bound to.
    assert!(!lab.gateway.attempt("ethtool -L g1 rx 1 tx 1").status.success());
    lab.gateway.run("ethtool -L g1 rx 3 tx 3");
    let why = reason(&lab);
    assert!(why.contains("3 queue") && why.contains("ethtool -L g1 combined 2"), "{why}");
    lab.gateway.run("ethtool -L g1 rx 2 tx 2");
    comes_back(&lab, "a queue added and taken away");
    // Deleted and made with too few: reported, and another one with enough is taken.
    lab.gateway.run("ip link del g1");
    lab.wire(1);
    lab.until("it is looked at", || lab.out(1).is_some_and(|why| why.contains("1 queue")));
    lab.gateway.run("ip link del g1");
    lab.wire(2);
    comes_back(&lab, "made anew with enough queues");
    let workers = lab.port(1)["queues"].as_array().unwrap().len();
    assert_eq!(workers, 2, "each worker has a socket");
}

/// Takes either end of the second link down and up in turn: the median and the longest
/// time in milliseconds until the next datagram arrives.
fn flap(lab: &Lab, stream: &Stream, times: u32) -> (f64, f64) {
    let mut back = Vec::new();
    for flap in 0..times {
        let (namespace, device) =
            if flap % 2 == 0 { (&lab.gateway, "g1") } else { (&lab.server, "b0") };
        namespace.run(&format!("ip link set {device} down; sleep 0.01; ip link set {device} up"));
        let up = monotonic();
        let arrived = stream.next(up, None);
        let arrived = arrived.unwrap_or_else(|| panic!("flap {flap}: {}", lab.errors()));
        back.push(arrived - up);
    }
    lab.server.run("ip route replace default via 198.18.2.1");
    spread(&mut back)
}

#[test]
fn a_thousand_flaps_leak_nothing() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    let (middle, kernels) = {
        let stream = lab.stream(&lab.server, "198.18.2.2");
        flap(&lab, &stream, 8)
    };
    println!("kernel: link up to next datagram: median {middle:.1} ms, longest {kernels:.1} ms");
    lab.start(OPEN, &[]);
    assert!(lab.pings());
    let frames = lab.frames();
    let (descriptors, resident) = (lab.descriptors(), lab.resident());
    let stream = lab.stream(&lab.server, "198.18.2.2");
    let (middle, longest) = flap(&lab, &stream, 50);
    println!("link up to next datagram: median {middle:.1} ms, longest {longest:.1} ms");
    let batch = lab.file("flaps", &"link set g1 down\nlink set g1 up\n".repeat(950));
    let begun = monotonic();
    lab.gateway.run(&format!("ip -batch {}", batch.display()));
    let took = monotonic() - begun;
    let last = monotonic();
    let after = stream.next(last, None).expect("traffic flows again") - last;
    println!(
        "950 flaps in {:.0} ms; the next datagram {:.1} ms after the last; {} of {} arrived in all",
        millis(took),
        millis(after),
        stream.arrived(),
        stream.sent()
    );
    drop(stream);
    lab.until("the frames come to rest", || lab.frames() == frames);
    lab.until("descriptors are closed", || lab.descriptors() <= descriptors);
    let grown = lab.resident().saturating_sub(resident);
    println!("resident memory: {resident} KiB and {grown} more");
    assert!(grown < 2048, "{grown} KiB more");
    let lines = lab.errors().lines().count();
    println!("{lines} lines in the log");
    assert!(lines < 60, "{lines} lines for 2,000 changes:\n{}", lab.errors());
    // The kernel resolves the neighbour, and may ask again after a second only.
    assert!(middle < 100.0, "{middle} ms");
    assert!(longest < kernels.max(1000.0) + 300.0, "{longest} ms, the kernel's {kernels} ms");
    assert!(millis(after) < 1500.0);
    assert!(lab.pings());
}

/// Connections that the daemon or the kernel has from the client.
fn connections(lab: &Lab, ours: bool) -> usize {
    let shown = if ours {
        String::from_utf8(lab.cli(&["show", "conntrack", "--proto", "udp"]).stdout).unwrap()
    } else {
        lab.gateway.run("conntrack -L -p udp 2>/dev/null")
    };
    shown.lines().filter(|line| line.contains("dport=9 ")).count()
}

/// What masquerading forgets when its port loses something: connections left.
fn left_after(command: &str, ours: bool) -> usize {
    const NAT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
        -A POSTROUTING -o g1 -p udp -m udp --dport 9 -j MASQUERADE\nCOMMIT\n";
    let mut lab = Lab::new(1);
    let rules = format!("{NAT}{OPEN}");
    if ours {
        lab.start(&rules, &[]);
    } else {
        let file = lab.file("kernel.v4", &rules);
        lab.gateway.run(&format!("iptables-restore {}", file.display()));
    }
    assert!(lab.pings());
    // One that is masqueraded, and one the other way that is not.
    lab.client.run("echo hello | timeout 1 nc -u -w 0 -p 5000 198.18.2.2 9");
    lab.server.run("echo hello | timeout 1 nc -u -w 0 -p 5001 198.18.1.2 9");
    for _ in 0..200 {
        if connections(&lab, ours) == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(connections(&lab, ours), 2, "{}", lab.errors());
    lab.gateway.run(command);
    std::thread::sleep(Duration::from_millis(400));
    connections(&lab, ours)
}

#[test]
fn masquerading_forgets_what_the_kernels_forgets() {
    let _alone = alone();
    for command in [
        "ip link set g1 down",
        "ip addr del 198.18.2.1/24 dev g1",
        "ip addr del 198.18.1.1/24 dev g0",
        "ip link set g0 down",
        "ip link del g1",
        "ip link set g1 mtu 1400",
    ] {
        let (kernel, ours) = (left_after(command, false), left_after(command, true));
        println!("{command}: {ours} of 2 connections left");
        assert_eq!(ours, kernel, "after `{command}` the kernel has {kernel} connections left");
    }
}

#[test]
fn a_full_disk_stops_nothing() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    let full = lab.directory.join("full");
    std::fs::create_dir(&full).unwrap();
    let mount = format!("mount -t tmpfs -o size=8m none {0}", full.display());
    netns::shell(&mount);
    let _mounted = Mounted(full.clone());
    let state = full.join("state");
    let (log, socket) = (full.join("log"), full.join("control.sock"));
    let rules =
        OPEN.replace("-A FORWARD -j", "-A FORWARD -j LOG --log-prefix \"x \"\n-A FORWARD -j");
    let arguments = ["--state", state.to_str().unwrap(), "--state-interval", "1"];
    lab.places(&log, &socket);
    lab.start(&rules, &arguments);
    let stream = lab.stream(&lab.server, "198.18.2.2");
    let begun = monotonic();
    stream.next(begun, None).expect("it flows");
    std::fs::write(full.join("filler"), vec![7; 16 << 20]).expect_err("the disk is full now");
    let filled = monotonic();
    let failures = || lab.json(&["show", "status"])["state"]["failures"].as_u64().unwrap();
    lab.until("a save fails", || failures() > 0);
    std::thread::sleep(Duration::from_secs(1));
    let (sent, arrived) = (stream.sent(), stream.arrived() as u64);
    let pause = stream.longest_pause(filled);
    let stats = lab.json(&["show", "stats"]);
    println!(
        "disk full for {:.1} s: longest pause of the stream {:.1} ms, {arrived} of {sent} arrived, \
         {} log lines lost",
        millis(monotonic() - filled) / 1000.0,
        millis(pause),
        stats["log_lost"]
    );
    assert!(stats["log_lost"].as_u64().unwrap() > 0, "{stats}");
    assert!(pause < Nanos::from_millis(300), "nothing waited for the disk");
    assert!(arrived + 100 > sent, "all of it was forwarded: {arrived} of {sent}");
    // With room again it goes on by itself.
    drop(stream);
    std::fs::remove_file(full.join("filler")).unwrap();
    let saves = || lab.json(&["show", "status"])["state"]["saves"].as_u64().unwrap();
    let before = saves();
    std::fs::File::create(&log).unwrap();
    lab.until("saves succeed again", || saves() > before);
}

/// A file system, as long as this lives.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        netns::shell(&format!("umount -l {}", self.0.display()));
    }
}

#[test]
fn a_daemon_starts_on_a_full_disk() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    let full = lab.directory.join("full");
    std::fs::create_dir(&full).unwrap();
    netns::shell(&format!("mount -t tmpfs -o size=64k none {}", full.display()));
    let _mounted = Mounted(full.clone());
    std::fs::write(full.join("filler"), vec![7; 1 << 20]).expect_err("the disk is full");
    let state = full.join("state");
    lab.places(&full.join("log"), &full.join("control.sock"));
    lab.start(OPEN, &["--state", state.to_str().unwrap(), "--state-interval", "1"]);
    assert!(lab.pings());
    let stream = Stream::begin(&lab.client, &[&lab.server], "198.18.2.2:9");
    assert!(stream.next(monotonic(), None).is_some());
    assert!(lab.out(0).is_none(), "and the control socket answers");
}
