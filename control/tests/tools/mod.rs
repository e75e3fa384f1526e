//! The kernel's own tools, asked what they load and how they print it, and choices for
//! generated lines.

use std::fs;
use std::path::Path;

use crate::netns::Namespace;

/// A small generator of choices: equal seeds give equal choices.
pub(crate) struct Picker(pub(crate) u64);

impl Picker {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// One of these.
    pub(crate) fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Writes a file with rules of one table where [`printed`] finds it.
pub(crate) fn write(directory: &Path, index: usize, table: &str, text: &str) {
    fs::write(directory.join(format!("{index:05}.rules")), text).expect("the directory is ours");
    fs::write(directory.join(format!("{index:05}.rules.table")), table).expect("ours as well");
}

/// What one tool (`iptables-legacy`, ...) prints after loading each of so many files;
/// nothing for those that it refuses.
pub(crate) fn printed(
    namespace: &Namespace,
    directory: &Path,
    tool: &str,
    files: usize,
) -> Vec<Option<String>> {
    let place = directory.display();
    namespace.run(&format!(
        "cd {place} && for f in *.rules; do \
           if {tool}-restore < $f > /dev/null 2>&1; \
           then {tool}-save -t $(cat $f.table) 2>/dev/null | grep -v '^#' > $f.{tool}; fi; \
           {tool} -t $(cat $f.table) -F 2>/dev/null; done; true"
    ));
    let read =
        |index: usize| fs::read_to_string(directory.join(format!("{index:05}.rules.{tool}"))).ok();
    (0..files).map(read).collect()
}
