//! `-m policy`: the IPsec transformation of a packet.
//!
//! No packet here has one: what comes in by a port has not been decrypted, and what
//! the kernel encrypts leaves it encrypted.

use crate::policy::matches::{AddressMask, Neg};

/// `--dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpsecDirection {
    /// `in`.
    In,
    /// `out`.
    Out,
}

/// One transformation of `-m policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpsecElement {
    /// `--reqid`.
    pub reqid: Option<Neg<u32>>,
    /// `--spi`.
    pub spi: Option<Neg<u32>>,
    /// `--proto`: 50, 51 or 108.
    pub proto: Option<Neg<u8>>,
    /// `--mode`: true = tunnel.
    pub tunnel: Option<Neg<bool>>,
    /// `--tunnel-dst`.
    pub tunnel_dst: Option<Neg<AddressMask>>,
    /// `--tunnel-src`.
    pub tunnel_src: Option<Neg<AddressMask>>,
}

/// `-m policy`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IpsecMatch {
    /// `--dir`.
    pub direction: IpsecDirection,
    /// `--pol none`.
    pub none: bool,
    /// `--strict`: all transformations, in order.
    pub strict: bool,
    /// What `--pol ipsec` compares.
    pub elements: Box<[IpsecElement]>,
}

impl IpsecMatch {
    /// The most transformations that one match compares.
    pub const MAX_ELEMENTS: usize = 4;
}
