//! `portcullis doctor`: does this machine do what the daemon needs, and what mends it?

use dataplane::conntrack;
use dataplane::port::afxdp::OnFailure;
use dataplane::port::host::HostChoice;

use super::run;
use super::{Exit, Output};
use crate::config::{Configured, Source};
use crate::daemon::Config;
use crate::doctor::{self, Code, Command, Finding, Severity, Wanted, fix};

pub(super) const EXAMPLES: &str = "Examples:
  portcullis doctor
  portcullis doctor --port eth0 --port eth1 --rules rules.v4
  portcullis doctor --config /etc/portcullis/portcullis.toml --fix
  portcullis doctor --fix --dry-run
  portcullis --json doctor

Takes the words of `run`, and says what would be in the way of `run` with these words. A daemon
that runs is asked for what is really in force, and for its ports when none are given. Without
privilege it says what it could not see.

Nothing is changed without --fix, which runs only commands that are known to be safe: kernel
switches, offloads, mounting the BPF file system. It looks again afterwards.

Exits 0 when all is well (notes allowed), 1 when there are errors, 6 when there are only warnings.";

/// What to look at.
#[derive(Debug, clap::Args)]
#[group(id = "doctor")]
pub struct Args {
    /// As for `run`.
    #[command(flatten)]
    pub run: run::Args,
    /// Run the commands that are safe, and look again.
    #[arg(long)]
    pub fix: bool,
    /// With --fix: only say which commands those are.
    #[arg(long, requires = "fix")]
    pub dry_run: bool,
    /// Also list what is well.
    #[arg(short, long)]
    pub verbose: bool,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let (wanted, refused) = match wanted(&args.run.source()) {
        Ok(found) => found,
        Err(problem) => {
            output.error(problem);
            return Exit::Usage;
        }
    };
    let look = || {
        let mut findings = refused.clone();
        findings.extend(doctor::examine(&wanted));
        doctor::sort(&mut findings);
        findings
    };
    let mut findings = look();
    if args.fix {
        mend(&fix::plan(&findings), args.dry_run, output);
        if !args.dry_run {
            findings = look();
        }
    }
    report(&findings, args.verbose, output);
    match doctor::worst(&findings) {
        Severity::Error => Exit::Refused,
        Severity::Warning => Exit::Warnings,
        Severity::Note | Severity::Ok => Exit::Ok,
    }
}

/// What the operator wants, and what is wrong with the file that says so: then the
/// command line alone holds.
fn wanted(source: &Source) -> Result<(Wanted, Vec<Finding>), String> {
    let (configured, refused) = match source.load() {
        Ok(configured) => (configured, Vec::new()),
        Err(refused) => {
            let findings = refused.findings.iter().map(in_file).collect();
            let flags = Source { file: None, flags: source.flags.clone() };
            (flags.load().map_err(|error| error.to_string())?, findings)
        }
    };
    resolve(configured).map(|wanted| (wanted, refused))
}

fn in_file(finding: &crate::diagnostics::Finding) -> Finding {
    let subject = format!("{}:{}:{}", finding.file, finding.line, finding.column);
    let found = Finding::error(Code::Configuration, subject, finding.message.as_str());
    match &finding.remedy {
        Some(remedy) => found.advise(remedy.as_str()),
        None => found,
    }
}

/// Unlike the daemon, doctor can do without ports.
fn resolve(mut configured: Configured) -> Result<Wanted, String> {
    let ports = std::mem::take(&mut configured.settings.ports.value.0);
    configured.settings.ports.value.0 = match ports.is_empty() {
        true => vec![String::new()],
        false => ports.clone(),
    };
    let config = configured.resolve().map_err(|conflict| conflict.to_string())?;
    let wanted = of_config(&config);
    Ok(Wanted { ports, ..wanted })
}

fn of_config(config: &Config) -> Wanted {
    let max = config.conntrack.iter().rev().find(|(name, _)| name == "max");
    let default = conntrack::Config::new([0; 16]).max_entries();
    Wanted {
        ports: config.ports.clone(),
        mode: config.mode.clone(),
        workers: config.workers,
        host_road: config.host != HostChoice::Off,
        closed: config.failure.on_failure == OnFailure::Closed,
        pin_directory: config.failure.pin_dir.clone(),
        conntrack_max: max.map_or(default, |(_, max)| *max as usize),
        user: config.sandbox.user.clone(),
        management: !config.management.is_empty(),
        state: config.state.clone(),
        log: config.log.clone(),
        socket: config.socket.clone(),
        rules: config.rules.clone(),
        rules6: config.rules6.clone(),
    }
}

/// Runs the commands, or shows them.
fn mend(commands: &[Command], dry_run: bool, output: &Output) {
    for command in commands {
        let outcome = if dry_run { fix::Outcome::Shown } else { fix::run(command) };
        let (word, said) = match &outcome {
            fix::Outcome::Shown => ("would run", None),
            fix::Outcome::Done => ("done", None),
            fix::Outcome::Failed(why) => ("failed", Some(why)),
        };
        if output.json() {
            output.object(&serde_json::json!({
                "event": "fix", "command": command.to_string(), "outcome": word, "error": said,
            }));
            continue;
        }
        let said = said.map_or_else(String::new, |why| format!(": {why}"));
        output.line(format_args!("fix: {command}: {word}{said}"));
    }
    if commands.is_empty() && !output.json() {
        output.line("fix: there is nothing that may be mended without you");
    }
}

fn report(findings: &[Finding], verbose: bool, output: &Output) {
    if output.json() {
        findings.iter().for_each(|finding| output.object(finding));
        return;
    }
    let shown = findings.iter().filter(|it| verbose || it.severity > Severity::Ok);
    for finding in shown {
        output.line(text(finding));
    }
    let count = |wanted| findings.iter().filter(|finding| finding.severity == wanted).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let (notes, well) = (count(Severity::Note), count(Severity::Ok));
    output.line(format_args!(
        "{errors} error(s), {warnings} warning(s), {notes} note(s), {well} checks well"
    ));
}

/// Severity, code and subject in columns, what is so, and below it why that matters
/// and what to do.
fn text(finding: &Finding) -> String {
    let Finding { severity, code, subject, found, .. } = finding;
    let gap = if subject.is_empty() { "" } else { ": " };
    let mut text = format!("{severity:<8}{:<18}{subject}{gap}{found}", code.name());
    let mut below = |line: String| {
        text.push_str("\n        ");
        text.push_str(&line);
    };
    if *severity > Severity::Ok && *code != Code::NotSeen {
        below(format!("why: {}", code.why()));
    }
    if let Some(command) = &finding.command {
        let fix = if finding.safe { "    # or doctor --fix" } else { "" };
        below(format!("run: {command}{fix}"));
    }
    if let Some(advice) = &finding.advice {
        below(format!("     {advice}"));
    }
    text
}
