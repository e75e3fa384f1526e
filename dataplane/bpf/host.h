// The tcx programs of the host road: what the kernel itself sends on a port goes
// to the engine by way of a TAP, and what the engine delivers to this machine
// comes back through the same TAP and is received as if on the port.
//
// The kernel keeps, in both directions, what the XDP program leaves to it:
// everything that is not plain IPv4 or IPv6, frames of a VLAN, management
// traffic, and neighbour discovery. It also keeps what packet sockets send (DHCP
// clients), which no OUTPUT chain sees either. A frame that the engine sends goes
// out by AF_XDP, which passes no tcx hook: nothing comes round again.
//
// A TAP tells neither a packet's mark nor its socket, so they go in place of the
// source address (of the socket: that it is bound, and a number for its owner), which is the port's anyway (`dataplane/src/engine/handed.rs`).

struct bpf_sock {
	u32 bound_dev_if;
	u32 family;
	u32 type;
	u32 protocol;
	u32 mark;
	u32 priority;
	u32 src_ip4;
	u32 src_ip6[4];
	u32 src_port;
	u16 dst_port;
	u16 : 16;
	u32 dst_ip4;
	u32 dst_ip6[4];
	u32 state;
};
struct __sk_buff {
	u32 len;
	u32 pkt_type;
	u32 mark;
	u32 queue_mapping;
	u32 protocol;
	u32 vlan_present;
	u32 vlan_tci;
	u32 vlan_proto;
	u32 priority;
	u32 ingress_ifindex;
	u32 ifindex;
	u32 tc_index;
	u32 cb[5];
	u32 hash;
	u32 tc_classid;
	u32 data;
	u32 data_end;
	u32 napi_id;
	u32 family;
	u32 remote_ip4;
	u32 local_ip4;
	u32 remote_ip6[4];
	u32 local_ip6[4];
	u32 remote_port;
	u32 local_port;
	u32 data_meta;
	u64 flow_keys;
	u64 tstamp;
	u32 wire_len;
	u32 gso_segs;
	struct bpf_sock *sk;
	u32 gso_size;
};

// Of the kernel's own structures, what is read; where it lies in them is told by the kernel
// in which the program is loaded.
#define KERNELS __attribute__((preserve_access_index))
typedef struct {
	struct net *net;
} possible_net_t;
typedef struct {
	u32 val;
} kuid_t;
typedef struct {
	u32 val;
} kgid_t;
struct group_info {
	int ngroups;
	kgid_t gid[];
} KERNELS;
struct cred {
	kuid_t fsuid;
	kgid_t fsgid;
	struct group_info *group_info;
} KERNELS;
struct file {
	struct cred *f_cred;
} KERNELS;
struct socket {
	struct file *file;
} KERNELS;
struct sock_common {
	possible_net_t skc_net;
	struct sock *skc_listener;
} KERNELS;
struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket;
	kuid_t sk_uid;
	u16 sk_type;
} KERNELS;
struct net_device {
	possible_net_t nd_net;
} KERNELS;
struct sk_buff {
	struct sock *sk;
	struct net_device *dev;
} KERNELS;
// What cannot be read is zero.
#define READ(from, field) \
	({ \
		__typeof__((from)->field) value; \
		read_kernel(&value, sizeof(value), &(from)->field); \
		value; \
	})

MAP(taps, MAP_HASH, u32, u32, 65, 0);      // port's interface index -> its TAP's
// TAP's interface index -> its port's, and in the high half whether that one's XDP program
// is generic.
MAP(tap_ports, MAP_HASH, u32, u64, 65, 0);

enum { SENDER = 6, LINK = 14, SOURCE = 6 };
enum { PACKET_SOCKET = 17, STREAM_SOCKET = 1 };
enum { WORKERS_MAX = 256 };

// What the engine is told of a packet, in place of its source address.
enum { BOUND = 1, OWNER_SHIFT = 3 };
struct said {
	u8 flags; // and the owner's high bits
	u8 owner;
	u8 mark[4];
};

// Owners that were seen, numbered as they come, from FIRST_OWNER on; a number keeps its
// meaning. The same in dataplane/src/port/host/owners.rs.
enum { NOBODY = 0, NO_FILE = 1, FIRST_OWNER = 2, UNTOLD = 8191 };
enum { CLOSED_FOR_GOOD = 6, ASKED_TO_OPEN = 12 }; // states: TIME_WAIT, NEW_SYN_RECV
enum { GROUPS_MAX = 32 };
static const u32 NOT_TOLD = ~0u; // of a group, or how many groups

struct owner {
	u32 user;
	u32 group;
	u32 count; // of supplementary groups
	u32 groups[GROUPS_MAX];
};
MAP(owners, MAP_ARRAY, u32, struct owner, UNTOLD, 0); // by number; 0: how many, as the user
MAP(owner_numbers, MAP_HASH, struct owner, u32, UNTOLD, MAP_NO_PREALLOC);

INLINE u32 new_owner(struct owner *owner)
{
	u32 first = 0;
	struct owner *count = map_lookup(&owners, &first);
	if (!count || count->user >= UNTOLD - FIRST_OWNER)
		return UNTOLD;
	u32 number = FIRST_OWNER + __sync_fetch_and_add(&count->user, 1);
	if (number >= UNTOLD || map_update(&owners, &number, owner, 0))
		return UNTOLD;
	map_update(&owner_numbers, owner, &number, 0);
	return number;
}

// Whose a socket is: what the credentials say with which its file was opened, as it is
// while the file is open. The kernel's own sockets have no file, and closed ones no socket.
INLINE u32 owner_of_open(struct sock *sock, struct socket *socket)
{
	struct owner owner = {};
	struct file *file = READ(socket, file);
	if (file) {
		struct cred *cred = READ(file, f_cred);
		struct group_info *groups = READ(cred, group_info);
		owner.user = READ(cred, fsuid.val);
		owner.group = READ(cred, fsgid.val);
		owner.count = READ(groups, ngroups);
		if (owner.count > GROUPS_MAX)
			owner.count = NOT_TOLD;
		else if (owner.count)
			read_kernel(owner.groups, owner.count * sizeof(u32), &groups->gid);
	}
	// Closed meanwhile: then nobody knows what was read there.
	if (READ(sock, sk_socket) != socket)
		return NOBODY;
	if (!file)
		return NO_FILE;
	u32 *known = map_lookup(&owner_numbers, &owner);
	return known ? *known : new_owner(&owner);
}

// What only TCP still sends once it is closed is nobody's. What others have sent has waited
// for its neighbour: its user is still known, and nothing else.
INLINE u32 owner_of_closed(struct sock *sock, u32 type)
{
	if (type == STREAM_SOCKET)
		return NOBODY;
	struct owner owner = { .user = READ(sock, sk_uid.val), .group = NOT_TOLD, .count = NOT_TOLD };
	u32 *known = map_lookup(&owner_numbers, &owner);
	return known ? *known : new_owner(&owner);
}

// Whose a packet is. A socket of another network namespace is no owner here.
INLINE u32 owner_of(struct __sk_buff *skb)
{
	struct bpf_sock *seen = skb->sk;
	if (!seen || seen->state == CLOSED_FOR_GOOD)
		return NOBODY;
	struct sock *sock = READ((struct sk_buff *)skb, sk);
	if (seen->state == ASKED_TO_OPEN)
		sock = READ(sock, __sk_common.skc_listener);
	struct socket *socket = READ(sock, sk_socket);
	struct net_device *device = READ((struct sk_buff *)skb, dev);
	if (READ(sock, __sk_common.skc_net.net) != READ(device, nd_net.net))
		return NOBODY;
	return socket ? owner_of_open(sock, socket) : owner_of_closed(sock, READ(sock, sk_type));
}

INLINE int is_engines(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return 0;
	if (skb->protocol == TYPE_IPV4)
		return 1;
	if (skb->protocol != TYPE_IPV6)
		return 0;
	struct ipv6 ip;
	u8 type;
	if (load_bytes(skb, LINK, &ip, sizeof(ip)) || load_bytes(skb, LINK + sizeof(ip), &type, 1))
		return 1;
	return !is_discovery(ip.next, ip.hops, type);
}

INLINE long say(struct __sk_buff *skb, u8 flags, u32 owner)
{
	u32 mark = skb->mark;
	struct said said = { flags | owner >> 8 << OWNER_SHIFT, owner, {} };
	__builtin_memcpy(said.mark, &mark, sizeof(mark));
	return store_bytes(skb, SOURCE, &said, sizeof(said), 0);
}

// What an ICMP error quotes: as much as is asked for here.
struct quoted4 {
	struct ipv4 ip;
	struct ports ports;
};
struct quoted6 {
	struct ipv6 ip;
	struct ports ports;
};

// Whether an error tells a manager of what it sent to a service here.
INLINE int tells_manager4(struct __sk_buff *skb, u32 list)
{
	struct quoted4 quoted;
	if (load_bytes(skb, LINK + sizeof(struct ipv4) + 8, &quoted, sizeof(quoted)))
		return 0;
	struct ipv4 *ip = &quoted.ip;
	if (ip->version_ihl != 0x45 || (ip->fragment & MORE_OR_OFFSET) ||
	    (ip->proto != TCP && ip->proto != UDP))
		return 0;
	return manages4(list, ip->proto, quoted.ports.destination, ip->destination, ip->source,
			OUTBOUND);
}

INLINE int tells_manager6(struct __sk_buff *skb, u32 list)
{
	struct quoted6 quoted;
	if (load_bytes(skb, LINK + sizeof(struct ipv6) + 8, &quoted, sizeof(quoted)))
		return 0;
	struct ipv6 *ip = &quoted.ip;
	if (ip->next != TCP && ip->next != UDP)
		return 0;
	return manages6(list, ip->next, quoted.ports.destination, &ip->destination, &ip->source,
			OUTBOUND);
}

// Whether a packet answers a manager. The same packets as on the way in: whole, with
// plain headers.
INLINE int to_manager4(struct __sk_buff *skb, u32 list)
{
	struct ipv4 ip;
	struct ports ports = {};
	if (load_bytes(skb, LINK, &ip, sizeof(ip)) || ip.version_ihl != 0x45 ||
	    (ip.fragment & MORE_OR_OFFSET))
		return 0;
	u32 next = LINK + sizeof(ip);
	if (ip.proto == TCP || ip.proto == UDP) {
		if (load_bytes(skb, next, &ports, sizeof(ports)))
			return 0;
	} else if (ip.proto == ICMP) {
		u8 type;
		if (load_bytes(skb, next, &type, sizeof(type)))
			return 0;
		if (type == 3 || type == 11 || type == 12)
			return tells_manager4(skb, list);
	} else {
		return 0;
	}
	return manages4(list, ip.proto, ports.source, ip.source, ip.destination, OUTBOUND);
}

INLINE int to_manager6(struct __sk_buff *skb, u32 list)
{
	struct ipv6 ip;
	struct ports ports = {};
	if (load_bytes(skb, LINK, &ip, sizeof(ip)))
		return 0;
	u32 next = LINK + sizeof(ip);
	if (ip.next == TCP || ip.next == UDP) {
		if (load_bytes(skb, next, &ports, sizeof(ports)))
			return 0;
	} else if (ip.next == ICMPV6) {
		u8 type;
		if (load_bytes(skb, next, &type, sizeof(type)))
			return 0;
		if (type < 128)
			return tells_manager6(skb, list);
	} else {
		return 0;
	}
	return manages6(list, ip.next, ports.source, &ip.source, &ip.destination, OUTBOUND);
}

INLINE int to_manager(struct __sk_buff *skb)
{
	u32 list = management_list();
	if (!list)
		return 0;
	return skb->protocol == TYPE_IPV4 ? to_manager4(skb, list) : to_manager6(skb, list);
}

INLINE int any_silent(void)
{
	for (u32 queue = 0; queue < WORKERS_MAX; queue++) {
		if (queue >= QUEUES)
			break;
		if (silent(queue))
			return 1;
	}
	return 0;
}

// `tells`: whether the kernel's own structures can be read, which say whose a packet is.
INLINE int leave(struct __sk_buff *skb, int tells)
{
	u32 interface = skb->ifindex;
	struct bpf_sock *socket = skb->sk;
	if (socket && socket->family == PACKET_SOCKET)
		return TCX_PASS;
	if (!is_engines(skb) || to_manager(skb))
		return TCX_PASS;
	if (BEAT_LIMIT && any_silent())
		return CLOSED ? TCX_DROP : TCX_PASS;
	u32 *tap = map_lookup(&taps, &interface);
	if (!tap)
		return CLOSED ? TCX_DROP : TCX_PASS;
	u32 owner = tells ? owner_of(skb) : socket ? UNTOLD : NOBODY;
	if (say(skb, socket && socket->bound_dev_if ? BOUND : 0, owner))
		return TCX_DROP;
	return redirect(*tap, 0);
}

SEC("classifier")
int host_out(struct __sk_buff *skb)
{
	return leave(skb, 1);
}

// Where the kernel describes itself to nobody, or is locked against being read.
SEC("classifier")
int host_out_untold(struct __sk_buff *skb)
{
	return leave(skb, 0);
}

// Where answers on loopback are expected: a bit for each hash of an answer's addresses,
// ports and protocol, set by the workers (`dataplane/src/port/host/looped.rs`) and never
// cleared. What else hashes there takes the engine's road too, which knows better.
enum { LOOPED = 3, LOOPED_WORDS = 1 << 14 };
// A worker's frame holds 3840 bytes; with headers, of which these are the longest.
enum { FRAME_MAX = 3840, HEADERS_MAX = LINK + 40 + 60 };
MAP(looped, MAP_ARRAY, u32, u64, LOOPED_WORDS, MAP_MMAPABLE);

INLINE u32 mixed(u32 hash, u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1;
	return hash ^ hash >> 15;
}

INLINE u32 mixed6(u32 hash, const struct address6 *address)
{
	u32 words[4];
	__builtin_memcpy(words, address, sizeof(words));
	return mixed(mixed(mixed(mixed(hash, words[0]), words[1]), words[2]), words[3]);
}

// Whole TCP and UDP packets with plain headers only; the same as in looped.rs.
INLINE int is_looped(struct __sk_buff *skb)
{
	u32 hash, ports;
	if (skb->protocol == TYPE_IPV4) {
		struct ipv4 ip;
		if (load_bytes(skb, LINK, &ip, sizeof(ip)) || ip.version_ihl != 0x45 ||
		    (ip.fragment & MORE_OR_OFFSET) || (ip.proto != TCP && ip.proto != UDP) ||
		    load_bytes(skb, LINK + sizeof(ip), &ports, sizeof(ports)))
			return 0;
		hash = mixed(mixed(ip.proto, ip.source), ip.destination);
	} else if (skb->protocol == TYPE_IPV6) {
		struct ipv6 ip;
		if (load_bytes(skb, LINK, &ip, sizeof(ip)) || (ip.next != TCP && ip.next != UDP) ||
		    load_bytes(skb, LINK + sizeof(ip), &ports, sizeof(ports)))
			return 0;
		hash = mixed6(mixed6(ip.next, &ip.source), &ip.destination);
	} else {
		return 0;
	}
	hash = mixed(hash, ports);
	u32 at = hash >> 6 & (LOOPED_WORDS - 1);
	u64 *bits = map_lookup(&looped, &at);
	return bits && *bits >> (hash & 63) & 1;
}

// On what loopback sends. What is too long for the engine, its other packets, and all of them while the daemon is away,
// stay with the kernel.
SEC("classifier")
int host_loop(struct __sk_buff *skb)
{
	u32 interface = skb->ifindex;
	u32 longest = skb->gso_size ? skb->gso_size + HEADERS_MAX : skb->len;
	if (longest > FRAME_MAX || !is_looped(skb) || (BEAT_LIMIT && any_silent()))
		return TCX_PASS;
	u32 *tap = map_lookup(&taps, &interface);
	if (!tap)
		return TCX_PASS;
	if (say(skb, LOOPED, NOBODY))
		return TCX_DROP;
	return redirect(*tap, 0);
}

SEC("classifier")
int host_in(struct __sk_buff *skb)
{
	u32 interface = skb->ifindex;
	u64 *port = map_lookup(&tap_ports, &interface);
	if (!port)
		return TCX_DROP;
	// A generic XDP program will see the frame: it must not take it for one off the wire.
	u64 passport = PASSPORT;
	if (*port >> 32 && store_bytes(skb, SENDER, &passport, 6, 0))
		return TCX_DROP;
	return redirect((u32)*port, TO_INGRESS);
}
