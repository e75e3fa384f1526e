//! Lines to words, as ipset splits them: blanks separate, double quotes hold
//! blanks together and vanish, wherever in a word they stand. There is no escape.
//!
//! A word remembers its bytes in the line, so that a line of a million costs no more
//! than its words; columns are counted only when something is said about it.

use std::borrow::Cow;

use crate::diagnostics::Code;
use crate::model::Span;

use super::fault::Fault;

/// Longest line.
pub(crate) const MAX_LINE_BYTES: usize = 10_239;
/// Most words in a line.
const MAX_WORDS: usize = 64;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<'t> {
    /// Without quotes.
    pub(crate) text: Cow<'t, str>,
    /// First byte in the line.
    pub(crate) start: usize,
    /// The byte after it.
    pub(crate) end: usize,
}

impl Word<'_> {
    /// A fault about the whole word.
    pub(crate) fn fault(&self, code: Code, message: impl Into<String>) -> Fault {
        Fault::new(code, self.start, self.end, message)
    }

    /// The bytes of a part of it: exact for words without quotes.
    pub(crate) fn part(&self, from: usize, len: usize) -> (usize, usize) {
        if self.end - self.start == self.text.len() {
            (self.start + from, self.start + from + len)
        } else {
            (self.start, self.end)
        }
    }
}

/// Splits a line. `words` is emptied first and reused.
///
/// # Errors
/// A quote without its end, or too many words.
pub(crate) fn split<'t>(line: &'t str, words: &mut Vec<Word<'t>>) -> Result<(), Fault> {
    words.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    loop {
        while bytes.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            at += 1;
        }
        if at >= bytes.len() {
            return Ok(());
        }
        let start = at;
        let mut quoted = false;
        let mut open = None;
        while let Some(&byte) = bytes.get(at) {
            match (byte, open) {
                (b'"', None) => open = Some(at),
                (b'"', Some(_)) => open = None,
                (b' ' | b'\t', None) => break,
                _ => {}
            }
            quoted |= byte == b'"';
            at += 1;
        }
        if let Some(open) = open {
            let message = "a double quote is opened here and never closed on this line";
            return Err(Fault::new(Code::UnterminatedQuote, open, open + 1, message)
                .remedy("close it; a comment cannot hold a double quote"));
        }
        if words.len() == MAX_WORDS {
            let message = format!("this line has more than {MAX_WORDS} words");
            return Err(Fault::new(Code::TooLong, start, at, message));
        }
        let text = &line[start..at];
        let text = if quoted { Cow::Owned(text.replace('"', "")) } else { Cow::Borrowed(text) };
        words.push(Word { text, start, end: at });
    }
}

/// Bytes of a line as columns.
pub(crate) fn span(line: &str, number: u32, start: usize, end: usize) -> Span {
    let chars = |text: Option<&str>| text.map_or(0, |text| text.chars().count());
    let column = chars(line.get(..start.min(line.len()))) as u32 + 1;
    let len = chars(line.get(start.min(line.len())..end.min(line.len()))) as u32;
    Span { line: number, column, len: len.max(1) }
}
