//! Capabilities: what starting needs, what running needs, and how the rest goes.
//!
//! | capability | starting | running |
//! |---|---|---|
//! | `NET_ADMIN` | XDP and tcx links, TAPs, promiscuous ports | a port that comes back is taken again |
//! | `NET_RAW` | `AF_XDP` sockets | the same |
//! | `BPF`, `PERFMON` | maps and programs are loaded and verified | - |
//! | `SYS_ADMIN` | only where the kernel's owner gave it instead of those two | - |
//! | `IPC_LOCK` | UMEM and rings beyond `RLIMIT_MEMLOCK` | a port that comes back is taken again |
//! | `CHOWN` | the control socket's group | - |
//!
//! Files are reached by ownership alone: no `DAC_OVERRIDE`, even as root.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};

use super::{SandboxError, step};

/// Kept until everything is loaded, as far as held.
const STARTING: CapabilitySet =
    RUNNING.union(CapabilitySet::BPF).union(CapabilitySet::PERFMON).union(CapabilitySet::CHOWN);
/// Kept for good, as far as held.
const RUNNING: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::IPC_LOCK);

/// Lets capabilities survive the change from root to another user.
pub(super) fn keep_over_change_of_user() -> Result<(), SandboxError> {
    set_keep_capabilities(true).map_err(step("keep capabilities"))
}

/// Gives up what starting does not need, and the ways to gain anything.
pub(super) fn begin() -> Result<(), SandboxError> {
    empty_bounding_set()?;
    // A program that is executed gets nothing, though none ever is.
    clear_ambient_capability_set().map_err(step("clear ambient capabilities"))?;
    set_no_new_privs(true).map_err(step("forgo new privileges"))?;
    keep(starting(held()?))
}

/// Gives up what running does not need.
pub(super) fn run() -> Result<(), SandboxError> {
    keep(RUNNING)
}

/// `SYS_ADMIN` stands in for `BPF` and `PERFMON` where one of them is missing.
fn starting(held: CapabilitySet) -> CapabilitySet {
    match held.contains(CapabilitySet::BPF.union(CapabilitySet::PERFMON)) {
        true => STARTING,
        false => STARTING.union(CapabilitySet::SYS_ADMIN),
    }
}

fn held() -> Result<CapabilitySet, SandboxError> {
    Ok(capabilities(None).map_err(step("read capabilities"))?.permitted)
}

fn keep(wanted: CapabilitySet) -> Result<(), SandboxError> {
    let kept = held()?.intersection(wanted);
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
        .map_err(step("give up capabilities"))
}

/// Takes every capability out of the bounding set. Needs `SETPCAP`; without it there is
/// nothing that could bring one back either, as no new privileges can be gained.
fn empty_bounding_set() -> Result<(), SandboxError> {
    if !held()?.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    let effective = capabilities(None).map_err(step("read capabilities"))?;
    // After a change of user what is permitted is not effective yet.
    set_capabilities(None, CapabilitySets { effective: effective.permitted, ..effective })
        .map_err(step("raise capabilities"))?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)
                .map_err(step("empty the bounding set"))?,
            Ok(false) => {}
            // The kernel knows no more.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_is_kept_only_in_place_of_what_is_missing() {
        let all = CapabilitySet::from_bits_retain(u64::MAX);
        assert_eq!(starting(all), STARTING);
        assert!(!starting(all).contains(CapabilitySet::SYS_ADMIN));
        let without = all.difference(CapabilitySet::PERFMON);
        assert!(starting(without).contains(CapabilitySet::SYS_ADMIN));
        assert!(!RUNNING.contains(CapabilitySet::SYS_ADMIN | CapabilitySet::BPF));
    }
}
