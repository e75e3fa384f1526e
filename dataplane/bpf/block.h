// What a blocklist rule of the policy drops is dropped here, and counted as the
// engine would count it. Which rules may stand here is proven where the policy is
// compiled; which frames, here: whole, plain, in order and addressed to the port, so
// that the engine would come to the rule and to nothing before it. Every other
// frame is the engine's, whatever its source.
//
// A rule names a table of sources. The number of a table is a part of its keys, and
// is never given to another: what is left of one that is gone is found by nobody.

enum { BLOCK_RULES = 4 };                // of each family, in the order of the policy
enum { BLOCK_HOSTS = 1, BLOCK_NETS = 2 }; // what a table may hold
enum { LISTED = 1, EXCEPTED = 2 };        // what an entry says
enum { BLOCK_PORTS = 64, IP4 = 0, IP6 = 1 };

struct block_rule {
	u32 table; // 0: nobody is blocked
	u32 kinds;
	u64 ports; // a bit each
};
struct block_count {
	u64 packets;
	u64 bytes;       // of layer 3, as rules count
	u64 frame_bytes; // as ports count
};
struct block_host4 {
	u32 table;
	u32 address;
};
struct block_host6 {
	u32 table;
	struct address6 address;
};

MAP(block4, MAP_HASH, struct block_host4, u8, 1, MAP_NO_PREALLOC);
MAP(block6, MAP_HASH, struct block_host6, u8, 1, MAP_NO_PREALLOC);
MAP(block4_net, MAP_LPM_TRIE, struct listed4, u8, 1, MAP_NO_PREALLOC);
MAP(block6_net, MAP_LPM_TRIE, struct listed6, u8, 1, MAP_NO_PREALLOC);
MAP(block_rules, MAP_ARRAY, u32, struct block_rule, 2 * BLOCK_RULES, 0);
MAP(block_counts, MAP_PERCPU_ARRAY, u32, struct block_count, 2 * BLOCK_RULES * BLOCK_PORTS, 0);
MAP(block_macs, MAP_ARRAY, u32, u64, BLOCK_PORTS, 0); // port -> its address; 0: it blocks nothing

enum { DHCP_SERVER = ORDER16(67), DHCP_CLIENT = ORDER16(68) };

// Whether packet sockets of this machine may have to see it.
INLINE int overheard(u8 proto, struct ports *ports, void *end)
{
	return proto == UDP && ((void *)(ports + 1) > end || ports->destination == DHCP_SERVER ||
				ports->destination == DHCP_CLIENT);
}

// A whole IPv4 packet without options that no check before the rules refuses: its
// length, else 0.
INLINE u32 whole4(struct ipv4 *ip, void *end)
{
	u16 *word = (u16 *)ip;
	u32 sum = 0, length = ORDER16(ip->length);
	for (int at = 0; at < 10; at++)
		sum += word[at];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	if (ip->version_ihl != 0x45 || sum != 0xffff || (ip->fragment & MORE_OR_OFFSET) ||
	    length < sizeof(*ip) || length > end - (void *)ip ||
	    overheard(ip->proto, (void *)(ip + 1), end))
		return 0;
	return length;
}

INLINE int is_loopback6(const struct address6 *address)
{
	const u32 *word = (const u32 *)address;
	return !(word[0] | word[1] | word[2]) && word[3] == 0x01000000;
}

// The same for IPv6, without extension headers.
INLINE u32 whole6(struct ipv6 *ip, void *end)
{
	u32 length = sizeof(*ip) + ORDER16(ip->length);
	if ((ip->flow & 0xf0) != 0x60 || length > end - (void *)ip || length > 0xffff ||
	    (ip->next != TCP && ip->next != UDP && ip->next != ICMPV6) ||
	    is_group6(&ip->source) || is_loopback6(&ip->source) ||
	    is_group6(&ip->destination) || is_loopback6(&ip->destination))
		return 0;
	return length;
}

// Whether the source is in a rule's table: the longest entry that holds it says.
INLINE int listed(struct block_rule *rule, u32 table, void *hosts, void *host, void *nets, void *net)
{
	u8 *found = 0;
	if (rule->kinds & BLOCK_HOSTS)
		found = map_lookup(hosts, host);
	if (!found && (rule->kinds & BLOCK_NETS))
		found = map_lookup(nets, net);
	return found && *found == LISTED && table;
}

// The first rule that drops the packet, if any, by its place in the maps.
INLINE u32 blocking_rule(u32 slot, u32 family, void *ip)
{
	for (u32 at = 0; at < BLOCK_RULES; at++) {
		u32 place = family * BLOCK_RULES + at;
		struct block_rule *rule = map_lookup(&block_rules, &place);
		if (!rule)
			break;
		u32 table = *(volatile u32 *)&rule->table;
		if (!table || !(rule->ports >> (slot & 63) & 1))
			continue;
		int found;
		if (family == IP4) {
			struct block_host4 host = { table, ((struct ipv4 *)ip)->source };
			struct listed4 net = { 64, table, host.address };
			found = listed(rule, table, &block4, &host, &block4_net, &net);
		} else {
			struct block_host6 host = { table, ((struct ipv6 *)ip)->source };
			struct listed6 net = { 160, table, host.address };
			found = listed(rule, table, &block6, &host, &block6_net, &net);
		}
		if (found)
			return place;
	}
	return 2 * BLOCK_RULES;
}

// Whether a frame that would be redirected is dropped for a rule, which counts it.
// `socket` is where it would go: without a socket there, no engine would see it.
INLINE int blocks(void *data, void *end, u32 slot, u32 socket)
{
	struct ethernet *link = data;
	if ((void *)(link + 1) > end)
		return 0;
	u64 *own = map_lookup(&block_macs, &slot);
	u64 to = 0;
	__builtin_memcpy(&to, link->destination, sizeof(link->destination));
	if (!own || !to || *own != to)
		return 0;
	u32 place = 2 * BLOCK_RULES, length = 0;
	if (link->type == TYPE_IPV4) {
		struct ipv4 *ip = (void *)(link + 1);
		if ((void *)(ip + 1) > end)
			return 0;
		place = blocking_rule(slot, IP4, ip);
		length = place < 2 * BLOCK_RULES ? whole4(ip, end) : 0;
	} else if (link->type == TYPE_IPV6) {
		struct ipv6 *ip = (void *)(link + 1);
		if ((void *)(ip + 1) > end)
			return 0;
		place = blocking_rule(slot, IP6, ip);
		length = place < 2 * BLOCK_RULES ? whole6(ip, end) : 0;
	}
	if (!length || !map_lookup(&sockets, &socket))
		return 0;
	u32 at = place * BLOCK_PORTS + (slot & 63);
	struct block_count *count = map_lookup(&block_counts, &at);
	if (!count)
		return 0;
	count->packets += 1;
	count->bytes += length;
	count->frame_bytes += end - data;
	return 1;
}
