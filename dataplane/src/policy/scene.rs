//! What rules may ask of the world besides the packet and its connection.

use std::cell::RefCell;

use crate::clock::Nanos;
use crate::nat::Random;

/// The same for a whole burst.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What to add to the burst's time for the time since 1970.
    pub utc_offset: Nanos,
    /// The kernel's time zone: minutes west of Greenwich.
    pub minutes_west: i32,
    /// The core that the worker is pinned to, or its number.
    pub cpu: u32,
    /// Where chance comes from.
    pub dice: &'a Dice,
}

#[cfg(test)]
impl Scene<'static> {
    /// No time of day, the first core, no luck.
    pub(crate) fn still() -> Self {
        thread_local!(static DICE: &'static Dice = Box::leak(Box::default()));
        Self { utc_offset: Nanos(0), minutes_west: 0, cpu: 0, dice: DICE.with(|dice| *dice) }
    }
}

/// Who sends a packet of this machine's own: the credentials with which its socket was
/// opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group, where it is known.
    pub gid: Option<u32>,
    /// The supplementary groups, where they are known.
    pub groups: Option<&'static [u32]>,
}

/// Whose socket a packet of this machine's own came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sender {
    /// None: it was forwarded, or made here without a socket, or its socket was closed.
    #[default]
    Nobody,
    /// A socket of the kernel's own, as for ICMP errors and resets.
    Kernel,
    /// A user's.
    User(Owner),
    /// There was no telling.
    Untold,
}

impl Sender {
    /// The user, if it is one's.
    pub fn owner(self) -> Option<Owner> {
        match self {
            Self::User(owner) => Some(owner),
            _ => None,
        }
    }
}

/// A generator of chances: equal seeds give equal throws.
#[derive(Clone, Debug, Default)]
pub struct Dice(RefCell<Random>);

impl Dice {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(RefCell::new(Random::new(seed)))
    }

    /// 32 bits.
    pub fn throw(&self) -> u32 {
        (self.0.borrow_mut().word() >> 32) as u32
    }
}
