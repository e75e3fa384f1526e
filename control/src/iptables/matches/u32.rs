//! `-m u32`.

use dataplane::policy::Match;
use dataplane::policy::matches::Range;
use dataplane::policy::payload::u32::{MAX_PARTS, U32Step, U32Test};
use dataplane::policy::payload::{PayloadMatch, U32Match};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("u32", 0)];

#[derive(Default)]
pub(super) struct U32 {
    found: Option<U32Match>,
}

impl Module for U32 {
    fn name(&self) -> &'static str {
        "u32"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let mut reader = Reader { text: operand.text.as_bytes(), at: 0 };
        let tests = reader.tests().map_err(|message| {
            let at = Span {
                column: operand.span.column.saturating_add(reader.column(operand)),
                len: 1,
                ..operand.span
            };
            Problem::new(Code::BadValue, at, format!("u32: {message}"))
                .remedy("write `START & MASK = LOW:HIGH, VALUE && ...', with &, <<, >> and @")
        })?;
        self.found = Some(U32Match { negated: operand.negated, tests });
        Ok(())
    }
}

/// Reads `test && test ...` from the left.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

type Read<T> = Result<T, &'static str>;

impl Reader<'_> {
    /// Characters from the operand's beginning to where reading stopped, as far as known.
    fn column(&self, operand: &Operand<'_>) -> u32 {
        let inside = operand.span.len as usize > operand.text.chars().count();
        (self.at.min(self.text.len()) + usize::from(inside)) as u32
    }

    fn blanks(&mut self) {
        let blank = |byte: &&u8| byte.is_ascii_whitespace();
        self.at += self.text[self.at..].iter().take_while(blank).count();
    }

    /// Whether that comes next; goes behind it if so.
    fn takes(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.text[self.at..].starts_with(token.as_bytes());
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// A number as C writes it.
    fn number(&mut self) -> Read<u32> {
        self.blanks();
        let rest = &self.text[self.at..];
        let hex = rest.len() > 2
            && rest[0] == b'0'
            && rest[1] | 0x20 == b'x'
            && rest[2].is_ascii_hexdigit();
        let (prefix, radix) = match rest {
            _ if hex => (2, 16),
            [b'0', ..] => (0, 8),
            _ => (0, 10),
        };
        let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
        let digits = rest[prefix..].iter().take_while(is_digit).count();
        let text = std::str::from_utf8(&rest[prefix..prefix + digits]).unwrap_or_default();
        let value = u32::from_str_radix(text, radix);
        let value = value.map_err(|_| "here should stand a number of at most 32 bits")?;
        self.at += prefix + digits;
        Ok(value)
    }

    fn tests(&mut self) -> Read<Box<[U32Test]>> {
        let mut tests = Vec::new();
        loop {
            if tests.len() == MAX_PARTS {
                return Err("the kernel has room for ten tests");
            }
            tests.push(self.test()?);
            self.blanks();
            if self.at == self.text.len() {
                return Ok(tests.into());
            }
            if !self.takes("&&") {
                return Err("here should stand `,', `&&' or the end");
            }
        }
    }

    fn test(&mut self) -> Read<U32Test> {
        let start = self.number()?;
        let mut steps = Vec::new();
        while !self.takes("=") {
            let make = if self.takes("&") {
                U32Step::And
            } else if self.takes("<<") {
                U32Step::Left
            } else if self.takes(">>") {
                U32Step::Right
            } else if self.takes("@") {
                U32Step::At
            } else {
                return Err("here should stand `=', `&', `<<', `>>' or `@'");
            };
            if steps.len() + 1 == MAX_PARTS {
                return Err("the kernel has room for nine operations in a test");
            }
            let step = make(self.number()?);
            if matches!(step, U32Step::Left(bits) | U32Step::Right(bits) if bits > 31) {
                return Err("the kernel shifts by at most 31 bits");
            }
            steps.push(step);
        }
        let mut ranges = Vec::new();
        loop {
            if ranges.len() == MAX_PARTS {
                return Err("the kernel has room for ten ranges in a test");
            }
            let low = self.number()?;
            let high = if self.takes(":") { self.number()? } else { low };
            ranges.push(Range { low, high });
            if !self.takes(",") {
                return Ok(U32Test { start, steps: steps.into(), ranges: ranges.into() });
            }
        }
    }
}

impl MatchModule for U32 {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let found = self.found.clone().ok_or_else(|| required(at, "u32", "--u32"))?;
        Ok(MatchBody::Plain(Match::Payload(Box::new(PayloadMatch::U32(found)))))
    }
}
