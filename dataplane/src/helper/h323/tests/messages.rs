//! H.323 messages for tests, written from their types: an encoder of packed ASN.1
//! and the fields that matter. It shares nothing with what reads them. (The
//! comparison with the kernel includes this file, too.)

#![allow(dead_code, unreachable_pub, reason = "several tests use their parts of it")]

use std::net::IpAddr;

/// An address and its port.
pub type At = (IpAddr, u16);

/// Bits, the first of them in the highest bit of the first byte.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// In the last byte.
    used: usize,
}

impl Writer {
    pub fn bits(&mut self, value: u64, count: usize) -> &mut Self {
        for at in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let bit = (value >> at & 1) as u8;
            *self.bytes.last_mut().unwrap() |= bit << (7 - self.used);
            self.used = (self.used + 1) % 8;
        }
        self
    }
    pub fn flags(&mut self, flags: &[bool]) -> &mut Self {
        for &flag in flags {
            self.bits(flag.into(), 1);
        }
        self
    }
    /// Whole bytes, aligned.
    pub fn octets(&mut self, bytes: &[u8]) -> &mut Self {
        self.used = 0;
        self.bytes.extend(bytes);
        self
    }
    pub fn word(&mut self, value: u16) -> &mut Self {
        self.octets(&value.to_be_bytes())
    }
    pub fn length(&mut self, length: usize) -> &mut Self {
        match length {
            0..128 => self.octets(&[length as u8]),
            _ => self.word(length as u16 | 0x8000),
        }
    }
    /// Bytes behind their length.
    pub fn counted(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len()).octets(bytes)
    }
    /// A number of at least one byte behind its length in two bits.
    pub fn long(&mut self, value: u32) -> &mut Self {
        let bytes = value.to_be_bytes();
        let from = (value.leading_zeros() / 8).min(3) as usize;
        self.bits(3 - from as u64, 2).octets(&bytes[from..])
    }
    /// Extensions by number, of so many that the sender knows.
    pub fn extensions(&mut self, known: usize, present: &[(usize, Vec<u8>)]) -> &mut Self {
        self.bits(known as u64 - 1, 7);
        for at in 0..known {
            self.bits(present.iter().any(|one| one.0 == at).into(), 1);
        }
        for (_, bytes) in present {
            self.counted(bytes);
        }
        self
    }
    pub fn name(&mut self, text: &str) -> &mut Self {
        self.bits(text.len() as u64 - 1, 7);
        let wide: Vec<u8> = text.bytes().flat_map(|byte| [0, byte]).collect();
        self.octets(&wide)
    }
    pub fn done(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// H.225.0's TransportAddress.
fn signal(w: &mut Writer, (ip, port): At) {
    match ip {
        IpAddr::V4(_) => w.bits(0, 4),
        IpAddr::V6(_) => w.bits(3, 4).bits(0, 1),
    };
    w.octets(&octets(ip)).word(port);
}

fn signals(w: &mut Writer, all: &[At]) {
    w.length(all.len());
    all.iter().for_each(|at| signal(w, *at));
}

/// H.245's TransportAddress.
fn media(w: &mut Writer, (ip, port): At) {
    let kind = if ip.is_ipv4() { 0 } else { 2 };
    w.bits(0, 2).bits(kind, 4).bits(0, 1).octets(&octets(ip)).word(port);
}

/// With a vendor and a terminal.
fn endpoint(w: &mut Writer) {
    w.flags(&[false]).bits(0b01_0001, 6);
    // Vendor: with the name of a product.
    w.flags(&[false, true, false]).flags(&[false]).octets(&[181, 0]).word(18);
    w.octets(&[3]).octets(b"desk");
    w.flags(&[false, false]).flags(&[false, false]);
}

fn aliases(w: &mut Writer) {
    w.length(2);
    w.flags(&[false]).bits(0, 1).bits(3, 7).octets(&[0x12, 0x34]);
    w.flags(&[false]).bits(1, 1).octets(&[1]).octets(b"\0a\0b");
}

const PROTOCOL: &[u8] = &[6, 0, 8, 0x91, 0x4a, 0, 4];

fn ras(index: u64, extended: bool) -> Writer {
    let mut w = Writer::default();
    w.flags(&[false]).bits(index, 5).flags(&[extended]);
    w
}

pub fn gatekeeper_request(at: At) -> Vec<u8> {
    let mut w = ras(0, false);
    w.bits(0, 4).word(7).octets(PROTOCOL);
    signal(&mut w, at);
    endpoint(&mut w);
    w.done()
}

pub fn gatekeeper_confirm(at: At) -> Vec<u8> {
    let mut w = ras(1, false);
    w.bits(0b01, 2).word(7).octets(PROTOCOL).name("gate");
    signal(&mut w, at);
    w.done()
}

/// With what a recent terminal adds behind its lifetime.
pub fn registration_request(call: &[At], own: &[At], lifetime: Option<u32>) -> Vec<u8> {
    let mut w = ras(3, true);
    w.bits(0b010, 3).word(7).octets(PROTOCOL).flags(&[true]);
    signals(&mut w, call);
    signals(&mut w, own);
    endpoint(&mut w);
    aliases(&mut w);
    w.flags(&[false, false, false, false]).octets(&[181, 0]).word(18);
    let mut more = Vec::new();
    more.extend(lifetime.map(|seconds| (1, Writer::default().long(seconds - 1).done())));
    more.extend([(5, vec![0x80]), (7, vec![0])]);
    w.extensions(19, &more);
    w.done()
}

/// Nothing behind the lifetime.
pub fn short_registration_request(call: &[At], lifetime: u32) -> Vec<u8> {
    let mut w = ras(3, true);
    w.bits(0, 3).word(7).octets(PROTOCOL).flags(&[true]);
    signals(&mut w, call);
    signals(&mut w, &[]);
    endpoint(&mut w);
    w.flags(&[false, false, false, false]).octets(&[181, 0]).word(18);
    w.extensions(2, &[(1, Writer::default().long(lifetime - 1).done())]);
    w.done()
}

pub fn registration_confirm(call: &[At], lifetime: Option<u32>) -> Vec<u8> {
    let mut w = ras(4, true);
    w.bits(0b010, 3).word(7).octets(PROTOCOL);
    signals(&mut w, call);
    aliases(&mut w);
    w.name("end");
    let mut more = Vec::new();
    more.extend(lifetime.map(|seconds| (1, Writer::default().long(seconds - 1).done())));
    more.push((5, vec![0, 0, 0, 0, 0]));
    w.extensions(10, &more);
    w.done()
}

pub fn unregistration_request(call: &[At]) -> Vec<u8> {
    let mut w = ras(6, false);
    w.bits(0, 3).word(7);
    signals(&mut w, call);
    w.done()
}

pub fn admission_request(to: Option<At>, from: Option<At>) -> Vec<u8> {
    let mut w = ras(9, false);
    w.flags(&[true, true, to.is_some(), false, from.is_some(), false, false]);
    w.word(7).bits(0, 3).bits(0, 2).name("end");
    aliases(&mut w);
    to.iter().for_each(|at| signal(&mut w, *at));
    aliases(&mut w);
    from.iter().for_each(|at| signal(&mut w, *at));
    w.long(1280).word(9);
    w.done()
}

pub fn admission_confirm(at: At) -> Vec<u8> {
    let mut w = ras(10, false);
    w.bits(0, 2).word(7).long(1280).bits(0, 2);
    signal(&mut w, at);
    w.done()
}

pub fn location_request(at: At) -> Vec<u8> {
    let mut w = ras(18, false);
    w.bits(0b10, 2).word(7).name("end");
    aliases(&mut w);
    signal(&mut w, at);
    w.done()
}

pub fn location_confirm(call: At, own: At) -> Vec<u8> {
    let mut w = ras(19, false);
    w.bits(0, 1).word(7);
    signal(&mut w, call);
    signal(&mut w, own);
    w.done()
}

pub fn info_response(own: At, call: &[At]) -> Vec<u8> {
    let mut w = ras(22, false);
    w.bits(0, 3).word(7);
    endpoint(&mut w);
    w.name("end");
    signal(&mut w, own);
    signals(&mut w, call);
    w.done()
}

/// H.225.0's message in a call, by its fields.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub h245: Option<At>,
    pub destination: Option<At>,
    pub source: Option<At>,
    pub alternative: Option<At>,
    /// Channels as [`open`] makes them.
    pub fast_start: Vec<Vec<u8>>,
    /// Messages of H.245.
    pub tunnelled: Vec<Vec<u8>>,
    /// Extensions that the sender of a Setup knows; at least 9.
    pub known: usize,
}

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Setup,
    CallProceeding,
    Connect,
    Alerting,
    ReleaseComplete,
    Facility,
    Progress,
}

impl Body {
    pub const ALL: [Self; 7] = [
        Self::Setup,
        Self::CallProceeding,
        Self::Connect,
        Self::Alerting,
        Self::ReleaseComplete,
        Self::Facility,
        Self::Progress,
    ];
}

const CONFERENCE: [u8; 16] = [0x5a; 16];

fn wrapped_list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut w = Writer::default();
    w.length(items.len());
    for item in items {
        w.counted(item);
    }
    w.done()
}

impl Call {
    /// In a TPKT.
    pub fn packet(&self, body: Body) -> Vec<u8> {
        tpkt(&self.q931(body))
    }

    /// The message of Q.931.
    pub fn q931(&self, body: Body) -> Vec<u8> {
        let user = self.user(body);
        // Behind a bearer capability and a display name.
        let mut message = vec![8, 2, 0, 1, 5, 4, 3, 0x88, 0x93, 0xa5, 0x28, 2, b'h', b'i', 0x7e];
        message.extend((user.len() as u16 + 1).to_be_bytes());
        message.push(5);
        message.extend(user);
        message
    }

    /// The user information.
    pub fn user(&self, body: Body) -> Vec<u8> {
        let mut w = Writer::default();
        let tunnels = !self.tunnelled.is_empty();
        w.flags(&[false, false]).flags(&[tunnels, false]);
        match body {
            Body::Setup => self.setup(w.flags(&[false]).bits(0, 3)),
            Body::CallProceeding => self.proceeding(w.flags(&[false]).bits(1, 3), 9),
            Body::Connect => self.connect(w.flags(&[false]).bits(2, 3)),
            Body::Alerting => self.proceeding(w.flags(&[false]).bits(3, 3), 14),
            Body::ReleaseComplete => {
                w.flags(&[false]).bits(5, 3).flags(&[false, true]).octets(PROTOCOL).bits(3, 5);
            }
            Body::Facility => self.facility(w.flags(&[false]).bits(6, 3)),
            Body::Progress => {
                let mut inner = Writer::default();
                self.progress(&mut inner);
                w.flags(&[true]).bits(0, 7).counted(&inner.done());
            }
        }
        if tunnels {
            w.extensions(9, &[(1, vec![0x80]), (2, wrapped_list(&self.tunnelled))]);
        }
        w.done()
    }

    fn fast(&self, at: usize) -> Vec<(usize, Vec<u8>)> {
        let list = (!self.fast_start.is_empty()).then(|| (at, wrapped_list(&self.fast_start)));
        list.into_iter().collect()
    }

    fn address(w: &mut Writer, at: Option<At>) {
        at.iter().for_each(|at| signal(w, *at));
    }

    fn setup(&self, w: &mut Writer) {
        let mut more = Vec::new();
        more.extend(self.source.map(|at| {
            let mut w = Writer::default();
            signal(&mut w, at);
            (0, w.done())
        }));
        more.push((2, [&[0][..], &CONFERENCE].concat()));
        more.extend(self.fast(6));
        w.flags(&[true, self.h245.is_some(), true, false, self.destination.is_some()]);
        w.flags(&[false, false, false]).octets(PROTOCOL);
        Self::address(w, self.h245);
        aliases(w);
        endpoint(w);
        Self::address(w, self.destination);
        w.flags(&[false]).octets(&CONFERENCE).bits(0, 3).bits(0, 3);
        w.extensions(self.known.max(9), &more);
    }

    /// CallProceeding and Alerting.
    fn proceeding(&self, w: &mut Writer, known: usize) {
        w.flags(&[true, self.h245.is_some()]).octets(PROTOCOL);
        endpoint(w);
        Self::address(w, self.h245);
        w.extensions(known, &[vec![(0, [&[0][..], &CONFERENCE].concat())], self.fast(4)].concat());
    }

    fn connect(&self, w: &mut Writer) {
        w.flags(&[true, self.h245.is_some()]).octets(PROTOCOL);
        Self::address(w, self.h245);
        endpoint(w);
        w.octets(&CONFERENCE);
        w.extensions(15, &[vec![(0, [&[0][..], &CONFERENCE].concat())], self.fast(4)].concat());
    }

    fn facility(&self, w: &mut Writer) {
        let mut more = Vec::new();
        more.extend(self.h245.map(|at| {
            let mut w = Writer::default();
            signal(&mut w, at);
            (6, w.done())
        }));
        more.extend(self.fast(7));
        w.flags(&[true, self.alternative.is_some(), true, false]).octets(PROTOCOL);
        Self::address(w, self.alternative);
        aliases(w);
        w.flags(&[false]).bits(if self.alternative.is_some() { 1 } else { 3 }, 2);
        w.extensions(9, &more);
    }

    fn progress(&self, w: &mut Writer) {
        let fast = !self.fast_start.is_empty();
        w.flags(&[false, self.h245.is_some(), true, false, false, fast]).octets(PROTOCOL);
        endpoint(w);
        Self::address(w, self.h245);
        w.flags(&[false]).octets(&CONFERENCE);
        // No security.
        w.flags(&[false]).bits(1, 2);
        if fast {
            w.octets(&wrapped_list(&self.fast_start));
        }
    }
}

/// Behind a header.
pub fn tpkt(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u16 + 4;
    [&[3, 0][..], &length.to_be_bytes(), message].concat()
}

/// A logical channel's parameters for RTP.
fn h2250(media_at: Option<At>, control: Option<At>) -> Vec<u8> {
    let mut w = Writer::default();
    w.flags(&[false, false, false, media_at.is_some(), false, control.is_some()]);
    // Silence suppression, which comes last.
    w.flags(&[false, true, false, false, false]).octets(&[1]);
    media_at.iter().for_each(|at| media(&mut w, *at));
    control.iter().for_each(|at| media(&mut w, *at));
    w.flags(&[true]);
    w.done()
}

/// What a channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    Nothing,
    G711,
    G7231,
    H261,
    H263,
    T120,
    UserData,
}

fn data_type(w: &mut Writer, carries: Carries) {
    match carries {
        Carries::Nothing => w.flags(&[false]).bits(1, 3),
        Carries::G711 => w.flags(&[false]).bits(3, 3).flags(&[false]).bits(3, 4).octets(&[29]),
        Carries::G7231 => {
            w.flags(&[false]).bits(3, 3).flags(&[false]).bits(8, 4).octets(&[0]).flags(&[true])
        }
        Carries::H261 => {
            w.flags(&[false]).bits(2, 3).flags(&[false]).bits(1, 3);
            w.flags(&[false, true, true]).bits(0, 4).flags(&[false]).word(6217).flags(&[false])
        }
        Carries::H263 => {
            w.flags(&[false]).bits(2, 3).flags(&[false]).bits(3, 3);
            w.flags(&[false, false, true, true, false, false, false, true]);
            w.bits(0, 10).long(6217).bits(0, 5).word(900)
        }
        Carries::T120 => {
            w.flags(&[false]).bits(4, 3).flags(&[false]).flags(&[false]).bits(1, 4);
            w.flags(&[true]).bits(3, 7).counted(&[0]).long(621)
        }
        Carries::UserData => {
            w.flags(&[false]).bits(4, 3).flags(&[false]).flags(&[false]).bits(3, 4);
            w.flags(&[false]).bits(6, 3).long(621)
        }
    };
}

/// OpenLogicalChannel, by its fields.
#[derive(Clone, Debug)]
pub struct Open {
    pub carries: Carries,
    pub forward: Option<(Option<At>, Option<At>)>,
    pub reverse: Option<(Option<At>, Option<At>)>,
    pub stack: Option<At>,
}

fn stack(at: At) -> Vec<u8> {
    let mut w = Writer::default();
    w.flags(&[false, true, false]).bits(0, 2).flags(&[false]).bits(2, 2);
    media(&mut w, at);
    w.flags(&[true]);
    w.done()
}

/// A channel for audio whose sender receives there.
pub fn open(media: Option<At>, control: Option<At>) -> Open {
    Open { carries: Carries::G711, forward: Some((media, control)), reverse: None, stack: None }
}

impl Open {
    /// As in a fast start.
    pub fn channel(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.flags(&[self.stack.is_some(), self.reverse.is_some()]).word(99);
        self.rest(&mut w);
        w.done()
    }

    /// As a message of H.245.
    pub fn message(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.flags(&[false]).bits(0, 2).flags(&[false]).bits(3, 4);
        w.flags(&[self.stack.is_some(), self.reverse.is_some()]).word(99);
        self.rest(&mut w);
        w.done()
    }

    fn rest(&self, w: &mut Writer) {
        w.flags(&[false, false]);
        data_type(w, self.carries);
        match self.forward {
            Some((media, control)) => w.flags(&[true]).bits(0, 7).counted(&h2250(media, control)),
            None => w.flags(&[true]).bits(1, 7).counted(&[0]),
        };
        if let Some((media, control)) = self.reverse {
            w.flags(&[false, true]);
            data_type(w, Carries::H263);
            w.flags(&[true]).bits(0, 7).counted(&h2250(media, control));
        }
        if let Some(at) = self.stack {
            w.extensions(2, &[(0, stack(at))]);
        }
    }
}

/// OpenLogicalChannelAck: of the reverse channel, of the forward one, and T.120.
pub fn acknowledge(
    reverse: Option<(Option<At>, Option<At>)>,
    forward: Option<(Option<At>, Option<At>)>,
    t120: Option<At>,
) -> Vec<u8> {
    let mut w = Writer::default();
    w.flags(&[false]).bits(1, 2).flags(&[false]).bits(5, 5);
    let mut more = Vec::new();
    more.extend(t120.map(|at| (0, stack(at))));
    more.extend(forward.map(|(media_at, control)| {
        let mut w = Writer::default();
        w.flags(&[false]).flags(&[false, false, true, media_at.is_some(), control.is_some()]);
        w.flags(&[false]).bits(0, 8);
        media_at.iter().for_each(|at| media(&mut w, *at));
        control.iter().for_each(|at| media(&mut w, *at));
        (1, w.done())
    }));
    w.flags(&[!more.is_empty(), reverse.is_some()]).word(99);
    if let Some((media, control)) = reverse {
        w.flags(&[false, false, true]).word(98);
        w.flags(&[true]).bits(0, 7).counted(&h2250(media, control));
    }
    if !more.is_empty() {
        w.extensions(3, &more);
    }
    w.done()
}

/// Other messages of H.245: a request and a command that nobody reads.
pub fn others() -> [Vec<u8>; 2] {
    let mut request = Writer::default();
    request.flags(&[false]).bits(0, 2).flags(&[false]).bits(1, 4).flags(&[false]).octets(&[60]);
    let mut command = Writer::default();
    command.flags(&[false]).bits(2, 2).flags(&[false]).bits(5, 3).octets(&[1, 2, 3]);
    [request.done(), command.done()]
}
