//! `-m bpf`.

use dataplane::policy::Match;
use dataplane::policy::payload::bpf::{BpfError, BpfInstruction};
use dataplane::policy::payload::{BpfMatch, PayloadMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, plain, required,
};
use crate::model::{MatchBody, Rule, Span};

const PINNED: u8 = 1;
const OPTIONS: &[Opt] = &[plain("bytecode", 0), plain("object-pinned", PINNED)];

#[derive(Default)]
pub(super) struct Bpf {
    found: Option<BpfMatch>,
}

impl Module for Bpf {
    fn name(&self) -> &'static str {
        "bpf"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        if id == PINNED {
            let message = "a pinned program runs in the kernel, on the kernel's packets";
            return Err(Problem::new(Code::UnsupportedMatch, operand.span, message)
                .remedy("write the filter as --bytecode \"$(nfbpf_compile RAW '...')\""));
        }
        let program = program(operand)?;
        let found = BpfMatch::new(program).map_err(|error| {
            let problem = operand.bad(format!("bpf: {error}"));
            match error {
                BpfError::Unknown { .. } => problem.remedy("compare bytes of the packet instead"),
                _ => problem,
            }
        })?;
        self.found = Some(found);
        Ok(())
    }
}

/// `COUNT,CODE JT JF K,...`, one comma more allowed.
fn program(operand: &Operand<'_>) -> Result<Box<[BpfInstruction]>, Problem> {
    let bad = |what: String| {
        operand
            .bad(format!("`{}' is no program: {what}", operand.text))
            .remedy("write COUNT,CODE JT JF K,... as nfbpf_compile does")
    };
    let mut parts = operand.text.split(',');
    let count = parts.next().and_then(decimal::<u16>);
    let count = count.ok_or_else(|| bad("it begins with how many instructions it has".into()))?;
    let mut parts: Vec<&str> = parts.collect();
    if parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    if parts.len() != usize::from(count) {
        return Err(bad(format!("it has {} instructions and says {count}", parts.len())));
    }
    let instruction = |(at, text): (usize, &str)| {
        let mut fields = text.split_ascii_whitespace();
        let mut next = || fields.next();
        let read = (next(), next(), next(), next(), next());
        let (Some(code), Some(jt), Some(jf), Some(k), None) = read else {
            return Err(bad(format!("instruction {at} is not four numbers")));
        };
        let read = (decimal(code), decimal(jt), decimal(jf), decimal(k));
        let (Some(code), Some(jt), Some(jf), Some(k)) = read else {
            return Err(bad(format!(
                "a number of instruction {at} cannot be read or is too large"
            )));
        };
        Ok(BpfInstruction { code, jt, jf, k })
    };
    parts.into_iter().enumerate().map(instruction).collect()
}

fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let text = text.trim_start();
    text.parse().ok()
}

impl MatchModule for Bpf {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let found = self.found.clone().ok_or_else(|| required(at, "bpf", "--bytecode"))?;
        Ok(MatchBody::Plain(Match::Payload(Box::new(PayloadMatch::Bpf(found)))))
    }
}
