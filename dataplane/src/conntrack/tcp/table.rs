//! The TCP states and netfilter's transition table.

use super::super::config::Setting;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing seen.
    None = 0,
    /// SYN seen.
    SynSent,
    /// SYN answered by SYN-ACK.
    SynRecv,
    /// Handshake complete, or picked up in the middle.
    Established,
    /// FIN seen.
    FinWait,
    /// FIN acknowledged.
    CloseWait,
    /// FIN from both sides.
    LastAck,
    /// Last FIN acknowledged.
    TimeWait,
    /// Reset.
    Close,
    /// SYN from both sides.
    SynSent2,
}

impl TcpState {
    pub(super) const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];

    /// The name that `conntrack -L` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }

    /// Whether the connection is on its way out, and may be dropped early even when ASSURED.
    pub(in super::super) const fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Close
        )
    }

    pub(super) const fn timeout(self) -> Setting {
        match self {
            Self::None | Self::SynSent => Setting::TcpSynSent,
            Self::SynSent2 => Setting::TcpSynSent2,
            Self::SynRecv => Setting::TcpSynRecv,
            Self::Established => Setting::TcpEstablished,
            Self::FinWait => Setting::TcpFinWait,
            Self::CloseWait => Setting::TcpCloseWait,
            Self::LastAck => Setting::TcpLastAck,
            Self::TimeWait => Setting::TcpTimeWait,
            Self::Close => Setting::TcpClose,
        }
    }
}

/// What the state table says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Go (or stay) there.
    To(TcpState),
    /// Contradicts the connection.
    Invalid,
    /// Passes without a word; the state is kept.
    Ignore,
}

/// By direction, packet class and present state.
#[rustfmt::skip]
pub(super) const TABLE: [[[Move; 10]; 6]; 2] = {
    use Move::{Ignore as IG, Invalid as IV, To};
    const SS: Move = To(TcpState::SynSent);
    const SR: Move = To(TcpState::SynRecv);
    const ES: Move = To(TcpState::Established);
    const FW: Move = To(TcpState::FinWait);
    const CW: Move = To(TcpState::CloseWait);
    const LA: Move = To(TcpState::LastAck);
    const TW: Move = To(TcpState::TimeWait);
    const CL: Move = To(TcpState::Close);
    const S2: Move = To(TcpState::SynSent2);
    [
        // NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [
            [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2], // syn
            [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR], // syn+ack
            [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV], // fin
            [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV], // ack
            [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL], // rst
            [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV], // none
        ],
        [
            [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2], // syn
            [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR], // syn+ack
            [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV], // fin
            [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG], // ack
            [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL], // rst
            [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV], // none
        ],
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as documented: NO SS SR ES FW CW LA TW CL S2, by direction and class.
    const DOCUMENTED: [[&str; 6]; 2] = [
        [
            "SS SS IG IG IG IG IG SS SS S2",
            "IV IV SR IV IV IV IV IV IV SR",
            "IV IV FW FW LA LA LA TW CL IV",
            "ES IV ES ES CW CW TW TW CL IV",
            "IV CL CL CL CL CL CL CL CL CL",
            "IV IV IV IV IV IV IV IV IV IV",
        ],
        [
            "IV S2 IV IV IV IV IV SS IV S2",
            "IV SR IG IG IG IG IG IG IG SR",
            "IV IV FW FW LA LA LA TW CL IV",
            "IV IG SR ES CW CW TW TW CL IG",
            "IV CL CL CL CL CL CL CL CL CL",
            "IV IV IV IV IV IV IV IV IV IV",
        ],
    ];

    #[test]
    fn the_table_is_the_documented_one() {
        const NAMES: [&str; 10] = ["NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2"];
        for (rows, documented) in TABLE.iter().zip(DOCUMENTED) {
            for (row, documented) in rows.iter().zip(documented) {
                let names = row.map(|cell| match cell {
                    Move::To(state) => NAMES[state as usize],
                    Move::Invalid => "IV",
                    Move::Ignore => "IG",
                });
                assert_eq!(names.join(" "), documented);
            }
        }
    }
}
