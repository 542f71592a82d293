#!/bin/sh
# lab ecmp: Two active directors behind a router with two next hops, Maglev hashing and IP tunnelling
#
#   outside  10.66.0.0/24
#     client  client  10.66.0.10
#     router  router  10.66.0.1
#
#   hub  10.66.1.0/24
#     router     router    10.66.1.1
#     director1  director  10.66.1.2  VIP 10.66.1.100
#     director2  director  10.66.1.3  VIP 10.66.1.100
#
#   near  10.66.2.0/24
#     router  router       10.66.2.1
#     rs1     real server  10.66.2.11  (VIP 10.66.1.100)
#     rs2     real server  10.66.2.12  (VIP 10.66.1.100)
#     rs3     real server  10.66.2.13  (VIP 10.66.1.100)
#
#   web  tcp 10.66.1.100:80  tun  mh port
#     -> rs1  10.66.2.11:80  weight 1
#     -> rs2  10.66.2.12:80  weight 1
#     -> rs3  10.66.2.13:80  weight 1
#
# sh ecmp.sh         builds it: 10 namespaces, nothing outside of them
# sh ecmp.sh down    removes it
#
# Needs root, a kernel with IPVS, and: ip, sysctl, ipvsadm. Real servers
# answer where there is python3.
# Written by `lvsctl plan ecmp --format sh`; does what `lvsctl up ecmp` does.

set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

lab=ecmp
namespaces='lvs-ecmp-outside
lvs-ecmp-hub
lvs-ecmp-near
lvs-ecmp-client
lvs-ecmp-router
lvs-ecmp-director1
lvs-ecmp-director2
lvs-ecmp-rs1
lvs-ecmp-rs2
lvs-ecmp-rs3'
state=/run/lvs-ecmp.script # says that the namespaces are this script's
family=inet
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
modprobe -qa ip_vs ipip 2>/dev/null || :
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

# the bridge of network outside
ip netns add lvs-ecmp-outside
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-outside sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# one L2 segment for its members
ip -n lvs-ecmp-outside link add name bridge index 20 type bridge mcast_snooping 0 \
    vlan_default_pvid 0
ip -n lvs-ecmp-outside link set dev bridge up

# the bridge of network hub
ip netns add lvs-ecmp-hub
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-hub sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# one L2 segment for its members
ip -n lvs-ecmp-hub link add name bridge index 20 type bridge mcast_snooping 0 vlan_default_pvid 0
ip -n lvs-ecmp-hub link set dev bridge up

# the bridge of network near
ip netns add lvs-ecmp-near
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-near sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# one L2 segment for its members
ip -n lvs-ecmp-near link add name bridge index 20 type bridge mcast_snooping 0 vlan_default_pvid 0
ip -n lvs-ecmp-near link set dev bridge up

# client
ip netns add lvs-ecmp-client
# a host does not forward
ip netns exec lvs-ecmp-client sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-client sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-client sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# in one kernel a router sees the sender's own number of a flow, which would change whenever TCP
# sends again: no wire carries it (fib_multipath_hash, sk_rethink_txhash)
ip netns exec lvs-ecmp-client sysctl -qe -w net.core.txrehash=0

# router
ip netns add lvs-ecmp-router
# a router forwards
ip netns exec lvs-ecmp-router sysctl -q -w net.ipv4.ip_forward=1
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-router sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-router sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# connections of one client are spread over the directors, by their ports
ip netns exec lvs-ecmp-router sysctl -q -w net.ipv4.fib_multipath_hash_policy=1

# director director1
ip netns add lvs-ecmp-director1
# a host does not forward
ip netns exec lvs-ecmp-director1 sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-director1 sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-director1 sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# routers may send it a connection that another director has handled so far
ip netns exec lvs-ecmp-director1 sysctl -q -w net.ipv4.vs.sloppy_tcp=1

# director director2
ip netns add lvs-ecmp-director2
# a host does not forward
ip netns exec lvs-ecmp-director2 sysctl -q -w net.ipv4.ip_forward=0
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-director2 sysctl -q -w net.ipv4.conf.all.rp_filter=0 \
    net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0 net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-director2 sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1
# routers may send it a connection that another director has handled so far
ip netns exec lvs-ecmp-director2 sysctl -q -w net.ipv4.vs.sloppy_tcp=1

# real-server rs1
ip netns add lvs-ecmp-rs1
# a host does not forward
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.ip_forward=0
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.conf.all.rp_filter=0
# do not answer ARP requests for 10.66.1.100: it is not on the receiving interface
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.conf.all.arp_ignore=1
# do not send ARP requests from 10.66.1.100: neighbours would learn the wrong MAC for it
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.conf.all.arp_announce=2
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-rs1 sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1

# real-server rs2
ip netns add lvs-ecmp-rs2
# a host does not forward
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.ip_forward=0
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.conf.all.rp_filter=0
# do not answer ARP requests for 10.66.1.100: it is not on the receiving interface
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.conf.all.arp_ignore=1
# do not send ARP requests from 10.66.1.100: neighbours would learn the wrong MAC for it
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.conf.all.arp_announce=2
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-rs2 sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1

# real-server rs3
ip netns add lvs-ecmp-rs3
# a host does not forward
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.ip_forward=0
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.conf.all.rp_filter=0
# do not answer ARP requests for 10.66.1.100: it is not on the receiving interface
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.conf.all.arp_ignore=1
# do not send ARP requests from 10.66.1.100: neighbours would learn the wrong MAC for it
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.conf.all.arp_announce=2
# a new namespace copies this from the host: decided here
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.conf.all.arp_filter=0 \
    net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.all.accept_local=0 \
    net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.arp_ignore=0 \
    net.ipv4.conf.default.arp_announce=0 net.ipv4.conf.default.arp_filter=0 \
    net.ipv4.conf.default.proxy_arp=0 net.ipv4.conf.default.accept_local=0
# no IPv6 on this network, so no IPv6 background traffic
ip netns exec lvs-ecmp-rs3 sysctl -qe -w net.ipv6.conf.default.disable_ipv6=1

# --------------------------------------------- links ----------------------------------------------

# client is on network outside
ip -n lvs-ecmp-outside link add name client index 2000 numtxqueues 1 numrxqueues 1 type veth peer \
    name outside index 50 address 02:00:0a:42:00:0a numtxqueues 1 numrxqueues 1 netns \
    lvs-ecmp-client
ip -n lvs-ecmp-outside link set dev client master bridge up
ip -n lvs-ecmp-client link set dev outside up
# router is on network outside
ip -n lvs-ecmp-outside link add name router index 2001 numtxqueues 1 numrxqueues 1 type veth peer \
    name outside index 50 address 02:00:0a:42:00:01 numtxqueues 1 numrxqueues 1 netns \
    lvs-ecmp-router
ip -n lvs-ecmp-outside link set dev router master bridge up
ip -n lvs-ecmp-router link set dev outside up

# router is on network hub
ip -n lvs-ecmp-hub link add name router index 2000 numtxqueues 1 numrxqueues 1 type veth peer name \
    hub index 51 address 02:00:0a:42:01:01 numtxqueues 1 numrxqueues 1 netns lvs-ecmp-router
ip -n lvs-ecmp-hub link set dev router master bridge up
ip -n lvs-ecmp-router link set dev hub up
# director1 is on network hub
ip -n lvs-ecmp-hub link add name director1 index 2001 numtxqueues 1 numrxqueues 1 type veth peer \
    name hub index 50 address 02:00:0a:42:01:02 numtxqueues 1 numrxqueues 1 netns \
    lvs-ecmp-director1
ip -n lvs-ecmp-hub link set dev director1 master bridge up
ip -n lvs-ecmp-director1 link set dev hub up
# director2 is on network hub
ip -n lvs-ecmp-hub link add name director2 index 2002 numtxqueues 1 numrxqueues 1 type veth peer \
    name hub index 50 address 02:00:0a:42:01:03 numtxqueues 1 numrxqueues 1 netns \
    lvs-ecmp-director2
ip -n lvs-ecmp-hub link set dev director2 master bridge up
ip -n lvs-ecmp-director2 link set dev hub up

# router is on network near
ip -n lvs-ecmp-near link add name router index 2000 numtxqueues 1 numrxqueues 1 type veth peer \
    name near index 52 address 02:00:0a:42:02:01 numtxqueues 1 numrxqueues 1 netns lvs-ecmp-router
ip -n lvs-ecmp-near link set dev router master bridge up
ip -n lvs-ecmp-router link set dev near up
# rs1 is on network near
ip -n lvs-ecmp-near link add name rs1 index 2001 numtxqueues 1 numrxqueues 1 type veth peer name \
    near index 50 address 02:00:0a:42:02:0b numtxqueues 1 numrxqueues 1 netns lvs-ecmp-rs1
ip -n lvs-ecmp-near link set dev rs1 master bridge up
ip -n lvs-ecmp-rs1 link set dev near up
# rs2 is on network near
ip -n lvs-ecmp-near link add name rs2 index 2002 numtxqueues 1 numrxqueues 1 type veth peer name \
    near index 50 address 02:00:0a:42:02:0c numtxqueues 1 numrxqueues 1 netns lvs-ecmp-rs2
ip -n lvs-ecmp-near link set dev rs2 master bridge up
ip -n lvs-ecmp-rs2 link set dev near up
# rs3 is on network near
ip -n lvs-ecmp-near link add name rs3 index 2003 numtxqueues 1 numrxqueues 1 type veth peer name \
    near index 50 address 02:00:0a:42:02:0d numtxqueues 1 numrxqueues 1 netns lvs-ecmp-rs3
ip -n lvs-ecmp-near link set dev rs3 master bridge up
ip -n lvs-ecmp-rs3 link set dev near up

# -------------------------------------- addresses and routes --------------------------------------

offloads_off lvs-ecmp-client outside
# IPVS and local addresses need it
ip -n lvs-ecmp-client link set dev lo up
# its own address on outside
ip -n lvs-ecmp-client addr add 10.66.0.10/24 dev outside
# the route to the other networks
ip -n lvs-ecmp-client route add default via 10.66.0.1

offloads_off lvs-ecmp-router outside hub near
# IPVS and local addresses need it
ip -n lvs-ecmp-router link set dev lo up
# its own address on outside
ip -n lvs-ecmp-router addr add 10.66.0.1/24 dev outside
# its own address on hub
ip -n lvs-ecmp-router addr add 10.66.1.1/24 dev hub
# its own address on near
ip -n lvs-ecmp-router addr add 10.66.2.1/24 dev near
# every director has the VIP: each flow is sent to one of them
ip -n lvs-ecmp-router route add 10.66.1.100/32 nexthop via 10.66.1.2 nexthop via 10.66.1.3

offloads_off lvs-ecmp-director1 hub
# IPVS and local addresses need it
ip -n lvs-ecmp-director1 link set dev lo up
# its own address on hub
ip -n lvs-ecmp-director1 addr add 10.66.1.2/24 dev hub
# the route to the other networks
ip -n lvs-ecmp-director1 route add default via 10.66.1.1

offloads_off lvs-ecmp-director2 hub
# IPVS and local addresses need it
ip -n lvs-ecmp-director2 link set dev lo up
# its own address on hub
ip -n lvs-ecmp-director2 addr add 10.66.1.3/24 dev hub
# the route to the other networks
ip -n lvs-ecmp-director2 route add default via 10.66.1.1

offloads_off lvs-ecmp-rs1 near
# IPVS and local addresses need it
ip -n lvs-ecmp-rs1 link set dev lo up
# its own address on near
ip -n lvs-ecmp-rs1 addr add 10.66.2.11/24 dev near
# the route to the other networks
ip -n lvs-ecmp-rs1 route add default via 10.66.2.1

offloads_off lvs-ecmp-rs2 near
# IPVS and local addresses need it
ip -n lvs-ecmp-rs2 link set dev lo up
# its own address on near
ip -n lvs-ecmp-rs2 addr add 10.66.2.12/24 dev near
# the route to the other networks
ip -n lvs-ecmp-rs2 route add default via 10.66.2.1

offloads_off lvs-ecmp-rs3 near
# IPVS and local addresses need it
ip -n lvs-ecmp-rs3 link set dev lo up
# its own address on near
ip -n lvs-ecmp-rs3 addr add 10.66.2.13/24 dev near
# the route to the other networks
ip -n lvs-ecmp-rs3 route add default via 10.66.2.1

# ------------------------------------------ real servers ------------------------------------------

# decapsulate what the director sends
ip -n lvs-ecmp-rs1 link add name tunl0 index 40 type ipip 2>/dev/null \
    || ip -n lvs-ecmp-rs1 link show dev tunl0 >/dev/null
ip -n lvs-ecmp-rs1 link set dev tunl0 up
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs1 sysctl -q -w net.ipv4.conf.tunl0.rp_filter=0
# accept the decapsulated requests, still addressed to the VIP
ip -n lvs-ecmp-rs1 addr add 10.66.1.100/32 dev tunl0

# decapsulate what the director sends
ip -n lvs-ecmp-rs2 link add name tunl0 index 40 type ipip 2>/dev/null \
    || ip -n lvs-ecmp-rs2 link show dev tunl0 >/dev/null
ip -n lvs-ecmp-rs2 link set dev tunl0 up
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs2 sysctl -q -w net.ipv4.conf.tunl0.rp_filter=0
# accept the decapsulated requests, still addressed to the VIP
ip -n lvs-ecmp-rs2 addr add 10.66.1.100/32 dev tunl0

# decapsulate what the director sends
ip -n lvs-ecmp-rs3 link add name tunl0 index 40 type ipip 2>/dev/null \
    || ip -n lvs-ecmp-rs3 link show dev tunl0 >/dev/null
ip -n lvs-ecmp-rs3 link set dev tunl0 up
# requests come out of the tunnel, but the route to the client does not lead through it
ip netns exec lvs-ecmp-rs3 sysctl -q -w net.ipv4.conf.tunl0.rp_filter=0
# accept the decapsulated requests, still addressed to the VIP
ip -n lvs-ecmp-rs3 addr add 10.66.1.100/32 dev tunl0

# ---------------------------------------- virtual services ----------------------------------------

# clients reach web here: IPVS handles packets to the VIP
ip -n lvs-ecmp-director1 addr add 10.66.1.100/32 dev hub
# virtual service web
ip netns exec lvs-ecmp-director1 ipvsadm -A -t 10.66.1.100:80 -s mh -b mh-port
# rs1, by tun
ip netns exec lvs-ecmp-director1 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.11:80 -i -w 1
# rs2, by tun
ip netns exec lvs-ecmp-director1 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.12:80 -i -w 1
# rs3, by tun
ip netns exec lvs-ecmp-director1 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.13:80 -i -w 1

# clients reach web here: IPVS handles packets to the VIP
ip -n lvs-ecmp-director2 addr add 10.66.1.100/32 dev hub
# virtual service web
ip netns exec lvs-ecmp-director2 ipvsadm -A -t 10.66.1.100:80 -s mh -b mh-port
# rs1, by tun
ip netns exec lvs-ecmp-director2 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.11:80 -i -w 1
# rs2, by tun
ip netns exec lvs-ecmp-director2 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.12:80 -i -w 1
# rs3, by tun
ip netns exec lvs-ecmp-director2 ipvsadm -a -t 10.66.1.100:80 -r 10.66.2.13:80 -i -w 1

# -------------------------------------------- servers ---------------------------------------------

# rs1 answers for web
respond lvs-ecmp-rs1 rs1 80

# rs2 answers for web
respond lvs-ecmp-rs2 rs2 80

# rs3 answers for web
respond lvs-ecmp-rs3 rs3 80

complete=yes
say "is up; remove it: sh $0 down"
say 'try: ip netns exec lvs-ecmp-client curl -s http://10.66.1.100/'
