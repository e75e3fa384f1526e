//! Rules of the kernel's own netfilter that are in force beside ours.

use super::netlink::{self, NftTable};
use super::{Code, Finding, Sight, Unseen, Wanted};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Tables of nftables that do something, iptables-nft's among them.
    pub(super) nftables: Sight<Vec<NftTable>>,
    /// Rules and dropping chains of iptables-legacy, by family.
    pub(super) legacy: Sight<Vec<(&'static str, usize)>>,
    /// Connections that the kernel tracks.
    pub(super) tracked: Option<u64>,
}

/// Looks.
pub(super) fn observe() -> Seen {
    let nftables = netlink::nft_tables().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Unseen::Privilege("CAP_NET_ADMIN"),
        _ => Unseen::of("nftables", &error),
    });
    Seen {
        nftables,
        legacy: legacy(),
        tracked: super::kernel::number("/proc/sys/net/netfilter/nf_conntrack_count").ok(),
    }
}

/// iptables-legacy is asked by its own tool, and only where its tables exist:
/// asking for one makes it.
fn legacy() -> Sight<Vec<(&'static str, usize)>> {
    let mut found = Vec::new();
    for (family, tool) in [("ip", "iptables-legacy-save"), ("ip6", "ip6tables-legacy-save")] {
        let list = format!("/proc/net/{family}_tables_names");
        let tables = match std::fs::read_to_string(&list) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) => return Err(Unseen::Privilege("CAP_NET_ADMIN")),
        };
        if tables.trim().is_empty() {
            continue;
        }
        let saved = std::process::Command::new(tool).output();
        let saved = saved.map_err(|error| Unseen::of(tool, &error))?;
        let active = active_lines(&String::from_utf8_lossy(&saved.stdout));
        if active > 0 {
            found.push((family, active));
        }
    }
    Ok(found)
}

/// Lines of an iptables-save file that do something: rules, and chains that drop.
pub(super) fn active_lines(text: &str) -> usize {
    let active = |line: &&str| {
        line.starts_with("-A ") || (line.starts_with(':') && line.split(' ').nth(1) == Some("DROP"))
    };
    text.lines().filter(active).count()
}

/// What it means.
pub(super) fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    // A bridge hands the kernel nothing.
    if wanted.is_bridge() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut active = false;
    match &seen.nftables {
        Ok(tables) => {
            active |= !tables.is_empty();
            findings.extend(tables.iter().map(nft));
        }
        Err(why) => findings.push(Finding::unseen(Code::KernelRules, "nftables", why)),
    }
    match &seen.legacy {
        Ok(families) => {
            active |= !families.is_empty();
            findings.extend(families.iter().map(|(family, count)| {
                let tool = if *family == "ip" { "iptables-legacy" } else { "ip6tables-legacy" };
                let found = format!("{count} rule(s) and dropping chain(s) of {tool} are in force");
                Finding::warning(Code::KernelRules, tool, found).advise(format!(
                    "{tool}-save > FILE to keep them for `portcullis run`, then {tool} -P CHAIN \
                     ACCEPT and {tool} -t TABLE -F"
                ))
            }));
        }
        Err(why) => findings.push(Finding::unseen(Code::KernelRules, "iptables-legacy", why)),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Code::KernelRules, "", "the kernel has no rules of its own"));
    }
    findings.push(match seen.tracked {
        Some(count) if count > 0 || active => {
            let found = format!("the kernel tracks connections too ({count} now)");
            Finding::note(Code::KernelConntrack, "", found)
                .advise("it stops when no rule of the kernel asks for a state or translates")
        }
        _ => Finding::ok(Code::KernelConntrack, "", "the kernel tracks no connection"),
    });
    findings
}

fn nft(table: &NftTable) -> Finding {
    let NftTable { family, name, rules, drops } = table;
    let policy = if *drops { ", and drops by default" } else { "" };
    let found = format!("table {family} {name} of nftables has {rules} rule(s){policy}");
    // Its removal opens the machine while the daemon is away: for the operator to decide.
    Finding::warning(Code::KernelRules, format!("{family} {name}"), found)
        .mend(super::Command::new("nft delete table").arg(*family).arg(name))
        .advise("keep it first: nft list ruleset > FILE")
}
