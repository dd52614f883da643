"""Streams in both directions at once, faster than pings, with their octets compared."""

import hashlib
import os

from lab.wait import expect, until

from . import scenario

OCTETS = 16 << 20
PORT = 7000
SERVE = """perl -MIO::Socket::INET -e '
    $l = IO::Socket::INET->new(LocalAddr => "{own}", LocalPort => {port}, Listen => 1, ReuseAddr => 1) or die;
    open(R, ">/lab/ready"); close(R);
    $s = $l->accept; open(O, ">/lab/came"); binmode(O);
    while (sysread($s, $b, 65536)) {{ print O $b }}
    close(O); rename("/lab/came", "/lab/whole")'"""
SEND = """perl -MIO::Socket::INET -e '
    $s = IO::Socket::INET->new(LocalAddr => "{own}", PeerAddr => "{far}", PeerPort => {port}) or die "connect: $!";
    open(I, "</lab/data"); binmode(I);
    while ($n = sysread(I, $b, 65536)) {{ for ($o = 0; $o < $n; $o += $w) {{ $w = syswrite($s, $b, $n - $o, $o) or die }} }}'"""


def _octets_of(peer, name):
    with open(os.path.join(peer.share, name), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@scenario("bulk")
def bulk(bed):
    """Streams in both directions at once arrive as they were sent, while strongSwan rekeys the child."""
    bed.prepare_rekey("moon", "child")
    bed.start()
    before = bed.up()[0]
    both = (bed.moon, bed.sun)
    for peer in both:
        with open(os.path.join(peer.share, "data"), "wb") as file:
            file.write(os.urandom(OCTETS))
        peer.container.spawn(SERVE.format(own=peer.end.hosts[0], port=PORT))
    until("both listen", lambda: all(os.path.exists(os.path.join(peer.share, "ready")) for peer in both), 10)
    for peer in both:
        peer.container.spawn(SEND.format(own=peer.end.hosts[0], far=peer.other.hosts[0], port=PORT))
    bed.moon.rekey("child")
    bed.rekeyed(before.children[0])
    until("both streams are whole", lambda: all(os.path.exists(os.path.join(peer.share, "whole")) for peer in both), 60)
    for sender, receiver in (both, both[::-1]):
        expect(_octets_of(sender, "data") == _octets_of(receiver, "whole"),
               f"what {receiver.kind} received is not what {sender.kind} sent")
    bed.traffic()
    bed.down()
