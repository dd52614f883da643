#!/usr/bin/python3
"""Writes to and reads from the servers named, all at once, with pymongo; says how long each connect took, the first and one after.

    client.py OWN-ADDRESS ALL-OWN-ADDRESSES ADDRESS...

Each server is to have, in the end, what each of ALL-OWN-ADDRESSES (with commas between) has written.
"""

import hashlib
import socket
import sys
import threading
import time

import pymongo

PORT = 27017
CANARY = "nobody on the wire may read this; "  # the captures are searched for it
LONG = CANARY * 3000  # many packets of a full path
SECONDS = 60  # within which all must be done; a machine may be busy


def document(writer, server):
    return {"from": writer, "to": server, "text": LONG, "sha256": hashlib.sha256(LONG.encode()).hexdigest()}


def connect(server):
    """Milliseconds that a TCP connect takes."""
    began = time.monotonic()
    socket.create_connection((server, PORT), SECONDS).close()
    return 1000 * (time.monotonic() - began)


def visit(own, writers, server):
    cold = connect(server)
    with pymongo.MongoClient(server, PORT, serverSelectionTimeoutMS=1000 * SECONDS) as client:
        client.admin.command("ping")
        collection = client.story.writes
        collection.insert_one(document(own, server))
        end = time.monotonic() + SECONDS
        for writer in writers:
            while not (found := collection.find_one({"from": writer})):
                if time.monotonic() > end:
                    raise TimeoutError(f"{server} has nothing from {writer}")
                time.sleep(0.05)
            found.pop("_id")
            if found != document(writer, server):
                raise ValueError(f"{server} has something else from {writer}")
    print(f"{own:>11} -> {server:<11} connect {cold:8.1f} ms, later {connect(server):6.1f} ms, {len(writers)} documents read", flush=True)


def main():
    own, writers, servers = sys.argv[1], sys.argv[2].split(","), sys.argv[3:]
    failed = []

    def guarded(server):
        try:
            visit(own, writers, server)
        except Exception as error:  # whatever it is, it is told, and counts
            failed.append(server)
            print(f"{own:>11} -> {server:<11} {type(error).__name__}: {str(error)[:120]}", flush=True)

    threads = [threading.Thread(target=guarded, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(len(failed))


if __name__ == "__main__":
    main()
