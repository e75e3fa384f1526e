//! Whatever a stranger writes: no panic, bounded work.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ras_samples() -> Vec<Vec<u8>> {
    let [own, call] = [at(CLIENT, 1719), at(CLIENT, 1720)];
    vec![
        gatekeeper_request(own),
        gatekeeper_confirm(at(THIRD, 1719)),
        registration_request(&[call, own], &[own], Some(60)),
        registration_confirm(&[call], Some(60)),
        unregistration_request(&[call]),
        admission_request(Some(call), Some(call)),
        admission_confirm(at(THIRD, 1720)),
        location_request(own),
        location_confirm(at(THIRD, 1720), own),
        info_response(own, &[call, own]),
    ]
}

fn call_samples() -> Vec<Vec<u8>> {
    let channel = |carries| Open {
        carries,
        reverse: Some((Some(at(CLIENT, 6010)), None)),
        stack: Some(at(CLIENT, 6020)),
        ..open(Some(at(CLIENT, 6000)), Some(at(CLIENT, 6001)))
    };
    let call = Call {
        h245: Some(at(CLIENT, 6030)),
        destination: Some(at(SERVER, 1720)),
        source: Some(at(CLIENT, 4000)),
        alternative: None,
        fast_start: [Carries::G7231, Carries::H261, Carries::T120]
            .map(|carries| channel(carries).channel())
            .to_vec(),
        tunnelled: vec![channel(Carries::H263).message()],
        known: 26,
    };
    Body::ALL.iter().map(|body| call.q931(*body)).collect()
}

/// Shows a message to all three helpers, translated or not.
fn show(text: &[u8], translated: bool) {
    let mut by = rig(HelperKind::Ras, translated);
    let _ = ras(&by, 0, text);
    let _ = ras(&by, 1, text);
    for helper in [HelperKind::Q931, HelperKind::H245] {
        by = rig(helper, translated);
        let mut talk = Talk::open(&by, (CLIENT, 4000), (SERVER, 1720));
        let _ = talk.say(&by, 0, &tpkt(text));
        let _ = talk.say(&by, 1, text);
    }
    assert!(by.ct.expectations(by.now).len() <= 16);
}

#[test]
fn truncations_of_every_message() {
    for sample in ras_samples().iter().chain(&call_samples()) {
        for end in (0..sample.len()).filter(|end| *end < 120 || end % 8 == 0) {
            show(&sample[..end], end % 2 == 0);
        }
    }
}

#[test]
fn every_bit_of_every_message() {
    for sample in ras_samples().iter().chain(&call_samples()) {
        for bit in 0..sample.len() * 8 {
            let mut sample = sample.clone();
            sample[bit / 8] ^= 0x80 >> (bit % 8);
            for root in [&h225::RAS, &h225::USER, &h245::CONTROL] {
                let (mut found, mut steps) = (Found::default(), STEPS);
                let _ = per::read(&sample, (0, sample.len()), root, &mut found, &mut steps);
            }
            if bit % 64 == 0 {
                show(&sample, bit % 128 == 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn noise_does_no_harm(text in vec(any::<u8>(), 0..400), translated: bool) {
        show(&text, translated);
        let user = [&[8, 0, 1, 0x7e, 0, text.len() as u8, 5][..], &text].concat();
        show(&user, translated);
        show(&[&[0x0e][..], &text].concat(), translated);
    }

    #[test]
    fn nothing_is_noted_outside_the_message(
        text in vec(prop_oneof![any::<u8>(), Just(0), Just(0x80)], 0..300),
        kind in 0..3usize,
    ) {
        let root = [&h225::RAS, &h225::USER, &h245::CONTROL][kind];
        let mut found = Found::default();
        let read = per::read(&text, (0, text.len()), root, &mut found, &mut STEPS.clone());
        prop_assume!(read.is_ok());
        let lists = found.signal.iter().chain(&found.ras).flatten();
        let media = found.channels.iter().flat_map(|channel| channel.media.iter().flatten());
        for place in lists.chain(media.flatten()).chain(&found.h245).chain(&found.alternative) {
            let len = if place.v6 { 18 } else { 6 };
            assert!(usize::from(place.at) + len <= text.len());
        }
    }
}

#[test]
fn work_is_bounded() {
    // More addresses than any datagram has.
    let mut found = Found::default();
    let mut endless = registration_request(&[], &[], None);
    endless.truncate(13);
    endless.extend([0xbf, 0xff]);
    endless.extend([0; 60_000]);
    let mut steps = STEPS;
    let read = per::read(&endless, (0, endless.len()), &h225::RAS, &mut found, &mut steps);
    assert!(read.is_err() && steps == 0, "{steps}");
}

#[test]
fn a_call_with_thirty_channels_is_read() {
    let channel = open(Some(at(CLIENT, 6000)), Some(at(CLIENT, 6001))).channel();
    let message = open(Some(at(CLIENT, 6000)), None).message();
    let call =
        Call { fast_start: vec![channel; 35], tunnelled: vec![message; 6], ..Call::default() };
    let user = call.user(Body::Progress);
    let (mut steps, mut found) = (STEPS, Found::default());
    per::read(&user, (0, user.len()), &h225::USER, &mut found, &mut steps).unwrap();
    assert_eq!(found.channels.len(), 34, "thirty, and four of H.245");
    assert!(STEPS - steps < STEPS / 4, "{}", STEPS - steps);
}
