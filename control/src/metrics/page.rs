//! One page of metrics: families of counters and gauges, and their text.

use std::collections::HashSet;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// What every name begins with.
const PREFIX: &str = "portcullis";

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text format 0.0.4, which everything reads.
    Classic,
    /// OpenMetrics 1.0, which Prometheus prefers.
    OpenMetrics,
}

impl Form {
    /// What a client accepts, by its `Accept` header.
    pub fn accepted(header: &str) -> Self {
        match header.to_ascii_lowercase().contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Count(u64),
    /// A counter that is no whole number.
    Amount(f64),
    Level(f64),
}

/// A label and its value.
type Label = (&'static str, String);

#[derive(Clone, Debug)]
struct Row {
    labels: Vec<Label>,
    value: Value,
}

#[derive(Clone, Debug)]
struct Metric {
    /// Without prefix, and without the suffix of counters.
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    rows: Vec<Row>,
}

/// A page that is being filled.
#[derive(Clone, Debug, Default)]
pub struct Page {
    metrics: Vec<Metric>,
}

impl Page {
    /// A counter of whole things with one value for each set of labels.
    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<Label>, u64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Count(value)));
        self.add(name, help, true, rows);
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [(Vec::new(), value)]);
    }

    /// A counter of seconds and the like.
    pub fn amounts(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<Label>, f64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Amount(value)));
        self.add(name, help, true, rows);
    }

    /// A gauge with one value for each set of labels.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = (Vec<Label>, f64)>,
    ) {
        let rows = rows.into_iter().map(|(labels, value)| (labels, Value::Level(value)));
        self.add(name, help, false, rows);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    /// A family without rows is left out: it would have no type to speak of.
    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        is_counter: bool,
        rows: impl IntoIterator<Item = (Vec<Label>, Value)>,
    ) {
        let rows: Vec<Row> =
            rows.into_iter().map(|(labels, value)| Row { labels, value }).collect();
        if !rows.is_empty() {
            self.metrics.push(Metric { name, help, is_counter, rows });
        }
    }

    /// The text.
    pub fn text(self, form: Form) -> String {
        let counters: HashSet<String> = self
            .metrics
            .iter()
            .filter(|metric| metric.is_counter)
            .map(|metric| format!("{PREFIX}_{}", metric.name))
            .collect();
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        match form {
            Form::OpenMetrics => text,
            Form::Classic => classic(&text, &counters),
        }
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for metric in &self.metrics {
            let kind = if metric.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            if let [Row { labels, value }] = &metric.rows[..]
                && labels.is_empty()
            {
                encode_value(*value, family)?;
                continue;
            }
            for row in &metric.rows {
                encode_value(row.value, family.encode_family(&row.labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode_value(
    value: Value,
    encoder: prometheus_client::encoding::MetricEncoder<'_>,
) -> Result<(), fmt::Error> {
    match value {
        Value::Count(count) => ConstCounter::new(count).encode(encoder),
        Value::Amount(amount) => ConstCounter::new(amount).encode(encoder),
        Value::Level(level) => ConstGauge::new(level).encode(encoder),
    }
}

/// The older form: counters are called what their samples are called, and nothing ends the page.
fn classic(text: &str, counters: &HashSet<String>) -> String {
    let mut classic = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, keyword) = (words.next(), words.next());
        match (mark, keyword, words.next(), words.next()) {
            (Some("#"), Some("EOF"), ..) => {}
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(name) => {
                classic.push_str(&format!("# {keyword} {name}_total {rest}\n"));
            }
            _ => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let mut page = Page::default();
        page.counters(
            "dropped_packets",
            "Packets dropped.",
            [(vec![("reason", "a\"b\n".to_owned())], 7), (vec![("reason", "c".to_owned())], 0)],
        );
        page.gauge("conntrack_entries", "Connections now.", 3.0);
        page.amounts("worker_cpu_seconds", "CPU time.", [(Vec::new(), 1.5)]);
        page.counters("nothing", "Has no rows.", []);
        page
    }

    #[test]
    fn both_forms_say_the_same() {
        let open = page().text(Form::OpenMetrics);
        let wanted = "# HELP portcullis_dropped_packets Packets dropped.\n\
            # TYPE portcullis_dropped_packets counter\n\
            portcullis_dropped_packets_total{reason=\"a\\\"b\\n\"} 7\n\
            portcullis_dropped_packets_total{reason=\"c\"} 0\n\
            # HELP portcullis_conntrack_entries Connections now.\n\
            # TYPE portcullis_conntrack_entries gauge\n\
            portcullis_conntrack_entries 3.0\n\
            # HELP portcullis_worker_cpu_seconds CPU time.\n\
            # TYPE portcullis_worker_cpu_seconds counter\n\
            portcullis_worker_cpu_seconds_total 1.5\n# EOF\n";
        assert_eq!(open, wanted);
        let classic = page().text(Form::Classic);
        let wanted = "# HELP portcullis_dropped_packets_total Packets dropped.\n\
            # TYPE portcullis_dropped_packets_total counter\n\
            portcullis_dropped_packets_total{reason=\"a\\\"b\\n\"} 7\n\
            portcullis_dropped_packets_total{reason=\"c\"} 0\n\
            # HELP portcullis_conntrack_entries Connections now.\n\
            # TYPE portcullis_conntrack_entries gauge\n\
            portcullis_conntrack_entries 3.0\n\
            # HELP portcullis_worker_cpu_seconds_total CPU time.\n\
            # TYPE portcullis_worker_cpu_seconds_total counter\n\
            portcullis_worker_cpu_seconds_total 1.5\n";
        assert_eq!(classic, wanted);
    }

    #[test]
    fn the_form_follows_what_is_accepted() {
        assert_eq!(Form::accepted("*/*"), Form::Classic);
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
    }
}
