//! The session guard: would a new policy cut the connection that it is applied from?
//!
//! [`find`] is the client's side: which connection is the operator's? [`judge`] is the
//! daemon's: the next packets of that connection, with what the connection table knows
//! of it, and a new connection like it, go through the new policy on the engine of the
//! data path, over the real network and a table of its own. Nothing is published,
//! counted or sent, and limits are fresh. [`flows`] asks the same of every live flow.

pub mod find;
pub mod flows;
pub(crate) mod judge;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub use judge::{Cut, Ground, Surroundings, Verdict, judge};

/// A TCP connection from an operator to this machine, as the service here sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The operator's end.
    pub client: SocketAddr,
    /// The end here.
    pub server: SocketAddr,
    /// The interface that a link-local address belongs to.
    pub device: Option<String>,
}

/// Words that name no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no session: write CLIENT CPORT SERVER SPORT, as SSH_CONNECTION has it")]
pub struct SessionError(String);

impl FromStr for Session {
    type Err = SessionError;

    fn from_str(text: &str) -> Result<Self, SessionError> {
        let refused = || SessionError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let [client, client_port, server, server_port] = words[..] else { return Err(refused()) };
        let mut device = None;
        let mut end = |address: &str, port: &str| -> Option<SocketAddr> {
            let (address, scope) = address.split_once('%').unwrap_or((address, ""));
            if !scope.is_empty() {
                device = Some(scope.to_owned());
            }
            let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
            Some(SocketAddr::new(plain(address.parse().ok()?), port))
        };
        let client = end(client, client_port).ok_or_else(refused)?;
        let server = end(server, server_port).ok_or_else(refused)?;
        if client.is_ipv4() != server.is_ipv4() {
            return Err(refused());
        }
        Ok(Self { client, server, device })
    }
}

/// An IPv4 address that a socket of both families wrote as an IPv6 one is an IPv4 one.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => mapped(v6),
        v4 => v4,
    }
}

fn mapped(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

impl fmt::Display for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, server, .. } = self;
        let (client_port, server_port) = (client.port(), server.port());
        write!(out, "{} port {client_port} to {} port {server_port}", client.ip(), server.ip())
    }
}
