//! A subject between the generator and the sink: is it right, and what does one run say?

use dataplane::engine::Switches;
use dataplane::port::{AttachMode, Description};
use serde_json::{Value, json};

use crate::lab::{Between, Lab, Outcome, SUBJECT, core_busy, cores, mac};
use crate::peers::{Kind, Policy, Settings, Subject};
use crate::traffic::cli::Shape;
use crate::traffic::{Load, Sent, Station, Traffic};

/// Rules whose packets are tried, spread over the policy.
const PROBES: usize = 32;

/// The generator, and what it sends through every subject.
#[derive(Debug)]
pub(crate) struct Stand {
    // Before the namespaces that its devices are in.
    station: Station,
    pub(crate) lab: Lab,
    traffic: Traffic,
    replies: Traffic,
    shape: Shape,
}

/// One run with what it took.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) sent: Sent,
    /// Seconds of a core for a million packets: the subject's threads, all of its core.
    pub(crate) threads: Option<f64>,
    pub(crate) core: Option<f64>,
}

impl Run {
    pub(crate) fn report(&self) -> Value {
        let mut line = self.sent.report();
        line["cpu_s_per_mpkt"] =
            json!({ "subject_threads": self.threads, "subject_core": self.core });
        line
    }
}

impl Stand {
    /// Makes namespaces and opens the generator.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) fn new(shape: &Shape) -> Outcome<Self> {
        let lab = Lab::new(Between::Subject)?;
        let station = Station::open(&lab, shape.ring_size.max(4096), shape.huge_pages)?;
        Ok(Self {
            station,
            lab,
            traffic: Traffic::new(shape.flows, shape.size, mac(SUBJECT[0])),
            replies: Traffic::replies(shape.flows, mac(SUBJECT[1])),
            shape: shape.clone(),
        })
    }

    /// How AF_XDP subjects run here.
    pub(crate) fn settings(&self, spin: bool, batch: u32) -> Settings {
        let Shape { ring_size, huge_pages, plans, .. } = self.shape;
        let switches = plans.map_or_else(Switches::default, Switches::all);
        Settings { ring_size, huge_pages, batch, spin, switches }
    }

    /// Says how the generator's sockets run.
    pub(crate) fn describe(&self) -> Value {
        json!({
            "cores": cores(), "generator_core": 0, "subject_core": cores() - 1,
            "sockets": self.station.descriptions().iter().map(|it| match it {
                Description::AfXdp { attach, zero_copy, tx_budget, .. } => json!({
                    "native": *attach == AttachMode::Native, "zero_copy": zero_copy,
                    "tx_budget": tx_budget,
                }),
                other => json!(other.to_string()),
            }).collect::<Vec<_>>(),
        })
    }

    /// Lets every flow be answered once, and checks that the subject does what the policy
    /// says: every flow passes, what meets a rule does not.
    ///
    /// # Errors
    /// That it does not.
    pub(crate) fn examine(&mut self, kind: Kind, policy: &Policy) -> Outcome<()> {
        let flows = self.traffic.len() as u64;
        self.settle(kind)?;
        for (traffic, from) in [(&self.traffic, 0), (&self.replies, 1)] {
            // Replies pass where the policy knows of them.
            if from == 1 && kind.filters() && !policy.conntrack {
                continue;
            }
            let passed = self.station.exchange(traffic, from)?;
            if passed != flows {
                return Err(format!("{}: {passed} of {flows} flows pass", kind.name()).into());
            }
        }
        if kind.filters() && policy.rules > 0 {
            let step = policy.rules.div_ceil(PROBES);
            let probes: Vec<_> = policy.dropped().step_by(step).collect();
            let passed = self.station.exchange(&Traffic::single(&probes, mac(SUBJECT[0])), 0)?;
            if passed != 0 {
                let tried = probes.len();
                return Err(format!("{}: {passed} of {tried} pass a rule", kind.name()).into());
            }
        }
        Ok(())
    }

    /// Waits until the subject forwards, a second at most.
    fn settle(&mut self, kind: Kind) -> Outcome<()> {
        for _ in 0..50 {
            if self.station.exchange(&self.traffic, 0)? == self.traffic.len() as u64 {
                return Ok(());
            }
        }
        Err(format!("{} does not forward every flow", kind.name()).into())
    }

    /// One run through a subject that has been examined.
    ///
    /// # Errors
    /// A port that fails.
    pub(crate) fn run(&mut self, subject: &Subject<'_>, load: Load) -> Outcome<Run> {
        let last = cores() - 1;
        let (ran, busy) = (subject.ran_ns(), core_busy(last));
        let sent = self.station.run(&self.traffic, load)?;
        let packets = sent.received().max(1) as f64 / 1e6;
        let threads =
            subject.ran_ns().zip(ran).map(|(now, then)| (now - then) as f64 / 1e9 / packets);
        let core = core_busy(last).zip(busy).map(|(now, then)| (now - then) / packets);
        Ok(Run { sent, threads, core })
    }
}
