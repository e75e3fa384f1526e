//! `-m sctp`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::protocol::{ChunkFlags, ChunkScope, ProtocolMatch, SctpChunks, SctpMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::lexer::Word;
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const SPORT: u8 = 0;
const DPORT: u8 = 1;
const CHUNKS: u8 = 2;

const OPTIONS: &[Opt] = &[
    negatable("source-port", SPORT),
    negatable("sport", SPORT),
    negatable("destination-port", DPORT),
    negatable("dport", DPORT),
    negatable("chunk-types", CHUNKS),
];

/// Names of the first operand of `--chunk-types`.
pub(crate) const SCOPES: [(&str, ChunkScope); 3] =
    [("any", ChunkScope::Any), ("all", ChunkScope::All), ("only", ChunkScope::Only)];

/// Names and types of chunks by type, and the letters of their flags, the highest bit first.
pub(crate) const CHUNK_NAMES: &[(&str, u8, &str)] = &[
    ("DATA", 0, "----IUBE"),
    ("INIT", 1, NO_FLAGS),
    ("INIT_ACK", 2, NO_FLAGS),
    ("SACK", 3, NO_FLAGS),
    ("HEARTBEAT", 4, NO_FLAGS),
    ("HEARTBEAT_ACK", 5, NO_FLAGS),
    ("ABORT", 6, "-------T"),
    ("SHUTDOWN", 7, NO_FLAGS),
    ("SHUTDOWN_ACK", 8, NO_FLAGS),
    ("ERROR", 9, NO_FLAGS),
    ("COOKIE_ECHO", 10, NO_FLAGS),
    ("COOKIE_ACK", 11, NO_FLAGS),
    ("ECN_ECNE", 12, NO_FLAGS),
    ("ECN_CWR", 13, NO_FLAGS),
    ("SHUTDOWN_COMPLETE", 14, "-------T"),
    ("I_DATA", 64, FORGOTTEN),
    ("ASCONF_ACK", 128, NO_FLAGS),
    ("RE_CONFIG", 130, NO_FLAGS),
    ("PAD", 132, NO_FLAGS),
    ("FORWARD_TSN", 192, NO_FLAGS),
    ("ASCONF", 193, NO_FLAGS),
    ("I_FORWARD_TSN", 194, NO_FLAGS),
];
const NO_FLAGS: &str = "--------";
/// The tools take flags of this type, and forget them.
const FORGOTTEN: &str = "";

#[derive(Default)]
pub(super) struct Sctp {
    sctp: SctpMatch,
}

impl Module for Sctp {
    fn name(&self) -> &'static str {
        "sctp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if id == CHUNKS {
            let value = chunks(operand, context.rest.first())?;
            context.used = 1;
            self.sctp.chunks = Some(Neg { negated: operand.negated, value });
            return Ok(());
        }
        let value = value::port_range(operand.text, Some("sctp"), context.names)
            .map_err(|part| super::bad_port(operand, part))?;
        if value.low > value.high {
            return Err(operand.bad(format!("port range {}:{} is reversed", value.low, value.high)));
        }
        let ports = Some(Neg { negated: operand.negated, value });
        match id {
            SPORT => self.sctp.sport = ports,
            _ => self.sctp.dport = ports,
        }
        Ok(())
    }
}

fn chunks(operand: &Operand<'_>, second: Option<&Word<'_>>) -> Result<SctpChunks, Problem> {
    let scope = SCOPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(operand.text));
    let Some((_, scope)) = scope else {
        let message = format!("`{}' says not how many chunks", operand.text);
        return Err(operand.bad(message).remedy("write all, any or only, then the types"));
    };
    let Some(list) = second.filter(|word| !word.text.starts_with(['-', '!'])) else {
        return Err(Problem::new(
            Code::MissingOption,
            operand.span,
            "--chunk-types needs two operands: all, any or only, and the types",
        ));
    };
    let mut chunks = SctpChunks { scope: *scope, types: [0; 4], flags: Box::default() };
    if list.text.eq_ignore_ascii_case("ALL") {
        chunks.types = [u64::MAX; 4];
    } else if !list.text.eq_ignore_ascii_case("NONE") {
        let mut flags: Vec<ChunkFlags> = Vec::new();
        for part in list.text.split(',').filter(|part| !part.is_empty()) {
            let asked = chunk(part, list.span)?;
            chunks.types[usize::from(asked.kind >> 6)] |= 1 << (asked.kind & 63);
            match flags.iter_mut().find(|found| found.kind == asked.kind) {
                Some(found) => {
                    (found.mask, found.set) = (found.mask | asked.mask, found.set | asked.set);
                }
                None if asked.mask != 0 => flags.push(asked),
                None => {}
            }
        }
        flags.sort_by_key(|found| found.kind);
        chunks.flags = flags.into();
    }
    Ok(chunks)
}

/// `NAME` or `NAME:FLAGS`, a capital for a flag that is set and a small letter for one
/// that is not.
fn chunk(text: &str, span: Span) -> Result<ChunkFlags, Problem> {
    let (name, letters) = text.split_once(':').unwrap_or((text, ""));
    let found = CHUNK_NAMES.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
    let Some((name, kind, valid)) = found else {
        let problem = Problem::new(Code::BadValue, span, format!("`{name}' is no chunk type"));
        let names: Vec<&str> = CHUNK_NAMES.iter().map(|(name, _, _)| *name).collect();
        return Err(problem.remedy(format!("the types are {}", names.join(" "))));
    };
    let mut asked = ChunkFlags { kind: *kind, mask: 0, set: 0 };
    for letter in letters.chars() {
        let Some(place) = valid.find(letter.to_ascii_uppercase()) else {
            let message = format!("`{letter}' is no flag of {name} chunks");
            let problem = Problem::new(Code::BadValue, span, message);
            return Err(match valid.is_empty() {
                true => problem.remedy("the tools forget flags of this type: leave them out"),
                false => problem,
            });
        };
        let bit = 0x80 >> place;
        asked.mask |= bit;
        asked.set |= if letter.is_ascii_uppercase() { bit } else { 0 };
    }
    Ok(asked)
}

impl MatchModule for Sctp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 132) {
            return Err(needs_protocol(at, "the sctp match", "sctp"));
        }
        let sctp = ProtocolMatch::Sctp(Box::new(self.sctp.clone()));
        Ok(MatchBody::Plain(Match::Protocol(sctp)))
    }
}
