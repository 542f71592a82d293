"""/proc/net/ip_vs_conn as the kernel prints it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from lvsctl.kernel import state
from lvsctl.model.service import FwMark, Protocol, VipPort
from lvsctl.model.state import Connection

TABLE = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A0A000A 9C40 0A0A0064 0050 0A0A000B 1F90 ESTABLISHED     899
UDP 0A0A000A 0035 0A0A0064 0035 0A0A000C 0035 UDP             300 sip call-id
TCP 0A0A000A 0000 0A0A0064 0050 0A0A000B 0050 NONE             58
SCTP fd00:0000:0000:0000:0000:0000:0000:000a 9C41 fd00:0000:0000:0000:0000:0000:0000:0064 0050 \
fd00:0000:0000:0000:0000:0000:0000:000b 0050 ESTABLISHED     14
TCP fd00:0000:0000:0000:0000:0000:0000:000a 9C41 fd00:0000:0000:0000:0000:0000:0000:0064 0050 \
0A0A000B 0050 FIN_WAIT        119
IP  0A0E000A 0000 00000001 0000 0A0E000C 0000 ASSURED         299
IP  fd00:0000:0000:0000:0000:0000:0000:000a 0000 0000:0102:0000:0000:0000:0000:0000:0000 0000 \
fd00:0000:0000:0000:0000:0000:0000:000b 0000 ASSURED         299
"""


def connection(
    protocol: Protocol, client: str, vip: str, rip: str, state: str, expires: int
) -> Connection:
    def split(text: str) -> tuple[str, int]:
        address, _, port = text.rpartition("/")
        return address, int(port)

    (c, cport), (v, vport), (r, rport) = split(client), split(vip), split(rip)
    return Connection(
        protocol, ip_address(c), cport, ip_address(v), vport, ip_address(r), rport, state, expires
    )


def test_every_family_and_protocol() -> None:
    """Mixed families (tun only) and persistence templates too, also those of firewall marks."""
    tcp, udp, sctp = Protocol.TCP, Protocol.UDP, Protocol.SCTP
    vip, vip6 = "10.10.0.100", "fd00::64"
    assert state.parse_connections(TABLE.splitlines(keepends=True)) == (
        connection(tcp, "10.10.0.10/40000", f"{vip}/80", "10.10.0.11/8080", "ESTABLISHED", 899),
        connection(udp, "10.10.0.10/53", f"{vip}/53", "10.10.0.12/53", "UDP", 300),
        connection(tcp, "10.10.0.10/0", f"{vip}/80", "10.10.0.11/80", "NONE", 58),
        connection(sctp, "fd00::a/40001", f"{vip6}/80", "fd00::b/80", "ESTABLISHED", 14),
        connection(tcp, "fd00::a/40001", f"{vip6}/80", "10.10.0.11/80", "FIN_WAIT", 119),
        *(
            connection(tcp, client, vip, rip, "ASSURED", 299)._replace(protocol=None, mark=mark)
            for client, vip, rip, mark in (
                ("10.14.0.10/0", "0.0.0.0/0", "10.14.0.12/0", 1),
                ("fd00::a/0", "::/0", "fd00::b/0", 258),
            )
        ),
    )


def test_an_entry_belongs_to_a_service_by_its_vip_or_its_mark() -> None:
    shop = VipPort(Protocol.TCP, ip_address("10.14.0.100"), 80)
    marked = FwMark(1, 4, (shop,), ())
    entries = state.parse_connections(TABLE.splitlines())
    assert [e.expires for e in entries if e.belongs_to(marked)] == [299]
    assert not any(e.belongs_to(replace(marked, mark=2)) for e in entries)
    dr = VipPort(Protocol.TCP, ip_address("10.10.0.100"), 80)
    assert [e.expires for e in entries if e.belongs_to(dr)] == [899, 58]
    assert [e.expires for e in entries if e.is_template] == [58, 299, 299]


def test_an_empty_table() -> None:
    assert state.parse_connections(TABLE.splitlines()[:1]) == ()
    assert state.parse_connections([]) == ()
