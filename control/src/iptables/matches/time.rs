//! `-m time`.

use dataplane::policy::Match;
use dataplane::policy::measure::time::{ALL_MONTHDAYS, ALL_WEEKDAYS, DAY_S, LAST_SECOND};
use dataplane::policy::measure::{MeasureMatch, TimeMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
};
use crate::model::{MatchBody, Rule, Span};

const DATE_START: u8 = 0;
const DATE_STOP: u8 = 1;
const TIME_START: u8 = 2;
const TIME_STOP: u8 = 3;
const MONTHDAYS: u8 = 4;
const WEEKDAYS: u8 = 5;
const KERNEL: u8 = 6;
const UTC: u8 = 7;
const CONTIGUOUS: u8 = 8;
const OPTIONS: &[Opt] = &[
    plain("datestart", DATE_START),
    plain("datestop", DATE_STOP),
    plain("timestart", TIME_START),
    plain("timestop", TIME_STOP),
    flag("contiguous", CONTIGUOUS),
    negatable("weekdays", WEEKDAYS),
    negatable("monthdays", MONTHDAYS),
    flag("kerneltz", KERNEL).excluding(bit(UTC)),
    flag("localtz", KERNEL).excluding(bit(UTC)),
    flag("utc", UTC).excluding(bit(KERNEL)),
];

/// The last second that the tools give a date that is not written.
const FOREVER_S: u32 = i32::MAX as u32;

/// Names of the weekdays, Monday first.
pub(crate) const DAY_NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

pub(super) struct Time(TimeMatch);

impl Default for Time {
    fn default() -> Self {
        Self(TimeMatch {
            date_start_s: 0,
            date_stop_s: FOREVER_S,
            day_start_s: 0,
            day_stop_s: LAST_SECOND,
            monthdays: ALL_MONTHDAYS,
            weekdays: ALL_WEEKDAYS,
            contiguous: false,
            kernel_tz: false,
        })
    }
}

impl Module for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let time = &mut self.0;
        match id {
            DATE_START => time.date_start_s = date(operand)?,
            DATE_STOP => time.date_stop_s = date(operand)?,
            TIME_START => time.day_start_s = of_day(operand)?,
            TIME_STOP => time.day_stop_s = of_day(operand)?,
            MONTHDAYS => {
                let days = days(operand, monthday)?;
                time.monthdays = if operand.negated { !days & ALL_MONTHDAYS } else { days };
            }
            WEEKDAYS => {
                let days = days(operand, weekday)? as u8;
                time.weekdays = if operand.negated { !days & ALL_WEEKDAYS } else { days };
            }
            KERNEL => time.kernel_tz = true,
            CONTIGUOUS => time.contiguous = true,
            _ => {}
        }
        Ok(())
    }
}

/// Digits only, below the bound.
fn digits(text: &str, most: u32) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| plain && *number <= most)
}

/// `hh:mm[:ss]`.
fn of_day(operand: &Operand<'_>) -> Result<u32, Problem> {
    let parts: Vec<_> = operand.text.split(':').collect();
    let read = |at: usize, most| parts.get(at).map_or(Some(0), |text| digits(text, most));
    let found = match parts.len() {
        2 | 3 => read(0, 23).zip(read(1, 59)).zip(read(2, 59)),
        _ => None,
    };
    let ((hours, minutes), seconds) = found.ok_or_else(|| {
        operand
            .bad(format!("`{}' is no time of day", operand.text))
            .remedy("write HH:MM or HH:MM:SS, from 00:00:00 to 23:59:59")
    })?;
    Ok(hours * 3_600 + minutes * 60 + seconds)
}

/// `YYYY[-MM[-DD[Thh[:mm[:ss]]]]]`, in seconds since 1970.
fn date(operand: &Operand<'_>) -> Result<u32, Problem> {
    seconds_of(operand.text).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no date from 1970 to 2038", operand.text))
            .remedy("write YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss")
    })
}

fn seconds_of(text: &str) -> Option<u32> {
    let (date, time) = text.split_once('T').map_or((text, None), |(date, time)| (date, Some(time)));
    let mut date = date.split('-');
    let mut time = time.map(|time| time.split(':')).into_iter().flatten();
    let year = digits(date.next()?, 2038).filter(|year| *year >= 1970)?;
    let month = date.next().map_or(Some(1), |text| digits(text, 12))?;
    let day = date.next();
    let may_have_time = day.is_some();
    let month_days = days_of(year, month.checked_sub(1)?)?;
    let day = day.map_or(Some(1), |text| digits(text, month_days))?.checked_sub(1)?;
    let had_time = text.contains('T');
    let mut next = |most| time.next().map_or(Some(0), |text| digits(text, most));
    let (hours, minutes, seconds) = (next(23)?, next(59)?, next(59)?);
    if date.next().is_some() || time.next().is_some() || (had_time && !may_have_time) {
        return None;
    }
    let years = (1970..year).map(|year| 365 + u32::from(is_leap(year))).sum::<u32>();
    let months = (0..month - 1).filter_map(|month| days_of(year, month)).sum::<u32>();
    Some((years + months + day) * DAY_S + hours * 3_600 + minutes * 60 + seconds)
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days of a month, counted from 0.
fn days_of(year: u32, month: u32) -> Option<u32> {
    const DAYS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days = DAYS.get(month as usize)?;
    Some(days + u32::from(month == 1 && is_leap(year)))
}

/// The printed form of such seconds.
pub(crate) fn date_text(seconds: u32) -> String {
    let (mut day, of_day) = (seconds / DAY_S, seconds % DAY_S);
    let mut year = 1970;
    while day >= 365 + u32::from(is_leap(year)) {
        day -= 365 + u32::from(is_leap(year));
        year += 1;
    }
    let mut month = 0;
    while let Some(days) = days_of(year, month).filter(|days| day >= *days) {
        day -= days;
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}T{}", month + 1, day + 1, time_text(of_day))
}

/// The printed form of seconds since midnight.
pub(crate) fn time_text(seconds: u32) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A list of days as bits; a comma may stand at its end.
fn days(operand: &Operand<'_>, one: fn(&str) -> Option<u32>) -> Result<u32, Problem> {
    let list = operand.text.strip_suffix(',').unwrap_or(operand.text);
    list.split(',').try_fold(0, |days, text| {
        let day = one(text).ok_or_else(|| {
            operand
                .bad(format!("`{text}' is no such day"))
                .remedy("write days of the month (1-31), or of the week (Mon or 1), with commas")
        })?;
        Ok(days | 1 << day)
    })
}

fn monthday(text: &str) -> Option<u32> {
    digits(text, 31).filter(|day| *day > 0)
}

/// A number from 1, or a name that begins with the first two letters of a day's. Of what
/// follows them the tools look at nothing; a range they would take for its first day.
fn weekday(text: &str) -> Option<u32> {
    let named = DAY_NAMES.iter().position(|name| text.starts_with(&name[..2]));
    let whole = text.bytes().all(|b| b.is_ascii_alphabetic());
    let named = named.filter(|_| whole).map(|at| at as u32 + 1);
    named.or_else(|| digits(text, 7).filter(|day| *day > 0))
}

impl MatchModule for Time {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let time = self.0;
        if time.contiguous && time.day_start_s < time.day_stop_s {
            let message = "time: --contiguous is for times that go on after midnight";
            return Err(Problem::new(Code::ConflictingOptions, at, message)
                .remedy("leave it out, or let --timestop be before --timestart"));
        }
        if time.monthdays == 0 || time.weekdays == 0 {
            let message = "time: no day is left, so the rule never matches";
            return Err(Problem::new(Code::BadValue, at, message).remedy("leave the rule out"));
        }
        Ok(MatchBody::Plain(Match::Measure(MeasureMatch::Time(time))))
    }
}
