//! Stateful differential fuzzing: scripts of abstract packets about flows, made
//! concrete for each side from what that side itself emitted, and run through
//! the kernel and through Portcullis in lockstep.

#![allow(unreachable_pub, reason = "one crate's inner interface")]

pub mod bijection;
pub mod concrete;
pub mod found;
pub mod generate;
pub mod lockstep;
pub mod nat;
pub mod policy;
pub mod script;
pub mod sctp;
pub mod shrink;
pub mod tcp;
