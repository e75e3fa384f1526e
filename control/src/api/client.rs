//! The client's side of the control socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use dataplane::clock::{Nanos, monotonic};
use thiserror::Error;

use super::frame::{self, FrameError};
use super::protocol::{
    Failure, Outcome, PROTOCOL_VERSION, Request, RequestEnvelope, Response, ResponseEnvelope,
};

/// Compiling the largest policy takes well under this.
const ANSWER_TIMEOUT: Nanos = Nanos::from_secs(120);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the daemon at {path}: {source}")]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the daemon broke off: {0}")]
    Frame(#[from] FrameError),
    /// The answer makes no sense.
    #[error("the daemon's answer cannot be understood: {0}")]
    Answer(serde_json::Error),
    /// The request cannot be put into words (a path that is not text, say).
    #[error("the request cannot be encoded: {0}")]
    Encode(serde_json::Error),
    /// The daemon said no.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.display().to_string(), source })?;
        Ok(Self { stream })
    }

    /// Waits for a further answer to the same request.
    ///
    /// # Errors
    /// The conversation broke off, or the daemon has been silent for long.
    pub fn further(&mut self) -> Result<Response, ClientError> {
        understood(&frame::read(&mut self.stream, monotonic() + ANSWER_TIMEOUT)?)
    }

    /// Sends a request and waits for its answer.
    pub fn call(&mut self, request: Request) -> Result<Response, ClientError> {
        let envelope = RequestEnvelope { version: PROTOCOL_VERSION, request };
        let body = serde_json::to_vec(&envelope).map_err(ClientError::Encode)?;
        let deadline = monotonic() + ANSWER_TIMEOUT;
        // A daemon that refuses the connection answers before it has read the
        // request: the answer says more than the broken pipe.
        let sent = frame::write(&mut self.stream, &body, deadline);
        let answer = match frame::read(&mut self.stream, deadline) {
            Ok(answer) => answer,
            Err(error) => return Err(sent.err().unwrap_or(error).into()),
        };
        understood(&answer)
    }
}

fn understood(answer: &[u8]) -> Result<Response, ClientError> {
    let answer: ResponseEnvelope = serde_json::from_slice(answer).map_err(ClientError::Answer)?;
    match answer.outcome {
        Outcome::Response(response) => Ok(*response),
        Outcome::Error(failure) => Err(failure.into()),
    }
}
