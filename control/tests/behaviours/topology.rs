//! The lab's router in the form that replay reads.

use std::fmt::Write as _;

use crate::lab::{self, address, host_mac, mac_text, port_mac};

/// `topo.toml`.
pub fn text() -> String {
    let mut text = String::from(
        "mode = \"routed\"\n[icmp]\nicmp_ratelimit = 0\nicmp_msgs_per_sec = 0\nicmpv6_ratelimit = 0\n",
    );
    for port in 0..lab::PORTS {
        let (v4, v6) = (address(false, port, 1), address(true, port, 1));
        let mac = mac_text(port_mac(port));
        let addresses = format!("addresses = [\"{v4}/24\", \"{v6}/64\"]");
        writeln!(text, "[[port]]\nname = \"eth{port}\"\nmac = \"{mac}\"\n{addresses}")
            .expect("writing to a string");
        for (v6, host) in lab::NEIGHBOURS.iter().flat_map(|host| [(false, host), (true, host)]) {
            let (ip, mac) = (address(v6, port, *host), mac_text(host_mac(port, *host)));
            writeln!(
                text,
                "[[neighbour]]\ndev = \"eth{port}\"\naddress = \"{ip}\"\nmac = \"{mac}\""
            )
            .expect("writing to a string");
        }
    }
    for (to, via) in lab::REMOTE {
        writeln!(text, "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\ndev = \"eth2\"")
            .expect("writing to a string");
    }
    text
}
