//! What the page says that no bench measures: texts, and why a budget is missed.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The notes' file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notes {
    /// By budget: why it is missed and what was tried, or what to know of a met one.
    #[serde(default)]
    pub(super) budgets: BTreeMap<String, String>,
    /// Sections at the end of the page, in order.
    #[serde(default)]
    pub(super) section: Vec<Section>,
}

/// A section of the page.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    pub(super) title: String,
    pub(super) text: String,
}

impl Notes {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it, with its place.
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
