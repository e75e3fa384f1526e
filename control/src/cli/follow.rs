//! Following live packets, for `trace` and `capture`: asks the daemon, hands on what it tells,
//! and says at the end what was missed. A signal ends it in good order.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::apply::time;
use super::client::{report, unexpected};
use super::{Exit, Output, Socket};
use crate::api::protocol::{PacketTrace, Traced, TracedPacket};
use crate::api::{Client, ClientError, Request, Response};

/// The words of filters, for `--help`.
pub(super) const WORDS: &str =
    "A filter is terms joined by `and' (which may be left out) and `or' (which binds less), each
of which `not' may precede; there are no parentheses:
  any  ip  ip6  arp  tcp  udp  icmp  icmp6  sctp  proto NAME-OR-NUMBER
  [src|dst] [host] ADDRESS    [src|dst] net PREFIX    [src|dst] port PORT[-PORT]
  in INTERFACE                own (what this machine sends)
It sees packets as they arrive, before any translation.";

/// Where it ends.
#[derive(Clone, Debug, clap::Args)]
pub struct Bounds {
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this time, as 500ms, 10s or 5m; at most 1h [default: 10s].
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub time: Option<u64>,
    /// Packets a second at most; what is beyond is counted [default: 1000].
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
}

fn duration(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write 500ms, 10s or 5m, at most 1h");
    time(text).filter(|ms| (1..=3_600_000).contains(ms)).ok_or_else(bad)
}

impl Bounds {
    /// What to ask the daemon for.
    pub(super) fn request(&self, filter: &[String], snaplen: Option<u32>) -> PacketTrace {
        let Self { count, time: for_ms, rate } = *self;
        PacketTrace { filter: filter.join(" "), count, for_ms, rate, snaplen }
    }
}

/// Where packets go.
pub(super) trait Sink: Send + 'static {
    /// Takes packets; none: nothing happened for a while.
    ///
    /// # Errors
    /// Nobody reads on, or a file cannot be written.
    fn take(&mut self, packets: &[TracedPacket]) -> io::Result<()>;
    /// Nothing more will come.
    ///
    /// # Errors
    /// A file cannot be written.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct State<S> {
    sink: S,
    seen: Traced,
    packets: u64,
}

impl<S: Sink> State<S> {
    fn finish(&mut self, output: &Output) -> Exit {
        let finished = self.sink.finish();
        self.sum_up(output);
        match finished {
            Ok(()) => Exit::Ok,
            Err(error) => broken(&error, output),
        }
    }

    /// What there is to say at the end.
    fn sum_up(&self, output: &Output) {
        let Traced { matched, limited, lost, .. } = self.seen;
        if output.json() {
            let packets = self.packets;
            let sum = serde_json::json!({
                "packets": packets, "matched": matched, "limited": limited, "lost": lost
            });
            return output.complaint(serde_json::json!({ "summary": sum }));
        }
        output.complaint(format_args!("{} packet(s)", self.packets));
        if matched == 0 {
            output.complaint(
                "nothing matched: it did not arrive here (portcullis show ports; \
                 an XDP rule or the kernel may have it: portcullis show blocklist), or the filter is wrong",
            );
        }
        if limited > 0 {
            output.warning(format_args!("{limited} more matched, beyond the rate (--rate)"));
        }
        if lost > 0 {
            output.warning(format_args!("{lost} were lost: too many waited to be told"));
        }
    }
}

fn broken(error: &io::Error, output: &Output) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Ok;
    }
    output.error(error);
    Exit::Environment
}

fn locked<S>(state: &Mutex<State<S>>) -> MutexGuard<'_, State<S>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows packets until there were enough, the time is up, or a signal comes.
pub(super) fn follow<S: Sink>(
    socket: &Socket,
    request: PacketTrace,
    sink: S,
    output: Output,
) -> Exit {
    let state = Arc::new(Mutex::new(State { sink, seen: Traced::default(), packets: 0 }));
    let failed = |error: ClientError| report(&error, &[], &output);
    let begun = Client::connect(&socket.socket)
        .and_then(|mut client| client.call(Request::TracePackets(request)).map(|it| (client, it)));
    let (mut client, mut response) = match begun {
        Ok(begun) => begun,
        Err(error) => return failed(error),
    };
    end_on_signals(&state, output);
    // Who waits for this line before it sends something misses nothing of it.
    output.complaint("listening");
    loop {
        let Response::Traced(told) = response else { return unexpected(&output) };
        let mut state = locked(&state);
        state.packets += told.packets.len() as u64;
        if let Err(error) = state.sink.take(&told.packets) {
            return broken(&error, &output);
        }
        state.seen = Traced { packets: Vec::new(), ..told };
        if state.seen.done {
            return state.finish(&output);
        }
        drop(state);
        response = match client.further() {
            Ok(response) => response,
            Err(error) => return failed(error),
        };
    }
}

/// A signal ends it as the time's end does: no packet is told by half.
fn end_on_signals<S: Sink>(state: &Arc<Mutex<State<S>>>, output: Output) {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
    let state = Arc::clone(state);
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let exit = locked(&state).finish(&output);
            std::process::exit(exit as i32);
        }
    });
}
