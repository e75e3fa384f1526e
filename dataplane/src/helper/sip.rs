//! SIP: registrations, which make somebody callable, and calls, which bring media
//! streams. Requests and answers are read over UDP and TCP.
//!
//! The kernel's defaults: media and further signalling are expected from the
//! peer's address only (`sip_direct_media`, `sip_direct_signalling`), and a
//! connection that carries SIP lives for `sip_timeout`, an hour.

mod media;
mod nat;
mod scan;
mod text;

use super::{Visit, rewrite};
use crate::clock::Nanos;
use crate::conntrack::{Direction, Limits, Tuple, status};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::proto;
use text::{Dialect, Found, Header, Span};

const TIMEOUT: Nanos = Nanos::from_secs(3600);
const SIGNALLING: u8 = 0;

/// What a class of expectations is allowed.
const fn limits(class: u8, any_master: bool) -> Limits {
    let most = match class {
        SIGNALLING => 1,
        media::IMAGE => 2,
        _ => 4,
    };
    Limits { most, timeout: Nanos::from_secs(180), any_master }
}

/// One message on its way.
struct Message<'m, 'a, 'f> {
    visit: &'m mut Visit<'a, 'f>,
    /// Where it starts in the frame.
    at: usize,
    /// Its length in bytes.
    len: usize,
    /// Changes made in this packet.
    changes: u32,
    dialect: Dialect,
}

/// Where the helper keeps its numbers in a connection's memory.
mod remembered {
    use crate::conntrack::Memory;

    pub(super) fn register(memory: &mut Memory) -> &mut u32 {
        &mut memory.numbers[0][0]
    }
    pub(super) fn invite(memory: &mut Memory) -> &mut u32 {
        &mut memory.numbers[0][1]
    }
    /// Port that answers must go to, if not where the request came from.
    pub(super) fn forced_port(memory: &mut Memory) -> &mut u32 {
        &mut memory.flags
    }
}

/// The shortest beginning of a message that says anything.
const SHORTEST: usize = b"SIP/2.0 200".len();

/// Reads a packet.
pub(super) fn help(mut visit: Visit<'_, '_>) -> Result<(), DropReason> {
    match visit.parsed.proto {
        proto::UDP => datagram(&mut visit),
        proto::TCP => segment(&mut visit),
        _ => Ok(()),
    }
}

fn datagram(visit: &mut Visit<'_, '_>) -> Result<(), DropReason> {
    const HEADER: usize = 8;
    let at = usize::from(visit.parsed.l4) + HEADER;
    let len = visit.end().saturating_sub(at);
    if len == 0 {
        return Ok(());
    }
    visit.conntrack.refresh(visit.conn.id, TIMEOUT, visit.now);
    visit.frame.join_all();
    if len < SHORTEST {
        return Ok(());
    }
    let mut message = Message::new(visit, at, len);
    message.process()?;
    if message.changes > 0 {
        rewrite::settle(visit.frame, visit.parsed);
    }
    Ok(())
}

/// A segment may hold several messages; one that it holds in part is not read.
fn segment(visit: &mut Visit<'_, '_>) -> Result<(), DropReason> {
    let Some((seq, at)) = visit.stream() else { return Ok(()) };
    visit.conntrack.refresh(visit.conn.id, TIMEOUT, visit.now);
    visit.frame.join_all();
    let (before, mut changes) = (visit.end(), 0);
    let mut next = at;
    let mut outcome = Ok(());
    if before - at >= SHORTEST {
        while let Some(len) = whole_message(visit, next) {
            let mut message = Message::new(visit, next, len);
            message.changes = changes;
            outcome = message.process();
            changes = message.changes;
            next += message.len;
            if outcome.is_err() {
                break;
            }
        }
    }
    outcome?;
    if changes > 0 {
        rewrite::settle(visit.frame, visit.parsed);
        let by = visit.end() as i32 - before as i32;
        if by != 0 {
            visit.conntrack.shift(visit.conn.id, visit.direction, seq, by);
        }
    }
    Ok(())
}

/// Length of the message at `at`, if the segment has all of it.
fn whole_message(visit: &Visit<'_, '_>, at: usize) -> Option<usize> {
    let text = visit.frame.get(at..visit.end())?;
    let dialect = Dialect { family: visit.parsed.family, proto: visit.parsed.proto };
    let Found::Value(span) = dialect.header(text, 0, Header::ContentLength) else { return None };
    let (length, end) = scan::decimal(text, span.at);
    const BLANK: &[u8] = b"\r\n\r\n";
    let body = text[end..].windows(BLANK.len()).position(|part| part == BLANK)?;
    let body = end + body + BLANK.len();
    let length = usize::try_from(length).ok()?;
    body.checked_add(length).filter(|&len| len <= text.len())
}

impl<'m, 'a, 'f> Message<'m, 'a, 'f> {
    fn new(visit: &'m mut Visit<'a, 'f>, at: usize, len: usize) -> Self {
        let dialect = Dialect { family: visit.parsed.family, proto: visit.parsed.proto };
        Self { visit, at, len, changes: 0, dialect }
    }

    fn text(&self) -> &[u8] {
        &self.visit.frame[self.at..self.at + self.len]
    }

    /// The connection's tuple this packet's way.
    fn here(&self) -> Tuple {
        *self.visit.tuple(self.visit.direction)
    }

    /// The tuple of what comes back.
    fn back(&self) -> Tuple {
        *self.visit.tuple(self.visit.direction.opposite())
    }

    fn forced_port(&self) -> Option<u16> {
        let mut memory = self.visit.conntrack.memory(self.visit.conn.id)?;
        Some(*remembered::forced_port(&mut memory) as u16).filter(|port| *port != 0)
    }

    fn remember(&self, what: fn(&mut crate::conntrack::Memory) -> &mut u32, value: u32) {
        self.visit.conntrack.change_memory(self.visit.conn.id, |memory| *what(memory) = value);
    }

    fn remembers(&self, what: fn(&mut crate::conntrack::Memory) -> &mut u32, value: u32) -> bool {
        let memory = self.visit.conntrack.memory(self.visit.conn.id);
        memory.is_some_and(|mut memory| *what(&mut memory) == value)
    }

    fn process(&mut self) -> Result<(), DropReason> {
        const ANSWER: &[u8] = b"SIP/2.0 ";
        if self.text().get(..ANSWER.len()).is_some_and(|start| start.eq_ignore_ascii_case(ANSWER)) {
            self.answer()?;
        } else {
            self.request()?;
        }
        if self.visit.is_translated() { self.translate() } else { Ok(()) }
    }

    fn request(&mut self) -> Result<(), DropReason> {
        let here = self.here();
        if let Some(via) = self.dialect.first_uri(self.text(), Header::ViaUdp)
            && (via.address, via.port != here.sport) == (here.src, true)
        {
            self.remember(remembered::forced_port, via.port.into());
        }
        let text = self.text();
        let method = scan::letters(text, 0);
        let addressed = text.get(method) == Some(&b' ')
            && text.get(method + 1).is_some_and(u8::is_ascii_alphabetic);
        let Some(kind) = Method::of(&text[..method]).filter(|_| addressed) else { return Ok(()) };
        let (cseq, _) = self.sequence()?;
        match kind {
            Method::Invite => {
                self.flush(true);
                self.describe()?;
                self.remember(remembered::invite, cseq);
                Ok(())
            }
            Method::Update | Method::Ack | Method::Prack => self.describe(),
            Method::Bye => {
                self.flush(true);
                Ok(())
            }
            Method::Register => self.register(cseq),
        }
    }

    fn answer(&mut self) -> Result<(), DropReason> {
        let (code, _) = scan::decimal(self.text(), b"SIP/2.0 ".len());
        if code as u32 == 0 {
            return Err(DropReason::Helper);
        }
        let (cseq, end) = self.sequence()?;
        let text = self.text();
        let rest = text.get(end + 1..).unwrap_or_default();
        let begins = |method: &&Method| {
            let name = method.name();
            rest.len() >= name.len() && rest[..name.len()].eq_ignore_ascii_case(name)
        };
        let answered = [Method::Invite, Method::Update, Method::Prack, Method::Register];
        match answered.iter().find(begins) {
            None => Ok(()),
            Some(Method::Register) => self.registered(cseq, code),
            Some(_) if (100..300).contains(&code) => self.describe(),
            Some(_) => {
                if self.remembers(remembered::invite, cseq) {
                    self.flush(true);
                }
                Ok(())
            }
        }
    }

    /// The number in CSeq, and where it ends.
    fn sequence(&self) -> Result<(u32, usize), DropReason> {
        match self.dialect.header(self.text(), 0, Header::CSeq) {
            Found::Value(span) => Ok((scan::decimal(self.text(), span.at).0 as u32, span.end())),
            _ => Err(DropReason::Helper),
        }
    }

    /// Ends what is expected: all media, or the signalling.
    fn flush(&self, media: bool) {
        let (id, mut done) = (self.visit.conn.id, false);
        self.visit.conntrack.change_expected(id, self.visit.now, |one, deadline| {
            let ends = (one.class != SIGNALLING) == media && (media || !done);
            done |= ends;
            (!ends).then_some(deadline)
        });
    }

    fn expires(&self) -> Option<u32> {
        match self.dialect.header(self.text(), 0, Header::Expires) {
            Found::Value(span) => Some(scan::decimal(self.text(), span.at).0 as u32),
            _ => None,
        }
    }

    /// Somebody wants to be called: expects calls as soon as the registrar agrees.
    fn register(&mut self, cseq: u32) -> Result<(), DropReason> {
        if self.visit.conn.status & status::EXPECTED != 0 {
            return Ok(());
        }
        let expires = self.expires();
        let Some(contact) = self.dialect.first_uri(self.text(), Header::Contact) else {
            return Ok(());
        };
        let Span { at, len } = contact.span;
        if contact.address != self.here().src {
            return Ok(());
        }
        let Some(protocol) = self.dialect.transport(self.text(), at + len) else { return Ok(()) };
        let own = text::number_param(self.text(), at + len, b"expires=");
        let expires = own.map(|(_, seconds)| seconds as u32).or(expires);
        if expires.unwrap_or(0) != 0 {
            let from = Some(self.back().src);
            let to = (contact.address, contact.port);
            let mut new = self.visit.expectation(HelperKind::Sip, from, to);
            new.tuple.proto = protocol;
            new.helper = Some(HelperKind::Sip);
            (new.permanent, new.inactive) = (true, true);
            if self.visit.is_translated() {
                self.expect_signalling(new, contact.span)?;
            } else {
                let expected = self.visit.expect(&new, limits(SIGNALLING, false));
                expected.map_err(|_| DropReason::Helper)?;
            }
        }
        self.remember(remembered::register, cseq);
        Ok(())
    }

    /// The registrar has answered: what it accepted holds for as long as it says.
    fn registered(&mut self, cseq: u32, code: u64) -> Result<(), DropReason> {
        if !self.remembers(remembered::register, cseq) || (100..200).contains(&code) {
            return Ok(());
        }
        if !(200..300).contains(&code) {
            self.flush(false);
            return Ok(());
        }
        let expires = self.expires().unwrap_or(0);
        let (mut from, mut listing) = (0, false);
        let caller = self.here().dst;
        while let Some(contact) =
            self.dialect.header_uri(self.text(), from, Header::Contact, &mut listing)
        {
            from = contact.end;
            let end = contact.span.end();
            let Some(protocol) =
                self.dialect.transport(self.text(), end).filter(|_| contact.address == caller)
            else {
                continue;
            };
            let own = text::number_param(self.text(), end, b"expires=");
            let expires = own.map_or(expires, |(_, seconds)| seconds as u32);
            if expires == 0 {
                break;
            }
            if self.keep_signalling((contact.address, contact.port, protocol), expires) {
                return Ok(());
            }
        }
        self.flush(false);
        Ok(())
    }

    /// Lets the expectation of calls to this address come into force.
    fn keep_signalling(&self, to: (u128, u16, u8), seconds: u32) -> bool {
        let now = self.visit.now;
        let mut found = false;
        self.visit.conntrack.change_expected(self.visit.conn.id, now, |one, deadline| {
            let place = (one.tuple.dst, one.tuple.dport, one.tuple.proto);
            if found || one.class != SIGNALLING || place != to {
                return Some(deadline);
            }
            found = true;
            one.inactive = false;
            Some(now + Nanos::from_secs(seconds.into()))
        });
        found
    }
}

/// Requests that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Invite,
    Update,
    Ack,
    Prack,
    Bye,
    Register,
}

impl Method {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Invite => b"INVITE",
            Self::Update => b"UPDATE",
            Self::Ack => b"ACK",
            Self::Prack => b"PRACK",
            Self::Bye => b"BYE",
            Self::Register => b"REGISTER",
        }
    }

    fn of(word: &[u8]) -> Option<Self> {
        const ALL: [Method; 6] = [
            Method::Invite,
            Method::Update,
            Method::Ack,
            Method::Prack,
            Method::Bye,
            Method::Register,
        ];
        ALL.into_iter().find(|method| method.name().eq_ignore_ascii_case(word))
    }
}

/// The way that connections expected from this packet will go.
fn answered(direction: Direction) -> Direction {
    direction.opposite()
}
