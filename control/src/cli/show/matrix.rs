//! `show matrix`.

use super::{Exit, Output, ask, unexpected};
use crate::api::protocol::{MatrixInfo, MatrixRun};
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Asks and prints. A matrix that is not as expected is a warning, as in `matrix run`.
pub(super) fn show(socket: &Socket, output: &Output) -> Result<(), Exit> {
    let response = ask(socket, Request::ShowMatrix {}, output)?;
    let Response::Matrix(info) = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&info);
    } else {
        output.raw(&render(info));
    }
    let good = |run: &MatrixRun| run.failed == 0 && run.error.is_none();
    if info.last.as_ref().is_none_or(good) { Ok(()) } else { Err(Exit::Warnings) }
}

fn render(info: &MatrixInfo) -> String {
    let MatrixInfo { file, interval_s, last } = info;
    let Some(file) = file else {
        return "no matrix is configured (matrix.file): nothing guards changes by flows\n"
            .to_owned();
    };
    let every = match interval_s {
        0 => "not run by itself".to_owned(),
        seconds => format!("run every {seconds} s"),
    };
    let mut out = format!("{file}: a gate for changes; {every}\n");
    let Some(run) = last else { return out + "not run yet\n" };
    let MatrixRun { at, generation, took_ms, passed, failed, failures, error } = run;
    let result = match error {
        Some(error) => format!("cannot be run: {error}"),
        None => format!("{passed} flows as expected, {failed} not"),
    };
    out += &format!("{at}, generation {generation}, {took_ms} ms: {result}\n");
    for failure in failures {
        out += &format!("  {failure}\n");
    }
    out
}
