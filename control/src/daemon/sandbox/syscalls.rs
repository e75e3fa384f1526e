//! The system calls that a running daemon may make, each group with its reason.
//!
//! The list was taken from traces of the test labs, and completed with what the same
//! library functions call on other versions of libc. Calls that an argument makes into
//! something else (`socket`, `ioctl`, `bpf`, `mmap`, ...) are held to the values in use.
//! The kernel remembers which calls are allowed whatever their arguments, so that those
//! of the packets' road (`poll`, `sendto`, `read`, `write`) cost nothing more.

use std::collections::BTreeMap;

use seccompiler::SeccompCmpArgLen::Dword;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::Seccomp;

/// System calls by name and number.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

/// A system call: its name in libc, its number.
type Call = (&'static str, i64);

/// What may be called with any arguments: a reason, the calls, and those of them that
/// only older architectures have.
const FREE: &[(&str, &[Call])] = &[
    (
        "frames, netlink, the control socket and the log move",
        calls![
            SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_ppoll
            SYS_recvfrom SYS_recvmsg SYS_recvmmsg SYS_sendto SYS_sendmsg SYS_sendmmsg
            SYS_accept4 SYS_shutdown SYS_bind SYS_connect SYS_listen SYS_getsockname
            SYS_getpeername SYS_getsockopt SYS_setsockopt
        ],
    ),
    (
        "the host road hands packets to the TAPs in batches",
        calls![SYS_io_uring_enter SYS_io_uring_setup SYS_io_uring_register SYS_eventfd2],
    ),
    (
        "state is saved, rules are read again, the log is opened anew",
        calls![
            SYS_openat SYS_close SYS_close_range SYS_lseek SYS_fstat SYS_newfstatat SYS_statx
            SYS_statfs SYS_fstatfs SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64
            SYS_ftruncate SYS_fallocate SYS_fsync SYS_fdatasync SYS_flock SYS_fchmod SYS_fchmodat
            SYS_getcwd SYS_renameat SYS_renameat2 SYS_unlinkat SYS_mkdirat SYS_fcntl SYS_dup SYS_dup3
        ],
    ),
    (
        "memory",
        calls![SYS_brk SYS_mremap SYS_munmap SYS_madvise SYS_msync SYS_mlock SYS_mlock2 SYS_munlock],
    ),
    (
        "threads begin, wait, and end; the rest of clone is below",
        calls![
            SYS_futex SYS_set_robust_list SYS_rseq SYS_sched_yield SYS_sched_getaffinity
            SYS_sched_setaffinity SYS_getcpu SYS_gettid SYS_exit SYS_exit_group
            SYS_restart_syscall SYS_clone3 SYS_setpriority
        ],
    ),
    ("a BPF program has left what it was at before rules change", calls![SYS_membarrier]),
    (
        "signals, and a panic's abort",
        calls![
            SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack SYS_tgkill
        ],
    ),
    (
        "time, and waiting for it",
        calls![
            SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday
        ],
    ),
    (
        "asking about ourselves and the machine; random numbers",
        calls![
            SYS_getpid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_capget SYS_uname
            SYS_sysinfo SYS_getrusage SYS_prlimit64 SYS_getrandom
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    (
        "older names of the same, which this architecture's libc still uses",
        calls![
            SYS_poll SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink SYS_rename SYS_unlink
            SYS_mkdir SYS_chmod SYS_dup2 SYS_time
        ],
    ),
];

/// `socket`: control socket and service manager, device requests, netlink, AF_XDP.
const FAMILIES: &[i32] = &[
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
    libc::AF_PACKET,
    libc::AF_XDP,
];

/// `ioctl`: devices (by name, ethtool), TAPs, and what the library asks of descriptors.
const REQUESTS: &[u64] = &[
    libc::SIOCETHTOOL,
    libc::SIOCGIFINDEX,
    libc::SIOCGIFFLAGS,
    libc::SIOCSIFFLAGS,
    libc::SIOCGIFMTU,
    libc::SIOCSIFMTU,
    libc::SIOCGIFHWADDR,
    libc::SIOCSIFHWADDR,
    libc::TUNSETIFF,
    libc::TUNGETIFF,
    libc::TUNGETFEATURES,
    libc::TUNSETOFFLOAD,
    libc::TUNSETVNETHDRSZ,
    libc::TUNSETQUEUE,
    libc::TUNSETSNDBUF,
    libc::FIONBIO,
    libc::FIONREAD,
    libc::FIOCLEX,
    libc::TCGETS,
];

/// `bpf`: maps are read and written, links made for a port that comes back, pins
/// made and taken away. No programs and no maps are loaded: they are, by then.
const BPF_COMMANDS: &[u64] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    6,  // BPF_OBJ_PIN
    7,  // BPF_OBJ_GET
    15, // BPF_OBJ_GET_INFO_BY_FD
    16, // BPF_PROG_QUERY
    24, // BPF_MAP_LOOKUP_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
    34, // BPF_LINK_DETACH
];

/// `prctl`: threads and memory get names.
const PRCTL_OPTIONS: &[u64] =
    &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, libc::PR_SET_VMA as u64];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// One rule a value: any of them may be argument number `argument`.
fn any_of(
    argument: u8,
    values: impl IntoIterator<Item = u64>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values.into_iter().map(|value| only(argument, Eq, value)).collect()
}

fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Dword, operator, value)?])
}

/// The whole list. An entry without rules allows any arguments.
fn rules() -> Result<Rules, BackendError> {
    let free = FREE.iter().flat_map(|(_, calls)| calls.iter());
    let mut rules: Rules = free.map(|(_, number)| (*number, Vec::new())).collect();
    // Nothing that is written becomes a program.
    let executable = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![only(2, MaskedEq(executable), 0)?]);
    }
    // A thread, not a process.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![only(0, MaskedEq(thread), thread)?]);
    rules.insert(libc::SYS_socket, any_of(0, FAMILIES.iter().map(|family| *family as u64))?);
    rules.insert(libc::SYS_ioctl, any_of(1, REQUESTS.iter().copied())?);
    rules.insert(libc::SYS_bpf, any_of(0, BPF_COMMANDS.iter().copied())?);
    rules.insert(libc::SYS_prctl, any_of(0, PRCTL_OPTIONS.iter().copied())?);
    Ok(rules)
}

/// The filters, in the order in which they are to be installed.
pub(super) fn filters(seccomp: Seccomp) -> Result<Vec<BpfProgram>, BackendError> {
    let otherwise = match seccomp {
        Seccomp::Off => return Ok(Vec::new()),
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Enforce => SeccompAction::KillProcess,
    };
    let architecture = std::env::consts::ARCH.try_into()?;
    let list = SeccompFilter::new(rules()?, otherwise, SeccompAction::Allow, architecture)?;
    if seccomp == Seccomp::Log {
        return Ok(vec![list.try_into()?]);
    }
    // The flags of clone3 lie in memory, which a filter cannot read: it does not exist, and
    // libc uses clone.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let absent = SeccompFilter::new(clone3, SeccompAction::Allow, absent, architecture)?;
    Ok(vec![absent.try_into()?, list.try_into()?])
}

/// The names of all calls on the list.
#[cfg(test)]
fn names() -> Vec<&'static str> {
    let free = FREE.iter().flat_map(|(_, calls)| calls.iter());
    let checked = ["mmap", "mprotect", "clone", "socket", "ioctl", "bpf", "prctl"];
    free.map(|(name, _)| name.trim_start_matches("SYS_")).chain(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed_and_leaves_out_what_runs_programs() {
        let rules = rules().unwrap();
        assert_eq!(rules.len(), names().len(), "a call is on the list twice");
        for call in [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_process_vm_writev,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_setuid,
            libc::SYS_seccomp,
            libc::SYS_init_module,
            libc::SYS_chown,
            libc::SYS_kill,
        ] {
            assert!(!rules.contains_key(&call), "{call}");
        }
        assert!(!BPF_COMMANDS.contains(&0) && !BPF_COMMANDS.contains(&5), "map, program");
        assert_eq!(filters(Seccomp::Off).unwrap().len(), 0);
        assert_eq!(filters(Seccomp::Log).unwrap().len(), 1);
        assert_eq!(filters(Seccomp::Enforce).unwrap().len(), 2);
    }
}
