//! `-m tcpmss`.

use dataplane::policy::matches::{Match, Range};
use dataplane::policy::protocol::ProtocolMatch;

use super::one::Kind;
use crate::iptables::extension::{Context, Operand, Problem, negatable};
use crate::iptables::value;
use crate::model::MatchBody;

pub(super) const TCPMSS: Kind<Range<u16>> = Kind {
    name: "tcpmss",
    options: &[negatable("mss", 0)],
    option: "--mss",
    protocol: Some((6, "tcp")),
    read,
    made: |mss| MatchBody::Plain(Match::Protocol(ProtocolMatch::TcpMss(mss))),
};

fn read(operand: &Operand<'_>, _context: &mut Context<'_>) -> Result<Range<u16>, Problem> {
    let (low, high) = value::range(operand.text, 0xffff).ok_or_else(|| {
        operand.bad(format!("`{}' is no segment size or LOW:HIGH (0-65535)", operand.text))
    })?;
    if low > high {
        return Err(operand.bad(format!("`{}' is reversed", operand.text)));
    }
    Ok(Range { low: low as u16, high: high as u16 })
}
