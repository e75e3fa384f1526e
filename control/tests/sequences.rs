//! Portcullis against netfilter, with state: generated sequences of packets,
//! each side answered in its own terms, compared packet for packet.
//!
//! The run is set by `PORTCULLIS_STATE_SEQUENCES`, `PORTCULLIS_STATE_PACKETS`
//! and `PORTCULLIS_STATE_SEED`, or by `PORTCULLIS_STATE_SCRIPT`, a file that an
//! earlier run printed; `scripts/stateful` sets them from options.

#[allow(dead_code, reason = "the stateless differential test uses the rest")]
mod diff;
mod lab;
mod stateful;

use std::sync::{Mutex, MutexGuard, PoisonError};

use lab::Lab;
use stateful::lockstep::{self, Outcome, Refused};
use stateful::script::Batch;
use stateful::{found, generate, shrink};

/// One lab at a time: packets take less long, and less noise comes of it.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in which a difference must show before it counts.
const ATTEMPTS: usize = 3;

/// Failing batches that are shrunk and shown before the run gives up.
const SHOWN: usize = 6;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Runs a batch until both sides agree, at most [`ATTEMPTS`] times: the kernel's
/// clock is the real one, while a wrong verdict does not depend on it.
fn judge(lab: &Lab, batch: &Batch) -> Result<Outcome, Refused> {
    let mut outcome = lockstep::run(lab, batch)?;
    for _ in 1..ATTEMPTS {
        if outcome.differences.is_empty() {
            break;
        }
        eprintln!("seen in one run, tried again: {}", outcome.differences[0]);
        outcome = lockstep::run(lab, batch)?;
    }
    Ok(outcome)
}

/// The kind of a difference: what shrinking must keep.
fn kind(difference: &str) -> &str {
    difference.split(' ').next().unwrap_or_default()
}

/// The batch made small, with what differs, as a script to keep.
fn shown(lab: &Lab, batch: &Batch, differences: &[String]) -> String {
    let wanted = kind(&differences[0]).to_owned();
    let small = shrink::shrink(batch, |candidate| {
        let tried = lockstep::run(lab, candidate);
        tried.is_ok_and(|outcome| outcome.differences.iter().any(|d| kind(d) == wanted))
    });
    let found = lockstep::run(lab, &small).map(|outcome| outcome.differences).unwrap_or_default();
    format!("{}- {}", small.to_text(), found.join("\n- "))
}

#[test]
fn generated_sequences() {
    if let Ok(file) = std::env::var("PORTCULLIS_STATE_SCRIPT") {
        return script(&file);
    }
    let _alone = alone();
    let sequences = setting("PORTCULLIS_STATE_SEQUENCES", 32) as usize;
    let packets = setting("PORTCULLIS_STATE_PACKETS", 10_000) as usize;
    let seed = setting("PORTCULLIS_STATE_SEED", 1);
    let lab = Lab::new();
    let (mut total, mut failures, mut number) = (Outcome::default(), Vec::new(), 0);
    while total.put < packets {
        let batch_seed = seed.wrapping_add(number);
        number += 1;
        let batch = generate::batch(batch_seed, sequences);
        let outcome = match judge(&lab, &batch) {
            Ok(outcome) => outcome,
            Err(refused) => panic!("seed {batch_seed}: {refused:?}\n{}", batch.ruleset()),
        };
        total.put += outcome.put;
        total.out += outcome.out;
        total.connections += outcome.connections;
        total.delivered += outcome.delivered;
        if !outcome.differences.is_empty() {
            let again =
                format!("scripts/stateful --sequences {sequences} --packets 1 --seed {batch_seed}");
            let text = if failures.len() < SHOWN {
                shown(&lab, &batch, &outcome.differences)
            } else {
                outcome.differences[0].clone()
            };
            eprintln!("MISMATCH, again with: {again}\n{text}");
            failures.push(batch_seed);
        }
    }
    println!(
        "{} sequences in {number} batches, {} packets in, {} frames out, {} delivered, \
         {} connections; seeds {seed}..; {} mismatches",
        number as usize * sequences,
        total.put,
        total.out,
        total.delivered,
        total.connections,
        failures.len()
    );
    assert!(failures.is_empty(), "mismatches at seeds {failures:?}");
    assert!(total.out > 0, "nothing came out: the lab is not wired");
}

fn agrees(batch: &Batch) {
    let _alone = alone();
    let outcome = judge(&Lab::new(), batch).expect("both take the rules");
    assert!(outcome.differences.is_empty(), "{}", outcome.differences.join("\n"));
    assert!(outcome.put > 0, "nothing was put in");
}

fn script(file: &str) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    agrees(&Batch::from_text(&text));
}

#[test]
fn scripts_survive_printing() {
    let batch = generate::batch(5, 8);
    assert_eq!(Batch::from_text(&batch.to_text()), batch);
    assert_eq!(generate::batch(5, 8), batch);
    assert_ne!(generate::batch(6, 8).steps, batch.steps);
}

#[test]
fn shrinking_keeps_what_matters() {
    let batch = generate::batch(3, 8);
    let wanted = &batch.steps[17];
    let small = shrink::shrink(&batch, |candidate| {
        candidate.steps.iter().any(|step| {
            let (mut a, mut b) = (step.clone(), wanted.clone());
            a.set_flow(0);
            b.set_flow(0);
            a == b
        })
    });
    assert_eq!(small.steps.len(), 1);
    assert_eq!(small.flows.len(), 1);
    assert!(small.rules.is_empty() && small.sysctls.is_empty());
}

/// IPv6: such a first fragment goes on by itself, INVALID; the others wait in vain.
#[test]
fn first_fragment_without_its_headers() {
    agrees(&found::script("first_fragment_without_its_headers"));
}

/// IPv4: a datagram whose TCP header was spread over fragments leaves in pieces
/// of one size.
#[test]
fn tcp_header_over_several_fragments() {
    agrees(&found::script("tcp_header_over_several_fragments"));
}

/// SCTP: a packet that opens the association and aborts it leaves it ASSURED.
#[test]
fn sctp_cookie_ack_with_abort() {
    agrees(&found::script("sctp_cookie_ack_with_abort"));
}

/// TCPMSS joins a datagram for good: it leaves in pieces of one size.
#[test]
fn tcpmss_joins_fragments() {
    agrees(&found::script("tcpmss_joins_fragments"));
}

/// IPv6: whole, behind a fragment header.
#[test]
fn tcpmss_joins_fragments_v6() {
    agrees(&found::script("tcpmss_joins_fragments_v6"));
}

/// An SCTP header in more than one piece is joined to take its checksum.
#[test]
fn sctp_header_in_pieces() {
    agrees(&found::script("sctp_header_in_pieces"));
}

/// IPv6 too.
#[test]
fn sctp_header_in_pieces_v6() {
    agrees(&found::script("sctp_header_in_pieces_v6"));
}

/// A flow that is met from its other end in a zone of replies of its own is not
/// in its own way: it keeps its port.
#[test]
fn zone_reply_is_not_taken() {
    agrees(&found::script("zone_reply_is_not_taken"));
}
