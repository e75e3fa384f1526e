//! `portcullis conntrack watch`: events as they happen, until interrupted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::parse::{Shape, Wanted};
use super::{Caller, Voice};
use crate::api::protocol::{ConntrackWatch, EventInfo, EventKindName};
use crate::api::{Client, ClientError, Request, Response};
use crate::cli::Exit;
use crate::cli::client::{report, unexpected};
use crate::conntrack::{Columns, Form};

/// Prints events until the daemon or the reader goes away, or a signal comes.
pub(super) fn watch(caller: &Caller<'_>, wanted: Wanted) -> Result<Exit, Exit> {
    let mask = wanted.events;
    let chosen = |kind, set: bool| set.then_some(kind);
    let kinds = mask.map_or_else(Vec::new, |mask| {
        let all = [
            chosen(EventKindName::New, mask.new),
            chosen(EventKindName::Update, mask.update),
            chosen(EventKindName::Destroy, mask.destroy),
        ];
        all.into_iter().flatten().collect()
    });
    let request = Request::WatchConntrack(ConntrackWatch { filter: wanted.filter, kinds });
    let failed = |error: ClientError| report(&error, &[], &caller.output);
    let mut client = Client::connect(&caller.socket.socket).map_err(failed)?;
    let mut response = client.call(request).map_err(failed)?;
    let shown = Arc::new(AtomicU64::new(0));
    say_at_the_end(caller, &shown);
    let mut known_lost = 0;
    loop {
        let Response::Events { events, lost } = response else {
            return Err(unexpected(&caller.output));
        };
        for event in events {
            if print(caller, wanted.shape, event).is_err() {
                return Ok(Exit::Ok);
            }
            shown.fetch_add(1, Ordering::Relaxed);
        }
        if lost > known_lost {
            let news = lost - known_lost;
            caller.output.warning(format_args!("{news} events were lost: too many waited"));
            known_lost = lost;
        }
        response = client.further().map_err(failed)?;
    }
}

/// A signal ends it, with the tool's summary.
fn say_at_the_end(caller: &Caller<'_>, shown: &Arc<AtomicU64>) {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    let (shown, voice, json) = (Arc::clone(shown), caller.voice, caller.output.json());
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            if !json {
                say(voice, shown.load(Ordering::Relaxed));
            }
            std::process::exit(0);
        }
    });
}

fn say(voice: Voice, shown: u64) {
    voice.say(format_args!("{shown} flow events have been shown."));
}

/// One event, as the tool has it: only the end tells what was counted, and for how long.
fn print(caller: &Caller<'_>, shape: Shape, event: EventInfo) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if caller.output.json() {
        let line = serde_json::to_string(&event)?;
        return writeln!(out, "{line}").and_then(|()| out.flush());
    }
    let mut row = event.connection;
    let name = match event.kind {
        EventKindName::New => "    [NEW] ",
        EventKindName::Update => " [UPDATE] ",
        EventKindName::Destroy => "[DESTROY] ",
    };
    let ended = event.kind == EventKindName::Destroy;
    if ended {
        row.helper = None;
    } else {
        (row.age_s, row.start_s) = (None, None);
        (row.original.counted, row.reply.counted) = (None, None);
    }
    if shape.timestamp {
        write!(out, "[{}.{:06}]\t", event.at_us / 1_000_000, event.at_us % 1_000_000)?;
    }
    let stop = ended.then_some(event.at_us / 1_000_000);
    let columns = Columns { stop, ..caller.columns(shape, Form::Event) };
    writeln!(out, "{name}{}", columns.line(&row))?;
    out.flush()
}
