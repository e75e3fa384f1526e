//! Words that several commands have in common: who changes something and why, and the flags
//! of `run` about the history.

use std::path::PathBuf;

use clap::value_parser;

use crate::api::protocol::Why;
use crate::config::{Evidence, Given, Layer, Probe, StateFile, Whole, Words};

/// Why something is changed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Because {
    /// Why; it stands in the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who agreed; it stands in the history.
    #[arg(long, value_name = "NAME")]
    pub approver: Option<String>,
    /// Where that is written; it stands in the history.
    #[arg(long, value_name = "ID")]
    pub ticket: Option<String>,
}

impl Because {
    /// With who says so.
    pub(super) fn why(self) -> Why {
        let Self { reason, approver, ticket } = self;
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        let sudo_user = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        Why { reason, approver, ticket, user: user.map(|user| user.name), sudo_user }
    }
}

/// See the keys of the same meaning (`portcullis config keys`).
#[derive(Debug, Default, clap::Args)]
pub struct Keeping {
    /// Record every policy in this directory; "none" for nowhere
    /// [default: /var/lib/portcullis/history, or none with another --socket].
    #[arg(long, value_name = "DIR")]
    pub history: Option<PathBuf>,
    /// Keep so many records [default: 1000].
    #[arg(long, value_name = "RECORDS", value_parser = value_parser!(u64).range(2..=100_000))]
    pub history_keep: Option<u64>,
    /// Keep them so long [default: 400].
    #[arg(long, value_name = "DAYS", value_parser = value_parser!(u64).range(1..=36_500))]
    pub history_days: Option<u64>,
    /// Refuse changes without this: reason, approver or ticket; may be given more than once.
    #[arg(long, value_name = "WHAT")]
    pub require: Vec<Evidence>,
    /// After a change a TCP connection to this must be possible, or the change is undone; may
    /// be given more than once.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub probe: Vec<Probe>,
    /// Refuse policies that are not as this matrix of flows says.
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Run it against the policy in force so often; 0: never [default: 300].
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(0..=604_800))]
    pub matrix_interval: Option<u64>,
}

impl Keeping {
    /// What these flags add to what others say of the keys.
    pub(super) fn layer(&self, others: Layer) -> Layer {
        let history = self.history.clone().map(|path| Some(StateFile::from(path)));
        let require = (!self.require.is_empty()).then(|| Words(self.require.clone()));
        let probes = (!self.probe.is_empty()).then(|| Words(self.probe.clone()));
        Layer {
            history_dir: Given::flag(history),
            history_keep: Given::flag(self.history_keep.map(Whole)),
            history_days: Given::flag(self.history_days.map(Whole)),
            require: Given::flag(require),
            probes: Given::flag(probes),
            matrix: Given::flag(self.matrix.clone().map(Some)),
            matrix_interval: Given::flag(self.matrix_interval.map(Whole)),
            ..others
        }
    }
}
