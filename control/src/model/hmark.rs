//! HMARK as written.

/// `-j HMARK`. `None`: not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HmarkSpec {
    /// `ct` in `--hmark-tuple`.
    pub connection: bool,
    /// `--hmark-src-prefix` as a mask of the family's addresses in the common form.
    pub src_mask: Option<u128>,
    /// `--hmark-dst-prefix`, likewise.
    pub dst_mask: Option<u128>,
    /// `--hmark-sport-mask`.
    pub sport_mask: Option<u16>,
    /// `--hmark-dport-mask`.
    pub dport_mask: Option<u16>,
    /// `--hmark-spi-mask`; never with a mask of ports.
    pub spi_mask: Option<u32>,
    /// `--hmark-sport`.
    pub sport: Option<u16>,
    /// `--hmark-dport`.
    pub dport: Option<u16>,
    /// `--hmark-spi`; never with a port.
    pub spi: Option<u32>,
    /// `--hmark-proto-mask`.
    pub proto_mask: Option<u16>,
    /// `--hmark-rnd`.
    pub seed: u32,
    /// `--hmark-mod`, at least 1.
    pub modulus: u32,
    /// `--hmark-offset`.
    pub offset: Option<u32>,
}
