//! `-m statistic`.

use dataplane::policy::Match;
use dataplane::policy::matches::Neg;
use dataplane::policy::measure::MeasureMatch;

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, MeasureSpec, Rule, Span};

const MODE: u8 = 0;
const PROBABILITY: u8 = 1;
const EVERY: u8 = 2;
const PACKET: u8 = 3;
const OPTIONS: &[Opt] = &[
    plain("mode", MODE),
    negatable("probability", PROBABILITY),
    negatable("every", EVERY),
    plain("packet", PACKET),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Random,
    Nth,
}

#[derive(Default)]
pub(super) struct Statistic {
    mode: Option<Mode>,
    probability: Option<Neg<u32>>,
    every: Option<Neg<u32>>,
    packet: Option<(u32, Span)>,
}

impl Module for Statistic {
    fn name(&self) -> &'static str {
        "statistic"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let number = |least| {
            let number = value::number(operand.text, least, u64::from(u32::MAX));
            number.map(|number| number as u32).ok_or_else(|| {
                operand.bad(format!("`{}' is no number from {least} to 4294967295", operand.text))
            })
        };
        match id {
            MODE => {
                self.mode = Some(match operand.text {
                    "random" => Mode::Random,
                    "nth" => Mode::Nth,
                    other => {
                        return Err(operand
                            .bad(format!("there is no mode `{other}'"))
                            .remedy("write `random' or `nth'"));
                    }
                });
            }
            PROBABILITY => {
                let value = probability(operand)?;
                self.probability = Some(Neg { negated: operand.negated, value });
            }
            EVERY => self.every = Some(Neg { negated: operand.negated, value: number(1)? }),
            _ => self.packet = Some((number(0)?, operand.span)),
        }
        Ok(())
    }
}

/// A fraction from 0 to 1 in 31 bits, rounded as the tools do.
fn probability(operand: &Operand<'_>) -> Result<u32, Problem> {
    let text = operand.text.trim_start();
    // What else a C library takes for a number nobody means.
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'-' | b'+'));
    let value = text.parse::<f64>().ok().filter(|value| plain && (0.0..=1.0).contains(value));
    let value = value.ok_or_else(|| {
        operand
            .bad(format!("`{}' is no probability", operand.text))
            .remedy("write a fraction from 0 to 1, as 0.25")
    })?;
    Ok((value * f64::from(MeasureMatch::CHANCES)).round() as u32)
}

impl MatchModule for Statistic {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let mode = self.mode.ok_or_else(|| required(at, "statistic", "--mode"))?;
        let idle = |option: &str| {
            let message = format!("statistic: --{option} says nothing in this mode");
            Problem::new(Code::ConflictingOptions, at, message)
                .remedy("leave it out, or change --mode")
        };
        match (mode, self.probability, self.every, self.packet) {
            (Mode::Random, None, ..) => Err(required(at, "statistic", "--probability")),
            (Mode::Random, Some(chance), None, None) => {
                Ok(MatchBody::Plain(Match::Measure(MeasureMatch::Random(chance))))
            }
            (Mode::Random, Some(_), ..) => Err(idle("every")),
            (Mode::Nth, None, Some(every), Some((packet, place))) => {
                if packet >= every.value {
                    let message = format!("--packet {packet} is never reached");
                    return Err(Problem::new(Code::BadValue, place, message)
                        .remedy(format!("write a number below {}", every.value)));
                }
                let Neg { negated, value: every } = every;
                Ok(MatchBody::Measure(MeasureSpec::Nth { negated, every, packet }))
            }
            (Mode::Nth, Some(_), Some(_), Some(_)) => Err(idle("probability")),
            (Mode::Nth, ..) => Err(required(at, "statistic", "--every and --packet")),
        }
    }
}
