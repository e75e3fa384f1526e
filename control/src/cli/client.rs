//! Talking to the daemon on behalf of a subcommand.

use super::{Exit, Output, Socket};
use crate::api::protocol::{Finding, Source};
use crate::api::{Client, ClientError, Code, Request, Response};

/// Sends one request; a failure is reported and turned into an exit code.
pub(super) fn ask(socket: &Socket, request: Request, output: &Output) -> Result<Response, Exit> {
    ask_about(socket, request, &[], output)
}

/// The same; findings in the answer speak of these texts.
pub(super) fn ask_about(
    socket: &Socket,
    request: Request,
    sources: &[Source],
    output: &Output,
) -> Result<Response, Exit> {
    let answer = Client::connect(&socket.socket).and_then(|mut client| client.call(request));
    answer.map_err(|error| report(&error, sources, output))
}

/// Sends one request, and says nothing of a failure.
pub(super) fn try_ask(socket: &Socket, request: Request) -> Result<Response, ClientError> {
    Client::connect(&socket.socket).and_then(|mut client| client.call(request))
}

/// Says what went wrong and turns it into an exit code.
pub(super) fn report(error: &ClientError, sources: &[Source], output: &Output) -> Exit {
    let ClientError::Failed(failure) = error else {
        output.error(error);
        return Exit::Unreachable;
    };
    findings(&failure.findings, sources, output);
    output.error(&failure.message);
    match failure.code {
        Code::Refused | Code::Busy => Exit::Refused,
        Code::Forbidden => Exit::Environment,
        Code::BadRequest | Code::UnsupportedVersion | Code::Internal => Exit::Internal,
    }
}

/// Prints remarks about policy texts: `file:line:column: severity: message`, and
/// the line with a caret where the text is at hand.
pub(super) fn findings(findings: &[Finding], sources: &[Source], output: &Output) {
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
        let source = sources.iter().find(|source| source.name == *file);
        let said =
            source.and_then(|source| source.text.lines().nth((*line as usize).saturating_sub(1)));
        if let Some(said) = said.filter(|_| *line > 0 && *column > 0) {
            // Tabs stay tabs, so that the caret stands below its column.
            let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
            let indent: String = said.chars().take(*column as usize - 1).map(blank).collect();
            output.complaint(format_args!("    {said}\n    {indent}^"));
        }
    }
}

/// An answer that does not belong to the request.
pub(super) fn unexpected(output: &Output) -> Exit {
    output.error("the daemon's answer does not belong to the request");
    Exit::Internal
}
