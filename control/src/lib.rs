//! What does the operator mean?
//!
//! The rule's road is `iptables (text) -> model -> compile -> self-check ->
//! apply`, with `interpret` as its oracle. Around it: replay, explain, the
//! daemon with its control socket and its state file, and the command line. It does not know how
//! a frame is received.

pub mod alert;
pub mod api;
pub mod apply;
mod aside;
pub mod audit;
pub mod check;
pub mod cli;
pub mod compile;
pub mod config;
pub mod conntrack;
pub mod daemon;
pub mod diagnostics;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod exposure;
pub mod guard;
pub mod history;
pub mod interpret;
pub mod ipset;
pub mod iptables;
pub mod lint;
pub mod log;
pub mod matrix;
pub mod metrics;
pub mod model;
pub mod net;
pub mod objects;
pub mod pressure;
pub mod region;
pub mod replay;
pub mod selfcheck;
pub mod state;
pub mod top;
pub mod trace;
