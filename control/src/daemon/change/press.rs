//! Policies that are put in force under pressure, and taken back when it is gone.

use super::Order;
use crate::api::protocol::{Terms, Why};
use crate::api::{Failure, Peer};
use crate::daemon::policy::Texts;
use crate::daemon::service::Service;
use crate::history::{Action, PolicyRef};

/// What a profile has put in force, and what was there.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Pressed {
    before: Texts,
    policy: String,
}

fn terms(reason: &str) -> Terms {
    let why = Why { reason: Some(reason.to_owned()), ..Why::default() };
    Terms { why, ..Terms::default() }
}

const WHO: &str = "the daemon (pressure)";

impl Service {
    /// Puts a profile's policy in force. Sets stay.
    ///
    /// # Errors
    /// It cannot be now: a change is at work, or waits for its confirmation.
    pub(in crate::daemon) fn press(&self, texts: &Texts, reason: &str) -> Result<Pressed, Failure> {
        let _turn = self.ledger().begin(Action::Pressure, WHO)?;
        let order = Order::of(Action::Pressure, texts, terms(reason), Peer::default());
        let order = Order { keep_sets: true, ..order };
        self.ledger().admit(&order)?;
        let before = self.ledger().book().texts.clone();
        let applied = self.change_in_turn(&order)?;
        Ok(Pressed { before, policy: applied.policy })
    }

    /// Puts back what was there, unless somebody has changed the policy meanwhile.
    ///
    /// # Errors
    /// As [`Self::press`].
    pub(in crate::daemon) fn relieve(
        &self,
        pressed: &Pressed,
        reason: &str,
    ) -> Result<bool, Failure> {
        let _turn = self.ledger().begin(Action::Pressure, WHO)?;
        if PolicyRef::of(&self.ledger().book().texts).id != pressed.policy {
            return Ok(false);
        }
        let order = Order::of(Action::Pressure, &pressed.before, terms(reason), Peer::default());
        self.ledger().admit(&order)?;
        self.restore(order, &pressed.before).map(|_| true)
    }
}
