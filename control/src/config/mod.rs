//! The configuration file: `/etc/portcullis/portcullis.toml`, or another by `run --config`.
//!
//! Every setting of `run` is a key ([`KEYS`]). The command line beats the file, the file
//! beats the defaults, key by key ([`Settings::of`]); a table's entries
//! (`conntrack.settings`, `conntrack.timeouts`) are keys in this sense. Unknown keys and
//! bad values are all refused, each with its place. Relative paths in the file begin at
//! the file's directory, those of flags at the working directory.

mod alerts;
mod change;
mod conntrack;
mod keys;
mod lint;
mod management;
mod metrics;
mod plan;
mod pressure;
mod reader;
mod resolve;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::io::Read;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::alerts::Webhooks;
pub use self::change::{Evidence, Probe, Words};
pub use self::conntrack::{SettingTable, TimeoutTable};
pub use self::lint::{LintTable, nearest_code};
pub use self::management::Managers;
pub use self::metrics::Listen;
pub use self::pressure::Profiles;
pub use keys::{KEYS, Layer, Settings};
pub use plan::{Change, Plan, plan};
pub use reader::{Reader, Span, meant, read};
pub use show::{Shown, effect, reference};
pub use table::{Effect, Entry, Given, Key, Line, Origin, Value};
pub use values::{
    AttachName, CaptureFilesName, CaptureLinkName, HostRoadName, ModeName, OnFailureName, Pairs,
    Paths, Ports, StateFile, UserName, Whole, ZeroCopyName,
};

use crate::diagnostics::{Code, Finding, Severity};

/// The file that is read when neither `--config` nor `--port` is given.
pub const DEFAULT_FILE: &str = "/etc/portcullis/portcullis.toml";
/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/portcullis/control.sock";
/// Where connections and limits are kept by the daemon on that socket.
pub const DEFAULT_STATE: &str = "/var/lib/portcullis/state/conntrack";
/// Where every policy is recorded by the daemon on that socket.
pub const DEFAULT_HISTORY: &str = "/var/lib/portcullis/history";
/// Where files of sets are looked for.
pub const DEFAULT_SETS: &str = "/etc/portcullis/sets";
/// Where links are kept that outlive the daemon.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/portcullis";
/// Longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// What the command line says.
    pub flags: Layer,
}

/// Settings with their source, which can be read again.
#[derive(Clone, Debug)]
pub struct Configured {
    /// Where they come from.
    pub source: Source,
    /// As they are.
    pub settings: Settings,
    /// The file's text.
    pub text: Option<String>,
}

/// A configuration file that is refused.
#[derive(Clone, Debug, Error)]
#[error("the configuration is refused")]
pub struct Refused {
    /// Why and where.
    pub findings: Vec<Finding>,
    /// The file's text.
    pub text: String,
}

/// Keys that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}")]
pub struct Conflict {
    /// The key that is at fault.
    pub key: &'static str,
    /// Where its value comes from.
    pub origin: Origin,
    /// What is wrong.
    pub problem: String,
}

impl Conflict {
    fn new(key: &'static str, origin: Origin, problem: String) -> Self {
        Self { key, origin, problem }
    }

    /// As a finding in `file`, if that is where the key is.
    pub fn finding(&self, file: &Path) -> Option<Finding> {
        let Origin::File(at) = self.origin else { return None };
        let file = file.display().to_string().into();
        Some(Finding::new(Severity::Error, Code::BadValue, &file, at, self.problem.clone()))
    }
}

impl Source {
    /// Reads the file and lays the command line over it.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn load(&self) -> Result<Configured, Refused> {
        let (below, text) = match &self.file {
            None => (Layer::default(), None),
            Some(file) => {
                let text = text_of(file)?;
                match read(&text, file) {
                    Ok(layer) => (layer, Some(text)),
                    Err(findings) => return Err(Refused { findings, text }),
                }
            }
        };
        let settings = Settings::of(&self.flags, &below);
        Ok(Configured { source: self.clone(), settings, text })
    }
}

/// A file's text, bounded.
fn text_of(path: &Path) -> Result<String, Refused> {
    let refuse = |code, message: String| {
        let file = path.display().to_string().into();
        let finding = Finding::new(Severity::Error, code, &file, Span::default(), message);
        Refused { findings: vec![finding], text: String::new() }
    };
    let unreadable =
        |error: std::io::Error| refuse(Code::Unreadable, format!("cannot be read: {error}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(refuse(Code::TooLong, format!("is longer than {LONGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refuse(Code::BadEncoding, format!("is not UTF-8 from byte {at} on"))
    })
}
