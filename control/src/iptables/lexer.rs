//! Text to lines, lines to words, exactly as iptables-restore splits them.
//!
//! Double quotes hold blanks together and are the only quotes; a single quote
//! is an ordinary character. Inside double quotes a backslash takes the next
//! character literally; outside it is an ordinary character. An opening quote
//! may stand in the middle of a word, a closing one ends the word.

use std::borrow::Cow;

use crate::model::Span;

/// Longest line that the kernel's tools read in one piece.
pub(crate) const MAX_LINE_BYTES: usize = 10_239;
/// Longest word that the kernel's tools take.
pub(crate) const MAX_WORD_BYTES: usize = 1_023;
/// Most words in a line that the kernel's tools take (255 with the table option).
pub(crate) const MAX_WORDS: usize = 251;

/// One word of a rule line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word<'t> {
    /// Text with quotes and escapes resolved.
    pub(crate) text: Cow<'t, str>,
    /// Where it stands, quotes included.
    pub(crate) span: Span,
}

/// Why a line cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LexError {
    /// `"` without its end.
    #[error("a double quote is opened here and never closed on this line")]
    UnterminatedQuote,
    /// A word above [`MAX_WORD_BYTES`].
    #[error("this word is longer than {MAX_WORD_BYTES} bytes")]
    WordTooLong,
    /// More than [`MAX_WORDS`] words.
    #[error("this line has more than {MAX_WORDS} words")]
    TooManyWords,
}

/// Splits a rule line into `words`, which are empty before. `line` is its number; `skip`
/// characters at its front (the counters) were read already.
pub(crate) fn words<'t>(
    text: &'t str,
    line: u32,
    skip: usize,
    words: &mut Vec<Word<'t>>,
) -> Result<(), (LexError, Span)> {
    if plainly(text, line, skip, words) {
        return Ok(());
    }
    words.clear();
    *words = slowly(text, line, skip)?;
    Ok(())
}

/// Most lines are ASCII with words that stand in them as they are; of others, and of those
/// with errors, nothing is said.
fn plainly<'t>(text: &'t str, line: u32, skip: usize, words: &mut Vec<Word<'t>>) -> bool {
    if !text.is_ascii() {
        return false;
    }
    let bytes = text.as_bytes();
    let mut at = skip;
    while let Some(&first) = bytes.get(at) {
        if matches!(first, b' ' | b'\t') {
            at += 1;
            continue;
        }
        let (start, quoted) = (at, first == b'"');
        let from = start + usize::from(quoted);
        let ends = |byte: &u8| match quoted {
            true => matches!(byte, b'"' | b'\\'),
            false => matches!(byte, b' ' | b'\t' | b'"'),
        };
        let len = bytes[from..].iter().position(ends).unwrap_or(bytes.len() - from);
        let end = from + len;
        let whole = match bytes.get(end) {
            Some(b'"') => quoted,
            Some(b'\\') => false,
            Some(_) => true,
            None => !quoted,
        };
        if !whole || len > MAX_WORD_BYTES || words.len() == MAX_WORDS {
            return false;
        }
        at = end + usize::from(quoted);
        let span = span(line, start, at - start);
        words.push(Word { text: Cow::Borrowed(&text[from..end]), span });
    }
    true
}

/// Any line.
fn slowly(text: &str, line: u32, skip: usize) -> Result<Vec<Word<'static>>, (LexError, Span)> {
    let mut splitter = Splitter { line, words: Vec::new(), text: String::new(), start: 0 };
    let mut quote: Option<usize> = None;
    let mut escaped = false;
    let mut end = skip;
    for (index, c) in text.chars().enumerate().skip(skip) {
        end = index + 1;
        if let Some(opened) = quote {
            if escaped {
                escaped = false;
                splitter.push(c, opened);
            } else if c == '\\' {
                escaped = true;
            } else if c == '"' {
                quote = None;
                splitter.finish(index + 1)?;
            } else {
                splitter.push(c, opened);
            }
            continue;
        }
        match c {
            '"' => {
                if splitter.text.is_empty() {
                    splitter.start = index;
                }
                quote = Some(splitter.start.max(skip));
            }
            ' ' | '\t' => {
                if !splitter.text.is_empty() {
                    splitter.finish(index)?;
                }
            }
            _ => splitter.push(c, index),
        }
    }
    if let Some(opened) = quote {
        return Err((LexError::UnterminatedQuote, span(line, opened, end - opened)));
    }
    if !splitter.text.is_empty() {
        splitter.finish(end)?;
    }
    Ok(splitter.words)
}

/// Words found so far and the one being collected.
struct Splitter {
    line: u32,
    words: Vec<Word<'static>>,
    text: String,
    start: usize,
}

impl Splitter {
    fn push(&mut self, c: char, at: usize) {
        if self.text.is_empty() {
            self.start = at;
        }
        self.text.push(c);
    }

    fn finish(&mut self, end: usize) -> Result<(), (LexError, Span)> {
        let place = span(self.line, self.start, end - self.start);
        if self.text.len() > MAX_WORD_BYTES {
            return Err((LexError::WordTooLong, place));
        }
        if self.words.len() == MAX_WORDS {
            return Err((LexError::TooManyWords, place));
        }
        let text = Cow::Owned(std::mem::take(&mut self.text));
        self.words.push(Word { text, span: place });
        Ok(())
    }
}

/// A span from a zero-based character offset.
pub(crate) fn span(line: u32, start: usize, len: usize) -> Span {
    let clamp = |x: usize| u32::try_from(x).unwrap_or(u32::MAX);
    Span { line, column: clamp(start).saturating_add(1), len: clamp(len).max(1) }
}

/// Words separated by blanks only, for `*table` and `:chain` lines, whose
/// reader knows no quotes.
pub(crate) fn plain_words(text: &str, line: u32, skip: usize) -> Vec<Word<'_>> {
    let blank = |c: char| matches!(c, ' ' | '\t');
    let front = text.chars().take(skip).map(char::len_utf8).sum();
    let (mut column, mut rest) = (skip, &text[front..]);
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(blank).unwrap_or(rest.len()));
        let len = word.chars().count();
        if len > 0 {
            found.push(Word { text: Cow::Borrowed(word), span: span(line, column, len) });
        }
        column += len + 1;
        rest = tail.get(1..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_WORD_BYTES, MAX_WORDS, plainly, slowly};

    proptest! {
        #[test]
        fn the_plain_way_says_what_the_slow_one_says(
            text in "[a-z0-9 \t\"\\\\-]{0,40}|[ab \"\\\\é]{0,12}",
            skip in 0..6_usize,
        ) {
            let mut words = Vec::new();
            let skip = skip.min(text.chars().count());
            if plainly(&text, 7, skip, &mut words) {
                prop_assert_eq!(Ok(words), slowly(&text, 7, skip));
            }
        }
    }

    #[test]
    fn lines_at_the_limits_are_read_slowly() {
        let plain = |text: &str| plainly(text, 1, 0, &mut Vec::new());
        assert!(plain(&"x".repeat(MAX_WORD_BYTES)) && !plain(&"x".repeat(MAX_WORD_BYTES + 1)));
        assert!(plain(&"x ".repeat(MAX_WORDS)) && !plain(&"x ".repeat(MAX_WORDS + 1)));
        assert!(!plain("é") && !plain("a\"b\"") && !plain("\"a") && !plain("\"a\\\"\""));
    }
}
