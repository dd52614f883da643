#!/usr/bin/python3
"""A test double of mongod: MongoDB's wire protocol over TCP, and documents in memory.

What a client library needs to connect, write and read: OP_MSG, and OP_QUERY for the first hello of each connection. Filters of
`find` are compared for equality. BSON is that of Debian's python3-bson; all else of a mongod is not here.
"""

import argparse
import socketserver
import struct
import threading

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
MOST = 48_000_000  # octets of a message, as mongod has it
HEADER = struct.Struct("<iiii")
HELLO = {
    "ismaster": True, "isWritablePrimary": True, "helloOk": True, "readOnly": False, "ok": 1.0,
    "minWireVersion": 0, "maxWireVersion": 13,
    "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": MOST, "maxWriteBatchSize": 100_000,
}
lock = threading.Lock()
collections = {}


def insert(body):
    documents = body["documents"]
    with lock:
        collections.setdefault((body["$db"], body["insert"]), []).extend(documents)
    return {"n": len(documents), "ok": 1.0}


def find(body):
    wanted = body.get("filter", {}).items()
    with lock:
        documents = list(collections.get((body["$db"], body["find"]), []))
    found = [document for document in documents if all(document.get(key) == value for key, value in wanted)]
    limit = abs(body.get("limit", 0)) or len(found)
    return {"cursor": {"id": bson.Int64(0), "ns": f"{body['$db']}.{body['find']}", "firstBatch": found[:limit]}, "ok": 1.0}


COMMANDS = {
    "hello": lambda body: HELLO, "ismaster": lambda body: HELLO, "ping": lambda body: {"ok": 1.0},
    "endsessions": lambda body: {"ok": 1.0}, "buildinfo": lambda body: {"version": "5.0.0", "versionArray": [5, 0, 0, 0], "ok": 1.0},
    "insert": insert, "find": find,
}


def answer(body):
    name = next(iter(body))
    command = COMMANDS.get(name.lower())
    if command is None:
        return {"ok": 0.0, "errmsg": f"no such command: '{name}'", "code": 59, "codeName": "CommandNotFound"}
    return command(body)


def documents(octets):
    """BSON documents one after another."""
    while octets:
        length = struct.unpack_from("<i", octets)[0]
        if not 5 <= length <= len(octets):
            raise ValueError("a document is cut off")
        yield bson.decode(octets[:length])
        octets = octets[length:]


def of_message(octets):
    """The body of an OP_MSG, with the sequences of documents that go beside it as its members."""
    octets = octets[4:-4] if octets[0] & 1 else octets[4:]  # a checksum may follow
    body, sequences = {}, {}
    while octets:
        kind, octets = octets[0], octets[1:]
        length = struct.unpack_from("<i", octets)[0]
        section, octets = octets[:length], octets[length:]
        if kind == 0:
            body = bson.decode(section)
        else:
            name, _, rest = section[4:].partition(b"\0")
            sequences[name.decode()] = list(documents(rest))
    return {**body, **sequences}


def of_query(octets):
    """The body of an OP_QUERY to a collection of commands."""
    _, _, rest = octets[4:].partition(b"\0")
    return next(documents(rest[8:]))


class Connection(socketserver.BaseRequestHandler):
    def exactly(self, count):
        octets = bytearray()
        while len(octets) < count:
            more = self.request.recv(min(count - len(octets), 1 << 16))
            if not more:
                raise EOFError
            octets += more
        return bytes(octets)

    def handle(self):
        try:
            while True:
                self.one()
        except (EOFError, OSError, ValueError, struct.error, bson.errors.BSONError):
            pass  # a client that goes, or talks nonsense, is that client's affair

    def one(self):
        length, request, _, opcode = HEADER.unpack(self.exactly(HEADER.size))
        if not HEADER.size < length <= MOST:
            raise ValueError("no length of a message")
        octets = self.exactly(length - HEADER.size)
        if opcode == OP_MSG:
            reply = b"\0\0\0\0" + b"\0" + bson.encode(answer(of_message(octets)))
        elif opcode == OP_QUERY:
            reply = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer(of_query(octets)))
        else:
            raise ValueError(f"opcode {opcode}")
        kind = OP_MSG if opcode == OP_MSG else OP_REPLY
        self.request.sendall(HEADER.pack(HEADER.size + len(reply), request, request, kind) + reply)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=27017)
    options = parser.parse_args()
    with Server(("0.0.0.0", options.port), Connection) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
