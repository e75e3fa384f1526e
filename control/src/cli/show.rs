//! `portcullis show`: the policy, ports, statistics and connections of the running daemon.

mod accounts;
mod blocklist;
mod log;
mod management;
mod matrix;
mod metrics;
mod ports;
mod rates;
mod tally;
pub(super) mod unhit;

use std::net::IpAddr;

use dataplane::clock::wall_us;

use super::client::{ask, unexpected};
use super::conntrack::translations;
use super::table::{Align, Table};
use super::{Exit, Output};
use crate::api::protocol::{
    ConntrackFilter, ConntrackPage, ConntrackQuery, ConntrackStats, FamilyName, RuleInfo, Rules,
    Stats,
};
use crate::api::{Request, Response};
use crate::history::stamp;

const EXAMPLES: &str = "Examples:
  portcullis show rules
  portcullis show rules --save > rules.v4
  portcullis show rules -6 --save --counters > rules.v6
  portcullis show rules --unused 7d
  portcullis show ports
  portcullis show management
  portcullis show nfacct
  portcullis --json show stats
  portcullis show log
  portcullis show rates --interval 5s
  portcullis show talkers
  portcullis show status
  portcullis show nat -p tcp --dst-nat
  portcullis show conntrack --proto tcp --dport 443 --limit 50";

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which view.
    #[command(subcommand)]
    pub what: What,
    /// Where the daemon listens.
    #[arg(long, global = true, value_name = "PATH", default_value = super::DEFAULT_SOCKET)]
    pub socket: std::path::PathBuf,
}

/// The views.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// The policy with its counters.
    #[command(after_help = "Examples:
  portcullis show rules --table filter --chain FORWARD
  portcullis show rules -6 --save --counters > rules.v6")]
    Rules(RulesArgs),
    /// Ports: the mode really in force, queues, link state, rings.
    #[command(after_help = "Example:\n  portcullis show ports --json")]
    Ports,
    /// The daemon, and what of its state lasts.
    #[command(after_help = "Example:\n  portcullis show status")]
    Status,
    /// Who gets in whatever the policy says, and how many packets did.
    #[command(after_help = "Example:\n  portcullis show management")]
    Management,
    /// Whether the policy in force is as its matrix of flows says.
    #[command(after_help = "Example:\n  portcullis show matrix")]
    Matrix,
    /// Which rules the XDP program carries out ahead of the engine, and why not the others.
    #[command(after_help = "Example:\n  portcullis show blocklist")]
    Blocklist,
    /// What `-m nfacct` counts, by name.
    #[command(after_help = "Examples:
  portcullis show nfacct
  portcullis show nfacct --reset")]
    Nfacct(accounts::Args),
    /// What became of records (LOG, NFLOG, AUDIT, TRACE), and who causes the most.
    #[command(after_help = "Example:\n  portcullis show log --json")]
    Log,
    /// The metrics, as Prometheus would scrape them (`metrics.listen`).
    #[command(after_help = "Example:\n  portcullis show metrics | promtool check metrics")]
    Metrics,
    /// Counters per worker, and drops by reason.
    #[command(after_help = "Example:\n  portcullis show stats --json")]
    Stats,
    /// Rates by port, worker, rule and drop reason over a second: a frame of `top`.
    #[command(after_help = "Examples:
  portcullis show rates
  portcullis --json show rates --interval 5s")]
    Rates(RatesArgs),
    /// The sources with the most connections.
    #[command(after_help = "Example:
  portcullis show talkers --limit 50")]
    Talkers(rates::TalkersArgs),
    /// Every limit, hashlimit, recent, connlimit, quota and IDLETIMER in force, and how far it is used up.
    #[command(after_help = "Examples:
  portcullis show limits
  portcullis show limits ssh")]
    Limits {
        /// The entries of this table of hashlimit, as in /proc/net/ipt_hashlimit.
        #[arg(value_name = "TABLE")]
        table: Option<String>,
    },
    /// The lists of `-m recent`, as in /proc/net/xt_recent.
    #[command(after_help = "Examples:
  portcullis show recent
  portcullis show recent DEFAULT")]
    Recent {
        /// Only this list.
        #[arg(value_name = "LIST")]
        list: Option<String>,
    },
    /// The connection table.
    #[command(after_help = "Example:
  portcullis show conntrack --proto tcp --src 198.18.1.2 --dport 443 --limit 50")]
    Conntrack(ConntrackArgs),
    /// What is being translated, and to what.
    #[command(after_help = "Examples:
  portcullis show nat
  portcullis show nat -p tcp --src-nat 203.0.113.1")]
    Nat(translations::Args),
}

/// Over what time.
#[derive(Debug, clap::Args)]
pub struct RatesArgs {
    /// Rates are over this time.
    #[arg(long, value_name = "TIME", value_parser = super::top::interval, default_value = "1s")]
    pub interval: u64,
}

/// A choice of family.
#[derive(Debug, clap::Args)]
pub struct FamilyArgs {
    /// IPv4 only.
    #[arg(short = '4', long = "ipv4", conflicts_with = "v6")]
    pub v4: bool,
    /// IPv6 only.
    #[arg(short = '6', long = "ipv6")]
    pub v6: bool,
}

impl FamilyArgs {
    fn choice(&self) -> Option<FamilyName> {
        match (self.v4, self.v6) {
            (true, _) => Some(FamilyName::V4),
            (_, true) => Some(FamilyName::V6),
            _ => None,
        }
    }
}

/// Which rules.
#[derive(Debug, clap::Args)]
pub struct RulesArgs {
    /// Family.
    #[command(flatten)]
    pub family: FamilyArgs,
    /// Only this table.
    #[arg(long, value_name = "NAME", conflicts_with = "save")]
    pub table: Option<String>,
    /// Only this chain.
    #[arg(long, value_name = "NAME", conflicts_with = "save")]
    pub chain: Option<String>,
    /// Only rules that are in force and unused for so long, as 7d or 12h.
    #[arg(long, value_name = "TIME", value_parser = age, conflicts_with = "save")]
    pub unused: Option<u64>,
    /// With the times of first and last hits.
    #[arg(long, conflicts_with = "save")]
    pub hits: bool,
    /// Print an iptables-save file (IPv4 unless -6).
    #[arg(long)]
    pub save: bool,
    /// With --save: print counters as iptables-save -c does.
    #[arg(short = 'c', long, requires = "save")]
    pub counters: bool,
}

/// Which connections.
#[derive(Debug, clap::Args)]
pub struct ConntrackArgs {
    /// Family.
    #[command(flatten)]
    pub family: FamilyArgs,
    /// Only this protocol: tcp, udp, icmp, icmpv6, ... or a number.
    #[arg(long, value_name = "PROTO", value_parser = protocol)]
    pub proto: Option<u8>,
    /// Only connections opened from this address.
    #[arg(long, value_name = "ADDRESS")]
    pub src: Option<IpAddr>,
    /// Only connections opened to this address.
    #[arg(long, value_name = "ADDRESS")]
    pub dst: Option<IpAddr>,
    /// Only connections opened to this port.
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// Print at most this many.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

fn protocol(text: &str) -> Result<u8, String> {
    let known = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("gre", 47),
        ("esp", 50),
        ("ah", 51),
        ("icmpv6", 58),
        ("ipv6-icmp", 58),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let named = known.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| format!("unknown protocol {text}"))
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let socket = super::Socket { socket: args.socket };
    let result = match &args.what {
        What::Nat(which) => translations::show(which, &socket, output),
        What::Rules(which) if which.save => save(which, &socket, output),
        What::Rules(which) => rules(which, &socket, output),
        What::Ports => ports::ports(&socket, output),
        What::Stats => stats(&socket, output),
        What::Metrics => metrics::show(&socket, output),
        What::Nfacct(which) => accounts::show(which, &socket, output),
        What::Rates(which) => super::top::rates(which.interval, &socket, output),
        What::Talkers(which) => rates::talkers(which, &socket, output),
        What::Log => log::show(&socket, output),
        What::Blocklist => blocklist::show(&socket, output),
        What::Management => management::show(&socket, output),
        What::Matrix => matrix::show(&socket, output),
        What::Status => status(&socket, output),
        What::Limits { table } => tally::limits(table.as_deref(), &socket, output),
        What::Recent { list } => tally::recent(list.as_deref(), &socket, output),
        What::Conntrack(which) => conntrack(which, &socket, output),
    };
    match result {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    }
}

fn save(which: &RulesArgs, socket: &super::Socket, output: &Output) -> Result<(), Exit> {
    let family = which.family.choice().unwrap_or(FamilyName::V4);
    let request = Request::SaveRules { family, counters: which.counters };
    let response = ask(socket, request, output)?;
    let Response::Saved { text, .. } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
    } else {
        output.raw(text);
    }
    Ok(())
}

fn rules(which: &RulesArgs, socket: &super::Socket, output: &Output) -> Result<(), Exit> {
    let request = Request::ShowRules {
        family: which.family.choice(),
        table: which.table.clone(),
        chain: which.chain.clone(),
    };
    let Response::Rules(mut rules) = ask(socket, request, output)? else {
        return Err(unexpected(output));
    };
    if let Some(age_s) = which.unused {
        keep_unused(&mut rules, (wall_us() / 1_000_000).saturating_sub(age_s));
        unhit::tell(&mut rules, socket);
    }
    if output.json() {
        output.object(&rules);
    } else {
        output.raw(&render_rules(&rules, which.hits || which.unused.is_some()));
    }
    Ok(())
}

/// An age in seconds.
fn age(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write 12h, 7d or 4w");
    super::apply::time(text).map(|ms| ms / 1000).ok_or_else(bad)
}

/// Keeps rules that were there before `before_s` and not hit since.
fn keep_unused(rules: &mut Rules, before_s: u64) {
    let old = |time: Option<u64>| time.is_some_and(|time| time <= before_s);
    for chain in &mut rules.chains {
        let unused = |rule: &RuleInfo| match rule.last_hit {
            Some(last) => old(Some(last)),
            None => old(rule.since),
        };
        chain.rules.retain(unused);
    }
    rules.chains.retain(|chain| !chain.rules.is_empty());
}

fn render_rules(rules: &Rules, hits: bool) -> String {
    let mut text = format!("generation {}\n", rules.generation);
    for chain in &rules.chains {
        let family = match chain.family {
            FamilyName::V4 => "IPv4",
            FamilyName::V6 => "IPv6",
        };
        let policy = chain.policy.as_ref().map_or_else(String::new, |policy| {
            format!(" (policy {policy}, {} packets, {} bytes)", chain.packets, chain.bytes)
        });
        let idle = if chain.enforced { "" } else { " [loaded, not enforced]" };
        text.push_str(&format!("\n{family} {} {}{policy}{idle}\n", chain.table, chain.chain));
        let mut columns =
            vec![("num", Align::Right), ("packets", Align::Right), ("bytes", Align::Right)];
        if hits {
            columns.extend([("first hit", Align::Left), ("last hit", Align::Left)]);
        }
        columns.push(("rule", Align::Left));
        let mut table = Table::new(&columns);
        let append = format!("-A {} ", chain.chain);
        for rule in &chain.rules {
            let said = rule.text.strip_prefix(&append).unwrap_or(&rule.text);
            let time = |seconds: Option<u64>| {
                seconds.map_or_else(|| "never".to_owned(), |it| stamp(it * 1_000_000))
            };
            let mut cells =
                vec![rule.number.to_string(), rule.packets.to_string(), rule.bytes.to_string()];
            if hits {
                cells.extend([time(rule.first_hit), time(rule.last_hit)]);
            }
            let why = rule.unhittable.as_ref();
            let why = why.map_or_else(String::new, |why| format!("  [cannot be hit: {why}]"));
            cells.push(format!("{said}{why}"));
            table.row(cells);
        }
        if !table.is_empty() {
            text.push_str(&table.render());
        }
    }
    text
}

fn stats(socket: &super::Socket, output: &Output) -> Result<(), Exit> {
    let Response::Stats(stats) = ask(socket, Request::ShowStats {}, output)? else {
        return Err(unexpected(output));
    };
    if output.json() {
        output.object(&stats);
    } else {
        output.raw(&render_stats(&stats));
    }
    Ok(())
}

fn render_stats(stats: &Stats) -> String {
    let mut text = format!(
        "up {} s, generation {}, {} of {} connections, {} log lines written, {} lost\n\n",
        stats.uptime_ms / 1000,
        stats.generation,
        stats.conntrack.entries,
        stats.conntrack.capacity,
        stats.log_written,
        stats.log_lost
    );
    let mut table = Table::new(&[
        ("worker", Align::Right),
        ("core", Align::Right),
        ("generation", Align::Right),
        ("bursts", Align::Right),
        ("rx packets", Align::Right),
        ("tx packets", Align::Right),
        ("drops", Align::Right),
        ("replies", Align::Right),
        ("logged", Align::Right),
        ("log lost", Align::Right),
    ]);
    for worker in &stats.workers {
        table.row([
            worker.worker.to_string(),
            worker.core.map_or_else(|| "-".to_owned(), |core| core.to_string()),
            worker.generation.to_string(),
            worker.bursts.to_string(),
            worker.rx_packets.to_string(),
            worker.tx_packets.to_string(),
            worker.drops.values().sum::<u64>().to_string(),
            worker.replies.to_string(),
            worker.logged.to_string(),
            worker.log_lost.to_string(),
        ]);
    }
    text.push_str(&table.render());
    for (title, counters) in
        [("drops", &stats.drops), ("xdp", &stats.xdp), ("conntrack", &stats.conntrack.counters)]
    {
        if counters.is_empty() {
            continue;
        }
        let mut table = Table::new(&[(title, Align::Left), ("count", Align::Right)]);
        for (name, count) in counters {
            table.row([name.clone(), count.to_string()]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text + &render_pressure(&stats.conntrack)
}

/// Who fills the connection table, if anybody does.
fn render_pressure(conntrack: &ConntrackStats) -> String {
    let mut text = String::new();
    if conntrack.crowded {
        text += "\nthe connection table is crowded: sources have quotas\n";
    }
    if conntrack.quota_refused > 0 {
        text += &format!("{} connections refused by quotas\n", conntrack.quota_refused);
    }
    for offender in &conntrack.offenders {
        let (prefix, seconds, ago) = (&offender.prefix, offender.seconds, offender.ago_ms / 1000);
        text +=
            &format!("offender: {prefix}, over its quota in {seconds} seconds, last {ago} s ago\n");
    }
    text
}

fn status(socket: &super::Socket, output: &Output) -> Result<(), Exit> {
    let Response::Status(status) = ask(socket, Request::ShowStatus {}, output)? else {
        return Err(unexpected(output));
    };
    if output.json() {
        output.object(&status);
    } else {
        output.raw(&super::status::render(&status));
    }
    Ok(())
}

/// Rows fetched at a time.
const PAGE: u32 = 1000;

fn conntrack(which: &ConntrackArgs, socket: &super::Socket, output: &Output) -> Result<(), Exit> {
    let mut left = which.limit.unwrap_or(u64::MAX);
    let mut query = ConntrackQuery {
        family: which.family.choice(),
        proto: which.proto,
        src: which.src,
        dst: which.dst,
        dport: which.dport,
        filter: ConntrackFilter::default(),
        cursor: 0,
        limit: PAGE,
    };
    while left > 0 {
        query.limit = left.min(u64::from(PAGE)) as u32;
        let request = Request::ShowConntrack(query.clone());
        let Response::Conntrack(page) = ask(socket, request, output)? else {
            return Err(unexpected(output));
        };
        print_page(&page, output);
        left = left.saturating_sub(page.rows.len() as u64);
        match page.next {
            Some(next) => query.cursor = next,
            None => break,
        }
    }
    Ok(())
}

fn print_page(page: &ConntrackPage, output: &Output) {
    for row in &page.rows {
        if output.json() {
            output.object(row);
        } else {
            output.line(&row.text);
        }
    }
}
