//! Sets over restarts: a file beside the state file, in `ipset save` form.
//!
//! Its first line says when it was written, its last that it is whole. What passed until it
//! is read comes off the timeouts. A file that is not exactly what was written is refused
//! whole and put aside; a line of it that cannot be taken is left out, and told. A set of which the operator's files say what they said when it was
//! saved goes on with what it held; one of which they say something else begins with that.
//!
//! Life cycle: [`SetKeeper::start`] once the workers run; [`SetKeeper::finish`] makes it save
//! once more and end. The pause after a pass is at least [`SHARE`] times the work it was.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::sets::{Registry, SetName, SetType};

use super::{FromFiles, SetDesk, seed};
use crate::daemon::Config;
use crate::ipset::{self, LeftOut, MAX_FILE_BYTES, Stage, print};
use crate::iptables::TableNames;

/// A pass is work for at most one part in this many of the time.
const SHARE: u64 = 20;
/// What the first line begins with.
const HEAD: &str = "# portcullis sets 1 ";
/// What a line begins with that tells what files said of a set.
const SAID: &str = "# said ";
/// What the last line begins with.
const FOOT: &str = "# whole ";

fn wall() -> Nanos {
    Nanos(wall_us() * 1000)
}

/// The file beside the state file.
pub(super) fn place(state: &Path) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(".sets");
    path.into()
}

/// What was saved.
struct Saved {
    stage: Stage<'static>,
    said: BTreeMap<SetName, u64>,
    left_out: LeftOut,
}

/// The sets that the daemon begins with, and what there is to say of them.
///
/// # Errors
/// Sets that cannot be made, or a file that cannot be put aside.
pub(in crate::daemon) fn open(
    state: Option<&Path>,
    files: FromFiles,
) -> io::Result<(Arc<SetDesk>, Vec<String>)> {
    let mut remarks = Vec::new();
    let path = state.map(place);
    let saved = match path.as_deref().map(read) {
        None | Some(Ok(None)) => None,
        Some(Ok(Some(saved))) => {
            remarks.extend(path.as_deref().and_then(|path| told(path, &saved.left_out)));
            Some(saved)
        }
        Some(Err(why)) => {
            let path = path.unwrap_or_default();
            let mut aside = path.clone().into_os_string();
            aside.push(".refused");
            fs::rename(&path, &aside)?;
            let (path, aside) = (path.display(), aside.to_string_lossy());
            remarks.push(format!(
                "saved sets in {path} were refused: {why}; starting with those of the files, \
                 it is now {aside}"
            ));
            None
        }
    };
    let registry = Arc::new(Registry::new(seed()));
    let (said, staged) = (files.stage.fingerprints(), files.stage.into_registry());
    let before = saved.as_ref().map(|saved| saved.said.clone()).unwrap_or_default();
    let kept = |name: &SetName| match staged.get(name) {
        None => true,
        Some(_) => before.contains_key(name) && before.get(name) == said.get(name),
    };
    let now = monotonic();
    let mut lists = Vec::new();
    let mut take = |from: &Registry, wanted: &dyn Fn(&SetName) -> bool| -> io::Result<()> {
        for slot in from.list() {
            let (name, set) = (slot.name(), slot.set());
            match set.spec().kind {
                _ if !wanted(&name) => {}
                SetType::ListSet => lists.push((name, set)),
                _ => registry.put(name, set).map_err(io::Error::other)?,
            }
        }
        Ok(())
    };
    if let Some(saved) = &saved {
        take(saved.stage.registry(), &kept)?;
    }
    take(&staged, &|name| {
        registry.get(name).is_none() && !(saved_has(&saved, name) && kept(name))
    })?;
    for (name, list) in lists {
        ipset::put_list(&registry, name, &list, now).map_err(io::Error::other)?;
    }
    Ok((Arc::new(SetDesk::new(registry, said)), remarks))
}

/// What there is to say of lines that were left out.
fn told(path: &Path, left_out: &LeftOut) -> Option<String> {
    let LeftOut { lines, first: Some(first) } = left_out else { return None };
    let (path, plural) = (path.display(), if *lines == 1 { "" } else { "s" });
    Some(format!(
        "saved sets in {path}: {lines} line{plural} left out; line {}: {}",
        first.line, first.message
    ))
}

fn saved_has(saved: &Option<Saved>, name: &SetName) -> bool {
    saved.as_ref().is_some_and(|saved| saved.stage.registry().get(name).is_some())
}

/// Reads what was saved, if anything was.
fn read(path: &Path) -> Result<Option<Saved>, String> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(file) => {
            file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|e| e.to_string())?
        }
    };
    parse(&text, wall()).map(Some)
}

/// Reads a saved text as of `now`, by the wall clock.
fn parse(text: &str, now: Nanos) -> Result<Saved, String> {
    let damaged = || "it is damaged".to_owned();
    let head = text.lines().next().and_then(|line| line.strip_prefix(HEAD)).ok_or_else(damaged)?;
    let at: u64 = head.parse().map_err(|_| damaged())?;
    let (body, foot) = text.trim_end().rsplit_once('\n').ok_or_else(damaged)?;
    let sum = foot.strip_prefix(FOOT).ok_or_else(damaged)?;
    let body = &text[..=body.len()];
    if u32::from_str_radix(sum, 16).ok() != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged());
    }
    let age = (now.0 / Nanos::SECOND.0).saturating_sub(at);
    let mut said = BTreeMap::new();
    for line in body.lines().filter_map(|line| line.strip_prefix(SAID)) {
        let (sum, name) = line.split_once(' ').ok_or_else(damaged)?;
        let name = SetName::new(name).map_err(|_| damaged())?;
        said.insert(name, u64::from_str_radix(sum, 16).map_err(|_| damaged())?);
    }
    let age = u32::try_from(age).unwrap_or(u32::MAX);
    let mut stage = Stage::empty(seed(), monotonic()).aged(age);
    let left_out = ipset::read_saved(&mut stage, body, &TableNames::of_host());
    Ok(Saved { stage, said, left_out })
}

/// Writes with a checksum.
struct Summed<W> {
    to: W,
    sum: u32,
    /// Bytes that there is room for yet.
    room: u64,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, text: &str) -> io::Result<()> {
        let Some(room) = self.room.checked_sub(text.len() as u64) else {
            return Err(io::Error::other(format!(
                "all sets together are more than the {MAX_FILE_BYTES} bytes that would be read \
                 again"
            )));
        };
        self.room = room;
        self.sum = crc32c::crc32c_append(self.sum, text.as_bytes());
        self.to.write_all(text.as_bytes())
    }
}

/// Writes all sets as they are, if they fit so many bytes.
fn write(desk: &SetDesk, to: impl Write, at: Nanos, most: u64) -> io::Result<()> {
    // The last line has eight digits.
    let room = most.saturating_sub(FOOT.len() as u64 + 9);
    let mut to = Summed { to, sum: 0, room };
    to.put(&format!("{HEAD}{}\n", at.0 / Nanos::SECOND.0))?;
    for (name, sum) in desk.fingerprints() {
        to.put(&format!("{SAID}{sum:016x} {name}\n"))?;
    }
    let is_list = |set: &dataplane::sets::Set| set.spec().kind == SetType::ListSet;
    let slots = desk.registry().list();
    for lists in [false, true] {
        for slot in &slots {
            let set = slot.set();
            if is_list(&set) == lists {
                print::save(&slot.name(), &set, desk.names(), monotonic(), |text| to.put(text))?;
            }
        }
    }
    let foot = format!("{FOOT}{:08x}\n", to.sum);
    to.to.write_all(foot.as_bytes())?;
    to.to.flush()
}

/// Saves to a file, whole or not at all.
fn save(desk: &SetDesk, path: &Path) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    if let Err(error) = write(desk, BufWriter::new(&file), wall(), MAX_FILE_BYTES) {
        // What is there is no use to anybody, and may be all the disk has left.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    file.sync_all()?;
    fs::rename(&new, path)
}

#[derive(Debug, Default)]
struct Shared {
    stop: Mutex<bool>,
    wake: Condvar,
}

/// The thread that saves every few seconds.
#[derive(Debug)]
pub(in crate::daemon) struct SetKeeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl SetKeeper {
    /// Starts it, if state is kept anywhere.
    ///
    /// # Errors
    /// When no thread can be made.
    pub(in crate::daemon) fn start(
        config: &Config,
        desk: Arc<SetDesk>,
    ) -> io::Result<Option<Self>> {
        let Some(path) = config.state.as_deref().map(place) else { return Ok(None) };
        let (shared, every) = (Arc::new(Shared::default()), config.state_every);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sets".to_owned()).spawn(move || {
            let mut failing = false;
            let mut pause = every;
            loop {
                let stop = theirs.wait(pause);
                let begun = monotonic();
                // What was never made need not be forgotten.
                if !desk.registry().list().is_empty() || path.exists() {
                    match save(&desk, &path) {
                        Ok(()) => failing = false,
                        Err(error) if !failing => {
                            failing = true;
                            let path = path.display();
                            tracing::error!(
                                "sets cannot be saved to {path}: {error}; will try again"
                            );
                        }
                        Err(_) => {}
                    }
                }
                let work = monotonic().saturating_sub(begun);
                pause = Nanos(every.0.max(work.0.saturating_mul(SHARE)));
                if stop {
                    return;
                }
            }
        })?;
        Ok(Some(Self { shared, thread: Some(thread) }))
    }

    /// Saves once more and ends.
    pub(in crate::daemon) fn finish(mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits, and says whether to stop.
    fn wait(&self, pause: Nanos) -> bool {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Duration::from_nanos(pause.0);
        let waited = self.wake.wait_timeout_while(stop, time, |stop| !*stop);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::protocol::Source;
    use dataplane::sets::{Element, Extras, Iface};

    fn desk(text: &str) -> Arc<SetDesk> {
        let source = Source { name: "sets".to_owned(), text: text.to_owned() };
        open(None, FromFiles::read(&[source]).unwrap()).unwrap().0
    }

    fn saved(desk: &SetDesk) -> String {
        let mut bytes = Vec::new();
        write(desk, &mut bytes, Nanos::from_secs(1000), MAX_FILE_BYTES).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_was_saved_comes_back_less_what_passed() {
        let desk = desk(
            "create a hash:ip timeout 0 comment\nadd a 192.0.2.1\nadd a 192.0.2.2 timeout 100 \
             comment \"x y\"\nadd a 192.0.2.3 timeout 5\ncreate l list:set\nadd l a\n",
        );
        let text = saved(&desk);
        let back = parse(&text, Nanos::from_secs(1010)).unwrap();
        assert_eq!(back.said, desk.fingerprints());
        let slot = back.stage.registry().get(&SetName::new("a").unwrap()).unwrap();
        let (mut entries, _) = slot.set().entries(Default::default(), 10, monotonic());
        entries.sort_by_key(|entry| entry.element.ip);
        assert_eq!(entries.len(), 2, "one has expired: {text}");
        assert_eq!(entries[0].extras.timeout_s, Some(0));
        // Each time it is told in whole seconds, what is left of one is left out.
        assert!((87..=90).contains(&entries[1].extras.timeout_s.unwrap()), "{entries:?}");
        assert_eq!(entries[1].extras.comment.as_deref(), Some("x y"));
        assert!(back.stage.registry().get(&SetName::new("l").unwrap()).is_some());
    }

    /// More than would be read again is not written.
    #[test]
    fn a_file_is_no_larger_than_what_is_read() {
        let desk = desk("create a hash:ip\nadd a 192.0.2.1\nadd a 192.0.2.2\n");
        let whole = saved(&desk).len() as u64;
        let write = |most: u64| {
            let mut bytes = Vec::new();
            write(&desk, &mut bytes, Nanos::from_secs(1000), most).map(|()| bytes.len() as u64)
        };
        assert_eq!(write(whole).unwrap(), whole);
        for most in [0, 1, whole / 2, whole - 1] {
            let error = write(most).unwrap_err().to_string();
            assert!(error.contains("more than the 268435456 bytes"), "{error}");
        }
    }

    /// Elements as packets add them, which the tool would refuse.
    #[test]
    fn what_packets_added_comes_back() {
        let desk = desk(
            "create p hash:ip,port timeout 0\ncreate six hash:ip,port family inet6\n\
             create n hash:net,iface\ncreate \"a b\" hash:ip\ncreate l list:set\n\
             add l \"a b\"\n",
        );
        let slot =
            |desk: &SetDesk, name: &str| desk.registry().get(&SetName::new(name).unwrap()).unwrap();
        let add = |name: &str, element: Element, timeout_s: Option<u32>| {
            let extras = Extras { timeout_s, ..Extras::default() };
            desk.registry().add(&slot(&desk, name), &element, &extras, false, monotonic()).unwrap();
        };
        let local = Element { ip: 0x7f00_0001, ..Element::default() };
        add("p", Element { proto: 58, port: 0x8000, ..local }, None);
        add("p", Element { proto: 58, port: 0x0b0c, ..local }, Some(2_147_483));
        add("p", Element { proto: 17, port: 67, ..Element::default() }, None);
        add("six", Element { proto: 1, port: 0x0800, ip: 1, ..Element::default() }, None);
        let iface = |name: &str, wildcard| {
            let name = arrayvec::ArrayString::from(name).unwrap();
            let iface = Some(Iface { name, physdev: false, wildcard });
            Element { iface, cidr: Some(8), ip: 0x0a00_0000, ..Element::default() }
        };
        for number in 0..8 {
            add("n", iface(&format!("eth{number}"), false), None);
        }
        for (name, wildcard) in [("eth", true), ("et", true), ("a b", false), ("a,b", false)] {
            add("n", iface(name, wildcard), None);
        }
        let text = saved(&desk);
        let back = parse(&text, Nanos::from_secs(1000)).unwrap();
        assert_eq!(back.left_out, LeftOut::default(), "{text}");
        for name in ["p", "six", "n", "l", "a b"] {
            let list = |set: &dataplane::sets::Set| {
                let (mut entries, _) = set.entries(Default::default(), 100, monotonic());
                entries.sort_by_key(|entry| format!("{entry:?}"));
                let told = |entry: &dataplane::sets::Entry| {
                    // Whole seconds pass.
                    let left = entry.extras.timeout_s.map(|left| left.div_ceil(10));
                    (entry.element, left)
                };
                entries.iter().map(told).collect::<Vec<_>>()
            };
            let found = back.stage.registry().get(&SetName::new(name).unwrap()).unwrap();
            assert_eq!(list(&found.set()), list(&slot(&desk, name).set()), "{name}: {text}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_taken_costs_only_itself() {
        let whole = saved(&desk("create a hash:ip\nadd a 192.0.2.1\nadd a 192.0.2.2\n"));
        let (body, _) = whole.trim_end().rsplit_once('\n').unwrap();
        let body = format!("{}\n", body.replacen("192.0.2.1", "192.0.2.x", 1));
        let text = format!("{body}{FOOT}{:08x}\n", crc32c::crc32c(body.as_bytes()));
        let back = parse(&text, Nanos::from_secs(1000)).unwrap();
        assert_eq!(back.left_out.lines, 1);
        let said = told(Path::new("/f"), &back.left_out).unwrap();
        assert!(said.contains("1 line left out") && said.contains("192.0.2.x"), "{said}");
        let slot = back.stage.registry().get(&SetName::new("a").unwrap()).unwrap();
        assert_eq!(slot.set().header().entries, 1);
    }

    #[test]
    fn a_damaged_file_is_refused_whole() {
        let text = saved(&desk("create a hash:ip\nadd a 192.0.2.1\n"));
        assert!(parse(&text, Nanos::from_secs(1000)).is_ok());
        for cut in 0..text.len() - 1 {
            assert!(parse(&text[..cut], Nanos::from_secs(1000)).is_err(), "cut at {cut}");
        }
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(parse(&changed, Nanos::from_secs(1000)).is_err(), "changed at {at}");
        }
    }
}
