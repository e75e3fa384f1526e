//! The command line: one file per subcommand, one meaning per exit code.
//!
//! A subcommand is `Args` (what clap parses) and
//! `run(args, &Output) -> Exit` (what it does). Results go to standard output
//! through [`Output`], as text for people or JSON for programs; complaints go
//! to standard error.

pub mod apply;
pub mod audit;
pub mod capture;
pub mod check;
mod client;
pub mod completions;
pub mod config;
pub mod conntrack;
pub mod diff;
pub mod doctor;
mod evidence;
pub mod explain;
pub mod exposure;
mod follow;
pub mod history;
pub mod lint;
pub mod logging;
pub mod man;
pub mod matrix;
mod metering;
pub mod objects;
pub mod output;
pub mod policies;
pub mod pressure;
pub mod recent;
pub mod release;
pub mod reload;
pub mod replay;
pub mod rollback;
pub mod run;
pub mod set;
pub mod show;
mod status;
pub mod stop;
mod stored;
pub mod sysctl;
mod table;
mod timeouts;
pub mod top;
pub mod trace;
pub mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use output::Output;

pub use crate::config::DEFAULT_SOCKET;

/// What the exit code says. Scripts may rely on these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The input was read and refused: a rule, a file, a packet, a value.
    Refused = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No daemon answers on the control socket, or it broke off.
    Unreachable = 3,
    /// This machine cannot do it as things are: privilege, kernel, missing or busy port.
    Environment = 4,
    /// A fault of Portcullis itself.
    Internal = 5,
    /// `doctor` found warnings, but no errors; `diff` and `exposure` found differences; flows of
    /// a `matrix` are not as expected.
    Warnings = 6,
    /// A worker of the daemon was stuck: it ended so that it can be started anew.
    Stuck = 7,
    /// Done, but for settings that only a restart brings.
    Restart = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused: a rule, file, packet or value is bad; nothing was changed
  2  usage: the command line makes no sense
  3  unreachable: no daemon answers on the control socket
  4  environment: missing privilege, old kernel, missing or busy port
  5  internal: a fault of Portcullis itself
  6  doctor: warnings, but no errors; diff, exposure --against: the policies differ;
     matrix: flows are not as expected; audit: something needs attention
  7  stuck: a worker of the daemon did not turn any more; it is to be started anew
  8  reload: done, but for settings that need a restart

Examples:
  portcullis check --rules rules.v4
  portcullis run --port eth0 --port eth1 --rules rules.v4
  portcullis apply --rules new.v4 --confirm 60s
  portcullis rollback
  portcullis show rules
  portcullis conntrack -L -p tcp
  portcullis set list blocked
  portcullis --json show stats";

/// Enforces unmodified iptables-save files through AF_XDP, with netfilter's verdicts.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = EXIT_CODES)]
struct Cli {
    /// Print JSON, one object a line, instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the firewall on the given ports.
    Run(Box<run::Args>),
    /// Check policy files without loading them.
    Check(check::Args),
    /// Look for rules that cannot be meant as they stand.
    Lint(lint::Args),
    /// Show what changes between two policies: their texts, and what becomes of packets.
    Diff(diff::Args),
    /// Show which services are reachable from where, through which rule, and whose it is.
    Exposure(exposure::Args),
    /// Gather evidence for auditors: changes, exposure, denials, exceptions, as text or a page.
    Audit(audit::Args),
    /// Replace the running policy, all or nothing.
    Apply(apply::Args),
    /// Put back in force what was, at once.
    Rollback(rollback::Args),
    /// Keep the change that waits for its confirmation.
    Confirm(rollback::ConfirmArgs),
    /// Show what was in force, when, by whom and why.
    History(history::Args),
    /// Close the record of an emergency change.
    Reconcile(rollback::ReconcileArgs),
    /// Read the configuration and policy files again.
    Reload(reload::Args),
    /// Check, show and look up settings.
    Config(config::Args),
    /// Show what the daemon is doing.
    Show(show::Args),
    /// List, count, end and watch connections, as the conntrack tool does.
    Conntrack(conntrack::Args),
    /// List and change sets, as the ipset tool does.
    Set(set::Args),
    /// Show or change connection tracking settings of the running daemon.
    Sysctl(sysctl::Args),
    /// Change a list of `-m recent` by hand.
    Recent(recent::Args),
    /// Show pressure profiles, and put them in force by hand.
    Pressure(pressure::Args),
    /// Stop the daemon cleanly.
    Stop(stop::Args),
    /// Open ports that a dead daemon keeps closed.
    Release(release::Args),
    /// Follow live packets on their way: chains, rules, tracking, NAT, verdict.
    Trace(trace::Args),
    /// Watch rates, drops, connections and sources; or print one frame for scripts.
    Top(top::Args),
    /// Capture live packets to a pcapng file, each with what became of it.
    Capture(capture::Args),
    /// Follow a described packet through the policy, step by step.
    Explain(Box<explain::Args>),
    /// Named, owned groups of addresses and ports: who uses them, and how much.
    Objects(objects::Args),
    /// Run the flows that must pass, and those that must not, against a policy.
    Matrix(matrix::Args),
    /// Run captures through the engine, offline.
    Replay(replay::Args),
    /// Print or write the manual pages.
    Man(man::Args),
    /// Print what a shell needs to complete commands and flags.
    Completions(completions::Args),
    /// Look at this machine: what hinders the firewall, and what mends it.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(Box<doctor::Args>),
    /// Print version, kernel and protocol version.
    Version(version::Args),
}

/// Where to find the daemon.
#[derive(Clone, Debug, Args)]
pub struct Socket {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// The whole command line, as clap knows it.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Parses the process's arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    match called.rsplit('/').next() {
        Some("conntrack") => return conntrack::as_tool(&words.collect::<Vec<_>>()).into(),
        Some("ipset") => return set::as_tool(&words.collect::<Vec<_>>()).into(),
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let output = Output::new(cli.json);
    let exit = match cli.command {
        Command::Run(args) => run::run(*args, &output),
        Command::Check(args) => check::run(args, &output),
        Command::Lint(args) => lint::run(&args, &output),
        Command::Diff(args) => diff::run(&args, &output),
        Command::Exposure(args) => exposure::run(&args, &output),
        Command::Audit(args) => audit::run(&args, &output),
        Command::Apply(args) => apply::run(args, &output),
        Command::Rollback(args) => rollback::run(args, &output),
        Command::Confirm(args) => rollback::confirm(args, &output),
        Command::History(args) => history::run(args, &output),
        Command::Reconcile(args) => rollback::reconcile(args, &output),
        Command::Reload(args) => reload::run(args, &output),
        Command::Config(args) => config::run(args, &output),
        Command::Show(args) => show::run(args, &output),
        Command::Conntrack(args) => conntrack::run(args, &output),
        Command::Set(args) => set::run(args, &output),
        Command::Sysctl(args) => sysctl::run(args, &output),
        Command::Trace(args) => trace::run(&args, &output),
        Command::Top(args) => top::run(&args, &output),
        Command::Capture(args) => capture::run(&args, &output),
        Command::Recent(args) => recent::run(args, &output),
        Command::Pressure(args) => pressure::run(args, &output),
        Command::Stop(args) => stop::run(args, &output),
        Command::Release(args) => release::run(args, &output),
        Command::Explain(args) => explain::run(*args, &output),
        Command::Objects(args) => objects::run(&args, &output),
        Command::Matrix(args) => matrix::run(args, &output),
        Command::Replay(args) => replay::run(args, &output),
        Command::Man(args) => man::run(args, Cli::command(), &output),
        Command::Completions(args) => completions::run(args, Cli::command(), &output),
        Command::Doctor(args) => doctor::run(*args, &output),
        Command::Version(args) => version::run(args, &output),
    };
    exit.into()
}

/// Help and version go to standard output; a command line that makes no sense is
/// an error like any other, in JSON where that was asked for.
fn misused(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|word| word == "--json");
    if json && error.use_stderr() {
        let text = error.render().to_string();
        Output::new(true).error(text.trim_start_matches("error: ").trim_end());
        return Exit::Usage.into();
    }
    error.exit()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_command_shows_an_example() {
        let mut missing = Vec::new();
        let mut todo = vec![super::Cli::command()];
        while let Some(mut command) = todo.pop() {
            todo.extend(command.get_subcommands().cloned());
            let help = command.render_long_help().to_string();
            if !help.contains("Example") {
                missing.push(command.get_name().to_owned());
            }
        }
        assert!(missing.is_empty(), "--help without an example: {missing:?}");
    }

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
