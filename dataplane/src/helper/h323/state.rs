//! What is remembered of a connection: ports that were announced, and those that
//! the other side was told instead.

use super::Message;
use crate::conntrack::{Direction, Memory};

/// Pairs of media ports that a connection may have.
const PAIRS: usize = 4;

/// A port in each direction, in one number.
fn ports(pair: u32) -> [u16; 2] {
    [pair as u16, (pair >> 16) as u16]
}

fn with(pair: u32, direction: Direction, port: u16) -> u32 {
    let mut both = ports(pair);
    both[direction as usize] = port;
    u32::from(both[1]) << 16 | u32::from(both[0])
}

impl Message<'_, '_, '_> {
    fn memory(&self) -> Memory {
        self.visit.conntrack.memory(self.visit.conn.id).unwrap_or_default()
    }

    fn remember(&self, change: impl FnOnce(&mut Memory)) {
        self.visit.conntrack.change_memory(self.visit.conn.id, change);
    }

    /// The signalling port of this packet's sender, and the one that stands for it on
    /// the other side; zero for none.
    pub(super) fn signal_ports(&self) -> (u16, u16) {
        let both = ports(self.memory().unshifted[0]);
        let way = self.visit.direction;
        (both[way as usize], both[way.opposite() as usize])
    }

    pub(super) fn remember_signal_port(&self, own: u16) {
        let way = self.visit.direction;
        self.remember(|memory| memory.unshifted[0] = with(memory.unshifted[0], way, own));
    }

    pub(super) fn remember_signal_ports(&self, own: u16, outside: u16) {
        let way = self.visit.direction;
        self.remember(|memory| {
            memory.unshifted[0] = with(with(0, way, own), way.opposite(), outside);
        });
    }

    /// Where to keep the media port `own`: where it is already, or the first free
    /// place. `None`: there are enough.
    pub(super) fn media_place(&self, own: u16) -> Option<usize> {
        let memory = self.memory();
        let way = self.visit.direction as usize;
        (0..PAIRS).find(|&at| {
            let port = ports(memory.numbers[at / 2][at % 2])[way];
            port == own || port == 0
        })
    }

    pub(super) fn remember_media(&self, place: usize, own: u16, outside: u16) {
        let way = self.visit.direction;
        self.remember(|memory| {
            let pair = &mut memory.numbers[place / 2][place % 2];
            *pair = with(with(0, way, own), way.opposite(), outside);
        });
    }

    /// How long a registration is to live, in seconds.
    pub(super) fn lifetime(&self) -> u32 {
        self.memory().flags
    }

    pub(super) fn remember_lifetime(&self, seconds: u32) {
        self.remember(|memory| memory.flags = seconds);
    }

    /// How many bytes a header announced that came alone.
    pub(super) fn awaited(&self) -> u16 {
        ports(self.memory().flags)[self.visit.direction as usize]
    }

    pub(super) fn await_bytes(&self, count: u16) {
        let way = self.visit.direction;
        if self.awaited() != count {
            self.remember(|memory| memory.flags = with(memory.flags, way, count));
        }
    }
}
