//! What is written as one element, and the elements that it stands for.

use dataplane::sets::Element;

/// What an address or network of an element stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// What is in the template.
    One,
    /// Addresses from the first to the last, `step` apart.
    Step { from: u32, to: u32, step: u64 },
    /// The fewest prefixes that hold the range and nothing else.
    Split { from: u32, to: u32 },
}

/// An element as written; it may stand for many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(super) template: Element,
    pub(super) first: Run,
    pub(super) second: Run,
    pub(super) ports: (u16, u16),
}

impl Written {
    pub(super) fn of(template: Element) -> Self {
        Self { template, first: Run::One, second: Run::One, ports: (0, 0) }
    }

    /// Another element, with the same members beside it.
    pub(crate) fn template_mut(&mut self) -> &mut Element {
        &mut self.template
    }

    /// Whether it may stand for more than one element.
    pub(crate) fn is_many(&self) -> bool {
        self.first != Run::One || self.second != Run::One || self.ports.0 != self.ports.1
    }

    /// How many elements, but for networks of a range, which are few.
    pub(super) fn count(&self) -> u64 {
        let run = |run| match run {
            Run::Step { from, to, step } => u64::from(to - from) / step + 1,
            Run::One | Run::Split { .. } => 1,
        };
        let ports = u64::from(self.ports.1 - self.ports.0) + 1;
        run(self.first).saturating_mul(run(self.second)).saturating_mul(ports)
    }

    /// The first element.
    pub(crate) fn first(&self) -> Element {
        let mut found = self.template;
        let _ = self.each(|element| {
            found = *element;
            Err(())
        });
        found
    }

    /// Every element, in the kernel's order.
    ///
    /// # Errors
    /// The first that `f` gives.
    pub(crate) fn each<E>(&self, mut f: impl FnMut(&Element) -> Result<(), E>) -> Result<(), E> {
        let mut element = self.template;
        if !self.is_many() {
            return f(&element);
        }
        on(self.first, |first| {
            if let Some((address, len)) = first {
                (element.ip, element.cidr) = (address.into(), len);
            }
            for port in self.ports.0..=self.ports.1 {
                if self.ports != (0, 0) {
                    element.port = port;
                }
                on(self.second, |second| {
                    if let Some((address, len)) = second {
                        (element.ip2, element.cidr2) = (address.into(), len);
                    }
                    f(&element)
                })?;
            }
            Ok(())
        })
    }
}

/// Calls `f` for every address or network of a run; with `None` for what is written as one.
fn on<E>(run: Run, mut f: impl FnMut(Option<(u32, Option<u8>)>) -> Result<(), E>) -> Result<(), E> {
    match run {
        Run::One => f(None),
        Run::Step { from, to, step } => {
            let mut at = u64::from(from);
            while at <= u64::from(to) {
                f(Some((at as u32, None)))?;
                at += step;
            }
            Ok(())
        }
        Run::Split { from, to } => {
            let (mut at, end) = (u64::from(from), u64::from(to) + 1);
            while at < end {
                // As large as its place and what is left allow.
                let aligned = if at == 0 { 32 } else { at.trailing_zeros() };
                let fits = (end - at).ilog2();
                let host = aligned.min(fits);
                f(Some((at as u32, Some(32 - host as u8).filter(|len| *len < 32))))?;
                at += 1 << host;
            }
            Ok(())
        }
    }
}
