//! The daemon's side of the control socket.
//!
//! Life cycle: [`Server::bind`] takes an exclusive lock on `PATH.lock` (which
//! also holds our process id) before it touches the socket, so that a second
//! daemon finds out and a stale socket of a dead one is replaced;
//! [`Server::serve`] accepts until told to stop; dropping removes both files.
//!
//! Concurrency: one thread per connection, at most [`MAX_CONNECTIONS`].
//! Limits: message size, time per message, idle time, connections.
//! Access: the socket's mode is 0600 (0660 with a group), and every peer's
//! credentials are checked again by `SO_PEERCRED`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::net::sockopt::socket_peercred;
use thiserror::Error;

use super::frame::{self, FrameError};
use super::protocol::{
    Code, ConntrackWatch, Failure, Outcome, PROTOCOL_VERSION, PacketTrace, Request,
    RequestEnvelope, Response, ResponseEnvelope,
};

/// Connections served at once.
pub const MAX_CONNECTIONS: usize = 16;
/// A connection may be silent for this long, and a message may take as long.
const MESSAGE_TIMEOUT: Nanos = Nanos::from_secs(30);
/// How often the accept loop looks whether it should stop.
const STOP_POLL_MS: i64 = 100;

/// Why the socket cannot be opened.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Another daemon serves this socket.
    #[error("another daemon{} already listens on {path}", pid_text(*pid))]
    Taken {
        /// The socket.
        path: String,
        /// Its process, if the lock file says.
        pid: Option<u32>,
    },
    /// A file operation failed.
    #[error("control socket {path}: cannot {call}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: Option<u32>,
    /// The process.
    pub pid: Option<i32>,
}

/// Answers requests. Called from several threads at once.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of `peer`.
    fn handle(&self, request: Request, peer: Peer) -> Result<Response, Failure>;

    /// Begins to tell events. A handler that has none to tell says so.
    fn watch(&self, _watch: ConntrackWatch) -> Result<Box<dyn Feed>, Failure> {
        Err(Failure::new(Code::BadRequest, "there is nothing to watch here"))
    }

    /// Begins to follow packets. A handler that has none says so.
    fn trace(&self, _trace: &PacketTrace) -> Result<Box<dyn Feed>, Failure> {
        Err(Failure::new(Code::BadRequest, "there are no packets here"))
    }
}

/// Answers without further requests.
pub trait Feed: Send {
    /// What has happened since; `None` when nothing has.
    fn next(&mut self) -> Option<Response>;
    /// An answer that says nothing new: the connection lives.
    fn idle(&self) -> Response;
}

/// A bound control socket.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    lock_path: PathBuf,
    listener: UnixListener,
    access: Access,
    rounds: Arc<AtomicU64>,
    _lock: File,
}

/// Who may speak.
#[derive(Clone, Copy, Debug)]
struct Access {
    owner: u32,
    group: Option<u32>,
}

impl Server {
    /// Takes the lock, replaces a stale socket, and listens. Members of
    /// `group` (a numeric id) may connect besides root and our own user.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ServerError> {
        let fail = |call| {
            let path = path.display().to_string();
            move |source| ServerError::Io { path, call, source }
        };
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(directory).map_err(fail("create its directory"))?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let mut lock = take_lock(&lock_path, path)?;
        lock.set_len(0).map_err(fail("write its lock file"))?;
        match writeln!(lock, "{}", std::process::id()) {
            // The lock is what counts. Who has it is told where there is room for that.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(fail("write its lock file"))?,
        }
        remove_stale(path).map_err(fail("replace the stale socket"))?;
        let listener = UnixListener::bind(path).map_err(fail("bind"))?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::os::unix::fs::chown(path, None, group).map_err(fail("set its group"))?;
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail("set its mode"))?;
        listener.set_nonblocking(true).map_err(fail("set non-blocking"))?;
        let owner = rustix::process::geteuid().as_raw();
        let access = Access { owner, group };
        Ok(Self {
            path: path.to_owned(),
            lock_path,
            listener,
            access,
            rounds: Arc::default(),
            _lock: lock,
        })
    }

    /// Rounds of the accepting thread; there are several a second while it serves.
    pub fn rounds(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.rounds)
    }

    /// Accepts and serves connections until `stop` is set. Connections that are
    /// open then end with their current request.
    pub fn serve(&self, handler: &Arc<impl Handler>, stop: &Arc<AtomicBool>) {
        let open = Arc::new(AtomicUsize::new(0));
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: STOP_POLL_MS * 1_000_000 };
        while !stop.load(Ordering::Relaxed) {
            self.rounds.fetch_add(1, Ordering::Relaxed);
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            if !matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0) {
                continue;
            }
            // Out of descriptors or memory: the client sees a closed connection.
            let Ok((stream, _)) = self.listener.accept() else { continue };
            self.admit(stream, &open, handler, stop);
        }
    }

    fn admit(
        &self,
        mut stream: UnixStream,
        open: &Arc<AtomicUsize>,
        handler: &Arc<impl Handler>,
        stop: &Arc<AtomicBool>,
    ) {
        let deadline = monotonic() + Nanos::SECOND;
        if stream.set_nonblocking(false).is_err() {
            return;
        }
        let peer = match self.access.check(&stream) {
            Ok(peer) => peer,
            Err(failure) => {
                let _ = answer(&mut stream, Err(failure), deadline);
                return;
            }
        };
        if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::AcqRel);
            let message = format!("{MAX_CONNECTIONS} connections are open already");
            let failure = Failure::new(Code::Busy, message);
            let _ = answer(&mut stream, Err(failure), deadline);
            return;
        }
        let (handler, stop, slot) = (Arc::clone(handler), Arc::clone(stop), Open(Arc::clone(open)));
        let spawned =
            std::thread::Builder::new().name("control-conn".to_owned()).spawn(move || {
                let _slot = slot;
                converse(&mut stream, &*handler, peer, &stop);
            });
        // Without a thread the closure, and with it stream and slot, is dropped.
        drop(spawned);
    }
}

/// Removes the socket of a daemon that is gone, and nothing but a socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens and locks the lock file. A daemon that stops removes its lock file, so
/// what was locked must still be what the name stands for.
fn take_lock(lock_path: &Path, path: &Path) -> Result<File, ServerError> {
    let fail = |source| ServerError::Io {
        path: path.display().to_string(),
        call: "open its lock file",
        source,
    };
    loop {
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock_path)
            .map_err(fail)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut text = String::new();
            let _ = lock.read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(ServerError::Taken { path: path.display().to_string(), pid });
        }
        let locked = lock.metadata().map_err(fail)?;
        let named = fs::metadata(lock_path);
        if named.is_ok_and(|named| named.ino() == locked.ino() && named.dev() == locked.dev()) {
            return Ok(lock);
        }
    }
}

/// One of the [`MAX_CONNECTIONS`].
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

impl Access {
    fn check(&self, stream: &UnixStream) -> Result<Peer, Failure> {
        let peer = socket_peercred(stream.as_fd())
            .map_err(|error| Failure::new(Code::Forbidden, error.to_string()))?;
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let member = |group: u32| gid == group || in_group(peer.pid.as_raw_pid(), group);
        if uid == 0 || uid == self.owner || self.group.is_some_and(member) {
            return Ok(Peer { uid: Some(uid), pid: Some(peer.pid.as_raw_pid()) });
        }
        Err(Failure::new(Code::Forbidden, format!("user {uid} may not control this daemon")))
    }
}

/// Whether the process has the supplementary group.
fn in_group(pid: i32, group: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.is_some_and(|list| list.split_whitespace().any(|word| word.parse() == Ok(group)))
}

/// Serves one connection until it ends, fails, or breaks the protocol's frame.
pub(super) fn converse(
    stream: &mut impl frame::Stream,
    handler: &(impl Handler + ?Sized),
    peer: Peer,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let body = match frame::read(stream, monotonic() + MESSAGE_TIMEOUT) {
            Ok(body) => body,
            Err(error) => {
                if !matches!(error, FrameError::Closed) {
                    let failure = Failure::new(Code::BadRequest, error.to_string());
                    let _ = answer(stream, Err(failure), monotonic() + Nanos::SECOND);
                }
                return;
            }
        };
        let outcome = match decode(&body) {
            Ok(Request::WatchConntrack(watch)) => match handler.watch(watch) {
                Ok(feed) => return tell(stream, feed, stop),
                Err(failure) => Err(failure),
            },
            Ok(Request::TracePackets(trace)) => match handler.trace(&trace) {
                Ok(feed) => return tell(stream, feed, stop),
                Err(failure) => Err(failure),
            },
            Ok(request) => handler.handle(request, peer),
            Err(failure) => Err(failure),
        };
        if answer(stream, outcome, monotonic() + MESSAGE_TIMEOUT).is_err() {
            return;
        }
    }
}

/// How long new events may wait for each other.
const GATHER: Duration = Duration::from_millis(50);
/// Something is said at least this often.
const HEARTBEAT: Nanos = Nanos::from_secs(10);

/// Answers until the client goes away, says anything, or takes too long to listen.
fn tell(stream: &mut impl frame::Stream, mut feed: Box<dyn Feed>, stop: &AtomicBool) {
    let say = |stream: &mut _, response| {
        answer(stream, Ok(response), monotonic() + MESSAGE_TIMEOUT).is_ok()
    };
    if !say(stream, feed.idle()) {
        return;
    }
    let mut said = monotonic();
    while !stop.load(Ordering::Relaxed) {
        while let Some(response) = feed.next() {
            if !say(stream, response) {
                return;
            }
            said = monotonic();
        }
        if monotonic().saturating_sub(said) > HEARTBEAT {
            if !say(stream, feed.idle()) {
                return;
            }
            said = monotonic();
        }
        if stream.set_timeout(GATHER).is_err() {
            return;
        }
        match stream.read(&mut [0]) {
            Err(error) if is_pause(&error) => {}
            _ => return,
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// The version is looked at first, so that a request of a later version is
/// refused as such and not as nonsense.
pub(super) fn decode(body: &[u8]) -> Result<Request, Failure> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let bad = |error: serde_json::Error| Failure::new(Code::BadRequest, error.to_string());
    let Version { version } = serde_json::from_slice(body).map_err(bad)?;
    if version != PROTOCOL_VERSION {
        let message = format!("version {version} is not spoken here; use {PROTOCOL_VERSION}");
        return Err(Failure::new(Code::UnsupportedVersion, message));
    }
    let envelope: RequestEnvelope = serde_json::from_slice(body).map_err(bad)?;
    Ok(envelope.request)
}

fn answer(
    stream: &mut impl frame::Stream,
    outcome: Result<Response, Failure>,
    deadline: Nanos,
) -> Result<(), FrameError> {
    let outcome = match outcome {
        Ok(response) => Outcome::Response(Box::new(response)),
        Err(failure) => Outcome::Error(failure),
    };
    let envelope = ResponseEnvelope { version: PROTOCOL_VERSION, outcome };
    let body = serde_json::to_vec(&envelope).map_err(|error| FrameError::Io(error.into()))?;
    match frame::write(stream, &body, deadline) {
        Err(FrameError::TooLong(length)) => {
            let message = format!("the answer of {length} bytes is too long; ask for less");
            let failure = Failure::new(Code::Refused, message);
            let outcome = Outcome::Error(failure);
            let envelope = ResponseEnvelope { version: PROTOCOL_VERSION, outcome };
            let body =
                serde_json::to_vec(&envelope).map_err(|error| FrameError::Io(error.into()))?;
            frame::write(stream, &body, deadline)
        }
        other => other,
    }
}
