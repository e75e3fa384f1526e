//! The plots: which there are, what they show, and drawing them as SVG.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::budgets::Spread;
use super::lines::{Line, Lines};
use crate::classify::goals::geometric_mean;

type Error = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (840, 420);
const FONT: &str = "sans-serif";

/// A named curve: x and y, by x.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What a plot shows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Curves over a logarithmic axis.
    Curves { x: &'static str, curves: Vec<Curve> },
    /// Groups of bars: one bar for each subject.
    Bars { groups: Vec<(String, Vec<(String, f64)>)> },
}

/// A plot of the page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    /// Of the file.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    y: &'static str,
    content: Content,
}

/// Every plot for which there are lines.
pub(super) fn all(lines: &Lines) -> Vec<Plot> {
    let curves = |name, title, x, curves: Vec<Curve>| Plot {
        name,
        title,
        y: "ns",
        content: Content::Curves { x, curves },
    };
    let mut plots = vec![
        curves(
            "classifier",
            "First match against rules (geometric mean over sets)",
            "rules",
            classifier(lines),
        ),
        curves("rules", "Cost of a packet against rules", "rules", by_rules(lines)),
        curves("flows", "Cost of a packet against flows", "flows", by_flows(lines)),
        curves("sets", "Lookup in a set against its size", "elements", by_elements(lines)),
    ];
    let groups = throughput(lines);
    plots.push(Plot {
        name: "throughput",
        title: "Packets a second on veths, by rules",
        y: "packets a second",
        content: Content::Bars { groups },
    });
    plots.retain(|plot| match &plot.content {
        Content::Curves { curves, .. } => !curves.is_empty(),
        Content::Bars { groups } => !groups.is_empty(),
    });
    plots
}

/// Curves from (name, x, y); of several values the median.
fn curves(values: impl Iterator<Item = (String, f64, f64)>) -> Vec<Curve> {
    let mut by: BTreeMap<String, BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
    for (name, x, y) in values {
        by.entry(name).or_default().entry(x as u64).or_default().push(y);
    }
    by.into_iter()
        .map(|(name, points)| Curve {
            name,
            points: points
                .into_iter()
                .filter_map(|(x, values)| Some((x as f64, Spread::of(values)?.median)))
                .collect(),
        })
        .collect()
}

fn classifier(lines: &Lines) -> Vec<Curve> {
    let mut sets: BTreeMap<(String, usize), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for line in lines.classified() {
        if line.family == "v4" && line.trace == "corners" {
            let size = line.size();
            let of = sets.entry((line.contender, size)).or_default();
            of.entry(line.kind).or_default().extend(line.rounds_ns);
        }
    }
    curves(sets.into_iter().map(|((contender, size), kinds)| {
        let medians = kinds.into_values().filter_map(Spread::of).map(|spread| spread.median);
        (contender, size as f64, geometric_mean(medians))
    }))
}

/// Timed points of the pipeline: one worker, 64 bytes, IPv4, the default switches.
fn points(lines: &Lines) -> impl Iterator<Item = &Line> {
    lines.of("pipeline").filter(|line| {
        line.if_any("workers", 1)
            && line.if_any("size", 64)
            && line.if_any("family", "v4")
            && line.if_any("plans", true)
    })
}

fn by_rules(lines: &Lines) -> Vec<Curve> {
    let mut all =
        curves(points(lines).filter(|line| line.text("set").is_empty()).filter_map(|line| {
            let name = match (line.text("scenario"), line.text("nat")) {
                (scenario @ ("first" | "stateless" | "established"), "") => scenario.to_owned(),
                (scenario @ "first", nat) => format!("{scenario}, {nat}"),
                _ => return None,
            };
            let few = line.number("flows").is_some_and(|flows| flows <= 10_000.0);
            let rules = line.number("rules").filter(|&rules| few && rules > 0.0)?;
            Some((name, rules, line.number("ns.median")?))
        }));
    all.retain(|curve| curve.points.len() > 1);
    all
}

fn by_flows(lines: &Lines) -> Vec<Curve> {
    let packets = points(lines)
        .filter(|line| ["plain", "established", "nat"].contains(&line.text("scenario")))
        .filter_map(|line| {
            let name = line.text("scenario").to_owned();
            Some((name, line.number("flows")?, line.number("ns.median")?))
        });
    let connections = lines.of("conntrack").filter_map(|line| {
        let single = line.if_any("threads", 1) && ["hit", "insert"].contains(&line.text("op"));
        let name = format!("connection table: {}", line.text("op"));
        single.then_some((name, line.number("entries")?, line.number("ns_per_op")?))
    });
    curves(packets.chain(connections))
}

fn by_elements(lines: &Lines) -> Vec<Curve> {
    let ours = || lines.of("sets").filter(|line| line.has("side", "portcullis"));
    let of = |what: &'static str, field: &'static str| {
        ours().filter_map(move |line| {
            let name = format!("{}: {what}", line.text("type"));
            Some((name, line.number("elements")?, line.number(field)?))
        })
    };
    curves(of("there", "hit_ns").chain(of("not there", "miss_ns")))
}

fn throughput(lines: &Lines) -> Vec<(String, Vec<(String, f64)>)> {
    let mut groups: BTreeMap<(bool, u64), Vec<(String, f64)>> = BTreeMap::new();
    for line in lines.of("compare").filter(|line| line.has("what", "row")) {
        let (Some(rules), Some(rate)) = (line.number("rules"), line.number("received_pps")) else {
            continue;
        };
        let group = groups.entry((line.has("conntrack", true), rules as u64)).or_default();
        group.push((line.text("subject").to_owned(), rate));
    }
    let named = |((conntrack, rules), mut bars): ((bool, u64), Vec<(String, f64)>)| {
        bars.sort_by(|a, b| a.0.cmp(&b.0));
        (format!("{rules}{}", if conntrack { " ct" } else { "" }), bars)
    };
    groups.into_iter().map(named).collect()
}

impl Plot {
    /// The SVG's text.
    ///
    /// # Errors
    /// None that a string could give; the drawing library's own.
    pub(super) fn draw(&self) -> Result<String, Error> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            match &self.content {
                Content::Curves { x, curves } => self.draw_curves(&area, x, curves)?,
                Content::Bars { groups } => self.draw_bars(&area, groups)?,
            }
            area.present()?;
        }
        Ok(svg)
    }

    fn draw_curves(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        x: &str,
        curves: &[Curve],
    ) -> Result<(), Error> {
        let all = || curves.iter().flat_map(|curve| &curve.points);
        let low = all().map(|point| point.0).fold(f64::INFINITY, f64::min).max(1.0);
        let high = all().map(|point| point.0).fold(10.0, f64::max);
        let top = all().map(|point| point.1).fold(1.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d((low * 0.9..high * 1.1).log_scale(), 0.0..top)?;
        chart.configure_mesh().x_desc(x).y_desc(self.y).x_label_formatter(&|x| short(*x)).draw()?;
        for (index, curve) in curves.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
            chart.draw_series(line)?.label(&curve.name).legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(2))
            });
            let dots = curve.points.iter().map(|&point| Circle::new(point, 3, color.filled()));
            chart.draw_series(dots)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        Ok(())
    }

    fn draw_bars(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        groups: &[(String, Vec<(String, f64)>)],
    ) -> Result<(), Error> {
        let mut subjects: Vec<&str> =
            groups.iter().flat_map(|(_, bars)| bars.iter().map(|bar| bar.0.as_str())).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let top = groups.iter().flat_map(|(_, bars)| bars).map(|bar| bar.1).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..groups.len() as f64, 0.0..top * 1.35)?;
        let middle = |x: &f64| {
            let group = groups.get(*x as usize).filter(|_| (x.fract() - 0.5).abs() < 1e-6);
            group.map_or_else(String::new, |(name, _)| name.clone())
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(groups.len() * 2 + 1)
            .x_label_formatter(&middle)
            .x_desc("rules (ct: established connections accepted first)")
            .y_desc(self.y)
            .y_label_formatter(&|y| short(*y))
            .draw()?;
        let width = 0.84 / subjects.len() as f64;
        for (index, subject) in subjects.iter().enumerate() {
            let color = Palette99::pick(index).to_rgba();
            let bars = groups.iter().enumerate().filter_map(|(group, (_, bars))| {
                let rate = bars.iter().find(|bar| bar.0 == *subject)?.1;
                let left = group as f64 + 0.08 + index as f64 * width;
                Some(Rectangle::new([(left, 0.0), (left + width * 0.9, rate)], color.filled()))
            });
            chart.draw_series(bars)?.label(*subject).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled())
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        Ok(())
    }
}

/// 1000 as 1k, 1000000 as 1M.
fn short(value: f64) -> String {
    match value {
        it if it >= 1e6 => format!("{}M", (it / 1e5).round() / 10.0),
        it if it >= 1e3 => format!("{}k", (it / 1e2).round() / 10.0),
        it => format!("{it:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"bench":"pipeline","scenario":"established","flows":1000,"size":64,"rules":10,"ns":{"median":40}}
{"bench":"pipeline","scenario":"established","flows":1000000,"size":64,"rules":10,"ns":{"median":70}}
{"bench":"pipeline","scenario":"established","flows":1000,"size":64,"rules":10000,"ns":{"median":44}}
{"bench":"sets","side":"portcullis","type":"hash:ip","elements":1000,"hit_ns":10,"miss_ns":5}
{"bench":"compare","what":"row","subject":"legacy","against":"portcullis","rules":10,"conntrack":false,"received_pps":300000,"portcullis_rate_ratio":{}}
{"bench":"compare","what":"row","subject":"portcullis","against":"portcullis","rules":10,"conntrack":false,"received_pps":700000,"portcullis_rate_ratio":{}}"#;

    #[test]
    fn lines_become_curves_and_bars() {
        let plots = all(&Lines::parse(TEXT, ""));
        let names: Vec<&str> = plots.iter().map(|plot| plot.name).collect();
        assert_eq!(names, ["rules", "flows", "sets", "throughput"]);
        let Content::Curves { curves, .. } = &plots[1].content else { panic!("curves") };
        let points = vec![(1e3, 40.0), (1e6, 70.0)];
        assert_eq!(curves[..], [Curve { name: "established".to_owned(), points }]);
        let Content::Bars { groups } = &plots[3].content else { panic!("bars") };
        assert_eq!(groups[0].1[1], ("portcullis".to_owned(), 7e5));
    }

    #[test]
    fn drawing_is_deterministic_and_shows_its_words() {
        for plot in all(&Lines::parse(TEXT, "")) {
            let svg = plot.draw().expect("draws");
            assert!(svg.starts_with("<svg") && svg.contains(plot.title), "{}", plot.name);
            assert_eq!(svg, plot.draw().expect("draws"));
        }
        assert_eq!([short(10.0), short(1e5), short(2.5e6)], ["10", "100k", "2.5M"]);
    }
}
