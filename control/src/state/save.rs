//! One pass over everything that lasts, into a new file.
//!
//! Cost: connections are taken a chunk at a time, and after each chunk the pass
//! rests several times as long as the chunk took, so that it never takes more than
//! a fraction of a core; records are read as lookups read them, so that workers
//! never wait. Times relate to the pass's beginning.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::conntrack::Conntrack;

use super::Place;
use super::expected::{self, Expected};
use super::format::{self, Header, SECTION_HEAD, Section};
use super::mapped::Draft;
use crate::compile::{Piece, SavedLimit};

/// Places of the connection table looked at between two rests.
const CHUNK: usize = 2048;
/// A rest is this many times as long as the work before it.
const REST: u32 = 4;
/// The longest rest, for when the work was interrupted and only seemed long.
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Where state comes from.
pub struct Sources {
    /// The connection table.
    pub conntrack: Arc<Conntrack>,
    /// The `limit` buckets.
    pub limits: Box<dyn Fn(Nanos) -> Vec<SavedLimit> + Send>,
    /// What rules share by name.
    pub pieces: Box<dyn Fn(Nanos) -> Vec<Piece> + Send>,
    /// Port names, by number.
    pub ports: Vec<String>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("ports", &self.ports).finish_non_exhaustive()
    }
}

/// How a pass went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Connections.
    pub connections: u64,
    /// Buckets.
    pub limits: u64,
    /// Pieces of what rules share by name.
    pub pieces: u64,
    /// Expectations.
    pub expectations: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Time at work, resting left out.
    pub work: Nanos,
    /// Time from beginning to end.
    pub took: Nanos,
    /// Microseconds since 1970 at its beginning.
    pub at_us: u64,
}

/// A section that is being written.
struct Open {
    kind: Section,
    at: usize,
    count: u64,
    sum: u32,
}

impl Open {
    fn begin(draft: &mut Draft, kind: Section) -> io::Result<Self> {
        let at = draft.len();
        draft.append(&[0; SECTION_HEAD])?;
        Ok(Self { kind, at, count: 0, sum: 0 })
    }
    fn add(&mut self, draft: &mut Draft, entries: u64, bytes: &[u8]) -> io::Result<()> {
        self.count += entries;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        draft.append(bytes)
    }
    fn end(self, draft: &mut Draft) {
        let length = (draft.len() - self.at - SECTION_HEAD) as u64;
        draft.replace(self.at, &format::section_head(self.kind, self.count, length, self.sum));
    }
}

/// Saves everything and puts the file in force. `clean`: the workers have stopped,
/// and there is no hurry to be gentle.
///
/// # Errors
/// Whatever the file system says; the file that was in force stays.
pub fn save(
    place: &Place,
    sources: &Sources,
    clean: bool,
    expected: usize,
) -> Result<Saved, io::Error> {
    let start = monotonic();
    let mut saved = Saved { at_us: wall_us(), ..Saved::default() };
    let mut draft = Draft::begin(place.path(), expected)?;
    draft.append(&[0; format::HEADER])?;
    let mut bytes = Vec::new();

    let mut section = Open::begin(&mut draft, Section::Ports)?;
    sources.ports.iter().for_each(|port| format::put_text(&mut bytes, port));
    section.add(&mut draft, sources.ports.len() as u64, &bytes)?;
    section.end(&mut draft);

    let mut section = Open::begin(&mut draft, Section::Connections)?;
    let places = sources.conntrack.places();
    let mut rested = Nanos(0);
    for from in (0..places).step_by(CHUNK) {
        let began = monotonic();
        bytes.clear();
        let mut count = 0;
        for at in from..places.min(from + CHUNK) {
            if let Some(connection) = sources.conntrack.export(at, start) {
                format::put_connection(&mut bytes, &connection);
                count += 1;
            }
        }
        section.add(&mut draft, count, &bytes)?;
        if !clean {
            let done = monotonic();
            std::thread::sleep(rest(done.saturating_sub(began)));
            rested = rested + monotonic().saturating_sub(done);
        }
    }
    saved.connections = section.count;
    section.end(&mut draft);

    small_sections(&mut draft, sources, start, &mut saved)?;
    saved.bytes = draft.len() as u64;
    let header = Header { saved_at_us: saved.at_us, clean, length: saved.bytes };
    draft.replace(0, &header.encode());
    saved.work = monotonic().saturating_sub(start).saturating_sub(rested);
    draft.publish()?;
    saved.took = monotonic().saturating_sub(start);
    Ok(saved)
}

/// How long to rest after `work`.
fn rest(work: Nanos) -> Duration {
    (Duration::from_nanos(work.0) * REST).min(LONGEST_REST)
}

/// What there is little of.
fn small_sections(
    draft: &mut Draft,
    sources: &Sources,
    start: Nanos,
    saved: &mut Saved,
) -> io::Result<()> {
    let mut section = Open::begin(draft, Section::Limits)?;
    let mut bytes = Vec::new();
    bytes.clear();
    let fits = |limit: &&SavedLimit| limit.rule.len() <= usize::from(u16::MAX);
    for limit in (sources.limits)(start).iter().filter(fits) {
        format::put_limit(&mut bytes, limit);
        saved.limits += 1;
    }
    section.add(draft, saved.limits, &bytes)?;
    section.end(draft);

    let mut section = Open::begin(draft, Section::Expectations)?;
    bytes.clear();
    let expectations = sources.conntrack.expectations(start);
    expectations.iter().for_each(|row| expected::put(&mut bytes, &Expected::of(row)));
    saved.expectations = expectations.len() as u64;
    section.add(draft, saved.expectations, &bytes)?;
    section.end(draft);

    let mut section = Open::begin(draft, Section::Timeouts)?;
    bytes.clear();
    sources.conntrack.timeout_names().for_each(|name| format::put_text(&mut bytes, name));
    section.add(draft, sources.conntrack.timeout_names().count() as u64, &bytes)?;
    section.end(draft);

    let mut section = Open::begin(draft, Section::Pieces)?;
    for piece in (sources.pieces)(start) {
        bytes.clear();
        format::put_piece(&mut bytes, &piece);
        saved.pieces += 1;
        section.add(draft, 1, &bytes)?;
    }
    section.end(draft);
    Ok(())
}
