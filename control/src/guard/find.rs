//! Which connection does this process speak through?
//!
//! sshd says so in `SSH_CONNECTION`. `sudo` and `su` may take it away, so the
//! environments of the processes above are asked too, and then the sockets of an sshd
//! among them. What is said must be an established connection of this machine: a
//! terminal multiplexer outlives the session that its environment speaks of.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{Session, mapped};

/// Processes that are asked at most, from this one up.
const GENERATIONS: usize = 32;
/// TCP's number for ESTABLISHED in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
/// What OpenSSH calls the processes that hold the connection.
const SSHD: [&str; 3] = ["sshd", "sshd-session", "sshd-auth"];

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place {
    /// `/proc`.
    pub proc: PathBuf,
    /// The process to begin with.
    pub pid: u32,
    /// Its own `SSH_CONNECTION`.
    pub said: Option<String>,
}

impl Place {
    /// Where this process is.
    pub fn here() -> Self {
        let said = std::env::var("SSH_CONNECTION").ok();
        Self { proc: PathBuf::from("/proc"), pid: std::process::id(), said }
    }

    /// The session, if there is one and it can be known.
    pub fn session(&self) -> Option<Session> {
        let sockets = self.sockets();
        let lives = |session: &Session| {
            sockets.iter().any(|it| it.local == session.server && it.remote == session.client)
        };
        let said = self.said.as_ref().and_then(|said| said.parse::<Session>().ok());
        if let Some(session) = said.filter(&lives) {
            return Some(session);
        }
        let mut pid = self.pid;
        for _ in 0..GENERATIONS {
            let directory = self.proc.join(pid.to_string());
            if let Some(session) = environment(&directory).filter(&lives) {
                return Some(session);
            }
            if let Some(session) = held(&directory, &sockets) {
                return Some(session);
            }
            pid = parent(&directory).filter(|&parent| parent > 0)?;
        }
        None
    }

    /// This machine's established TCP connections.
    fn sockets(&self) -> Vec<Socket> {
        let read = |name: &str| {
            // Of this process's network namespace, whatever process is asked.
            let file = self.proc.join(self.pid.to_string()).join("net").join(name);
            fs::read_to_string(file).unwrap_or_default()
        };
        let texts = [read("tcp"), read("tcp6")];
        texts.iter().flat_map(|text| text.lines().skip(1)).filter_map(Socket::read).collect()
    }
}

/// An established connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    inode: u64,
}

impl Socket {
    /// From a line of `/proc/net/tcp` or `tcp6`.
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, _, _, _, _, _, inode, ..] = words[..] else { return None };
        if state != ESTABLISHED {
            return None;
        }
        let (local, remote) = (end(local)?, end(remote)?);
        Some(Self { local, remote, inode: inode.parse().ok()? })
    }
}

/// `0100007F:0016`: words of the address as the machine has them, the port as a number.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes())
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(at * 8)?);
            }
            mapped(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// What a process was told at its start.
fn environment(directory: &Path) -> Option<Session> {
    let bytes = fs::read(directory.join("environ")).ok()?;
    let said = bytes.split(|byte| *byte == 0).find_map(|it| it.strip_prefix(b"SSH_CONNECTION="));
    std::str::from_utf8(said?).ok()?.parse().ok()
}

/// The connection that an sshd holds.
fn held(directory: &Path, sockets: &[Socket]) -> Option<Session> {
    let name = fs::read_to_string(directory.join("comm")).ok()?;
    if !SSHD.contains(&name.trim_end()) {
        return None;
    }
    let held = fs::read_dir(directory.join("fd")).ok()?.filter_map(|entry| {
        let target = fs::read_link(entry.ok()?.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse::<u64>().ok()
    });
    let inodes: Vec<u64> = held.collect();
    let socket = sockets.iter().find(|socket| inodes.contains(&socket.inode))?;
    Some(Session { client: socket.remote, server: socket.local, device: None })
}

fn parent(directory: &Path) -> Option<u32> {
    let status = fs::read_to_string(directory.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
