//! `-m realm`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{PlaceMatch, RealmMatch};

use super::one::Kind;
use crate::iptables::extension::negatable;
use crate::model::MatchBody;

pub(super) const REALM: Kind<(u32, u32)> = Kind {
    name: "realm",
    options: &[negatable("realm", 0)],
    option: "--realm",
    protocol: None,
    read: |operand, _| super::named_value_mask(operand, "cosmos", "rt_realms"),
    made: |Neg { negated, value: (value, mask) }| {
        let realm = RealmMatch { value, mask, invert: negated };
        MatchBody::Plain(Match::Place(PlaceMatch::Realm(realm)))
    },
};
