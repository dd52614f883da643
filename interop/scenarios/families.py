"""IPv4 and IPv6, outside and inside."""

from . import scenario
from .auth import whole_life


@scenario("6in6")
def six_in_six(bed):
    """IPv6 networks over IPv6."""
    bed.outer, bed.inner = 6, (6,)
    whole_life(bed)


@scenario("4in6")
def four_in_six(bed):
    """IPv4 networks over IPv6."""
    bed.outer, bed.inner = 6, (4,)
    whole_life(bed)


@scenario("6in4")
def six_in_four(bed):
    """IPv6 networks over IPv4."""
    bed.outer, bed.inner = 4, (6,)
    whole_life(bed)


@scenario("dual-in-4")
def dual_in_four(bed):
    """One Child SA with IPv4 and IPv6 selectors."""
    bed.outer, bed.inner = 4, (4, 6)
    whole_life(bed)


@scenario("two-children")
def two_children(bed):
    """Two Child SAs, for IPv4 and for IPv6: the second one by CREATE_CHILD_SA."""
    bed.outer, bed.inner = 4, (4, 6)
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["split"] = True
    whole_life(bed)


@scenario("large-packets")
def large_packets(bed):
    """Pings of 4000 bytes: fragments inside, and what does not fit outside."""
    bed.start()
    bed.up()
    for peer in (bed.moon, bed.sun):
        bed.ping(peer, size=4000)
    bed.down()


@scenario("large-packets-6in4")
def large_packets_6in4(bed):
    """IPv6 pings of 8000 bytes through a tunnel over IPv4."""
    bed.inner = (6,)
    bed.start()
    bed.up()
    for peer in (bed.moon, bed.sun):
        bed.ping(peer, size=8000)
    bed.down()
