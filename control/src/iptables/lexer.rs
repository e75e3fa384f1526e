//! Text to lines, lines to words, exactly as iptables-restore splits them.
//!
//! Double quotes hold blanks together and are the only quotes; a single quote
//! is an ordinary character. Inside double quotes a backslash takes the next
//! character literally; outside it is an ordinary character. An opening quote
//! may stand in the middle of a word, a closing one ends the word.

use crate::model::Span;

/// Longest line that the kernel's tools read in one piece.
pub(crate) const MAX_LINE_BYTES: usize = 10_239;
/// Longest word that the kernel's tools take.
pub(crate) const MAX_WORD_BYTES: usize = 1_023;
/// Most words in a line that the kernel's tools take (255 with the table option).
pub(crate) const MAX_WORDS: usize = 251;

/// One word of a rule line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Text with quotes and escapes resolved.
    pub(crate) text: String,
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

/// Splits a rule line into words. `line` is its number; `skip` characters at
/// its front (the counters) were read already.
pub(crate) fn words(text: &str, line: u32, skip: usize) -> Result<Vec<Word>, (LexError, Span)> {
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
    words: Vec<Word>,
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
        self.words.push(Word { text: std::mem::take(&mut self.text), span: place });
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
pub(crate) fn plain_words(text: &str, line: u32, skip: usize) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let mut open = false;
    for (index, c) in text.chars().enumerate().skip(skip) {
        if c == ' ' || c == '\t' {
            open = false;
            continue;
        }
        match found.last_mut() {
            Some(word) if open => {
                word.text.push(c);
                word.span.len += 1;
            }
            _ => found.push(Word { text: c.to_string(), span: span(line, index, 1) }),
        }
        open = true;
    }
    found
}
