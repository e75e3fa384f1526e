//! `portcullis exposure`: which services are reachable from where, through which rule, and whose it is.

use std::path::{Path, PathBuf};

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::packet::Family;

use super::policies::{self, LIVE};
use super::stored::Place;
use super::timeouts::CtTimeouts;
use super::{Exit, Output, Socket};
use crate::diff::{FileError, Policy, PolicyFiles, changed_sets};
use crate::exposure::{self, Bounds, Compared, Exposure, Given, changes_text, text};
use crate::history::stamp;
use crate::iptables::TableNames;
use crate::region::Ranges;

const EXAMPLES: &str = "Examples:
  portcullis exposure
  portcullis exposure --rules rules.v4
  portcullis exposure @0 --against @1
  portcullis exposure /tmp/candidate --against live --changes
  portcullis exposure --rules rules.v4 --local 198.51.100.1 --local 203.0.113.0/29 --json

The policy is what is live, a file (IPv6 if its name ends in v6 or 6), a directory with rules.v4, rules.v6 and sets/,
or a policy of the history (@1). Rules that have expired count no more.
Looked at are first packets of connections from outside. Without --local every destination is
followed both to this machine and through it. Exits 0; 6 with --against when something is different;
1 when a policy is refused, or when a witness that was walked did not arrive (please report that).";

/// Slow work says how far it is after this long, and so often.
const PATIENCE: Nanos = Nanos::from_secs(1);

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// live, @N, a file or a directory [default: live].
    #[arg(value_name = "POLICY", conflicts_with_all = ["rules", "rules6"])]
    pub policy: Option<PathBuf>,
    /// An iptables-save file, or @N.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// An ip6tables-save file, or @N.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets that they name: an `ipset save` file, or a directory of them. Sets that are in none
    /// are taken for empty ones; what hangs on a set is named anyway.
    #[arg(long, alias = "ipset", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Compare with this earlier policy: live, @N, a file or a directory.
    #[arg(long, value_name = "POLICY")]
    pub against: Option<PathBuf>,
    /// With --against: show what is different, and nothing else.
    #[arg(long, requires = "against")]
    pub changes: bool,
    /// An address or network of this machine; may be given more than once.
    #[arg(long, value_name = "ADDRESS")]
    pub local: Vec<Local>,
    /// Pairs of regions that are compared at most.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().effort)]
    pub effort: u64,
    /// Where policies of the history are.
    #[command(flatten)]
    pub place: Place,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Addresses of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    family: Family,
    low: u128,
    high: u128,
}

impl std::str::FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is no address or network: write 198.51.100.1 or 2001:db8::/64");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let (family, bits, value) = match address.parse().map_err(|_| bad())? {
            std::net::IpAddr::V4(it) => (Family::V4, 32, u128::from(it.to_bits())),
            std::net::IpAddr::V6(it) => (Family::V6, 128, it.to_bits()),
        };
        let length = length.map_or(Ok(bits), |it| it.parse::<u32>().map_err(|_| bad()))?;
        let free = bits.checked_sub(length).ok_or_else(bad)?;
        let host = if free == 128 { u128::MAX } else { (1 << free) - 1 };
        Ok(Self { family, low: value & !host, high: value | host })
    }
}

/// The addresses of a family; none if none were given at all.
fn own(local: &[Local], family: Family) -> Option<Ranges> {
    let of = local.iter().filter(|it| it.family == family).map(|it| (it.low, it.high));
    (!local.is_empty()).then(|| Ranges::union(of.collect()))
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    match exposures(args, output) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn read(
    args: &Args,
    policy: &Path,
    names: &TableNames,
    output: &Output,
) -> Result<PolicyFiles, Exit> {
    let files = match policy.to_str() {
        Some(LIVE) => policies::live(&args.socket, names, output)?,
        _ => {
            policies::read(policy, &args.sets, &args.place, names).map_err(|it| it.tell(output))?
        }
    };
    Ok(policies::in_force(files, wall_us() / 1_000_000))
}

fn subject(args: &Args, names: &TableNames, output: &Output) -> Result<PolicyFiles, Exit> {
    if args.rules.is_none() && args.rules6.is_none() {
        let live = PathBuf::from(LIVE);
        return read(args, args.policy.as_deref().unwrap_or(&live), names, output);
    }
    let file = |path: &Option<PathBuf>, family| {
        let found = path.clone().map(|path| args.place.file(path, family)).transpose();
        found.map_err(|error| {
            output.error(error);
            Exit::Refused
        })
    };
    let (v4, v6) = (file(&args.rules, Family::V4)?, file(&args.rules6, Family::V6)?);
    let files = PolicyFiles::read_files(v4.as_deref(), v6.as_deref(), &args.sets, names);
    let files = files.map_err(|error| match error {
        FileError::Job(error) => super::replay::refuse(&error, output),
        other => policies::Unreadable::Files(other).tell(output),
    })?;
    Ok(policies::in_force(files, wall_us() / 1_000_000))
}

fn exposures(args: &Args, output: &Output) -> Result<Exit, Exit> {
    let names = args.timeouts.names().map_err(|error| {
        output.error(format_args!("--ct-timeout: {error}"));
        Exit::Usage
    })?;
    let new = subject(args, &names, output)?;
    let old = args.against.as_deref().map(|old| read(args, old, &names, output)).transpose()?;
    if !output.json() {
        output.line(format_args!("exposure at {}\n", stamp(wall_us())));
    }
    let (mut different, mut refuted) = (false, false);
    for family in [Family::V4, Family::V6] {
        let local = own(&args.local, family);
        let bounds = Bounds { effort: args.effort, ..Bounds::default() };
        let given = Given { local: local.as_ref(), bounds };
        let mut next = monotonic().0 + PATIENCE.0;
        let mut told = |percent: u64| {
            if monotonic().0 >= next {
                next = monotonic().0 + PATIENCE.0;
                output.complaint(format_args!("following: {percent}% of the effort is spent"));
            }
        };
        let after = policy(&new, family);
        let found = match &old {
            None => exposure::expose(after, given, &mut told).map(|it| (it, None)),
            Some(old) => {
                let sets = changed_sets(&old.sets, &new.sets, &names);
                exposure::compare([policy(old, family), after], &sets, given, &mut told)
                    .map(|Compared { new, changes, .. }| (new, Some(changes)))
            }
        };
        let (exposed, changes) = found.map_err(|error| {
            output.error(error);
            Exit::Refused
        })?;
        refuted |= exposed.summary().refuted > 0;
        print(args, &exposed, output);
        if let Some(changes) = changes {
            different |= !changes.is_empty() || !changes.complete;
            match output.json() {
                true => output
                    .object(&serde_json::json!({"family": exposed.family, "changes": changes})),
                false => output.line(changes_text(exposed.family, &changes)),
            }
        }
    }
    Ok(match (refuted, different) {
        (true, _) => Exit::Refused,
        (_, true) => Exit::Warnings,
        _ => Exit::Ok,
    })
}

fn print(args: &Args, exposed: &Exposure, output: &Output) {
    match (output.json(), args.changes) {
        (_, true) => {}
        (true, _) => {
            output.object(&serde_json::json!({"exposure": exposed, "summary": exposed.summary()}));
        }
        (false, _) => output.line(text(exposed)),
    }
}

fn policy(files: &PolicyFiles, family: Family) -> Policy<'_> {
    match family {
        Family::V4 => Policy { rules: &files.v4, sets: &files.sets },
        Family::V6 => Policy { rules: &files.v6, sets: &files.sets },
    }
}
