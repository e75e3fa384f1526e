//! Whatever a stranger writes: no panic, bounded work, and packets that stay true.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::conntrack::{Tuple, status};

const SAMPLES: [(HelperKind, &str); 14] = [
    (HelperKind::Ftp, "PORT 198,18,1,5,200,10\r\n"),
    (HelperKind::Ftp, "EPRT |1|198.18.1.5|51210|\r\n"),
    (HelperKind::Irc, "PRIVMSG bob :\x01DCC SEND file 3323068677 5000 77\x01\r\n"),
    (
        HelperKind::Sip,
        "INVITE sip:web@198.18.2.7:5060 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 198.18.1.5:5060;branch=z9;received=198.18.1.5;rport=5060\r\n\
         From: <sip:a@198.18.1.5:5060>;tag=1\r\nTo: <sip:web@198.18.2.7:5060>\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:a@198.18.1.5:5060>, <sip:b@198.18.1.5:5060>\r\nContent-Length: 133\r\n\r\n\
         v=0\r\no=- 1 1 IN IP4 198.18.1.5\r\ns=x\r\nc=IN IP4 198.18.1.5\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 0\r\nc=IN IP4 198.18.1.5\r\n",
    ),
    (
        HelperKind::Sip,
        "REGISTER sip:web SIP/2.0\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@198.18.1.5:5060>;\
         expires=9;transport=udp\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        HelperKind::Sip,
        "SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\nContact: <sip:a@198.18.3.100:5060>;expires=9\r\n\r\n",
    ),
    (HelperKind::Tftp, "\0\x01file\0octet\0"),
    (HelperKind::Sip, "BYE sip:x SIP/2.0\r\nCSeq: 2 BYE\r\n\r\n"),
    (HelperKind::Amanda, "CONNECT DATA 5001 MESG 65535 INDEX 7 STATE 5004\n"),
    (HelperKind::Pptp, "\0\x10\0\x01\x1a+<M\0\x06\0\0\0\0\0\x01\x01\0\0\0"),
    (
        HelperKind::Pptp,
        "\0\x20\0\x01\x1a+<M\0\x08\0\0\0\x09\0\x07\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ),
    (HelperKind::Sane, "\0\0\0\x07\0\0\0\x01"),
    (HelperKind::Sane, "\0\0\0\0\0\0\x20\x01"),
    // An answer with a value of no kind.
    (
        HelperKind::Snmp,
        "\x30\x1b\x02\x01\x01\x04\x01p\x22\x13\x02\x01\x01\x02\x01\0\x02\x01\0\x30\x08\x30\x06\x06\x02+\x01\x05\0",
    ),
];

/// A change to a text: where (scaled), what kind, and a byte.
type Damage = (u16, u8, u8);

fn damaged(text: &[u8], damage: &[Damage]) -> Vec<u8> {
    const LIKELY: &[u8] = b"019,.:;|()<> \t\r\n=\"@/avmcP\0\xff";
    let mut text = text.to_vec();
    for &(place, kind, byte) in damage {
        let at = (usize::from(place) * (text.len() + 1)) >> 16;
        let likely = LIKELY[usize::from(byte) % LIKELY.len()];
        match kind % 6 {
            0 => text.insert(at, likely),
            1 => text.insert(at, byte),
            2 => text.truncate(at),
            3 => {
                let part = text[at..].to_vec();
                text.extend(part);
                text.truncate(1200);
            }
            4 if at < text.len() => text[at] = likely,
            _ if at < text.len() => drop(text.remove(at)),
            _ => {}
        }
    }
    text
}

/// The client's address behind the translation.
const OUTSIDE: u32 = u32::from_be_bytes([198, 18, 3, 100]);

/// Shows both sides' texts to a helper, over both protocols, translated or not.
fn show(kind: HelperKind, texts: &[Vec<u8>], translated: bool) {
    let mut rig = Rig::new(kind);
    rig.outside = translated.then_some(u128::from(OUTSIDE));
    for (side, text) in texts.iter().enumerate() {
        let hosts = [(CLIENT, 5060), (SERVER, 5060)];
        let ((src, sport), (dst, dport)) = (hosts[side % 2], hosts[1 - side % 2]);
        let _ = rig.send(&Packet::udp(src, sport, dst, dport).payload(text));
    }
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    for (side, text) in texts.iter().enumerate() {
        let _ = talk.say(&rig, side % 2, b"x\r\n");
        let _ = talk.say(&rig, side % 2, text);
    }
    assert!(rig.ct.expectations(rig.now).len() <= 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_texts_do_no_harm(
        which in vec(0..SAMPLES.len(), 1..4),
        damage in vec((any::<u16>(), any::<u8>(), any::<u8>()), 0..6),
        translated: bool,
    ) {
        let kind = SAMPLES[which[0]].0;
        let text = |&at: &usize| damaged(SAMPLES[at].1.as_bytes(), &damage);
        let texts: Vec<Vec<u8>> = which.iter().map(text).collect();
        show(kind, &texts, translated);
    }

    #[test]
    fn noise_does_no_harm(
        kind in 0..HelperKind::ALL.len(),
        noise in vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b':')], 0..300),
        translated: bool,
    ) {
        show(HelperKind::ALL[kind], &[noise.clone(), noise], translated);
    }
}

#[test]
fn what_does_not_fit_is_dropped_and_not_expected() {
    let mut rig = Rig::new(HelperKind::Ftp);
    rig.outside = Some(u128::from(OUTSIDE));
    rig.room = 0;
    let mut talk = greeted(&rig);
    let command = b"PORT 198,18,1,5,200,10\r\n";
    let packet = talk.segment(0, command, ACK);
    assert_eq!(rig.send(&packet).map(drop), Err(DropReason::NoRoom));
    assert!(rig.expected().is_empty());
    rig.room = 64;
    let passed = talk.say(&rig, 0, command).unwrap();
    assert!(passed.frame.ends_with(b"PORT 198,18,3,100,200,10\r\n"));
    let id = passed.tracking.conn.unwrap();
    assert_ne!(rig.ct.status(id).unwrap() & status::SEQ_ADJUST, 0);
    let to: Vec<Tuple> =
        rig.ct.expectations(rig.now).iter().map(|row| row.expectation.tuple).collect();
    assert_eq!((to.len(), to[0].dst, to[0].dport), (1, u128::from(OUTSIDE), 51_210));
}

#[test]
fn a_line_of_many_uris_costs_no_more_than_its_length() {
    let mut rig = Rig::new(HelperKind::Sip);
    rig.outside = Some(u128::from(OUTSIDE));
    let text = |uris: usize| {
        let list = "sip:1.2.3.4,sip:x,".repeat(uris);
        format!("BYE sip:x SIP/2.0\r\nCSeq: 2 BYE\r\nContact: {list}\r\n\r\n")
    };
    // The shortest of some, on a machine with other work.
    let time = |uris: usize| {
        let packet = Packet::udp(CLIENT, 5060, SERVER, 5060).payload(text(uris).as_bytes());
        let once = || {
            let start = crate::clock::monotonic();
            rig.send(&packet).unwrap();
            crate::clock::monotonic().saturating_sub(start)
        };
        (0..5).map(|_| once()).min().unwrap()
    };
    let (short, long) = (time(200), time(3200));
    assert!(long.0 < short.0 * 80, "sixteen times the text: {short:?}, {long:?}");
}
