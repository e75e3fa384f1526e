//! `-j TCPMSS`.

use dataplane::packet::Family;
use dataplane::policy::TableId;
use dataplane::policy::matches::Match;
use dataplane::policy::target::{HeaderTarget, TcpMss};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, flag, has_protocol,
    needs_protocol, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span, TargetSpec};

const CLAMP: u8 = 1;

/// Both may be given; the last one holds.
const OPTIONS: &[Opt] = &[plain("set-mss", 0), flag("clamp-mss-to-pmtu", CLAMP)];

const SYN: u8 = 2;

#[derive(Default)]
pub(super) struct Tcpmss {
    mss: Option<TcpMss>,
}

impl Module for Tcpmss {
    fn name(&self) -> &'static str {
        "TCPMSS"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if id == CLAMP {
            self.mss = Some(TcpMss::ClampToPmtu);
            return Ok(());
        }
        let max = match context.family {
            Family::V4 => 65_515,
            Family::V6 => 65_495,
        };
        let mss = value::number(operand.text, 0, max).ok_or_else(|| {
            operand.bad(format!("`{}' is no number from 0 to {max}", operand.text))
        })?;
        self.mss = Some(TcpMss::Set(mss as u16));
        Ok(())
    }
}

/// Whether the rule only lets packets through that have SYN among flags that
/// must be set: what the kernel asks for.
fn asks_for_syn(rule: &Rule) -> bool {
    rule.matches.iter().any(|spec| match &spec.body {
        MatchBody::Plain(Match::Tcp(tcp)) => {
            tcp.flags.is_some_and(|flags| !flags.negated && flags.value.1 & SYN != 0)
        }
        _ => false,
    })
}

impl TargetModule for Tcpmss {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let options = "--set-mss or --clamp-mss-to-pmtu";
        let mss = self.mss.ok_or_else(|| required(at, "TCPMSS", options))?;
        if !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "TCPMSS", "tcp"));
        }
        if !asks_for_syn(rule) {
            let message = "TCPMSS works on SYN packets only, and this rule takes others too";
            return Err(Problem::new(Code::MissingOption, at, message)
                .remedy("add `--tcp-flags SYN,RST SYN' to the rule"));
        }
        Ok(TargetSpec::Header(HeaderTarget::TcpMss(mss)))
    }
}
