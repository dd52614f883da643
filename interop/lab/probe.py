"""Datagrams that the lab itself sends: a half-open IKE SA, so that a responder asks for cookies."""

import os
import socket
import struct

from .wait import until

KE_LENGTHS = {31: 32, 19: 64}


def _payload(following, body):
    return struct.pack(">BBH", following, 0, 4 + len(body)) + body


def _transform(more, kind, ident, attributes=b""):
    return struct.pack(">BBHBBH", 3 if more else 0, 0, 8 + len(attributes), kind, 0, ident) + attributes


def ike_sa_init(ke):
    """An IKE_SA_INIT request for AES-GCM-16 with 128 bits, PRF_HMAC_SHA2_256 and `ke`."""
    transforms = (
        _transform(True, 1, 20, struct.pack(">HH", 0x800E, 128))
        + _transform(True, 2, 5)
        + _transform(False, 4, ke)
    )
    proposal = struct.pack(">BBHBBBB", 0, 0, 8 + len(transforms), 1, 1, 0, 3) + transforms
    # The coordinates of P-256's base point will do: a point is wanted, not a secret.
    point = bytes.fromhex(
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    public = point if ke == 19 else os.urandom(KE_LENGTHS[ke])
    body = (
        _payload(34, proposal)
        + _payload(40, struct.pack(">HH", ke, 0) + public)
        + _payload(0, os.urandom(32))
    )
    return os.urandom(8) + bytes(8) + struct.pack(">BBBBII", 33, 0x20, 34, 0x08, 0, 28 + len(body)) + body


def half_open(bed, ke=31):
    """Makes the responder of `bed` hold one half-open IKE SA, from the bridge's own address."""
    bed.responder.probe = bed.network.gateway
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((bed.network.gateway, 0))
        probe.settimeout(0.5)

        def answered():
            probe.sendto(ike_sa_init(ke), (bed.responder.end.outer, 500))
            try:
                return probe.recv(4096)
            except TimeoutError:
                return b""

        until("the responder answers a probe", answered, 10)
