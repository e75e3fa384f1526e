//! Tests of rates between samples, and of the screen at sizes from none to large.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::frame::{PortRate, RuleRate, Table, WorkerRate};
use super::view::{self, Page, Screen, short, spark};
use super::*;
use crate::api::protocol::{OffenderInfo, TalkerInfo};

fn frame() -> Frame {
    let port = |name: &str, up| PortRate {
        port: name.to_owned(),
        up,
        rx_packets: 1_234_567.0,
        rx_bits: 9.9e9,
        ..PortRate::default()
    };
    Frame {
        generation: 7,
        uptime_s: 90_061,
        rx_packets: 1_234_567.0,
        drops: 12.0,
        ports: vec![port("eth0", true), port("eth1", false)],
        workers: (0..4).map(|worker| WorkerRate { worker, ..WorkerRate::default() }).collect(),
        rules: vec![RuleRate {
            place: "v4 filter FORWARD 3".to_owned(),
            text: "-p tcp -j ACCEPT".to_owned(),
            packets: 999.6,
            bits: 0.0,
        }],
        reasons: vec![("chain_policy".to_owned(), 12.0)],
        conntrack: Table {
            entries: 950,
            capacity: 1000,
            full_in_s: Some(50.0),
            ..Table::default()
        },
        talkers: vec![TalkerInfo {
            source: "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff".parse().unwrap(),
            connections: 900,
            unanswered: 12,
            bytes: None,
        }],
        offenders: vec![OffenderInfo { prefix: "198.18.0.0/24".into(), seconds: 3, ago_ms: 2000 }],
        reported: vec![("198.51.100.0/24".to_owned(), 1500)],
        ..Frame::default()
    }
}

fn drawn(width: u16, height: u16, screen: &Screen) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|area| view::draw(area, &frame(), screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells = |row| (0..width).map(move |column| buffer[(column, row)].symbol());
    (0..height).map(|row| cells(row).collect::<String>() + "\n").collect()
}

fn on(page: Page) -> Screen {
    Screen { page, trend: vec![1, 5, 9], ..Screen::default() }
}

#[test]
fn everything_is_there_at_80_by_24() {
    let text = drawn(80, 24, &on(Page::Overview));
    for part in [
        "policy 7  up 1d 01:01",
        "in 1.2M p/s",
        "conntrack 950/1.0k (95.0%)",
        "full in 50 s",
        "▁▄█",
        "eth0           up    1.2M",
        "eth1           DOWN",
        "WORKER",
        "chain_policy",
        "q end",
    ] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    let text = drawn(80, 24, &on(Page::Rules));
    assert!(text.contains("1.0k     0        v4 filter FORWARD 3 -p tcp -j ACCEPT"), "{text}");
    let text = drawn(80, 24, &on(Page::Sources));
    for part in ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff   900", "198.18.0.0/24", "1.5k"] {
        assert!(text.contains(part), "{part} is missing\n{text}");
    }
    let text = drawn(80, 24, &Screen { help: true, ..on(Page::Overview) });
    assert!(text.contains("q, esc   end"), "{text}");
    let trouble = Some("cannot reach the daemon".to_owned());
    let text = drawn(80, 24, &Screen { trouble, ..on(Page::Overview) });
    assert!(text.contains("NO ANSWER") && text.contains("cannot reach"), "{text}");
}

#[test]
fn small_and_large_terminals_are_drawn_without_harm() {
    let sizes = [(40, 10), (200, 60), (1, 1), (2, 2), (80, 1), (1, 24), (10, 4), (0, 0)];
    for (width, height) in sizes {
        for page in [Page::Overview, Page::Rules, Page::Sources] {
            for help in [false, true] {
                let text = drawn(width, height, &Screen { help, skipped: 500, ..on(page) });
                assert_eq!(text.lines().count(), usize::from(height));
            }
        }
    }
    assert!(drawn(40, 10, &on(Page::Overview)).contains("eth0"));
    assert!(drawn(200, 60, &on(Page::Overview)).contains("chain_policy"));
}

#[test]
fn scrolling_ends_at_the_last_row() {
    let mut screen = Screen { skipped: 70, ..on(Page::Overview) };
    screen.keep_within(&frame());
    assert_eq!(screen.skipped, 3, "of four workers");
    screen.keep_within(&Frame::default());
    assert_eq!(screen.skipped, 0);
    let many = Frame { ports: vec![PortRate::default(); 300], ..frame() };
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|area| view::draw(area, &many, &Screen::default())).unwrap();
    let cells = terminal.backend().buffer().content();
    let text: String = cells.iter().map(|cell| cell.symbol()).collect();
    assert!(text.contains("WORKER") && text.contains("chain_policy"), "{text}");
}

#[test]
fn numbers_are_short_and_trends_have_a_shape() {
    for (value, text) in [
        (0.0, "0"),
        (-1.0, "0"),
        (9.94, "9.9"),
        (12.0, "12"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (123_456.0, "123k"),
        (1_234_567.0, "1.2M"),
    ] {
        assert_eq!(short(value), text, "{value}");
    }
    assert_eq!(spark(&[], 9), "");
    assert_eq!(spark(&[5, 5], 9), "▁▁");
    assert_eq!(spark(&[0, 7, 14, u64::MAX >> 3], 2), "▁█");
}
