//! The network that a described packet goes through where none is given.

use std::net::IpAddr;

use dataplane::fib::{Mode, NeighbourEntry, PortInfo, Realms, RouteEntry, RouteKind, Topology};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::wire::{self, Frame};

use super::Description;
use super::describe::ip;

/// Of these ports, the one the packet comes by has its source behind it, and the one it leaves
/// by everything else. Without an output, the destination is this machine; without an input,
/// the source is.
pub(crate) fn topology(names: &[String], description: &Description) -> Topology {
    let parsed = match wire::parse(&description.frame, Mac::default()) {
        Ok(Frame::Ip(parsed)) => Some(parsed),
        _ => None,
    };
    let family = parsed.as_ref().map(|parsed| parsed.family);
    let port = |(index, name): (usize, &String)| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.clone(),
        mac: Mac([2, 0, 0, 0, 0xff, index as u8]),
        mtu: 1500,
        // Something that MASQUERADE and REDIRECT can take.
        addresses: family.map(|family| made_up_address(family, index)).into_iter().collect(),
        up: true,
    };
    let mut topology = Topology {
        mode: Mode::Routed,
        ports: names.iter().enumerate().map(port).collect(),
        routes: vec![],
        rules: vec![],
        neighbours: vec![],
    };
    let Some(parsed) = parsed else { return topology };
    let full = if parsed.family == Family::V4 { 32 } else { 128 };
    let (src, dst) = (ip(parsed.family, parsed.src), ip(parsed.family, parsed.dst));
    let index = |wanted: &Option<String>| {
        names.iter().position(|name| Some(name) == wanted.as_ref()).map(|i| PortId(i as u8))
    };
    let unicast = |to: IpAddr, port| RouteEntry {
        to: (to, full),
        via: None,
        kind: RouteKind::Unicast(port),
        table: 254,
        metric: 0,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms::default(),
    };
    let (input, output) = (index(&description.input), index(&description.output));
    match (input, output) {
        (_, Some(output)) => {
            topology.routes.push(unicast(dst, output));
            // What a translation makes of the destination is there too.
            let any = (ip(parsed.family, 0), 0);
            let default = RouteEntry { to: any, via: Some(dst), ..unicast(dst, output) };
            topology.routes.push(default);
            let mac = Mac([2, 0, 0, 0, 0xfe, 1]);
            topology.neighbours.push(NeighbourEntry { port: output, address: dst, mac });
        }
        (Some(input), None) => topology.ports[input.index()].addresses.push((dst, full)),
        (None, None) => {}
    }
    match (input, output) {
        (Some(input), _) => {
            topology.routes.push(unicast(src, input));
            let mac = Mac([2, 0, 0, 0, 0xfe, 0]);
            topology.neighbours.push(NeighbourEntry { port: input, address: src, mac });
        }
        (None, Some(output)) => topology.ports[output.index()].addresses.push((src, full)),
        (None, None) => {}
    }
    topology
}

/// 2001:db8::ffff:0.
const MADE_UP_V6: u128 = 0x2001_0db8_0000_0000_0000_0000_ffff_0000;

/// The address of a made-up port, from a range for documentation.
fn made_up_address(family: Family, port: usize) -> (IpAddr, u8) {
    match family {
        Family::V4 => (ip(family, 0xc633_64c8 + port as u128), 32),
        Family::V6 => (ip(family, MADE_UP_V6 + port as u128), 128),
    }
}
