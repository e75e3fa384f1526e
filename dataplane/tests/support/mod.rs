//! A Linux router in a namespace with raw sockets around it: the kernel as oracle.
//!
//! ```text
//!   outside namespace            router namespace
//!   p0 (raw socket) ----veth---- eth0  198.18.1.1/24  2001:db8:1::1/64
//!   p1 (raw socket) ----veth---- eth1  198.18.2.1/24  2001:db8:2::1/64
//! ```
//!
//! Both namespaces are the lab's own and vanish when it is dropped. Needs root:
//! without it, everything here panics, because these tests must not be skipped.

#![allow(dead_code, reason = "each privileged test target uses a part of the lab")]

mod raw;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane::packet::Mac;
use dataplane::wire::build;

/// MAC addresses of eth0 and eth1.
pub(crate) const ROUTER: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2])];
/// MAC addresses of the hosts outside, static neighbours of the router.
pub(crate) const HOST: [Mac; 2] = [Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2])];

/// The two namespaces and the sockets.
pub(crate) struct Lab {
    router: String,
    outside: String,
    ports: Vec<raw::Socket>,
}

impl Lab {
    /// Builds the lab.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("pcw{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (router, outside) = (format!("{id}r"), format!("{id}o"));
        // Made before anything can fail, so that what exists is always removed.
        let mut lab = Self { router, outside, ports: Vec::new() };
        run(&format!("ip netns add {}", lab.router));
        run(&format!("ip netns add {}", lab.outside));
        for (port, mac) in ROUTER.iter().enumerate() {
            let (router, outside) = (&lab.router, &lab.outside);
            run(&format!(
                "ip -n {router} link add eth{port} address {} type veth peer name p{port} netns {outside}",
                mac_text(*mac)
            ));
            for knob in ["accept_dad=0", "router_solicitations=0", "dad_transmits=0"] {
                lab.sysctl(&format!("net.ipv6.conf.eth{port}.{knob}"));
            }
            run(&format!(
                "ip netns exec {outside} sysctl -qw net.ipv6.conf.p{port}.disable_ipv6=1"
            ));
            run(&format!("ip -n {outside} link set p{port} up"));
            // Otherwise the kernel leaves checksums of its own segments to the "hardware".
            run(&format!("ip netns exec {router} ethtool -K eth{port} tx off"));
            run(&format!("ip -n {router} link set eth{port} up"));
            run(&format!("ip -n {router} addr add 198.18.{}.1/24 dev eth{port}", port + 1));
            run(&format!(
                "ip -n {router} addr add 2001:db8:{}::1/64 nodad dev eth{port}",
                port + 1
            ));
            for host in ["5", "7", "254"] {
                for prefix in [format!("198.18.{}.", port + 1), format!("2001:db8:{}::", port + 1)]
                {
                    lab.neighbour(port, &format!("{prefix}{host}"));
                }
            }
        }
        // As on every real machine: 127.0.0.1 and ::1 are its own.
        run(&format!("ip -n {} link set lo up", lab.router));
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.eth0.rp_filter=0",
            "net.ipv4.conf.eth1.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.eth0.send_redirects=0",
            "net.ipv4.conf.eth1.send_redirects=0",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv6.auto_flowlabels=0",
            "net.ipv4.icmp_ratelimit=0",
            "net.ipv4.icmp_msgs_per_sec=1000000",
            "net.ipv4.icmp_msgs_burst=1000000",
            "net.ipv6.icmp.ratelimit=0",
        ] {
            lab.sysctl(setting);
        }
        lab.ports = raw::open(&lab.outside, &["p0", "p1"]);
        lab
    }
    /// Makes the host behind `port` the static neighbour for an address.
    pub(crate) fn neighbour(&self, port: usize, address: &str) {
        let mac = mac_text(HOST[port]);
        let router = &self.router;
        run(&format!(
            "ip -n {router} neigh replace {address} lladdr {mac} dev eth{port} nud permanent"
        ));
    }
    /// Sets a sysctl in the router.
    pub(crate) fn sysctl(&self, setting: &str) {
        run(&format!("ip netns exec {} sysctl -qw {setting}", self.router));
    }
    /// Runs a command line in the router and returns what it prints.
    pub(crate) fn router(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.router))
    }
    /// As [`Lab::router`], for commands that may fail: success, and all output.
    pub(crate) fn router_try(&self, command: &str) -> (bool, String) {
        try_run(&format!("ip netns exec {} {command}", self.router), "")
    }
    /// Feeds `input` to a command in the router.
    pub(crate) fn router_input(&self, command: &str, input: &str) -> String {
        let (ok, text) = try_run(&format!("ip netns exec {} {command}", self.router), input);
        assert!(ok, "{command}: {text}");
        text
    }
    /// Sends a frame into the router's port and returns what the router sends
    /// on each port until it has answered a later ARP request there.
    pub(crate) fn exchange(&self, port: usize, frame: &[u8]) -> [Vec<Vec<u8>>; 2] {
        self.ports[port].send(frame);
        [self.drain(0), self.drain(1)]
    }

    fn drain(&self, port: usize) -> Vec<Vec<u8>> {
        let network = 0xc612_0000 | (port as u32 + 1) << 8;
        let question = build::arp(1, (HOST[port], network | 5), (Mac::default(), network | 1));
        self.ports[port].send(&question);
        let mut frames = Vec::new();
        loop {
            let frame = self.ports[port].receive().expect("the router answers ARP");
            match frame[12..14] {
                [0x08, 0x06] if frame[21] == 2 => return frames,
                // The router also talks to groups of its own accord (MLD).
                _ if frame[..6] == HOST[port].0 && frame[12..14] != [0x08, 0x06] => {
                    frames.push(frame);
                }
                _ => {}
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.router, &self.outside] {
            let _ = try_run(&format!("ip netns del {namespace}"), "");
        }
    }
}

fn mac_text(mac: Mac) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}

fn run(command: &str) -> String {
    let (ok, text) = try_run(command, "");
    assert!(ok, "`{command}` failed (these tests need root): {text}");
    text
}

fn try_run(command: &str, input: &str) -> (bool, String) {
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().expect("a command"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the command ends");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
