//! How much was denied, hour by hour and day by day: bounded, and kept beside the rules' counters.
//!
//! Housekeeping shows the totals every second or so ([`Trend::see`]); what they have grown by goes to the
//! hour and the day that it is. A process that begins anew counts from zero: what an earlier one saw comes with the
//! state file ([`Trend::export`], [`Trend::import`]). Days that nobody saw are not there, rather than zero.

use serde::{Deserialize, Serialize};

use crate::compile::Piece;

/// What pieces of a state file with this are called.
pub const KIND: &str = "denied";
const VERSION: u16 = 1;
/// Hours that are kept: two weeks.
const HOURS: usize = 14 * 24;
/// Days that are kept: somewhat more than a year.
const DAYS: usize = 400;
/// An hour or a day: its beginning, and what was denied. Numbers of eight bytes.
const ROW: usize = 32;

/// Packets that were denied, since the process began or in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// By rules and chain policies that drop.
    pub dropped: u64,
    /// By rules that reject.
    pub rejected: u64,
    /// For any other reason: malformed, not tracked, no route, a full table.
    pub other: u64,
}

impl Denied {
    fn since(self, before: Self) -> Self {
        // A counter that went back was begun anew: what it shows is what there was since.
        let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            dropped: grown(self.dropped, before.dropped),
            rejected: grown(self.rejected, before.rejected),
            other: grown(self.other, before.other),
        }
    }

    fn add(&mut self, more: Self) {
        self.dropped = self.dropped.saturating_add(more.dropped);
        self.rejected = self.rejected.saturating_add(more.rejected);
        self.other = self.other.saturating_add(more.other);
    }

    /// By the policy.
    pub fn by_policy(&self) -> u64 {
        self.dropped.saturating_add(self.rejected)
    }
}

/// An hour or a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its beginning: seconds since 1970, UTC.
    pub from_s: u64,
    /// What was denied in it.
    #[serde(flatten)]
    pub denied: Denied,
}

/// What was denied, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trend {
    /// The oldest first, those that were seen.
    pub hours: Vec<Bucket>,
    /// The same.
    pub days: Vec<Bucket>,
    /// Totals as they were shown last.
    #[serde(skip)]
    last: Denied,
}

impl Trend {
    /// Takes in totals; `now_s` is since 1970.
    pub fn see(&mut self, totals: Denied, now_s: u64) {
        let grown = totals.since(self.last);
        self.last = totals;
        put(&mut self.hours, HOURS, now_s - now_s % 3_600, grown);
        put(&mut self.days, DAYS, now_s - now_s % 86_400, grown);
    }

    /// For the state file.
    pub fn export(&self) -> Piece {
        let mut bytes = (self.hours.len() as u64).to_le_bytes().to_vec();
        for Bucket { from_s, denied } in self.hours.iter().chain(&self.days) {
            for number in [*from_s, denied.dropped, denied.rejected, denied.other] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Piece { kind: KIND.to_owned(), name: String::new(), version: VERSION, bytes }
    }

    /// Goes on where an earlier process ended. False: that makes no sense.
    pub fn import(&mut self, piece: &Piece) -> bool {
        let numbers: Vec<u64> = piece.bytes.chunks_exact(8).map(number).collect();
        let Some((hours, rows)) = numbers.split_first() else { return false };
        let whole = piece.version == VERSION && (piece.bytes.len() - 8).is_multiple_of(ROW);
        let rows: Vec<Bucket> = rows.chunks_exact(4).map(bucket).collect();
        let Some((hours, days)) =
            usize::try_from(*hours).ok().and_then(|it| rows.split_at_checked(it))
        else {
            return false;
        };
        let sound = |rows: &[Bucket], most: usize| {
            rows.len() <= most && rows.windows(2).all(|pair| pair[0].from_s < pair[1].from_s)
        };
        if !whole || !sound(hours, HOURS) || !sound(days, DAYS) {
            return false;
        }
        (self.hours, self.days) = (hours.to_vec(), days.to_vec());
        true
    }
}

/// Adds to a span. A clock that was set back adds to the newest one.
fn put(rows: &mut Vec<Bucket>, most: usize, from_s: u64, grown: Denied) {
    match rows.last_mut() {
        Some(last) if last.from_s >= from_s => last.denied.add(grown),
        _ => {
            if rows.len() >= most {
                rows.drain(..=rows.len() - most);
            }
            rows.push(Bucket { from_s, denied: grown });
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole.copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

fn bucket(numbers: &[u64]) -> Bucket {
    let denied = Denied { dropped: numbers[1], rejected: numbers[2], other: numbers[3] };
    Bucket { from_s: numbers[0], denied }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(dropped: u64) -> Denied {
        Denied { dropped, ..Denied::default() }
    }

    #[test]
    fn hours_and_days_take_what_totals_have_grown_by() {
        let mut trend = Trend::default();
        trend.see(dropped(5), 100);
        trend.see(dropped(9), 3_599);
        trend.see(dropped(10), 3_600);
        // The clock was set back.
        trend.see(dropped(12), 50);
        let hours: Vec<_> = trend.hours.iter().map(|it| (it.from_s, it.denied.dropped)).collect();
        assert_eq!(hours, [(0, 9), (3_600, 3)]);
        assert_eq!(trend.days.len(), 1);
        assert_eq!(trend.days[0].denied.dropped, 12);
    }

    #[test]
    fn a_restart_goes_on_and_counts_nothing_twice() {
        let mut before = Trend::default();
        before.see(dropped(7), 10);
        let mut after = Trend::default();
        assert!(after.import(&before.export()));
        after.see(dropped(2), 20);
        assert_eq!(after.hours[0].denied.dropped, 9);
        // The same counters that began anew within a process.
        after.see(dropped(1), 30);
        assert_eq!(after.hours[0].denied.dropped, 10);
    }

    #[test]
    fn there_are_bounds() {
        let mut trend = Trend::default();
        for hour in 0..(24 * 500) {
            trend.see(dropped(hour), hour * 3_600);
        }
        assert_eq!((trend.hours.len(), trend.days.len()), (HOURS, DAYS));
        assert_eq!(trend.hours.last().map(|it| it.from_s), Some((24 * 500 - 1) * 3_600));
        assert!(Trend::default().import(&trend.export()));
    }

    #[test]
    fn what_makes_no_sense_is_left() {
        let mut trend = Trend::default();
        trend.see(dropped(1), 10);
        let whole = trend.export();
        let cases = [
            Piece { version: 9, ..whole.clone() },
            Piece { bytes: Vec::new(), ..whole.clone() },
            Piece { bytes: whole.bytes[..whole.bytes.len() - 3].to_vec(), ..whole.clone() },
            Piece {
                bytes: [&u64::MAX.to_le_bytes()[..], &whole.bytes[8..]].concat(),
                ..whole.clone()
            },
            Piece { bytes: [&whole.bytes[..], &whole.bytes[8..]].concat(), ..whole },
        ];
        for piece in cases {
            let mut other = Trend::default();
            let taken = other.import(&piece);
            assert!(!taken || other.days.len() == 3, "{piece:?}");
        }
    }
}
