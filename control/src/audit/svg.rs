//! Plots as inline SVG: numbers of ours and dates, and no text of anybody else.

use std::fmt::Write;

use super::Stages;
use super::trend::Bucket;
use crate::lint::Date;

const WIDTH: f64 = 1032.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 12.0;
/// Bars at most; more are joined.
const BARS: usize = 60;

/// One bar of a plot: a label and parts, from the bottom up.
struct Bar {
    label: String,
    parts: Vec<u64>,
}

/// The next number above that people like: 1, 2 or 5 with zeros.
fn ceiling(top: u64) -> u64 {
    let mut step = 1_u64;
    loop {
        for nice in [1, 2, 5] {
            let at = step.saturating_mul(nice);
            if at >= top {
                return at;
            }
        }
        step = step.saturating_mul(10);
    }
}

/// A number in few characters.
fn short(number: u64) -> String {
    match number {
        0..=9_999 => number.to_string(),
        10_000..=9_999_999 => format!("{}k", number / 1_000),
        10_000_000..=9_999_999_999 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

fn plot(title: &str, bars: &[Bar], classes: &[(&str, &str)]) -> String {
    let top = ceiling(bars.iter().map(|it| it.parts.iter().sum()).max().unwrap_or(0).max(1));
    let (inner, height) = (WIDTH - LEFT - 8.0, HEIGHT - BOTTOM - TOP);
    let mut out = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
    );
    for quarter in 0..=2_u64 {
        let y = TOP + height * (1.0 - quarter as f64 / 2.0);
        let value = short(top * quarter / 2);
        let x = LEFT - 8.0;
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"axis\" x=\"{x:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            WIDTH - 8.0,
            y + 4.0
        );
    }
    let step = inner / bars.len().max(1) as f64;
    let every = bars.len().div_ceil(8).max(1);
    for (at, bar) in bars.iter().enumerate() {
        let x = LEFT + step * at as f64;
        let mut y = TOP + height;
        let _ = write!(out, "<g><title>{}: {}</title>", bar.label, bar.parts.iter().sum::<u64>());
        for (part, (class, _)) in bar.parts.iter().zip(classes) {
            let tall = height * *part as f64 / top as f64;
            y -= tall;
            let width = (step - 2.0).clamp(1.0, 42.0);
            let x = x + (step - width) / 2.0;
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{tall:.1}\"/>"
            );
        }
        out.push_str("</g>");
        if at % every == 0 {
            let (x, y) = (x + step / 2.0, HEIGHT - 8.0);
            let label = &bar.label;
            let _ = write!(
                out,
                "<text class=\"axis\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
            );
        }
    }
    out.push_str("</svg><p class=\"legend\">");
    for (class, name) in classes {
        let _ = write!(out, "<span><i class=\"key {class}\"></i>{name}</span>");
    }
    out + "</p>"
}

/// Month and day.
fn day(seconds: u64) -> String {
    Date::of_unix(seconds).to_string().get(5..).unwrap_or_default().to_owned()
}

/// Denials by hour or by day.
pub(super) fn denials(title: &str, rows: &[Bucket], hourly: bool) -> String {
    let joined = rows.len().div_ceil(BARS).max(1);
    let bars = rows.chunks(joined).map(|rows| {
        let sum = |of: fn(&Bucket) -> u64| rows.iter().map(of).sum();
        let from = rows.first().map_or(0, |it| it.from_s);
        let label = match hourly {
            true => format!("{} {:02}h", day(from), from / 3_600 % 24),
            false => day(from),
        };
        Bar {
            label,
            parts: vec![
                sum(|it| it.denied.dropped),
                sum(|it| it.denied.rejected),
                sum(|it| it.denied.other),
            ],
        }
    });
    let bars: Vec<Bar> = bars.collect();
    plot(
        title,
        &bars,
        &[
            ("c1", "dropped by the policy"),
            ("c2", "rejected by the policy"),
            ("c3", "refused for other reasons"),
        ],
    )
}

/// Changes by week. Labels are dates of ours.
pub(super) fn weeks(weeks: &[(String, u64)]) -> String {
    let bars = weeks.iter().map(|(date, count)| Bar {
        label: date.get(5..).unwrap_or_default().to_owned(),
        parts: vec![*count],
    });
    let bars: Vec<Bar> = bars.collect();
    plot("Policies put in force, by week", &bars, &[("c1", "policies put in force")])
}

/// How open services are, as one line of blocks.
pub(super) fn stages(stages: Stages) -> String {
    let parts = [
        ("c3", "from any address", stages.anyone),
        ("c2", "from named networks", stages.networks),
        ("c1", "under a condition (a list, a limit)", stages.conditional),
    ];
    let all = (stages.anyone + stages.networks + stages.conditional).max(1);
    let mut out =
        "<svg class=\"plot stages\" viewBox=\"0 0 1032 44\" role=\"img\" aria-label=\"Reachable \
                   services by stage\">"
            .to_owned();
    let mut x = 0.0;
    for (class, _, count) in parts {
        let width = WIDTH * count as f64 / all as f64;
        let _ = write!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"4\" width=\"{width:.1}\" height=\"36\"/>"
        );
        if width > 24.0 {
            let middle = x + width / 2.0;
            let _ = write!(
                out,
                "<text class=\"on\" x=\"{middle:.1}\" y=\"27\" text-anchor=\"middle\">{count}</text>"
            );
        }
        x += width;
    }
    out.push_str("</svg><p class=\"legend\">");
    for (class, name, count) in parts {
        let _ = write!(out, "<span><i class=\"key {class}\"></i>{name}: {count}</span>");
    }
    out + "</p>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_numbers_that_people_like() {
        assert_eq!([0, 1, 3, 11, 51, 1_001].map(ceiling), [1, 1, 5, 20, 100, 2_000]);
        assert_eq!(short(u64::MAX / 2), "9223372036G");
    }

    #[test]
    fn plots_of_nothing_and_of_much_are_bounded() {
        assert!(denials("none", &[], true).contains("</svg>"));
        let rows: Vec<Bucket> =
            (0..400).map(|at| Bucket { from_s: at * 86_400, ..Bucket::default() }).collect();
        assert!(denials("many", &rows, false).matches("<g>").count() <= BARS);
        assert!(weeks(&[("2026-11-16".to_owned(), 3)]).contains("11-16"));
        assert!(
            stages(Stages { anyone: 1, networks: 2, conditional: 0 }).contains("any address: 1")
        );
    }
}
