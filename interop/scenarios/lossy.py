"""A wire that loses and repeats IKE messages: every negotiation comes to its end all the same."""

import contextlib
import time

from lab import wire
from lab.wait import Failure, expect, until

from . import scenario

LOSS, REPEATED = 30, 30  # percent, each way
SETTLED = 100  # seconds after which nobody waits for an answer any more, and a rekey was not under way for a moment


def _lossy(bed):
    """Both ends keep asking for long enough that chance does not decide.

    A message arrives unless it is lost, and its copy, if there is one, too: 1 - 0.3 * (0.7 + 0.3 * 0.3) = 0.76. So a
    request that is sent n times stays unanswered with 0.42^n. In 30 s obol asks 14 times (5e-6), strongSwan nine times.
    """
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["charon tries"] = 14
        settings.extra["obol"] = {"retransmit_timeout": "500ms", "retransmit_base": 1.2, "retransmit_tries": 20}
        settings.extra["strongswan.conf"] = "retransmit_limit = 4"
        settings.extra["patience"] = 55


def _strike(bed):
    for peer in (bed.moon, bed.sun):
        wire.make_lossy(peer, LOSS, REPEATED)


def _calm(bed):
    """Returns how many messages were lost or repeated since `_strike`."""
    return sum(wire.make_calm(peer) for peer in (bed.moon, bed.sun))


def _struck(messages):
    """Each message is lost or comes twice with 1 - 0.7 * 0.7 = 0.51, so of 30 that a scenario has at least, two or
    fewer only with 1e-7."""
    expect(messages > 2, f"only {messages} messages were lost or repeated, so this shows nothing")


@scenario("lossy-start")
def lossy_start(bed):
    """30 % of the IKE messages are lost and 30 % come twice, each way: five times up and down."""
    _lossy(bed)
    bed.start()
    _strike(bed)
    for _ in range(5):
        done, said = bed.initiator.initiate()
        expect(done, f"{bed.initiator.kind} did not bring the child up: {said}")
        bed.agreed(SETTLED)
        bed.traffic()
        with contextlib.suppress(Failure):  # it does not wait for the peer as long as we do
            bed.initiator.terminate()
        for peer in (bed.moon, bed.sun):
            bed.until_nothing(peer, SETTLED)
    _struck(_calm(bed))


def _storm(bed, seconds, **lifetimes):
    _lossy(bed)
    bed.both(**lifetimes)
    for settings in (bed.moon_settings, bed.sun_settings):
        # Rekeyed this often, SAs must still be allowed to grow older than a few lost requests.
        settings.extra["swanctl"], settings.extra["swanctl child"] = "over_time = 60s", "life_time = 60s"
        settings.extra["obol child"] = {"life_time": "60s"} if "child_rekey_seconds" in lifetimes else {}
    bed.start()
    before, _ = bed.up()
    pinging = [bed.start_pinging(peer, count=seconds * 10, interval=0.1) for peer in (bed.moon, bed.sun)]
    _strike(bed)
    time.sleep(seconds)
    _struck(_calm(bed))
    # An IKE SA whose delete was answered, and the answer lost, is given up by obol after 30 s, and one that lost a
    # contest and never came to be at strongSwan after 10 s more. strongSwan gives such a one up after its 14 repetitions,
    # four seconds each: 60 s. Whoever else waits asks again within 20 s.
    after, _ = bed.agreed(SETTLED)
    expect(before.spis != after.spis or before.children != after.children, "nothing was rekeyed")
    for ping in pinging:
        sent, got = bed.answered(ping)
        expect(sent == got, f"{sent - got} of {sent} pings were lost")
    bed.traffic()


@scenario("lossy-child-rekey")
def lossy_child_rekey(bed):
    """Both ends rekey the child every few seconds on the lossy wire: no ping is lost, one child is left."""
    _storm(bed, 50, child_rekey_seconds=12)


@scenario("lossy-ike-rekey")
def lossy_ike_rekey(bed):
    """Both ends rekey the IKE SA every few seconds on the lossy wire: no ping is lost, one IKE SA is left."""
    _storm(bed, 40, ike_rekey_seconds=6)


@scenario("lossy-storm")
def lossy_storm(bed):
    """Both ends rekey both every few seconds on the lossy wire: no ping is lost, one of each is left."""
    _storm(bed, 60, ike_rekey_seconds=10, child_rekey_seconds=13)


@scenario("lossy-crossing-start", roles=("initiator",))
def lossy_crossing_start(bed):
    """Both ends start at once on the lossy wire, five times: one IKE SA with one child is left, or two that work."""
    _lossy(bed)
    bed.both(start="none")
    bed.start()
    struck = 0

    def up():
        """Both have the same children. Until the last answer has come one end may have one that the other lacks."""
        moon, sun = (
            {(child.spi_in, child.spi_out) for sa in peer.sas() if sa.established for child in sa.children}
            for peer in (bed.moon, bed.sun)
        )
        return moon and moon == {(spi_out, spi_in) for spi_in, spi_out in sun}

    for _ in range(5):
        _strike(bed)
        bed.moon.container.spawn("swanctl --initiate --child nets --timeout 60 --uri unix:///lab/charon.vici")
        bed.sun.initiate()
        until("both ends have the same children", up, 90)
        struck += _calm(bed)
        for peer in (bed.moon, bed.sun):
            bed.ping(peer, count=10)
        for peer in (bed.moon, bed.sun):
            with contextlib.suppress(Failure):  # the other one may have closed everything
                peer.terminate()
        for peer in (bed.moon, bed.sun):
            bed.until_nothing(peer, SETTLED)
    _struck(struck)
