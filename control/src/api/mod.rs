//! The control socket: one versioned request/response protocol over a Unix
//! stream socket, used by the command line and open to other programs.
//!
//! `frame` cuts the stream into messages, `protocol` says what they mean,
//! `server` decides who may speak and for how long, `client` is the other
//! side. `docs/control-socket.md` is the specification; a test holds every
//! example in it against [`protocol`].

pub mod client;
pub mod frame;
pub mod protocol;
pub mod server;

pub use client::{Client, ClientError};
pub use protocol::{Code, Failure, PROTOCOL_VERSION, Request, Response};
pub use server::{Feed, Handler, Peer, Server, ServerError};

#[cfg(test)]
mod tests;
