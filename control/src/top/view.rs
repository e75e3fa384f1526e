//! The screen: one frame drawn into a terminal of any size.

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Table};

use super::Frame;

/// Which page is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// Ports, workers, drops, connection tracking.
    #[default]
    Overview,
    /// Rules by packets a second.
    Rules,
    /// Sources.
    Sources,
}

/// What the keys have chosen.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    /// The page.
    pub page: Page,
    /// Whether the keys are explained.
    pub help: bool,
    /// Whether nothing is asked any more.
    pub paused: bool,
    /// Rows that were scrolled past.
    pub skipped: usize,
    /// Connections as they were, the latest last.
    pub trend: Vec<u64>,
    /// What hinders, if anything does.
    pub trouble: Option<String>,
}

/// The keys, for the screen and `--help`.
pub const KEYS: &str = "\
1, o     overview: ports, workers, drops, connections
2, r     rules by packets a second
3, s     sources: talkers, offenders, who is logged
tab      the next page
up/down  scroll (k, j)
space    pause, and go on
h, ?     these keys
q, esc   end (ctrl-c)";

/// Points of the trend that are kept.
pub const TREND: usize = 120;

impl Screen {
    /// Keeps what the trend needs.
    pub fn note(&mut self, frame: &Frame) {
        if self.trend.len() == TREND {
            self.trend.remove(0);
        }
        self.trend.push(frame.conntrack.entries);
    }
    /// The next page.
    pub fn turn(&mut self) {
        let next = match self.page {
            Page::Overview => Page::Rules,
            Page::Rules => Page::Sources,
            Page::Sources => Page::Overview,
        };
        self.open(next);
    }
    /// Scrolls no further than the page's last row.
    pub fn keep_within(&mut self, frame: &Frame) {
        let rows = match self.page {
            Page::Overview => frame.ports.len().max(frame.workers.len()).max(frame.reasons.len()),
            Page::Rules => frame.rules.len(),
            Page::Sources => {
                frame.talkers.len().max(frame.offenders.len()).max(frame.reported.len())
            }
        };
        self.skipped = self.skipped.min(rows.saturating_sub(1));
    }
    /// A page from its top.
    pub fn open(&mut self, page: Page) {
        (self.page, self.skipped, self.help) = (page, 0, false);
    }
}

/// A number in at most six letters: 999, 12.3k, 1.2M.
pub fn short(value: f64) -> String {
    let units = ["", "k", "M", "G", "T", "P"];
    let (mut value, mut unit) = (value.max(0.0), 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    match value {
        0.0 => "0".to_owned(),
        _ if unit == 0 && value >= 9.95 => format!("{value:.0}"),
        value if value >= 99.95 => format!("{value:.0}{}", units[unit]),
        value => format!("{value:.1}{}", units[unit]),
    }
}

/// The trend as a line of eight heights, the latest last.
pub fn spark(values: &[u64], width: usize) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let (low, high) = (shown.iter().min().copied(), shown.iter().max().copied());
    let (low, span) = (low.unwrap_or(0), high.unwrap_or(0).saturating_sub(low.unwrap_or(0)));
    let height = |value: &u64| ((value - low) * 7).checked_div(span).unwrap_or(0) as usize;
    shown.iter().map(|value| HEIGHTS[height(value)]).collect()
}

/// Draws a frame.
pub fn draw(terminal: &mut ratatui::Frame<'_>, frame: &Frame, screen: &Screen) {
    let area = terminal.area();
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(0), Constraint::Length(1)])
            .areas(area);
    terminal.render_widget(Paragraph::new(headline(frame, screen, head.width)), head);
    match screen.page {
        Page::Overview => overview(terminal, body, frame, screen),
        Page::Rules => rules(terminal, body, frame, screen),
        Page::Sources => sources(terminal, body, frame, screen),
    }
    let keys = Line::styled(
        "1 overview  2 rules  3 sources  space pause  h help  q end",
        Style::new().add_modifier(Modifier::DIM),
    );
    terminal.render_widget(Paragraph::new(keys), foot);
    if screen.help {
        let lines = KEYS.lines().count() as u16;
        let [box_area, _] =
            Layout::vertical([Constraint::Length(lines + 2), Constraint::Min(0)]).areas(area);
        terminal.render_widget(Clear, box_area);
        let block = Block::new().borders(Borders::ALL).title(" keys ");
        terminal.render_widget(Paragraph::new(KEYS).block(block), box_area);
    }
}

fn headline(frame: &Frame, screen: &Screen, width: u16) -> Vec<Line<'static>> {
    let warn = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    let state = match (&screen.trouble, screen.paused) {
        (Some(_), _) => "  NO ANSWER",
        (None, true) => "  PAUSED",
        (None, false) => "",
    };
    let up = frame.uptime_s;
    let first = Line::styled(
        format!(
            "portcullis  policy {}  up {}d {:02}:{:02}{state}",
            frame.generation,
            up / 86_400,
            up / 3600 % 24,
            up / 60 % 60
        ),
        if state.is_empty() { Style::new().add_modifier(Modifier::BOLD) } else { warn },
    );
    let second = match &screen.trouble {
        Some(trouble) => Line::styled(trouble.clone(), warn),
        None => Line::raw(format!(
            "in {} p/s  out {} p/s  dropped {} p/s  log {}/s lost {}/s ({} ever)",
            short(frame.rx_packets),
            short(frame.tx_packets),
            short(frame.drops),
            short(frame.log_written),
            short(frame.log_lost),
            short(frame.log_lost_ever as f64),
        )),
    };
    let table = &frame.conntrack;
    let used = 100.0 * table.entries as f64 / (table.capacity.max(1)) as f64;
    let full = match table.full_in_s {
        Some(seconds) if seconds < 3600.0 => format!("  full in {seconds:.0} s"),
        _ => String::new(),
    };
    let crowded = if table.crowded { "  CROWDED" } else { "" };
    let text = format!(
        "conntrack {}/{} ({used:.1}%) new {}/s failed {}/s{crowded}{full} ",
        table.entries,
        short(table.capacity as f64),
        short(table.inserts),
        short(table.failed),
    );
    let room = usize::from(width).saturating_sub(text.chars().count());
    let style = if table.crowded || used >= 90.0 { warn } else { Style::new() };
    let third = Line::styled(text + &spark(&screen.trend, room), style);
    vec![first, second, third]
}

fn header<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn overview(terminal: &mut ratatui::Frame<'_>, area: Rect, frame: &Frame, screen: &Screen) {
    // Many ports leave room for the rest, which scrolls along.
    let rows = |all: usize, share: u16| {
        let left = all.saturating_sub(screen.skipped) + 1;
        u16::try_from(left).unwrap_or(u16::MAX).min((area.height / share).max(2))
    };
    let (ports, workers) = (rows(frame.ports.len(), 2), rows(frame.workers.len(), 4));
    let [first, second, third] =
        Layout::vertical([Constraint::Max(ports), Constraint::Max(workers), Constraint::Min(0)])
            .areas(area);
    let rows = frame.ports.iter().skip(screen.skipped).map(|port| {
        let style = if port.up { Style::new() } else { Style::new().fg(Color::Red) };
        Row::new([
            port.port.clone(),
            if port.up { "up" } else { "DOWN" }.to_owned(),
            short(port.rx_packets),
            short(port.rx_bits),
            short(port.tx_packets),
            short(port.tx_bits),
        ])
        .style(style)
    });
    let widths = [14, 5, 9, 9, 9, 9].map(Constraint::Length);
    let names = ["PORT", "LINK", "IN p/s", "IN bit/s", "OUT p/s", "OUT bit/s"];
    terminal.render_widget(Table::new(rows, widths).header(header(names)), first);
    let rows = frame.workers.iter().skip(screen.skipped).map(|worker| {
        Row::new([
            worker.worker.to_string(),
            worker.core.map_or("-".to_owned(), |core| core.to_string()),
            short(worker.rx_packets),
            short(worker.tx_packets),
            short(worker.drops),
            short(worker.burst),
        ])
    });
    let names = ["WORKER", "CORE", "IN p/s", "OUT p/s", "DROP p/s", "BURST"];
    terminal.render_widget(Table::new(rows, widths).header(header(names)), second);
    let rows = frame
        .reasons
        .iter()
        .skip(screen.skipped)
        .map(|(why, rate)| Row::new([why.clone(), short(*rate)]));
    let widths = [Constraint::Length(24), Constraint::Length(9)];
    let table = Table::new(rows, widths).header(header(["DROPPED FOR", "p/s"]));
    terminal.render_widget(table, third);
}

fn rules(terminal: &mut ratatui::Frame<'_>, area: Rect, frame: &Frame, screen: &Screen) {
    let rows = frame.rules.iter().skip(screen.skipped).map(|rule| {
        Row::new([short(rule.packets), short(rule.bits), rule.place.clone(), rule.text.clone()])
    });
    // What a rule says begins where the longest place ends.
    let place = frame.rules.iter().map(|rule| rule.place.chars().count()).max().unwrap_or(0);
    let place = place.clamp(4, 40) as u16;
    let widths = [
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(place),
        Constraint::Min(0),
    ];
    let table = Table::new(rows, widths).header(header(["p/s", "bit/s", "RULE", "SAYS"]));
    terminal.render_widget(table, area);
}

fn sources(terminal: &mut ratatui::Frame<'_>, area: Rect, frame: &Frame, screen: &Screen) {
    let [first, second, third] = Layout::vertical([
        Constraint::Percentage(50),
        Constraint::Percentage(25),
        Constraint::Percentage(25),
    ])
    .areas(area);
    let rows = frame.talkers.iter().skip(screen.skipped).map(|talker| {
        Row::new([
            talker.source.to_string(),
            talker.connections.to_string(),
            talker.unanswered.to_string(),
            talker.bytes.map_or("-".to_owned(), |bytes| short(bytes as f64)),
        ])
    });
    let widths = [40, 12, 11, 8].map(Constraint::Length);
    let names = ["TALKER", "CONNECTIONS", "UNANSWERED", "BYTES"];
    terminal.render_widget(Table::new(rows, widths).header(header(names)), first);
    let rows = frame.offenders.iter().skip(screen.skipped).map(|it| {
        Row::new([it.prefix.clone(), it.seconds.to_string(), format!("{} s", it.ago_ms / 1000)])
    });
    let widths = [40, 12, 11].map(Constraint::Length);
    let names = ["OVER ITS QUOTA", "SECONDS", "AGO"];
    terminal.render_widget(Table::new(rows, widths).header(header(names)), second);
    let rows = frame
        .reported
        .iter()
        .skip(screen.skipped)
        .map(|(name, records)| Row::new([name.clone(), short(*records as f64)]));
    let widths = [40, 12].map(Constraint::Length);
    let table = Table::new(rows, widths).header(header(["MOST RECORDS", "RECORDS"]));
    terminal.render_widget(table, third);
}
