//! `-m physdev`: over which ports of a kernel's bridge a packet passes.
//!
//! No packet here has come over one: our ports belong to none. So what is asked holds if
//! all of it is asked the other way round, as in the kernel for what it only routes.

use crate::policy::matches::Neg;

/// `-m physdev`. Names may end in `+`; of the others, whether they are negated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PhysdevMatch {
    /// `--physdev-is-in`.
    pub is_in: Option<bool>,
    /// `--physdev-in`.
    pub input: Option<Neg<Box<str>>>,
    /// `--physdev-is-out`.
    pub is_out: Option<bool>,
    /// `--physdev-out`.
    pub output: Option<Neg<Box<str>>>,
    /// `--physdev-is-bridged`.
    pub is_bridged: Option<bool>,
}

impl PhysdevMatch {
    /// Whether it asks for the port that a packet leaves by, other than for one that is
    /// surely bridged.
    pub fn asks_way_out(&self) -> bool {
        (self.is_out.is_some() || self.output.is_some()) && self.is_bridged != Some(false)
    }

    pub(super) fn holds_unbridged(&self) -> bool {
        let named = [&self.input, &self.output].map(|it| it.as_ref().map(|name| name.negated));
        let asked = [self.is_in, self.is_out, self.is_bridged].into_iter().chain(named);
        asked.flatten().all(|negated| negated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_the_other_way_round_holds() {
        let name = |negated| Some(Neg { negated, value: "eth0".into() });
        let plain = PhysdevMatch { input: name(false), ..PhysdevMatch::default() };
        assert!(!plain.holds_unbridged());
        let negated = PhysdevMatch { input: name(true), is_out: Some(true), ..plain };
        assert!(negated.holds_unbridged());
        assert!(!PhysdevMatch { is_bridged: Some(false), ..negated.clone() }.holds_unbridged());
        assert!(negated.asks_way_out());
        assert!(!PhysdevMatch { is_bridged: Some(false), ..negated }.asks_way_out());
    }
}
