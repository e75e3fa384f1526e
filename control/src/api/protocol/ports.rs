//! What is told of the ports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FailureInfo;

/// The ports.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Ports {
    /// `routed`, `bridge` or `host`.
    pub mode: String,
    /// How this machine's own packets come and go: `io-uring`, `plain`, or `off` when
    /// they stay with the kernel.
    pub host_road: String,
    /// In the order they were given.
    pub ports: Vec<PortStatus>,
    /// What holds while the daemon is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureInfo>,
    /// Which ports are out of service and why, and what of the kernel's routing could not
    /// be mirrored exactly.
    pub notes: Vec<String>,
}

/// One port.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PortStatus {
    /// Interface name.
    pub name: String,
    /// Up, with carrier.
    pub up: bool,
    /// Link-layer address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// How the XDP program is attached: `native` or `generic`; `none` when it is
    /// out of service.
    pub xdp: String,
    /// Why the port is out of service, when it is: no frame of it is handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_service: Option<String>,
    /// What the XDP program did with its frames, by name.
    pub xdp_counters: BTreeMap<String, u64>,
    /// Its sockets, one per queue.
    pub queues: Vec<QueueStatus>,
    /// Frames received by workers.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames sent by workers.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
}

/// One socket, as the kernel reports it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct QueueStatus {
    /// Queue number.
    pub queue: u32,
    /// The worker that owns it.
    pub worker: usize,
    /// Whether frames cross without a copy.
    pub zero_copy: bool,
    /// The socket's own counters, by name.
    pub counters: BTreeMap<String, u64>,
}
