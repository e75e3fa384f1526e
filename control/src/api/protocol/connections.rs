//! The connection table on the wire.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::FamilyName;

/// Which connections to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConntrackQuery {
    /// Only this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyName>,
    /// Only this layer 4 protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Only connections with this original source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Only connections with this original destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Only connections with this original destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// What else must hold.
    #[serde(default, skip_serializing_if = "ConntrackFilter::is_empty")]
    pub filter: ConntrackFilter,
    /// Where to go on: `next` of the previous page, 0 to begin.
    #[serde(default)]
    pub cursor: u64,
    /// At most this many rows; the daemon sends no more than 10,000.
    pub limit: u32,
}

/// What a connection must be like, in the words of the `conntrack` tool. Everything
/// that is given must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ConntrackFilter {
    /// Network family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyName>,
    /// Layer 4 protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Original source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<AddressFilter>,
    /// Original destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<AddressFilter>,
    /// Source of the replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_src: Option<AddressFilter>,
    /// Destination of the replies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_dst: Option<AddressFilter>,
    /// Original source port, or GRE key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Original destination port, or GRE key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Source port of the replies, or GRE key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_sport: Option<u16>,
    /// Destination port of the replies, or GRE key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_dport: Option<u16>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// ICMP identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// Protocol state, as it is printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Mark under a mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<MarkFilter>,
    /// Status bits that are all set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<StatusName>,
    /// Zone of both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Zone of the original direction alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orig_zone: Option<u16>,
    /// Zone of the reply direction alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_zone: Option<u16>,
    /// Label bits that are all set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<u8>,
    /// What is translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatFilter>,
}

impl ConntrackFilter {
    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An address under a mask.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AddressFilter {
    /// The address.
    pub address: IpAddr,
    /// The bits that count.
    pub mask: IpAddr,
}

/// A mark under a mask.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct MarkFilter {
    /// The value.
    pub value: u32,
    /// The bits that count.
    pub mask: u32,
}

/// A status bit by the name that `conntrack -u` uses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StatusName {
    /// Foreseen by a helper.
    Expected,
    /// Answered.
    SeenReply,
    /// Not answered.
    Unreplied,
    /// Protected from early eviction.
    Assured,
    /// Its timeout is never refreshed.
    FixedTimeout,
    /// Its source is translated.
    SrcNat,
    /// Its destination is translated.
    DstNat,
    /// A helper shifted its sequence numbers.
    SeqAdjust,
    /// A rule gave it a helper.
    Helper,
}

/// What must be translated.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NatFilter {
    /// Which end.
    pub which: NatEnd,
    /// The address that it is translated to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
}

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NatEnd {
    /// The source.
    Source,
    /// The destination.
    Destination,
    /// Either.
    Any,
}

/// Which connections to end.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConntrackDelete {
    /// What they must be like; nothing given: all.
    #[serde(default, skip_serializing_if = "ConntrackFilter::is_empty")]
    pub filter: ConntrackFilter,
    /// Where to go on: `next` of the previous answer, 0 to begin.
    #[serde(default)]
    pub cursor: u64,
    /// At most this many; the daemon ends no more than 10,000 in one answer.
    pub limit: u32,
}

/// Connections that were ended.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Deleted {
    /// How many, in this answer.
    pub deleted: u64,
    /// As they were.
    pub rows: Vec<ConntrackRow>,
    /// `cursor` of the next request; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A page of the connection table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConntrackPage {
    /// Connections now, over all pages and filters.
    pub entries: u64,
    /// Connections at most.
    pub capacity: u64,
    /// The rows.
    pub rows: Vec<ConntrackRow>,
    /// `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One connection.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConntrackRow {
    /// Layer 4 protocol number.
    pub proto: u8,
    /// Seconds left.
    pub timeout_s: u64,
    /// Protocol state (`ESTABLISHED`, ...), for protocols that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The original direction.
    pub original: TupleInfo,
    /// The reply direction.
    pub reply: TupleInfo,
    /// Whether a reply has been seen.
    pub seen_reply: bool,
    /// Whether it is protected from early eviction.
    pub assured: bool,
    /// Connection mark.
    pub mark: u32,
    /// A number that no other connection of this process has (`id=`).
    pub id: u64,
    /// Status bits by name.
    pub status: Vec<StatusName>,
    /// Label bits that are set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<u8>,
    /// Helper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// The port whose address a MASQUERADE took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerade: Option<String>,
    /// `id` of the connection that it was expected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<u64>,
    /// Seconds since 1970 when it began, if that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_s: Option<u64>,
    /// Seconds since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// The row as `conntrack -L` prints it.
    pub text: String,
}

/// One direction of a connection.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TupleInfo {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port, or ICMP identifier.
    pub sport: u16,
    /// Destination port, or ICMP type << 8 | code.
    pub dport: u16,
    /// Zone, unless 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zone: u16,
    /// Packets and bytes that went this way, if they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<CountedInfo>,
}

/// Which events to tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConntrackWatch {
    /// What the connections must be like.
    #[serde(default, skip_serializing_if = "ConntrackFilter::is_empty")]
    pub filter: ConntrackFilter,
    /// Kinds of event; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<EventKindName>,
}

/// A kind of event.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum EventKindName {
    /// A connection began.
    New,
    /// Something of it changed.
    Update,
    /// It ended.
    Destroy,
}

/// An event.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct EventInfo {
    /// Its kind.
    pub kind: EventKindName,
    /// Microseconds since 1970.
    pub at_us: u64,
    /// What changed, as the bits of `--ctevents`.
    pub changes: u32,
    /// The connection after it.
    pub connection: ConntrackRow,
}

/// A connection that a helper expects.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ExpectInfo {
    /// Seconds left.
    pub timeout_s: u64,
    /// Layer 4 protocol number.
    pub proto: u8,
    /// Source, under `mask_src`.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port, under `mask_sport`.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// The bits of the source that count.
    pub mask_src: IpAddr,
    /// The bits of the source port that count.
    pub mask_sport: u16,
    /// `id` of the connection that announced it.
    pub master: u64,
    /// Which of the helper's classes.
    pub class: u8,
    /// The helper that read the announcement.
    pub helper: String,
    /// Serves any number of times.
    pub permanent: bool,
    /// Waits for the announcement to be accepted.
    pub inactive: bool,
    /// The row as `conntrack -L expect` prints it.
    pub text: String,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CountedInfo {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(zone: &u16) -> bool {
    *zone == 0
}
