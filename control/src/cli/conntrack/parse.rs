//! From the words of a command line to what is wanted.

use std::net::IpAddr;
use std::path::PathBuf;

use super::options::{Opt, ParseError, Word, cut};
use super::values::{
    EventMask, address, bad, events, family, label, mark, network, number, port, protocol, state,
    statuses,
};
use crate::api::protocol::{ConntrackFilter, NatEnd, NatFilter};
use crate::iptables::Names;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List,
    Count,
    Flush,
    Delete,
    Get,
    Stats,
    Watch,
}

impl Action {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Count => "count",
            Self::Flush => "flush",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::Stats => "stats",
            Self::Watch => "watch",
        }
    }

    fn of(opt: Opt) -> Option<Self> {
        Some(match opt {
            Opt::List => Self::List,
            Opt::Count => Self::Count,
            Opt::Flush => Self::Flush,
            Opt::Delete => Self::Delete,
            Opt::Get => Self::Get,
            Opt::Stats => Self::Stats,
            Opt::Watch => Self::Watch,
            _ => return None,
        })
    }

    fn spelled(word: &str) -> Option<Self> {
        let all = [
            Self::List,
            Self::Count,
            Self::Flush,
            Self::Delete,
            Self::Get,
            Self::Stats,
            Self::Watch,
        ];
        all.into_iter().find(|action| action.name() == word)
    }
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) extended: bool,
    pub(super) id: bool,
    pub(super) timestamp: bool,
    pub(super) start: bool,
    pub(super) labels: bool,
    pub(super) save: bool,
}

/// A command line, understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) action: Action,
    /// The table of expectations instead of the connections'.
    pub(super) expect: bool,
    pub(super) filter: ConntrackFilter,
    pub(super) shape: Shape,
    pub(super) events: Option<EventMask>,
    pub(super) json: bool,
    pub(super) socket: Option<PathBuf>,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    Help,
    Version,
    Do(Box<Wanted>),
}

#[derive(Default)]
struct Parser {
    action: Option<Action>,
    expect: Option<bool>,
    filter: ConntrackFilter,
    masks: [Option<IpAddr>; 2],
    shape: Shape,
    events: Option<EventMask>,
    json: bool,
    socket: Option<PathBuf>,
    /// Options that were given, each once.
    seen: Vec<Opt>,
}

/// Understands a command line; `names` knows protocols, services and labels.
pub(super) fn parse(words: &[String], names: &impl Names) -> Result<Request, ParseError> {
    let words = cut(words)?;
    let asks =
        |wanted: Opt| words.iter().any(|word| matches!(word, Word::Opt(opt, _) if *opt == wanted));
    if asks(Opt::Help) || words.is_empty() {
        return Ok(Request::Help);
    }
    if asks(Opt::Version) {
        return Ok(Request::Version);
    }
    let mut parser = Parser::default();
    // The protocol decides what ports and states are called.
    let (first, then): (Vec<&Word>, Vec<&Word>) =
        words.iter().partition(|word| matches!(word, Word::Opt(Opt::Proto, _)));
    for word in first.into_iter().chain(then) {
        match word {
            Word::Plain(word) => parser.plain(word)?,
            Word::Opt(opt, value) => parser.option(*opt, value.as_deref(), names)?,
        }
    }
    parser.finish()
}

const NO_MAKING: &str = "connections are made by packets; delete what should begin anew";

impl Parser {
    fn command(&mut self, action: Action) -> Result<(), ParseError> {
        match self.action.replace(action) {
            Some(before) => Err(ParseError::TwoCommands(before.name(), action.name())),
            None => Ok(()),
        }
    }

    fn plain(&mut self, word: &str) -> Result<(), ParseError> {
        if self.action.is_none()
            && let Some(action) = Action::spelled(word)
        {
            return self.command(action);
        }
        let table = match word {
            "conntrack" => false,
            "expect" => true,
            "dying" | "unconfirmed" => {
                let remedy =
                    "what is unconfirmed or dying lives for one packet; use the table conntrack";
                return Err(ParseError::Unsupported { what: word.to_owned(), remedy });
            }
            _ => return Err(ParseError::Stray(word.to_owned())),
        };
        match self.expect.replace(table) {
            Some(_) => Err(ParseError::Stray(word.to_owned())),
            None => Ok(()),
        }
    }

    fn option(
        &mut self,
        opt: Opt,
        value: Option<&str>,
        names: &impl Names,
    ) -> Result<(), ParseError> {
        if let Some(action) = Action::of(opt) {
            return self.command(action);
        }
        if self.seen.contains(&opt) && !matches!(opt, Opt::Label | Opt::Output) {
            return Err(ParseError::Twice(format!("--{}", opt.name())));
        }
        self.seen.push(opt);
        let text = value.unwrap_or_default();
        let filter = &mut self.filter;
        match opt {
            Opt::Src => filter.src = Some(network(text)?),
            Opt::Dst => filter.dst = Some(network(text)?),
            Opt::ReplySrc => filter.reply_src = Some(network(text)?),
            Opt::ReplyDst => filter.reply_dst = Some(network(text)?),
            Opt::MaskSrc => self.masks[0] = Some(address(text)?),
            Opt::MaskDst => self.masks[1] = Some(address(text)?),
            Opt::Proto => filter.proto = Some(protocol(text, names)?),
            Opt::Family => filter.family = Some(family(text)?),
            Opt::Mark => filter.mark = Some(mark(text)?),
            Opt::Status => filter.status = statuses(text)?,
            Opt::Zone => filter.zone = Some(number(text, "zone", "zones go from 0 to 65535")?),
            Opt::OrigZone => {
                filter.orig_zone = Some(number(text, "zone", "zones go from 0 to 65535")?)
            }
            Opt::ReplyZone => {
                filter.reply_zone = Some(number(text, "zone", "zones go from 0 to 65535")?)
            }
            Opt::SrcNat => set_nat(filter, NatEnd::Source, value)?,
            Opt::DstNat => set_nat(filter, NatEnd::Destination, value)?,
            Opt::AnyNat => set_nat(filter, NatEnd::Any, value)?,
            Opt::Label => {
                for name in text.split(',') {
                    filter.labels.push(label(name, names)?);
                }
                self.shape.labels = true;
            }
            Opt::Output => self.output(text)?,
            Opt::Events => self.events = Some(events(text)?),
            // Netlink's; the daemon's backlog is bounded by itself, and says what it lost.
            Opt::Buffer => drop(number::<u64>(text, "size", "give a number of bytes")?),
            Opt::Json => self.json = true,
            Opt::Socket => self.socket = Some(text.into()),
            _ => return self.protocol_option(opt, text, names),
        }
        Ok(())
    }

    fn protocol_option(
        &mut self,
        opt: Opt,
        text: &str,
        names: &impl Names,
    ) -> Result<(), ParseError> {
        let proto = self.filter.proto;
        let filter = &mut self.filter;
        let needs = |protocols: &'static str, holds: &[u8]| match proto {
            Some(proto) if holds.contains(&proto) => Ok(()),
            _ => Err(ParseError::NeedsProtocol { option: opt.name(), protocols }),
        };
        let byte = |what| number::<u8>(text, what, "give a number from 0 to 255");
        match opt {
            Opt::Sport | Opt::Dport | Opt::ReplySport | Opt::ReplyDport => {
                needs("tcp (or udp, udplite, sctp, dccp)", &[6, 17, 33, 132, 136])?;
                let port = Some(port(text, proto, names)?);
                match opt {
                    Opt::Sport => filter.sport = port,
                    Opt::Dport => filter.dport = port,
                    Opt::ReplySport => filter.reply_sport = port,
                    _ => filter.reply_dport = port,
                }
                Ok(())
            }
            Opt::IcmpType | Opt::IcmpCode | Opt::IcmpId => {
                needs("icmp", &[1])?;
                set_icmp(filter, opt, text, byte)
            }
            Opt::Icmp6Type | Opt::Icmp6Code | Opt::Icmp6Id => {
                needs("icmpv6", &[58])?;
                set_icmp(filter, opt, text, byte)
            }
            Opt::State => {
                needs("tcp (or sctp)", &[6, 132])?;
                filter.state = Some(state(text, proto)?);
                Ok(())
            }
            Opt::Srckey | Opt::Dstkey | Opt::ReplySrckey | Opt::ReplyDstkey => {
                needs("gre", &[47])?;
                let key = Some(number(text, "key", "keys go from 0 to 0xffff")?);
                match opt {
                    Opt::Srckey => filter.sport = key,
                    Opt::Dstkey => filter.dport = key,
                    Opt::ReplySrckey => filter.reply_sport = key,
                    _ => filter.reply_dport = key,
                }
                Ok(())
            }
            _ => Err(unsupported(opt)),
        }
    }

    fn output(&mut self, text: &str) -> Result<(), ParseError> {
        for word in text.split(',') {
            match word {
                "extended" => self.shape.extended = true,
                "id" => self.shape.id = true,
                "timestamp" => self.shape.timestamp = true,
                "ktimestamp" => self.shape.start = true,
                "labels" => self.shape.labels = true,
                "save" => self.shape.save = true,
                "xml" => {
                    let remedy = "use --json";
                    return Err(ParseError::Unsupported { what: "-o xml".to_owned(), remedy });
                }
                _ => {
                    let remedy = "there are extended, id, timestamp, ktimestamp, labels and save";
                    return Err(bad(word, "output", remedy));
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Request, ParseError> {
        let action = self.action.ok_or(ParseError::NoCommand)?;
        let misplaced =
            |option, hint| Err(ParseError::Misplaced { option, command: action.name(), hint });
        for (mask, opt, at) in [
            (self.masks[0], "mask-src", &mut self.filter.src),
            (self.masks[1], "mask-dst", &mut self.filter.dst),
        ] {
            match (mask, at) {
                (Some(mask), Some(filter)) => filter.mask = mask,
                (Some(_), None) => return misplaced(opt, " without the address that it masks"),
                (None, _) => {}
            }
        }
        if matches!(action, Action::Count | Action::Flush | Action::Stats)
            && !self.filter.is_empty()
        {
            let option = self.seen.iter().map(|opt| opt.name()).find(|name| *name != "json");
            let hint = "; filters go with list, delete and watch";
            return misplaced(option.unwrap_or("filter"), hint);
        }
        let expect = self.expect.unwrap_or(false);
        if expect && !matches!(action, Action::List | Action::Count | Action::Flush) {
            return misplaced("expect", "; it goes with list, count and flush");
        }
        if expect && (!self.filter.is_empty() || self.shape != Shape::default()) {
            return misplaced("expect", " and filters or -o; list all of it");
        }
        if self.events.is_some() && action != Action::Watch {
            return misplaced("event-mask", "; it goes with watch");
        }
        if action == Action::Get {
            let filter = &self.filter;
            if filter.src.is_none() || filter.dst.is_none() || filter.proto.is_none() {
                return misplaced("get", " an incomplete tuple; give -p, -s, -d and the ports");
            }
        }
        let Self { filter, shape, events, json, socket, .. } = self;
        Ok(Request::Do(Box::new(Wanted { action, expect, filter, shape, events, json, socket })))
    }
}

fn unsupported(opt: Opt) -> ParseError {
    let remedy = match opt {
        Opt::Create | Opt::Add | Opt::Load => NO_MAKING,
        Opt::Update | Opt::LabelAdd | Opt::LabelDel => {
            "change marks and labels by rules (CONNMARK, connlabel)"
        }
        Opt::Timeout => "change timeouts by rules (CT --timeout) or settings (--sysctl)",
        Opt::Secmark => "security marks are not kept; leave it out",
        Opt::Zero => "counters of connections are not reset; take the difference of two listings",
        Opt::OrigVtag | Opt::ReplyVtag | Opt::Role => "filter by ports and --state instead",
        Opt::TupleSrc | Opt::TupleDst => "filter the listing of expectations by -s and -d",
        _ => "leave it out",
    };
    ParseError::Unsupported { what: format!("--{}", opt.name()), remedy }
}

fn set_icmp(
    filter: &mut ConntrackFilter,
    opt: Opt,
    text: &str,
    byte: impl Fn(&'static str) -> Result<u8, ParseError>,
) -> Result<(), ParseError> {
    match opt {
        Opt::IcmpType | Opt::Icmp6Type => filter.icmp_type = Some(byte("ICMP type")?),
        Opt::IcmpCode | Opt::Icmp6Code => filter.icmp_code = Some(byte("ICMP code")?),
        _ => {
            filter.icmp_id =
                Some(number(text, "ICMP identifier", "identifiers go from 0 to 65535")?);
        }
    }
    Ok(())
}

fn set_nat(
    filter: &mut ConntrackFilter,
    which: NatEnd,
    to: Option<&str>,
) -> Result<(), ParseError> {
    if filter.nat.is_some() {
        let names = ("src-nat, --dst-nat or --any-nat").to_owned();
        return Err(ParseError::Twice(names));
    }
    let to = to.map(address).transpose()?;
    filter.nat = Some(NatFilter { which, to });
    Ok(())
}
