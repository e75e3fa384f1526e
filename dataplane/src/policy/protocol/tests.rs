//! The matches on bytes alone: what each says of headers that are there, not there,
//! and cut short.

use super::chain::{self, Missing};
use super::*;
use crate::policy::matches::AddressMask;

/// An IPv6 packet: the type of its first header, and what follows the fixed one.
fn packet(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut ip = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    ip.resize(40, 1);
    ip.extend(rest);
    ip
}

const ONE: [u8; 16] = [1; 16];
const TWO: [u8; 16] = [2; 16];

fn word(bytes: [u8; 16]) -> u128 {
    u128::from_be_bytes(bytes)
}

#[test]
fn a_header_is_found_behind_others_and_not_behind_a_later_fragment() {
    let chain = [&[43, 0, 1, 4, 0, 0, 0, 0][..], &[17, 0, 7, 3, 0, 0, 0, 0]].concat();
    let ip = packet(60, &chain);
    assert_eq!(chain::find(&ip, 43), Ok(&ip[48..]));
    assert_eq!(chain::find(&ip, 0), Err(Missing::Absent));
    // Cut in the routing header, of which four bytes are read.
    assert_eq!(chain::find(&ip[..51], 43), Err(Missing::Broken));
    assert_eq!(chain::find(&ip[..52], 43), Ok(&ip[48..52]));
    let fragment =
        |word: u8| [&[60, 0, 0, word, 0, 0, 0, 9][..], &[17, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(chain::find(&packet(44, &fragment(8)), 60), Err(Missing::Absent));
    assert!(chain::find(&packet(44, &fragment(8)), 44).is_ok());
    assert!(chain::find(&packet(44, &fragment(1)), 60).is_ok());
}

#[test]
fn header_types_are_collected_to_the_end() {
    let holds = |soft, negated, value, ip: &[u8]| {
        Ipv6HeaderMatch { headers: Neg { negated, value }, soft }.matches(ip)
    };
    let both = extension::DESTINATION | extension::PROTOCOL;
    let ip = packet(60, &[17, 0, 1, 4, 0, 0, 0, 0, 9]);
    assert!(holds(false, false, both, &ip));
    assert!(!holds(false, false, extension::DESTINATION, &ip));
    assert!(holds(false, true, extension::DESTINATION, &ip));
    assert!(holds(true, false, extension::DESTINATION, &ip));
    assert!(!holds(true, true, both, &ip), "with `!' none of them may be there");
    assert!(holds(true, true, extension::AH | extension::ESP, &ip));
    assert!(holds(false, false, extension::NONE, &packet(59, &[])));
    // Of a header that is not whole nothing is known, and nothing holds.
    assert!(!holds(false, true, both, &packet(60, &[17])));
    // One that claims to end beyond the packet is there all the same.
    assert!(holds(false, false, both, &packet(60, &[17, 9, 1, 4, 0, 0, 0, 0])));
    assert!(holds(false, false, extension::DESTINATION, &packet(60, &[50, 9, 1, 4, 0, 0, 0, 0])));
}

#[test]
fn routing_addresses_are_compared_strictly_or_in_order() {
    let header = [&[17, 4, 0, 1, 0, 0, 0, 0][..], &ONE, &TWO].concat();
    let ip = packet(43, &header);
    let with = |addresses: &[u128], not_strict| {
        let addresses = addresses.into();
        RtMatch { addresses, not_strict, ..RtMatch::default() }.evaluate(&ip)
    };
    assert_eq!(with(&[word(ONE), word(TWO)], false), Outcome::Yes);
    assert_eq!(with(&[word(ONE)], false), Outcome::No);
    assert_eq!(with(&[word(ONE)], true), Outcome::Yes);
    assert_eq!(with(&[word(TWO)], true), Outcome::Yes);
    assert_eq!(with(&[word(TWO), word(ONE)], true), Outcome::No);
    let length = |value| RtMatch { length: Some(Neg::plain(value)), ..RtMatch::default() };
    assert_eq!(length(40).evaluate(&ip), Outcome::Yes);
    assert_eq!(length(24).evaluate(&ip), Outcome::No);
    assert_eq!(length(40).evaluate(&ip[..79]), Outcome::Hotdrop, "shorter than it says");
    assert_eq!(length(40).evaluate(&packet(17, &[0; 8])), Outcome::No);
    let reserved = RtMatch { reserved: true, ..RtMatch::default() };
    assert_eq!(reserved.evaluate(&packet(43, &[17, 0, 0, 1, 0, 0, 0, 0])), Outcome::Yes);
    assert_eq!(reserved.evaluate(&packet(43, &[17, 0, 0, 1, 0, 0, 0, 1])), Outcome::No);
}

#[test]
fn options_are_compared_from_the_first_on() {
    let list = |options: &[(u8, Option<u8>)], bytes: &[u8]| {
        let options = options.into();
        OptionsMatch { destination: true, length: None, options }
            .evaluate(&packet(60, &[&[17, 0], bytes].concat()))
    };
    let bytes = [0, 5, 2, 0, 1, 0];
    assert_eq!(list(&[(0, None)], &bytes), Outcome::Yes);
    assert_eq!(list(&[(0, None), (5, Some(2))], &bytes), Outcome::Yes);
    assert_eq!(list(&[(0, None), (5, Some(3))], &bytes), Outcome::No);
    assert_eq!(list(&[(5, None)], &bytes), Outcome::No);
    // The last one asked for may reach beyond the header, others may not.
    assert_eq!(list(&[(1, None)], &[1, 9, 0, 0, 0, 0]), Outcome::Yes);
    assert_eq!(list(&[(1, None), (0, None)], &[1, 9, 0, 0, 0, 0]), Outcome::No);
    assert_eq!(list(&[], &[1, 9, 0, 0, 0, 0]), Outcome::Yes);
    assert_eq!(list(&[], &[1, 9]), Outcome::Hotdrop);
}

#[test]
fn fragment_headers_tell_place_and_number() {
    let frag = |wanted: FragMatch, high, low, odd| {
        wanted.evaluate(&packet(44, &[17, odd, high, low, 0, 0, 0, 9]))
    };
    let any = FragMatch::default();
    assert_eq!(frag(any, 0, 8, 0), Outcome::Yes);
    assert_eq!(frag(FragMatch { first: true, ..any }, 0, 8, 0), Outcome::No);
    assert_eq!(frag(FragMatch { more: Some(true), ..any }, 0, 1, 0), Outcome::Yes);
    assert_eq!(frag(FragMatch { more: Some(false), ..any }, 0, 1, 0), Outcome::No);
    assert_eq!(frag(FragMatch { reserved: true, ..any }, 0, 2, 0), Outcome::No);
    assert_eq!(frag(FragMatch { reserved: true, ..any }, 0, 0, 1), Outcome::No);
    let id = Some(Neg { negated: true, value: Range { low: 9, high: 9 } });
    assert_eq!(frag(FragMatch { id, ..any }, 0, 0, 0), Outcome::No);
    assert_eq!(any.evaluate(&packet(44, &[17, 0, 0, 0, 0])), Outcome::Hotdrop);
}

#[test]
fn segments_are_counted_from_the_last() {
    // One segment left of two: the active one is the first of the list's end.
    let header = [&[17, 4, 4, 0, 1, 0, 0, 1][..], &ONE, &TWO].concat();
    let ip = packet(43, &header);
    let segment =
        |value: [u8; 16]| Some(Neg::plain(AddressMask { address: word(value), mask: u128::MAX }));
    let any = SrhMatch::default();
    assert!(any.matches(&ip));
    assert!(SrhMatch { last: segment(ONE), ..any }.matches(&ip));
    assert!(SrhMatch { previous: segment(TWO), ..any }.matches(&ip));
    assert!(!SrhMatch { next: segment(ONE), ..any }.matches(&ip), "none is left");
    let tag = Some(Neg::plain(u16::from_ne_bytes([0, 1])));
    assert!(SrhMatch { tag, ..any }.matches(&ip));
    let less = SrhCompare { value: 1, less: Some(false), ..SrhCompare::default() };
    assert!(SrhMatch { segments_left: less, ..any }.matches(&ip));
    assert!(!SrhMatch { last_entry: less, ..any }.matches(&ip));
    assert!(!any.matches(&ip[..50]), "cut off: no match, and no drop");
    assert!(!any.matches(&packet(43, &[17, 0, 4, 1, 0, 0, 0, 0])), "more left than there are");
}
