"""The parts of the script of ``plan --format sh`` that are the same for every lab.

POSIX sh: dash and busybox run them. A lab's own values come in as variables that
stand above (``lab``, ``namespaces``, ``state``, ``family``), never by substitution.
"""

FUNCTIONS = r"""
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
""".strip("\n")

RESPOND = r"""
# A real server: answers with its own name and what it saw, in the background.
respond() { # NETNS NODE PORT [udp]
    if ! command -v python3 >/dev/null 2>&1; then
        say "no python3: nothing answers on port $3 of $2, start a server of your own there"
        return
    fi
    ip netns exec "$1" python3 "$state/respond.py" "$2" "$3" "${4-tcp}" "$family"
}
""".strip("\n")

RUN = r"""
# The topology's own command, in the background. One that fails within a moment fails the script;
# one that goes to the background by itself does not.
run() { # NETNS COMMAND...
    netns=$1
    shift
    (cd / && exec ip netns exec "$netns" nohup "$@" </dev/null >>"$state/$netns.log" 2>&1) &
    started=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.1
        kill -0 "$started" 2>/dev/null || break
    done
    kill -0 "$started" 2>/dev/null || wait "$started" || {
        status=$?
        cat "$state/$netns.log" >&2
        return "$status"
    }
}
""".strip("\n")

RESPONDER = r'''
"""respond.py NODE PORT tcp|udp inet|inet6: listens, then answers in the background."""
import os
import socket
import socketserver
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

node, port, protocol, family = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
both = family == "inet6"  # IPv4 as well: an address of it then reads ::ffff:10.0.0.1


def said(local, peer):
    def written(address, number):
        address = address.removeprefix("::ffff:")
        return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"

    return f"{node} answered on {written(*local[:2])}, request from {written(*peer[:2])}\n".encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        body = said(self.connection.getsockname(), self.client_address)
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Real-Server", node)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *words):
        pass


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if both else socket.AF_INET
    request_queue_size = 128

    def server_bind(self):  # not HTTPServer's, which asks DNS for our name
        if both:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)


def answer_datagrams(sock):
    # An answer must come from the address that was asked, the VIP: IP_PKTINFO tells it.
    while True:
        _, controls, _, peer = sock.recvmsg(65535, 256)
        for level, kind, data in controls:
            if level == socket.IPPROTO_IPV6:
                local = socket.inet_ntop(socket.AF_INET6, data[:16])
                source = struct.pack("=16si", data[:16], 0)
            else:
                local = socket.inet_ntop(socket.AF_INET, data[8:12])
                source = struct.pack("=i4s4s", 0, data[8:12], bytes(4))
            sock.sendmsg([said((local, port), peer)], [(level, kind, source)], 0, peer)


try:
    if protocol == "udp":
        sock = socket.socket(socket.AF_INET6 if both else socket.AF_INET, socket.SOCK_DGRAM)
        if both:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, 8, 1)
        sock.bind(("", port))
    else:
        server = Server(("", port), Handler)
except OSError as error:
    sys.exit(f"{node}: cannot listen on {protocol} port {port}: {error.strerror}")
if os.fork():
    os._exit(0)  # it listens: the script goes on
os.setsid()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
if protocol == "udp":
    answer_datagrams(sock)
else:
    server.serve_forever()
'''.strip("\n")
