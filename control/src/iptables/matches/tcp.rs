//! `-m tcp`.

use dataplane::policy::matches::{Match, Neg, Range, TcpMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const SPORT: u8 = 0;
const DPORT: u8 = 1;
const SYN: u8 = 2;
const FLAGS: u8 = 3;
const OPTION: u8 = 4;

const OPTIONS: &[Opt] = &[
    negatable("source-port", SPORT),
    negatable("sport", SPORT),
    negatable("destination-port", DPORT),
    negatable("dport", DPORT),
    Opt { name: "syn", id: SYN, operand: false, negatable: true, excludes: 1 << FLAGS },
    negatable("tcp-flags", FLAGS).excluding(1 << SYN),
    negatable("tcp-option", OPTION),
];

/// Flag names in printing order; `ALL` and `NONE` only when reading.
pub(crate) const FLAG_NAMES: &[(&str, u8)] =
    &[("FIN", 1), ("SYN", 2), ("RST", 4), ("PSH", 8), ("ACK", 16), ("URG", 32)];
const ALL_FLAGS: u8 = 0x3f;
/// What `--syn` means: of FIN, SYN, RST and ACK only SYN.
const SYN_MASK: u8 = 0x17;
const SYN_ONLY: u8 = 0x02;

#[derive(Default)]
pub(super) struct Tcp {
    tcp: TcpMatch,
}

impl Module for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        match id {
            SPORT => self.tcp.sport = ports(operand, context)?,
            DPORT => self.tcp.dport = ports(operand, context)?,
            SYN => self.tcp.flags = Some(Neg { negated, value: (SYN_MASK, SYN_ONLY) }),
            FLAGS => {
                let mask = flag_set(operand.text, operand.span)?;
                let Some(second) =
                    context.rest.first().filter(|word| !word.text.starts_with(['-', '!']))
                else {
                    return Err(Problem::new(
                        Code::MissingOption,
                        operand.span,
                        "--tcp-flags needs two operands: the flags to look at and those set",
                    ));
                };
                context.used = 1;
                let comp = flag_set(&second.text, second.span)?;
                let says_nothing = mask == 0 && comp == 0 && !negated;
                self.tcp.flags = (!says_nothing).then_some(Neg { negated, value: (mask, comp) });
            }
            _ => {
                let kind = value::number(operand.text, 1, 255).ok_or_else(|| {
                    operand.bad(format!("`{}' is no TCP option kind (1-255)", operand.text))
                })?;
                self.tcp.option = Some(Neg { negated, value: kind as u8 });
            }
        }
        Ok(())
    }
}

fn ports(operand: &Operand<'_>, context: &Context<'_>) -> Result<Option<Neg<Range<u16>>>, Problem> {
    let value = value::port_range(operand.text, Some("tcp"), context.names)
        .map_err(|part| super::bad_port(operand, part))?;
    if value.low > value.high {
        return Err(operand.bad(format!("port range {}:{} is reversed", value.low, value.high)));
    }
    Ok(super::unless_all_ports(Neg { negated: operand.negated, value }))
}

fn flag_set(text: &str, span: Span) -> Result<u8, Problem> {
    let mut set = 0;
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let named = FLAG_NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        set |= match named {
            Some((_, bit)) => *bit,
            None if word.eq_ignore_ascii_case("ALL") => ALL_FLAGS,
            None if word.eq_ignore_ascii_case("NONE") => 0,
            None => {
                let message = format!("`{word}' is no TCP flag");
                return Err(Problem::new(Code::BadValue, span, message)
                    .remedy("the flags are FIN SYN RST PSH ACK URG ALL NONE"));
            }
        };
    }
    Ok(set)
}

impl MatchModule for Tcp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "the tcp match", "tcp"));
        }
        Ok(MatchBody::Plain(Match::Tcp(self.tcp)))
    }
}
