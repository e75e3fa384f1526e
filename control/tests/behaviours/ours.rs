//! Portcullis's side: the replay engine, in process.

use std::path::Path;

use dataplane::clock::Nanos;
use dataplane::packet::{Family, PortId};
use portcullis::iptables::{self, TableNames};
use portcullis::model::Ruleset;
use portcullis::replay::topology::TopologyFile;
use portcullis::replay::{Replay, Setup, Source, files};

use super::packet::Packet;
use super::script::Side;
use super::topology;
use crate::lab::{Sent, frames, port_mac};

/// The same router, with the kernel's moments as its clock.
pub struct Ours {
    replay: Replay,
    names: TableNames,
    times: std::vec::IntoIter<u64>,
    delivered: u64,
}

impl Ours {
    /// Without rules; what it does happens at these times (nanoseconds).
    pub fn new(times: Vec<u64>, extra: &str) -> Self {
        let text = topology::text() + extra;
        let file = TopologyFile::parse(Path::new("topo.toml"), &text);
        let file = file.unwrap_or_else(|error| panic!("{error}"));
        let mut setup = Setup::new(file.topology, 1);
        setup.icmp = file.icmp;
        let replay = Replay::new(setup).expect("a router without rules");
        Self { replay, names: TableNames::of_host(), times: times.into_iter(), delivered: 0 }
    }
    fn next_moment(&mut self) -> Nanos {
        let at = self.times.next().expect("both sides do the same");
        Nanos::from_secs(1_000) + Nanos(at)
    }
    fn parse(&self, family: Family, text: &str) -> Ruleset {
        match iptables::parse_bytes(text.as_bytes(), "rules", family, &self.names) {
            Ok(parsed) => parsed.ruleset,
            Err(findings) => panic!("refused: {findings:#?}\n{text}"),
        }
    }
}

/// An expectation as `/proc/net/nf_conntrack_expect` writes it.
fn proc_form(listed: &str) -> String {
    let words: Vec<&str> = listed.split(' ').collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let (helper, class) =
        (value("helper=").unwrap_or_default(), value("class=").unwrap_or_default());
    let kind = match (helper, class) {
        ("sip", "0") => "/signalling",
        ("sip", "1") => "/audio",
        ("sip", "2") => "/video",
        ("sip", "3") => "/image",
        _ => "",
    };
    let mut flags = ["PERMANENT", "INACTIVE"].to_vec();
    flags.retain(|flag| words.contains(flag));
    let flags = flags.join(",");
    format!("{} l3proto = 2 {} {flags} {helper}{kind}", words[0], words[1..6].join(" "))
}

fn family(v6: bool) -> Family {
    if v6 { Family::V6 } else { Family::V4 }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        "Portcullis"
    }
    fn load(&mut self, v6: bool, text: &str, _written: bool) {
        let family = family(v6);
        let rules = self.parse(family, text);
        self.replay.install(rules).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    fn send(&mut self, packet: &Packet) -> Vec<Sent> {
        let at = self.next_moment();
        let (source, mac) = match packet.from.port {
            Some(port) => (Source::Port(PortId(port as u8)), port_mac(port)),
            None => (Source::Host, [0; 6]),
        };
        let frame = frames::ip_frame(mac, packet.from.mac, &packet.ip);
        let fed = self.replay.feed(source, at, &frame);
        self.delivered += fed.delivered.len() as u64;
        fed.sent
            .into_iter()
            .map(|sent| Sent { port: sent.port.index(), frame: sent.frame })
            .collect()
    }
    fn wait_ms(&mut self, _ms: u64) {
        // The next packet's time knows.
    }
    fn saved(&self, v6: bool) -> String {
        files::print_rules(&self.replay, family(v6), &self.names)
    }
    fn table(&mut self) -> Vec<String> {
        let now = self.next_moment();
        self.replay.advance(now);
        files::print_connections(&self.replay).lines().map(str::to_owned).collect()
    }
    fn expectations(&self) -> Vec<String> {
        let rows = [Family::V4, Family::V6].map(|family| self.replay.expectations(family));
        rows.iter().flatten().map(|row| proc_form(&row.to_string())).collect()
    }
    fn sysctl(&mut self, name: &str, value: u64) {
        let set = self.replay.conntrack().set(name, value);
        set.unwrap_or_else(|error| panic!("{name} = {value}: {error}"));
    }
    fn delivered(&self) -> u64 {
        self.delivered
    }
    fn fill_table(&mut self) {
        // There is as much room as there are connections.
        let live = self.replay.conntrack().len() as u64;
        self.sysctl("max", live);
    }
    fn table_drops(&self) -> u64 {
        self.replay.conntrack().counters().drop
    }
}
