//! Lines, files that fail, and files that come back.

use super::captures::Kept;
use super::lines::timestamp;
use super::ring::Way;
use super::rotate::Rotation;
use super::sink::{Fate, RETRY};
use super::*;
use crate::log::nflog::{Link, file_header};
use dataplane::effects::{LogRecord, Report};
use dataplane::logbook::{LogBook, Rate, Reports};
use dataplane::packet::PortId;
use dataplane::policy::report::NflogTarget;
use dataplane::policy::target::LogTarget;
use dataplane::wire::{self, Frame};
use dataplane::worker::{About, Capture, LogEntry};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

/// One UDP packet of `payload` bytes, logged.
fn entry(payload: usize) -> LogEntry {
    let ip_len = 28 + payload;
    let mut frame = vec![0u8; 14 + ip_len];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&(ip_len as u16).to_be_bytes());
    frame[22] = 64;
    frame[23] = 17;
    frame[26..34].copy_from_slice(&[198, 18, 1, 2, 198, 18, 2, 2]);
    frame[34..40].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, 0]);
    frame[38..40].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
    let sum: u32 = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let Ok(Frame::Ip(parsed)) = wire::parse(&frame, Default::default()) else {
        panic!("the frame is well-formed");
    };
    let target = LogTarget {
        level: 4,
        prefix: "seen: ".into(),
        tcp_sequence: false,
        tcp_options: false,
        ip_options: false,
        uid: false,
        mac_decode: false,
    };
    let record = LogRecord {
        now: monotonic(),
        input: Some(PortId(0)),
        output: Some(PortId(1)),
        ..LogRecord::plain(Report::Log(&target), &frame, &parsed)
    };
    let book = Arc::new(LogBook::of_reports([Reports::Log(target.clone())], 1));
    LogEntry::new(&record, About::Reporter(0), &book, usize::MAX)
}

fn queue(entries: usize) -> Outlets {
    let outlets = Outlets::new(entries.max(1), 1);
    for _ in 0..entries {
        assert!(outlets.log.push(entry(10)).is_ok());
    }
    outlets
}

fn start(path: &Path, settings: &LogSettings, outlets: &Outlets) -> LogThread {
    LogThread::start(Some(path), settings, outlets, names()).unwrap()
}

fn names() -> Vec<String> {
    vec!["eth0".to_owned(), "eth1".to_owned()]
}

#[test]
fn lines_are_the_kernels_with_time_and_host() {
    let mut format = kernel_lines(names());
    // Longer than what an entry keeps of a frame, too.
    for payload in [10, 1400] {
        let mut line = Vec::new();
        format(&entry(payload).record(), &mut line);
        let line = String::from_utf8(line).unwrap();
        let (time, said) = line.split_once(" kernel: ").unwrap();
        assert!(time.contains("+00:00 "), "{time}");
        assert!(said.starts_with("seen: IN=eth0 OUT=eth1 MAC="), "{said}");
        let facts = format!(
            "SRC=198.18.1.2 DST=198.18.2.2 LEN={} TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=UDP \
             SPT=40000 DPT=53 LEN={}",
            payload + 28,
            payload + 8
        );
        assert!(said.contains(&facts), "{said}");
    }
}

#[test]
fn timestamps_know_the_calendar() {
    assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000+00:00");
    assert_eq!(timestamp(951_782_400_000_001), "2000-02-29T00:00:00.000001+00:00");
    assert_eq!(timestamp(1_709_251_199_999_999), "2024-02-29T23:59:59.999999+00:00");
    assert_eq!(timestamp(4_107_542_400_000_000), "2100-03-01T00:00:00.000000+00:00");
}

/// A directory for one test, with file systems in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("portcullis-log-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    /// With a file system of its own.
    fn tmpfs(name: &str, options: &str) -> Self {
        let place = Self::new(name);
        sh(&format!("mount -t tmpfs -o {options} tmpfs {}", place.0.display()));
        place
    }
    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
    fn text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = self.0.display();
        let _ = std::process::Command::new("sh")
            .args(["-c", &format!("umount -q {path} 2>/dev/null; rm -rf {path}")])
            .status();
    }
}

fn sh(line: &str) {
    let status = std::process::Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

fn written(lines: u64) -> Fate {
    Fate { written: lines, ..Fate::default() }
}

fn lost(lines: u64) -> Fate {
    Fate { lost: lines, ..Fate::default() }
}

fn diverted(lines: u64) -> Fate {
    Fate { diverted: lines, ..Fate::default() }
}

const START: Nanos = Nanos::from_secs(1000);
const LATER: Nanos = Nanos(START.0 + RETRY.0);

#[test]
fn a_file_gets_every_line() {
    let place = Place::new("every");
    let log = start(&place.log(), &LogSettings::default(), &queue(100));
    let desk = Arc::clone(log.desk());
    log.finish(Nanos::from_secs(10));
    assert_eq!(place.text().lines().count(), 100);
    assert_eq!((desk.written(), desk.lost()), (100, 0));
    assert_eq!(desk.outlook(), Outlook { path: Some(place.log()), ..Outlook::default() });
}

#[test]
fn a_file_that_cannot_be_opened_is_made_up_for_by_standard_error_until_it_can() {
    let place = Place::new("unopened");
    let file = place.0.join("is-a-file");
    std::fs::write(&file, "").unwrap();
    let under = file.join("log");
    let mut sink = Sink::new(Some(under.clone()), Rotation::default(), START);
    let trouble = sink.trouble().unwrap();
    assert!(trouble.diverts && trouble.why.starts_with("cannot be opened: Not a directory"));
    assert_eq!(sink.write(b"one\ntwo\n", START, &mut Way::Plain), diverted(2));
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    // Not tried at every line.
    assert_eq!(sink.write(b"three\n", START + Nanos::SECOND, &mut Way::Plain), diverted(1));
    assert_eq!(sink.write(b"four\n", LATER, &mut Way::Plain), written(1));
    assert_eq!(sink.trouble(), None);
    let text = std::fs::read_to_string(under).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("portcullis: 3 lines are on standard error"), "{text}");
    assert_eq!(lines[1..], ["four"]);
}

#[test]
fn a_read_only_file_system_is_one_that_cannot_be_opened() {
    let place = Place::tmpfs("readonly", "ro,size=64k");
    let mut sink = Sink::new(Some(place.log()), Rotation::default(), START);
    assert!(sink.trouble().unwrap().why.contains("Read-only file system"));
    assert_eq!(sink.write(b"one\n", START, &mut Way::Plain), diverted(1));
    sh(&format!("mount -o remount,rw {}", place.0.display()));
    sink.tend(LATER);
    assert_eq!(sink.trouble(), None);
    assert_eq!(sink.write(b"two\n", LATER, &mut Way::Plain), written(1));
    assert!(place.text().ends_with("two\n"));
}

#[test]
fn a_full_disk_loses_lines_and_the_file_says_how_many_when_there_is_room() {
    let place = Place::tmpfs("full", "size=64k");
    let mut sink = Sink::new(Some(place.log()), Rotation::default(), START);
    assert_eq!(sink.write(b"first\n", START, &mut Way::Plain), written(1));
    let batch = "a line of twenty 20\n".repeat(5_000);
    let fate = sink.write(batch.as_bytes(), START, &mut Way::Plain);
    assert_eq!((fate.written, fate.written + fate.lost, fate.diverted), (3276, 5_000, 0));
    let trouble = sink.trouble().unwrap().clone();
    assert!(trouble.why.contains("No space left") && !trouble.diverts, "{trouble:?}");
    assert_eq!(trouble.lost, fate.lost);
    assert_eq!(sink.write(b"x\ny\n", START + Nanos::MILLISECOND, &mut Way::Plain), lost(2));
    // Still full: no second announcement, the count goes on.
    assert_eq!(sink.write(b"z\n", LATER, &mut Way::Plain), lost(1));
    assert_eq!(sink.trouble().unwrap().lost, fate.lost + 3);
    std::fs::write(place.0.join("other"), "").unwrap();
    sh(&format!("mount -o remount,size=256k {}", place.0.display()));
    let end = LATER + RETRY;
    assert_eq!(sink.write(b"last\n", end, &mut Way::Plain), written(1));
    assert_eq!(sink.trouble(), None);
    let text = place.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len() as u64, 1 + fate.written + 1 + 2, "a torn line, a remark, and `last'");
    let said = format!("portcullis: {} lines lost", fate.lost + 3);
    assert!(lines[lines.len() - 2].ends_with(&said), "{:?}", lines[lines.len() - 2]);
    assert!("a line of twenty 20".starts_with(lines[lines.len() - 3]));
    assert_eq!(lines[lines.len() - 1], "last");
}

#[test]
fn a_deleted_file_and_a_deleted_directory_are_noticed_before_the_next_line() {
    let place = Place::new("deleted");
    let directory = place.0.join("d");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("log");
    let mut sink = Sink::new(Some(path.clone()), Rotation::default(), START);
    assert_eq!(sink.write(b"one\n", START, &mut Way::Plain), written(1));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(sink.write(b"two\n", START, &mut Way::Plain), written(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    // Moved away, as by a rotation: the old file goes on until it is told.
    std::fs::rename(&path, directory.join("log.1")).unwrap();
    assert_eq!(sink.write(b"three\n", START, &mut Way::Plain), written(1));
    assert!(!path.exists());
    sink.reopen(START);
    assert_eq!(sink.write(b"four\n", START, &mut Way::Plain), written(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(sink.write(b"five\n", START, &mut Way::Plain), diverted(1));
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(sink.write(b"six\n", LATER, &mut Way::Plain), written(1));
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("standard error\nsix\n"));
}

#[test]
fn a_fifo_never_blocks() {
    let place = Place::new("fifo");
    sh(&format!("mkfifo {}", place.log().display()));
    let mut sink = Sink::new(Some(place.log()), Rotation::default(), START);
    assert_eq!(sink.write(b"nobody reads\n", START, &mut Way::Plain), diverted(1));
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(place.log())
        .unwrap();
    assert_eq!(sink.write(b"now one does\n", LATER, &mut Way::Plain), written(1));
    // It does not read on: the pipe is full at last.
    let batch = "0123456789\n".repeat(1000);
    let mut fates = (0..20).map(|_| sink.write(batch.as_bytes(), LATER, &mut Way::Plain));
    let fate = fates.find(|fate| fate.lost > 0).expect("a pipe holds 64 KiB");
    assert_eq!(fate.written + fate.lost, 1000);
    drop(reader);
    let end = LATER + RETRY;
    assert_eq!(sink.write(b"gone\n", end, &mut Way::Plain), diverted(1));
    assert!(sink.trouble().unwrap().diverts);
}

#[test]
fn a_device_that_is_always_full_loses_lines_counted_and_stays_in_trouble() {
    let full = Path::new("/dev/full");
    let log = start(full, &LogSettings::default(), &queue(9));
    let desk = Arc::clone(log.desk());
    log.finish(Nanos::from_secs(10));
    assert_eq!((desk.written(), desk.lost()), (0, 9));
    assert_eq!(desk.outlook().trouble.unwrap().lost, 9);
}

#[test]
fn the_file_can_be_exchanged_while_lines_are_written() {
    let place = Place::new("exchanged");
    let (queue, other) = (queue(10), place.0.join("other"));
    let path = place.log();
    let log = start(&path, &LogSettings::default(), &queue);
    let desk = Arc::clone(log.desk());
    let until = monotonic() + Nanos::from_secs(10);
    let wait = |lines| {
        while desk.written() < lines && monotonic() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait(10);
    desk.turn_to(Some((other.clone(), open(&other).unwrap())));
    while desk.outlook().path.as_ref() != Some(&other) && monotonic() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..5 {
        assert!(queue.log.push(entry(10)).is_ok());
    }
    log.finish(Nanos::from_secs(10));
    assert_eq!(place.text().lines().count(), 10);
    assert_eq!(std::fs::read_to_string(&other).unwrap().lines().count(), 5);
}

fn json_of(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_lines_tell_what_the_kernels_line_leaves_out() {
    let place = Place::new("json");
    let json = place.0.join("json");
    let settings = LogSettings { json: Some(json.clone()), ..LogSettings::default() };
    let log = start(&place.log(), &settings, &queue(3));
    let desk = Arc::clone(log.desk());
    log.finish(Nanos::from_secs(10));
    assert_eq!((desk.written(), desk.json()), (3, (3, 0)));
    let lines = json_of(&json);
    assert_eq!(lines.len(), 3);
    let expected = serde_json::json!({
        "report": "log", "family": "v4", "table": "filter", "chain": "FORWARD", "rule": 1,
        "path": ["FORWARD:1"], "generation": 1, "hook": "FORWARD", "reason": "LOG",
        "prefix": "seen: ", "in": "eth0", "out": "eth1",
        "mac_src": "00:00:00:00:00:00", "mac_dst": "00:00:00:00:00:00",
        "src": "198.18.1.2", "dst": "198.18.2.2", "proto": 17, "spt": 40000, "dpt": 53,
        "len": 38, "ttl": 64, "tos": 0, "mark": 0, "ct": { "state": "INVALID" },
    });
    let mut found = lines[0].clone();
    assert!(found.as_object_mut().unwrap().remove("time").is_some());
    assert_eq!(found, expected);
}

#[test]
fn what_limits_keep_back_is_told_and_counts_for_its_source() {
    let place = Place::new("suppressed");
    let json = place.0.join("json");
    let settings = LogSettings { json: Some(json.clone()), ..LogSettings::default() };
    let outlets = queue(0);
    let one = entry(10);
    let rate = Rate::new(1, 1).unwrap();
    let admitted = (0..10).filter(|_| one.book.admits(0, 0, START, &rate)).count();
    assert_eq!((admitted, one.book.suppressed(0)), (1, 9));
    assert!(outlets.log.push(one.clone()).is_ok());
    let log = start(&place.log(), &settings, &outlets);
    let desk = Arc::clone(log.desk());
    log.finish(Nanos::from_secs(10));
    assert_eq!((desk.written(), desk.lost(), desk.json()), (1, 0, (1, 0)));
    let text = place.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let said = "portcullis: suppressed 9 lines of rule v4 filter:FORWARD:1 \"seen: \"";
    assert!(lines[1].ends_with(said), "{text}");
    assert_eq!(json_of(&json)[1]["records"], 9);
    let tops = desk.tops();
    let heavy = |name: &str| vec![Heavy { name: name.to_owned(), records: 10, error: 0 }];
    assert_eq!(tops.sources, heavy("198.18.1.0/24"));
    assert_eq!(tops.rules, heavy("v4 filter:FORWARD:1"));
}

/// A rule of which every record is kept back or lost is told of, too.
#[test]
fn a_rule_of_which_no_record_comes_is_told() {
    let place = Place::new("untold");
    let json = place.0.join("json");
    let settings = LogSettings { json: Some(json.clone()), ..LogSettings::default() };
    let one = entry(10);
    let log = start(&place.log(), &settings, &queue(0));
    let desk = Arc::clone(log.desk());
    desk.open_book(Arc::clone(&one.book));
    let rate = Rate::new(1, 1).unwrap();
    assert!(one.book.admits(0, 0, START, &rate), "by a worker that loses it");
    one.book.lose(0, 0);
    assert!(!one.book.admits(0, 0, START, &rate));
    assert!(!one.book.admits(0, 0, START, &rate));
    log.finish(Nanos::from_secs(10));
    assert_eq!((desk.written(), desk.lost()), (0, 0), "remarks are no records");
    let text = place.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let rule = "lines of rule v4 filter:FORWARD:1 \"seen: \"";
    assert!(lines[0].ends_with(&format!("portcullis: suppressed 2 {rule}")), "{text}");
    assert!(lines[1].ends_with(&format!("portcullis: lost 1 {rule}")), "{text}");
    let told = json_of(&json);
    assert_eq!((&told[0]["report"], &told[0]["records"]), (&"suppressed".into(), &2.into()));
    assert_eq!((&told[1]["report"], &told[1]["records"]), (&"lost".into(), &1.into()));
}

#[test]
fn a_file_that_is_large_enough_is_turned_over_and_few_are_kept() {
    let place = Place::new("rotated");
    let rotation = Rotation { bytes: Some(100), age: Some(Nanos::from_secs(60)), keep: 2 };
    let mut sink = Sink::new(Some(place.log()), rotation, START);
    for number in 0..10_u8 {
        let line = [b'0' + number, b'\n'].repeat(20);
        assert_eq!(sink.write(&line, START, &mut Way::Plain), written(20));
    }
    let first =
        |name: &str| std::fs::read_to_string(place.0.join(name)).map(|text| text[..1].to_owned());
    let lengths =
        ["log", "log.1", "log.2"].map(|name| std::fs::metadata(place.0.join(name)).unwrap().len());
    assert_eq!(lengths, [80, 80, 80]);
    assert_eq!((first("log").unwrap(), first("log.1").unwrap()), ("8".into(), "6".into()));
    assert!(first("log.3").is_err());
    // Age counts, too.
    let later = START + Nanos::from_secs(60);
    assert_eq!(sink.write(b"x\n", later, &mut Way::Plain), written(1));
    assert_eq!((first("log").unwrap(), first("log.1").unwrap()), ("x".into(), "8".into()));
}

fn captured(group: u16) -> Capture {
    let one = entry(100);
    let record = one.record();
    let nflog = NflogTarget { group, prefix: "caught".into(), ..NflogTarget::default() };
    let book = Arc::new(LogBook::of_reports([Reports::Nflog(nflog.clone())], 1));
    let record = LogRecord { report: Report::Nflog(&nflog), ..record };
    Capture::new(&record, About::Reporter(0), &book, usize::MAX)
}

#[test]
fn captured_packets_are_in_a_file_for_each_group_which_is_turned_over() {
    let place = Place::new("captures");
    for link in [Link::Nflog, Link::Ethernet, Link::Raw] {
        let rotation = Rotation { bytes: Some(2000), age: None, keep: 3 };
        let directory = place.0.clone();
        let captures = CaptureSettings { directory, split: true, link, rotation };
        let settings = LogSettings { captures: Some(captures), ..LogSettings::default() };
        let outlets = Outlets::new(1, 1).with_captures(100);
        for group in [1, 2, 1] {
            let queue = outlets.captures.as_ref().unwrap();
            assert!(queue.push(captured(group)).is_ok());
        }
        let log = start(&place.log(), &settings, &outlets);
        let desk = Arc::clone(log.desk());
        log.finish(Nanos::from_secs(10));
        assert_eq!((desk.captures(), desk.written()), ((3, 0), 0));
        // A file of another kind is not written on.
        for (group, packets) in [(1, 2), (2, 1)] {
            let bytes = std::fs::read(place.0.join(format!("nflog-{group}.pcap"))).unwrap();
            assert_eq!(bytes[..24], file_header(link));
            let mut rest = &bytes[24..];
            let mut found = 0;
            while let Some(head) = rest.first_chunk::<16>() {
                let length = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
                let body = &rest[16..16 + length];
                let expected = if link == Link::Raw { 128 } else { 142 };
                assert!(length == expected || link == Link::Nflog && body[3] == group as u8);
                rest = &rest[16 + length..];
                found += 1;
            }
            assert_eq!((found, rest.len()), (packets, 0));
        }
    }
    assert!(place.0.join("nflog-1.pcap.2").exists() && !place.0.join("nflog-1.pcap.3").exists());
}

#[test]
fn captures_that_find_no_room_are_lost_whole_and_counted() {
    let place = Place::tmpfs("nocapture", "size=16k");
    let captures = CaptureSettings {
        directory: place.0.clone(),
        split: false,
        link: Link::Raw,
        rotation: Rotation { keep: 1, ..Rotation::default() },
    };
    let mut captures = Captures::new(captures);
    let (mut all, mut way) = (Kept::default(), Way::best());
    let one = captured(1);
    for round in 0..50_u32 {
        for _ in 0..10 {
            let (batch, kept) = captures.batch(1, START, &mut way);
            assert_eq!(kept, Kept::default());
            nflog::write(batch, &one.record(), Link::Raw, START, |_| 0);
        }
        let kept = captures.flush(START + Nanos(u64::from(round) * RETRY.0), &mut way);
        (all.written, all.lost) = (all.written + kept.written, all.lost + kept.lost);
    }
    assert_eq!(all.written + all.lost, 500);
    assert!(all.written >= 50 && all.lost > 100, "{all:?}");
    let length = std::fs::metadata(place.0.join("nflog.pcap")).unwrap().len();
    assert_eq!(length, 24 + all.written * (16 + 128));
    assert!(captures.trouble().unwrap().contains("No space left"));
}

#[test]
fn fail2ban_finds_times_and_sources() {
    let place = Place::new("fail2ban");
    start(&place.log(), &LogSettings::default(), &queue(3)).finish(Nanos::from_secs(10));
    let pattern = r"kernel: seen: IN=\S+ OUT=\S* .*SRC=<HOST> DST=\S+ .*DPT=53\b";
    let output = std::process::Command::new("fail2ban-regex")
        .args(["--print-all-matched".as_ref(), place.log().as_os_str(), pattern.as_ref()])
        .output()
        .expect("fail2ban, from scripts/setup");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("Lines: 3 lines, 0 ignored, 3 matched, 0 missed"), "{said}");
    assert!(said.contains("3 hit(s)") || said.contains("[3] "), "{said}");
}
