//! `-j CLASSIFY`, `-j IDLETIMER` and `-j TEE`.

use dataplane::packet::Family;
use dataplane::policy::TableId;

use crate::iptables::address;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, flag, plain, required,
};
use crate::iptables::value;
use crate::model::{MetaSpec, Rule, Span, TargetSpec};

const CLASS_OPTIONS: &[Opt] = &[plain("set-class", 0)];
const TIMER_OPTIONS: &[Opt] = &[plain("timeout", 0), plain("label", 1), flag("alarm", 2)];
const TEE_OPTIONS: &[Opt] = &[plain("gateway", 0), plain("oif", 1)];

/// Longest timer whose milliseconds the kernel can count, in seconds.
const TIMEOUT_MAX_S: u64 = i32::MAX as u64 / 1000 - 1;
/// Longest label in bytes.
const LABEL_MAX: usize = 27;
/// Labels that sysfs needs for itself.
const LABELS_TAKEN: [&str; 3] = ["power", "subsystem", "uevent"];
/// Longest interface name in bytes.
const INTERFACE_MAX: usize = 15;

#[derive(Default)]
pub(super) struct Classify {
    class: Option<u32>,
}

impl Module for Classify {
    fn name(&self) -> &'static str {
        "CLASSIFY"
    }

    fn options(&self) -> &'static [Opt] {
        CLASS_OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let half = |text: &str| {
            let digits = text.strip_prefix("0x").unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        let halves = operand.text.split_once(':').map(|(major, minor)| (half(major), half(minor)));
        let Some((Some(major), Some(minor))) = halves else {
            return Err(operand
                .bad(format!("`{}' is no class", operand.text))
                .remedy("write MAJOR:MINOR, both hexadecimal and at most ffff"));
        };
        self.class = Some(u32::from(major) << 16 | u32::from(minor));
        Ok(())
    }
}

impl TargetModule for Classify {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let class = self.class.ok_or_else(|| required(at, "CLASSIFY", "--set-class"))?;
        Ok(TargetSpec::Meta(MetaSpec::Classify(class)))
    }
}

#[derive(Default)]
pub(super) struct Timer {
    timeout_s: Option<u32>,
    label: Option<Box<str>>,
    alarm: bool,
}

impl Module for Timer {
    fn name(&self) -> &'static str {
        "IDLETIMER"
    }

    fn options(&self) -> &'static [Opt] {
        TIMER_OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            0 => {
                let seconds = value::number(operand.text, 1, TIMEOUT_MAX_S).ok_or_else(|| {
                    operand
                        .bad(format!("`{}' is no timeout", operand.text))
                        .remedy(format!("write seconds, from 1 to {TIMEOUT_MAX_S}"))
                })?;
                self.timeout_s = Some(seconds as u32);
            }
            1 => self.label = Some(label(operand)?),
            _ => self.alarm = true,
        }
        Ok(())
    }
}

/// The tools cut longer labels, and print blanks so that they cannot be read again.
fn label(operand: &Operand<'_>) -> Result<Box<str>, Problem> {
    let text = operand.text;
    let odd = |b: u8| !b.is_ascii_graphic() || matches!(b, b'/' | b'"' | b'\'' | b'\\');
    if text.is_empty() || text.len() > LABEL_MAX || text.bytes().any(odd) {
        return Err(operand
            .bad(format!("`{text}' is no label"))
            .remedy(format!("write 1 to {LABEL_MAX} letters, digits or signs but / and quotes")));
    }
    if LABELS_TAKEN.contains(&text) || text == "." || text == ".." {
        return Err(operand.bad(format!("the kernel cannot have a timer called `{text}'")));
    }
    Ok(text.into())
}

impl TargetModule for Timer {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let (Some(timeout_s), Some(label)) = (self.timeout_s, self.label.clone()) else {
            return Err(required(at, "IDLETIMER", "--timeout and --label"));
        };
        let alarm = self.alarm;
        Ok(TargetSpec::Meta(MetaSpec::IdleTimer { label, timeout_s, alarm }))
    }
}

#[derive(Default)]
pub(super) struct Tee {
    gateway: Option<u128>,
    output: Option<Box<str>>,
}

impl Module for Tee {
    fn name(&self) -> &'static str {
        "TEE"
    }

    fn options(&self) -> &'static [Opt] {
        TEE_OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let text = operand.text;
        if id == 0 {
            // IPv4 addresses are read as by inet_aton here, unlike in `-s`.
            let found = match context.family {
                Family::V4 => address::parse_aton(text).map(u128::from),
                Family::V6 => address::parse_address(text, Family::V6),
            };
            let address = found.ok_or_else(|| {
                operand
                    .bad(format!("`{text}' is no address"))
                    .remedy("write the gateway's address: names are not resolved")
            })?;
            if address == 0 {
                return Err(operand.bad("the gateway cannot be the address of nobody"));
            }
            self.gateway = Some(address);
        } else {
            let odd = |b: u8| !b.is_ascii_graphic() || matches!(b, b'/' | b'"' | b'\'' | b'\\');
            if text.is_empty() || text.len() > INTERFACE_MAX || text.bytes().any(odd) {
                return Err(operand
                    .bad(format!("`{text}' is no interface name"))
                    .remedy(format!("write at most {INTERFACE_MAX} characters")));
            }
            self.output = Some(text.into());
        }
        Ok(())
    }
}

impl TargetModule for Tee {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let gateway = self.gateway.ok_or_else(|| required(at, "TEE", "--gateway"))?;
        Ok(TargetSpec::Meta(MetaSpec::Tee { gateway, output: self.output.clone() }))
    }
}
