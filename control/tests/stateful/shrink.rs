//! Makes a failing batch small: steps first, then rules and settings, then the
//! parts of each packet.

use super::script::{Batch, Body, Harm, Step, Twist};

/// Smaller batches tried at most.
const TRIES: usize = 500;

/// The smallest batch found for which `fails` still holds.
pub fn shrink(batch: &Batch, mut fails: impl FnMut(&Batch) -> bool) -> Batch {
    let mut best = batch.clone();
    let mut tries = 0;
    let mut attempt = |best: &mut Batch, candidate: Batch| -> bool {
        if tries >= TRIES || candidate == *best {
            return false;
        }
        tries += 1;
        let found = fails(&candidate);
        if found {
            *best = candidate;
        }
        found
    };
    loop {
        let before = best.clone();
        runs(&mut best, &mut attempt, |batch| &mut batch.steps);
        flows(&mut best, &mut attempt);
        runs(&mut best, &mut attempt, |batch| &mut batch.rules);
        runs(&mut best, &mut attempt, |batch| &mut batch.sysctls);
        parts(&mut best, &mut attempt);
        if best == before {
            return best;
        }
    }
}

type Attempt<'a> = dyn FnMut(&mut Batch, Batch) -> bool + 'a;

/// Removes runs of items, from large to single.
fn runs<T>(best: &mut Batch, attempt: &mut Attempt<'_>, items: impl Fn(&mut Batch) -> &mut Vec<T>) {
    let mut run = items(best).len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        while at < items(best).len() {
            let mut candidate = best.clone();
            let list = items(&mut candidate);
            let end = (at + run).min(list.len());
            list.drain(at..end);
            if !attempt(best, candidate) {
                at += run;
            }
        }
        run /= 2;
    }
}

/// Removes flows that no step is about.
fn flows(best: &mut Batch, attempt: &mut Attempt<'_>) {
    let mut candidate = best.clone();
    let used = |flow: &usize| best.steps.iter().any(|step| step.flow() == *flow);
    let kept: Vec<usize> = (0..best.flows.len()).filter(used).collect();
    candidate.flows = kept.iter().map(|&flow| best.flows[flow].clone()).collect();
    for step in &mut candidate.steps {
        let place = kept.iter().position(|&flow| flow == step.flow());
        step.set_flow(place.expect("it is in use"));
    }
    attempt(best, candidate);
}

/// Makes each step plainer.
fn parts(best: &mut Batch, attempt: &mut Attempt<'_>) {
    let mut change = |best: &mut Batch, at: usize, edit: &dyn Fn(&mut Step)| {
        let mut candidate = best.clone();
        edit(&mut candidate.steps[at]);
        attempt(best, candidate);
    };
    for at in 0..best.steps.len() {
        for edit in EDITS {
            change(best, at, edit);
        }
    }
}

type Edit = &'static dyn Fn(&mut Step);

const EDITS: [Edit; 8] = [
    &|step| {
        if let Step::Packet(packet) = step {
            packet.pieces.clear();
        }
    },
    &|step| {
        if let Step::Packet(packet) = step {
            (packet.tos, packet.ttl, packet.harm) = (0, 64, Harm::None);
        }
    },
    &|step| {
        if let Some(segment) = segment(step) {
            segment.options.clear();
        }
    },
    &|step| {
        if let Some(segment) = segment(step) {
            segment.payload = 0;
        }
    },
    &|step| {
        if let Some(segment) = segment(step) {
            segment.window = 1_000;
        }
    },
    &|step| {
        if let Step::Packet(packet) = step
            && let Body::Udp(payload) | Body::UdpUnsummed(payload) | Body::Icmp(_, _, _, payload) =
                &mut packet.body
        {
            *payload = 0;
        }
    },
    &|step| {
        if let Step::Complaint(complaint) = step {
            (complaint.twist, complaint.to) = (Twist::None, None);
        }
    },
    &|step| {
        if let Step::Complaint(complaint) = step {
            complaint.keep = 8;
        }
    },
];

fn segment(step: &mut Step) -> Option<&mut super::script::Segment> {
    match step {
        Step::Packet(packet) => match &mut packet.body {
            Body::Tcp(segment) => Some(segment),
            _ => None,
        },
        Step::Complaint(_) => None,
    }
}
