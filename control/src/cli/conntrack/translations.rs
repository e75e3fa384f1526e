//! `portcullis show nat`: what is being translated, and to what.

use super::parse::{Action, Request as Parsed, parse};
use super::{Caller, Voice};
use crate::api::protocol::{
    ConntrackQuery, ConntrackRow, NatEnd, NatFilter, StatusName, TupleInfo,
};
use crate::api::{Request, Response};
use crate::cli::client::unexpected;
use crate::cli::table::{Align, Table};
use crate::cli::{Exit, Output, Socket};
use crate::conntrack::protocol_name;
use crate::iptables::TableNames;

/// Rows fetched at a time.
const PAGE: u32 = 1000;

/// Which translations.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Filters, as `portcullis conntrack list` takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FILTERS")]
    pub words: Vec<String>,
}

/// Shows live translations.
pub fn show(args: &Args, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let names = TableNames::of_host();
    let mut words = vec![Action::List.name().to_owned()];
    words.extend_from_slice(&args.words);
    let wanted = match parse(&words, &names) {
        Ok(Parsed::Do(wanted)) if wanted.action == Action::List && !wanted.expect => *wanted,
        Ok(_) => {
            output.line(format_args!("Usage: portcullis show nat [FILTERS]\n\n{}", super::FILTERS));
            return Ok(());
        }
        Err(error) => {
            output.error(error);
            return Err(Exit::Usage);
        }
    };
    let output = Output::new(output.json() || wanted.json);
    let socket = wanted.socket.clone().map_or_else(|| socket.clone(), |socket| Socket { socket });
    let caller = Caller { socket, output, voice: Voice::Portcullis, names: &names };
    let mut filter = wanted.filter;
    filter.nat = filter.nat.or(Some(NatFilter { which: NatEnd::Any, to: None }));
    let mut query = ConntrackQuery { filter, limit: PAGE, ..ConntrackQuery::default() };
    loop {
        let Response::Conntrack(page) = caller.ask(Request::ShowConntrack(query.clone()))? else {
            return Err(unexpected(&output));
        };
        // Each page is a table of its own, so that memory is bounded.
        print(&page.rows, query.cursor == 0, &output);
        match page.next {
            Some(next) => query.cursor = next,
            None => return Ok(()),
        }
    }
}

fn print(rows: &[ConntrackRow], first: bool, output: &Output) {
    if output.json() {
        for row in rows {
            output.object(&serde_json::json!({ "kinds": kinds(row), "connection": row }));
        }
        return;
    }
    let mut table = Table::new(&[
        ("kind", Align::Left),
        ("proto", Align::Left),
        ("original", Align::Left),
        ("translated", Align::Left),
        ("state", Align::Left),
        ("left", Align::Right),
        ("packets", Align::Right),
        ("back", Align::Right),
    ]);
    for row in rows {
        let counted = |tuple: &TupleInfo| {
            tuple.counted.map_or_else(|| "-".to_owned(), |counted| counted.packets.to_string())
        };
        let name = match protocol_name(row.proto) {
            "unknown" => row.proto.to_string(),
            name => name.to_owned(),
        };
        table.row([
            kinds(row).join("+"),
            name,
            way(row.proto, &row.original),
            way(row.proto, &forward(row)),
            row.state.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{} s", row.timeout_s),
            counted(&row.original),
            counted(&row.reply),
        ]);
    }
    if first || !table.is_empty() {
        output.raw(&table.render());
    }
}

/// Which kinds of translation.
fn kinds(row: &ConntrackRow) -> Vec<&'static str> {
    let source = row.status.contains(&StatusName::SrcNat);
    let mut kinds = Vec::new();
    match (&row.masquerade, source) {
        (Some(_), true) => kinds.push("masquerade"),
        (None, true) => kinds.push("snat"),
        (_, false) => {}
    }
    if row.status.contains(&StatusName::DstNat) {
        kinds.push("dnat");
    }
    kinds
}

/// What leaves of the original direction: the reply, turned round.
fn forward(row: &ConntrackRow) -> TupleInfo {
    let reply = &row.reply;
    let icmp = matches!(row.proto, 1 | 58);
    let (sport, dport) =
        if icmp { (reply.sport, row.original.dport) } else { (reply.dport, reply.sport) };
    TupleInfo { src: reply.dst, dst: reply.src, sport, dport, ..reply.clone() }
}

fn way(proto: u8, tuple: &TupleInfo) -> String {
    let TupleInfo { src, dst, sport, dport, .. } = *tuple;
    let end =
        |address: std::net::IpAddr, port: u16| std::net::SocketAddr::new(address, port).to_string();
    match proto {
        6 | 17 | 33 | 132 | 136 => format!("{} -> {}", end(src, sport), end(dst, dport)),
        1 | 58 => format!("{src} -> {dst} id {sport}"),
        _ => format!("{src} -> {dst}"),
    }
}
