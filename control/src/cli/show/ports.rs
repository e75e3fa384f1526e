//! `portcullis show ports`.

use crate::api::protocol::{PortStatus, Ports};
use crate::api::{Request, Response};
use crate::cli::client::{ask, unexpected};
use crate::cli::status::render_failure;
use crate::cli::table::{Align, Table};
use crate::cli::{Exit, Output};

pub(super) fn ports(socket: &crate::cli::Socket, output: &Output) -> Result<(), Exit> {
    let Response::Ports(ports) = ask(socket, Request::ShowPorts {}, output)? else {
        return Err(unexpected(output));
    };
    if output.json() {
        output.object(&ports);
    } else {
        output.raw(&render_ports(&ports));
    }
    Ok(())
}

fn render_ports(ports: &Ports) -> String {
    let mut text = format!("mode {}, host road {}\n", ports.mode, ports.host_road);
    text += &ports.failure.as_ref().map(render_failure).unwrap_or_default();
    text.push('\n');
    let mut table = Table::new(&[
        ("port", Align::Left),
        ("link", Align::Left),
        ("xdp", Align::Left),
        ("queues", Align::Right),
        ("copy", Align::Left),
        ("mtu", Align::Right),
        ("mac", Align::Left),
        ("rx packets", Align::Right),
        ("rx bytes", Align::Right),
        ("tx packets", Align::Right),
        ("tx bytes", Align::Right),
        ("addresses", Align::Left),
    ]);
    for port in &ports.ports {
        let zero_copy = port.queues.iter().filter(|queue| queue.zero_copy).count();
        let copy = match zero_copy {
            _ if port.queues.is_empty() => "-",
            0 => "copy",
            all if all == port.queues.len() => "zero-copy",
            _ => "mixed",
        };
        table.row([
            port.name.clone(),
            link_text(port).to_owned(),
            port.xdp.clone(),
            port.queues.len().to_string(),
            copy.to_owned(),
            port.mtu.to_string(),
            port.mac.clone(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.addresses.join(" "),
        ]);
    }
    text.push_str(&table.render());
    for port in &ports.ports {
        for queue in &port.queues {
            let losses: Vec<String> = queue
                .counters
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            if !losses.is_empty() {
                let list = losses.join(", ");
                text.push_str(&format!("{} queue {}: {list}\n", port.name, queue.queue));
            }
        }
    }
    for note in &ports.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn link_text(port: &PortStatus) -> &'static str {
    match (&port.out_of_service, port.up) {
        (Some(_), _) => "out",
        (None, true) => "up",
        (None, false) => "down",
    }
}
