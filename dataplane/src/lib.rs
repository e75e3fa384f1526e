//! What happens to this packet?
//!
//! The data plane: wire formats, connection tracking, the compiled policy and
//! its walk, routing, the burst engine, and the ports that feed it. It knows
//! nothing of rule text, files or sockets to operators.
//!
//! The packet's road is `port -> wire -> conntrack -> policy -> fib -> rewrite
//! -> port`, driven by [`engine`]. The engine does no I/O and reads no clock.

pub mod clock;
pub mod conntrack;
pub mod effects;
pub mod engine;
pub mod fib;
pub mod frame;
pub mod helper;
pub mod logbook;
pub mod nat;
pub mod packet;
pub mod plan;
pub mod policy;
pub mod port;
mod prefetch;
pub mod publish;
pub mod reassembly;
pub mod reply;
pub mod sets;
pub mod snapshot;
pub mod stats;
pub mod synproxy;
pub mod tap;
pub mod verdict;
pub mod wire;
pub mod worker;
mod zone;
