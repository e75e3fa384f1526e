//! A connection as the `conntrack` tool prints it.

use std::fmt::Write;
use std::net::IpAddr;

use crate::api::protocol::{ConntrackRow, StatusName, TupleInfo};
use crate::iptables::{Names, TableNames};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// The protocol's name to the tool.
pub const fn protocol_name(proto: u8) -> &'static str {
    match proto {
        ICMP => "icmp",
        TCP => "tcp",
        UDP => "udp",
        DCCP => "dccp",
        GRE => "gre",
        ICMPV6 => "icmpv6",
        SCTP => "sctp",
        UDPLITE => "udplite",
        _ => "unknown",
    }
}

/// Where a connection is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// In a listing.
    #[default]
    List,
    /// In an event.
    Event,
}

/// What is printed of a connection, beside what always is (`-o`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'n> {
    /// Where.
    pub form: Form,
    /// `extended`: the network family first.
    pub extended: bool,
    /// `id`.
    pub id: bool,
    /// `ktimestamp`: when it began.
    pub start: bool,
    /// With `start`: when it ended, in seconds since 1970.
    pub stop: Option<u64>,
    /// `labels`, by these names.
    pub labels: Option<&'n TableNames>,
}

impl Columns<'_> {
    /// The line, without its end.
    pub fn line(&self, row: &ConntrackRow) -> String {
        let mut text = String::with_capacity(256);
        let written = self.write(row, &mut text);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
        text.truncate(text.trim_end().len());
        text
    }

    fn write(&self, row: &ConntrackRow, out: &mut String) -> std::fmt::Result {
        let list = self.form == Form::List;
        if self.extended {
            out.push_str(if row.original.src.is_ipv4() { "ipv4     2 " } else { "ipv6     10 " });
        }
        write!(out, "{:<8} {} {} ", protocol_name(row.proto), row.proto, row.timeout_s)?;
        if let Some(state) = &row.state {
            write!(out, "{state} ")?;
        }
        let (original, reply) = (&row.original, &row.reply);
        let both = original.zone == reply.zone;
        write_tuple(out, row.proto, original)?;
        if !both && original.zone != 0 {
            write!(out, "zone-orig={} ", original.zone)?;
        }
        write_counted(out, original)?;
        if !row.seen_reply {
            out.push_str("[UNREPLIED] ");
        }
        write_tuple(out, row.proto, reply)?;
        if !both && reply.zone != 0 {
            write!(out, "zone-reply={} ", reply.zone)?;
        }
        write_counted(out, reply)?;
        if row.assured {
            out.push_str("[ASSURED] ");
        }
        if list || row.mark != 0 {
            write!(out, "mark={} ", row.mark)?;
        }
        if both && original.zone != 0 {
            write!(out, "zone={} ", original.zone)?;
        }
        self.write_rest(row, out)
    }

    fn write_rest(&self, row: &ConntrackRow, out: &mut String) -> std::fmt::Result {
        // Events of living connections tell neither their age nor their use.
        if let Some(age) = row.age_s {
            write!(out, "delta-time={age} ")?;
        }
        if let Some(start) = row.start_s.filter(|_| self.start) {
            write!(out, "[start={}] ", calendar(start))?;
            if let Some(stop) = self.stop {
                write!(out, "[stop={}] ", calendar(stop))?;
            }
        }
        if let Some(helper) = &row.helper {
            write!(out, "helper={helper} ")?;
        }
        if self.form == Form::List {
            out.push_str("use=1 ");
        }
        if self.id {
            write!(out, "id={} ", row.id)?;
        }
        if let Some(names) = self.labels.filter(|_| !row.labels.is_empty()) {
            let label =
                |bit: &u8| names.label_name(*bit).map_or_else(|| bit.to_string(), str::to_owned);
            let labels: Vec<String> = row.labels.iter().map(label).collect();
            write!(out, "labels={} ", labels.join(","))?;
        }
        Ok(())
    }
}

fn write_tuple(out: &mut String, proto: u8, tuple: &TupleInfo) -> std::fmt::Result {
    let TupleInfo { src, dst, sport, dport, .. } = tuple;
    write!(out, "src={src} dst={dst} ")?;
    match proto {
        ICMP | ICMPV6 => {
            let [kind, code] = dport.to_be_bytes();
            write!(out, "type={kind} code={code} id={sport} ")
        }
        TCP | UDP | UDPLITE | SCTP | DCCP => write!(out, "sport={sport} dport={dport} "),
        GRE => write!(out, "srckey=0x{sport:x} dstkey=0x{dport:x} "),
        _ => Ok(()),
    }
}

fn write_counted(out: &mut String, tuple: &TupleInfo) -> std::fmt::Result {
    match tuple.counted {
        Some(counted) => write!(out, "packets={} bytes={} ", counted.packets, counted.bytes),
        None => Ok(()),
    }
}

/// The connection as options of the tool that would make it (`-o save`). The tool
/// leaves the mark out, and so do we.
pub fn save_line(row: &ConntrackRow) -> String {
    let mut out = String::with_capacity(256);
    let written = write_save(row, &mut out);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    out
}

fn write_save(row: &ConntrackRow, out: &mut String) -> std::fmt::Result {
    let (original, reply) = (&row.original, &row.reply);
    write!(out, "-A -t {} -u {}", row.timeout_s, saved_status(row))?;
    if original.zone == reply.zone && original.zone != 0 {
        write!(out, " -w {}", original.zone)?;
    } else {
        let zones = [("--orig-zone", original.zone), ("--reply-zone", reply.zone)];
        for (option, zone) in zones.into_iter().filter(|(_, zone)| *zone != 0) {
            write!(out, " {option} {zone}")?;
        }
    }
    let address =
        |out: &mut String, option: &str, address: IpAddr| write!(out, " {option} {address}");
    address(out, "-s", original.src)?;
    address(out, "-d", original.dst)?;
    address(out, if reply.src == original.dst { "-r" } else { "-g" }, reply.src)?;
    address(out, if reply.dst == original.src { "-q" } else { "-n" }, reply.dst)?;
    match row.proto {
        ICMP | ICMPV6 => {
            let ([kind, code], id) = (original.dport.to_be_bytes(), original.sport);
            let name = protocol_name(row.proto);
            write!(out, " -p {name} --{name}-type {kind} --{name}-code {code} --{name}-id {id}")?;
        }
        TCP | UDP | UDPLITE | SCTP | DCCP => write!(
            out,
            " -p {} --sport {} --dport {} --reply-port-src {} --reply-port-dst {}",
            protocol_name(row.proto),
            original.sport,
            original.dport,
            reply.sport,
            reply.dport
        )?,
        GRE => write!(
            out,
            " -p gre --srckey {} --dstkey {} --reply-key-src {} --reply-key-dst {}",
            original.sport, original.dport, reply.sport, reply.dport
        )?,
        other => write!(out, " -p {other}")?,
    }
    match &row.state {
        Some(state) => write!(out, " --state {state}"),
        None => Ok(()),
    }
}

fn saved_status(row: &ConntrackRow) -> String {
    let name = |name: &StatusName| match name {
        StatusName::Expected => Some("EXPECTED"),
        StatusName::SeenReply => Some("SEEN_REPLY"),
        StatusName::Assured => Some("ASSURED"),
        StatusName::FixedTimeout => Some("FIXED_TIMEOUT"),
        _ => None,
    };
    let names: Vec<&str> = row.status.iter().filter_map(name).collect();
    if names.is_empty() { "UNSET".to_owned() } else { names.join(",") }
}

/// A time since 1970 as `ctime` writes it, in UTC: `Sun Nov 22 02:38:05 2026`.
fn calendar(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // Counted from 1 March of year 0, so that a leap day comes last.
    let since = days + 719_468;
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    format!("{weekday} {month} {date:>2} {hour:02}:{minute:02}:{second:02} {year}")
}

#[cfg(test)]
mod tests {
    use super::calendar;

    #[test]
    fn the_calendar_is_right() {
        assert_eq!(calendar(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(calendar(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(calendar(1_795_315_085), "Sun Nov 22 02:38:05 2026");
        assert_eq!(calendar(4_107_542_399), "Sun Feb 28 23:59:59 2100");
    }
}
