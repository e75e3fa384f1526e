//! Settings as text that loads again, as values, and the reference of all keys.

use std::fmt::Write;
use std::path::Path;

use super::table::{Line, Origin};
use super::{Configured, Effect, KEYS, Key, Settings};
use crate::api::protocol::{ConfigChange, ConfigEntry, ConfigInfo};

/// One key in force, with where it comes from in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The whole path.
    pub name: String,
    /// The value, if it is set.
    pub value: Option<toml::Value>,
    /// `default`, `FILE:LINE`, or the flag.
    pub origin: String,
    /// When a change holds.
    pub effect: Effect,
}

impl Settings {
    /// Every key, in the order of the reference; a table without entries is a key that is
    /// not set. `file` is where [`Origin::File`] points.
    pub fn shown(&self, file: Option<&Path>) -> Vec<Shown> {
        KEYS.iter().flat_map(|key| self.of_key(key, file)).collect()
    }

    fn of_key(&self, key: &Key, file: Option<&Path>) -> Vec<Shown> {
        let show = |Line { name, value, origin }| {
            let origin = said(key, origin, file);
            Shown { name, value, origin, effect: key.effect }
        };
        let mut lines = key.lines(self);
        if lines.is_empty() {
            let name = key.name.to_owned();
            lines.push(Line { name, value: None, origin: Origin::Default });
        }
        lines.into_iter().map(show).collect()
    }

    /// As a file that says the same, with a remark on every key.
    pub fn text(&self, file: Option<&Path>) -> String {
        let mut text = String::new();
        let mut table = "";
        for key in KEYS {
            let (within, _) = key.place();
            if within != table {
                table = within;
                let _ = write!(text, "\n[{table}]\n");
            }
            for Shown { name, value, origin, .. } in self.of_key(key, file) {
                let name =
                    name.strip_prefix(within).map_or(&*name, |it| it.trim_start_matches('.'));
                // Into a comment, and so on one line.
                let origin = origin.replace(char::is_control, "?");
                let _ = match value {
                    Some(value) => writeln!(text, "{name} = {value}  # {origin}"),
                    None => writeln!(text, "# {name} is not set"),
                };
            }
        }
        text
    }
}

impl Configured {
    /// As the control socket and `config show` tell it.
    pub fn info(&self, pending: Vec<ConfigChange>) -> ConfigInfo {
        let file = self.source.file.as_deref();
        let entries = self.settings.shown(file).into_iter().map(|shown| ConfigEntry {
            key: shown.name,
            value: shown.value.as_ref().and_then(|value| serde_json::to_value(value).ok()),
            origin: shown.origin,
            effect: shown.effect,
        });
        ConfigInfo {
            file: file.map(|file| file.display().to_string()),
            entries: entries.collect(),
            pending,
            text: self.settings.text(file),
        }
    }
}

/// Where a value comes from, in a word.
fn said(key: &Key, origin: Origin, file: Option<&Path>) -> String {
    match (origin, file) {
        (Origin::Default, _) => "default".to_owned(),
        (Origin::Flag, _) => key.flag.to_owned(),
        (Origin::File(at), Some(file)) => format!("{}:{}", file.display(), at.line),
        (Origin::File(at), None) => format!("line {}", at.line),
    }
}

/// The reference of all keys as a table of Markdown.
pub fn reference() -> String {
    let mut text = "| key | value | default | a change holds | flag | meaning |\n".to_owned();
    text += "|---|---|---|---|---|---|\n";
    for key in KEYS {
        let default = key.default().filter(|value| !is_empty(value));
        let default = default.map_or_else(|| "unset".to_owned(), |value| format!("`{value}`"));
        let flag = if key.flag.is_empty() { String::new() } else { format!("`{}`", key.flag) };
        let _ = writeln!(
            text,
            "| `{}` | {} | {default} | {} | {flag} | {} |",
            key.name,
            key.shape(),
            effect(key.effect),
            key.summary()
        );
    }
    text
}

fn is_empty(value: &toml::Value) -> bool {
    value.as_table().is_some_and(toml::Table::is_empty)
}

/// In words.
pub fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Live => "live",
        Effect::Restart => "after a restart",
    }
}
