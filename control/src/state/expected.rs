//! Expectations in a state file.

use dataplane::clock::Nanos;
use dataplane::conntrack::{ConnId, Direction, ExpectRow, Expectation, Follow, SourceMask, Tuple};
use dataplane::packet::Family;
use dataplane::policy::target::HelperKind;

use super::format::{Reader, get_tuple, put_tuple, put_u16, put_u64};

/// An expectation outside its table. Its master goes by its old number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// [`ConnId::number`] of the master where it was taken.
    pub(super) master: u64,
    /// Time until it expires.
    pub(super) left: Nanos,
    /// Like the fields of [`Expectation`].
    pub(super) tuple: Tuple,
    pub(super) mask: SourceMask,
    pub(super) by: HelperKind,
    pub(super) class: u8,
    pub(super) permanent: bool,
    pub(super) inactive: bool,
    pub(super) helper: Option<HelperKind>,
    pub(super) follow: Option<Follow>,
}

impl Expected {
    pub(super) fn of(row: &ExpectRow) -> Self {
        let Expectation { tuple, mask, by, class, permanent, inactive, .. } = row.expectation;
        let Expectation { master, helper, follow, .. } = row.expectation;
        let (master, left) = (master.number(), Nanos::from_secs(row.timeout_s));
        Self { master, left, tuple, mask, by, class, permanent, inactive, helper, follow }
    }

    /// The expectation, of a master by its new name.
    pub(super) fn of_master(&self, master: ConnId) -> Expectation {
        let &Self { tuple, mask, by, class, permanent, inactive, helper, follow, .. } = self;
        Expectation { tuple, mask, master, by, class, permanent, inactive, helper, follow }
    }
}

mod part {
    pub(super) const WIDE: u8 = 1;
    pub(super) const PERMANENT: u8 = 2;
    pub(super) const INACTIVE: u8 = 4;
    pub(super) const FOLLOW: u8 = 8;
    pub(super) const REPLY: u8 = 16;
    pub(super) const ELSEWHERE: u8 = 32;
}

pub(super) fn put(out: &mut Vec<u8>, expected: &Expected) {
    let what = expected;
    let follow = what.follow.as_ref();
    let parts = [
        (what.tuple.family == Family::V6, part::WIDE),
        (what.permanent, part::PERMANENT),
        (what.inactive, part::INACTIVE),
        (follow.is_some(), part::FOLLOW),
        (follow.is_some_and(|follow| follow.direction == Direction::Reply), part::REPLY),
        (follow.is_some_and(|follow| follow.address.is_some()), part::ELSEWHERE),
    ];
    let parts = parts.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, part)| all | part);
    let helper = what.helper.map_or(0, |helper| helper as u8);
    out.extend_from_slice(&[parts, what.tuple.proto, what.by as u8, helper, what.class]);
    put_u64(out, expected.master);
    put_u64(out, expected.left.0);
    put_tuple(out, &what.tuple);
    out.extend_from_slice(&what.mask.address.to_le_bytes());
    put_u16(out, what.mask.port);
    if let Some(follow) = follow {
        put_u16(out, follow.port);
        follow.address.into_iter().for_each(|address| out.extend(address.to_le_bytes()));
    }
}

pub(super) fn get(from: &mut Reader<'_>) -> Option<Expected> {
    let [parts, proto, by, helper, class] = from.array()?;
    let has = |part: u8| parts & part != 0;
    let kind = |number: u8| HelperKind::ALL.into_iter().find(|kind| *kind as u8 == number);
    let helper = if helper == 0 { None } else { Some(kind(helper)?) };
    let (master, left) = (from.u64()?, Nanos(from.u64()?));
    let family = if has(part::WIDE) { Family::V6 } else { Family::V4 };
    let tuple = get_tuple(from, family, proto)?;
    let mask = SourceMask { address: u128::from_le_bytes(from.array()?), port: from.u16()? };
    let follow = if has(part::FOLLOW) {
        let direction = if has(part::REPLY) { Direction::Reply } else { Direction::Original };
        let port = from.u16()?;
        let elsewhere = has(part::ELSEWHERE);
        let address = if elsewhere { Some(u128::from_le_bytes(from.array()?)) } else { None };
        Some(Follow { direction, port, address })
    } else {
        None
    };
    let by = kind(by)?;
    let (permanent, inactive) = (has(part::PERMANENT), has(part::INACTIVE));
    Some(Expected { master, left, tuple, mask, by, class, permanent, inactive, helper, follow })
}
