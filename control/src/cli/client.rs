//! Talking to the daemon on behalf of a subcommand.

use super::{Exit, Output, Socket};
use crate::api::protocol::Finding;
use crate::api::{Client, ClientError, Code, Request, Response};

/// Sends one request; a failure is reported and turned into an exit code.
pub(super) fn ask(socket: &Socket, request: Request, output: &Output) -> Result<Response, Exit> {
    let answer = Client::connect(&socket.socket).and_then(|mut client| client.call(request));
    answer.map_err(|error| report(&error, output))
}

fn report(error: &ClientError, output: &Output) -> Exit {
    let ClientError::Failed(failure) = error else {
        let mut message = error.to_string();
        if let ClientError::Frame(source) = error {
            message = format!("{message}: {source}");
        }
        output.error(message);
        return Exit::Unreachable;
    };
    findings(&failure.findings, output);
    output.error(&failure.message);
    match failure.code {
        Code::Refused | Code::Busy => Exit::Refused,
        Code::Forbidden => Exit::Environment,
        Code::BadRequest | Code::UnsupportedVersion | Code::Internal => Exit::Internal,
    }
}

/// Prints remarks about policy texts: `file:line:column: severity: message`.
pub(super) fn findings(findings: &[Finding], output: &Output) {
    for finding in findings {
        if output.json() {
            output.object(finding);
            continue;
        }
        let Finding { severity, file, line, column, message, remedy, .. } = finding;
        let place = match (line, column) {
            (0, _) => file.clone(),
            (line, 0) => format!("{file}:{line}"),
            (line, column) => format!("{file}:{line}:{column}"),
        };
        let remedy = remedy.as_ref().map_or_else(String::new, |remedy| format!(" ({remedy})"));
        output.complaint(format_args!("{place}: {severity}: {message}{remedy}"));
    }
}

/// An answer that does not belong to the request.
pub(super) fn unexpected(output: &Output) -> Exit {
    output.error("the daemon's answer does not belong to the request");
    Exit::Internal
}
