"""Ends whose address changes, and configurations that do."""

import time

from lab import wire
from lab.wait import expect, until

from . import INITIATOR, RESPONDER, scenario


def moved(bed, peer, count=150):
    """`peer` gets another address; the SAs stay, and traffic goes on: of so many pings, four in ten may be lost."""
    before, _ = bed.agreed()
    pinging = bed.start_pinging(peer, count=count, interval=0.1)
    time.sleep(2)
    peer.move(wire.outer_address(peer.end.outer))
    sent, got = bed.answered(pinging)
    after, _ = bed.agreed(20)
    expect(after.spis == before.spis, "the IKE SA is another one")
    expect(sent - got <= count * 0.4, f"{sent - got} of {sent} pings were lost: it took more than {count * 0.04:g} s")
    seen = {packet.source for packet in bed.wire() if packet.kind == "ike"}
    expect(wire.outer_address(peer.end.outer) in seen, "nothing came from the new address")
    bed.traffic()


@scenario("mobike-obol", roles=(INITIATOR,), needs_obol=True)
def mobike_obol(bed):
    """obol's address changes: it tells strongSwan (RFC 4555), and the SAs move."""
    bed.sun_settings.extra["obol connection"] = {"local_addrs": ["%any"]}
    bed.moon_settings.any_remote = True
    bed.start()
    bed.up()
    moved(bed, bed.sun)


@scenario("mobike-strongswan", roles=(RESPONDER,))
def mobike_strongswan(bed):
    """strongSwan's address changes: it tells obol (RFC 4555), and the SAs move."""
    bed.sun_settings.any_remote = True
    bed.moon_settings.extra["local"] = "%any"
    bed.start()
    bed.up()
    moved(bed, bed.moon)


@scenario("reload", needs_obol=True)
def reload(bed):
    """obol reads its configuration again: what did not change goes on, a new child comes, a removed one goes."""
    bed.start()
    before, _ = bed.up()
    pinging = bed.start_pinging(bed.sun, count=100)
    bed.sun.reload()
    same, _ = bed.agreed()
    expect((same.spis, same.children[0].spi_in) == (before.spis, before.children[0].spi_in), "the SAs are other ones")
    bed.sun_settings.extra["obol child"] = {"inactivity": "30m"}
    bed.sun.reload()
    same, _ = bed.agreed()
    expect(same.spis == before.spis, "the IKE SA is another one")
    sent, got = bed.answered(pinging)
    expect(sent == got, f"{sent - got} of {sent} pings were lost")
    bed.sun_settings.extra["children"] = {"other": (["10.2.7.0/24"], ["10.1.7.0/24"])}
    bed.sun.reload()
    until("the removed child is gone", lambda: not any(
        child.name == "nets" for peer in (bed.moon, bed.sun) for sa in peer.sas() for child in sa.children
    ), 20)


@scenario("fragmentation")
def fragmentation(bed):
    """IKE messages in pieces (RFC 7383), of 576 octets, with AES-GCM."""
    _in_pieces(bed, "aes256gcm16-prfsha384-ecp384")


@scenario("fragmentation-cbc")
def fragmentation_cbc(bed):
    """IKE messages in pieces (RFC 7383), of 576 octets, with AES-CBC and HMAC."""
    _in_pieces(bed, "aes256-sha256-ecp384")


def _in_pieces(bed, suite):
    bed.both(auth="rsa", ike=suite)
    bed.moon_settings.extra["swanctl"] = "fragmentation = force"
    bed.moon_settings.extra["strongswan.conf"] = "fragment_size = 576"
    bed.sun_settings.extra["obol connection"] = {"fragmentation": "force", "fragment_size": 576}
    bed.start()
    bed.up()
    bed.traffic()
    for peer in (bed.moon, bed.sun):
        pieces = [p for p in bed.wire() if p.kind == "ike" and p.source == peer.end.outer and p.ike[16] == 53]
        expect(len(pieces) >= 2, f"{peer.kind} sent {len(pieces)} pieces of messages")
    bed.down()


@scenario("childless", needs_obol=True)
def childless(bed):
    """An IKE SA without child at first (RFC 6023); the child comes by CREATE_CHILD_SA, with a key exchange of its own."""
    bed.moon_settings.extra["swanctl"] = "childless = force"
    bed.sun_settings.extra["obol connection"] = {"childless": "force"}
    bed.both(esp="aes128gcm16-ecp256")
    bed.start()
    bed.up()
    expect(bed.requests(exchange=36, source=bed.initiator), "there was no CREATE_CHILD_SA request")
    bed.traffic()
    bed.down()
