//! Changes of the policy, each one transaction that leaves evidence.
//!
//! Order of a change: whose turn is it, may it be made, parse and check, the operator's session,
//! the matrix of flows
//! (`daemon/matrix`), what becomes of live flows (`effect`), the record and the promise to undo it on disk
//! (`ledger`), the exchange, the record in force, health checks (`health`), flows that are cut. A
//! failure before the exchange changes nothing; health checks that fail bring the old policy back.
//! `undo` is how changes end: by confirmation, rollback, or nobody. `begin` is what a start finds.

pub(super) mod begin;
mod effect;
mod expire;
mod health;
mod ledger;
pub(super) mod press;
mod undo;
mod views;

use std::path::PathBuf;

use dataplane::clock::Nanos;
use dataplane::packet::Family;

pub use ledger::ChangeSettings;
pub(super) use ledger::Ledger;

use super::policy::{self, Texts};
use super::service::Service;
use super::sets::{FromFiles, Tried};
use crate::api::protocol::{self, Applied, Apply, SessionInfo, SessionReport, Stages, Terms};
use crate::api::{Code, Failure, Peer, Response};
use crate::apply::{ApplyError, Change, Installed};
use crate::diagnostics::{Finding, Severity};
use crate::history::{Action, Draft, PolicyRef, Who};

/// How a change treats what is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// The counters written in the texts are taken.
    pub(super) written_counters: bool,
    /// Sets are replaced even if their files say what they said before.
    pub(super) all_sets: bool,
}

/// A change to be made.
#[derive(Debug)]
pub(super) struct Order<'o> {
    pub(super) action: Action,
    /// What is new; a family that is absent keeps its policy.
    pub(super) texts: &'o Texts,
    /// The sets are those that came with the policy in force.
    pub(super) keep_sets: bool,
    pub(super) how: How,
    pub(super) session: Option<SessionInfo>,
    pub(super) force: bool,
    pub(super) terms: Terms,
    pub(super) peer: Peer,
    pub(super) about: Option<u64>,
    pub(super) result: Option<String>,
    /// What the new policy must be like: a matrix of flows.
    pub(super) matrix: Option<PathBuf>,
}

impl<'o> Order<'o> {
    pub(super) fn of(action: Action, texts: &'o Texts, terms: Terms, peer: Peer) -> Self {
        Self {
            action,
            texts,
            keep_sets: false,
            how: How::default(),
            session: None,
            force: false,
            terms,
            peer,
            about: None,
            result: None,
            matrix: None,
        }
    }

    fn who(&self) -> Who {
        who(self.peer, &self.terms.why)
    }

    fn draft(&self, at_us: u64) -> Draft {
        let why = self.terms.why.clone();
        let plain = Draft::new(self.action, self.who(), at_us);
        Draft {
            reason: why.reason,
            approver: why.approver,
            ticket: why.ticket,
            emergency: self.terms.emergency,
            about: self.about,
            result: self.result.clone().unwrap_or_else(|| plain.result.clone()),
            ..plain
        }
    }
}

fn who(peer: Peer, why: &crate::api::protocol::Why) -> Who {
    let (user, sudo_user) = (why.user.clone(), why.sudo_user.clone());
    Who { uid: peer.uid, pid: peer.pid, user, sudo_user }
}

impl Service {
    /// One checked change of the policy.
    ///
    /// # Errors
    /// It was refused, or undone at once.
    pub(super) fn change(&self, order: Order<'_>) -> Result<Applied, Failure> {
        let turn = self.ledger().begin(order.action, &order.who().to_string())?;
        self.ledger().admit(&order)?;
        let applied = self.change_in_turn(&order);
        drop(turn);
        applied
    }

    fn change_in_turn(&self, order: &Order<'_>) -> Result<Applied, Failure> {
        let texts = order.texts;
        let refused = |findings| Failure::from(Refusal::Findings(findings));
        let files = FromFiles::read(&texts.sets).map_err(refused)?;
        let mut parsed = self.parse(texts, order.how.written_counters).map_err(refused)?;
        parsed.findings.extend(files.findings.iter().cloned());
        let impossible = |error: dataplane::sets::SetError| {
            Failure::new(Code::Refused, format!("{error}; the old policy keeps running"))
        };
        let turn = self.sets().turn();
        let tried = self.sets().try_out(files, order.how.all_sets).map_err(impossible)?;
        parsed.change.sets = Some(tried.overlay());
        let guarded = self.guard(order.session.clone(), order.force, &parsed.change, texts)?;
        let families: Vec<Family> = [(&texts.v4, Family::V4), (&texts.v6, Family::V6)]
            .into_iter()
            .filter_map(|(text, family)| text.is_some().then_some(family))
            .collect();
        let spite = self.gate(order, &parsed.change, &tried)?;
        if order.terms.dry_run {
            let mut answer = self.rehearsed(order, parsed, texts, &families)?;
            answer.session = guarded.report;
            answer.findings.extend(guarded.findings);
            return Ok(answer);
        }
        let noted =
            self.ledger().prepare(order, self.store().generation() + 1, spite.as_deref())?;
        let before = self.ledger().book().texts.clone();
        let policy = noted.policy.clone();
        let installed = self.install(parsed, texts).map_err(Failure::from);
        let mut applied = installed.inspect_err(|_| self.ledger().forget(&noted))?.answer();
        applied.record = self.ledger().commit(noted);
        (applied.policy, applied.confirm_ms) = (policy.id.clone(), order.terms.confirm_ms);
        tried.settle().map_err(impossible)?;
        drop(turn);
        if order.action != Action::Undo {
            self.stay_healthy(order, &before, &applied)?;
        }
        if order.terms.rematch {
            applied.effect = Some(self.cut(&families));
        }
        applied.session = guarded.report;
        applied.findings.extend(guarded.findings);
        applied.findings.extend(spite.map(|message| remark(order, message)));
        self.tell(order, &policy, &applied);
        Ok(applied)
    }

    /// Whether the new policy is as its matrix of flows says; in an emergency what it goes on
    /// in spite of.
    fn gate(
        &self,
        order: &Order<'_>,
        change: &Change,
        tried: &Tried<'_>,
    ) -> Result<Option<String>, Failure> {
        if order.matrix.is_none() {
            return Ok(None);
        }
        let sets = tried.foreseen().map_err(|error| {
            Failure::new(Code::Refused, format!("{error}; the old policy keeps running"))
        })?;
        self.pass_gate(order.matrix.as_deref(), change, &sets, order.terms.emergency)
    }

    /// Says in the log who has changed what.
    fn tell(&self, order: &Order<'_>, policy: &PolicyRef, applied: &Applied) {
        let (who, action) = (order.who(), order.action.name());
        let (short, generation) = (policy.short(), applied.generation);
        let reason = order.terms.why.reason.as_deref().unwrap_or("no reason given");
        tracing::info!("{action} by {who}: policy {short}, generation {generation} ({reason})");
        if let Some(ms) = order.terms.confirm_ms {
            tracing::warn!("it is undone in {} s, unless it is confirmed", ms / 1000);
        }
        if order.terms.emergency {
            tracing::warn!("this was an emergency: `portcullis reconcile` when it was looked at");
        }
    }

    /// What would come of a change.
    fn rehearsed(
        &self,
        order: &Order<'_>,
        parsed: policy::Parsed,
        texts: &Texts,
        families: &[Family],
    ) -> Result<Applied, Failure> {
        let effect = self.foresee(&parsed.change, families);
        let count = |rules: &Option<crate::model::Ruleset>, family| match rules {
            Some(rules) => rules.rule_count(),
            None => self.store().read(|view| view.rules(family).rule_count()),
        };
        let (v4, v6) = (&parsed.change.v4, &parsed.change.v6);
        let mut answer = Applied {
            generation: self.store().generation(),
            rules_v4: count(v4, Family::V4),
            rules_v6: count(v6, Family::V6),
            adopted: false,
            stages: Stages { parse_us: parsed.took.0 / 1000, ..Stages::default() },
            findings: policy::on_the_wire(&parsed.findings),
            session: SessionReport::default(),
            policy: PolicyRef::of(&self.ledger().merged(order)).id,
            record: None,
            confirm_ms: None,
            effect: None,
            dry_run: true,
        };
        let rehearsal = self.store().rehearse(parsed.change);
        rehearsal.map_err(|error| Failure::from(refusal(error, texts)))?;
        answer.effect = effect;
        Ok(answer)
    }

    fn install(&self, parsed: policy::Parsed, texts: &Texts) -> Result<Done, Refusal> {
        let installed =
            self.store().install(parsed.change).map_err(|error| refusal(error, texts))?;
        self.log().open_book(self.store().log_book());
        Ok(Done { installed, findings: parsed.findings, parse: parsed.took })
    }

    pub(super) fn apply(&self, apply: Apply, peer: Peer) -> Result<Response, Failure> {
        let texts = Texts { v4: apply.rules, v6: apply.rules6, sets: apply.sets };
        if texts.v4.is_none() && texts.v6.is_none() && texts.sets.is_empty() {
            return Err(Failure::new(Code::BadRequest, "apply needs rules, rules6 or sets"));
        }
        let how = How { written_counters: apply.counters, all_sets: true };
        let (session, force) = (apply.session, apply.force);
        let order = Order::of(Action::Apply, &texts, apply.terms, peer);
        let (matrix, _) = self.desk().matrix();
        self.change(Order { how, session, force, matrix, ..order }).map(Response::Applied)
    }
}

fn refusal(error: ApplyError, texts: &Texts) -> Refusal {
    match policy::compile_finding(&error, texts) {
        Some(finding) => Refusal::Findings(vec![finding]),
        None => Refusal::Apply(error),
    }
}

/// A remark about a change that was made.
fn remark(order: &Order<'_>, message: String) -> protocol::Finding {
    let file = order.matrix.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let (severity, code) = ("warning".to_owned(), "matrix".to_owned());
    protocol::Finding { severity, code, file, line: 0, column: 0, message, remedy: None }
}

/// A change that was made.
struct Done {
    installed: Installed,
    findings: Vec<Finding>,
    parse: Nanos,
}

impl Done {
    fn answer(self) -> Applied {
        let micros = |time: Nanos| time.0 / 1000;
        let Installed { generation, rules_v4, rules_v6, adopted, timing } = self.installed;
        Applied {
            generation,
            rules_v4,
            rules_v6,
            adopted,
            stages: Stages {
                parse_us: micros(self.parse),
                compile_us: micros(timing.compile),
                selfcheck_us: micros(timing.selfcheck),
                publish_us: micros(timing.publish),
                adopt_us: micros(timing.adopt),
            },
            findings: policy::on_the_wire(&self.findings),
            session: SessionReport::default(),
            policy: String::new(),
            record: None,
            confirm_ms: None,
            effect: None,
            dry_run: false,
        }
    }
}

/// A change that was not.
pub(super) enum Refusal {
    Findings(Vec<Finding>),
    Apply(ApplyError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Findings(findings) => {
                let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
                let plural = if errors == 1 { "" } else { "s" };
                let message =
                    format!("refused: {errors} error{plural}; the old policy keeps running");
                let findings = policy::on_the_wire(&findings);
                Self { code: Code::Refused, message, findings }
            }
            Refusal::Apply(error @ (ApplyError::Busy | ApplyError::Draining { .. })) => {
                Self::new(Code::Busy, error.to_string())
            }
            Refusal::Apply(error) => {
                Self::new(Code::Internal, format!("{error}; the old policy keeps running"))
            }
        }
    }
}
