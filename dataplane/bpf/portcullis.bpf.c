// The XDP program: what stays with the kernel, what is dropped at once, and
// what goes to the AF_XDP socket of its (port, queue).
//
// It includes nothing, so that the built object depends on this file and on
// the compiler alone. Constants in capitals are set when it is loaded. One
// instance serves all ports; the maps are shared by them.
//
// In routed mode the kernel keeps: everything that is not plain IPv4 or IPv6
// (ARP, LLDP, frames of a VLAN), packets to the machine's own addresses (with
// the host road only those to link-local ones),
// broadcast and multicast (so MLD and most of neighbour discovery), and
// neighbour discovery to link-local addresses. Neighbour discovery to any other
// address is not exempt: a kernel that forwards would carry it past the policy.
// A tag with VLAN id 0 is a mere priority: the kernel takes the frame for an
// untagged one and forwards it, so it is judged by what is behind the tag.
// Frames too short to tell are redirected: the engine counts why it drops them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// From the kernel's stable interface.
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
enum { MAP_HASH = 1, MAP_PERCPU_ARRAY = 6, MAP_LPM_TRIE = 11, MAP_XSK = 17 };
enum { MAP_NO_PREALLOC = 1 };
struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

// Set at load.
const volatile u32 ROUTED = 1;            // 0: bridge mode, everything is redirected
const volatile u32 HOST = 0;              // 1: packets to own addresses are the engine's too
const volatile u32 NO_SOCKET = XDP_PASS;  // verdict while no socket is bound: open PASS, closed DROP
const volatile u32 QUEUES = 64;           // queues per port: stride of `sockets`
const volatile u32 BLOCKLIST = 0;         // 1: look sources up in the blocklist maps

// Per port and per cause; `dataplane/src/port/afxdp/program.rs` has the same list.
enum {
	REDIRECTED,    // to a socket
	PASSED_LINK,   // not plain IP
	PASSED_LOCAL,  // to an address of this machine
	PASSED_GROUP,  // broadcast, multicast, neighbour discovery
	BLOCKED,       // source on the blocklist
	NO_SOCKET_HIT, // nowhere to redirect to: the NO_SOCKET verdict
	CAUSES = 8,
};

#define MAP(name, map_type, key_type, value_type, entries, flags) \
	struct { \
		int (*type)[map_type]; \
		key_type *key; \
		value_type *value; \
		int (*max_entries)[entries]; \
		int (*map_flags)[flags]; \
	} name SEC(".maps")

struct address6 {
	u8 byte[16];
};
struct prefix4 {
	u32 length;
	u32 address;
};
struct prefix6 {
	u32 length;
	struct address6 address;
};

MAP(counters, MAP_PERCPU_ARRAY, u32, u64, 64 * CAUSES, 0); // slot * CAUSES + cause
MAP(ports, MAP_HASH, u32, u32, 64, 0);                     // interface index -> slot
MAP(sockets, MAP_XSK, u32, u32, 64, 0);                    // slot * QUEUES + queue
MAP(local4, MAP_HASH, u32, u8, 4096, 0);                   // the machine's addresses, broadcasts too
MAP(local6, MAP_HASH, struct address6, u8, 4096, 0);
MAP(local4_net, MAP_LPM_TRIE, struct prefix4, u8, 1024, MAP_NO_PREALLOC); // local routes to prefixes
MAP(local6_net, MAP_LPM_TRIE, struct prefix6, u8, 1024, MAP_NO_PREALLOC);
MAP(block4, MAP_HASH, u32, u8, 1, 0);
MAP(block6, MAP_HASH, struct address6, u8, 1, 0);
MAP(block4_net, MAP_LPM_TRIE, struct prefix4, u8, 1, MAP_NO_PREALLOC);
MAP(block6_net, MAP_LPM_TRIE, struct prefix6, u8, 1, MAP_NO_PREALLOC);

struct ethernet {
	u8 destination[6];
	u8 source[6];
	u16 type;
};
struct tag {
	u16 control; // priority, drop eligibility, VLAN id
	u16 type;    // of what follows
};
struct ipv4 {
	u8 rest[12];
	u32 source;
	u32 destination;
};
struct ipv6 {
	u32 flow;
	u16 length;
	u8 next;
	u8 hops;
	struct address6 source;
	struct address6 destination;
};

#define ORDER16(value) ((u16)((value) << 8 | (value) >> 8))
enum { TYPE_IPV4 = ORDER16(0x0800), TYPE_IPV6 = ORDER16(0x86dd), ICMPV6 = 58 };
enum { TYPE_VLAN = ORDER16(0x8100), TYPE_QINQ = ORDER16(0x88a8), VLAN_ID = ORDER16(0x0fff) };
enum { TAGS_MAX = 2 }; // as many as the engine looks behind

INLINE int is_tag(u16 type)
{
	return type == TYPE_VLAN || type == TYPE_QINQ;
}

INLINE u32 judge4(void *at, void *end)
{
	struct ipv4 *ip = at;
	if ((void *)(ip + 1) > end)
		return REDIRECTED;
	u32 to = ip->destination;
	if (BLOCKLIST) {
		struct prefix4 from = { 32, ip->source };
		if (map_lookup(&block4, &from.address) || map_lookup(&block4_net, &from))
			return BLOCKED;
	}
	if (!ROUTED)
		return REDIRECTED;
	// The first byte on the wire is the low one: BPF objects are little-endian here.
	if ((to & 0xf0) == 0xe0 || to == 0xffffffff)
		return PASSED_GROUP;
	if (HOST)
		return REDIRECTED;
	if (map_lookup(&local4, &to))
		return PASSED_LOCAL;
	struct prefix4 prefix = { 32, to };
	return map_lookup(&local4_net, &prefix) ? PASSED_LOCAL : REDIRECTED;
}

INLINE u32 judge6(void *at, void *end)
{
	struct ipv6 *ip = at;
	if ((void *)(ip + 1) > end)
		return REDIRECTED;
	if (BLOCKLIST) {
		struct prefix6 from = { 128, ip->source };
		if (map_lookup(&block6, &from.address) || map_lookup(&block6_net, &from))
			return BLOCKED;
	}
	if (!ROUTED)
		return REDIRECTED;
	struct prefix6 prefix = { 128, ip->destination };
	struct address6 to = prefix.address;
	if (to.byte[0] == 0xff)
		return PASSED_GROUP;
	int link_local = to.byte[0] == 0xfe && (to.byte[1] & 0xc0) == 0x80;
	if ((!HOST || link_local) && (map_lookup(&local6, &to) || map_lookup(&local6_net, &prefix)))
		return PASSED_LOCAL;
	u8 *icmp = (u8 *)(ip + 1);
	if (link_local && ip->next == ICMPV6 && (void *)(icmp + 1) <= end &&
	    *icmp >= 133 && *icmp <= 137)
		return PASSED_GROUP;
	return REDIRECTED;
}

INLINE u32 judge(void *data, void *end)
{
	struct ethernet *link = data;
	if ((void *)(link + 1) > end)
		return REDIRECTED;
	void *at = link + 1;
	u16 type = link->type;
	for (int tags = 0; ROUTED && is_tag(type) && tags < TAGS_MAX; tags++) {
		struct tag *tag = at;
		if ((void *)(tag + 1) > end)
			return REDIRECTED;
		if (tag->control & VLAN_ID)
			return PASSED_LINK;
		at = tag + 1;
		type = tag->type;
	}
	if (type == TYPE_IPV4)
		return judge4(at, end);
	if (type == TYPE_IPV6)
		return judge6(at, end);
	return ROUTED && !is_tag(type) ? PASSED_LINK : REDIRECTED;
}

SEC("xdp")
int portcullis(struct xdp_md *frame)
{
	void *data = (void *)(long)frame->data;
	void *end = (void *)(long)frame->data_end;
	u32 interface = frame->ingress_ifindex;
	u32 *slot = map_lookup(&ports, &interface);
	if (!slot)
		return NO_SOCKET;

	u32 cause = judge(data, end);
	long verdict = XDP_PASS;
	if (cause == BLOCKED) {
		verdict = XDP_DROP;
	} else if (cause == REDIRECTED) {
		u32 queue = frame->rx_queue_index;
		// A queue beyond the stride would be another port's.
		verdict = NO_SOCKET;
		if (queue < QUEUES)
			verdict = redirect_map(&sockets, *slot * QUEUES + queue, NO_SOCKET);
		if (verdict != XDP_REDIRECT)
			cause = NO_SOCKET_HIT;
	}
	u32 counter = *slot * CAUSES + cause;
	u64 *count = map_lookup(&counters, &counter);
	if (count)
		*count += 1;
	return verdict;
}

char license_text[] SEC("license") = "Apache-2.0 OR MIT";
