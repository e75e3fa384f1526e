//! The daemon: one process that owns ports, workers, the network mirror, the
//! running policy and the control socket.

pub mod preflight;
