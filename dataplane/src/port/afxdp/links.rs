//! The system calls on `bpf_link`s: keeping them in a bpffs, finding them again,
//! exchanging their programs.

#![allow(unsafe_code, reason = "bpf(2) takes a pointer to its attributes")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Bytes of `union bpf_attr` that any command here uses, and more: the rest must be zero.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Attributes([u32; 16]);

impl Attributes {
    /// The first words; all others are zero.
    fn of(words: &[u32]) -> Self {
        let mut all = [0; 16];
        all[..words.len()].copy_from_slice(words);
        Self(all)
    }
    /// A pointer as two words, in the order in which this machine has them in memory.
    fn pointer(address: *const u8) -> [u32; 2] {
        let bytes = (address as u64).to_ne_bytes();
        let half = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        [half(0), half(4)].map(u32::from_ne_bytes)
    }
}

/// One command. Pointers in `attributes` must be good for it.
fn command(command: libc::c_long, attributes: &Attributes) -> io::Result<libc::c_int> {
    let (pointer, length) = (std::ptr::from_ref(attributes), size_of::<Attributes>());
    // SAFETY: the pointer and the length describe `attributes`, which is only read; what
    // its fields point to lives in the callers of this function, which wait for it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

fn opened(command_number: libc::c_long, attributes: &Attributes) -> io::Result<OwnedFd> {
    let fd = command(command_number, attributes)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Gives a link a name in a bpffs: it then stays when no descriptor is left.
pub(super) fn pin(link: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = path_text(path)?;
    let [low, high] = Attributes::pointer(path.as_ptr().cast());
    command(BPF_OBJ_PIN, &Attributes::of(&[low, high, link.as_raw_fd() as u32])).map(drop)
}

/// Opens what has that name.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = path_text(path)?;
    let [low, high] = Attributes::pointer(path.as_ptr().cast());
    opened(BPF_OBJ_GET, &Attributes::of(&[low, high]))
}

/// Puts `program` in the place of the one that the link holds. No packet meets neither.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let words = [link.as_raw_fd() as u32, program.as_raw_fd() as u32];
    command(BPF_LINK_UPDATE, &Attributes::of(&words)).map(drop)
}

/// Takes the link's program off its device, whoever else has the link open.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    command(BPF_LINK_DETACH, &Attributes::of(&[link.as_raw_fd() as u32])).map(drop)
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where it is attached.
    pub(super) hook: Hook,
    /// The device's index; zero when it is gone.
    pub(super) ifindex: u32,
    /// The program's id.
    pub(super) program: u32,
}

/// Where a link may be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Xdp,
    TcxEgress,
    /// Nowhere that we attach anything for good.
    Other,
}

/// Asks about a link.
pub(super) fn facts(link: BorrowedFd<'_>) -> io::Result<Facts> {
    const XDP: u32 = 6;
    const TCX: u32 = 11;
    const EGRESS: u32 = 47;
    // `struct bpf_link_info`: type, id, program's id, padding, then by type.
    let [kind, _, program, _, ifindex, attach_type, ..] = info(link)?;
    let hook = match (kind, attach_type) {
        (XDP, _) => Hook::Xdp,
        (TCX, EGRESS) => Hook::TcxEgress,
        _ => Hook::Other,
    };
    Ok(Facts { hook, ifindex, program })
}

/// The name of a program. Only a process with `CAP_SYS_ADMIN` may ask.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    let program = opened(BPF_PROG_GET_FD_BY_ID, &Attributes::of(&[id]))?;
    // `struct bpf_prog_info`: the name's sixteen bytes are the words from 16 on.
    const NAME: usize = 16;
    let words = info(std::os::fd::AsFd::as_fd(&program))?;
    let bytes = words[NAME..NAME + 4].iter().flat_map(|word| word.to_ne_bytes());
    let name: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// The first words of what the kernel says of a link or a program.
fn info(object: BorrowedFd<'_>) -> io::Result<[u32; 24]> {
    let mut words = [0_u32; 24];
    let length = size_of_val(&words) as u32;
    let [low, high] = Attributes::pointer(words.as_mut_ptr().cast());
    let attributes = Attributes::of(&[object.as_raw_fd() as u32, length, low, high]);
    command(BPF_OBJ_GET_INFO_BY_FD, &attributes)?;
    Ok(words)
}
