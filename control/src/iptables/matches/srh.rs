//! `-m srh`.

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Match, Neg};
use dataplane::policy::protocol::{ProtocolMatch, SrhCompare, SrhMatch};

use crate::diagnostics::Code;
use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const NEXT_HEADER: u8 = 0;
const LENGTH: u8 = 1;
const SEGMENTS: u8 = 4;
const LAST_ENTRY: u8 = 7;
const TAG: u8 = 10;
const PREVIOUS: u8 = 11;
const NEXT: u8 = 12;

const OPTIONS: &[Opt] = &[
    negatable("srh-next-hdr", NEXT_HEADER),
    negatable("srh-hdr-len-eq", LENGTH),
    negatable("srh-hdr-len-gt", LENGTH + 1),
    negatable("srh-hdr-len-lt", LENGTH + 2),
    negatable("srh-segs-left-eq", SEGMENTS),
    negatable("srh-segs-left-gt", SEGMENTS + 1),
    negatable("srh-segs-left-lt", SEGMENTS + 2),
    negatable("srh-last-entry-eq", LAST_ENTRY),
    negatable("srh-last-entry-gt", LAST_ENTRY + 1),
    negatable("srh-last-entry-lt", LAST_ENTRY + 2),
    negatable("srh-tag", TAG),
    negatable("srh-psid", PREVIOUS),
    negatable("srh-nsid", NEXT),
    negatable("srh-lsid", NEXT + 1),
];

#[derive(Default)]
pub(super) struct Srh {
    srh: SrhMatch,
}

impl Module for Srh {
    fn name(&self) -> &'static str {
        "srh"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let (negated, srh) = (operand.negated, &mut self.srh);
        match id {
            NEXT_HEADER => srh.next_header = Some(Neg { negated, value: byte(operand)? }),
            LENGTH..SEGMENTS => compare(&mut srh.length, id - LENGTH, operand)?,
            SEGMENTS..LAST_ENTRY => compare(&mut srh.segments_left, id - SEGMENTS, operand)?,
            LAST_ENTRY..TAG => compare(&mut srh.last_entry, id - LAST_ENTRY, operand)?,
            TAG => {
                let value = value::number(operand.text, 0, 0xffff).ok_or_else(|| {
                    operand.bad(format!("`{}' is no tag (0-65535)", operand.text))
                })?;
                srh.tag = Some(Neg { negated, value: value as u16 });
            }
            PREVIOUS => srh.previous = Some(segment(operand)?),
            NEXT => srh.next = Some(segment(operand)?),
            _ => srh.last = Some(segment(operand)?),
        }
        Ok(())
    }
}

fn byte(operand: &Operand<'_>) -> Result<u8, Problem> {
    value::number8(operand.text)
        .ok_or_else(|| operand.bad(format!("`{}' is no number from 0 to 255", operand.text)))
}

/// The kernel has one number for the three comparisons of a field.
fn compare(field: &mut SrhCompare, which: u8, operand: &Operand<'_>) -> Result<(), Problem> {
    let value = byte(operand)?;
    let earlier = field.equal.or(field.greater).or(field.less).is_some();
    if earlier && field.value != value {
        return Err(Problem::new(
            Code::ConflictingOptions,
            operand.span,
            "the kernel keeps one number for -eq, -gt and -lt: the last one would hold for all",
        )
        .remedy("write `-m srh' again for the second comparison"));
    }
    field.value = value;
    let which = match which {
        0 => &mut field.equal,
        1 => &mut field.greater,
        _ => &mut field.less,
    };
    *which = Some(operand.negated);
    Ok(())
}

fn segment(operand: &Operand<'_>) -> Result<Neg<AddressMask>, Problem> {
    let value = address::parse_unmasked(operand.text, Family::V6, operand.span)?;
    if value.mask.leading_ones() != value.mask.count_ones() {
        return Err(operand
            .bad("a mask with holes is not kept by the tools")
            .remedy("write a length from 0 to 128"));
    }
    Ok(Neg { negated: operand.negated, value })
}

impl MatchModule for Srh {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Srh(Box::new(self.srh)))))
    }
}
