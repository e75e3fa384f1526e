//! The endpoint that Prometheus scrapes: HTTP/1.1, one request a connection, nothing to write.
//!
//! Life cycle: bound before privileges go, served by a thread of its own at low priority, ended
//! by the daemon's stop flag. Each connection has a thread for at most a few seconds.
//!
//! Limits: [`MOST`] connections at once (more are told 503 and closed), [`LONGEST`] bytes of a
//! request, [`PATIENCE`] for asking and as long for listening. They are why this is no ready-made
//! server: those that need no runtime wait for a slow client for ever. Requests are read by `httparse`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::Form;

/// Connections at once.
const MOST: usize = 4;
/// Bytes of a request's head.
const LONGEST: usize = 8192;
/// Header fields of a request.
const MOST_HEADERS: usize = 64;
/// For the request, and again for the answer.
const PATIENCE: Nanos = Nanos::from_secs(3);
/// How often the accepting thread looks whether it should stop.
const LOOK_MS: i64 = 100;
/// Scrapes give way to everything else.
const NICE: i32 = 10;

/// Why there is no endpoint.
#[derive(Debug, Error)]
#[error("metrics: cannot listen on {address}: {source} (metrics.listen)")]
pub struct EndpointError {
    address: SocketAddr,
    source: io::Error,
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Requests {
    /// Answered with metrics.
    pub served: AtomicU64,
    /// Answered otherwise: another path, no HTTP.
    pub refused: AtomicU64,
    /// Cut off: too slow or gone.
    pub cut: AtomicU64,
    /// Closed at once: too many connections.
    pub crowded: AtomicU64,
}

/// Makes the page.
pub type Respond = dyn Fn(Form) -> String + Send + Sync;

/// A bound endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    /// Listens; answers only once it is served.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind(address: SocketAddr) -> Result<Self, EndpointError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Self { listener })
        });
        bound.map_err(|source| EndpointError { address, source })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As `getsockname`.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Starts the thread that serves until `stop` is set.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn serve(
        self,
        respond: Arc<Respond>,
        requests: Arc<Requests>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<JoinHandle<()>> {
        let run = move || {
            // Threads that it makes are as patient.
            let _ = rustix::process::setpriority_process(None, NICE);
            let open = Arc::new(AtomicUsize::new(0));
            let pause = Timespec { tv_sec: 0, tv_nsec: LOOK_MS * 1_000_000 };
            while !stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
                if !matches!(poll(&mut fds, Some(&pause)), Ok(ready) if ready > 0) {
                    continue;
                }
                match self.listener.accept() {
                    Ok((stream, _)) => admit(stream, &open, &respond, &requests),
                    // Out of descriptors: not at full speed.
                    Err(_) => std::thread::sleep(Duration::from_millis(LOOK_MS as u64)),
                }
            }
        };
        std::thread::Builder::new().name("metrics".to_owned()).spawn(run)
    }
}

/// One of the [`MOST`].
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn admit(
    mut stream: TcpStream,
    open: &Arc<AtomicUsize>,
    respond: &Arc<Respond>,
    requests: &Arc<Requests>,
) {
    let slot = Open(Arc::clone(open));
    if open.fetch_add(1, Ordering::AcqRel) >= MOST {
        requests.crowded.fetch_add(1, Ordering::Relaxed);
        // Still non-blocking: whoever does not listen is not waited for.
        let _ = stream.set_nonblocking(true);
        let _ = stream.write(&reply("503 Service Unavailable", PLAIN, "busy\n", false));
        return;
    }
    let (respond, requests) = (Arc::clone(respond), Arc::clone(requests));
    let run = move || {
        let _slot = slot;
        let outcome = converse(&mut stream, &*respond);
        let counter = match outcome {
            Ok(true) => &requests.served,
            Ok(false) => &requests.refused,
            Err(_) => &requests.cut,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    };
    // Without a thread the closure, and with it stream and slot, is dropped.
    drop(std::thread::Builder::new().name("metrics-conn".to_owned()).spawn(run));
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    form: Form,
    head_only: bool,
}

/// What is answered instead.
type Otherwise = (&'static str, &'static str);

/// One request; whether it was answered with metrics.
fn converse(stream: &mut TcpStream, respond: &Respond) -> io::Result<bool> {
    stream.set_nonblocking(false)?;
    let head = read_head(stream, monotonic() + PATIENCE)?;
    let (answer, served) = match asked(&head) {
        Ok(Asked { form, head_only }) => {
            (reply("200 OK", form.content_type(), &respond(form), head_only), true)
        }
        Err((status, text)) => (reply(status, PLAIN, text, false), false),
    };
    write_all(stream, &answer, monotonic() + PATIENCE)?;
    // The client is told that this was all; its leftovers are not waited for.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    Ok(served)
}

fn left(deadline: Nanos) -> io::Result<Duration> {
    match deadline.saturating_sub(monotonic()) {
        Nanos(0) => Err(io::ErrorKind::TimedOut.into()),
        Nanos(left) => Ok(Duration::from_nanos(left)),
    }
}

fn read_head(stream: &mut TcpStream, deadline: Nanos) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > LONGEST {
            return Ok(head);
        }
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => head.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

fn write_all(stream: &mut TcpStream, mut bytes: &[u8], deadline: Nanos) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn asked(head: &[u8]) -> Result<Asked, Otherwise> {
    let long = ("431 Request Header Fields Too Large", "that is too long\n");
    if head.len() > LONGEST {
        return Err(long);
    }
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(_) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(long),
        Err(_) => return Err(("400 Bad Request", "this is no HTTP request\n")),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(("405 Method Not Allowed", "only GET\n")),
    };
    if request.path.and_then(|target| target.split('?').next()) != Some("/metrics") {
        return Err(("404 Not Found", "the metrics are at /metrics\n"));
    }
    let accept = request.headers.iter().find(|it| it.name.eq_ignore_ascii_case("accept"));
    let accept = accept.and_then(|it| std::str::from_utf8(it.value).ok()).unwrap_or_default();
    Ok(Asked { form: Form::accepted(accept), head_only })
}

fn reply(status: &str, content_type: &str, body: &str, head_only: bool) -> Vec<u8> {
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    if !head_only {
        answer.push_str(body);
    }
    answer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Served {
        address: SocketAddr,
        requests: Arc<Requests>,
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn serve(text: &'static str) -> Served {
        let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.address().unwrap();
        let (requests, stop) = (Arc::new(Requests::default()), Arc::new(AtomicBool::new(false)));
        let respond: Arc<Respond> = Arc::new(move |form| format!("{form:?} {text}"));
        let thread = endpoint.serve(respond, Arc::clone(&requests), Arc::clone(&stop)).unwrap();
        Served { address, requests, stop, thread: Some(thread) }
    }

    fn connect(served: &Served) -> TcpStream {
        let stream = TcpStream::connect(served.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn ask(served: &Served, request: &str) -> String {
        let mut stream = connect(served);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What is counted, after waiting (bounded) until it is this much: a request is counted
    /// once its client has all of the answer.
    fn settled(counter: &AtomicU64, wanted: u64) -> u64 {
        let mut looks = 0..500;
        while counter.load(Ordering::Relaxed) < wanted && looks.next().is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
        counter.load(Ordering::Relaxed)
    }

    #[test]
    fn requests_are_answered_and_nonsense_is_refused() {
        let served = serve("page");
        let answer = ask(&served, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("Content-Length: 12\r\nConnection: close\r\n\r\nClassic page"));
        let accept = "accept: application/openmetrics-text;version=1.0.0";
        let answer = ask(&served, &format!("GET /metrics?x=1 HTTP/1.1\r\n{accept}\r\n\r\n"));
        assert!(answer.ends_with("OpenMetrics page"), "{answer}");
        let answer = ask(&served, "HEAD /metrics HTTP/1.0\r\n\r\n");
        assert!(answer.contains("Length: 12") && answer.ends_with("\r\n\r\n"), "{answer}");
        let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(LONGEST));
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("hello\r\n\r\n", "400"),
            ("GET /metrics HTTP/2\r\n\r\n", "400"),
            (&long, "431"),
        ] {
            let answer = ask(&served, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.20}: {answer}");
        }
        let Requests { served: answered, refused, .. } = &*served.requests;
        assert_eq!((settled(answered, 3), settled(refused, 5)), (3, 5));
    }

    #[test]
    fn clients_that_only_sit_there_are_cut_off_and_bounded() {
        let served = serve("page");
        let sitting: Vec<TcpStream> = (0..MOST).map(|_| connect(&served)).collect();
        // One more is told so at once, and closed.
        let mut more = connect(&served);
        let mut answer = String::new();
        more.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        for mut stream in sitting {
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "cut off");
        }
        let answer = ask(&served, "GET /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.ends_with("Classic page"), "there is room again: {answer}");
        assert_eq!(settled(&served.requests.cut, MOST as u64), MOST as u64);
        assert_eq!(settled(&served.requests.crowded, 1), 1);
    }
}
