//! Messages on a byte stream: a little-endian u32 length, then that many bytes.
//!
//! A length above the limit is refused before anything is read or reserved, and
//! memory grows only as bytes really arrive. A message must arrive whole within
//! its deadline, however slowly its bytes drip.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use thiserror::Error;

/// Longest message in bytes: room for a policy of several hundred thousand rules.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Read at most this much at a time.
const CHUNK: usize = 64 << 10;

/// Why a message could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream ended between messages.
    #[error("the peer closed the connection")]
    Closed,
    /// The stream ended inside a message.
    #[error("the connection ended after {got} of {wanted} bytes of a message")]
    Truncated {
        /// Bytes received.
        got: usize,
        /// Bytes announced.
        wanted: usize,
    },
    /// The announced length is above the limit.
    #[error("a message of {0} bytes is longer than the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    /// The message did not arrive (or leave) in time.
    #[error("timed out")]
    Timeout,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

/// A byte stream whose blocking can be bounded.
pub trait Stream: Read + Write {
    /// Bounds every following read and write.
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

fn arm(stream: &mut impl Stream, deadline: Nanos) -> Result<(), FrameError> {
    let left = deadline.saturating_sub(monotonic());
    if left == Nanos(0) {
        return Err(FrameError::Timeout);
    }
    Ok(stream.set_timeout(Duration::from_nanos(left.0.max(1_000_000)))?)
}

/// Reads until `buffer` holds `wanted` bytes. Returns what it holds at the end
/// of the stream.
fn read_up_to(
    stream: &mut impl Stream,
    buffer: &mut Vec<u8>,
    wanted: usize,
    deadline: Nanos,
) -> Result<usize, FrameError> {
    while buffer.len() < wanted {
        arm(stream, deadline)?;
        let old = buffer.len();
        buffer.resize(wanted.min(old + CHUNK), 0);
        match stream.read(&mut buffer[old..]) {
            Ok(read) => {
                buffer.truncate(old + read);
                if read == 0 {
                    break;
                }
            }
            Err(error) => {
                buffer.truncate(old);
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error.into());
                }
            }
        }
    }
    Ok(buffer.len())
}

/// Reads one message.
pub fn read(stream: &mut impl Stream, deadline: Nanos) -> Result<Vec<u8>, FrameError> {
    let mut header = Vec::with_capacity(4);
    match read_up_to(stream, &mut header, 4, deadline)? {
        0 => return Err(FrameError::Closed),
        4 => {}
        got => return Err(FrameError::Truncated { got, wanted: 4 }),
    }
    let wanted = header.iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    if wanted > MAX_MESSAGE {
        return Err(FrameError::TooLong(wanted));
    }
    let mut body = Vec::new();
    let got = read_up_to(stream, &mut body, wanted, deadline)?;
    if got < wanted { Err(FrameError::Truncated { got, wanted }) } else { Ok(body) }
}

/// Writes one message.
pub fn write(stream: &mut impl Stream, body: &[u8], deadline: Nanos) -> Result<(), FrameError> {
    if body.len() > MAX_MESSAGE {
        return Err(FrameError::TooLong(body.len()));
    }
    let length = (body.len() as u32).to_le_bytes();
    for part in [&length[..], body] {
        let mut rest = part;
        while !rest.is_empty() {
            arm(stream, deadline)?;
            match stream.write(rest) {
                Ok(0) => return Err(FrameError::Io(io::ErrorKind::WriteZero.into())),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}
