//! Scripts of packets before two routers. See [`script`].

#![allow(unreachable_pub, reason = "one crate's inner interface")]

pub mod compare;
pub mod conn;
pub mod flow;
pub mod kernel;
pub mod ours;
pub mod packet;
pub mod script;
pub mod store;
pub mod topology;

#[path = "../../../dataplane/src/helper/h323/tests/messages.rs"]
pub mod h323_messages;

mod combined;
mod datagrams;
mod fragments;
mod helpers;
mod helpers_forms;
mod helpers_h323;
mod helpers_h323_forms;
mod helpers_pptp;
mod helpers_sip;
mod helpers_small;
mod helpers_snmp;
mod listed;
mod matches;
mod nat;
mod nat_errors;
mod rules;
mod table;
mod tally;
mod tcp_opening;
mod tcp_window;
