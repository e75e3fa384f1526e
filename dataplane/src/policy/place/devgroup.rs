//! `-m devgroup`: the groups of the devices that a packet comes in and leaves by.

use crate::packet::PortId;
use crate::policy::eval::PacketView;
use crate::policy::matches::Neg;

/// `-m devgroup`: values and masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DevGroupMatch {
    /// `--src-group`: of the input device.
    pub src: Option<Neg<(u32, u32)>>,
    /// `--dst-group`: of the output device.
    pub dst: Option<Neg<(u32, u32)>>,
}

impl DevGroupMatch {
    pub(super) fn matches(&self, packet: &PacketView<'_>) -> bool {
        let holds = |asked: Option<Neg<(u32, u32)>>, port: Option<PortId>| {
            asked.is_none_or(|asked| {
                let (value, mask) = asked.value;
                let group = port.map_or(0, |port| packet.network.device_group(port));
                asked.apply((group ^ value) & mask == 0)
            })
        };
        holds(self.src, packet.input) && holds(self.dst, packet.output)
    }
}
