//! The body of a webhook: a template that is checked before it is needed, and whose result is
//! JSON whatever the values are.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use thiserror::Error;

use super::{EventKind, Notice};

/// Longest template, in bytes.
const LONGEST: usize = 16 * 1024;
/// What it is called; the ending makes every value a JSON value.
const NAME: &str = "body.json";

/// The body of those who say nothing else.
pub const DEFAULT_BODY: &str = r#"{"event":{{event}},"key":{{key}},"state":{{state}},"severity":{{severity}},"summary":{{summary}},"value":{{value}},"threshold":{{threshold}},"host":{{host}},"time":{{time}}}"#;

/// What is wrong with a template, and where in it: lines and columns from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What.
    pub message: String,
    /// Line of the template.
    pub line: u32,
    /// Column of that line.
    pub column: u32,
}

impl TemplateError {
    fn new(message: impl Into<String>, line: usize, column: usize) -> Self {
        Self { message: message.into(), line: line as u32, column: column as u32 }
    }

    fn of(error: &minijinja::Error, source: &str) -> Self {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let line = error.line().unwrap_or(1);
        let column = error.range().map_or(1, |range| {
            let before = source.get(..range.start).unwrap_or_default();
            1 + before.rsplit('\n').next().unwrap_or_default().chars().count()
        });
        Self::new(detail, line, column)
    }
}

/// A template that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    source: String,
}

impl Default for Body {
    fn default() -> Self {
        Self { source: DEFAULT_BODY.to_owned() }
    }
}

impl Body {
    /// Checks it: with values that are as awkward as values can be, for every event.
    ///
    /// # Errors
    /// It is no template, uses a value that there is not, or its result is no JSON.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        if source.len() > LONGEST {
            let message = format!("the template is longer than {LONGEST} bytes");
            return Err(TemplateError::new(message, 1, 1));
        }
        let body = Self { source: source.to_owned() };
        for kind in EventKind::ALL {
            for firing in [true, false] {
                for awkward in ["", "\"}\\\n\u{1}{{", "a < b & c"] {
                    body.render(&Notice::example(*kind, firing, awkward), awkward)?;
                }
            }
        }
        Ok(body)
    }

    /// The template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The body for a notice.
    ///
    /// # Errors
    /// What [`Self::parse`] did not foresee.
    pub fn render(&self, notice: &Notice, host: &str) -> Result<String, TemplateError> {
        let environment = environment();
        let failed = |error: minijinja::Error| TemplateError::of(&error, &self.source);
        let template = environment.template_from_named_str(NAME, &self.source).map_err(failed)?;
        let values = context! {
            event => notice.kind.name(),
            key => notice.key.as_str(),
            state => notice.state(),
            firing => notice.firing,
            severity => notice.kind.severity(),
            summary => notice.summary.as_str(),
            value => notice.value,
            threshold => notice.threshold,
            host => host,
            time => crate::history::stamp(notice.at_us),
            timestamp => notice.at_us / 1_000_000,
        };
        let text = template.render(values).map_err(failed)?;
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(_) => Ok(text),
            Err(error) => {
                let message = format!(
                    "the result is no JSON: {error}; values bring their own quotes, as \
                     {{\"text\": {{{{summary}}}}}}"
                );
                // The result's lines are those of the template, as long as it has no blocks.
                let lines = self.source.lines().count().max(1);
                Err(TemplateError::new(message, error.line().clamp(1, lines), 1))
            }
        }
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_good_and_values_bring_their_quotes() {
        Body::parse(DEFAULT_BODY).unwrap();
        let body = Body::parse("{\"text\": {{ event ~ \" \" ~ summary }}, \"n\": {{ value }}}");
        let notice = Notice::example(EventKind::DropRate, true, "a \"b\"\n");
        let text = body.unwrap().render(&notice, "gw").unwrap();
        assert_eq!(text, "{\"text\": \"drop-rate a \\\"b\\\"\\n\", \"n\": 1.5}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (source, line, column, part) in [
            ("{\n \"a\": {{ evnt }}}", 2, 10, "undefined"),
            ("{\n \"a\": {{ event }", 2, 0, ""),
            ("{% if firing %}{}", 1, 0, ""),
            ("{\n\"a\": \"{{ summary }}\"}", 2, 0, "no JSON"),
            ("[{{ event | nosuch }}]", 1, 0, "nosuch"),
        ] {
            let error = Body::parse(source).unwrap_err();
            assert_eq!(error.line, line, "{source}: {error:?}");
            assert!(column == 0 || error.column == column, "{source}: {error:?}");
            assert!(error.message.contains(part), "{source}: {error:?}");
        }
        assert!(Body::parse(&" ".repeat(LONGEST + 1)).unwrap_err().message.contains("longer"));
    }
}
