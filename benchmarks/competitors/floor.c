/* The floor: the dr shape by nothing but the system calls that it needs.
 *
 *     floor up N PREFIX        floor down N PREFIX
 *
 * One switch (a bridge in a namespace of its own), a client, a director and N real servers, each
 * a namespace under /run/netns with a veth to the bridge, an address, a default route and lo;
 * the director and the real servers hold the VIP, the real servers keep silent about it.
 *
 * What makes it quick: each namespace is entered once, its netlink socket stays there; messages go
 * out many at a time, only the last of a batch is acknowledged; both ends of a veth are placed
 * when it is made (moving one takes an RCU grace period), with one queue and different ifindexes;
 * the bridge comes up last, without multicast snooping and VLANs; ARP settings go by netlink;
 * IPv6 is off in the switch and makes no addresses in the nodes.
 *
 * Prints {"ms": wall time, "cpu_ms": CPU time} of the work, without the start of the process.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BRIDGE = 50, FIRST_PORT = 100, DEVICE = 2, LO = 1, BATCH = 128 * 1024 };
enum { SNOOPING = 23, DEFAULT_PVID = 39, INET_CONF = 1, ARP_IGNORE = 19, ARP_ANNOUNCE = 18,
       ADDR_GEN_MODE = 8, GEN_NONE = 1 };
static const unsigned GATEWAY = 10u << 24 | 1, VIP = 10u << 24 | 255 << 8 | 1;

static void die(const char *what) { perror(what); exit(1); }

static double seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* ── messages ─────────────────────────────────────────────────────────────────────────────── */

static char buffer[4 << 20];
static size_t used, last;
static unsigned sequence;

static void *put(const void *data, size_t length)
{
	void *at = buffer + used;
	if (used + NLMSG_ALIGN(length) > sizeof buffer)
		die("buffer");
	memset(at, 0, NLMSG_ALIGN(length));
	if (data)
		memcpy(at, data, length);
	used += NLMSG_ALIGN(length);
	return at;
}

static void begin(int type, int flags, const void *body, size_t length)
{
	struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags,
				  .nlmsg_seq = ++sequence};
	last = used;
	put(&header, sizeof header);
	put(body, length);
}

static size_t attribute(int type, const void *data, size_t length)
{
	struct rtattr header = {.rta_len = RTA_LENGTH(length), .rta_type = type};
	size_t at = used;
	put(&header, sizeof header);
	if (length)
		put(data, length);
	return at;
}

static void number(int type, unsigned value) { attribute(type, &value, sizeof value); }
static size_t nest(int type) { return attribute(type, NULL, 0); }
static void close_nest(size_t at) { ((struct rtattr *)(buffer + at))->rta_len = used - at; }
static void end(void) { ((struct nlmsghdr *)(buffer + last))->nlmsg_len = used - last; }

static void await(int sock, unsigned wanted)
{
	char answer[65536];
	for (;;) {
		int length = recv(sock, answer, sizeof answer, 0);
		if (length < 0)
			die("recv");
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, (unsigned)length);
		     h = NLMSG_NEXT(h, length)) {
			struct nlmsgerr *error = NLMSG_DATA(h);
			if (h->nlmsg_type == NLMSG_ERROR && (errno = -error->error))
				die("netlink");
			if (h->nlmsg_type == NLMSG_ERROR && h->nlmsg_seq == wanted)
				return;
		}
	}
}

static void flush(int sock)
{
	for (size_t at = 0; at < used;) {
		size_t start = at;
		struct nlmsghdr *header = NULL;
		while (at < used) {
			struct nlmsghdr *next = (void *)(buffer + at);
			if (at - start + next->nlmsg_len > BATCH)
				break;
			header = next;
			at += NLMSG_ALIGN(next->nlmsg_len);
		}
		header->nlmsg_flags |= NLM_F_ACK;
		if (send(sock, buffer + start, at - start, 0) < 0)
			die("send");
		await(sock, header->nlmsg_seq);
	}
	used = 0;
}

static void link_change(int index, unsigned flags)
{
	struct ifinfomsg body = {.ifi_index = index, .ifi_flags = flags, .ifi_change = flags};
	begin(RTM_NEWLINK, 0, &body, sizeof body);
}

static void up(int index) { link_change(index, IFF_UP); end(); }

static void address(int index, unsigned ip, int prefix)
{
	struct ifaddrmsg body = {AF_INET, prefix, 0, 0, index};
	unsigned wire = htonl(ip);
	begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
	attribute(IFA_LOCAL, &wire, 4);
	attribute(IFA_ADDRESS, &wire, 4);
	end();
}

static void default_route(unsigned gateway)
{
	struct rtmsg body = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN,
			     .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
	unsigned wire = htonl(gateway);
	begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
	attribute(RTA_GATEWAY, &wire, 4);
	end();
}

static void bridge(void)
{
	struct ifinfomsg body = {.ifi_index = BRIDGE};
	unsigned char off = 0;
	unsigned short no_vlan = 0;
	begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
	attribute(IFLA_IFNAME, "br0", 4);
	size_t info = nest(IFLA_LINKINFO);
	attribute(IFLA_INFO_KIND, "bridge", 7);
	size_t data = nest(IFLA_INFO_DATA);
	attribute(SNOOPING, &off, 1);
	attribute(DEFAULT_PVID, &no_vlan, 2);
	close_nest(data);
	close_nest(info);
	end();
}

static void cable(int node, int namespace)
{
	struct ifinfomsg here = {.ifi_index = FIRST_PORT + node, .ifi_flags = IFF_UP,
				 .ifi_change = IFF_UP};
	struct ifinfomsg there = {.ifi_index = DEVICE};
	char name[16];
	int length = sprintf(name, "p%d", node) + 1;
	begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &here, sizeof here);
	attribute(IFLA_IFNAME, name, length);
	number(IFLA_MASTER, BRIDGE);
	number(IFLA_NUM_TX_QUEUES, 1);
	number(IFLA_NUM_RX_QUEUES, 1);
	size_t info = nest(IFLA_LINKINFO);
	attribute(IFLA_INFO_KIND, "veth", 5);
	size_t data = nest(IFLA_INFO_DATA), peer = nest(VETH_INFO_PEER);
	put(&there, sizeof there);
	attribute(IFLA_IFNAME, "eth0", 5);
	number(IFLA_NET_NS_FD, namespace);
	number(IFLA_NUM_TX_QUEUES, 1);
	number(IFLA_NUM_RX_QUEUES, 1);
	close_nest(peer);
	close_nest(data);
	close_nest(info);
	end();
}

static void quiet(int index) /* no IPv6 address, and so none of its chatter */
{
	unsigned char none = GEN_NONE;
	link_change(index, 0);
	size_t families = nest(IFLA_AF_SPEC), family = nest(AF_INET6);
	attribute(ADDR_GEN_MODE, &none, 1);
	close_nest(family);
	close_nest(families);
	end();
}

static void suppress_arp(int index)
{
	link_change(index, 0);
	size_t families = nest(IFLA_AF_SPEC), family = nest(AF_INET), settings = nest(INET_CONF);
	number(ARP_IGNORE, 1);
	number(ARP_ANNOUNCE, 2);
	close_nest(settings);
	close_nest(family);
	close_nest(families);
	end();
}

/* ── namespaces ───────────────────────────────────────────────────────────────────────────── */

static const char *prefix;

static char *place(int node) /* -1: the switch */
{
	static char path[128];
	if (node < 0)
		sprintf(path, "/run/netns/%ssw", prefix);
	else if (node < 2)
		sprintf(path, "/run/netns/%s%s", prefix, node ? "director" : "client");
	else
		sprintf(path, "/run/netns/%srs%d", prefix, node - 1);
	return path;
}

static int namespace(int node)
{
	int file = open(place(node), O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0);
	if (file < 0 || unshare(CLONE_NEWNET))
		die(place(node));
	close(file);
	if (mount("/proc/self/ns/net", place(node), NULL, MS_BIND, NULL))
		die(place(node));
	return open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
}

static int netlink(void)
{
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), size = 1 << 20;
	if (sock < 0)
		die("socket");
	setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	return sock;
}

static void setting(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, value, 1) != 1)
		die(path);
	close(file);
}

static void build(int nodes)
{
	int *namespaces = calloc(nodes, sizeof(int)), *sockets = calloc(nodes, sizeof(int));
	close(namespace(-1));
	int sw = netlink();
	setting("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
	bridge();
	up(LO);
	address(BRIDGE, GATEWAY, 16);
	flush(sw);
	for (int i = 0; i < nodes; i++) {
		namespaces[i] = namespace(i);
		sockets[i] = netlink();
	}
	for (int i = 0; i < nodes; i++)
		cable(i, namespaces[i]);
	flush(sw);
	for (int i = 0; i < nodes; i++) {
		quiet(DEVICE);
		up(LO);
		up(DEVICE);
		address(DEVICE, 10u << 24 | (i + 2), 16);
		if (i)
			address(i == 1 ? DEVICE : LO, VIP, 32);
		if (i > 1)
			suppress_arp(DEVICE);
		default_route(GATEWAY);
		flush(sockets[i]);
	}
	up(BRIDGE);
	flush(sw);
}

int main(int count, char **words)
{
	if (count != 4)
		return fprintf(stderr, "floor up|down N PREFIX\n"), 2;
	int nodes = atoi(words[2]) + 2;
	prefix = words[3];
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	mkdir("/run/netns", 0755);
	double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	if (!strcmp(words[1], "up"))
		build(nodes);
	else
		for (int i = -1; i < nodes; i++) {
			umount2(place(i), MNT_DETACH);
			unlink(place(i));
		}
	printf("{\"ms\": %.3f, \"cpu_ms\": %.3f}\n", (seconds(CLOCK_MONOTONIC) - wall) * 1e3,
	       (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e3);
	return 0;
}
