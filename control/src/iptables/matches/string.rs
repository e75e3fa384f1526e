//! `-m string`.

use dataplane::policy::Match;
use dataplane::policy::payload::string::{Algorithm, MAX_PATTERN, StringSpec};
use dataplane::policy::payload::{PayloadMatch, StringMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const FROM: u8 = 0;
const TO: u8 = 1;
const ALGORITHM: u8 = 2;
const STRING: u8 = 3;
const HEX: u8 = 4;
const OPTIONS: &[Opt] = &[
    plain("from", FROM),
    plain("to", TO),
    plain("algo", ALGORITHM),
    negatable("string", STRING).excluding(bit(HEX)),
    negatable("hex-string", HEX).excluding(bit(STRING)),
    flag("icase", 5),
];

/// Names of `--algo`.
pub(crate) const ALGORITHMS: [(&str, Algorithm); 2] =
    [("bm", Algorithm::BoyerMoore), ("kmp", Algorithm::KnuthMorrisPratt)];

#[derive(Default)]
pub(super) struct StringModule {
    pattern: Option<(Box<[u8]>, bool)>,
    algorithm: Option<Algorithm>,
    from: Option<u16>,
    to: Option<u16>,
    ignore_case: bool,
}

impl Module for StringModule {
    fn name(&self) -> &'static str {
        "string"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            FROM => self.from = Some(offset(operand)?),
            TO => self.to = Some(offset(operand)?),
            ALGORITHM => {
                let found = ALGORITHMS.iter().find(|(name, _)| *name == operand.text);
                let (_, algorithm) = found.ok_or_else(|| {
                    operand
                        .bad(format!("there is no algorithm `{}'", operand.text))
                        .remedy("write `bm' or `kmp'")
                })?;
                self.algorithm = Some(*algorithm);
            }
            STRING | HEX => {
                let pattern = match id {
                    STRING => operand.text.as_bytes().into(),
                    _ => from_hex(operand)?,
                };
                if !(1..=MAX_PATTERN).contains(&pattern.len()) {
                    let message = format!("a pattern has 1 to {MAX_PATTERN} bytes");
                    return Err(operand.bad(message));
                }
                self.pattern = Some((pattern, operand.negated));
            }
            _ => self.ignore_case = true,
        }
        Ok(())
    }
}

fn offset(operand: &Operand<'_>) -> Result<u16, Problem> {
    let offset = value::number(operand.text, 0, 0xffff);
    offset
        .map(|offset| offset as u16)
        .ok_or_else(|| operand.bad(format!("`{}' is no offset (0-65535)", operand.text)))
}

/// Text with hex digits between bars, blanks between pairs; a backslash takes the next
/// character literally. As the tools read it, oddities included.
fn from_hex(operand: &Operand<'_>) -> Result<Box<[u8]>, Problem> {
    let bad = |what: &str| {
        let message = format!("`{}' is no hex string: {what}", operand.text);
        operand.bad(message).remedy("write bytes in hex between bars: 'GET |0d 0a|'")
    };
    let text = operand.text.as_bytes();
    let mut pattern = Vec::new();
    let (mut at, mut hex) = (0, false);
    while let Some(&byte) = text.get(at) {
        match (byte, hex) {
            (b'\\', false) => {
                let next = text.get(at + 1).ok_or_else(|| bad("nothing follows the backslash"))?;
                pattern.push(*next);
                at += 2;
            }
            (b'|', false) => {
                hex = true;
                at += 1;
                // A closing bar needs something to close.
                at += blanks(&text[at..]);
                if text.get(at) == Some(&b'|') {
                    return Err(bad("nothing stands between the bars"));
                }
            }
            (b'|', true) => {
                hex = false;
                at += 1;
            }
            (_, false) => {
                pattern.push(byte);
                at += 1;
            }
            (_, true) => {
                let pair = text.get(at..at + 2).and_then(|pair| std::str::from_utf8(pair).ok());
                let digits = pair.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                pattern.push(value.ok_or_else(|| bad("hex digits come in pairs"))?);
                at += 2;
                at += blanks(&text[at..]);
            }
        }
    }
    if hex {
        return Err(bad("the last bar is not closed"));
    }
    Ok(pattern.into())
}

fn blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| **byte == b' ').count()
}

impl MatchModule for StringModule {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let algorithm = self.algorithm.ok_or_else(|| {
            required(at, "string", "--algo").remedy("write `--algo bm' or `--algo kmp'")
        })?;
        let (pattern, negated) = self
            .pattern
            .clone()
            .ok_or_else(|| required(at, "string", "--string or --hex-string"))?;
        let spec = StringSpec {
            pattern,
            negated,
            algorithm,
            ignore_case: self.ignore_case,
            from: self.from.unwrap_or(0),
            to: self.to.unwrap_or(u16::MAX),
        };
        let found = StringMatch::new(spec).map_err(|_| {
            Problem::new(Code::BadValue, at, "string: --from lies behind --to")
                .remedy("write the lower offset with --from")
        })?;
        Ok(MatchBody::Plain(Match::Payload(Box::new(PayloadMatch::String(found)))))
    }
}
