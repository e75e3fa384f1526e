//! What the engine does to its surroundings, collected for one frame.

use dataplane::effects::{Effects, LogRecord, Outcome, Step};
use dataplane::packet::{Family, PortId};
use dataplane::verdict::DropReason;

use super::{Sent, port_name};
use crate::log::{self, Entry};

#[derive(Debug)]
pub(super) struct Collector<'p> {
    ports: &'p [String],
    pub(super) sent: Vec<Sent>,
    pub(super) delivered: Vec<Vec<u8>>,
    pub(super) log: Vec<String>,
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
            steps: Vec::new(),
            outcome: None,
        }
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
        let line = log::line(&Entry::copy(record), |port| port_name(self.ports, port));
        self.log.push(line);
    }
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
    fn outcome(&mut self, outcome: &Outcome) {
        self.outcome = Some(*outcome);
    }
}
