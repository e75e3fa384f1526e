//! `-m mark` and `-m connmark`.

use dataplane::policy::matches::Match;

use super::one::Kind;
use crate::iptables::extension::{Opt, negatable};
use crate::model::MatchBody;

const OPTIONS: &[Opt] = &[negatable("mark", 0)];

pub(super) const MARK: Kind<(u32, u32)> = Kind {
    name: "mark",
    options: OPTIONS,
    option: "--mark",
    protocol: None,
    read: |operand, _| super::value_mask(operand),
    made: |mark| MatchBody::Plain(Match::Mark(mark)),
};

pub(super) const CONNMARK: Kind<(u32, u32)> =
    Kind { name: "connmark", made: |mark| MatchBody::Plain(Match::Connmark(mark)), ..MARK };
