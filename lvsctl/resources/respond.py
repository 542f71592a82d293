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
