// The XDP program: what stays with the kernel, what is dropped at once, and
// what goes to the AF_XDP socket of its (port, queue). One instance serves all
// ports; the maps are shared by them.
//
// In routed mode the kernel keeps: everything that is not plain IPv4 or IPv6
// (ARP, LLDP, frames of a VLAN), management traffic, and neighbour discovery
// (from the link itself: hop limit 255) to groups, link-local and own addresses.
// Neighbour discovery to any other address is not exempt: a kernel that forwards
// would carry it past the policy. Without the host road it also keeps broadcast
// and multicast and packets to the machine's own addresses.
// A tag with VLAN id 0 is a mere priority: the kernel takes the frame for an
// untagged one and forwards it, so it is judged by what is behind the tag.
// Frames too short to tell are redirected: the engine counts why it drops them.
// Of what would be redirected, block.h drops what a rule would drop at once.
//
// While the daemon is away (no socket, or a worker that does not turn), what
// would be redirected is left to the kernel or dropped, as CLOSED says.

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

// Per port and per cause; `dataplane/src/port/afxdp/program.rs` has the same list.
enum {
	REDIRECTED,    // to a socket
	PASSED_LINK,   // not plain IP
	PASSED_LOCAL,  // to an address of this machine
	PASSED_GROUP,  // broadcast, multicast, neighbour discovery
	BLOCKED,       // dropped for a rule, see block.h
	NO_SOCKET_HIT, // no socket, or a worker that has not begun: passed or dropped as CLOSED says
	PASSED_MANAGEMENT,
	SILENT_HIT,    // the worker has stopped turning: likewise
	CAUSES = 8,
};

MAP(counters, MAP_PERCPU_ARRAY, u32, u64, 64 * CAUSES, 0); // slot * CAUSES + cause
MAP(ports, MAP_HASH, u32, u32, 64, 0);                     // interface index -> slot
MAP(sockets, MAP_XSK, u32, u32, 64, 0);                    // slot * QUEUES + queue

struct ethernet {
	u8 destination[6];
	u8 source[6];
	u16 type;
};
struct arp {
	u16 kinds[4];
	u16 sender[5]; // link, then protocol address
	u16 target_link[3];
	u16 target[2];
};
struct tag {
	u16 control; // priority, drop eligibility, VLAN id
	u16 type;    // of what follows
};

enum { TYPE_VLAN = ORDER16(0x8100), TYPE_QINQ = ORDER16(0x88a8), VLAN_ID = ORDER16(0x0fff) };
enum { TAGS_MAX = 2 }; // as many as the engine looks behind

#include "block.h"

INLINE int is_tag(u16 type)
{
	return type == TYPE_VLAN || type == TYPE_QINQ;
}

// Whether an ICMP error speaks of a packet that this machine sent to a manager.
INLINE int about_management4(u32 list, u8 *icmp, void *end)
{
	struct ipv4 *quoted = (void *)(icmp + 8);
	if ((void *)(quoted + 1) > end || quoted->version_ihl != 0x45)
		return 0;
	struct ports *ports = (void *)(quoted + 1);
	if ((void *)(ports + 1) > end || (quoted->fragment & MORE_OR_OFFSET) ||
	    (quoted->proto != TCP && quoted->proto != UDP))
		return 0;
	return manages4(list, quoted->proto, ports->source, quoted->source, quoted->destination,
			INBOUND);
}

INLINE int about_management6(u32 list, u8 *icmp, void *end)
{
	struct ipv6 *quoted = (void *)(icmp + 8);
	struct ports *ports = (void *)(quoted + 1);
	if ((void *)(ports + 1) > end || (quoted->next != TCP && quoted->next != UDP))
		return 0;
	return manages6(list, quoted->next, ports->source, &quoted->source, &quoted->destination,
			INBOUND);
}

// Whole packets with plain headers only: of a fragment nobody can tell, and an
// option can ask the kernel to send a packet on.
INLINE int is_management4(u32 list, struct ipv4 *ip, void *end)
{
	u8 *next = (u8 *)(ip + 1);
	if (ip->version_ihl != 0x45 || (void *)(next + 8) > end ||
	    (ip->fragment & MORE_OR_OFFSET))
		return 0;
	u16 port = 0;
	if (ip->proto == TCP || ip->proto == UDP)
		port = ((struct ports *)next)->destination;
	else if (ip->proto != ICMP)
		return 0;
	else if (*next == 3 || *next == 11 || *next == 12)
		return is_local4(ip->destination) && about_management4(list, next, end);
	return manages4(list, ip->proto, port, ip->destination, ip->source, INBOUND);
}

INLINE int is_management6(u32 list, struct ipv6 *ip, void *end)
{
	u8 *next = (u8 *)(ip + 1);
	if ((void *)(next + 8) > end)
		return 0;
	u16 port = 0;
	if (ip->next == TCP || ip->next == UDP)
		port = ((struct ports *)next)->destination;
	else if (ip->next != ICMPV6)
		return 0;
	else if (*next < 128)
		return is_local6(&ip->destination) && about_management6(list, next, end);
	return manages6(list, ip->next, port, &ip->destination, &ip->source, INBOUND);
}

// Neighbour discovery without which no manager reaches a bridge over IPv6: who asks
// for an address of this machine, or answers it, on the same link (so says the hop
// limit).
INLINE int finds_manager(struct ipv6 *ip, void *end)
{
	u8 *icmp = (u8 *)(ip + 1);
	struct address6 *target = (void *)(icmp + 8);
	if (ip->next != ICMPV6 || ip->hops != 255 || (void *)(target + 1) > end)
		return 0;
	int own = is_local6(&ip->destination);
	if (*icmp == SOLICITATION)
		return (own || ip->destination.byte[0] == 0xff) && is_local6(target);
	return *icmp == ADVERTISEMENT && own;
}

INLINE u32 judge4(void *at, void *end)
{
	struct ipv4 *ip = at;
	if ((void *)(ip + 1) > end)
		return REDIRECTED;
	u32 to = ip->destination;
	u32 list = management_list();
	if (list && is_management4(list, ip, end))
		return PASSED_MANAGEMENT;
	if (!ROUTED)
		return REDIRECTED;
	if (HOST)
		return REDIRECTED;
	if (is_group4(to))
		return PASSED_GROUP;
	return is_local4(to) ? PASSED_LOCAL : REDIRECTED;
}

INLINE u32 judge6(void *at, void *end)
{
	struct ipv6 *ip = at;
	if ((void *)(ip + 1) > end)
		return REDIRECTED;
	u32 list = management_list();
	if (list && is_management6(list, ip, end))
		return PASSED_MANAGEMENT;
	if (!ROUTED)
		return (list & LISTS_IPV6) && finds_manager(ip, end) ? PASSED_GROUP : REDIRECTED;
	struct address6 to = ip->destination;
	int group = is_group6(&to), link_local = is_link_local6(&to);
	u8 *icmp = (u8 *)(ip + 1);
	if ((void *)(icmp + 1) <= end && is_discovery(ip->next, ip->hops, *icmp) &&
	    (group || link_local || is_local6(&to)))
		return PASSED_GROUP;
	if (HOST)
		return REDIRECTED;
	if (group)
		return PASSED_GROUP;
	return is_local6(&to) ? PASSED_LOCAL : REDIRECTED;
}

// Whether an ARP packet concerns an address of this machine. A bridge keeps it, if
// managers may speak to the bridge itself.
INLINE int asks_for_us(void *at, void *end)
{
	struct arp *arp = at;
	return (void *)(arp + 1) <= end && is_local4(arp->target[0] | (u32)arp->target[1] << 16);
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
	if (!ROUTED && type == TYPE_ARP && asks_for_us(at, end) && management_list())
		return PASSED_LINK;
	return ROUTED && !is_tag(type) ? PASSED_LINK : REDIRECTED;
}

// Whether the engine delivers the frame to this machine: in generic mode it comes by here
// again. The wire cannot say so: the passport is drawn anew when the program is loaded, and
// taken off here, before any socket can look at the frame.
INLINE int is_delivered(void *data, void *end)
{
	struct ethernet *link = data;
	u64 sender = 0;
	if (!PASSPORT || (void *)(link + 1) > end)
		return 0;
	__builtin_memcpy(&sender, link->source, sizeof(link->source));
	if (sender != PASSPORT)
		return 0;
	sender = 0x02; // 02:00:00:00:00:00: of nobody
	__builtin_memcpy(link->source, &sender, sizeof(link->source));
	return 1;
}

SEC("xdp")
int portcullis(struct xdp_md *frame)
{
	void *data = (void *)(long)frame->data;
	void *end = (void *)(long)frame->data_end;
	u32 interface = frame->ingress_ifindex;
	long away = CLOSED ? XDP_DROP : XDP_PASS;
	u32 *slot = map_lookup(&ports, &interface);
	if (!slot)
		return away;
	if (is_delivered(data, end))
		return XDP_PASS;

	u32 cause = judge(data, end);
	long verdict = XDP_PASS;
	if (cause == REDIRECTED) {
		u32 queue = frame->rx_queue_index;
		verdict = away;
		// A queue beyond the stride would be another port's.
		if (queue >= QUEUES) {
			cause = NO_SOCKET_HIT;
		} else if (BEAT_LIMIT && silent(queue)) {
			cause = turns(queue) ? SILENT_HIT : NO_SOCKET_HIT;
		} else if (BLOCKLIST && blocks(data, end, *slot, *slot * QUEUES + queue)) {
			cause = BLOCKED;
			verdict = XDP_DROP;
		} else {
			verdict = redirect_map(&sockets, *slot * QUEUES + queue, away);
			if (verdict != XDP_REDIRECT)
				cause = NO_SOCKET_HIT;
		}
	}
	u32 counter = *slot * CAUSES + cause;
	u64 *count = map_lookup(&counters, &counter);
	if (count)
		*count += 1;
	return verdict;
}
