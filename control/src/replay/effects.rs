//! What the engine does to its surroundings, collected for one frame.

use dataplane::effects::{Effects, LogRecord, Outcome, Report, Step};
use dataplane::packet::{Family, PortId};
use dataplane::verdict::DropReason;

use super::{Captured, Sent, port_name};
use crate::log::nflog::{self, Link};
use crate::log::{self, Entry};

#[derive(Debug)]
pub(super) struct Collector<'p> {
    ports: &'p [String],
    pub(super) sent: Vec<Sent>,
    pub(super) delivered: Vec<Vec<u8>>,
    pub(super) log: Vec<String>,
    pub(super) traces: Vec<String>,
    pub(super) audit: Vec<String>,
    pub(super) captured: Vec<Captured>,
    pub(super) steps: Vec<Step>,
    pub(super) outcome: Option<Outcome>,
}

impl<'p> Collector<'p> {
    pub(super) fn new(ports: &'p [String]) -> Self {
        Self {
            ports,
            sent: Vec::new(),
            delivered: Vec::new(),
            log: Vec::new(),
            traces: Vec::new(),
            audit: Vec::new(),
            captured: Vec::new(),
            steps: Vec::new(),
            outcome: None,
        }
    }
}

impl Collector<'_> {
    fn line(&self, record: &LogRecord<'_>) -> String {
        log::line(&Entry::copy(record), |port| port_name(self.ports, port))
    }
}

impl Effects for Collector<'_> {
    const TRACE: bool = true;

    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.sent.push(Sent { port, frame: frame.to_vec() });
        true
    }
    /// Nobody will ever answer.
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _port: Option<PortId>, frame: &[u8]) {
        self.delivered.push(frame.to_vec());
    }
    fn log(&mut self, record: &LogRecord<'_>) {
        match record.report {
            Report::Log(_) => self.log.push(self.line(record)),
            Report::Trace(_) => {
                let line = self.line(record);
                let place = record.prefix().to_string();
                self.traces.push(place["TRACE: ".len()..].trim_end().to_owned());
                self.log.push(line);
            }
            Report::Audit(_) => self.audit.push(log::audit_facts(record)),
            Report::Nflog(nflog) => {
                let mut bytes = Vec::new();
                let index = |port: PortId| match port {
                    PortId::LOOPBACK => 1,
                    port => port.index() as u32 + 2,
                };
                nflog::write(&mut bytes, record, Link::Nflog, record.now, index);
                self.captured.push(Captured { group: nflog.group, record: bytes });
            }
        }
    }
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
    fn outcome(&mut self, outcome: &Outcome) {
        self.outcome = Some(*outcome);
    }
}
