#!/bin/sh
# lab nat-ipv6: NAT for IPv6, real servers in a private network behind the director
#
#   public  fd00:20::/64
#     client    client    fd00:20::10
#     director  director  fd00:20::2   VIP fd00:20::100
#
#   private  fd00:192::/64
#     director  director     fd00:192::2
#     rs1       real server  fd00:192::11
#     rs2       real server  fd00:192::12
#
#   web  tcp [fd00:20::100]:80  nat  rr
#     -> rs1  [fd00:192::11]:8080  weight 1
#     -> rs2  [fd00:192::12]:8080  weight 1
#
# sh nat-ipv6.sh         builds it: 6 namespaces, nothing outside of them
# sh nat-ipv6.sh down    removes it
#
# Needs root, a kernel with IPVS, and: ip, sysctl, ipvsadm. Real servers
# answer where there is python3.
# Written by `lvsctl plan nat-ipv6 --format sh`; does what `lvsctl up nat-ipv6` does.

set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

lab=nat-ipv6
namespaces='lvs-nat-ipv6-public
lvs-nat-ipv6-private
lvs-nat-ipv6-client
lvs-nat-ipv6-director
lvs-nat-ipv6-rs1
lvs-nat-ipv6-rs2'
state=/run/lvs-nat-ipv6.script # says that the namespaces are this script's
family=inet6
complete=yes

say() {
    printf '%s\n' "$lab: $*" >&2
}

refuse() {
    say "$*"
    say 'nothing was touched'
    exit 69
}

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 ||
        refuse "the command $1 is missing (Debian and Ubuntu: apt-get install $2)"
}

exists() { # NETNS
    [ -e "/var/run/netns/$1" ] || [ -L "/var/run/netns/$1" ]
}

# The processes that run in the lab.
inhabitants() {
    for netns in $namespaces; do
        if exists "$netns"; then
            ip netns pids "$netns" 2>/dev/null || :
        fi
    done
}

# Removes the namespaces listed above, with whatever runs in them.
remove() {
    for signal in TERM KILL; do
        # shellcheck disable=SC2046  # several numbers
        kill -s "$signal" $(inhabitants) 2>/dev/null || :
        patience=30
        while [ "$patience" -gt 0 ] && [ -n "$(inhabitants)" ]; do
            patience=$((patience - 1))
            sleep 0.1
        done
    done
    for netns in $namespaces; do
        if exists "$netns"; then
            # Else IPVS's route to an IPv6 address of its own would keep the kernel waiting.
            ip -n "$netns" link set lo down || :
            ip netns del "$netns" || return
        fi
    done
    rm -rf "$state"
}

down() {
    if [ -d "$state" ]; then
        remove
        say 'is down'
        return
    fi
    for netns in $namespaces; do
        if exists "$netns"; then
            say "there is a namespace $netns, which this script did not make"
            return 1
        fi
    done
    say 'is not up'
}

# A failure half-way leaves nothing behind.
undo() {
    status=$?
    [ "$complete" = no ] || return 0
    say 'failed; removing what was made'
    trap '' INT TERM HUP
    remove
    exit "$status"
}

# A real server: answers with its own name and what it saw, in the background.
respond() { # NETNS NODE PORT [udp|sctp [ADDRESS...]]
    if ! command -v python3 >/dev/null 2>&1; then
        say "no python3: nothing answers on port $3 of $2, start a server of your own there"
        return
    fi
    netns=$1 node=$2 port=$3 protocol=${4-tcp}
    shift "$(($# > 4 ? 4 : $#))"
    ip netns exec "$netns" python3 "$state/respond.py" "$node" "$port" "$protocol" "$family" "$@"
}

# Hands frames over as a wire would carry them: checksums in, nothing merged. It changes what a
# capture shows, and not what arrives: where there is no ethtool, the lab does without.
offloads_off() { # NETNS DEVICE...
    netns=$1
    shift
    for device; do
        if ! command -v ethtool >/dev/null 2>&1; then
            [ -n "${told-}" ] || say 'no ethtool: offloads stay on, so captures show merged frames'
            told=yes
            return
        fi
        ip netns exec "$netns" ethtool -K "$device" tx off sg off tso off gso off gro off
    done
}

case ${1-} in
    '' | up) ;;
    down)
        [ "$(id -u)" -eq 0 ] || refuse 'only root may do that'
        need ip iproute2
        down
        exit
        ;;
    *)
        printf 'usage: sh %s [up|down]\n' "$0" >&2
        exit 2
        ;;
esac

# Can it be built here? Nothing is touched before that is known.
[ "$(id -u)" -eq 0 ] || refuse 'only root may make network namespaces'
need ip iproute2
need sysctl procps
need ipvsadm ipvsadm
# Now and not when first needed: a module loaded half-way puts devices of its own
# into the namespaces that are there.
modprobe -qa ip_vs 2>/dev/null || :
[ -e /proc/net/ip_vs ] || refuse 'this kernel has no IPVS (modprobe ip_vs)'
for netns in $namespaces; do
    if exists "$netns"; then
        refuse "there is a namespace $netns already (remove it: sh $0 down)"
    fi
done

[ ! -e "$state" ] ||
    refuse "there is $state: it is being built, or was killed (sh $0 down)"
mkdir "$state" || refuse 'it needs a place for its state'
complete=no
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
cat >"$state/respond.py" <<'END_OF_RESPONDER'
"""respond.py NODE PORT tcp|udp|sctp inet|inet6 [ADDRESS...]: listens, then answers in background.

It stands alone: `lvsctl plan --format sh` writes it into the script, for hosts without lvsctl.
"""

import os
import signal
import socket
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_IP_PKTINFO = 8  # linux/in.h; the socket module does not have it before Python 3.14


def main() -> None:
    """Open the sockets, then serve them from a daemon; the script goes on once they listen."""
    node, port, protocol, family = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    both = family == "inet6"  # IPv4 as well: an address of it then reads ::ffff:10.0.0.1
    Handler.node = node
    datagrams: socket.socket | None = None
    servers: list[Server] = []
    try:
        if protocol == "udp":
            datagrams = udp_socket(port, both=both)
        elif protocol == "sctp":
            servers = [SctpServer(address, port) for address in sys.argv[5:]]
        else:
            Server.address_family = socket.AF_INET6 if both else socket.AF_INET
            servers = [Server(("", port), Handler)]
    except OSError as error:
        raise SystemExit(
            f"{node}: cannot listen on {protocol} port {port}: {error.strerror}"
        ) from None
    # Until setsid, the end of the script's terminal would end this process too.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for server in servers:
        threading.Thread(target=server.serve_forever).start()
    if datagrams is not None:
        answer_datagrams(node, port, datagrams)


def answer(node: str, local: tuple[str, int], peer: tuple[str, int]) -> bytes:
    """Return what every reply says: who answered, on which address, and the request's source."""
    ends = []
    for address, number in (local, peer):
        plain = address.removeprefix("::ffff:")
        ends.append(f"[{plain}]:{number}" if ":" in plain else f"{plain}:{number}")
    return f"{node} answered on {ends[0]}, request from {ends[1]}\n".encode()


class Handler(BaseHTTPRequestHandler):
    """Answers HTTP requests."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    node = ""

    def do_GET(self) -> None:
        """Answer a request for any path."""
        body = answer(self.node, self.connection.getsockname()[:2], self.client_address[:2])
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Real-Server", self.node)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def log_message(self, *words: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """Listens for HTTP requests."""

    request_queue_size = 128

    def server_bind(self) -> None:
        """Bind, without HTTPServer's request to DNS for the host's name."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)


class SctpServer(Server):
    """The same over SCTP, at one address: bound to none, it would offer all to its clients."""

    def __init__(self, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(self.address_family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        self.server_bind()
        self.server_activate()


def udp_socket(port: int, *, both: bool) -> socket.socket:
    """Return a socket that tells to which address a datagram was sent."""
    sock = socket.socket(socket.AF_INET6 if both else socket.AF_INET, socket.SOCK_DGRAM)
    if both:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    sock.bind(("", port))
    return sock


def answer_datagrams(node: str, port: int, sock: socket.socket) -> None:
    """Answer each datagram from the address to which it was sent, the VIP."""
    while True:
        data, controls, _, peer = sock.recvmsg(65535, 256)
        for level, kind, info in controls:
            if level == socket.IPPROTO_IPV6:
                local = socket.inet_ntop(socket.AF_INET6, info[:16])
                source = struct.pack("=16si", info[:16], 0)
            else:
                local = socket.inet_ntop(socket.AF_INET, info[8:12])
                source = struct.pack("=i4s4s", 0, info[8:12], bytes(4))
            reply = answer(node, (local, port), peer[:2])
            reply = dns_response(data, reply.rstrip()) or sip_response(data, reply) or reply
            sock.sendmsg([reply], [(level, kind, source)], 0, peer)


def dns_response(query: bytes, text: bytes) -> bytes:
    """Answer a DNS query (RFC 1035) for TXT with ``text``, others with no record; else empty."""
    end = 12
    while end < len(query) and query[end]:
        end += 1 + query[end]
    end += 5  # the name's end, type and class
    if len(query) < end or query[2] & 0xF8 or query[4:6] != b"\0\1":
        return b""  # not a standard query with one question
    group = query[end - 2 : end]
    record = b""
    if query[end - 4 : end - 2] == b"\0\x10":
        data = bytes((min(len(text), 255),)) + text[:255]
        record = b"\xc0\x0c\0\x10" + group + bytes(4) + struct.pack(">H", len(data)) + data
    flags = bytes((0x84 | query[2] & 1, 0))
    counts = struct.pack(">HHHH", 1, bool(record), 0, 0)
    return query[:2] + flags + counts + query[12:end] + record


def sip_response(request: bytes, text: bytes) -> bytes:
    """Answer a request of SIP by 200 OK, with the fields of RFC 3261, 8.2.6.2; else empty."""
    head, _, _ = request.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    if not first.endswith(b" SIP/2.0"):
        return b""
    kept = (b"via", b"v", b"from", b"f", b"to", b"t", b"call-id", b"i", b"cseq")
    lines = [line for line in fields if line.partition(b":")[0].strip().lower() in kept]
    lines += [b"Content-Type: text/plain", b"Content-Length: %d" % len(text)]
    return b"\r\n".join([b"SIP/2.0 200 OK", *lines]) + b"\r\n\r\n" + text


if __name__ == "__main__":
    main()
END_OF_RESPONDER

# ------------------------------------------- namespaces -------------------------------------------

# the bridge of network public
ip netns add lvs-nat-ipv6-public
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-nat-ipv6-public sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# one L2 segment for its members
ip -n lvs-nat-ipv6-public link add name bridge index 20 type bridge mcast_snooping 0 \
    vlan_default_pvid 0
ip -n lvs-nat-ipv6-public link set dev bridge up

# the bridge of network private
ip netns add lvs-nat-ipv6-private
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-nat-ipv6-private sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# one L2 segment for its members
ip -n lvs-nat-ipv6-private link add name bridge index 20 type bridge mcast_snooping 0 \
    vlan_default_pvid 0
ip -n lvs-nat-ipv6-private link set dev bridge up

# client
ip netns add lvs-nat-ipv6-client
# a host does not forward
ip netns exec lvs-nat-ipv6-client sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-nat-ipv6-client sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# addresses are usable immediately
ip netns exec lvs-nat-ipv6-client sysctl -q -w net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0

# director
ip netns add lvs-nat-ipv6-director
# a host does not forward
ip netns exec lvs-nat-ipv6-director sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-nat-ipv6-director sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# addresses are usable immediately
ip netns exec lvs-nat-ipv6-director sysctl -q -w net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0
# replies from the real servers are routed through the director
ip netns exec lvs-nat-ipv6-director sysctl -q -w net.ipv6.conf.all.forwarding=1

# real-server rs1
ip netns add lvs-nat-ipv6-rs1
# a host does not forward
ip netns exec lvs-nat-ipv6-rs1 sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-nat-ipv6-rs1 sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# addresses are usable immediately
ip netns exec lvs-nat-ipv6-rs1 sysctl -q -w net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0

# real-server rs2
ip netns add lvs-nat-ipv6-rs2
# a host does not forward
ip netns exec lvs-nat-ipv6-rs2 sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-nat-ipv6-rs2 sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# addresses are usable immediately
ip netns exec lvs-nat-ipv6-rs2 sysctl -q -w net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0

# --------------------------------------------- links ----------------------------------------------

# client is on network public
ip -n lvs-nat-ipv6-public link add name client index 2000 numtxqueues 1 numrxqueues 1 type veth \
    peer name public index 50 address 02:00:df:ef:66:29 numtxqueues 1 numrxqueues 1 netns \
    lvs-nat-ipv6-client
ip -n lvs-nat-ipv6-public link set dev client master bridge up
ip -n lvs-nat-ipv6-client link set dev public up
# director is on network public
ip -n lvs-nat-ipv6-public link add name director index 2001 numtxqueues 1 numrxqueues 1 type veth \
    peer name public index 50 address 02:00:c5:59:09:08 numtxqueues 1 numrxqueues 1 netns \
    lvs-nat-ipv6-director
ip -n lvs-nat-ipv6-public link set dev director master bridge up
ip -n lvs-nat-ipv6-director link set dev public up

# director is on network private
ip -n lvs-nat-ipv6-private link add name director index 2000 numtxqueues 1 numrxqueues 1 type veth \
    peer name private index 51 address 02:00:9c:8b:c2:e6 numtxqueues 1 numrxqueues 1 netns \
    lvs-nat-ipv6-director
ip -n lvs-nat-ipv6-private link set dev director master bridge up
ip -n lvs-nat-ipv6-director link set dev private up
# rs1 is on network private
ip -n lvs-nat-ipv6-private link add name rs1 index 2001 numtxqueues 1 numrxqueues 1 type veth peer \
    name private index 50 address 02:00:f0:ad:33:ec numtxqueues 1 numrxqueues 1 netns \
    lvs-nat-ipv6-rs1
ip -n lvs-nat-ipv6-private link set dev rs1 master bridge up
ip -n lvs-nat-ipv6-rs1 link set dev private up
# rs2 is on network private
ip -n lvs-nat-ipv6-private link add name rs2 index 2002 numtxqueues 1 numrxqueues 1 type veth peer \
    name private index 50 address 02:00:49:75:a2:4b numtxqueues 1 numrxqueues 1 netns \
    lvs-nat-ipv6-rs2
ip -n lvs-nat-ipv6-private link set dev rs2 master bridge up
ip -n lvs-nat-ipv6-rs2 link set dev private up

# -------------------------------------- addresses and routes --------------------------------------

offloads_off lvs-nat-ipv6-client public
# IPVS and local addresses need it
ip -n lvs-nat-ipv6-client link set dev lo up
# its own address on public
ip -n lvs-nat-ipv6-client addr add fd00:20::10/64 dev public nodad

offloads_off lvs-nat-ipv6-director public private
# IPVS and local addresses need it
ip -n lvs-nat-ipv6-director link set dev lo up
# its own address on public
ip -n lvs-nat-ipv6-director addr add fd00:20::2/64 dev public nodad
# its own address on private
ip -n lvs-nat-ipv6-director addr add fd00:192::2/64 dev private nodad

offloads_off lvs-nat-ipv6-rs1 private
# IPVS and local addresses need it
ip -n lvs-nat-ipv6-rs1 link set dev lo up
# its own address on private
ip -n lvs-nat-ipv6-rs1 addr add fd00:192::11/64 dev private nodad
# replies must return through director
ip -n lvs-nat-ipv6-rs1 route add default via fd00:192::2

offloads_off lvs-nat-ipv6-rs2 private
# IPVS and local addresses need it
ip -n lvs-nat-ipv6-rs2 link set dev lo up
# its own address on private
ip -n lvs-nat-ipv6-rs2 addr add fd00:192::12/64 dev private nodad
# replies must return through director
ip -n lvs-nat-ipv6-rs2 route add default via fd00:192::2

# ---------------------------------------- virtual services ----------------------------------------

# clients reach web here: IPVS handles packets to the VIP
ip -n lvs-nat-ipv6-director addr add fd00:20::100/128 dev public nodad
# virtual service web
ip netns exec lvs-nat-ipv6-director ipvsadm -A -t '[fd00:20::100]:80' -s rr
# rs1, by nat
ip netns exec lvs-nat-ipv6-director ipvsadm -a -t '[fd00:20::100]:80' -r '[fd00:192::11]:8080' -m \
    -w 1
# rs2, by nat
ip netns exec lvs-nat-ipv6-director ipvsadm -a -t '[fd00:20::100]:80' -r '[fd00:192::12]:8080' -m \
    -w 1

# -------------------------------------------- servers ---------------------------------------------

# rs1 answers for web
respond lvs-nat-ipv6-rs1 rs1 8080

# rs2 answers for web
respond lvs-nat-ipv6-rs2 rs2 8080

complete=yes
say "is up; remove it: sh $0 down"
say 'try: ip netns exec lvs-nat-ipv6-client curl -s '"'"'http://[fd00:20::100]/'"'"''
