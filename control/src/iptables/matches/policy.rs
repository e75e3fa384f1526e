//! `-m policy`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{IpsecDirection, IpsecElement, IpsecMatch, PlaceMatch};

use crate::diagnostics::Code;
use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const DIRECTION: u8 = 0;
const POLICY: u8 = 1;
const STRICT: u8 = 2;
const NEXT: u8 = 3;
const REQID: u8 = 4;
const SPI: u8 = 5;
const PROTO: u8 = 6;
const MODE: u8 = 7;
const SOURCE: u8 = 8;
const DESTINATION: u8 = 9;

const OPTIONS: &[Opt] = &[
    plain("dir", DIRECTION),
    plain("pol", POLICY),
    flag("strict", STRICT),
    flag("next", NEXT),
    negatable("reqid", REQID),
    negatable("spi", SPI),
    negatable("proto", PROTO),
    negatable("mode", MODE),
    negatable("tunnel-src", SOURCE),
    negatable("tunnel-dst", DESTINATION),
];

pub(super) struct Policy {
    direction: Option<IpsecDirection>,
    none: bool,
    strict: bool,
    /// Where `--strict` and `--next` stand.
    at: [Option<Span>; 2],
    elements: Vec<IpsecElement>,
}

impl Default for Policy {
    fn default() -> Self {
        let elements = vec![IpsecElement::default()];
        Self { direction: None, none: false, strict: false, at: [None; 2], elements }
    }
}

/// A value of the current element, which has each at most once.
fn once<T>(field: &mut Option<Neg<T>>, operand: &Operand<'_>, value: T) -> Result<(), Problem> {
    if field.is_some() {
        let message = "policy: the option was given for this element already";
        return Err(Problem::new(Code::RepeatedOption, operand.span, message)
            .remedy("put `--next' between the elements"));
    }
    *field = Some(Neg { negated: operand.negated, value });
    Ok(())
}

fn number(operand: &Operand<'_>) -> Result<u32, Problem> {
    value::number32(operand.text)
        .ok_or_else(|| operand.bad(format!("`{}' is no 32-bit number", operand.text)))
}

fn protocol(operand: &Operand<'_>, context: &Context<'_>) -> Result<u8, Problem> {
    let lower = operand.text.to_ascii_lowercase();
    let found = value::number8(&lower).or_else(|| context.names.protocol_number(&lower));
    found.filter(|number| [50, 51, 108].contains(number)).ok_or_else(|| {
        let message = format!("`{}' is no protocol of IPsec", operand.text);
        operand.bad(message).remedy("the protocols are ah, esp and ipcomp")
    })
}

impl Policy {
    fn element(
        &mut self,
        id: u8,
        operand: &Operand<'_>,
        context: &Context<'_>,
    ) -> Result<(), Problem> {
        let masked = || address::parse_masked(operand.text, context.family, operand.span);
        let Some(element) = self.elements.last_mut() else { return Ok(()) };
        match id {
            REQID => once(&mut element.reqid, operand, number(operand)?),
            SPI => once(&mut element.spi, operand, number(operand)?),
            PROTO => once(&mut element.proto, operand, protocol(operand, context)?),
            MODE => {
                let tunnel = match operand.text {
                    "tunnel" => true,
                    "transport" => false,
                    other => {
                        let problem = operand.bad(format!("`{other}' is no mode"));
                        return Err(problem.remedy("the modes are transport and tunnel"));
                    }
                };
                once(&mut element.tunnel, operand, tunnel)
            }
            SOURCE => once(&mut element.tunnel_src, operand, masked()?),
            _ => once(&mut element.tunnel_dst, operand, masked()?),
        }
    }
}

impl Module for Policy {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn may_repeat(&self, id: u8) -> bool {
        id >= NEXT
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            DIRECTION => {
                self.direction = Some(match operand.text {
                    "in" => IpsecDirection::In,
                    "out" => IpsecDirection::Out,
                    other => {
                        let problem = operand.bad(format!("`{other}' is no direction"));
                        return Err(problem.remedy("the directions are in and out"));
                    }
                });
            }
            POLICY => {
                self.none = match operand.text {
                    "none" => true,
                    "ipsec" => false,
                    other => {
                        let problem = operand.bad(format!("`{other}' is no policy"));
                        return Err(problem.remedy("the policies are none and ipsec"));
                    }
                };
                if !self.none {
                    let message = "no packet matches --pol ipsec here: what comes in by a port \
                        has not been decrypted yet, what leaves is encrypted already";
                    let warning = Problem::new(Code::NeverMatches, operand.span, message)
                        .remedy("filter what the host decrypts in the host, or match esp and ah");
                    context.warnings.push(warning);
                }
            }
            STRICT => (self.strict, self.at[0]) = (true, Some(operand.span)),
            NEXT if self.elements.len() == IpsecMatch::MAX_ELEMENTS => {
                return Err(Problem::new(
                    Code::TooLong,
                    operand.span,
                    format!("policy: at most {} elements", IpsecMatch::MAX_ELEMENTS),
                ));
            }
            NEXT => {
                self.at[1] = Some(operand.span);
                self.elements.push(IpsecElement::default());
            }
            _ => return self.element(id, operand, context),
        }
        Ok(())
    }
}

impl MatchModule for Policy {
    fn finish(&self, at: Span, seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let Some(direction) = self.direction else {
            return Err(required(at, "policy", "--dir in or --dir out"));
        };
        let missing = |at: Option<Span>, message: &str| {
            Err(Problem::new(Code::MissingOption, at.unwrap_or_default(), message))
        };
        if self.none && self.strict {
            let message = "policy: --strict compares transformations, --pol none wants none";
            let at = self.at[0].unwrap_or(at);
            return Err(Problem::new(Code::ConflictingOptions, at, message));
        }
        if seen & bit(NEXT) != 0 && !self.strict {
            return missing(self.at[1], "policy: --next needs --strict");
        }
        let mut elements = self.elements.clone();
        if self.none {
            // The tools forget them.
            elements.clear();
        } else if self.strict && elements.contains(&IpsecElement::default()) {
            let message = "policy: with --strict each element must compare something";
            return missing(self.at[0], message);
        }
        let tunnel =
            |element: &IpsecElement| element.tunnel.is_some_and(|mode| mode.value && !mode.negated);
        let ends =
            |element: &IpsecElement| element.tunnel_src.is_some() || element.tunnel_dst.is_some();
        if elements.iter().any(|element| ends(element) && !tunnel(element)) {
            let message = "policy: --tunnel-src and --tunnel-dst need --mode tunnel";
            return missing(Some(at), message);
        }
        elements.retain(|element| *element != IpsecElement::default());
        let (none, strict, elements) = (self.none, self.strict, elements.into());
        let found = IpsecMatch { direction, none, strict, elements };
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::Ipsec(Box::new(found)))))
    }
}
