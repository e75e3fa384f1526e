//! How a port's device spreads flows over its queues.

use super::ports::Device;
use super::{Code, Command, Finding};

/// A Toeplitz key whose hash is the same for both directions of a flow.
const SYMMETRIC_KEY: [u8; 2] = [0x6d, 0x5a];

/// Whether a key is a repetition of two bytes: then exchanging source and
/// destination does not change the hash.
fn is_symmetric(key: &[u8]) -> bool {
    key.len() >= 2 && key.iter().zip(key.iter().skip(2)).all(|(a, b)| a == b)
}

/// What the spread means. A device with one queue, or one that does not say, has none.
pub(super) fn judge(name: &str, device: &Device) -> Vec<Finding> {
    let Some(spreading) = device.spreading.as_ref().filter(|_| device.queues > 1) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let idle: Vec<u32> =
        (0..device.queues).filter(|queue| !spreading.queues.contains(queue)).collect();
    if !idle.is_empty() && !spreading.queues.is_empty() {
        let found = format!("its hash never chooses queue(s) {}", list(&idle));
        let equal = Command::new("ethtool -X").arg(name).arg("equal");
        let equal = equal.arg(device.queues.to_string());
        findings.push(Finding::warning(Code::RssTable, name, found).mend(equal));
    } else {
        findings.push(Finding::ok(Code::RssTable, name, "its hash chooses every queue"));
    }
    let symmetric = spreading.symmetric || (spreading.toeplitz && is_symmetric(&spreading.key));
    findings.push(if symmetric {
        Finding::ok(Code::RssSymmetry, name, "both directions of a flow hash alike")
    } else {
        let found = "both directions of a flow hash differently";
        let pairs = spreading.key.len().max(40) / 2;
        let key = vec![SYMMETRIC_KEY.map(|byte| format!("{byte:02x}")).join(":"); pairs].join(":");
        let set = Command::new("ethtool -X").arg(name).args("hfunc toeplitz hkey").arg(key);
        Finding::note(Code::RssSymmetry, name, found)
            .mend(set)
            .advise(format!("or, where the driver can: ethtool -X {name} xfrm symmetric-xor"))
    });
    let flows = ["tcp4", "udp4", "tcp6", "udp6"];
    let without: Vec<&str> = flows
        .into_iter()
        .zip(spreading.ports_hashed)
        .filter(|(_, hashed)| !hashed)
        .map(|(flow, _)| flow)
        .collect();
    if let Some(first) = without.first() {
        let found = format!("ports are not hashed for {}", without.join(", "));
        let hash = Command::new("ethtool -N").arg(name).args("rx-flow-hash").arg(*first);
        findings.push(Finding::note(Code::RssPorts, name, found).mend(hash.arg("sdfn")));
    }
    if device.steering > 0 {
        let found = format!("{} rule(s) steer flows to queues", device.steering);
        let advice =
            format!("ethtool -n {name} shows them, ethtool -N {name} delete N removes one");
        findings.push(Finding::note(Code::Steering, name, found).advise(advice));
    }
    findings
}

fn list(queues: &[u32]) -> String {
    queues.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
