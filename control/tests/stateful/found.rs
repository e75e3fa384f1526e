//! Findings that are kept: shrunken scripts, each a file and a named test.

use std::path::PathBuf;

use super::script::Batch;

/// The script of that name in `stateful/found/`.
pub fn script(name: &str) -> Batch {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stateful/found");
    let file = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&file);
    Batch::from_text(&text.unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}
