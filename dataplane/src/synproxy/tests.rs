//! Options there and back, and timestamps moved in place.

use proptest::prelude::*;

use super::options::{LENGTH_MAX, move_stamps};
use super::*;
use crate::clock::Nanos;
use crate::policy::target::SynproxyTarget;
use crate::wire::{be16, be32};

const EVERYTHING: SynproxyTarget = SynproxyTarget {
    mss: Some(1460),
    wscale: Some(7),
    sack_perm: true,
    timestamp: true,
    ecn: true,
};

fn any_options() -> impl Strategy<Value = Options> {
    let stamps = proptest::option::of((any::<u32>(), any::<u32>()));
    (
        proptest::option::of(any::<u16>()),
        proptest::option::of(0..=14_u8),
        any::<bool>(),
        stamps,
        any::<bool>(),
    )
        .prop_map(|(mss, scale, sack, timestamps, ecn)| Options {
            mss,
            scale,
            sack,
            timestamps,
            ecn,
        })
}

fn segment(options: Options) -> Vec<u8> {
    let segment = Segment {
        family: Family::V4,
        from: (1, 2),
        to: (3, 4),
        seq: 5,
        ack: 6,
        flags: flags::ACK,
        window: 7,
        options,
    };
    let mut out = [0; PACKET_MAX];
    let length = segment.write(&mut out);
    out[20..length].to_vec()
}

fn sums_up(segment: &[u8]) -> bool {
    checksum::transport(Family::V4, 1, 3, proto::TCP, segment) == 0
}

proptest! {
    #[test]
    fn what_is_written_is_read(options in any_options()) {
        let bytes = segment(options);
        prop_assert!(sums_up(&bytes) && bytes.len().is_multiple_of(4));
        prop_assert_eq!(Options::read(&bytes), Some(Options { ecn: false, ..options }));
    }

    /// What the client offered comes back from the timestamp that we answered with.
    #[test]
    fn a_timestamp_remembers_the_offer(offered in any_options(), ns in any::<u64>(), size in any::<u16>()) {
        let answer = offered.answer(&EVERYTHING, Nanos(ns));
        let Some((stamp, echo)) = answer.timestamps else {
            prop_assert_eq!(offered.timestamps, None);
            prop_assert!(!answer.sack && answer.scale.is_none() && !answer.ecn);
            return Ok(());
        };
        prop_assert_eq!(Some(echo), offered.timestamps.map(|(value, _)| value));
        prop_assert_eq!(answer.scale, offered.scale.map(|_| 7));
        let back = Options { timestamps: Some((99, stamp)), ..Options::default() };
        let recalled = back.recalled(size);
        let expected = Options { mss: Some(size), timestamps: Some((99, stamp)), ..offered };
        prop_assert_eq!(recalled, expected);
    }

    #[test]
    fn timestamps_move_and_sums_follow(
        value in any::<u32>(), echo in any::<u32>(), offset in any::<u32>(), nops in 0..3_usize,
        from_server in any::<bool>(),
    ) {
        let mut bytes = vec![0; 20];
        bytes.extend(vec![1; nops]);
        bytes.extend([8, 10]);
        bytes.extend(value.to_be_bytes());
        bytes.extend(echo.to_be_bytes());
        bytes.resize(20 + 12, 0);
        bytes[12] = 8 << 4;
        let sum = checksum::transport(Family::V4, 1, 3, proto::TCP, &bytes);
        put16(&mut bytes, 16, sum);
        move_stamps(&mut bytes, from_server, offset);
        prop_assert!(sums_up(&bytes));
        let at = 22 + nops;
        let expected = match from_server {
            true => (value.wrapping_sub(offset), echo),
            false => (value, echo.wrapping_add(offset)),
        };
        prop_assert_eq!((be32(&bytes, at), be32(&bytes, at + 4)), expected);
    }

    /// Whatever stands in a header.
    #[test]
    fn malformed_options_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 20..80), offset in any::<u32>()) {
        let length = bytes.len();
        move_stamps(&mut bytes, true, offset);
        move_stamps(&mut bytes, false, offset);
        prop_assert_eq!(bytes.len(), length);
        let _ = Options::read(&bytes);
    }
}

#[test]
fn nothing_more_is_answered_than_was_offered_and_allowed() {
    let all = Options {
        mss: Some(1000),
        scale: Some(3),
        sack: true,
        timestamps: Some((5, 0)),
        ecn: true,
    };
    let now = Nanos::from_secs(1);
    let none = SynproxyTarget::default();
    assert_eq!(all.answer(&none, now), Options::default());
    assert_eq!(Options::default().answer(&EVERYTHING, now), Options::default());
    let sized = SynproxyTarget { mss: Some(1460), ..none };
    let expected = Options { mss: Some(1460), ..Options::default() };
    assert_eq!(all.answer(&sized, now), expected);
    // Without timestamps the rest could not be remembered.
    let forgetful = SynproxyTarget { timestamp: false, ..EVERYTHING };
    assert_eq!(all.answer(&forgetful, now), expected);
    let stamped = SynproxyTarget { timestamp: true, ..none };
    let answer = all.answer(&stamped, now);
    assert_eq!(answer.timestamps, Some((1000 & !63 | 0xf, 5)));
    assert_eq!((answer.scale, answer.sack, answer.ecn), (None, false, false));
}

#[test]
fn the_longest_list_fits() {
    let all =
        Options { mss: Some(1), scale: Some(14), sack: true, timestamps: Some((1, 2)), ecn: false };
    assert_eq!(all.write(&mut [0; LENGTH_MAX]), LENGTH_MAX);
    assert_eq!(be16(&segment(all), 14), 7);
}
