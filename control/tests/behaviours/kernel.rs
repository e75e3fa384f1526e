//! The kernel's side: netfilter in a namespace of its own.

use super::flow::FILLER;
use super::packet::Packet;
use super::script::Side;
use crate::lab::clock::{Clock, pause_ms};
use crate::lab::{Lab, Sent, frames, port_mac};

/// A router of the kernel's.
pub struct Kernel {
    lab: Lab,
    clock: Clock,
    times: Vec<u64>,
    delivered: u64,
}

impl Kernel {
    /// Builds it, and runs these `ip` commands inside.
    pub fn new(commands: &[&str]) -> Self {
        let lab = Lab::new();
        for command in commands {
            let args: Vec<&str> = command.split(' ').collect();
            lab.router().run("ip", &args, "").expect("an ip command");
        }
        let delivered = lab.delivered();
        Self { lab, clock: Clock::start(), times: Vec::new(), delivered }
    }
    /// When each packet was sent and the table was looked at.
    pub fn times(self) -> Vec<u64> {
        self.times
    }
}

impl Side for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }
    fn load(&mut self, v6: bool, text: &str, written: bool) {
        let tool = if v6 { "ip6tables-legacy-restore" } else { "iptables-legacy-restore" };
        let args: &[&str] = if written { &["-c"] } else { &[] };
        if let Err(complaint) = self.lab.router().run(tool, args, text) {
            panic!("{complaint}\n{text}");
        }
    }
    fn send(&mut self, packet: &Packet) -> Vec<Sent> {
        self.times.push(self.clock.now_ns());
        let mut out = match packet.from.port {
            Some(port) => {
                let frame = frames::ip_frame(port_mac(port), packet.from.mac, &packet.ip);
                self.lab.inject(port, &frame)
            }
            None => self.lab.emit(packet.ip[0] >> 4 == 6, &packet.ip),
        };
        // A loaded machine may leave the rest to a kernel thread.
        pause_ms(1);
        out.extend(self.lab.drain());
        out
    }
    fn wait_ms(&mut self, ms: u64) {
        pause_ms(ms);
    }
    fn saved(&self, v6: bool) -> String {
        self.lab.save(v6)
    }
    fn table(&mut self) -> Vec<String> {
        self.times.push(self.clock.now_ns());
        self.lab.conntrack()
    }
    fn expectations(&self) -> Vec<String> {
        self.lab.router().proc_net("nf_conntrack_expect").lines().map(str::to_owned).collect()
    }
    fn sysctl(&mut self, name: &str, value: u64) {
        self.lab.router().sysctl(&format!("netfilter/nf_conntrack_{name}"), &value.to_string());
    }
    fn delivered(&self) -> u64 {
        self.lab.delivered() - self.delivered
    }
    fn fill_table(&mut self) {
        use std::fmt::Write as _;
        let router = self.lab.router();
        let read = |name: &str| -> usize {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
            let text = router.enter(|| std::fs::read_to_string(path)).expect("a sysctl");
            text.trim().parse().expect("a number")
        };
        let mut batch = String::new();
        for n in 0..read("max") - read("count") {
            let (sport, dport) = (1024 + n % 60_000, 1000 + n / 60_000);
            writeln!(
                batch,
                "-I -p tcp -s 198.18.1.254 -d 198.18.3.254 --sport {sport} --dport {dport} \
                 --state ESTABLISHED --timeout 1000 -u ASSURED,SEEN_REPLY --{FILLER}"
            )
            .expect("writing to a string");
        }
        let loaded = router.run("conntrack", &["--load-file", "-"], &batch);
        loaded.expect("loading connections");
        assert_eq!(read("count"), read("max"));
    }
    fn table_drops(&self) -> u64 {
        let stat = self.lab.router().proc_net("stat/nf_conntrack");
        let mut lines = stat.lines();
        let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        let column = names.iter().position(|name| *name == "drop").expect("a column `drop`");
        let of_line = |line: &str| {
            let word = line.split_whitespace().nth(column).expect("as many columns as names");
            u64::from_str_radix(word, 16).expect("a hexadecimal number")
        };
        lines.map(of_line).sum()
    }
}
