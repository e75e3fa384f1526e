//! `portcullis objects`: named, owned groups of addresses and ports; who uses them, how much.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dataplane::clock::wall_us;
use dataplane::packet::Family;
use serde::Serialize;

use super::client::{ask, unexpected};
use super::table::{Align, Table};
use super::{Exit, Output, Socket};
use crate::api::protocol::{FamilyName, Rules};
use crate::api::{Request, Response};
use crate::config;
use crate::diagnostics::Code;
use crate::ipset;
use crate::iptables::{TableNames, rule_text, whole_file};
use crate::model::expiry;
use crate::objects::{self, Kind, Object};
use crate::replay::files;

const EXAMPLES: &str = "Examples:
  portcullis objects list
  portcullis objects show partners
  portcullis objects where-used partners
  portcullis objects unused --rules rules.v4 --rules6 rules.v6 --dir objects

Objects are files NAME.object among those of policy.sets. Rules use them as sets: -m set
--match-set NAME src (addresses; NAME6 in IPv6 rules), --match-set NAME dst (ports). They
change by apply or reload. Without --rules the running daemon says who uses them, and how much.";

/// Where objects are usually kept.
const DEFAULT_DIRECTORY: &str = "/etc/portcullis/objects";

/// What to ask of objects.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to ask.
    #[command(subcommand)]
    pub what: What,
    /// Where they are: a directory or a file; may be given more than once [default: the sets of
    /// --config, or /etc/portcullis/objects].
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// A configuration file that names them in policy.sets.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "dir")]
    pub config: Option<PathBuf>,
    /// Used by this iptables-save file instead of the running policy.
    #[arg(long, global = true, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Used by this ip6tables-save file instead of the running policy.
    #[arg(long, global = true, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "PATH", default_value = super::DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// What to ask.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// All of them: owner, stage, members, rules that use them, hits.
    #[command(after_help = "Example:\n  portcullis objects list --json")]
    List,
    /// One, with its members and stages.
    #[command(after_help = "Example:\n  portcullis objects show partners")]
    Show {
        /// Its name.
        name: String,
    },
    /// The rules that use one, with their hits.
    #[command(after_help = "Example:\n  portcullis objects where-used partners")]
    WhereUsed {
        /// Its name.
        name: String,
    },
    /// Those that no rule uses, and those whose rules nothing has hit. Exits 6 if there are any.
    #[command(after_help = "Example:\n  portcullis objects unused")]
    Unused,
}

/// A rule that uses an object.
#[derive(Clone, Debug, Serialize)]
struct Use {
    family: &'static str,
    table: String,
    chain: String,
    rule: u32,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hit: Option<u64>,
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    answer(args, output).unwrap_or_else(|exit| exit)
}

fn answer(args: &Args, output: &Output) -> Result<Exit, Exit> {
    let objects = read(args, output)?;
    match &args.what {
        What::List => {
            // Who uses them is worth knowing, not necessary.
            let uses = match args.rules.is_some() || args.rules6.is_some() || args.socket.exists() {
                true => Some(uses(args, output)?),
                false => None,
            };
            list(&objects, uses.as_ref(), output);
            Ok(Exit::Ok)
        }
        What::Show { name } => {
            let object = find(&objects, name, output)?;
            match output.json() {
                true => output.object(object),
                false => output.raw(&shown(object)),
            }
            Ok(Exit::Ok)
        }
        What::WhereUsed { name } => {
            let object = find(&objects, name, output)?;
            let uses = uses(args, output)?;
            let used = of(object, &uses);
            for one in &used {
                match output.json() {
                    true => output.object(one),
                    false => output.line(in_words(one)),
                }
            }
            if used.is_empty() && !output.json() {
                output.line(format_args!("{name} is used by no rule"));
            }
            Ok(Exit::Ok)
        }
        What::Unused => unused(&objects, &uses(args, output)?, output),
    }
}

fn read(args: &Args, output: &Output) -> Result<Vec<Object>, Exit> {
    let mut paths = args.dir.clone();
    if let Some(file) = &args.config {
        let source = config::Source { file: Some(file.clone()), ..config::Source::default() };
        let configured = source.load().map_err(|refused| super::run::complain(&refused, output))?;
        paths = configured.settings.sets();
    }
    if paths.is_empty() {
        paths.push(DEFAULT_DIRECTORY.into());
    }
    let (mut found, mut bad) = (Vec::new(), false);
    for path in &paths {
        let files = ipset::files(path).map_err(|error| {
            output.error(format_args!("{}: {error}", path.display()));
            Exit::Refused
        })?;
        for file in files {
            let name = file.display().to_string();
            if objects::name_of(&name).is_none() {
                continue;
            }
            let bytes = ipset::read_file(&file).map_err(|error| {
                output.error(format_args!("{name}: {error}"));
                Exit::Refused
            })?;
            let text = String::from_utf8_lossy(&bytes);
            match objects::read(&text, &name) {
                Ok(object) => found.push(object),
                Err(findings) => {
                    bad = true;
                    findings.iter().for_each(|it| output.finding(it, Some(&text)));
                }
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    let mut twins = BTreeMap::new();
    for object in &found {
        for set in object.sets() {
            if let Some(other) = twins.insert(set.clone(), object.file.clone()) {
                bad = true;
                let message = format!("the set {set} is that of {other}, too");
                output.finding(&whole_file(&object.file, Code::DuplicateSet, message), None);
            }
        }
    }
    if bad { Err(Exit::Refused) } else { Ok(found) }
}

fn find<'o>(objects: &'o [Object], name: &str, output: &Output) -> Result<&'o Object, Exit> {
    objects.iter().find(|object| object.name == name).ok_or_else(|| {
        let known: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        let known = if known.is_empty() { "none at all".to_owned() } else { known.join(", ") };
        output.error(format_args!("there is no object {name}; there are {known}"));
        Exit::Refused
    })
}

/// The rules that use sets, by set.
fn uses(args: &Args, output: &Output) -> Result<BTreeMap<String, Vec<Use>>, Exit> {
    let mut uses = BTreeMap::new();
    if args.rules.is_none() && args.rules6.is_none() {
        let request = Request::ShowRules { family: None, table: None, chain: None };
        let socket = Socket { socket: args.socket.clone() };
        let Response::Rules(Rules { chains, .. }) = ask(&socket, request, output)? else {
            return Err(unexpected(output));
        };
        for chain in chains {
            let family = if chain.family == FamilyName::V4 { "IPv4" } else { "IPv6" };
            for rule in chain.rules {
                let (table, chain) = (chain.table.clone(), chain.chain.clone());
                let (packets, last_hit) = (Some(rule.packets), rule.last_hit);
                let (text, rule) = (rule.text, rule.number);
                add(&mut uses, &Use { family, table, chain, rule, text, packets, last_hit });
            }
        }
        return Ok(uses);
    }
    let names = TableNames::of_host();
    for (path, family) in [(&args.rules, Family::V4), (&args.rules6, Family::V6)] {
        let rules = files::read_rules(path.as_deref(), family, &names)
            .map_err(|error| super::replay::refuse(&error, output))?;
        for table in &rules.tables {
            for chain in &table.chains {
                for (rule, number) in chain.rules.iter().zip(1..) {
                    let one = Use {
                        family: if family == Family::V4 { "IPv4" } else { "IPv6" },
                        table: table.id.name().to_owned(),
                        chain: chain.name.clone(),
                        rule: number,
                        text: rule_text(rule, family, &names),
                        packets: None,
                        last_hit: None,
                    };
                    add(&mut uses, &one);
                }
            }
        }
    }
    Ok(uses)
}

fn add(uses: &mut BTreeMap<String, Vec<Use>>, one: &Use) {
    let words: Vec<&str> = one.text.split_whitespace().collect();
    for pair in words.windows(2) {
        if matches!(pair[0], "--match-set" | "--add-set" | "--del-set" | "--map-set") {
            let list = uses.entry(pair[1].to_owned()).or_default();
            let same = |it: &Use| {
                (it.family, &it.table, &it.chain, it.rule)
                    == (one.family, &one.table, &one.chain, one.rule)
            };
            if !list.iter().any(same) {
                list.push(one.clone());
            }
        }
    }
}

fn of<'u>(object: &Object, uses: &'u BTreeMap<String, Vec<Use>>) -> Vec<&'u Use> {
    object.sets().iter().filter_map(|set| uses.get(set)).flatten().collect()
}

/// Packets that its rules have counted; `None`: nobody knows.
fn hits(used: &[&Use]) -> Option<u64> {
    used.iter().map(|one| one.packets).sum()
}

fn list(objects: &[Object], uses: Option<&BTreeMap<String, Vec<Use>>>, output: &Output) {
    let now_s = wall_us() / 1_000_000;
    let mut table = Table::new(&[
        ("object", Align::Left),
        ("type", Align::Left),
        ("owner", Align::Left),
        ("review", Align::Left),
        ("exposed", Align::Left),
        ("members", Align::Right),
        ("rules", Align::Right),
        ("hits", Align::Right),
    ]);
    for object in objects {
        let used = uses.map(|uses| of(object, uses));
        let hits = used.as_ref().and_then(|used| hits(used));
        let rules = used.as_ref().map(Vec::len);
        let members = object.entries.iter().filter(|entry| entry.enabled).count();
        let past = object.review.as_deref().and_then(expiry::parse).is_some_and(|at| at <= now_s);
        if output.json() {
            let Object { name, file, kind, owner, ticket, review, exposed, .. } = object;
            output.object(&serde_json::json!({
                "name": name, "file": file, "type": kind, "owner": owner, "ticket": ticket,
                "review": review, "review_past": past, "exposed": exposed, "members": members,
                "sets": object.sets(), "rules": rules, "hits": hits,
            }));
            continue;
        }
        let dash = || "-".to_owned();
        let review = object.review.clone().unwrap_or_else(dash);
        let kind = if object.kind == Kind::Ports { "ports" } else { "addresses" };
        table.row([
            object.name.clone(),
            kind.to_owned(),
            object.owner.clone(),
            if past { format!("{review} (past)") } else { review },
            object.exposed.clone().unwrap_or_else(dash),
            members.to_string(),
            rules.map_or_else(dash, |count| count.to_string()),
            hits.map_or_else(dash, |count| count.to_string()),
        ]);
    }
    if !output.json() {
        output.raw(&table.render());
    }
}

fn shown(object: &Object) -> String {
    let mut out = format!("{} ({})\n", object.name, object.file);
    let some = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (key, value) in [
        ("owner", object.owner.clone()),
        ("ticket", some(&object.ticket)),
        ("review", some(&object.review)),
        ("description", some(&object.description)),
        ("sets", object.sets().join(", ")),
        ("stages", object.stages.join(", ")),
        ("exposed", some(&object.exposed)),
    ] {
        out += &format!("  {key}: {value}\n");
    }
    for entry in &object.entries {
        let stage = entry.stage.as_ref().map_or_else(String::new, |it| format!("  [{it}]"));
        let off = if entry.enabled { "" } else { "  not yet" };
        out += &format!("    {}{stage}{off}\n", entry.text);
    }
    out
}

fn in_words(one: &Use) -> String {
    let Use { family, table, chain, rule, text, packets, .. } = one;
    let hits = packets.map_or_else(String::new, |packets| format!(" ({packets} packets)"));
    format!("{family} {table} {chain} {rule}{hits}: {text}")
}

fn unused(
    objects: &[Object],
    uses: &BTreeMap<String, Vec<Use>>,
    output: &Output,
) -> Result<Exit, Exit> {
    let mut any = false;
    for object in objects {
        let used = of(object, uses);
        let why = match (used.is_empty(), hits(&used)) {
            (true, _) => "no rule uses it",
            (false, Some(0)) => "nothing has hit its rules",
            _ => continue,
        };
        any = true;
        let (name, owner) = (&object.name, &object.owner);
        match output.json() {
            true => output.object(&serde_json::json!({"name": name, "owner": owner, "why": why})),
            false => output.line(format_args!("{name} (owner {owner}): {why}")),
        }
    }
    Ok(if any { Exit::Warnings } else { Exit::Ok })
}
