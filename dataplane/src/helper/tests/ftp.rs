//! FTP without translation.

use super::*;

/// A command of the client after a greeting: what is expected then.
fn commanded(command: &[u8]) -> (Result<(), DropReason>, Vec<String>) {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    let sent = talk.say(&rig, 0, command).map(drop);
    (sent, rig.expected())
}

/// An answer of the server: what is expected then.
fn answered(answer: &[u8]) -> (Result<(), DropReason>, Vec<String>) {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    let sent = talk.say(&rig, 1, answer).map(drop);
    (sent, rig.expected())
}

fn expecting(from: &str, to: &str, port: u16) -> (Result<(), DropReason>, Vec<String>) {
    (Ok(()), vec![format!("src={from} dst={to} sport=0 dport={port}")])
}

const NOTHING: (Result<(), DropReason>, Vec<String>) = (Ok(()), Vec::new());
const REFUSED: (Result<(), DropReason>, Vec<String>) = (Err(DropReason::Helper), Vec::new());

#[test]
fn commands_are_read_as_the_kernel_reads_them() {
    let active = expecting(SERVER, CLIENT, 200 * 256 + 10);
    for command in [
        &b"PORT 198,18,1,5,200,10\r\n"[..],
        b"port 198,18,1,5,200,10\r\n",
        b"PORTAL 198,18,1,5,200,10\r\n",
        b"PORT 198,18,1,5,200,10\rwhatever",
        b"PORT 198,18,1,4294967301,200,10\r\n",
        b"PORT 198,18,1,5,199,266\r\n".as_slice(),
        b"EPRT |1|198.18.1.5|51210|\r\n",
        b"eprt x1x198.18.1.5x51210x\r\n",
        b"EPRT |1|198.18.1.5|116746|",
    ] {
        let expected = if command.windows(3).any(|part| part == b"266") {
            expecting(SERVER, CLIENT, (199 * 256) | 266)
        } else {
            active.clone()
        };
        assert_eq!(commanded(command), expected, "{}", command.escape_ascii());
    }
    for command in [
        &b"PORT 203,0,113,9,200,10\r\n"[..],
        b"EPRT |1|203.0.113.9|51210|\r\n",
        b"NOOP\r\n",
        b" PORT 198,18,1,5,200,10\r\n",
        b"227 (198,18,1,5,200,10)\r\n",
        b"\r\n",
    ] {
        assert_eq!(commanded(command), NOTHING, "{}", command.escape_ascii());
    }
    for command in [
        &b"P"[..],
        b"PORT",
        b"PORT ",
        b"PORT 198,18,1,5,200,10",
        b"PORT 198,18,1,5,200,10\n",
        b"PORT 198,18,1,5,200,10,\r\n",
        b"PORT 198,18,1,5,200\r\n",
        b"PORT 198,18,1,5,200;10\r\n",
        b"EPRT |2|198.18.1.5|51210|\r\n",
        b"EPRT |1|198.18.1.5|0|\r\n",
        b"EPRT |1|198.18.1.5|51210\r\n",
        b"EPRT 111198.18.1.5151210|\r\n",
    ] {
        assert_eq!(commanded(command), REFUSED, "{}", command.escape_ascii());
    }
}

#[test]
fn answers_are_read_as_the_kernel_reads_them() {
    let passive = expecting(CLIENT, SERVER, 200 * 256 + 10);
    for answer in [
        &b"227 Entering Passive Mode (198,18,2,7,200,10).\r\n"[..],
        b"227 =198,18,2,7,200,10\r\n",
        b"229 Entering Extended Passive Mode (|||51210|)\r\n",
    ] {
        assert_eq!(answered(answer), passive, "{}", answer.escape_ascii());
    }
    for answer in [
        &b"227 Entering Passive Mode (203,0,113,9,200,10).\r\n"[..],
        b"200 PORT command successful\r\n",
        b"227-(198,18,2,7,200,10).\r\n",
        b"PORT 198,18,2,7,200,10\r\n",
    ] {
        assert_eq!(answered(answer), NOTHING, "{}", answer.escape_ascii());
    }
    for answer in [
        &b"22"[..],
        b"227 ",
        b"227 Entering Passive Mode\r\n",
        b"227 Entering Passive Mode (198,18,2,7,200,10",
        b"229 Entering Extended Passive Mode |||51210|\r\n",
        b"229 Entering Extended Passive Mode (|1|198.18.2.7|51210|)\r\n",
        b"229 Entering Extended Passive Mode (|||0|)\r\n",
    ] {
        assert_eq!(answered(answer), REFUSED, "{}", answer.escape_ascii());
    }
}

#[test]
fn ipv6_has_the_extended_forms() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT6, 4000), (SERVER6, 21));
    talk.say(&rig, 1, b"220 hello\r\n").unwrap();
    talk.say(&rig, 0, b"USER x\r\n").unwrap();
    talk.say(&rig, 0, b"EPRT |2|2001:DB8:1::5|51210|\r\n").unwrap();
    let there = format!("src={SERVER6} dst={CLIENT6} sport=0 dport=51210");
    assert_eq!(rig.expected(), [there]);
    talk.say(&rig, 0, b"EPRT |2|2001:db8:1::6|51210|\r\n").unwrap();
    talk.say(&rig, 1, b"229 (|||51211|)\r\n").unwrap();
    let back = format!("src={CLIENT6} dst={SERVER6} sport=0 dport=51211");
    assert_eq!(rig.expected(), [back], "one at a time");
    assert!(talk.say(&rig, 0, b"EPRT |1|198.18.1.5|51210|\r\n").is_err());
}

#[test]
fn a_command_counts_only_where_a_line_begins() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap();
    assert!(rig.expected().is_empty(), "nothing is known of the first line");
    talk.say(&rig, 0, b"SITE ").unwrap();
    talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap();
    assert!(rig.expected().is_empty(), "in the middle of a line");
    talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap();
    assert_eq!(rig.expected().len(), 1);
}

#[test]
fn two_places_are_remembered() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    let behind_user = talk.next[0];
    talk.say(&rig, 0, b"PASS y\r\n").unwrap();
    talk.next[0] = behind_user;
    talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap();
    assert_eq!(rig.expected().len(), 1, "a line ended there, too");
}

#[test]
fn the_expected_connection_is_related_once() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    let master = talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap().tracking.conn.unwrap();
    rig.ct.set_mark(master, 77);
    let open = |port| Packet::tcp(SERVER, port, CLIENT, 51210, SYN).seq(1, 0);
    let first = rig.send(&open(20)).unwrap().tracking;
    assert_eq!(first.state, CtState::Related);
    let child = first.conn.unwrap();
    assert_eq!((rig.ct.master(child), rig.ct.mark(child)), (Some(master), 77));
    assert_eq!(rig.ct.master_helper(child), Some(HelperKind::Ftp));
    assert_eq!(rig.ct.helper(child), None);
    assert_eq!(rig.state(&open(20)), CtState::Related, "a retransmission");
    assert_eq!(rig.state(&open(21)), CtState::New, "another");
    let answer = Packet::tcp(CLIENT, 51210, SERVER, 20, SYN | ACK).seq(9, 2);
    assert_eq!(rig.state(&answer), CtState::Established);
    let last = Packet::tcp(SERVER, 20, CLIENT, 51210, ACK).seq(2, 10);
    assert_eq!(rig.state(&last), CtState::Established);
}

#[test]
fn an_expectation_ends_with_its_time_and_with_its_master() {
    let mut rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    let open = Packet::tcp(SERVER, 20, CLIENT, 51210, SYN).seq(1, 0);
    talk.say(&rig, 0, b"PORT 198,18,1,5,200,10\r\n").unwrap();
    rig.now = rig.now + Nanos::from_secs(150);
    talk.say(&rig, 1, b"200 ok\r\n").unwrap();
    assert_eq!(rig.expected().len(), 1);
    rig.now = rig.now + Nanos::from_secs(150);
    assert!(rig.expected().is_empty());
    assert_eq!(rig.state(&open), CtState::New);
    let master = talk.say(&rig, 0, b"PORT 198,18,1,5,200,11\r\n").unwrap().tracking.conn.unwrap();
    let open = Packet::tcp(SERVER, 20, CLIENT, 51211, SYN).seq(1, 0);
    assert_eq!(rig.expected().len(), 1);
    rig.ct.remove(master);
    assert!(rig.expected().is_empty());
    assert_eq!(rig.state(&open), CtState::New);
    assert_eq!(rig.ct.sweep_expectations(rig.now), 2, "and the first that was over");
}

#[test]
fn after_half_a_command_the_stream_goes_on() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = greeted(&rig);
    for _ in 0..3 {
        talk.say(&rig, 0, b"NOOP\r\n").unwrap();
        assert!(talk.say(&rig, 0, b"PORT  198,18,1,5,200,10\r\n").is_err());
        talk.say(&rig, 0, b"NOOP\r\n").unwrap();
    }
}
