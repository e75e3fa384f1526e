// What the XDP program and the tcx programs share: the kernel's interface, the
// constants that are set at load, the maps, and two judgements: whether a packet
// is management traffic, and whether the daemon is away.
//
// Nothing of the system is included, so that the built object depends on the
// files of this directory and on the compiler alone.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

// From the kernel's stable interface.
enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };
enum { TCX_PASS = 0, TCX_DROP = 2 };
enum { TO_INGRESS = 1 };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LPM_TRIE = 11, MAP_XSK = 17 };
enum { MAP_NO_PREALLOC = 1, MAP_MMAPABLE = 1 << 10 };
static long (*const read_kernel)(void *to, u32 length, const void *from) = (void *)113;
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const store_bytes)(void *skb, u32 at, const void *from, u32 length, u64 flags) = (void *)9;
static long (*const redirect)(u32 interface, u64 flags) = (void *)23;
static long (*const load_bytes)(const void *skb, u32 at, void *to, u32 length) = (void *)26;
static long (*const redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*const coarse_clock)(void) = (void *)160; // CLOCK_MONOTONIC, in ns, a tick late

// Set at load.
const volatile u32 ROUTED = 1;     // 0: bridge mode, everything is redirected
const volatile u32 HOST = 0;       // 1: packets to own addresses are the engine's too
const volatile u32 CLOSED = 0;     // while the daemon is away: 0 the kernel carries on, 1 drop
const volatile u32 QUEUES = 64;    // queues per port: stride of `sockets`; workers
const volatile u32 BLOCKLIST = 0;  // 1: look sources up in the blocklist maps
const volatile u64 PASSPORT = 0;   // 48 bits; the sender of frames that the engine delivers on a generic port
const volatile u64 BEAT_LIMIT = 0; // a worker that is silent for longer (ns) is away; 0: never

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
// Prefixes of a management list: its number is a part of each.
struct listed4 {
	u32 length;
	u32 list;
	u32 address;
};
struct listed6 {
	u32 length;
	u32 list;
	struct address6 address;
};
// Of the machine's own side; port 0 for protocols without ports.
struct service {
	u32 list;
	u16 proto;
	u16 port; // as on the wire
};

MAP(beats, MAP_ARRAY, u32, u64, 256, MAP_MMAPABLE); // worker -> its clock at its last turn, ns
MAP(local4, MAP_HASH, u32, u8, 4096, 0);            // the machine's addresses, broadcasts too
MAP(local6, MAP_HASH, struct address6, u8, 4096, 0);
MAP(local4_net, MAP_LPM_TRIE, struct prefix4, u8, 1024, MAP_NO_PREALLOC); // local routes to prefixes
MAP(local6_net, MAP_LPM_TRIE, struct prefix6, u8, 1024, MAP_NO_PREALLOC);
MAP(broadcast4, MAP_HASH, u32, u8, 1024, 0); // those of local4 that are broadcast addresses
// The management list in force: its number, perhaps with LISTS_IPV6; 0: none. A list
// is written under another number beside the one in force, which this then replaces.
MAP(management, MAP_ARRAY, u32, u32, 1, 0);
// Which entries of a list (a bit each) admit a remote prefix, those of wider
// prefixes included, and which admit a service.
MAP(manage4, MAP_LPM_TRIE, struct listed4, u64, 128, MAP_NO_PREALLOC);
MAP(manage6, MAP_LPM_TRIE, struct listed6, u64, 128, MAP_NO_PREALLOC);
MAP(services, MAP_HASH, struct service, u64, 8192, 0);
MAP(managed, MAP_PERCPU_ARRAY, u32, u64, 128, 0); // packets: entry * 2 + direction

#define ORDER16(value) ((u16)((value) << 8 | (value) >> 8))
enum { TYPE_IPV4 = ORDER16(0x0800), TYPE_IPV6 = ORDER16(0x86dd) };
enum { TYPE_ARP = ORDER16(0x0806) };
enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };
enum { MORE_OR_OFFSET = ORDER16(0x3fff) }; // of an IPv4 header: it is a fragment
enum { SOLICITATION = 135, ADVERTISEMENT = 136 };

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 proto;
	u16 checksum;
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
struct ports {
	u16 source;
	u16 destination;
};

// Whether worker `queue` turns at all: its slot is zero before its first turn and
// after its last.
INLINE int turns(u32 queue)
{
	u64 *beat = map_lookup(&beats, &queue);
	return beat && *beat;
}

// Whether worker `queue` is silent for too long. The clock may lie behind a beat.
INLINE int silent(u32 queue)
{
	u64 *beat = map_lookup(&beats, &queue);
	return !beat || (s64)(coarse_clock() - *beat) > (s64)BEAT_LIMIT;
}

// IPv4 is little-endian here as in every BPF object: the first byte is the low one.
INLINE int is_group4(u32 address)
{
	return (address & 0xf0) == 0xe0 || address == 0xffffffff;
}

INLINE int is_group6(const struct address6 *address)
{
	return address->byte[0] == 0xff;
}

INLINE int is_link_local6(const struct address6 *address)
{
	return address->byte[0] == 0xfe && (address->byte[1] & 0xc0) == 0x80;
}

// Neighbour and router discovery by its ICMPv6 type. A hop limit of 255 shows
// that no router has passed it on.
INLINE int is_discovery(u8 next, u8 hops, u8 type)
{
	return next == ICMPV6 && hops == 255 && type >= 133 && type <= 137;
}

INLINE int is_local4(u32 address)
{
	struct prefix4 prefix = { 32, address };
	return map_lookup(&local4, &address) || map_lookup(&local4_net, &prefix);
}

INLINE int is_local6(const struct address6 *address)
{
	struct prefix6 prefix = { 128, *address };
	return map_lookup(&local6, &prefix.address) || map_lookup(&local6_net, &prefix);
}

// The list in force, 0 when there is none: all that a packet pays then.
INLINE u32 management_list(void)
{
	u32 only = 0;
	u32 *list = map_lookup(&management, &only);
	return list ? *list : 0;
}

enum { INBOUND, OUTBOUND };
enum { LISTS_IPV6 = 1u << 31, LIST = 0xffff };

// The number of the lowest bit. (clang 14 has no end with __builtin_ctzll here.)
INLINE u32 first_bit(u64 bits)
{
	u32 at = 0;
	for (u32 half = 32; half; half /= 2) {
		if (!(bits << (64 - half))) {
			bits >>= half;
			at += half;
		}
	}
	return at;
}

// Whether both sides of a service are named by one entry, which counts the packet.
INLINE int admitted(u64 entries, u32 direction)
{
	if (!entries)
		return 0;
	u32 slot = first_bit(entries) * 2 + direction;
	u64 *count = map_lookup(&managed, &slot);
	if (count)
		*count += 1;
	return 1;
}

// Which entries admit a service: asked first, as it is the cheapest question and
// mostly answered no.
INLINE u64 entries_of(u32 list, u16 proto, u16 port)
{
	struct service service = { list & LIST, proto, port };
	u64 *entries = map_lookup(&services, &service);
	return entries ? *entries : 0;
}

// Whether traffic between this machine's service and a remote is management. A
// broadcast address is nobody's service, and what claims to come from this machine
// comes from no manager.
INLINE int manages4(u32 list, u16 proto, u16 port, u32 own, u32 remote, u32 direction)
{
	u64 entries = entries_of(list, proto, port);
	if (!entries)
		return 0;
	struct listed4 prefix = { 64, list & LIST, remote };
	u64 *admitting = map_lookup(&manage4, &prefix);
	if (!admitting || !is_local4(own) || map_lookup(&broadcast4, &own) || is_local4(remote))
		return 0;
	return admitted(*admitting & entries, direction);
}

INLINE int manages6(u32 list, u16 proto, u16 port, const struct address6 *own,
		    const struct address6 *remote, u32 direction)
{
	u64 entries = entries_of(list, proto, port);
	if (!entries)
		return 0;
	struct listed6 prefix = { 160, list & LIST, *remote };
	u64 *admitting = map_lookup(&manage6, &prefix);
	if (!admitting || !is_local6(own) || is_local6(remote))
		return 0;
	return admitted(*admitting & entries, direction);
}
