"""Reading captures: frames from a pcap file, and what each of them is."""

import ipaddress
import struct
from dataclasses import dataclass

MARKER = b"obol plain text."  # 16 bytes, as many as ping takes; no capture may show it


@dataclass
class Packet:
    """One IP packet on the wire."""

    source: str
    destination: str
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    payload: bytes = b""  # after the UDP header, else after the IP header
    frame: bytes = b""

    @property
    def is_echo_reply(self):
        """Whether it answers a ping, in clear."""
        return (self.protocol, self.payload[:1]) in ((1, b"\0"), (58, b"\x81"))

    @property
    def kind(self):
        """`ike`, `esp`, `keepalive`, `neighbour`, `error`, or `clear`."""
        if self.protocol == 50:
            return "esp"
        if self.protocol == 17 and 500 in (self.source_port, self.destination_port):
            return "ike"
        if self.protocol == 17 and 4500 in (self.source_port, self.destination_port):
            if self.payload == b"\xff":
                return "keepalive"
            return "ike" if self.payload[:4] == bytes(4) else "esp"
        # Neighbour discovery, router solicitation and multicast listener reports: RFC 4861, RFC 3810, RFC 3376.
        if self.protocol == 2 and self.destination.startswith("224.0.0."):
            return "neighbour"
        if self.protocol == 58 and self.payload[:1] and self.payload[0] in (130, 131, 132, 133, 134, 135, 136, 143):
            return "neighbour"
        return "error" if self._about_us() else "clear"

    def _about_us(self):
        """Whether it is an ICMP error or redirect that quotes an IKE or ESP packet (a daemon is not there)."""
        if self.protocol == 1 and self.payload[:1] in (b"\x03", b"\x05") and len(self.payload) > 17:
            return self.payload[8 + 9] in (17, 50)
        if self.protocol == 58 and self.payload[:1] in (b"\x01", b"\x04") and len(self.payload) > 14:
            return self.payload[8 + 6] in (17, 50)
        return False

    @property
    def ike(self):
        """The IKE message, without the non-ESP marker."""
        return self.payload[4:] if 500 not in (self.source_port, self.destination_port) else self.payload


def frames(path):
    """The Ethernet frames of a pcap file; a frame that is still being written is left out."""
    with open(path, "rb") as file:
        data = file.read()
    if len(data) < 24:
        return
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at = 24
    while at + 16 <= len(data):
        kept = struct.unpack_from(order + "I", data, at + 8)[0]
        if at + 16 + kept > len(data):
            return
        yield data[at + 16 : at + 16 + kept]
        at += 16 + kept


def packets(path):
    """The IP packets of a pcap file, fragments of one packet joined."""
    partial = {}
    for frame in frames(path):
        ethertype = struct.unpack_from(">H", frame, 12)[0]
        if ethertype == 0x0800:
            packet = _ipv4(frame, frame[14:], partial)
        elif ethertype == 0x86DD:
            packet = _ipv6(frame, frame[14:], partial)
        else:
            continue  # ARP
        if packet:
            yield packet


def _ipv4(frame, ip, partial):
    length = (ip[0] & 15) * 4
    total, ident, flags = struct.unpack_from(">HHH", ip, 2)
    source, destination = (str(ipaddress.IPv4Address(ip[at : at + 4])) for at in (12, 16))
    body = ip[length:total]
    offset, more = (flags & 0x1FFF) * 8, bool(flags & 0x2000)
    if offset or more:
        body = _join(partial, (source, destination, ip[9], ident), offset, more, body)
    return body and _transport(frame, source, destination, ip[9], body)


def _ipv6(frame, ip, partial):
    length, following = struct.unpack_from(">HB", ip, 4)
    source, destination = (str(ipaddress.IPv6Address(ip[at : at + 16])) for at in (8, 24))
    body = ip[40 : 40 + length]
    while following in (0, 60, 43):
        following, body = body[0], body[(body[1] + 1) * 8 :]
    if following == 44:
        following, flags, ident = body[0], *struct.unpack_from(">HI", body, 2)
        body = _join(partial, (source, destination, ident), flags & 0xFFF8, bool(flags & 1), body[8:])
    return body and _transport(frame, source, destination, following, body)


def _join(partial, key, offset, more, body):
    pieces = partial.setdefault(key, {})
    pieces[offset] = (body, more)
    whole = b""
    while len(whole) in pieces:
        piece, following = pieces[len(whole)]
        whole += piece
        if not following:
            del partial[key]
            return whole
    return None


def _transport(frame, source, destination, protocol, body):
    if protocol == 17 and len(body) >= 8:
        ports = struct.unpack_from(">HH", body)
        return Packet(source, destination, protocol, *ports, payload=body[8:], frame=frame)
    return Packet(source, destination, protocol, payload=body, frame=frame)
