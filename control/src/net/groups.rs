//! Which multicast groups this machine listens to, by device.
//!
//! The kernel's own list, as `/proc` shows it to this thread's network namespace:
//! every kernel has that, while its netlink dump of groups is new (IPv4 since
//! Linux 6.15). Newer kernels tell when the list changes; on others it is read
//! again now and then.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A device's index, and a group that it listens to.
pub(super) type Membership = (u32, IpAddr);

const IGMP: &str = "/proc/thread-self/net/igmp";
const IGMP6: &str = "/proc/thread-self/net/igmp6";

/// Reads the list, sorted.
///
/// # Errors
/// When the kernel's list cannot be read. A family that the kernel does not have
/// has no groups.
pub(super) fn read() -> io::Result<Vec<Membership>> {
    let file = |path| match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    let (v4, v6) = (file(IGMP)?, file(IGMP6)?);
    let mut all: Vec<_> = parse_v4(&v4).into_iter().chain(parse_v6(&v6)).collect();
    all.sort_unstable();
    Ok(all)
}

/// A line for each device, and below it an indented one for each group: the
/// address as the machine's own number for its bytes.
fn parse_v4(text: &str) -> Vec<Membership> {
    let (mut device, mut all) = (None, Vec::new());
    for line in text.lines().skip(1) {
        let Some(first) = line.split_whitespace().next() else { continue };
        if !line.starts_with(char::is_whitespace) {
            device = first.parse().ok();
        } else if let (Some(device), Ok(bits)) = (device, u32::from_str_radix(first, 16)) {
            all.push((device, Ipv4Addr::from(bits.to_ne_bytes()).into()));
        }
    }
    all
}

/// A line for each group: index, device, address, and more.
fn parse_v6(text: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let device = words.next()?.parse().ok()?;
        let bits = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        Some((device, IpAddr::V6(Ipv6Addr::from_bits(bits))))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_are_read() {
        let number = u32::from_ne_bytes([224, 0, 0, 5]);
        let v4 = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\
             \t\t\t\t010000E0     1 0:00000000\t\t0\n\
             12\teth0      :     2      V3\n\
             \t\t\t\t{number:08X}     1 0:00000000\t\t0\n"
        );
        assert_eq!(parse_v4(&v4).last(), Some(&(12, "224.0.0.5".parse().unwrap())));
        assert_eq!(parse_v4(&v4).len(), 2);
        let v6 = "12   eth0            ff020000000000000000000000000005     1 00000004 0\n\
                  garbage\n";
        assert_eq!(parse_v6(v6), [(12, "ff02::5".parse().unwrap())]);
    }

    #[test]
    fn this_machine_has_groups() {
        assert!(read().unwrap().iter().any(|(_, group)| group.is_multicast()));
    }
}
