//! How findings look.

use std::sync::Arc;

use super::*;

fn finding() -> Finding {
    let file: Arc<str> = Arc::from("rules.v4");
    let span = Span { line: 2, column: 10, len: 4 };
    Finding::new(Severity::Error, Code::BadValue, &file, span, "`8x80' is no port")
        .with_remedy("write a number")
}

#[test]
fn caret_stands_under_the_place() {
    let text = render(&finding(), Some("*filter\n-A INPUT 8x80 x\n"));
    assert!(text.contains("error[bad-value]: `8x80' is no port"), "{text}");
    assert!(text.contains("rules.v4:2:10"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let source = lines.iter().position(|line| line.contains("-A INPUT 8x80")).unwrap();
    let at = lines[source].find("8x80").unwrap();
    assert_eq!(lines[source + 1].find("^^^^"), Some(at), "{text}");
    assert!(text.contains("write a number"), "{text}");
}

#[test]
fn a_place_beyond_the_text_still_renders() {
    let mut finding = finding();
    finding.column = 9_000;
    assert!(render(&finding, Some("*filter\n-A\n")).contains("bad-value"));
    finding.line = 77;
    assert!(render(&finding, Some("*filter\n")).contains("rules.v4:77:9000"));
    finding.line = 0;
    finding.column = 0;
    assert!(render(&finding, Some("")).contains("bad-value"));
}

#[test]
fn long_lines_are_cut_around_the_place() {
    let mut finding = finding();
    finding.column = 5_001;
    finding.line = 1;
    let text = render(&finding, Some(&format!("{}8x80{}", "a".repeat(5_000), "b".repeat(5_000))));
    assert!(text.len() < 2_000, "{}", text.len());
    assert!(text.contains("8x80"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut finding = finding();
    finding.message = "bad \u{1b}[31m".to_string();
    let text = render(&finding, Some("x\n-A \u{1b}[2J\u{7} INPUT\n"));
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
}

#[test]
fn json_is_one_object_on_one_line() {
    let line = json_line(&finding());
    assert!(!line.contains('\n'));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["code"], "bad-value");
    assert_eq!(value["severity"], "error");
    assert_eq!(value["line"], 2);
    assert_eq!(value["column"], 10);
    assert_eq!(value["remedy"], "write a number");
}
