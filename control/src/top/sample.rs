//! What the daemon counts, at one moment.

use dataplane::clock::{Nanos, monotonic};

use crate::api::protocol::{LogReport, Ports, Rules, Stats, TalkerInfo, TalkersAsked};
use crate::api::{Client, ClientError, Request, Response};

/// Sources that are asked for.
const TALKERS: u32 = 32;

/// When answers came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    /// The statistics.
    pub stats: Nanos,
    /// The ports.
    pub ports: Nanos,
    /// The rules.
    pub rules: Nanos,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When each of the three below was answered, by our clock: a busy daemon takes its time
    /// between answers.
    pub at: Moments,
    /// Workers, drops, connection tracking.
    pub stats: Stats,
    /// Ports.
    pub ports: Ports,
    /// The policy with its counters.
    pub rules: Rules,
    /// Sources with the most connections.
    pub talkers: Vec<TalkerInfo>,
    /// What became of records, and who causes the most.
    pub log: LogReport,
}

impl Sample {
    /// Asks the daemon.
    ///
    /// # Errors
    /// It does not answer; `None`: its answer belongs to no such question.
    pub fn take(client: &mut Client) -> Result<Option<Self>, ClientError> {
        let rules = Request::ShowRules { family: None, table: None, chain: None };
        let questions = [
            Request::ShowStats {},
            Request::ShowPorts {},
            rules,
            Request::ShowTalkers(TalkersAsked { limit: TALKERS }),
            Request::ShowLog {},
        ];
        let (mut answers, mut times) = (Vec::new(), [Nanos::default(); 5]);
        for (question, time) in questions.into_iter().zip(&mut times) {
            answers.push(client.call(question)?);
            *time = monotonic();
        }
        let at = Moments { stats: times[0], ports: times[1], rules: times[2] };
        let Ok(
            [
                Response::Stats(stats),
                Response::Ports(ports),
                Response::Rules(rules),
                Response::Talkers(talkers),
                Response::Log(log),
            ],
        ) = <[Response; 5]>::try_from(answers)
        else {
            return Ok(None);
        };
        Ok(Some(Self { at, stats, ports, rules, talkers: talkers.sources, log: *log }))
    }
}
