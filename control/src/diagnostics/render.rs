//! Findings for people (with the line and a caret) and for programs (JSON).

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Finding, Severity};

/// Columns of context kept on each side of a finding in an overlong line.
const CONTEXT_COLUMNS: usize = 120;

/// One finding with its line and a caret under the place. `source` is the
/// whole text of the finding's file; without it only the place is named.
pub fn render(finding: &Finding, source: Option<&str>) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let code = finding.code.name();
    let line = source.and_then(|text| text.split('\n').nth(finding.line.max(1) as usize - 1));
    let message = printable(&finding.message);
    let remedy = finding.remedy.as_deref().map(printable);
    let Some(line) = line else {
        let mut text = format!(
            "{}[{code}]: {message}\n --> {}:{}:{}",
            severity_name(finding.severity),
            finding.file,
            finding.line,
            finding.column
        );
        if let Some(remedy) = remedy {
            text.push_str("\n = help: ");
            text.push_str(&remedy);
        }
        return text;
    };
    let (shown, first, last) = window(line, finding.column as usize, finding.len as usize);
    let snippet = Snippet::source(&shown)
        .line_start(finding.line as usize)
        .path(finding.file.as_ref())
        .annotation(AnnotationKind::Primary.span(first..last));
    let mut group = Group::with_title(level.primary_title(&message).id(&code)).element(snippet);
    if let Some(remedy) = &remedy {
        group = group.element(Level::HELP.message(remedy));
    }
    Renderer::plain().render(&[group])
}

/// All of them, in file order, separated by blank lines.
pub fn render_all(findings: &[Finding], source: Option<&str>) -> String {
    findings.iter().map(|finding| render(finding, source)).collect::<Vec<_>>().join("\n\n")
}

/// One JSON object on one line.
pub fn json_line(finding: &Finding) -> String {
    serde_json::to_string(finding).expect("a finding holds nothing that JSON cannot")
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// Control characters must not reach a terminal raw.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The part of a line around the finding, with the byte range to underline.
fn window(line: &str, column: usize, len: usize) -> (String, usize, usize) {
    let start = column.max(1) - 1;
    let from = start.saturating_sub(CONTEXT_COLUMNS);
    let shown: Vec<char> = line
        .chars()
        .skip(from)
        .take(2 * CONTEXT_COLUMNS + len.min(CONTEXT_COLUMNS))
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let first_char = (start - from).min(shown.len());
    let last_char = (first_char + len.max(1)).min(shown.len());
    let bytes = |chars: usize| shown[..chars].iter().map(|c| c.len_utf8()).sum::<usize>();
    let (first, last) = (bytes(first_char), bytes(last_char));
    (shown.into_iter().collect(), first, last.max(first))
}
