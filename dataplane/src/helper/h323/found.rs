//! What a message says that matters: where addresses stand in it, and what they
//! are for.

use arrayvec::ArrayVec;

/// What a part of a message is noted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing, nor anything in it.
    Skip,
    /// Nothing itself.
    Inside,
    /// Which RAS message it is.
    Message,
    /// A callSignalAddress begins.
    Signal,
    /// A rasAddress or replyAddress begins.
    Ras,
    /// A message's other addresses begin.
    H245,
    Destination,
    Source,
    Alternative,
    /// Why there is a Facility message.
    Reason,
    TimeToLive,
    /// An IP address, with its port behind it.
    V4,
    V6,
    /// A channel begins: one of a fast start, or in a message of H.245.
    FastStart,
    Open,
    Acknowledge,
    /// A channel's parameters that count first, and those that count second.
    First,
    Second,
    /// Addresses in them begin.
    Media,
    Control,
    /// The address of a channel's separate stack begins.
    Stack,
    /// Which protocol carries T.120.
    Protocol,
}

/// Where an IP address stands in a message; its port follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u16,
    pub(super) v6: bool,
}

/// Addresses that there may be several of; `None` for those of other kinds.
pub(super) type Places = ArrayVec<Option<Place>, 10>;

/// A logical channel that is opened, or acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Channel {
    /// In a message of H.245, not in a fast start.
    pub(super) in_h245: bool,
    acknowledges: bool,
    /// Media and media control, of those that count first and second.
    pub(super) media: [[Option<Place>; 2]; 2],
    stack: Option<Place>,
    for_lan: bool,
}

impl Channel {
    /// Where T.120 is to be spoken.
    pub(super) fn t120(&self) -> Option<Place> {
        self.stack.filter(|_| self.acknowledges || self.for_lan)
    }
}

/// The address that began last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
    None,
    Signal,
    Ras,
    H245,
    Destination,
    Source,
    Alternative,
    Media(usize),
    Stack,
}

/// Most channels of a fast start, and messages of H.245 inside another message.
pub(super) const FAST_START: u8 = 30;
pub(super) const TUNNELLED: u8 = 4;
const CHANNELS: usize = FAST_START as usize + TUNNELLED as usize;
/// Index of the reason callForwarded, and of the protocol separateLANStack.
const CALL_FORWARDED: u32 = 1;
const SEPARATE_LAN_STACK: u32 = 10;

/// Everything that was noted of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) message: Option<u32>,
    pub(super) signal: Places,
    pub(super) ras: Places,
    pub(super) h245: Option<Place>,
    pub(super) destination: Option<Place>,
    pub(super) source: Option<Place>,
    pub(super) alternative: Option<Place>,
    pub(super) forwarded: bool,
    /// In seconds.
    pub(super) time_to_live: Option<u32>,
    pub(super) channels: ArrayVec<Channel, CHANNELS>,
    slot: Slot,
    second: bool,
}

impl Found {
    pub(super) fn note(&mut self, mark: Mark, value: u32) {
        match mark {
            Mark::Skip | Mark::Inside => {}
            Mark::Message => self.message = Some(value),
            Mark::Signal => {
                // One more than the type's bound is not noted.
                let _ = self.signal.try_push(None);
                self.slot = Slot::Signal;
            }
            Mark::Ras => {
                let _ = self.ras.try_push(None);
                self.slot = Slot::Ras;
            }
            Mark::H245 => self.slot = Slot::H245,
            Mark::Destination => self.slot = Slot::Destination,
            Mark::Source => self.slot = Slot::Source,
            Mark::Alternative => self.slot = Slot::Alternative,
            Mark::Media => self.slot = Slot::Media(0),
            Mark::Control => self.slot = Slot::Media(1),
            Mark::Stack => self.slot = Slot::Stack,
            Mark::Reason => self.forwarded = value == CALL_FORWARDED,
            Mark::TimeToLive => self.time_to_live = Some(value),
            Mark::V4 | Mark::V6 => self.place(value, mark == Mark::V6),
            Mark::FastStart => self.begin(Channel::default()),
            Mark::Open => self.begin(Channel { in_h245: true, ..Channel::default() }),
            Mark::Acknowledge => {
                self.begin(Channel { in_h245: true, acknowledges: true, ..Channel::default() });
            }
            Mark::First => self.second = false,
            Mark::Second => self.second = true,
            Mark::Protocol => {
                if let Some(channel) = self.channels.last_mut() {
                    channel.for_lan = value == SEPARATE_LAN_STACK;
                }
            }
        }
    }

    fn begin(&mut self, channel: Channel) {
        let _ = self.channels.try_push(channel);
        (self.slot, self.second) = (Slot::None, false);
    }

    fn place(&mut self, at: u32, v6: bool) {
        let Ok(at) = u16::try_from(at) else { return };
        let place = Some(Place { at, v6 });
        let channel = self.channels.last_mut();
        let slot = match self.slot {
            Slot::None => None,
            Slot::Signal => self.signal.last_mut(),
            Slot::Ras => self.ras.last_mut(),
            Slot::H245 => Some(&mut self.h245),
            Slot::Destination => Some(&mut self.destination),
            Slot::Source => Some(&mut self.source),
            Slot::Alternative => Some(&mut self.alternative),
            Slot::Media(which) => {
                channel.map(|channel| &mut channel.media[usize::from(self.second)][which])
            }
            Slot::Stack => channel.map(|channel| &mut channel.stack),
        };
        if let Some(slot) = slot {
            *slot = place;
        }
    }
}
