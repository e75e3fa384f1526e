//! Whether the kernel really does what is needed: tried, in a network namespace
//! that is made for it and gone a moment later. Nothing of the machine's own
//! devices is touched.

use dataplane::clock::Nanos;
use dataplane::packet::PortId;
use dataplane::port::afxdp::{AttachChoice, LinkInfo, OnFailure, Program, ProgramConfig};
use dataplane::port::host;
use rustix::thread::{CapabilitySet, capabilities};

use super::{Sight, Unseen, sys};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probes {
    /// The XDP program loads.
    pub(super) program: Sight<()>,
    /// It can be attached by a link.
    pub(super) xdp_link: Sight<()>,
    /// TAPs and tcx links work.
    pub(super) host_road: Sight<()>,
    /// The programs see whose packets of this machine are.
    pub(super) owners: Sight<()>,
}

/// Whether this process may try. Loading takes the capabilities that `run` needs,
/// and a namespace of one's own CAP_SYS_ADMIN.
fn allowed() -> bool {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    held.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN)
}

/// Tries.
pub(super) fn run() -> Probes {
    let all = |why: Unseen| Probes {
        program: Err(why.clone()),
        xdp_link: Err(why.clone()),
        host_road: Err(why.clone()),
        owners: Err(why),
    };
    if !allowed() {
        return all(Unseen::Privilege("CAP_SYS_ADMIN and CAP_NET_ADMIN"));
    }
    let thread = std::thread::Builder::new().name("probe".to_owned()).spawn(|| {
        if let Err(error) = sys::own_network() {
            return Err(Unseen::of("a network namespace to try in", &error));
        }
        Ok(try_all())
    });
    let outcome = match thread {
        Ok(thread) => thread.join().unwrap_or_else(|_| Err(Unseen::Failed("it fell".to_owned()))),
        Err(error) => Err(Unseen::of("a thread to try in", &error)),
    };
    outcome.unwrap_or_else(all)
}

fn failed(error: &dyn std::error::Error) -> Unseen {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    // The verifier's log is long; its end says what is wrong.
    let last = text.lines().last().unwrap_or_default();
    Unseen::Failed(last.to_owned())
}

fn try_all() -> Probes {
    let config = ProgramConfig {
        routed: true,
        host: true,
        on_failure: OnFailure::Open,
        beat_limit: Nanos(0),
        queues: 1,
        blocklist: None,
    };
    let mut program = match Program::load(config) {
        Ok(program) => program,
        Err(error) => {
            let without = || Err(Unseen::Failed("the programs do not load".to_owned()));
            let program = Err(failed(&error));
            let (xdp_link, host_road, owners) = (without(), without(), without());
            return Probes { program, xdp_link, host_road, owners };
        }
    };
    let xdp_link = match LinkInfo::of("lo") {
        Ok(link) => {
            let attached = program.attach(PortId(0), &link, AttachChoice::Generic);
            attached.map(|_| ()).map_err(|error| failed(&error))
        }
        Err(error) => Err(Unseen::of("lo", &error)),
    };
    let host_road = host::open(&mut program, &[], 1, host::HostChoice::Auto)
        .map(|_| ())
        .map_err(|error| failed(&error));
    let untold = program.owners_untold().map(|why| Unseen::Failed(why.to_owned()));
    Probes { program: Ok(()), xdp_link, host_road, owners: untold.map_or(Ok(()), Err) }
}
