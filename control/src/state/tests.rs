//! State files: there and back, and every way in which one can be damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::{
    Config, Conntrack, Direction, Follow, Limits, Saved, SourceMask, TimeoutsId, Tuple, status,
};
use dataplane::fib::{Mode, Network, PortInfo, Topology};
use dataplane::packet::{Family, Mac};
use dataplane::policy::target::HelperKind;
use proptest::prelude::*;

use super::expected::{self, Expected};
use super::format::{self, Contents, Header, Refusal, Section};
use super::{Keeper, Place, Restored, Saving, Sources, StateError, restore, save};
use crate::compile::{Imported, Piece, SavedLimit};

/// A directory of one test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-state-{}-{serial}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn file(&self) -> PathBuf {
        self.0.join("state/conntrack")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn table(max: u64) -> Arc<Conntrack> {
    static KEYS: AtomicU32 = AtomicU32::new(1);
    let mut config = Config::new([KEYS.fetch_add(1, Ordering::Relaxed) as u8; 16]);
    config.set("max", max).unwrap();
    Arc::new(Conntrack::new(config).unwrap())
}

fn network(names: &[&str], address: &str) -> Network {
    let port = |name: &&str| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: (*name).to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        addresses: vec![(address.parse().unwrap(), 24)],
    };
    let ports = names.iter().map(port).collect();
    let (routes, rules, neighbours) = Default::default();
    let topology = Topology { mode: Mode::Routed, ports, routes, rules, neighbours };
    Network::build(&topology).unwrap()
}

fn sources(conntrack: &Arc<Conntrack>, limits: Vec<SavedLimit>) -> Sources {
    Sources {
        conntrack: Arc::clone(conntrack),
        limits: Box::new(move |_| limits.clone()),
        pieces: Box::new(|_| vec![piece()]),
        ports: vec!["g0".to_owned(), "g1".to_owned()],
    }
}

/// Which bits of a status outlive the table.
const KEPT: u32 = !(status::CONFIRMED | status::DYING);

fn any_tuple(family: Family) -> impl Strategy<Value = (u128, u128, u16, u16, u16)> {
    let address = match family {
        Family::V4 => any::<u32>().prop_map(u128::from).boxed(),
        Family::V6 => any::<u128>().boxed(),
    };
    (address.clone(), address, any::<u16>(), any::<u16>(), any::<u16>())
}

fn any_saved() -> impl Strategy<Value = Saved> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    family.prop_flat_map(|family| {
        let tuples = (any_tuple(family), any_tuple(family));
        let words = prop::collection::vec(prop_oneof![Just(0u64), any::<u64>()], Saved::WORDS);
        let facts = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u8>());
        let optional = (any::<Option<u64>>(), any::<Option<u64>>());
        (tuples, words, facts, optional).prop_map(move |((a, b), words, facts, optional)| {
            let (number, left, status, mark, proto) = facts;
            let tuple = |(src, dst, sport, dport, zone)| Tuple {
                src,
                dst,
                sport,
                dport,
                proto,
                family,
                zone,
            };
            let mut all = [0; Saved::WORDS];
            all.copy_from_slice(&words);
            Saved {
                number,
                master: optional.0,
                left: Nanos(left),
                age: optional.1.map(Nanos),
                status,
                mark,
                original: tuple(a),
                reply: tuple(b),
                words: all,
            }
        })
    })
}

/// The bytes of a file with these connections.
fn file_of(connections: &[Saved], limits: &[SavedLimit], clean: bool) -> Vec<u8> {
    let mut file = vec![0; format::HEADER];
    let mut section = |kind, count: usize, content: &[u8]| {
        let sum = crc32c::crc32c(content);
        file.extend(format::section_head(kind, count as u64, content.len() as u64, sum));
        file.extend(content);
    };
    let mut bytes = Vec::new();
    ["g0", "g1"].iter().for_each(|name| format::put_text(&mut bytes, name));
    section(Section::Ports, 2, &bytes);
    bytes.clear();
    connections.iter().for_each(|connection| format::put_connection(&mut bytes, connection));
    section(Section::Connections, connections.len(), &bytes);
    bytes.clear();
    limits.iter().for_each(|limit| format::put_limit(&mut bytes, limit));
    section(Section::Limits, limits.len(), &bytes);
    bytes.clear();
    expectations().iter().for_each(|one| expected::put(&mut bytes, one));
    section(Section::Expectations, expectations().len(), &bytes);
    bytes.clear();
    format::put_text(&mut bytes, "other");
    format::put_text(&mut bytes, "slow");
    section(Section::Timeouts, 2, &bytes);
    bytes.clear();
    format::put_piece(&mut bytes, &piece());
    section(Section::Pieces, 1, &bytes);
    let header =
        Header { saved_at_us: dataplane::clock::wall_us(), clean, length: file.len() as u64 };
    file[..format::HEADER].copy_from_slice(&header.encode());
    file
}

/// One of each kind, of the connection that [`udp`] numbers 7.
fn expectations() -> Vec<Expected> {
    let tuple = udp(7, 9).original;
    let follow = Follow { direction: Direction::Reply, port: 21, address: Some(5) };
    let one = Expected {
        master: 7,
        left: Nanos::from_secs(300),
        tuple,
        mask: SourceMask { address: 0xffff_ffff, port: 0 },
        by: HelperKind::Ftp,
        class: 1,
        permanent: true,
        inactive: false,
        helper: Some(HelperKind::Sip),
        follow: Some(follow),
    };
    let here = Follow { direction: Direction::Original, address: None, ..follow };
    let mut other = Expected { permanent: false, inactive: true, follow: Some(here), ..one };
    other.tuple.dport = 99;
    let wide = Tuple { src: 1 << 100, dst: 1 << 99, family: Family::V6, ..tuple };
    vec![one, other, Expected { tuple: wide, follow: None, helper: None, ..one }]
}

fn piece() -> Piece {
    let (kind, name) = ("recent".to_owned(), "DEFAULT".to_owned());
    Piece { kind, name, version: 7, bytes: vec![1, 2, 3] }
}

fn limit() -> SavedLimit {
    let rule = "V4 filter FORWARD -m limit".to_owned();
    SavedLimit { rule, occurrence: 1, cell: 2, credit: 3, idle: Nanos(4) }
}

proptest! {
    #[test]
    fn every_connection_comes_back_as_it_was(
        connections in prop::collection::vec(any_saved(), 0..6),
        clean in any::<bool>(),
    ) {
        let file = file_of(&connections, &[limit()], clean);
        let contents = Contents::check(&file).unwrap();
        prop_assert_eq!(contents.header.clean, clean);
        prop_assert_eq!(contents.ports().collect::<Vec<_>>(), ["g0", "g1"]);
        let read: Vec<Saved> = contents.connections().map(Result::unwrap).collect();
        prop_assert_eq!(read, connections);
        prop_assert_eq!(contents.limits().collect::<Vec<_>>(), [Ok(limit())]);
        prop_assert_eq!(contents.pieces().collect::<Vec<_>>(), [Ok(piece())]);
        let expected: Vec<_> = contents.expectations().map(Result::unwrap).collect();
        prop_assert_eq!(expected, expectations());
    }

    #[test]
    fn a_flipped_bit_is_always_noticed(
        connections in prop::collection::vec(any_saved(), 0..3),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut file = file_of(&connections, &[limit()], true);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(Contents::check(&file).is_err(), "byte {} bit {}", at, bit);
    }

    #[test]
    fn bytes_of_any_kind_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Contents::check(&bytes);
        // With a head that says the right things.
        bytes.splice(..0, [0; format::HEADER]);
        let header = Header { saved_at_us: 1, clean: true, length: bytes.len() as u64 };
        bytes[..format::HEADER].copy_from_slice(&header.encode());
        prop_assert!(Contents::check(&bytes).is_err());
    }
}

fn udp(number: u64, sport: u16) -> Saved {
    let [src, dst] = [0xc612_0102, 0xc612_0202];
    let proto = 17;
    let original = Tuple { src, dst, sport, dport: 53, proto, family: Family::V4, zone: 0 };
    Saved {
        number,
        master: None,
        left: Nanos::from_secs(100),
        age: Some(Nanos::from_secs(7)),
        status: status::SEEN_REPLY | status::ASSURED,
        mark: 5,
        original,
        reply: original.inverted().unwrap(),
        words: [0; Saved::WORDS],
    }
}

fn saved_in(conntrack: &Conntrack) -> Vec<Saved> {
    let now = monotonic();
    let mut all: Vec<Saved> =
        (0..conntrack.places()).filter_map(|at| conntrack.export(at, now)).collect();
    all.sort_by_key(|saved| saved.original.sport);
    all
}

#[test]
fn a_file_cut_short_or_grown_is_refused_wherever_it_is_cut() {
    let file = file_of(&[udp(1, 1), udp(2, 2)], &[limit()], true);
    for length in 0..file.len() {
        assert!(Contents::check(&file[..length]).is_err(), "cut to {length}");
    }
    let grown = [&file[..], &[0]].concat();
    let wanted = file.len() as u64;
    assert_eq!(Contents::check(&grown).unwrap_err(), Refusal::Length { found: wanted + 1, wanted });
    // A disk that lost a page of it.
    for page in [0, 64, 128, file.len() - 40] {
        let mut torn = file.clone();
        torn[page..page + 40].fill(0);
        assert!(Contents::check(&torn).is_err(), "torn at {page}");
    }
}

#[test]
fn other_versions_and_other_files_are_told_apart() {
    let file = file_of(&[udp(1, 1)], &[], true);
    let mut later = file.clone();
    later[8] = 9;
    assert_eq!(Contents::check(&later).unwrap_err(), Refusal::Version { found: 9 });
    assert_eq!(Contents::check(b"*filter\nCOMMIT\n").unwrap_err(), Refusal::Foreign);
    assert_eq!(Contents::check(b"").unwrap_err(), Refusal::Foreign);
    // Another layout, with the checksum that belongs to it.
    let mut other = file;
    other[12] = 77;
    let sum = crc32c::crc32c(&other[..format::HEADER - 4]);
    other[format::HEADER - 4..format::HEADER].copy_from_slice(&sum.to_le_bytes());
    let ours = Saved::LAYOUT;
    assert_eq!(Contents::check(&other).unwrap_err(), Refusal::Layout { found: 77, ours });
}

/// A saved connection as it is after `elapsed`, times rounded to whole seconds.
fn face(saved: &Saved) -> (Tuple, Tuple, u32, u32, u64, Option<u64>, [u64; Saved::WORDS]) {
    let up = |time: Nanos| (time.0 + 500_000_000) / 1_000_000_000;
    let Saved { original, reply, status, mark, left, age, words, .. } = *saved;
    (original, reply, status & KEPT, mark, up(left), age.map(up), words)
}

#[test]
fn a_table_comes_back_from_the_file() {
    let directory = Directory::new();
    let before = table(1024);
    let now = monotonic();
    let mut child = udp(8, 2000);
    let mut translated = udp(9, 3000);
    translated.reply.dst = 0xcb00_7101;
    translated.status |= status::SRC_NAT | status::SRC_NAT_DONE;
    translated.words[10] = 99;
    let master = before.import(&udp(7, 1000), Nanos(0), now).unwrap();
    child.status |= status::EXPECTED;
    let id = before.import(&child, Nanos(0), now).unwrap();
    before.set_master(id, master);
    before.import(&translated, Nanos(0), now).unwrap();
    for one in &expectations() {
        let limits = Limits { most: 9, timeout: one.left, any_master: false };
        before.expect(&one.of_master(master), limits, now).unwrap();
    }
    let old = saved_in(&before);
    assert_eq!((old.len(), old[1].master), (3, Some(master.number())));

    let place = Place::take(&directory.file()).unwrap();
    let done = save(&place, &sources(&before, vec![limit()]), true, 0).unwrap();
    assert_eq!((done.connections, done.limits, done.expectations), (3, 1, 3));
    assert_eq!(done.bytes, fs::metadata(directory.file()).unwrap().len());
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory.file()), 0o600);
    assert_eq!(mode(directory.file().parent().unwrap()), 0o700);

    let after = table(1024);
    let network = network(&["g0", "g1"], "203.0.113.1");
    let mut limits = Vec::new();
    let take = |saved: &[SavedLimit], pieces: &[Piece], _, _| {
        limits = saved.to_vec();
        assert_eq!(pieces, [piece()]);
        (saved.len(), Imported { taken: pieces.len() as u64, ..Imported::default() })
    };
    let restored = restore(&place, &after, &network, take).unwrap();
    assert_eq!(
        (restored.connections, restored.limits + restored.pieces.taken, restored.clean),
        (3, 2, true)
    );
    assert_eq!(limits, [limit()]);
    let new = saved_in(&after);
    assert_eq!(restored.expectations, 3);
    let new_master = new[0].number;
    for row in after.expectations(monotonic()) {
        let expected = Expected { master: 7, left: Nanos::from_secs(300), ..Expected::of(&row) };
        assert!(expectations().contains(&expected), "{row}");
        assert_eq!(row.expectation.master.number(), new_master);
    }
    let faces = |all: &[Saved]| all.iter().map(face).collect::<Vec<_>>();
    assert_eq!(faces(&new), faces(&old));
    assert_eq!(new[1].master, Some(new[0].number), "masters are known by their new names");
    // What is there already stays, and what is there twice is counted.
    let again = restore(&place, &after, &network, |_, _, _, _| (0, Imported::default())).unwrap();
    assert_eq!((again.connections, again.clashed), (0, 3));
    let small = table(2);
    let restored =
        restore(&place, &small, &network, |_, _, _, _| (0, Imported::default())).unwrap();
    assert_eq!((restored.connections, restored.no_room), (2, 1));
}

#[test]
fn what_makes_no_sense_any_more_stays_behind() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let mut dying = udp(1, 1);
    dying.left = Nanos(1);
    let mut syn = udp(2, 2);
    (syn.original.proto, syn.reply.proto) = (6, 6);
    let mut masked = udp(3, 3);
    masked.reply.dst = 0xcb00_7101;
    masked.status |= status::SRC_NAT;
    masked.set_masquerade_port(Some(1));
    let restored = |connections: &[Saved], clean, names: &[&str], address| -> Restored {
        fs::write(directory.file(), file_of(connections, &[], clean)).unwrap();
        let table = table(64);
        restore(&place, &table, &network(names, address), |_, _, _, _| (0, Imported::default()))
            .unwrap()
    };
    let both = ["g0", "g1"];
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert_eq!(restored(&[dying], true, &both, "203.0.113.1").expired, 1);
    assert_eq!(restored(&[syn], false, &both, "203.0.113.1").stale, 1);
    assert_eq!(restored(&[syn], true, &both, "203.0.113.1").connections, 1);
    assert_eq!(restored(&[masked], true, &both, "203.0.113.1").connections, 1);
    assert_eq!(restored(&[masked], true, &both, "203.0.113.2").stale, 1, "another address");
    assert_eq!(restored(&[masked], true, &["g0"], "203.0.113.1").stale, 1, "no such port");
    assert_eq!(restored(&[masked], true, &["g1", "g0"], "203.0.113.1").connections, 1);
    assert_eq!(restored(&[udp(1, 1), udp(5, 5)], false, &both, "203.0.113.1").connections, 2);
}

#[test]
fn a_damaged_file_is_put_aside_and_nothing_of_it_used() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let mut file = file_of(&[udp(1, 1), udp(2, 2)], &[limit()], true);
    *file.last_mut().unwrap() ^= 1;
    fs::write(directory.file(), &file).unwrap();
    let table = table(64);
    let network = network(&["g0", "g1"], "203.0.113.1");
    let taken = |_: &[SavedLimit], _: &[Piece], _, _| panic!("nothing is used");
    let restored = restore(&place, &table, &network, taken).unwrap();
    let aside = directory.0.join("state/conntrack.refused");
    let refusal = Refusal::Checksum { part: "named state" };
    assert_eq!(restored.refused, Some((refusal, aside.clone())));
    assert!(table.is_empty() && !directory.file().exists());
    assert_eq!(fs::read(aside).unwrap(), file, "whoever wants to know why can look");
    let nothing = restore(&place, &table, &network, |_, _, _, _| (0, Imported::default())).unwrap();
    assert_eq!(nothing, Restored::default());
}

#[test]
fn a_draft_that_was_left_behind_is_not_read_and_does_not_disturb() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let conntrack = table(64);
    conntrack.import(&udp(1, 1), Nanos(0), monotonic()).unwrap();
    save(&place, &sources(&conntrack, Vec::new()), false, 0).unwrap();
    // Killed in the middle of the next one.
    let draft = directory.0.join("state/conntrack.new");
    fs::write(&draft, b"PCSTATE\nhalf of it").unwrap();
    let after = table(64);
    let network = network(&["g0"], "203.0.113.1");
    assert_eq!(
        restore(&place, &after, &network, |_, _, _, _| (0, Imported::default()))
            .unwrap()
            .connections,
        1
    );
    save(&place, &sources(&after, Vec::new()), true, 1 << 22).unwrap();
    assert!(!draft.exists());
    assert!(fs::metadata(directory.file()).unwrap().len() < 1000, "no longer than it need be");
}

#[test]
fn one_place_has_one_daemon() {
    let directory = Directory::new();
    let first = Place::take(&directory.file()).unwrap();
    assert!(matches!(Place::take(&directory.file()), Err(StateError::Taken { .. })));
    drop(first);
    Place::take(&directory.file()).unwrap();
}

#[test]
fn the_keeper_saves_again_and_again_survives_failures_and_saves_last() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let conntrack = table(64);
    let saving = Saving { place, every: Nanos::from_millis(5) };
    let keeper =
        Keeper::start(saving, sources(&conntrack, Vec::new()), Restored::default()).unwrap();
    let sight = keeper.sight();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let start = monotonic();
        while !done() {
            assert!(monotonic().saturating_sub(start) < Nanos::from_secs(20), "never: {what}");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    };
    until("two saves", &|| sight().saves >= 2);
    // Where the draft would be written there is something that cannot be replaced.
    let draft = directory.0.join("state/conntrack.new");
    until("a failure", &|| {
        let _ = fs::create_dir(&draft);
        sight().failures > 0
    });
    assert!(sight().error.is_some());
    assert!(directory.file().exists(), "the last good file stays");
    fs::remove_dir(&draft).unwrap();
    let failures = sight().failures;
    until("a save after it", &|| sight().error.is_none());
    assert!(sight().failures >= failures);
    conntrack.import(&udp(1, 1), Nanos(0), monotonic()).unwrap();
    keeper.finish();
    assert_eq!(sight().last.unwrap().connections, 1);
}

#[test]
fn timeout_policies_are_known_by_name() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let mut config = Config::new([1; 16]);
    config.add_timeouts("slow", "udp", &[("replied", 1000)]).unwrap();
    let table = Conntrack::new(config).unwrap();
    let mut ours = udp(1, 1);
    ours.set_timeouts(Some(TimeoutsId(1)));
    let mut gone = udp(2, 2);
    gone.set_timeouts(Some(TimeoutsId(0)));
    fs::write(directory.file(), file_of(&[ours, gone], &[], true)).unwrap();
    restore(&place, &table, &network(&["g0"], "203.0.113.1"), |_, _, _, _| {
        (0, Imported::default())
    })
    .unwrap();
    let saved = saved_in(&table);
    let policies: Vec<_> = saved.iter().map(Saved::timeouts).collect();
    assert_eq!(policies, [Some(TimeoutsId(0)), None]);
}

/// What a pass over many costs; run with `--nocapture` to see.
#[test]
fn a_hundred_thousand_connections_are_saved_and_restored_at_a_bounded_cost() {
    let directory = Directory::new();
    let place = Place::take(&directory.file()).unwrap();
    let before = table(131_072);
    let now = monotonic();
    for number in 0..100_000u32 {
        let mut one = udp(u64::from(number), number as u16);
        one.original.src += u128::from(number >> 16) << 8;
        one.original.proto = 6;
        one.reply = one.original.inverted().unwrap();
        one.words[1] = 3 << 32;
        one.words[2..7].fill(u64::MAX);
        before.import(&one, Nanos(0), now).unwrap();
    }
    let gentle = save(&place, &sources(&before, Vec::new()), false, 0).unwrap();
    let hasty = save(&place, &sources(&before, Vec::new()), true, gentle.bytes as usize).unwrap();
    let after = table(131_072);
    let restored = restore(&place, &after, &network(&["g0"], "203.0.113.1"), |_, _, _, _| {
        (0, Imported::default())
    })
    .unwrap();
    eprintln!("gentle: {gentle:?}\nhasty: {hasty:?}\nrestored: {:?}", restored.took);
    assert_eq!((gentle.connections, restored.connections), (100_000, 100_000));
    assert_eq!(gentle.bytes, hasty.bytes);
    assert!(gentle.bytes < 150 * 100_000, "{} bytes", gentle.bytes);
}
