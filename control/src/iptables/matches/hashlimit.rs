//! `-m hashlimit`.

use dataplane::packet::Family;
use dataplane::policy::tally::hashlimit::{MAX_ENTRIES, MAX_NAME};
use dataplane::policy::tally::rate::{SCALE, bytes_of_cost, cost_of_bytes};
use dataplane::policy::tally::{HashSettings, KeyParts, Rate, Unit};

use super::recent::file_name;
use crate::diagnostics::Code;
use crate::iptables::address::{parse_address, width};
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span, TallySpec};

const UPTO: u8 = 0;
const ABOVE: u8 = 1;
const BURST: u8 = 2;
const MODE: u8 = 3;
const NAME: u8 = 4;
const SIZE: u8 = 5;
const MOST: u8 = 6;
const EXPIRE: u8 = 7;
const GC: u8 = 8;
const SRC_MASK: u8 = 9;
const DST_MASK: u8 = 10;
const WINDOWS: u8 = 11;
const WINDOW: u8 = 12;

const OPTIONS: &[Opt] = &[
    negatable("hashlimit-upto", UPTO).excluding(bit(ABOVE)),
    negatable("hashlimit-above", ABOVE).excluding(bit(UPTO)),
    negatable("hashlimit", UPTO).excluding(bit(ABOVE)),
    plain("hashlimit-srcmask", SRC_MASK),
    plain("hashlimit-dstmask", DST_MASK),
    plain("hashlimit-burst", BURST),
    plain("hashlimit-htable-size", SIZE),
    plain("hashlimit-htable-max", MOST),
    plain("hashlimit-htable-gcinterval", GC),
    plain("hashlimit-htable-expire", EXPIRE),
    plain("hashlimit-mode", MODE),
    plain("hashlimit-name", NAME),
    flag("hashlimit-rate-match", WINDOWS),
    plain("hashlimit-rate-interval", WINDOW),
];

/// Highest burst of packets.
const MAX_BURST: u64 = 1_000_000;
/// Burst of packets when none is given.
pub(crate) const DEFAULT_BURST: u64 = 5;
/// `--hashlimit-htable-gcinterval` when none is given.
pub(crate) const DEFAULT_GC_MS: u32 = 1000;
/// Seconds after which entries that count bytes expire, without and with a burst.
pub(crate) const BYTE_EXPIRE_S: (u32, u32) = (15, 60);
/// Names of the parts of a key, in the order in which they are printed.
pub(crate) const KEY_PARTS: [&str; 4] = ["srcip", "srcport", "dstip", "dstport"];
/// Units of packets, with their length in seconds, longest first.
pub(crate) const RATE_UNITS: [(&str, u32); 4] =
    [("day", 86_400), ("hour", 3_600), ("min", 60), ("sec", 1)];
/// Suffixes of amounts of bytes, longest first.
pub(crate) const BYTE_UNITS: [(&str, u64); 3] = [("mb", 1 << 20), ("kb", 1 << 10), ("b", 1)];

/// A rate as written.
#[derive(Clone, Copy)]
struct Written {
    unit: Unit,
    avg: u64,
    /// Length of the unit that it is given by, in seconds.
    seconds: u32,
}

pub(super) struct HashLimit {
    above: bool,
    rate: Option<Written>,
    burst: Option<(u64, Span)>,
    name: Option<Box<str>>,
    expire_ms: Option<u32>,
    windows: bool,
    window_s: Option<u32>,
    settings: HashSettings,
}

impl HashLimit {
    pub(super) fn new(family: Family) -> Self {
        let full = width(family) as u8;
        let rate = Rate { unit: Unit::Packets, avg: 0, burst: DEFAULT_BURST, window_s: None };
        let settings = HashSettings {
            parts: KeyParts::default(),
            src_len: full,
            dst_len: full,
            rate,
            buckets: 0,
            most: 0,
            expire_ms: 0,
            gc_ms: DEFAULT_GC_MS,
        };
        let (rate, burst, name, expire_ms, window_s) = (None, None, None, None, None);
        Self { above: false, rate, burst, name, expire_ms, windows: false, window_s, settings }
    }
}

impl Module for HashLimit {
    fn name(&self) -> &'static str {
        "hashlimit"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            UPTO | ABOVE => {
                self.above = (id == ABOVE) != operand.negated;
                self.rate = Some(rate(operand)?);
            }
            BURST => self.burst = Some((burst(operand)?, operand.span)),
            MODE => self.settings.parts = parts(operand)?,
            NAME => self.name = Some(file_name(operand, "table", MAX_NAME)?),
            SIZE => self.settings.buckets = entries(operand, context)?,
            MOST => self.settings.most = entries(operand, context)?,
            EXPIRE => self.expire_ms = Some(at_least_one(operand, "milliseconds")?),
            GC => self.settings.gc_ms = at_least_one(operand, "milliseconds")?,
            SRC_MASK => self.settings.src_len = length(operand, context.family)?,
            DST_MASK => self.settings.dst_len = length(operand, context.family)?,
            WINDOWS => self.windows = true,
            _ => self.window_s = Some(at_least_one(operand, "seconds")?),
        }
        Ok(())
    }
}

/// `N[/UNIT]` of packets, or `N(b|kb|mb)/s`.
fn rate(operand: &Operand<'_>) -> Result<Written, Problem> {
    let bad = || {
        operand
            .bad(format!("`{}' is no rate", operand.text))
            .remedy("write NUMBER/second, /minute, /hour or /day, or NUMBERb/s, kb/s or mb/s")
    };
    let (amount, unit) = operand.text.split_once('/').unwrap_or((operand.text, "sec"));
    if let Some(bytes) =
        bytes(amount).filter(|_| unit.starts_with('s') && operand.text.contains('/'))
    {
        return byte_rate(operand, bytes);
    }
    let names: [(&str, u32); 4] = [("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400)];
    let unit = names.iter().find(|(name, _)| !unit.is_empty() && value::abbreviates(unit, name));
    let &(_, seconds) = unit.ok_or_else(bad)?;
    if amount.is_empty() || !amount.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let too_fast = || operand.bad(format!("rate `{}' is above 1000000/second", operand.text));
    let count: u64 = amount.parse().map_err(|_| too_fast())?;
    let avg = (SCALE * u64::from(seconds)).checked_div(count).ok_or_else(bad)?;
    if avg == 0 {
        return Err(too_fast());
    }
    Ok(Written { unit: Unit::Packets, avg, seconds })
}

fn byte_rate(operand: &Operand<'_>, bytes: u64) -> Result<Written, Problem> {
    let whole = u32::try_from(bytes).ok().filter(|&bytes| bytes >= 16);
    let bytes = whole.ok_or_else(|| {
        operand
            .bad(format!("`{}' is not stored as written", operand.text))
            .remedy("from 16b/s to 4095mb/s: the kernel counts in pieces of 16 bytes, in 32 bits")
    })?;
    Ok(Written { unit: Unit::Bytes, avg: cost_of_bytes(bytes), seconds: BYTE_EXPIRE_S.0 })
}

/// `N(b|kb|mb)`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let (_, factor) = BYTE_UNITS.iter().find(|(unit, _)| *unit == suffix)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn burst(operand: &Operand<'_>) -> Result<u64, Problem> {
    let read = bytes(operand.text).or_else(|| value::number(operand.text, 0, u64::MAX));
    read.filter(|&burst| burst > 0).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no burst", operand.text))
            .remedy(format!("from 1 to {MAX_BURST} packets, or NUMBERb, kb or mb for bytes"))
    })
}

fn parts(operand: &Operand<'_>) -> Result<KeyParts, Problem> {
    let mut parts = KeyParts::default();
    for part in operand.text.split(',').filter(|part| !part.is_empty()) {
        match part {
            "srcip" => parts.src = true,
            "srcport" => parts.sport = true,
            "dstip" => parts.dst = true,
            "dstport" => parts.dport = true,
            _ => {
                return Err(operand
                    .bad(format!("`{part}' is nothing that hashlimit tells apart"))
                    .remedy(format!("some of {}, by commas", KEY_PARTS.join(" "))));
            }
        }
    }
    Ok(parts)
}

fn entries(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<u32, Problem> {
    let bad = || operand.bad(format!("`{}' is no number of entries", operand.text));
    let entries = value::number32(operand.text).ok_or_else(bad)?;
    if entries > MAX_ENTRIES {
        let message = format!("the kernel makes {MAX_ENTRIES} of it");
        context.warnings.push(Problem::new(Code::BadValue, operand.span, message));
    }
    Ok(entries.min(MAX_ENTRIES))
}

fn at_least_one(operand: &Operand<'_>, what: &str) -> Result<u32, Problem> {
    let number = value::number(operand.text, 1, u64::from(u32::MAX));
    let bad = || operand.bad(format!("`{}' is no number of {what} (at least 1)", operand.text));
    number.map(|number| number as u32).ok_or_else(bad)
}

/// A mask's length, given as such or as a mask.
pub(super) fn length(operand: &Operand<'_>, family: Family) -> Result<u8, Problem> {
    let width = width(family);
    let bad = || {
        operand
            .bad(format!("`{}' is no mask", operand.text))
            .remedy(format!("write a length from 0 to {width} or a mask without holes"))
    };
    if let Some(length) = value::number(operand.text, 0, u64::from(width)) {
        return Ok(length as u8);
    }
    let mask = parse_address(operand.text, family).filter(|_| operand.text.contains(['.', ':']));
    let mask = mask.ok_or_else(bad)? << (128 - width);
    if mask.leading_ones() != mask.count_ones() {
        return Err(bad());
    }
    Ok(mask.leading_ones() as u8)
}

impl HashLimit {
    /// The rate with its burst, as it is stored.
    fn stored(&self, at: Span, written: Written) -> Result<Rate, Problem> {
        let window_s = self.windows.then(|| self.window_s.unwrap_or(1));
        let given = self.burst;
        let bad = |span, message: String| Problem::new(Code::BadValue, span, message);
        let burst = match (written.unit, given) {
            (Unit::Packets, None) => DEFAULT_BURST,
            (Unit::Packets, Some((burst, span))) if burst > MAX_BURST => {
                return Err(bad(span, format!("a burst has at most {MAX_BURST} packets")));
            }
            (Unit::Packets, Some((burst, _))) => burst,
            (Unit::Bytes, None) => 0,
            (Unit::Bytes, Some((burst, span))) => {
                let second = bytes_of_cost(written.avg);
                if burst < second {
                    let message = format!("the burst cannot be smaller than {second}b");
                    return Err(bad(span, message).remedy("give at least what a second allows"));
                }
                burst.div_ceil(second)
            }
        };
        if window_s.is_some() && written.unit == Unit::Packets && written.seconds != 1 {
            return Err(bad(
                at,
                "with --hashlimit-rate-match the tools forget the unit".to_owned(),
            )
            .remedy("write NUMBER/second, and the length in --hashlimit-rate-interval"));
        }
        let rate = Rate { unit: written.unit, avg: written.avg, burst, window_s };
        let refused = |error| bad(at, format!("hashlimit: {error}"));
        rate.check().map_err(|error| refused(error).remedy("try a lower burst or another unit"))?;
        Ok(rate)
    }
}

impl MatchModule for HashLimit {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let rates = "--hashlimit-upto or --hashlimit-above";
        let written = self.rate.ok_or_else(|| required(at, "hashlimit", rates))?;
        let name = self.name.clone();
        let name = name.ok_or_else(|| required(at, "hashlimit", "--hashlimit-name"))?;
        if self.window_s.is_some() && !self.windows {
            let needed = "--hashlimit-rate-match (for --hashlimit-rate-interval)";
            return Err(required(at, "hashlimit", needed));
        }
        let rate = self.stored(at, written)?;
        let seconds = match (rate.unit, rate.burst) {
            (Unit::Bytes, 1..) => BYTE_EXPIRE_S.1,
            _ => written.seconds,
        };
        let expire_ms = self.expire_ms.unwrap_or(seconds * 1000);
        let settings = HashSettings { rate, expire_ms, ..self.settings };
        Ok(MatchBody::Tally(TallySpec::Hash { name, above: self.above, settings }))
    }
}
