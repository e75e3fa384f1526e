//! Session descriptions: which media streams a call will have, and where to.

use super::text::{Found, Line, Span};
use super::{Message, limits, scan};
use crate::conntrack::{ExpectError, Expectation, Tuple};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::proto;

const AUDIO: u8 = 1;
const VIDEO: u8 = 2;
pub(super) const IMAGE: u8 = 3;

/// Media lines that are read, and the classes they expect in.
const KINDS: [(&[u8], u8); 3] = [(b"audio ", AUDIO), (b"video ", VIDEO), (b"image ", IMAGE)];

/// One media line.
#[derive(Clone, Copy)]
pub(super) struct Media {
    pub(super) class: u8,
    /// Its port, as written.
    pub(super) port: Span,
}

impl Message<'_, '_, '_> {
    /// Expects the media that the session description, if there is one, announces.
    pub(super) fn describe(&mut self) -> Result<(), DropReason> {
        let dialect = self.dialect;
        let Found::Value(session) = dialect.line(self.text(), 0, Line::Version, None) else {
            return Ok(());
        };
        let common = self.connection(session.at).map(|(_, address)| address);
        let (mut from, mut announced, mut address) = (session.at, 0, None);
        while announced < KINDS.len() {
            let Found::Value(line) = dialect.line(self.text(), from, Line::Media, None) else {
                break;
            };
            let Some((media, port)) = self.media(line) else {
                from = line.end();
                continue;
            };
            from = media.port.at;
            if port == 0 {
                continue;
            }
            let port = u16::try_from(port).ok().filter(|port| *port >= 1024);
            let port = port.ok_or(DropReason::Helper)?;
            let own = self.connection(from).map(|(_, address)| address);
            let stream = own.or(common).ok_or(DropReason::Helper)?;
            let stream = self.expect_media(media, stream, port)?;
            address = Some(stream);
            if own.is_some() && self.visit.is_translated() {
                self.replace_address(from, Line::Connection, stream)?;
                self.count_body()?;
            }
            announced += 1;
        }
        // Without a stream that counts, it keeps its address.
        match address.or(common) {
            Some(address) if self.visit.is_translated() => {
                self.replace_session(session.at, address)
            }
            _ => Ok(()),
        }
    }

    /// The connection line that holds at `from`, before the next media line.
    fn connection(&self, from: usize) -> Option<(Span, u128)> {
        let text = self.text();
        match self.dialect.line(text, from, Line::Connection, Some(Line::Media)) {
            Found::Value(span) => {
                Some((span, self.dialect.bare_address(&text[..span.end()], span.at)?.0))
            }
            _ => None,
        }
    }

    /// Kind and port of a media line.
    fn media(&self, line: Span) -> Option<(Media, u64)> {
        let text = &self.text()[line.at..line.end()];
        let &(name, class) = KINDS.iter().find(|(name, _)| text.starts_with(name))?;
        let port = Span { at: line.at + name.len(), len: line.len - name.len() };
        Some((Media { class, port }, scan::decimal(self.text(), port.at).0))
    }

    /// Expects a stream and its control stream, on the next port. The address that
    /// the other side is to be told.
    fn expect_media(
        &mut self,
        media: Media,
        mut address: u128,
        port: u16,
    ) -> Result<u128, DropReason> {
        if address != self.here().src {
            // Not from here: we need not let it in.
            return Ok(address);
        }
        let from = self.back().src;
        let mut to = (address, port);
        let (mut direct, mut known) = (false, false);
        while let Some(other) = self.known(from, to, media.class) {
            let saved = other.follow.and_then(|follow| Some((follow.address?, follow.port)));
            match saved.filter(|saved| !direct && *saved != to && self.visit.is_translated()) {
                // Both ends are behind us: they can do without us.
                Some(saved) => (to, address, direct) = (saved, saved.0, true),
                None => {
                    known = true;
                    break;
                }
            }
        }
        let base = to.1 & !1;
        if direct {
            self.replace_port(media.port, base)?;
        }
        if known {
            return Ok(address);
        }
        let stream = |port| Expectation {
            class: media.class,
            tuple: Tuple { proto: proto::UDP, ..self.visit.conn.original },
            ..self.visit.expectation(HelperKind::Sip, Some(from), (address, port))
        };
        let place = |mut one: Expectation, port| {
            (one.tuple.src, one.tuple.dst) = (from, address);
            (one.tuple.sport, one.tuple.dport) = (0, port);
            one
        };
        let pair = [base, base + 1].map(|port| place(stream(port), port));
        if self.visit.is_translated() && !direct {
            return self.expect_translated(media, pair);
        }
        self.expect_pair(&pair)?;
        Ok(address)
    }

    /// What another connection with this helper expects there.
    fn known(&self, from: u128, to: (u128, u16), class: u8) -> Option<Expectation> {
        let tuple = Tuple {
            src: from,
            dst: to.0,
            sport: 0,
            dport: to.1,
            proto: proto::UDP,
            ..self.visit.conn.original
        };
        let found = self.visit.conntrack.expected(&tuple, self.visit.now)?;
        let others = found.master != self.visit.conn.id
            && found.by == HelperKind::Sip
            && found.class == class;
        others.then_some(found)
    }

    /// Expects both. What is expected already, for whomever, is as good.
    fn expect_pair(&self, pair: &[Expectation; 2]) -> Result<(), DropReason> {
        let limits = limits(pair[0].class, true);
        let first = match self.visit.expect(&pair[0], limits) {
            Ok(id) => Some(id),
            Err(ExpectError::Already) => None,
            Err(_) => return Err(DropReason::Helper),
        };
        match self.visit.expect(&pair[1], limits) {
            Ok(_) | Err(ExpectError::Already) => Ok(()),
            Err(_) => {
                first.map(|id| self.visit.conntrack.unexpect(id));
                Err(DropReason::Helper)
            }
        }
    }
}
