//! The kinds of value that keys have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dataplane::packet::MAX_PORTS;
use toml::de::DeValue;

use super::reader::{Reader, Span};
use super::table::Value;
use crate::daemon::sandbox::Seccomp;

/// A whole number from `LOW` to `HIGH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const LOW: u64, const HIGH: u64>(pub u64);

impl<const LOW: u64, const HIGH: u64> Value for Whole<LOW, HIGH> {
    fn shape() -> String {
        format!("whole number, {LOW} to {HIGH}")
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(number) = value.as_integer() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if (LOW..=HIGH).contains(&number) => Some(Self(number)),
            _ => {
                let message = format!("{number} is out of range");
                reader.bad(at, message, &format!("write a {}", Self::shape()))
            }
        }
    }
    fn written(&self) -> Option<toml::Value> {
        i64::try_from(self.0).ok().map(toml::Value::Integer)
    }
}

impl Value for bool {
    fn shape() -> String {
        "true or false".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        value.as_bool().or_else(|| reader.mismatch(value, at, &Self::shape()))
    }
    fn written(&self) -> Option<toml::Value> {
        Some(toml::Value::Boolean(*self))
    }
}

impl Value for PathBuf {
    fn shape() -> String {
        "path".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.mismatch(value, at, "path, as a string");
        };
        if text.is_empty() || text.contains('\0') {
            let remedy = "name a file, or leave the key out";
            return reader.bad(at, format!("{text:?} is no path"), remedy);
        }
        Some(reader.directory().join(text))
    }
    /// Absolute, so that it means the same from every directory.
    fn written(&self) -> Option<toml::Value> {
        let path = std::path::absolute(self).unwrap_or_else(|_| self.clone());
        Some(toml::Value::String(path.to_string_lossy().into_owned()))
    }
}

/// Unset until it is said.
impl<T: Value> Value for Option<T> {
    fn shape() -> String {
        T::shape()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(value, at, reader).map(Some)
    }
    fn written(&self) -> Option<toml::Value> {
        self.as_ref()?.written()
    }
}

/// A file, or "none".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateFile {
    /// Nowhere.
    Nowhere,
    /// Here.
    At(PathBuf),
}

impl From<PathBuf> for StateFile {
    fn from(path: PathBuf) -> Self {
        match path.as_os_str() == "none" {
            true => Self::Nowhere,
            false => Self::At(path),
        }
    }
}

impl StateFile {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Nowhere => None,
            Self::At(path) => Some(path),
        }
    }
}

impl Value for StateFile {
    fn shape() -> String {
        "path or \"none\"".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        match value.as_str() {
            Some("none") => Some(Self::Nowhere),
            _ => PathBuf::read(value, at, reader).map(Self::At),
        }
    }
    fn written(&self) -> Option<toml::Value> {
        match self {
            Self::Nowhere => Some(toml::Value::String("none".to_owned())),
            Self::At(path) => path.written(),
        }
    }
}

/// Network interfaces, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<String>);

/// Files or directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(pub Vec<PathBuf>);

impl Value for Paths {
    fn shape() -> String {
        "list of paths".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut one = |item: &toml::Spanned<DeValue<'_>>| {
            let at = reader.span(item.span());
            PathBuf::read(item.get_ref(), at, reader)
        };
        let paths: Vec<Option<PathBuf>> = list.iter().map(&mut one).collect();
        paths.into_iter().collect::<Option<_>>().map(Self)
    }
    fn written(&self) -> Option<toml::Value> {
        let paths = self.0.iter().map(|path| toml::Value::String(path.display().to_string()));
        Some(paths.collect::<Vec<_>>().into())
    }
}

/// Longest interface name of the kernel, in bytes.
const NAME_BYTES: usize = 15;

fn port_name(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<String> {
    let Some(name) = value.as_str() else {
        return reader.mismatch(value, at, "interface name, as a string");
    };
    let strange = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > NAME_BYTES || name.contains(strange) {
        let message = format!("{name:?} is no interface name");
        return reader.bad(at, message, "`ip link` lists the names, at most 15 bytes long");
    }
    Some(name.to_owned())
}

impl Value for Ports {
    fn shape() -> String {
        "list of interface names".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut seen = BTreeSet::new();
        let mut good = true;
        let mut names = Vec::new();
        for item in list.iter() {
            let at = reader.span(item.span());
            match port_name(item.get_ref(), at, reader) {
                Some(name) if !seen.insert(name.clone()) => {
                    let remedy = "a port is named once";
                    good &= reader.bad::<()>(at, format!("{name} again"), remedy).is_some();
                }
                Some(name) => names.push(name),
                None => good = false,
            }
        }
        if names.len() > MAX_PORTS {
            return reader.bad(
                at,
                format!("{} ports", names.len()),
                &format!("at most {MAX_PORTS} are possible"),
            );
        }
        good.then_some(Self(names))
    }
    fn written(&self) -> Option<toml::Value> {
        Some(self.0.iter().cloned().map(toml::Value::String).collect::<Vec<_>>().into())
    }
}

/// Ports that are joined, by twos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

impl Value for Pairs {
    fn shape() -> String {
        "list of pairs, as [[\"eth0\", \"eth1\"]]".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let pairs: Vec<_> = list
            .iter()
            .map(|item| {
                let at = reader.span(item.span());
                let pair = item.get_ref().as_array().filter(|pair| pair.len() == 2);
                let Some(pair) = pair else {
                    return reader.mismatch(item.get_ref(), at, "pair, as [\"eth0\", \"eth1\"]");
                };
                let names: Vec<_> = pair
                    .iter()
                    .map(|name| port_name(name.get_ref(), reader.span(name.span()), reader))
                    .collect();
                let mut names = names.into_iter();
                Some((names.next()??, names.next()??))
            })
            .collect();
        pairs.into_iter().collect::<Option<_>>().map(Self)
    }
    fn written(&self) -> Option<toml::Value> {
        let pair = |(a, b): &(String, String)| toml::Value::from(vec![a.clone(), b.clone()]);
        Some(self.0.iter().map(pair).collect::<Vec<_>>().into())
    }
}

/// A user, by name or number, perhaps with a group. Whether there is one is known where
/// the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(pub String);

impl Value for UserName {
    fn shape() -> String {
        "user, as \"portcullis\" or \"portcullis:netadmin\"".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(text) = value.as_str() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let strange = |part: &str| part.is_empty() || part.contains([' ', '/', ',', '\0']);
        if text.splitn(2, ':').any(strange) {
            let remedy = "write a name or a number, as \"portcullis\" or \"998:997\"";
            return reader.bad(at, format!("{text:?} is no user"), remedy);
        }
        Some(Self(text.to_owned()))
    }
    fn written(&self) -> Option<toml::Value> {
        Some(toml::Value::String(self.0.clone()))
    }
}

/// The same words as on the command line.
macro_rules! choices {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn shape() -> String {
                words::<Self>()
            }
            fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
                let Some(word) = value.as_str() else {
                    return reader.mismatch(value, at, &Self::shape());
                };
                Self::from_str(word, false).ok().or_else(|| {
                    let known = names::<Self>();
                    let known = known.iter().map(String::as_str);
                    let remedy = match super::reader::nearest(word, known) {
                        Some(near) => format!("did you mean \"{near}\"? It is {}", words::<Self>()),
                        None => format!("it is {}", words::<Self>()),
                    };
                    reader.bad(at, format!("there is no choice {word:?}"), &remedy)
                })
            }
            fn written(&self) -> Option<toml::Value> {
                Some(toml::Value::String(self.to_possible_value()?.get_name().to_owned()))
            }
        }
    )*};
}
choices!(
    ModeName,
    AttachName,
    HostRoadName,
    ZeroCopyName,
    Seccomp,
    OnFailureName,
    CaptureFilesName,
    CaptureLinkName
);

fn names<T: ValueEnum>() -> Vec<String> {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect()
}

fn words<T: ValueEnum>() -> String {
    let mut quoted: Vec<_> = names::<T>().iter().map(|name| format!("\"{name}\"")).collect();
    let last = quoted.pop().unwrap_or_default();
    format!("{} or {last}", quoted.join(", "))
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// A gateway.
    Routed,
    /// Transparent pairs of ports.
    Bridge,
    /// INPUT and OUTPUT only: nothing is forwarded.
    Host,
}

/// `xdp.attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttachName {
    /// By the driver, else by the network stack.
    Auto,
    /// By the driver only.
    Native,
    /// By the network stack only.
    Generic,
}

/// `nflog.files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureFilesName {
    /// One for each group.
    Group,
    /// One for all.
    One,
}

/// `nflog.link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaptureLinkName {
    /// The kernel's attributes, as tcpdump has them from a group.
    Nflog,
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Raw,
}

/// `host.road`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostRoadName {
    /// By io_uring where the kernel lets us, else plainly.
    Auto,
    /// The same without io_uring: a system call for each packet.
    Plain,
    /// They stay with the kernel: INPUT and OUTPUT are not enforced.
    Off,
}

/// `xdp.zero-copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ZeroCopyName {
    /// Where the driver can.
    Auto,
    /// Or refuse to start.
    Force,
    /// Never.
    Off,
}

/// `failure.on-failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailureName {
    /// The kernel carries on.
    Open,
    /// What the policy would decide is dropped.
    Closed,
}
