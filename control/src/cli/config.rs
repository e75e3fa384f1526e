//! `portcullis config`: check, show and look up settings.

use std::path::{Path, PathBuf};

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::protocol::{ConfigChange, ConfigInfo};
use crate::api::{Request, Response};
use crate::check::{self, Checked};
use crate::config::{self, Configured, DEFAULT_FILE, KEYS, Key, Source};
use crate::diagnostics::Severity;
use crate::iptables::TableNames;

const EXAMPLES: &str = "Examples:
  portcullis config check
  portcullis config show
  portcullis config show --file new.toml
  portcullis config keys
  portcullis config keys state.interval";

/// What to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(subcommand)]
    pub what: What,
}

/// The things to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Check a configuration file and the policy files that it names.
    #[command(after_help = "Examples:
  portcullis config check
  portcullis config check new.toml --json

Exits 0 when `run --config FILE` would accept it, 1 when anything is refused.")]
    Check {
        /// The file.
        #[arg(value_name = "FILE", default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Show the settings in force, each with where it comes from, as a file that loads again.
    #[command(after_help = "Examples:
  portcullis config show
  portcullis config show --file /etc/portcullis/portcullis.toml --json")]
    Show {
        /// Of this file, instead of the running daemon.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Where the daemon listens.
        #[command(flatten)]
        socket: Socket,
    },
    /// List every key with its type, its default, and whether a reload changes it.
    #[command(after_help = "Examples:
  portcullis config keys
  portcullis config keys conntrack
  portcullis config keys --markdown")]
    Keys {
        /// Only this key, or the keys of this table.
        #[arg(value_name = "KEY")]
        key: Option<String>,
        /// As the table of the manual.
        #[arg(long, conflicts_with = "key")]
        markdown: bool,
    },
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    match args.what {
        What::Check { file } => check(&file, output),
        What::Show { file: Some(file), .. } => match loaded(&file, output) {
            Ok(configured) => {
                print(&configured.info(Vec::new()), output);
                Exit::Ok
            }
            Err(exit) => exit,
        },
        What::Show { file: None, socket } => match ask(&socket, Request::ShowConfig {}, output) {
            Ok(Response::Config(info)) => {
                print(&info, output);
                Exit::Ok
            }
            Ok(_) => unexpected(output),
            Err(exit) => exit,
        },
        What::Keys { markdown: true, .. } => {
            output.raw(&config::reference());
            Exit::Ok
        }
        What::Keys { key, .. } => keys(key.as_deref(), output),
    }
}

fn loaded(file: &Path, output: &Output) -> Result<Configured, Exit> {
    let source = Source { file: Some(file.to_owned()), ..Source::default() };
    source.load().map_err(|refused| super::run::complain(&refused, output))
}

fn check(file: &Path, output: &Output) -> Exit {
    let configured = match loaded(file, output) {
        Ok(configured) => configured,
        Err(exit) => return exit,
    };
    let settings = configured.settings.clone();
    if let Err(conflict) = configured.resolve() {
        return match conflict.finding(file) {
            Some(finding) => {
                let text = std::fs::read_to_string(file).ok();
                output.finding(&finding, text.as_deref());
                Exit::Refused
            }
            None => {
                output.error(conflict);
                Exit::Refused
            }
        };
    }
    let names = match names(&settings) {
        Ok(names) => names,
        Err(error) => {
            output.error(error);
            return Exit::Refused;
        }
    };
    let request = check::Request {
        sets: settings.sets(),
        rules: settings.rules.value.into_iter().collect(),
        rules6: settings.rules6.value.into_iter().collect(),
        assume_sets: false,
    };
    let checked = check::run(&request, &names);
    for policy in &checked {
        for finding in &policy.findings {
            output.finding(finding, policy.source.as_deref());
        }
    }
    let loads = checked.iter().all(Checked::loads);
    if output.json() {
        output.object(&serde_json::json!({"file": file.to_string_lossy(), "loads": loads}));
    } else if loads {
        output.line(format_args!("{}: loads", file.display()));
    } else {
        let errors = checked.iter().flat_map(|policy| &policy.findings);
        let errors = errors.filter(|finding| finding.severity == Severity::Error).count();
        output.line(format_args!("{}: its policy is refused: {errors} errors", file.display()));
    }
    if loads { Exit::Ok } else { Exit::Refused }
}

/// What policies may name.
fn names(settings: &config::Settings) -> Result<TableNames, dataplane::conntrack::ConfigError> {
    let mut tracking = dataplane::conntrack::Config::new([0; 16]);
    let timeouts = &settings.timeouts.value.0;
    timeouts.iter().try_for_each(|given| given.value.add_to(&mut tracking))?;
    Ok(TableNames::of_host().with_timeout_policies(tracking.timeout_policies()))
}

fn print(info: &ConfigInfo, output: &Output) {
    if output.json() {
        return output.object(info);
    }
    output.raw(&info.text);
    for change in &info.pending {
        output.line(format_args!("# waits for a restart: {}", one_line(change)));
    }
}

/// `key = new (is old)`.
pub(super) fn one_line(change: &ConfigChange) -> String {
    let said = |value: &Option<serde_json::Value>| {
        value.as_ref().map_or_else(|| "not set".to_owned(), ToString::to_string)
    };
    let why = change.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    format!("{}: {} -> {}{why}", change.key, said(&change.old), said(&change.new))
}

fn keys(wanted: Option<&str>, output: &Output) -> Exit {
    let within = wanted.map(|wanted| format!("{wanted}."));
    let is_wanted = |key: &&Key| match (wanted, &within) {
        (Some(wanted), Some(within)) => key.name == wanted || key.name.starts_with(within),
        _ => true,
    };
    let found: Vec<&Key> = KEYS.iter().filter(is_wanted).collect();
    if found.is_empty() {
        let wanted = wanted.unwrap_or_default();
        let near = config::meant(wanted).map(|near| format!("; did you mean `{near}`?"));
        output.error(format_args!("there is no key `{wanted}`{}", near.unwrap_or_default()));
        return Exit::Refused;
    }
    for key in found {
        let default = key.default();
        if output.json() {
            output.object(&serde_json::json!({
                "key": key.name,
                "type": key.shape(),
                "default": default,
                "effect": key.effect,
                "flag": key.flag,
                "doc": key.summary(),
            }));
            continue;
        }
        let default = default.map_or_else(|| "unset".to_owned(), |value| value.to_string());
        let effect = config::effect(key.effect);
        output.line(format_args!("{} ({})", key.name, key.flag));
        output.line(format_args!("    {}", key.summary()));
        output
            .line(format_args!("    {}; default {default}; a change holds {effect}", key.shape()));
    }
    Exit::Ok
}
