//! The behaviours that naive firewalls get wrong: one test for each numbered
//! line, performed before the kernel (netfilter in a namespace) and before
//! Portcullis (the replay engine), asserted on both and compared. The table in
//! `docs/compatibility.md` lists them. Needs root.

#[path = "behaviours/mod.rs"]
mod behaviours;
mod lab;
