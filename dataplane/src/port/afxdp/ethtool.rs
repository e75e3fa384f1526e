//! What a device says of itself when asked as `ethtool` asks: its driver, rings,
//! offloads, and how it spreads flows. Nothing here changes a device.
//!
//! A device that has no such thing answers with an error of kind `Unsupported`.

use std::io;

use super::sys;

/// Who drives a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Driver {
    /// The driver's name.
    pub name: String,
    /// Its version; usually the kernel's.
    pub version: String,
    /// The device's firmware, if it says.
    pub firmware: String,
}

/// Sizes of a device's own rings, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// To receive.
    pub rx: u32,
    /// The largest possible.
    pub rx_max: u32,
    /// To send.
    pub tx: u32,
    /// The largest possible.
    pub tx_max: u32,
}

/// One offload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offload {
    /// The kernel's name, as `rx-vlan-hw-parse`.
    pub name: String,
    /// Whether it is at work.
    pub active: bool,
    /// Whether it can be switched.
    pub changeable: bool,
}

/// How a device chooses the receive queue of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spreading {
    /// Whether by a Toeplitz hash.
    pub toeplitz: bool,
    /// Whether source and destination are exchanged alike before hashing
    /// (`xfrm symmetric-xor`), so that both directions of a flow meet.
    pub symmetric: bool,
    /// The hash key.
    pub key: Vec<u8>,
    /// The queue of each part of the hash.
    pub queues: Vec<u32>,
    /// Whether the ports of TCP and UDP over IPv4, then over IPv6, are hashed.
    pub ports_hashed: [bool; 4],
}

/// Flow types (`TCP_V4_FLOW`, `UDP_V4_FLOW`, `TCP_V6_FLOW`, `UDP_V6_FLOW`).
const FLOWS: [u32; 4] = [1, 2, 5, 6];

/// Text up to the first zero byte.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The driver of a device (`ethtool -i`).
///
/// # Errors
/// The kernel's answer.
pub fn driver(device: &str) -> io::Result<Driver> {
    const ETHTOOL_GDRVINFO: u32 = 3;
    // Five texts of 32 bytes, 12 reserved ones, and five counts.
    let mut info = [0_u32; 1 + 5 * 8 + 3 + 5];
    info[0] = ETHTOOL_GDRVINFO;
    sys::ethtool(device, &mut info)?;
    Ok(Driver {
        name: text(&info[1..9]),
        version: text(&info[9..17]),
        firmware: text(&info[17..25]),
    })
}

/// The rings of a device (`ethtool -g`).
///
/// # Errors
/// The kernel's answer.
pub fn rings(device: &str) -> io::Result<Rings> {
    const ETHTOOL_GRINGPARAM: u32 = 0x10;
    let mut words = [0_u32; 9];
    words[0] = ETHTOOL_GRINGPARAM;
    sys::ethtool(device, &mut words)?;
    let [_, rx_max, _, _, tx_max, rx, _, _, tx] = words;
    Ok(Rings { rx, rx_max, tx, tx_max })
}

/// Offloads that a kernel may know; today's know half as many.
const OFFLOADS_MAX: usize = 256;
/// Words of an offload's name.
const NAME_WORDS: usize = 8;

/// The offloads of a device (`ethtool -k`).
///
/// # Errors
/// The kernel's answer.
pub fn offloads(device: &str) -> io::Result<Vec<Offload>> {
    const ETHTOOL_GSTRINGS: u32 = 0x1b;
    const ETHTOOL_GSSET_INFO: u32 = 0x37;
    const ETHTOOL_GFEATURES: u32 = 0x3a;
    const ETH_SS_FEATURES: u32 = 4;
    const BLOCKS: usize = OFFLOADS_MAX / 32;
    let mut sizes = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    sys::ethtool(device, &mut sizes)?;
    let count = sizes[4] as usize;
    // The kernel writes as many names as it has.
    if count > OFFLOADS_MAX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut names = [0_u32; 3 + OFFLOADS_MAX * NAME_WORDS];
    (names[0], names[1], names[2]) = (ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32);
    sys::ethtool(device, &mut names)?;
    let mut values = [0_u32; 2 + BLOCKS * 4];
    (values[0], values[1]) = (ETHTOOL_GFEATURES, BLOCKS as u32);
    sys::ethtool(device, &mut values)?;
    let named = names[3..].chunks_exact(NAME_WORDS).take(count).enumerate();
    let offload = |(index, name): (usize, &[u32])| {
        // Each block: available, requested, active, never changed.
        let block = &values[2 + index / 32 * 4..][..4];
        let bit = |word: u32| word >> (index % 32) & 1 == 1;
        let changeable = bit(block[0]) && !bit(block[3]);
        Offload { name: text(name), active: bit(block[2]), changeable }
    };
    Ok(named.map(offload).filter(|offload| !offload.name.is_empty()).collect())
}

/// How a device spreads flows (`ethtool -x`).
///
/// # Errors
/// The kernel's answer.
pub fn spreading(device: &str) -> io::Result<Spreading> {
    const TOEPLITZ: u8 = 1;
    let hash = sys::receive_hash(device)?;
    let ports = |flow| sys::hashes_ports(device, flow).unwrap_or(false);
    Ok(Spreading {
        toeplitz: hash.function == TOEPLITZ,
        symmetric: hash.transform != 0,
        key: hash.key,
        queues: hash.queues,
        ports_hashed: FLOWS.map(ports),
    })
}

/// Rules that steer single flows to queues (`ethtool -n`).
///
/// # Errors
/// The kernel's answer.
pub fn steering_rules(device: &str) -> io::Result<u32> {
    const ETHTOOL_GRXCLSRLCNT: u32 = 0x2e;
    // `struct ethtool_rxnfc`: the count follows the filter, 192 bytes in.
    let mut value = [0_u32; 52];
    value[0] = ETHTOOL_GRXCLSRLCNT;
    sys::ethtool(device, &mut value)?;
    Ok(value[RULE_COUNT])
}

/// Word of `rule_cnt` in `struct ethtool_rxnfc`.
const RULE_COUNT: usize = 46;
