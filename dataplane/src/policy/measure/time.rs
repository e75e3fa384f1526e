//! `-m time`: dates, times of day, days of the month and of the week.

use crate::clock::Nanos;
use crate::policy::scene::Scene;

/// Seconds of a day.
pub const DAY_S: u32 = 86_400;
/// Last second of a day.
pub const LAST_SECOND: u32 = DAY_S - 1;
/// Bits 1 to 31.
pub const ALL_MONTHDAYS: u32 = !1;
/// Bits 1 (Monday) to 7 (Sunday).
pub const ALL_WEEKDAYS: u8 = !1;

/// `-m time`. Every bound is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeMatch {
    /// `--datestart`, in seconds since 1970.
    pub date_start_s: u32,
    /// `--datestop`, in seconds since 1970.
    pub date_stop_s: u32,
    /// `--timestart`, in seconds since midnight.
    pub day_start_s: u32,
    /// `--timestop`; before the start, it is on the next day.
    pub day_stop_s: u32,
    /// `--monthdays`: bits 1 to 31.
    pub monthdays: u32,
    /// `--weekdays`: bits 1 (Monday) to 7 (Sunday).
    pub weekdays: u8,
    /// `--contiguous`: what is after midnight belongs to the day before.
    pub contiguous: bool,
    /// `--kerneltz`: all of it in the kernel's time zone.
    pub kernel_tz: bool,
}

impl TimeMatch {
    /// Whether it holds at `now`.
    pub fn matches(&self, now: Nanos, scene: &Scene<'_>) -> bool {
        let west_s = if self.kernel_tz { i64::from(scene.minutes_west) * 60 } else { 0 };
        self.holds_at((now + scene.utc_offset).as_secs() as i64 - west_s)
    }

    /// Whether it holds so many seconds after 1970 began.
    fn holds_at(&self, stamp_s: i64) -> bool {
        if stamp_s < i64::from(self.date_start_s) || stamp_s > i64::from(self.date_stop_s) {
            return false;
        }
        let of_day = stamp_s.rem_euclid(i64::from(DAY_S)) as u32;
        let (begun, goes_on) = (of_day >= self.day_start_s, of_day <= self.day_stop_s);
        let over_midnight = self.day_start_s >= self.day_stop_s;
        let within = if over_midnight { begun || goes_on } else { begun && goes_on };
        if !within {
            return false;
        }
        let day_before = over_midnight && self.contiguous && goes_on;
        let day = stamp_s.div_euclid(i64::from(DAY_S)) - i64::from(day_before);
        self.weekdays >> weekday(day) & 1 != 0
            && (self.monthdays == ALL_MONTHDAYS || self.monthdays >> monthday(day) & 1 != 0)
    }
}

/// 1 (Monday) to 7 of a day since 1970 began, which was a Thursday.
fn weekday(day: i64) -> u32 {
    (day + 3).rem_euclid(7) as u32 + 1
}

/// Day of the month of a day since 1970 began.
fn monthday(day: i64) -> u32 {
    // Years from March on: the leap day is the last. 153 days are five months.
    let of_era = (day + 719_468).rem_euclid(146_097);
    let of_year = {
        let leap_days = of_era / 1_460 - of_era / 36_524 + of_era / 146_096;
        let year = (of_era - leap_days) / 365;
        of_era - (365 * year + year / 4 - year / 100)
    };
    let month = (5 * of_year + 2) / 153;
    (of_year - (153 * month + 2) / 5 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: TimeMatch = TimeMatch {
        date_start_s: 0,
        date_stop_s: u32::MAX,
        day_start_s: 0,
        day_stop_s: LAST_SECOND,
        monthdays: ALL_MONTHDAYS,
        weekdays: ALL_WEEKDAYS,
        contiguous: false,
        kernel_tz: false,
    };

    /// Sunday, 22 November 2026, 12:00:00.
    const NOON: i64 = 1_795_348_800;

    #[test]
    fn the_calendar_agrees_with_counting_days() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut day = 0;
        for year in 1970_i64..2107 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, &length) in lengths.iter().enumerate() {
                for of_month in 1..=length + u32::from(leap && month == 1) {
                    assert_eq!(monthday(day), of_month, "{year}-{}", month + 1);
                    day += 1;
                }
            }
        }
        assert_eq!((weekday(0), weekday(3), weekday(4)), (4, 7, 1));
        assert_eq!((weekday(NOON / 86_400), monthday(NOON / 86_400)), (7, 22));
    }

    #[test]
    fn both_ends_belong_to_it() {
        let dates = TimeMatch { date_start_s: 10, date_stop_s: 20, ..ALWAYS };
        assert_eq!([9, 10, 20, 21].map(|s| dates.holds_at(s)), [false, true, true, false]);
        let hours = TimeMatch { day_start_s: 10, day_stop_s: 20, ..ALWAYS };
        assert_eq!(
            [9, 10, 20, 21].map(|s| hours.holds_at(NOON + 43_200 + s)),
            [false, true, true, false]
        );
    }

    #[test]
    fn a_night_may_belong_to_the_day_it_begins_on() {
        let sunday = 1 << 7;
        let night = TimeMatch { day_start_s: 82_800, day_stop_s: 3_600, ..ALWAYS };
        let night = TimeMatch { weekdays: sunday, ..night };
        let midnight = NOON + 43_200;
        let at = |time: TimeMatch| {
            [-82_799, -3_600, 0, 3_600, 3_601].map(|s| time.holds_at(midnight + s))
        };
        assert_eq!(at(night), [false, true, false, false, false]);
        assert!(night.holds_at(NOON - 43_200), "Sunday's first hour");
        let contiguous = TimeMatch { contiguous: true, ..night };
        assert_eq!(at(contiguous), [false, true, true, true, false]);
        assert!(!contiguous.holds_at(NOON - 43_200), "is Saturday's last");
        let same = TimeMatch { day_start_s: 5, day_stop_s: 5, ..ALWAYS };
        assert!(same.holds_at(NOON), "a whole day");
    }

    #[test]
    fn the_kernels_zone_is_west_of_greenwich() {
        let hour = TimeMatch { day_start_s: 39_600, day_stop_s: 43_199, ..ALWAYS };
        let scene = Scene { minutes_west: 60, ..Scene::still() };
        let noon = Nanos::from_secs(NOON as u64);
        assert!(!hour.matches(noon, &scene));
        assert!(TimeMatch { kernel_tz: true, ..hour }.matches(noon, &scene));
    }
}
