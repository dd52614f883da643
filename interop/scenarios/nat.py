"""NATs between the two ends: who is behind one, mappings that change, ports that are forwarded."""

from lab import wire
from lab.wait import expect

from . import scenario


def _through(bed, behind):
    """`behind` one NAT or two; the responder is found by the address that its NAT forwards."""
    bed.behind_nat = behind
    names = {"moon": bed.moon_settings, "sun": bed.sun_settings}
    hosts = {"moon": 10, "sun": 20}
    for name in behind:
        other = names["sun" if name == "moon" else "moon"]
        if bed.initiator_name == name:
            other.any_remote = True
        else:
            other.extra["remote address"] = wire.outer_address(f"172.29.{100 + bed.slot}.{hosts[name]}")
    bed.start()
    moon, sun = bed.up()
    expect(moon.children[0].encap and sun.children[0].encap, "ESP is not encapsulated")
    bed.traffic()
    ike = [packet for packet in bed.wire() if packet.kind == "ike"]
    for name in behind:
        outer = wire.outer_address(getattr(bed, name).end.outer)
        expect(any(outer in (p.source, p.destination) for p in ike), f"nobody saw the address of {name}'s NAT")


@scenario("nat-strongswan")
def nat_strongswan(bed):
    """strongSwan is behind a NAT that gives it another address and port."""
    _through(bed, ("moon",))
    bed.down()


@scenario("nat-obol")
def nat_obol(bed):
    """obol is behind a NAT that gives it another address and port."""
    _through(bed, ("sun",))
    bed.down()


@scenario("nat-both")
def nat_both(bed):
    """Both ends are behind a NAT; the responder's forwards its ports."""
    _through(bed, ("moon", "sun"))
    bed.down()
