//! The log lines about ports: every change at first, a summary when there are many.

use std::collections::BTreeMap;

use dataplane::clock::Nanos;
use dataplane::packet::PortId;

/// Lines about one port that are written at once.
const BURST: u32 = 8;
/// And then one in this time.
const REFILL: Nanos = Nanos::from_secs(5);

/// One port's lines.
#[derive(Debug)]
struct Teller {
    tokens: u32,
    refilled: Nanos,
    /// Lines withheld since one was written, and the last of them.
    withheld: u32,
    last: Option<(bool, String)>,
    /// Whether the link was up when that was last told of.
    up: bool,
}

impl Default for Teller {
    fn default() -> Self {
        Self { tokens: BURST, refilled: Nanos(0), withheld: 0, last: None, up: true }
    }
}

impl Teller {
    /// The line to be written now, if any.
    fn say(&mut self, now: Nanos, grave: bool, text: String) -> Option<(bool, String)> {
        self.last = Some((grave, text));
        self.withheld += 1;
        self.tick(now)
    }

    /// A line that was withheld, when its time has come.
    fn tick(&mut self, now: Nanos) -> Option<(bool, String)> {
        let periods = now.saturating_sub(self.refilled).0 / REFILL.0;
        if periods > 0 {
            self.tokens = (u64::from(self.tokens) + periods).min(u64::from(BURST)) as u32;
            self.refilled = now;
        }
        if self.tokens == 0 {
            return None;
        }
        let (grave, text) = self.last.take()?;
        self.tokens -= 1;
        let before = std::mem::take(&mut self.withheld) - 1;
        match before {
            0 => Some((grave, text)),
            _ => Some((grave, format!("{text} ({before} changes before that are not shown)"))),
        }
    }
}

/// The lines about all ports.
#[derive(Debug)]
pub(in crate::daemon) struct Reports {
    names: Vec<String>,
    tellers: BTreeMap<PortId, Teller>,
}

impl Reports {
    pub(in crate::daemon) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), tellers: BTreeMap::new() }
    }

    /// Says something of a port, now or with what follows.
    pub(in crate::daemon) fn say(&mut self, port: PortId, now: Nanos, grave: bool, text: String) {
        let line = self.tellers.entry(port).or_default().say(now, grave, text);
        self.write(port, line);
    }

    /// Says that a link went up or down, which every worker notices.
    pub(in crate::daemon) fn link(&mut self, port: PortId, now: Nanos, up: bool) {
        let teller = self.tellers.entry(port).or_default();
        if std::mem::replace(&mut teller.up, up) != up {
            let text = if up { "link up" } else { "link down" };
            self.say(port, now, !up, text.to_owned());
        }
    }

    /// Says what was withheld and may be said now.
    pub(in crate::daemon) fn tick(&mut self, now: Nanos) {
        let due = self.tellers.iter_mut().map(|(port, teller)| (*port, teller.tick(now)));
        let due: Vec<_> = due.filter(|(_, line)| line.is_some()).collect();
        for (port, line) in due {
            self.write(port, line);
        }
    }

    fn write(&self, port: PortId, line: Option<(bool, String)>) {
        let name = self.names.get(port.index()).map_or("?", String::as_str);
        match line {
            Some((true, text)) => tracing::warn!("{name}: {text}"),
            Some((false, text)) => tracing::info!("{name}: {text}"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_summed_up_and_its_end_is_told() {
        let mut teller = Teller::default();
        let at = |millis| Nanos::from_secs(100) + Nanos::from_millis(millis);
        let mut lines = Vec::new();
        for flap in 0..1000u64 {
            lines.extend(teller.say(at(flap * 20), true, format!("change {flap}")));
        }
        // Twenty seconds: the first ones, and one each five seconds.
        assert_eq!(lines.len(), 8 + 3, "{lines:#?}");
        assert_eq!(lines[7].1, "change 7");
        assert!(lines[8].1.ends_with("changes before that are not shown)"), "{lines:?}");
        let end = teller.tick(at(25_000)).expect("the last state is told in the end");
        assert!(end.1.starts_with("change 999 ("), "{end:?}");
        assert_eq!(teller.tick(at(60_000)), None, "and only once");
        assert_eq!(teller.say(at(60_000), false, "quiet".into()), Some((false, "quiet".into())));
    }
}
