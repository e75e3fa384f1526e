//! The machine's own services under Portcullis that talk to a link rather than to
//! a host, with real programs: DHCP clients on a port, OSPF, VRRP; and what the
//! kernel has decided about packets of this machine. Needs root.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

mod netns;
mod services;

use netns::{Namespace, join};
use services::{Lab, denied_but};

/// Long enough for what is to come, and to see that nothing does.
const SHORT: Duration = Duration::from_millis(700);

/// Starts a DHCP server for the network behind `g0`.
fn dhcp_server(lab: &Lab) -> netns::Process {
    lab.a.run("ip addr add 198.18.1.2/24 dev a0");
    let leases = lab.path("leases");
    let server = lab.spawn(
        &lab.a,
        "dnsmasq",
        &format!(
            "dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=a0 --bind-interfaces \
             --dhcp-range=198.18.1.100,198.18.1.200,2m --dhcp-leasefile={leases} --no-ping --log-dhcp"
        ),
    );
    lab.until("the server listens", || lab.read("dnsmasq.log").contains("DHCP, sockets bound"));
    server
}

/// The usual policy of a machine that serves nobody.
const QUIET: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// A script for clients that says what happens and sets the address.
fn client_script(lab: &Lab) -> String {
    let events = lab.path("events");
    let script = lab.file(
        "client.sh",
        &format!(
            "#!/bin/sh\n\
             case \"$reason$1\" in\n\
             bound|renew) ip addr replace $ip/24 dev $interface;;\n\
             BOUND|RENEW|REBIND|REBOOT) ip addr replace $new_ip_address/24 dev $interface;;\n\
             RELEASE|deconfig) ip addr flush dev $interface scope global;;\n\
             esac\n\
             echo \"$reason$1 $ip$new_ip_address\" >> {events}\n"
        ),
    );
    netns::shell(&format!("chmod +x {script}"));
    script
}

/// Nothing in INPUT lets an offer in: the client hears it by its packet socket, as
/// under the kernel's iptables. The renewal is an ordinary connection.
#[test]
fn a_dhcp_client_gets_and_renews_its_lease_behind_a_closed_input() {
    let mut lab = Lab::new();
    let _server = dhcp_server(&lab);
    lab.start(QUIET);
    let script = client_script(&lab);
    let client =
        lab.spawn(&lab.gateway, "udhcpc", &format!("udhcpc -i g0 -f -t 8 -T 1 -A 1 -s {script}"));
    lab.until("a lease", || lab.read("events").contains("bound 198.18.1."));
    assert_eq!(lab.hits("-4", "INPUT", 1), 0, "INPUT accepted nothing so far");
    client.signal("USR1");
    lab.until("a renewal", || lab.read("events").contains("renew 198.18.1."));
    // A client on a busy machine may have asked again before it read the answer.
    let answers = lab.hits("-4", "INPUT", 1);
    assert!((1..=2).contains(&answers), "the renewal's answer is ESTABLISHED: {answers}");
    // What the client asks is by packet socket, past OUTPUT; the renewal is not.
    let output = lab.hits("-4", "OUTPUT", 0);
    assert!(output >= 1, "{output}");
    client.signal("USR2");
    lab.until("a release", || lab.read("dnsmasq.log").contains("DHCPRELEASE"));
}

#[test]
fn another_dhcp_client_finds_its_lease_and_releases_it() {
    let mut lab = Lab::new();
    let _server = dhcp_server(&lab);
    lab.start(QUIET);
    let script = client_script(&lab);
    let (leases, pid) = (lab.path("dhclient.leases"), lab.path("dhclient.pid"));
    let line = format!("dhclient -4 -d -sf {script} -lf {leases} -pf {pid} -cf /dev/null g0");
    let client = lab.spawn(&lab.gateway, "dhclient", &line);
    lab.until("a lease", || lab.read("events").contains("BOUND 198.18.1."));
    drop(client);
    let line = format!("dhclient -4 -r -sf {script} -lf {leases} -pf {pid} -cf /dev/null g0");
    lab.gateway.attempt(&line);
    lab.until("a release", || lab.read("dnsmasq.log").contains("DHCPRELEASE"));
}

/// The routing daemon's configuration: both families on one link.
fn bird(lab: &Lab, role: &str, router: &str, device: &str) -> String {
    let log = lab.path(&format!("bird.{role}.log"));
    let protocol = |version, family| {
        format!(
            "protocol ospf {version} o{version} {{ {family} {{ import all; export all; }}; area 0 {{ \
             interface \"{device}\" {{ type broadcast; hello 1; dead 4; wait 2; }}; }}; }}\n"
        )
    };
    let text = format!(
        "log \"{log}\" all;\nrouter id {router};\nprotocol device {{}}\n\
         protocol direct {{ ipv4; ipv6; interface \"lo\"; }}\n\
         protocol kernel {{ ipv4 {{ export all; }}; }}\nprotocol kernel {{ ipv6 {{ export all; }}; }}\n\
         {}{}",
        protocol("v2", "ipv4"),
        protocol("v3", "ipv6")
    );
    let file = lab.file(&format!("bird.{role}.conf"), &text);
    format!("bird -f -c {file} -s {}", lab.path(&format!("bird.{role}.ctl")))
}

/// Multicast and link-local, both families: only a rule lets them through.
#[test]
fn ospf_comes_up_with_its_rules_and_not_without() {
    let mut lab = Lab::addressed();
    lab.a.run("ip addr add 203.0.113.1/32 dev lo; ip addr add 2001:db8:77::1/128 dev lo");
    lab.start(&denied_but("-A OUTPUT -o g0 -p ospf -j ACCEPT\n"));
    let far = bird(&lab, "a", "192.0.2.1", "a0");
    let _far = lab.spawn(&lab.a, "bird.a", &far);
    let near = bird(&lab, "gw", "192.0.2.2", "g0");
    let _near = lab.spawn(&lab.gateway, "bird.gw", &near);
    lab.until("hellos both ways", || {
        let counted = |family| lab.hits(family, "INPUT", 0).min(lab.hits(family, "OUTPUT", 1));
        counted("-4") >= 2 && counted("-6") >= 2
    });
    let neighbours = |version: &str| {
        let control = lab.path("bird.gw.ctl");
        let output =
            lab.gateway.attempt(&format!("birdc -s {control} show ospf neighbors o{version}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!neighbours("v2").contains("192.0.2.1") && !neighbours("v3").contains("192.0.2.1"));
    lab.apply(&denied_but("-A INPUT -i g0 -p ospf -j ACCEPT\n-A OUTPUT -o g0 -p ospf -j ACCEPT\n"));
    lab.until("adjacencies", || {
        neighbours("v2").contains("Full") && neighbours("v3").contains("Full")
    });
    lab.until("routes", || {
        let v4 = lab.gateway.run("ip route show 203.0.113.1");
        let v6 = lab.gateway.run("ip -6 route show 2001:db8:77::1");
        v4.contains("via 198.18.1.2 dev g0") && v6.contains("via fe80::")
    });
}

fn keepalived(
    lab: &Lab,
    inside: &Namespace,
    role: &str,
    device: &str,
    priority: u8,
) -> netns::Process {
    let text = format!(
        "global_defs {{\n router_id {role}\n}}\nvrrp_instance one {{\n state BACKUP\n interface {device}\n \
         virtual_router_id 7\n priority {priority}\n advert_int 0.3\n version 3\n \
         virtual_ipaddress {{\n 198.18.1.99/24\n }}\n}}\n"
    );
    let file = lab.file(&format!("keepalived.{role}.conf"), &text);
    let (main, vrrp) = (lab.path(&format!("{role}.pid")), lab.path(&format!("{role}.vrrp.pid")));
    let line = format!("keepalived -n -l -P -f {file} -p {main} -r {vrrp}");
    lab.spawn(inside, &format!("keepalived.{role}"), &line)
}

#[test]
fn vrrp_fails_over_with_its_rules_and_splits_without() {
    let mut lab = Lab::addressed();
    lab.start(&denied_but("-A INPUT -i g0 -p icmp -j ACCEPT\n-A OUTPUT -p icmp -j ACCEPT\n"));
    let has = |inside: &Namespace, device: &str| {
        inside.run(&format!("ip addr show dev {device}")).contains("198.18.1.99/")
    };
    let far = keepalived(&lab, &lab.a, "a", "a0", 150);
    lab.until("the far side is master", || has(&lab.a, "a0"));
    let near = keepalived(&lab, &lab.gateway, "gw", "g0", 100);
    lab.until("two masters that do not hear of each other", || has(&lab.gateway, "g0"));
    assert!(lab.hits("-4", "INPUT", 0) > 0, "advertisements are refused");
    lab.apply(&denied_but(
        "-A INPUT -p vrrp -j ACCEPT\n-A OUTPUT -p vrrp -j ACCEPT\n\
         -A INPUT -i g0 -p icmp -j ACCEPT\n-A OUTPUT -p icmp -j ACCEPT\n",
    ));
    lab.until("the lower priority gives way", || !has(&lab.gateway, "g0"));
    assert!(has(&lab.a, "a0"));
    far.signal("TERM");
    lab.until("the backup takes over", || has(&lab.gateway, "g0") && !has(&lab.a, "a0"));
    assert!(lab.hits("-4", "OUTPUT", 1) > 0);
    lab.until("the address is reached", || {
        lab.a.attempt("ip neigh flush all; ping -c 1 -W 1 198.18.1.99").status.success()
    });
    drop((near, far));
}

/// Where a packet of this machine goes is the kernel's to say: what sockets are
/// bound to, groups, everybody on a link, marks, link-local addresses.
#[test]
fn the_kernels_own_routing_holds_in_output() {
    let mut lab = Lab::addressed();
    // An address of the other network, which only `b` has.
    lab.b.run("ip addr add 198.18.1.77/32 dev b0");
    lab.gateway
        .run("ip rule add fwmark 5 table 100; ip route add 203.0.113.9 via 198.18.2.2 table 100");
    lab.b.run("ip addr add 203.0.113.9/32 dev b0");
    lab.start(&denied_but(
        "-A OUTPUT -o g1 -m mark --mark 0x5 -j ACCEPT\n-A OUTPUT -o g1 -j ACCEPT\n\
         -A INPUT -i g1 -j ACCEPT\n",
    ));
    let ping =
        |words: &str| lab.gateway.attempt(&format!("ping -c 1 -W 1 {words}")).status.success();
    assert!(!ping("198.18.1.77"), "the table says g0, where nobody has it");
    assert!(ping("-I g1 198.18.1.77"), "SO_BINDTODEVICE");
    assert_eq!(lab.hits("-4", "OUTPUT", 1), 0);
    assert!(!ping("203.0.113.9") && ping("-m 5 203.0.113.9"), "SO_MARK");
    assert!(lab.hits("-4", "OUTPUT", 1) >= 1, "OUTPUT sees the mark");
    let shown = lab.b.run("ip -6 addr show dev b0 scope link");
    let local = shown.split_whitespace().find(|word| word.starts_with("fe80::")).unwrap();
    let local = local.split('/').next().unwrap();
    lab.until("link-local", || ping(&format!("{local}%g1")));

    let ear = lab.b.enter(|| {
        let ear = UdpSocket::bind("0.0.0.0:7000").unwrap();
        let group = Ipv4Addr::new(239, 1, 1, 1);
        ear.join_multicast_v4(&group, &Ipv4Addr::new(198, 18, 2, 2)).unwrap();
        ear.set_read_timeout(Some(SHORT)).unwrap();
        ear
    });
    let mouth = lab.gateway.enter(|| UdpSocket::bind("198.18.2.1:0").unwrap());
    mouth.set_broadcast(true).unwrap();
    for to in ["239.1.1.1:7000", "198.18.2.255:7000", "255.255.255.255:7000"] {
        mouth.send_to(to.as_bytes(), to).unwrap();
        let mut heard = [0; 64];
        let length = ear.recv(&mut heard).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(&heard[..length], to.as_bytes());
    }
    // And OUTPUT rules hold for them.
    lab.apply(&denied_but(""));
    for to in ["239.1.1.1:7000", "198.18.2.255:7000", "255.255.255.255:7000"] {
        let _refused = mouth.send_to(b"mute", to);
    }
    assert!(ear.recv(&mut [0; 64]).is_err());
    assert!(lab.hits("-4", "OUTPUT", 0) >= 3);
}

/// Groups and broadcast pass INPUT; what nobody has joined does not get there.
#[test]
fn input_sees_groups_that_were_joined() {
    let mut lab = Lab::addressed();
    lab.start(&denied_but("-A INPUT -i g0 -p udp -m udp --dport 7001 -j ACCEPT\n"));
    let group = Ipv4Addr::new(239, 2, 2, 2);
    let ear = lab.gateway.enter(|| UdpSocket::bind("0.0.0.0:7001").unwrap());
    ear.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mouth = lab.a.enter(|| UdpSocket::bind("198.18.1.2:0").unwrap());
    mouth.set_broadcast(true).unwrap();
    let before = lab.drops("not_forwarded");
    mouth.send_to(b"nobody", "239.2.2.2:7001").unwrap();
    lab.until("nobody listens", || lab.drops("not_forwarded") > before);
    assert_eq!(lab.hits("-4", "INPUT", 1), 0);
    ear.join_multicast_v4(&group, &Ipv4Addr::new(198, 18, 1, 1)).unwrap();
    let hears = |to: &str| {
        mouth.send_to(to.as_bytes(), to).unwrap();
        let mut heard = [0; 64];
        ear.recv(&mut heard).is_ok_and(|length| &heard[..length] == to.as_bytes())
    };
    lab.until("the group is heard", || hears("239.2.2.2:7001"));
    for to in ["198.18.1.255:7001", "255.255.255.255:7001", "198.18.1.1:7001"] {
        lab.until(to, || hears(to));
    }
    lab.apply(&denied_but(""));
    for to in ["239.2.2.2:7001", "198.18.1.255:7001", "255.255.255.255:7001"] {
        assert!(!hears(to), "{to} is refused");
    }
    assert_eq!(lab.hits("-4", "INPUT", 0), 3);
}

/// What the kernel forwards to a port from a device that is none is OUTPUT here:
/// no way around the policy.
#[test]
fn what_the_kernel_forwards_to_a_port_passes_output() {
    let mut lab = Lab::addressed();
    let inner = Namespace::new("inner");
    join((&inner, "c0"), (&lab.gateway, "bridge0"), 1);
    inner.run("ip addr add 192.0.2.2/24 dev c0; ip route add default via 192.0.2.1");
    lab.gateway.run("ip addr add 192.0.2.1/24 dev bridge0");
    lab.b.run("ip addr add 198.18.2.3/24 dev b0");
    // As a container host has it: the kernel masquerades.
    lab.gateway.run("iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -d 198.18.2.2 -j MASQUERADE");
    lab.start(&denied_but(
        "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A OUTPUT -o g1 -p icmp -j ACCEPT\n",
    ));
    lab.until("a masqueraded ping", || inner.attempt("ping -c 1 -W 1 198.18.2.2").status.success());
    let counted = lab.hits("-4", "OUTPUT", 1);
    assert!(counted >= 1);
    assert!(!inner.attempt("ping -c 1 -W 1 198.18.2.3").status.success(), "no way back");
    assert_eq!(lab.hits("-4", "OUTPUT", 1), counted + 1, "but it was seen");
    assert!(lab.drops("route_foreign") >= 1);
    lab.apply(&denied_but(""));
    assert!(!inner.attempt("ping -c 1 -W 1 198.18.2.2").status.success());
}
