//! `-j HMARK`.

use dataplane::packet::Family;
use dataplane::policy::TableId;

use crate::diagnostics::Code;
use crate::iptables::address::{self, full_mask, prefix_mask, width};
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::iptables::value;
use crate::model::{HmarkSpec, MetaSpec, Rule, Span, TargetSpec};

const SRC_PREFIX: u8 = 0;
const DST_PREFIX: u8 = 1;
const SPORT_MASK: u8 = 2;
const DPORT_MASK: u8 = 3;
const SPI_MASK: u8 = 4;
const SPORT: u8 = 5;
const DPORT: u8 = 6;
const SPI: u8 = 7;
const PROTO_MASK: u8 = 8;
const RND: u8 = 9;
const MOD: u8 = 10;
const OFFSET: u8 = 11;
const TUPLE: u8 = 12;
/// Not an option: `ct` in the tuple.
const CT: u8 = 13;

const PORTS: u32 = 1 << SPORT | 1 << DPORT;
const PORT_MASKS: u32 = 1 << SPORT_MASK | 1 << DPORT_MASK;

const OPTIONS: &[Opt] = &[
    plain("hmark-tuple", TUPLE),
    plain("hmark-src-prefix", SRC_PREFIX),
    plain("hmark-dst-prefix", DST_PREFIX),
    plain("hmark-sport-mask", SPORT_MASK),
    plain("hmark-dport-mask", DPORT_MASK),
    plain("hmark-spi-mask", SPI_MASK),
    plain("hmark-sport", SPORT),
    plain("hmark-dport", DPORT),
    plain("hmark-spi", SPI),
    plain("hmark-proto-mask", PROTO_MASK),
    plain("hmark-rnd", RND),
    plain("hmark-mod", MOD),
    plain("hmark-offset", OFFSET),
];

/// What a tuple names, in the order in which abbreviations are looked up.
const MEMBERS: [(&str, u8); 7] = [
    ("src", SRC_PREFIX),
    ("dst", DST_PREFIX),
    ("sport", SPORT_MASK),
    ("dport", DPORT_MASK),
    ("spi", SPI_MASK),
    ("proto", PROTO_MASK),
    ("ct", CT),
];

#[derive(Default)]
pub(super) struct Hmark {
    spec: HmarkSpec,
    /// What was given, as options or by the tuple, one a bit.
    given: u32,
}

impl Hmark {
    fn tuple(&mut self, operand: &Operand<'_>, family: Family) -> Taken {
        let names = MEMBERS.map(|(name, _)| name).join(", ");
        for part in operand.text.split(',') {
            let named = |(name, _): &&(&str, u8)| value::abbreviates(part, name);
            let member = MEMBERS.iter().find(named).filter(|_| !part.is_empty());
            let Some(&(_, id)) = member else {
                return Err(operand
                    .bad(format!("`{part}' is no member of a tuple"))
                    .remedy(format!("write some of {names}, with commas between them")));
            };
            self.given |= 1 << id;
            let spec = &mut self.spec;
            match id {
                SRC_PREFIX => spec.src_mask = Some(full_mask(family)),
                DST_PREFIX => spec.dst_mask = Some(full_mask(family)),
                SPORT_MASK => spec.sport_mask = Some(u16::MAX),
                DPORT_MASK => spec.dport_mask = Some(u16::MAX),
                SPI_MASK => spec.spi_mask = Some(u32::MAX),
                PROTO_MASK => spec.proto_mask = Some(u16::MAX),
                _ => spec.connection = true,
            }
        }
        Ok(())
    }
}

/// A length or a mask. Masks with holes are printed as another one: the tools cannot
/// read back what they print.
fn prefix(operand: &Operand<'_>, family: Family) -> Result<u128, Problem> {
    let text = operand.text;
    let most = width(family);
    if let Some(length) = value::number(text, 0, u64::from(most)) {
        return Ok(prefix_mask(family, length as u32));
    }
    let mask = address::parse_address(text, family).filter(|_| text.contains(['.', ':']));
    let whole = |mask: &u128| (0..=most).any(|length| prefix_mask(family, length) == *mask);
    mask.filter(whole).ok_or_else(|| {
        operand
            .bad(format!("`{text}' is no prefix"))
            .remedy(format!("write a number of bits from 0 to {most}"))
    })
}

fn number16(operand: &Operand<'_>) -> Result<u16, Problem> {
    let number = value::number(operand.text, 0, u64::from(u16::MAX));
    let refusal = || operand.bad(format!("`{}' is no number of 16 bits", operand.text));
    number.map(|number| number as u16).ok_or_else(refusal)
}

fn number32(operand: &Operand<'_>) -> Result<u32, Problem> {
    let refusal = || operand.bad(format!("`{}' is no number of 32 bits", operand.text));
    value::number32(operand.text).ok_or_else(refusal)
}

impl Module for Hmark {
    fn name(&self) -> &'static str {
        "HMARK"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if self.given & 1 << id != 0 {
            // The tools notice in this order only; in the other the tuple wins.
            return Err(operand
                .bad("--hmark-tuple has said this already")
                .remedy("leave it out of the tuple"));
        }
        self.given |= 1 << id;
        let spec = &mut self.spec;
        match id {
            TUPLE => self.tuple(operand, context.family)?,
            SRC_PREFIX => spec.src_mask = Some(prefix(operand, context.family)?),
            DST_PREFIX => spec.dst_mask = Some(prefix(operand, context.family)?),
            SPORT_MASK => spec.sport_mask = Some(number16(operand)?),
            DPORT_MASK => spec.dport_mask = Some(number16(operand)?),
            SPI_MASK => spec.spi_mask = Some(number32(operand)?),
            SPORT => spec.sport = Some(number16(operand)?),
            DPORT => spec.dport = Some(number16(operand)?),
            SPI => spec.spi = Some(number32(operand)?),
            PROTO_MASK => spec.proto_mask = Some(number16(operand)?),
            RND => spec.seed = number32(operand)?,
            MOD => {
                spec.modulus = number32(operand)?;
                if spec.modulus == 0 {
                    return Err(operand.bad("the modulus must be at least 1"));
                }
            }
            _ => spec.offset = Some(number32(operand)?),
        }
        Ok(())
    }
}

impl TargetModule for Hmark {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let given = |bits: u32| self.given & bits != 0;
        if !given(1 << MOD) || !given(1 << RND) {
            return Err(required(at, "HMARK", "--hmark-mod and --hmark-rnd"));
        }
        let hashed = (((1 << OFFSET) - 1) & !(1 << RND | 1 << MOD)) | 1 << CT;
        if !given(hashed) {
            return Err(required(at, "HMARK", "--hmark-tuple"));
        }
        let clash = |one: &str, other: &str| {
            let message = format!("{one} and {other} cannot be used together");
            Err(Problem::new(Code::ConflictingOptions, at, message))
        };
        if given(1 << SPI_MASK) && given(PORT_MASKS) {
            return clash("a mask of the index (spi)", "of ports");
        }
        if given(1 << SPI) && given(PORTS) {
            return clash("--hmark-spi", "--hmark-sport or --hmark-dport");
        }
        Ok(TargetSpec::Meta(MetaSpec::Hmark(Box::new(self.spec))))
    }
}
