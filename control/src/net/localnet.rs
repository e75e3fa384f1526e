//! On which ports 127.0.0.0/8 may arrive: `net.ipv4.conf.*.route_localnet`.
//!
//! No notification tells of the setting, so it is read now and then, from `/proc`
//! as it shows it to this thread's network namespace.

use std::collections::BTreeSet;
use std::path::Path;

const SETTINGS: &str = "/proc/sys/net/ipv4/conf";

/// Those of `ports` that have it, by themselves or because `all` has. What cannot
/// be read is off, as the kernel starts.
pub(super) fn read(ports: &[String]) -> BTreeSet<String> {
    read_in(Path::new(SETTINGS), ports)
}

fn read_in(settings: &Path, ports: &[String]) -> BTreeSet<String> {
    let on = |device: &str| {
        let text = std::fs::read_to_string(settings.join(device).join("route_localnet"));
        // Any number but 0 is on to the kernel.
        text.is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|value| value != 0))
    };
    let all = on("all");
    // `all` is for devices that exist, too.
    let exists = |port: &str| settings.join(port).exists();
    ports.iter().filter(|port| on(port) || all && exists(port)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_or_all() {
        let settings = std::env::temp_dir().join(format!("portcullis-{}-lnet", std::process::id()));
        let ports = ["a", "b.1", "gone"].map(str::to_owned);
        let set = |device: &str, value: &str| {
            std::fs::create_dir_all(settings.join(device)).unwrap();
            std::fs::write(settings.join(device).join("route_localnet"), value).unwrap();
        };
        let seen = || read_in(&settings, &ports).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(seen(), "");
        let cases = [
            ("0\n", "0\n", "0\n", ""),
            ("0\n", "1\n", "0\n", "a"),
            ("0\n", "0\n", "-1\n", "b.1"),
            ("1\n", "0\n", "0\n", "a b.1"),
            ("0\n", "?", "", ""),
        ];
        for (all, a, b, expected) in cases {
            set("all", all);
            set("a", a);
            set("b.1", b);
            assert_eq!(seen(), expected, "{all:?} {a:?} {b:?}");
        }
        std::fs::remove_dir_all(settings).unwrap();
    }
}
