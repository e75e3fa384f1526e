//! `-m rateest`.

use dataplane::policy::measure::estimator::{RateCompare, RateTest};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, MeasureSpec, Rule, Span};

const FIRST: u8 = 0;
const SECOND: u8 = 1;
const BYTES_1: u8 = 2;
const BYTES_2: u8 = 3;
const PACKETS_1: u8 = 4;
const PACKETS_2: u8 = 5;
const DELTA: u8 = 6;
const LESS: u8 = 7;
const GREATER: u8 = 8;
const EQUAL: u8 = 9;

/// One of the three comparisons, which go without each other.
const fn comparison(name: &'static str, id: u8) -> Opt {
    let all = bit(LESS) | bit(GREATER) | bit(EQUAL);
    Opt { operand: false, ..negatable(name, id) }.excluding(all & !bit(id))
}

/// Without an operand: [`Rateest::set`] looks for one itself.
const OPTIONS: &[Opt] = &[
    plain("rateest", FIRST),
    plain("rateest1", FIRST),
    plain("rateest2", SECOND),
    flag("rateest-bps1", BYTES_1),
    flag("rateest-pps1", PACKETS_1),
    flag("rateest-bps2", BYTES_2),
    flag("rateest-bps", BYTES_2),
    flag("rateest-pps2", PACKETS_2),
    flag("rateest-pps", PACKETS_2),
    flag("rateest-delta", DELTA),
    comparison("rateest-lt", LESS),
    comparison("rateest-gt", GREATER),
    comparison("rateest-eq", EQUAL),
];

/// Longest name that the kernel keeps.
pub(crate) const MAX_NAME: usize = 15;

/// A number that was asked for, and given or not.
type Asked = Option<Option<u32>>;

#[derive(Default)]
pub(super) struct Rateest {
    first: Option<Box<str>>,
    second: Option<Box<str>>,
    bytes: [Asked; 2],
    packets: [Asked; 2],
    delta: bool,
    compare: Option<(RateCompare, bool)>,
}

impl Module for Rateest {
    fn name(&self) -> &'static str {
        "rateest"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            FIRST => self.first = Some(name(operand)?),
            SECOND => self.second = Some(name(operand)?),
            BYTES_1 => self.bytes[0] = Some(given(operand, context, byte_rate)?),
            BYTES_2 => self.bytes[1] = Some(given(operand, context, byte_rate)?),
            PACKETS_1 => self.packets[0] = Some(given(operand, context, packet_rate)?),
            PACKETS_2 => self.packets[1] = Some(given(operand, context, packet_rate)?),
            DELTA => self.delta = true,
            _ => {
                let compare = match id {
                    LESS => RateCompare::Less,
                    GREATER => RateCompare::Greater,
                    _ => RateCompare::Equal,
                };
                self.compare = Some((compare, operand.negated));
            }
        }
        Ok(())
    }
}

/// A name that fits the kernel's and that the printed form can be read back with.
pub(crate) fn name(operand: &Operand<'_>) -> Result<Box<str>, Problem> {
    let plain = operand.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if !plain || !(1..=MAX_NAME).contains(&operand.text.len()) {
        let message = format!("`{}' is no name of an estimator", operand.text);
        return Err(operand
            .bad(message)
            .remedy(format!("write 1 to {MAX_NAME} characters without blanks and quotes")));
    }
    Ok(operand.text.into())
}

/// The next word, unless it is an option.
fn given(
    operand: &Operand<'_>,
    context: &mut Context<'_>,
    read: fn(&str) -> Option<u32>,
) -> Result<Option<u32>, Problem> {
    let next = context.rest.get(context.used).filter(|word| !word.text.starts_with(['-', '!']));
    let Some(word) = next else { return Ok(None) };
    context.used += 1;
    let rate = read(&word.text).ok_or_else(|| {
        let operand = Operand { text: &word.text, span: word.span, negated: operand.negated };
        operand
            .bad(format!("`{}' is no rate", word.text))
            .remedy("write packets per second, or bits per second as in 2500kbit")
    })?;
    Ok(Some(rate))
}

fn packet_rate(text: &str) -> Option<u32> {
    value::number32(text)
}

/// Units of `--rateest-bps`, in bits.
const UNITS: [(&str, f64); 19] = [
    ("", 1.0),
    ("bit", 1.0),
    ("kbit", 1e3),
    ("kibit", 1024.0),
    ("mbit", 1e6),
    ("mibit", 1_048_576.0),
    ("gbit", 1e9),
    ("gibit", 1_073_741_824.0),
    ("tbit", 1e12),
    ("tibit", 1_099_511_627_776.0),
    ("bps", 8.0),
    ("kbps", 8e3),
    ("kibps", 8_192.0),
    ("mbps", 8e6),
    ("mibps", 8_388_608.0),
    ("gbps", 8e9),
    ("gibps", 8_589_934_592.0),
    ("tbps", 8e12),
    ("tibps", 8_796_093_022_208.0),
];

/// Bits per second to the bytes that the kernel stores, which must fit 32 bits.
fn byte_rate(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    let bytes = number.parse::<f64>().ok()? * scale / 8.0;
    (bytes < 4_294_967_296.0).then_some(bytes as u32)
}

impl Rateest {
    /// Both sides of what is compared, if it is.
    fn sides(&self, at: Span, asked: [Asked; 2], unit: &str) -> Result<Option<[u32; 2]>, Problem> {
        let [left, right] = asked;
        let wrong = |message: String| {
            Err(Problem::new(Code::ConflictingOptions, at, format!("rateest: {message}")))
        };
        let needs =
            |option: &str| Err(required(at, "rateest", &format!("a number after {option}")));
        match (self.delta, &self.second, left, right) {
            (_, _, None, None) => Ok(None),
            (false, _, Some(_), _) => wrong(format!("--rateest-{unit}1 needs --rateest-delta")),
            (false, None, None, Some(Some(rate))) => Ok(Some([0, rate])),
            (false, Some(_), None, Some(None)) => Ok(Some([0, 0])),
            (false, Some(_), None, Some(Some(_))) => {
                wrong(format!("the number after --rateest-{unit} is ignored beside --rateest2"))
            }
            (true, _, Some(Some(left)), Some(Some(right))) => Ok(Some([left, right])),
            (true, ..) => needs(&format!("--rateest-{unit}1 and --rateest-{unit}2")),
            (false, None, None, Some(None)) => needs(&format!("--rateest-{unit}")),
        }
    }
}

impl MatchModule for Rateest {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let first = self.first.clone().ok_or_else(|| required(at, "rateest", "--rateest"))?;
        let (compare, negated) = self
            .compare
            .ok_or_else(|| required(at, "rateest", "--rateest-lt, --rateest-gt or --rateest-eq"))?;
        let bytes = self.sides(at, self.bytes, "bps")?;
        let packets = self.sides(at, self.packets, "pps")?;
        match (bytes, packets) {
            (None, None) => return Err(required(at, "rateest", "--rateest-bps or --rateest-pps")),
            (Some(_), Some(_)) => {
                let message = "rateest: the tools print bits and packets in one match as what \
                               they do not read";
                return Err(Problem::new(Code::ConflictingOptions, at, message)
                    .remedy("load the module twice, once for each"));
            }
            _ => {}
        }
        let test = RateTest { delta: self.delta, negated, compare, bytes, packets };
        Ok(MatchBody::Measure(MeasureSpec::Rateest { test, first, second: self.second.clone() }))
    }
}
