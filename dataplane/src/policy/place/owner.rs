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
}

impl OwnerMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        // What is asked of nobody holds if it is asked the other way round.
        let nobody = self.uid.is_none_or(|uid| uid.negated);
        let no_socket_wanted = self.socket == Some(true);
        match packet.sender {
            Sender::Nobody => (self.socket != Some(false) && nobody).into(),
            // To let it pass could be as wrong as not to.
            Sender::Untold => Outcome::Hotdrop,
            _ if no_socket_wanted => Outcome::No,
            Sender::Kernel => nobody.into(),
            Sender::User(Owner { uid: user, .. }) => {
                self.uid.is_none_or(|uid| uid.apply(uid.value.contains(user))).into()
            }
        }
    }
}
