//! The same text loaded by the kernel's tools, into a namespace of its own.

use std::io::Write;
use std::process::{Command, Stdio};

use dataplane::packet::Family;
use serde_json::json;

use super::Error;
use crate::clock::Stopwatch;

/// A network namespace that goes with it.
pub(super) struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Place {
    pub(super) fn new() -> Result<Self, Error> {
        let name = format!("ptl-swap-{}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).status()?;
        made.success().then_some(Self(name)).ok_or_else(|| "no namespace could be made".into())
    }

    fn feed(&self, tool: &str, words: &[&str], text: &str) -> Result<(u64, bool), Error> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, tool]).args(words);
        let watch = Stopwatch::start();
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        child.stdin.take().ok_or("no pipe")?.write_all(text.as_bytes())?;
        let good = child.wait()?.success();
        Ok((watch.elapsed_ns(), good))
    }

    /// One line for each tool that there is and that takes the text. The second load
    /// replaces rules, as a swap does.
    pub(super) fn measure(
        &self,
        family: Family,
        rules: usize,
        sets: &str,
        text: &str,
    ) -> Result<(), Error> {
        for tool in ["legacy", "nft"] {
            let six = if family == Family::V6 { "6" } else { "" };
            let tool = format!("ip{six}tables-{tool}-restore");
            let _ = self.feed("ipset", &["restore", "-exist"], sets);
            let mut times = Vec::new();
            for _ in 0..2 {
                match self.feed(&tool, &["-c"], text) {
                    Ok((ns, true)) => times.push((ns as f64 / 1e4).round() / 100.0),
                    _ => break,
                }
            }
            let _ = self.feed(&tool, &[], "*filter\nCOMMIT\n*nat\nCOMMIT\n");
            let line = json!({
                "bench": "swap", "side": tool, "rules": rules,
                "family": format!("{family:?}"), "load_ms": times,
            });
            println!("{line}");
        }
        Ok(())
    }
}
