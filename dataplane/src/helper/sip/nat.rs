//! SIP under NAT: the addresses in a message become those that the other side
//! knows, and what is expected is expected there.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayString;

use super::media::Media;
use super::text::{self, Found, Header, Line, Span, Uri};
use super::{Message, SIGNALLING, answered, limits};
use crate::conntrack::{Direction, ExpectError, Expectation, Follow};
use crate::helper::rewrite::{self, Cut};
use crate::packet::Family;
use crate::verdict::DropReason;
use crate::wire::{proto, put16};

/// Changes to one packet: enough for any message, and an end to hostile ones.
const MOST_CHANGES: u32 = 256;

type Text = ArrayString<64>;

impl Message<'_, '_, '_> {
    fn replace(&mut self, span: Span, with: &str) -> Result<(), DropReason> {
        self.changes += 1;
        if self.changes > MOST_CHANGES {
            return Err(DropReason::Helper);
        }
        let cut = Cut { at: self.at + span.at, len: span.len };
        rewrite::exchange(self.visit.frame, self.visit.parsed, cut, with.as_bytes())?;
        self.len = self.len - span.len + with.len();
        Ok(())
    }

    fn spell(&self, address: u128, brackets: bool) -> Text {
        let mut text = Text::new();
        let written = match (self.dialect.family, brackets) {
            (Family::V4, _) => write!(text, "{}", Ipv4Addr::from(address as u32)),
            (Family::V6, false) => write!(text, "{}", Ipv6Addr::from(address)),
            (Family::V6, true) => write!(text, "[{}]", Ipv6Addr::from(address)),
        };
        debug_assert!(written.is_ok(), "the longest address has 47 bytes");
        text
    }

    fn spell_with_port(&self, address: u128, port: u16) -> Text {
        let mut text = self.spell(address, true);
        let written = write!(text, ":{port}");
        debug_assert!(written.is_ok(), "the longest address has 47 bytes");
        text
    }

    /// The message's addresses, from the request line on.
    pub(super) fn translate(&mut self) -> Result<(), DropReason> {
        const ANSWER: &[u8] = b"SIP/2.0";
        let start = self.text().get(..ANSWER.len());
        let request = !start.is_some_and(|start| start.eq_ignore_ascii_case(ANSWER));
        if request && let Some(uri) = self.dialect.request(self.text()) {
            self.map(&uri)?;
        }
        let via = match self.dialect.proto {
            proto::TCP => Header::ViaTcp,
            _ => Header::ViaUdp,
        };
        if let Some(uri) = self.dialect.first_uri(self.text(), via) {
            self.via(&uri, request)?;
        }
        let (mut from, mut listing) = (0, false);
        while let Some(uri) =
            self.dialect.header_uri(self.text(), from, Header::Contact, &mut listing)
        {
            from = uri.end;
            self.map(&uri)?;
        }
        for header in [Header::From, Header::To] {
            if let Some(uri) = self.dialect.first_uri(self.text(), header) {
                self.map(&uri)?;
            }
        }
        self.force_port();
        Ok(())
    }

    /// An end of the connection becomes what the other side calls it.
    fn map(&mut self, uri: &Uri) -> Result<(), DropReason> {
        let (here, back) = (self.here(), self.back());
        let new = match (uri.address, uri.port) {
            place if place == (here.src, here.sport) => (back.dst, back.dport),
            place if place == (here.dst, here.dport) => {
                (back.src, self.forced_port().unwrap_or(back.sport))
            }
            _ => return Ok(()),
        };
        if new == (uri.address, uri.port) {
            return Ok(());
        }
        let text = self.spell_with_port(new.0, new.1);
        self.replace(uri.span, &text)
    }

    /// The topmost Via, if it is about this connection, and its parameters.
    fn via(&mut self, uri: &Uri, request: bool) -> Result<(), DropReason> {
        let (here, back) = (self.here(), self.back());
        let own = if request { (here.src, here.sport) } else { (here.dst, here.dport) };
        if (uri.address, uri.port) != own {
            return Ok(());
        }
        let before = self.len;
        self.map(uri)?;
        let from = uri.span.end() + self.len - before;
        let found = self.dialect.address_param(self.text(), from, b"maddr=", true);
        if let Some((span, address)) = found
            && address == here.src
            && address != back.dst
        {
            let text = self.spell(back.dst, true);
            self.replace(span, &text)?;
        }
        let found = self.dialect.address_param(self.text(), from, b"received=", false);
        if let Some((span, address)) = found
            && address == here.dst
            && address != back.src
        {
            let text = self.spell(back.src, false);
            self.replace(span, &text)?;
        }
        if let Some((span, port)) = text::number_param(self.text(), from, b"rport=")
            && port as u16 == here.dport
            && port as u16 != back.sport
        {
            let mut text = Text::new();
            let written = write!(text, "{}", back.sport);
            debug_assert!(written.is_ok(), "five digits");
            self.replace(span, &text)?;
        }
        Ok(())
    }

    /// Some telephones ask from one port and listen on another.
    fn force_port(&mut self) {
        if self.visit.direction == Direction::Original {
            return;
        }
        let Some(port) = self.forced_port() else { return };
        let l4 = usize::from(self.visit.parsed.l4);
        put16(&mut self.visit.frame[l4..], 2, port);
        self.visit.parsed.dport = port;
        self.changes += 1;
    }

    /// What this packet's sender is reached at from the other side.
    fn outside(&self, own: u128) -> u128 {
        let (here, back) = (self.here(), self.back());
        if here.src == back.dst { own } else { back.dst }
    }

    /// Expects calls where the other side will send them, and tells it.
    pub(super) fn expect_signalling(
        &mut self,
        mut new: Expectation,
        contact: Span,
    ) -> Result<(), DropReason> {
        let saved = (new.tuple.dst, new.tuple.dport);
        let own = self.forced_port().unwrap_or(self.here().sport);
        new.tuple.dst = self.outside(saved.0);
        if saved.1 == own {
            new.tuple.dport = self.back().dport;
        }
        new.follow = Some(self.follow(saved));
        let limits = limits(SIGNALLING, false);
        let found = self.visit.expect_on_free_port(&mut new, limits).ok_or(DropReason::Helper)?;
        let (port, id) = found;
        if (new.tuple.dst, port) == saved {
            return Ok(());
        }
        let text = self.spell_with_port(new.tuple.dst, port);
        self.replace(contact, &text).inspect_err(|_| {
            self.visit.conntrack.unexpect(id);
        })
    }

    fn follow(&self, (address, port): (u128, u16)) -> Follow {
        let direction = answered(self.visit.direction);
        Follow { direction, port, address: Some(address) }
    }

    /// Expects a stream and its control stream on a free pair of ports of the
    /// outside address, and writes the port down. The address.
    pub(super) fn expect_translated(
        &mut self,
        media: Media,
        mut pair: [Expectation; 2],
    ) -> Result<u128, DropReason> {
        let address = self.outside(pair[0].tuple.dst);
        for one in &mut pair {
            one.follow = Some(self.follow((one.tuple.dst, one.tuple.dport)));
            one.tuple.dst = address;
        }
        let wanted = pair[0].tuple.dport;
        let limits = limits(media.class, true);
        let mut port = wanted;
        let ids = loop {
            (pair[0].tuple.dport, pair[1].tuple.dport) = (port, port | 1);
            match self.visit.expect(&pair[0], limits) {
                Ok(first) => match self.visit.expect(&pair[1], limits) {
                    Ok(second) => break [first, second],
                    Err(error) => {
                        self.visit.conntrack.unexpect(first);
                        if error != ExpectError::Busy {
                            return Err(DropReason::Helper);
                        }
                    }
                },
                Err(ExpectError::Busy) => {}
                Err(_) => return Err(DropReason::Helper),
            }
            port = port.checked_add(2).ok_or(DropReason::Helper)?;
        };
        if port == wanted {
            return Ok(address);
        }
        self.replace_port(media.port, port).map(|()| address).inspect_err(|_| {
            for id in ids {
                self.visit.conntrack.unexpect(id);
            }
        })
    }

    /// Another port in a media line.
    pub(super) fn replace_port(&mut self, span: Span, port: u16) -> Result<(), DropReason> {
        let mut text = Text::new();
        let written = write!(text, "{port}");
        debug_assert!(written.is_ok(), "five digits");
        self.replace(span, &text)?;
        self.count_body()
    }

    /// Another address in the first such line from `from` on, before the next media line.
    pub(super) fn replace_address(
        &mut self,
        from: usize,
        line: Line,
        address: u128,
    ) -> Result<(), DropReason> {
        match self.dialect.line(self.text(), from, line, Some(Line::Media)) {
            Found::Value(span) => {
                let text = self.spell(address, false);
                self.replace(span, &text)
            }
            _ => Err(DropReason::Helper),
        }
    }

    /// The address of the whole session: its owner's, and the connection's if it has one.
    pub(super) fn replace_session(&mut self, from: usize, address: u128) -> Result<(), DropReason> {
        self.replace_address(from, Line::Owner, address)?;
        let common = self.dialect.line(self.text(), from, Line::Connection, Some(Line::Media));
        if let Found::Value(_) = common {
            self.replace_address(from, Line::Connection, address)?;
        }
        self.count_body()
    }

    /// Writes down how long the session description is now.
    pub(super) fn count_body(&mut self) -> Result<(), DropReason> {
        let text = self.text();
        let Found::Value(version) = self.dialect.line(text, 0, Line::Version, None) else {
            return Err(DropReason::Helper);
        };
        let Found::Value(length) = self.dialect.header(text, 0, Header::ContentLength) else {
            return Err(DropReason::Helper);
        };
        let mut body = Text::new();
        let written = write!(body, "{}", self.len - version.at + b"v=".len());
        debug_assert!(written.is_ok(), "five digits");
        self.replace(length, &body)
    }
}
