//! The protocol against its documentation, hostile bytes, and real sockets.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use proptest::prelude::*;

use super::frame::{self, FrameError, MAX_MESSAGE, Stream};
use super::protocol::{Code, Failure, Outcome, RequestEnvelope, ResponseEnvelope, VersionInfo};
use super::server::{converse, decode};
use super::{Client, ClientError, Handler, Peer, Request, Response, Server, ServerError};

const SPECIFICATION: &str = include_str!("../../../docs/control-socket.md");

/// The bodies of the fenced blocks of one kind.
fn examples(kind: &str) -> Vec<&'static str> {
    let fence = format!("```json {kind}\n");
    let blocks: Vec<&str> = SPECIFICATION
        .split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect();
    assert!(!blocks.is_empty());
    blocks
}

fn tag(value: &serde_json::Value, body: &str) -> String {
    value[body]["type"].as_str().map_or_else(|| "error".to_owned(), str::to_owned)
}

#[test]
fn every_documented_request_is_understood_and_said_the_same_way() {
    let mut seen = BTreeSet::new();
    for text in examples("request") {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let request = decode(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let envelope = RequestEnvelope { version: 1, request };
        assert_eq!(serde_json::to_value(&envelope).unwrap(), value);
        seen.insert(tag(&value, "request"));
    }
    let all = [
        "apply",
        "change_pressure",
        "change_recent",
        "change_set",
        "confirm",
        "delete_conntrack",
        "explain",
        "flush_conntrack",
        "flush_expect",
        "reconcile",
        "reload",
        "restore_sets",
        "rollback",
        "run_matrix",
        "save_rules",
        "set_settings",
        "show_accounts",
        "show_blocklist",
        "show_config",
        "show_conntrack",
        "show_denied",
        "show_expect",
        "show_history",
        "show_limits",
        "show_log",
        "show_management",
        "show_matrix",
        "show_metrics",
        "show_ports",
        "show_pressure",
        "show_recent",
        "show_rules",
        "show_set_entries",
        "show_set_uses",
        "show_sets",
        "show_settings",
        "show_stats",
        "show_status",
        "show_stored",
        "show_talkers",
        "show_trace",
        "stop",
        "trace_packets",
        "version",
        "watch_conntrack",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn every_documented_answer_is_understood_and_said_the_same_way() {
    let mut seen = BTreeSet::new();
    for text in examples("answer") {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let envelope: ResponseEnvelope =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(serde_json::to_value(&envelope).unwrap(), value);
        seen.insert(tag(&value, "response"));
    }
    let all = [
        "accounts",
        "applied",
        "blocklist",
        "config",
        "confirmed",
        "conntrack",
        "deleted",
        "denied",
        "error",
        "events",
        "expectations",
        "explained",
        "flushed",
        "history",
        "limits",
        "log",
        "management",
        "matrix",
        "matrix_report",
        "metrics",
        "ports",
        "pressure",
        "recent",
        "recent_changed",
        "reconciled",
        "reloaded",
        "rules",
        "saved",
        "set_changed",
        "set_entries",
        "set_uses",
        "sets",
        "settings",
        "stats",
        "status",
        "stopping",
        "stored",
        "talkers",
        "traced",
        "traces",
        "version",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn every_error_code_is_documented() {
    for code in [
        Code::BadRequest,
        Code::UnsupportedVersion,
        Code::Forbidden,
        Code::Refused,
        Code::Busy,
        Code::Internal,
    ] {
        let name = serde_json::to_value(code).unwrap();
        let name = name.as_str().unwrap();
        assert!(SPECIFICATION.contains(&format!("| `{name}` |")), "{name}");
    }
    assert!(SPECIFICATION.contains("at most 67,108,864"));
    assert_eq!(MAX_MESSAGE, 67_108_864);
}

#[test]
fn a_later_version_and_unknown_fields_are_refused_as_such() {
    let code = |text: &str| decode(text.as_bytes()).unwrap_err().code;
    let later = r#"{"version":2,"request":{"type":"levitate"}}"#;
    assert_eq!(code(later), Code::UnsupportedVersion);
    assert_eq!(code(r#"{"version":1,"request":{"type":"levitate"}}"#), Code::BadRequest);
    let typo = r#"{"version":1,"request":{"type":"apply","ruls":null}}"#;
    assert_eq!(code(typo), Code::BadRequest);
    let beside = r#"{"version":1,"request":{"type":"stop"},"dry_run":true}"#;
    assert_eq!(code(beside), Code::BadRequest);
    assert_eq!(code("[]"), Code::BadRequest);
    assert_eq!(code(""), Code::BadRequest);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(code(&deep), Code::BadRequest);
}

/// A peer made of bytes: gives them out in pieces, keeps what it is told.
struct Script {
    input: io::Cursor<Vec<u8>>,
    piece: usize,
    output: Vec<u8>,
    stalls: bool,
}

impl Script {
    fn new(input: Vec<u8>, piece: usize) -> Self {
        Self { input: io::Cursor::new(input), piece, output: Vec::new(), stalls: false }
    }
    fn answers(&self) -> Vec<ResponseEnvelope> {
        let mut stream = Script::new(self.output.clone(), usize::MAX);
        std::iter::from_fn(|| {
            let body = frame::read(&mut stream, monotonic() + Nanos::SECOND).ok()?;
            Some(serde_json::from_slice(&body).unwrap())
        })
        .collect()
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = buffer.len().min(self.piece);
        let read = self.input.read(&mut buffer[..limit])?;
        if read == 0 && self.stalls { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(read) }
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.piece);
        self.output.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Script {
    fn set_timeout(&mut self, _timeout: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// Answers `version`, refuses the rest.
struct Fixed;

impl Handler for Fixed {
    fn handle(&self, request: Request, _peer: Peer) -> Result<Response, Failure> {
        match request {
            Request::Version {} => Ok(Response::Version(VersionInfo {
                portcullis: "0".to_owned(),
                kernel: "0".to_owned(),
                pid: 1,
                generation: 1,
                uptime_ms: 0,
            })),
            _ => Err(Failure::new(Code::Refused, "no")),
        }
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

const VERSION: &[u8] = br#"{"version":1,"request":{"type":"version"}}"#;

#[test]
fn requests_are_answered_in_turn_however_the_bytes_are_cut() {
    for piece in [1, 3, 7, usize::MAX] {
        let mut input = framed(VERSION);
        input.extend(framed(b"nonsense"));
        input.extend(framed(VERSION));
        let mut stream = Script::new(input, piece);
        converse(&mut stream, &Fixed, Peer::default(), &AtomicBool::new(false));
        let answers = stream.answers();
        assert_eq!(answers.len(), 3);
        assert!(matches!(answers[0].outcome, Outcome::Response(_)));
        assert!(matches!(&answers[1].outcome, Outcome::Error(e) if e.code == Code::BadRequest));
        assert!(matches!(answers[2].outcome, Outcome::Response(_)));
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
    let mut stream = Script::new(((MAX_MESSAGE + 1) as u32).to_le_bytes().to_vec(), 4);
    let error = frame::read(&mut stream, monotonic() + Nanos::SECOND).unwrap_err();
    assert!(matches!(error, FrameError::TooLong(_)));
    let mut stream = Script::new((MAX_MESSAGE as u32).to_le_bytes().to_vec(), 4);
    let error = frame::read(&mut stream, monotonic() + Nanos::SECOND).unwrap_err();
    assert!(matches!(error, FrameError::Truncated { got: 0, .. }));
}

#[test]
fn a_peer_that_stalls_or_drips_past_the_deadline_is_given_up() {
    let mut stream = Script::new(framed(VERSION)[..10].to_vec(), 4);
    stream.stalls = true;
    let error = frame::read(&mut stream, monotonic() + Nanos::SECOND).unwrap_err();
    assert!(matches!(error, FrameError::Timeout));
    let mut stream = Script::new(framed(VERSION), 1);
    let error = frame::read(&mut stream, monotonic()).unwrap_err();
    assert!(matches!(error, FrameError::Timeout));
}

proptest! {
    #[test]
    fn no_bytes_break_the_conversation(
        mut input in prop::collection::vec(any::<u8>(), 0..200),
        piece in 1usize..50,
        small in any::<bool>(),
    ) {
        // Small lengths, so that bodies are reached too.
        if small && input.len() > 4 {
            input[1..4].fill(0);
        }
        let mut stream = Script::new(input, piece);
        converse(&mut stream, &Fixed, Peer::default(), &AtomicBool::new(false));
        for answer in stream.answers() {
            prop_assert!(matches!(answer.outcome, Outcome::Error(_)));
        }
    }

    #[test]
    fn no_mutation_of_a_request_breaks_the_conversation(
        example in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let all = examples("request");
        let mut body = example.get(&all).as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body.truncate(cut.index(body.len()) + 1);
        let mut stream = Script::new(framed(&body), 9);
        converse(&mut stream, &Fixed, Peer::default(), &AtomicBool::new(false));
        prop_assert_eq!(stream.answers().len(), 1);
    }
}

/// A directory of its own, removed afterwards.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("portcullis-api-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server on a thread of its own, stopped when dropped.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(server: Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || server.serve(&Arc::new(Fixed), &flag));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_real_socket_serves_locks_out_a_second_daemon_and_outlives_a_crash() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("real");
    let path = directory.0.join("run/control.sock");
    let running = Running::new(Server::bind(&path, None).unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let mut client = Client::connect(&path).unwrap();
    assert!(matches!(client.call(Request::Version {}), Ok(Response::Version(_))));
    let refused = client.call(Request::Stop {}).unwrap_err();
    assert!(matches!(refused, ClientError::Failed(failure) if failure.code == Code::Refused));

    let second = Server::bind(&path, None).unwrap_err();
    assert!(
        matches!(second, ServerError::Taken { pid: Some(pid), .. } if pid == std::process::id())
    );

    drop(running);
    assert!(!path.exists(), "a clean stop removes the socket");
    assert!(matches!(Client::connect(&path), Err(ClientError::Connect { .. })));
    // What a killed daemon leaves: a socket nobody listens on, an unlocked lock file.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    std::fs::write(directory.0.join("run/control.sock.lock"), "1\n").unwrap();
    let _running = Running::new(Server::bind(&path, None).unwrap());
    assert!(Client::connect(&path).unwrap().call(Request::Version {}).is_ok());
}

#[test]
fn only_a_socket_is_replaced() {
    let directory = Directory::new("file");
    let path = directory.0.join("precious");
    std::fs::create_dir_all(&directory.0).unwrap();
    std::fs::write(&path, "data").unwrap();
    let refused = Server::bind(&path, None).unwrap_err().to_string();
    assert!(refused.ends_with("cannot replace the stale socket: it is not a socket"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let directory = Directory::new("limit");
    let path = directory.0.join("control.sock");
    let _running = Running::new(Server::bind(&path, None).unwrap());
    let mut open: Vec<Client> = Vec::new();
    for _ in 0..super::server::MAX_CONNECTIONS {
        let mut client = Client::connect(&path).unwrap();
        client.call(Request::Version {}).unwrap();
        open.push(client);
    }
    let error = Client::connect(&path).unwrap().call(Request::Version {}).unwrap_err();
    assert!(matches!(error, ClientError::Failed(failure) if failure.code == Code::Busy));
    drop(open);
}
