//! `-m owner`: whose socket a packet of this machine's own came from.

use crate::policy::eval::{Outcome, PacketView};
use crate::policy::matches::{Neg, Range};
use crate::policy::scene::{Owner, Sender};

/// `-m owner`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerMatch {
    /// `--socket-exists`; `Some(true)`: negated.
    pub socket: Option<bool>,
    /// `--uid-owner`: the user who opened the socket.
    pub uid: Option<Neg<Range<u32>>>,
    /// `--gid-owner`: the group with which it was opened.
    pub gid: Option<Neg<Range<u32>>>,
    /// `--suppl-groups`: or one of the user's other groups then.
    pub supplementary: bool,
}

impl OwnerMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        self.holds_for(packet.sender)
    }

    fn holds_for(&self, sender: Sender) -> Outcome {
        // What is asked of nobody holds if it is asked the other way round.
        let inverted = |asked: Option<Neg<Range<u32>>>| asked.is_none_or(|it| it.negated);
        let of_nobody = inverted(self.uid) && inverted(self.gid);
        let no_socket_wanted = self.socket == Some(true);
        match sender {
            Sender::Nobody => {
                // `--suppl-groups` cannot be asked the other way round.
                (self.socket != Some(false) && of_nobody && !self.supplementary).into()
            }
            // To let it pass could be as wrong as not to.
            Sender::Untold => Outcome::Hotdrop,
            _ if no_socket_wanted => Outcome::No,
            Sender::Kernel => of_nobody.into(),
            Sender::User(owner) => self.asks_for(owner),
        }
    }

    fn asks_for(&self, owner: Owner) -> Outcome {
        if !self.uid.is_none_or(|uid| uid.apply(uid.value.contains(owner.uid))) {
            return Outcome::No;
        }
        let Some(wanted) = self.gid else { return Outcome::Yes };
        match self.is_of_group(wanted.value, owner) {
            Some(is) => wanted.apply(is).into(),
            None => Outcome::Hotdrop,
        }
    }

    /// `None`: there is no telling.
    fn is_of_group(&self, wanted: Range<u32>, owner: Owner) -> Option<bool> {
        let own = wanted.contains(owner.gid?);
        if own || !self.supplementary {
            return Some(own);
        }
        Some(owner.groups?.iter().any(|group| wanted.contains(*group)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn asked(negated: bool, low: u32, high: u32) -> Option<Neg<Range<u32>>> {
        Some(Neg { negated, value: Range { low, high } })
    }

    fn user(uid: u32, gid: Option<u32>, groups: Option<&'static [u32]>) -> Sender {
        Sender::User(Owner { uid, gid, groups })
    }

    #[test]
    fn groups_are_asked_for_as_the_kernel_asks() {
        use Outcome::{Hotdrop, No, Yes};
        let group = OwnerMatch { gid: asked(false, 5, 7), ..OwnerMatch::default() };
        let no_group = OwnerMatch { gid: asked(true, 5, 7), ..OwnerMatch::default() };
        let any = OwnerMatch { supplementary: true, ..group };
        let none = OwnerMatch { supplementary: true, ..no_group };
        let both = OwnerMatch { uid: asked(false, 1, 1), ..group };
        let (mine, others) = (user(1, Some(6), Some(&[])), user(1, Some(9), Some(&[3, 7])));
        let (many, closed) = (user(1, Some(9), None), user(2, None, None));
        let cases = [
            (group, [Yes, No, No, Hotdrop, No, No, Hotdrop]),
            (no_group, [No, Yes, Yes, Hotdrop, Yes, Yes, Hotdrop]),
            (any, [Yes, Yes, Hotdrop, Hotdrop, No, No, Hotdrop]),
            (none, [No, No, Hotdrop, Hotdrop, Yes, No, Hotdrop]),
            (both, [Yes, No, No, No, No, No, Hotdrop]),
        ];
        for (wanted, outcomes) in cases {
            let senders =
                [mine, others, many, closed, Sender::Kernel, Sender::Nobody, Sender::Untold];
            for (sender, outcome) in senders.into_iter().zip(outcomes) {
                assert_eq!(wanted.holds_for(sender), outcome, "{wanted:?} of {sender:?}");
            }
        }
    }
}
