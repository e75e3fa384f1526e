//! Connections that SYNPROXY opened: what their second half must remember.

use super::status::PROXIED;
use super::tcp::{TcpConn, TcpState};
use super::{ConnId, Conntrack};
use crate::synproxy::Cookies;

/// What SYNPROXY keeps with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The number that the client knows the server's stream to begin with: our cookie.
    pub(crate) cookie: u32,
    /// The timestamp that the client saw in our answer.
    pub(crate) stamp: u32,
    /// How far the server's clock is ahead of it.
    pub(crate) stamp_offset: u32,
}

/// A connection that SYNPROXY opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// Where its handshake with the server stands.
    pub(crate) state: TcpState,
    /// The largest window that the client said, unscaled.
    pub(crate) client_window: u16,
    /// What is kept.
    pub(crate) numbers: Numbers,
}

impl Conntrack {
    /// Gives out SYN cookies, and knows them again.
    pub fn cookies(&self) -> &Cookies {
        &self.cookies
    }

    /// SYNPROXY opens this connection.
    pub(crate) fn set_proxied(&self, id: ConnId) {
        if let Some(entry) = self.store.lock(id) {
            entry.add_status(PROXIED);
        }
    }

    /// The connection, if SYNPROXY opened it; also while the packet that ended it
    /// is still on its way.
    pub(crate) fn proxied(&self, id: ConnId) -> Option<Proxied> {
        if self.store.status(id)? & PROXIED == 0 {
            return None;
        }
        let tcp = TcpConn::unpack(&self.store.contents(id)?.proto);
        let (cookie, stamp, stamp_offset) = self.store.extras(id)?.1.synproxy();
        let numbers = Numbers { cookie, stamp, stamp_offset };
        let client_window = tcp.opener_window().min(u32::from(u16::MAX)) as u16;
        Some(Proxied { state: tcp.state(), client_window, numbers })
    }

    /// Keeps other numbers.
    pub(crate) fn set_proxied_numbers(&self, id: ConnId, numbers: Numbers) {
        let Some(entry) = self.store.lock(id) else { return };
        let Numbers { cookie, stamp, stamp_offset } = numbers;
        entry.update_extras(|extras| extras.set_synproxy((cookie, stamp, stamp_offset)));
    }
}
