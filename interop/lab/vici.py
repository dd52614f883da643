"""A client for charon's VICI socket: requests with an answer, and the two streamed answers we read.

The protocol is described in strongSwan's src/libcharon/plugins/vici/README.md.
"""

import socket
import struct

from .wait import Failure

REQUEST, RESPONSE, UNKNOWN, REGISTER, UNREGISTER, CONFIRM, _, EVENT = range(8)
SECTION, SECTION_END, VALUE, LIST, ITEM, LIST_END = range(1, 7)


def encode(message):
    """A flat dictionary of strings as VICI elements."""
    out = b""
    for key, value in message.items():
        name, body = key.encode(), str(value).encode()
        out += bytes([VALUE, len(name)]) + name + struct.pack(">H", len(body)) + body
    return out


class _Decoder:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def name(self):
        return self.take(self.take(1)[0]).decode()

    def text(self):
        return self.take(struct.unpack(">H", self.take(2))[0]).decode(errors="replace")

    def section(self):
        out = {}
        while self.at < len(self.data):
            kind = self.take(1)[0]
            if kind == SECTION_END:
                break
            key = self.name()
            if kind == SECTION:
                out[key] = self.section()
            elif kind == VALUE:
                out[key] = self.text()
            elif kind == LIST:
                out[key] = []
                while self.take(1)[0] == ITEM:
                    out[key].append(self.text())
        return out


class Vici:
    """One connection to charon."""

    def __init__(self, path, timeout=90):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _send(self, kind, name, body=b""):
        packet = bytes([kind, len(name)]) + name.encode() + body
        self.socket.sendall(struct.pack(">I", len(packet)) + packet)

    def _receive(self):
        packet = self._exactly(struct.unpack(">I", self._exactly(4))[0])
        if packet[0] != EVENT:
            return packet[0], "", packet[1:]
        end = 2 + packet[1]
        return EVENT, packet[2:end].decode(), packet[end:]

    def _exactly(self, count):
        out = b""
        while len(out) < count:
            chunk = self.socket.recv(count - len(out))
            if not chunk:
                raise Failure("charon closed its VICI socket")
            out += chunk
        return out

    def request(self, name, **arguments):
        """Sends a request and returns the answer."""
        return self.stream(name, None, **arguments)[0]

    def stream(self, name, event, **arguments):
        """Sends a request and returns the answer and every `event` that came before it."""
        if event:
            self._send(REGISTER, event)
            if self._receive()[0] != CONFIRM:
                raise Failure(f"charon does not know the event {event}")
        self._send(REQUEST, name, encode({k.replace("_", "-"): v for k, v in arguments.items()}))
        events = []
        while True:
            kind, _, body = self._receive()
            if kind == EVENT:
                events.append(_Decoder(body).section())
            elif kind == RESPONSE:
                return _Decoder(body).section(), events
            else:
                raise Failure(f"charon does not know the request {name}")
