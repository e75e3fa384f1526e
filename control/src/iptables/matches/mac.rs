//! `-m mac`.

use dataplane::policy::matches::Match;

use super::one::Kind;
use crate::iptables::extension::negatable;
use crate::model::MatchBody;

pub(super) const MAC: Kind<[u8; 6]> = Kind {
    name: "mac",
    options: &[negatable("mac-source", 0)],
    option: "--mac-source",
    protocol: None,
    read: |operand, _| {
        parse(operand.text).ok_or_else(|| {
            operand
                .bad(format!("`{}' is no MAC address", operand.text))
                .remedy("write six hexadecimal bytes with colons, 02:00:00:00:00:01")
        })
    },
    made: |source| MatchBody::Plain(Match::MacSource(source)),
};

/// Six bytes of one or two hexadecimal digits.
fn parse(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if !(1..=2).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}
