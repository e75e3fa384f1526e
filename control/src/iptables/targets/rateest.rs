//! `-j RATEEST`.

use dataplane::policy::TableId;
use dataplane::policy::measure::estimator::EstimatorParameters;

use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::iptables::matches::estimator_name;
use crate::model::{MetaSpec, Rule, Span, TargetSpec};

const NAME: u8 = 0;
const INTERVAL: u8 = 1;
const OPTIONS: &[Opt] = &[
    plain("rateest-name", NAME),
    plain("rateest-interval", INTERVAL),
    plain("rateest-ewmalog", 2),
];

/// Length of the shortest interval in microseconds, and the number of those that there are.
const QUARTER_US: f64 = 250_000.0;
const INTERVALS: u8 = 6;

#[derive(Default)]
pub(super) struct Rateest {
    name: Option<Box<str>>,
    interval: Option<(f64, Span)>,
    average: Option<(f64, Span)>,
}

impl Module for Rateest {
    fn name(&self) -> &'static str {
        "RATEEST"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            NAME => self.name = Some(estimator_name(operand)?),
            INTERVAL => self.interval = Some((microseconds(operand)?, operand.span)),
            _ => self.average = Some((microseconds(operand)?, operand.span)),
        }
        Ok(())
    }
}

/// `NUMBER[s|ms|us]`, microseconds without a unit.
fn microseconds(operand: &Operand<'_>) -> Result<f64, Problem> {
    let digits =
        operand.text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = operand.text.split_at(digits);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" => Some(1e6),
        "ms" | "msec" | "msecs" => Some(1e3),
        "" | "us" | "usec" | "usecs" => Some(1.0),
        _ => None,
    };
    let value = number.parse::<f64>().ok().zip(scale).map(|(number, scale)| number * scale);
    value.filter(|value| *value > 0.0 && *value <= f64::from(u32::MAX)).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no time", operand.text))
            .remedy("write a number with s, ms or us, as in 250ms")
    })
}

impl TargetModule for Rateest {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let missing = |option| required(at, "RATEEST", option);
        let name = self.name.clone().ok_or_else(|| missing("--rateest-name"))?;
        let (interval, place) = self.interval.ok_or_else(|| missing("--rateest-interval"))?;
        let (average, average_place) = self.average.ok_or_else(|| missing("--rateest-ewmalog"))?;
        let bad = |at, message: &str, remedy: &str| {
            Problem::new(crate::diagnostics::Code::BadValue, at, message).remedy(remedy)
        };
        let interval_log = (0..INTERVALS)
            .find(|log| interval <= QUARTER_US * f64::from(1_u32 << log))
            .ok_or_else(|| bad(place, "the interval is too long", "write at most 8s"))?;
        // The longest average that the smoothing reaches within the given time.
        let reaches = |log: &u8| {
            let kept = 1.0 - 1.0 / f64::from(1_u32 << log);
            interval / -kept.ln() <= average
        };
        let ewma_log = (1..31).take_while(reaches).last().ok_or_else(|| {
            bad(average_place, "the average is too short", "write at least twice the interval")
        })?;
        if reaches(&30) {
            return Err(bad(average_place, "the average is too long", "write less"));
        }
        // Written with the interval that is kept; the tools print what is longer modulo 2^32.
        let written_us = 250_000_u64 << interval_log << ewma_log;
        if written_us > u64::from(u32::MAX) {
            let message = "no time that can be written stands for this average";
            return Err(bad(average_place, message, "write less"));
        }
        let parameters = EstimatorParameters { interval_log, ewma_log };
        Ok(TargetSpec::Meta(MetaSpec::Rateest { name, parameters }))
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::Family;

    use crate::iptables::{TableNames, parse, print};
    use crate::model::TargetSpec;

    fn target(interval: &str, average: &str) -> Option<(TargetSpec, String)> {
        let names = TableNames::well_known();
        let text = format!(
            "*filter\n-A INPUT -j RATEEST --rateest-name a --rateest-interval {interval} \
             --rateest-ewmalog {average}\nCOMMIT\n"
        );
        let parsed = parse(&text, "t", Family::V4, &names).ok()?;
        let rule = parsed.ruleset.tables[0].chains.iter().find_map(|chain| chain.rules.first())?;
        let printed = print::rule_text(rule, Family::V4, &names);
        Some((rule.target.clone(), printed))
    }

    /// What is printed means the same again; `500.0ms` and `8192.0s` would be refused.
    #[test]
    fn what_is_printed_reads_back() {
        let intervals = ["1", "200ms", "250ms", "260ms", "300ms", "1s", "4.1s", "8s"];
        let averages = ["300ms", "550ms", "1s", "17s", "3000s", "4096s", "4270s", "4294s"];
        let mut taken = 0;
        for interval in intervals {
            for average in averages {
                let Some((made, printed)) = target(interval, average) else { continue };
                let words: Vec<&str> = printed.split(' ').collect();
                let after = |name: &str| {
                    let at = words.iter().position(|word| *word == name).unwrap();
                    words[at + 1]
                };
                let again = target(after("--rateest-interval"), after("--rateest-ewmalog"));
                assert_eq!(again.map(|it| it.0), Some(made), "{interval} {average}: {printed}");
                taken += 1;
            }
        }
        assert!(taken > 30, "{taken}");
        assert!(target("260ms", "4270s").is_none());
    }
}
