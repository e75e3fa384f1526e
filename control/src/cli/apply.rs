//! `portcullis apply`: replaces the running policy, all or nothing.

use std::path::PathBuf;

use super::client::{ask_about, findings, unexpected};
use super::evidence::Because;
use super::{Exit, Output};
use crate::api::protocol::{self, Applied, Effect, SessionOutcome, Source, Terms, TupleInfo};
use crate::api::{Request, Response};
use crate::daemon::policy::Texts;
use crate::guard::find::Place;
use crate::guard::{Session, SessionError};

const EXAMPLES: &str = "Examples:
  portcullis apply --rules rules.v4
  portcullis apply --rules rules.v4 --rules6 rules.v6 --counters
  portcullis apply --rules rules.v4 --sets sets.save
  portcullis apply --rules rules.v4 --dry-run
  portcullis apply --rules rules.v4 --confirm 60s --reason 'open 8443' --ticket NET-17
  portcullis apply --rules rules.v4 --rematch
  portcullis apply --rules rules.v4 --emergency --reason 'worm on port 445'
  portcullis apply --rules rules.v4 --session '198.51.100.7 50000 192.0.2.1 22'

A family without a file keeps its policy. On any error the old policy keeps running; so it
does when the new one would cut the SSH session that this is typed in, unless --force.";

/// What to apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The new IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rules6", "sets"])]
    pub rules: Option<PathBuf>,
    /// The new IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets, an `ipset save` file or a directory of them; may be given more than once. Each
    /// set that they make takes the place of the one of that name, along with the rules.
    #[arg(long, value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Take over the counters written in the files (as iptables-restore -c does).
    #[arg(short = 'c', long)]
    pub counters: bool,
    /// How it is to be done.
    #[command(flatten)]
    pub conditions: Conditions,
    /// The session to keep.
    #[command(flatten)]
    pub keep: Keep,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// The session that a change of the policy must not cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Keep {
    /// Apply it even if it cuts the session that this is typed in.
    #[arg(long)]
    pub force: bool,
    /// The session to keep, as SSH_CONNECTION has it, or "none" [default: the SSH session
    /// that this is typed in, if it can be found].
    #[arg(long, value_name = "CLIENT CPORT SERVER SPORT", value_parser = session)]
    pub session: Option<Chosen>,
}

/// `--session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Nothing is to be kept.
    Nothing,
    /// This one.
    This(Session),
}

fn session(text: &str) -> Result<Chosen, SessionError> {
    match text {
        "none" => Ok(Chosen::Nothing),
        text => text.parse().map(Chosen::This),
    }
}

impl Keep {
    /// The one that was named, or that this is typed in.
    pub(super) fn session(&self) -> Option<protocol::SessionInfo> {
        let session = match &self.session {
            Some(Chosen::Nothing) => None,
            Some(Chosen::This(session)) => Some(session.clone()),
            None => Place::here().session(),
        };
        session.map(protocol::SessionInfo::from)
    }
}

/// How a change is to be made.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Conditions {
    /// Why.
    #[command(flatten)]
    pub because: Because,
    /// Undo it after this time unless `portcullis confirm` comes, whatever dies meanwhile: as
    /// 60s, 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub confirm: Option<u64>,
    /// End the live flows that the new policy would not admit as new.
    #[arg(long)]
    pub rematch: bool,
    /// Say what would come of it, and which live flows it would not admit; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// With a reason and nothing else; opens a record that wants to be reconciled.
    #[arg(long, requires = "reason")]
    pub emergency: bool,
}

impl Conditions {
    pub(super) fn terms(self) -> Terms {
        let Self { because, confirm, rematch, dry_run, emergency } = self;
        Terms { why: because.why(), confirm_ms: confirm, rematch, dry_run, emergency }
    }
}

/// Longest time that a change may wait.
const WINDOW_MAX_MS: u64 = 24 * 3600 * 1000;

/// A time in milliseconds.
fn window(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write 60s, 5m or 1h, at most 24h");
    time(text).filter(|time| (1..=WINDOW_MAX_MS).contains(time)).ok_or_else(bad)
}

/// A number with a unit (seconds without one), in milliseconds.
pub(super) fn time(text: &str) -> Option<u64> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor))
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let texts = Texts::read(args.rules.as_deref(), args.rules6.as_deref(), &args.sets);
    let Texts { v4: rules, v6: rules6, sets } = match texts {
        Ok(texts) => texts,
        Err(findings) => {
            findings.iter().for_each(|finding| output.finding(finding, None));
            return Exit::Refused;
        }
    };
    let sources: Vec<Source> =
        [&rules, &rules6].into_iter().flatten().chain(&sets).cloned().collect();
    let session = args.keep.session();
    let (counters, force) = (args.counters, args.keep.force);
    let terms = args.conditions.terms();
    let apply = protocol::Apply { rules, rules6, sets, counters, session, force, terms };
    match ask_about(&args.socket, Request::Apply(apply), &sources, output) {
        Ok(Response::Applied(applied)) => {
            print(&applied, &sources, output);
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

pub(super) fn print(applied: &Applied, sources: &[Source], output: &Output) {
    if output.json() {
        return output.object(applied);
    }
    findings(&applied.findings, sources, output);
    if applied.session.outcome == SessionOutcome::Cut {
        output.warning(&applied.session.text);
    }
    let Applied { generation, rules_v4, rules_v6, adopted, stages, .. } = applied;
    if applied.dry_run {
        output.line(format_args!(
            "would be accepted: {rules_v4} IPv4 and {rules_v6} IPv6 rules; nothing was changed"
        ));
        applied.effect.iter().for_each(|effect| flows(effect, output));
        return;
    }
    output.line(format_args!(
        "generation {generation}: {rules_v4} IPv4 and {rules_v6} IPv6 rules{}",
        if *adopted { "" } else { ", not yet adopted by every worker" }
    ));
    output.line(format_args!(
        "parse {} us, compile {} us, self-check {} us, publish {} us, adopted after {} us",
        stages.parse_us, stages.compile_us, stages.selfcheck_us, stages.publish_us, stages.adopt_us
    ));
    applied.effect.iter().for_each(|effect| flows(effect, output));
    if let Some(number) = applied.record {
        let short = applied.policy.get(..12).unwrap_or_default();
        output.line(format_args!("record {number}, policy {short}"));
    }
    if let Some(ms) = applied.confirm_ms {
        let seconds = ms.div_ceil(1000);
        output.warning(format_args!(
            "undone in {seconds} s: look whether all is well, then `portcullis confirm` (or \
             `portcullis rollback`)"
        ));
    }
}

/// Live flows that a policy does not admit.
fn flows(effect: &Effect, output: &Output) {
    let Effect { judged, unjudged, refused, ended, .. } = effect;
    output.line(match ended {
        0 => format!("{refused} of {judged} live flows would not be admitted as new"),
        _ => format!("{ended} of {judged} live flows ended: the policy does not admit them"),
    });
    for flow in &effect.flows {
        let TupleInfo { src, dst, sport, dport, .. } = &flow.original;
        let line = if flow.line > 0 { format!(", line {}", flow.line) } else { String::new() };
        output.line(format_args!(
            "  protocol {} src={src} dst={dst} sport={sport} dport={dport}: {}{line}",
            flow.proto, flow.by
        ));
    }
    let named = effect.flows.len() as u64;
    if named < *refused {
        output.line(format_args!("  and {} more", refused - named));
    }
    if *unjudged > 0 {
        output.line(format_args!(
            "{unjudged} live flows were not tried: nothing is known of their first packet"
        ));
    }
}
