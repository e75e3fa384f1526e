// The tcx programs of the host road: what the kernel itself sends on a port goes
// to the engine by way of a TAP, and what the engine delivers to this machine
// comes back through the same TAP and is received as if on the port.
//
// Like portcullis.bpf.c it includes nothing. The kernel keeps, in both
// directions, what the XDP program leaves to it: everything that is not plain
// IPv4 or IPv6, frames of a VLAN, broadcast and multicast, and packets to
// link-local IPv6 addresses. A frame that the engine sends goes out by AF_XDP,
// which passes no tcx hook: nothing comes round again.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

// From the kernel's stable interface.
enum { TCX_PASS = 0, TCX_DROP = 2 };
enum { MAP_HASH = 1 };
enum { TO_INGRESS = 1 };
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
};
static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const redirect)(u32 interface, u64 flags) = (void *)23;
static long (*const load_bytes)(const void *skb, u32 at, void *to, u32 length) = (void *)26;

#define MAP(name, key_type, value_type, entries) \
	struct { \
		int (*type)[MAP_HASH]; \
		key_type *key; \
		value_type *value; \
		int (*max_entries)[entries]; \
	} name SEC(".maps")

MAP(taps, u32, u32, 64);  // port's interface index -> its TAP's
MAP(ports, u32, u32, 65); // TAP's interface index -> its port's

#define ORDER16(value) ((u16)((value) << 8 | (value) >> 8))
enum { TYPE_IPV4 = ORDER16(0x0800), TYPE_IPV6 = ORDER16(0x86dd) };
enum { LINK = 14, TO_V4 = 16, TO_V6 = 24 };

static inline __attribute__((always_inline)) int is_engines(struct __sk_buff *skb)
{
	u8 to[2];
	if (skb->vlan_present)
		return 0;
	if (skb->protocol == TYPE_IPV4) {
		u32 whole;
		if (load_bytes(skb, LINK + TO_V4, &whole, 4))
			return 0;
		// The first byte on the wire is the low one.
		return (whole & 0xf0) != 0xe0 && whole != 0xffffffff;
	}
	if (skb->protocol == TYPE_IPV6) {
		if (load_bytes(skb, LINK + TO_V6, to, 2))
			return 0;
		return to[0] != 0xff && !(to[0] == 0xfe && (to[1] & 0xc0) == 0x80);
	}
	return 0;
}

SEC("classifier")
int host_out(struct __sk_buff *skb)
{
	u32 interface = skb->ifindex;
	if (!is_engines(skb))
		return TCX_PASS;
	u32 *tap = map_lookup(&taps, &interface);
	return tap ? redirect(*tap, 0) : TCX_PASS;
}

SEC("classifier")
int host_in(struct __sk_buff *skb)
{
	u32 interface = skb->ifindex;
	u32 *port = map_lookup(&ports, &interface);
	return port ? redirect(*port, TO_INGRESS) : TCX_DROP;
}

char license_text[] SEC("license") = "Apache-2.0 OR MIT";
