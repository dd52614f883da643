"""Peers that are silent, dead, or back."""

import time

from lab import wire
from lab.wait import expect, until

from . import BOTH_STRONGSWANS, INITIATOR, RESPONDER, scenario

IKE_AUTH, INFORMATIONAL = 35, 37
IMPATIENT = {"retransmit_timeout": "300ms", "retransmit_tries": 3}


@scenario("no-probe-under-traffic", needs_obol=True)
def no_probe_under_traffic(bed):
    """obol asks a peer whether it lives only when no protected packet comes from it."""
    bed.sun_settings.dpd_seconds = 2
    bed.start()
    bed.up()
    pinging = bed.start_pinging(bed.moon, count=80, interval=0.1)
    bed.answered(pinging)
    probes = bed.requests(INFORMATIONAL, source=bed.sun)
    expect(not probes, f"obol asked {len(probes)} times under traffic")
    until("obol asks a silent peer", lambda: len(bed.requests(INFORMATIONAL, source=bed.sun)) >= 2, 10)
    bed.agreed()


@scenario("dead-client", roles=(RESPONDER,), needs_obol=True)
def dead_client(bed):
    """strongSwan, which had begun, vanishes: obol drops its SAs, lets nothing out in clear, and begins nothing."""
    bed.sun_settings.dpd_seconds = 2
    bed.sun_settings.extra["obol"] = IMPATIENT
    bed.start()
    bed.up()
    bed.moon.kill()
    bed.until_nothing(bed.sun, 20)
    expect(bed.unanswered(bed.sun), "a ping was answered without a tunnel")
    time.sleep(3)
    bed.sun.nothing()


@scenario("dead-peer-trap", roles=(INITIATOR,), needs_obol=True, peers=BOTH_STRONGSWANS)
def dead_peer_trap(bed):
    """strongSwan vanishes: obol falls back to its trap, and the next packet restores the tunnel when it is back."""
    bed.sun_settings.start = "trap"
    bed.sun_settings.dpd_seconds = 2
    bed.sun_settings.extra["obol"] = IMPATIENT
    bed.start()
    bed.ping(bed.sun, count=1)
    old, _ = bed.agreed()
    bed.moon.kill()
    bed.until_nothing(bed.sun, 20)
    expect(bed.unanswered(bed.sun), "a ping was answered without a tunnel")
    bed.moon.launch()
    until("a packet brings the tunnel up", lambda: not bed.unanswered(bed.sun), 30)
    new, _ = bed.agreed()
    expect(old.spis != new.spis, "the IKE SA is the old one")
    bed.traffic()


@scenario("restart-in-handshake", roles=(INITIATOR,), needs_obol=True)
def restart_in_handshake(bed):
    """strongSwan restarts between IKE_SA_INIT and IKE_AUTH of obol's start on demand, and begins itself: one IKE SA is left."""
    bed.sun_settings.start = "trap"
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "300ms", "retransmit_tries": 6}
    # obol's pings wait for the SA, and strongSwan, which began it, may have them before it has routed the answers.
    bed.moon_answers_early = True
    bed.start()
    wire.lose_exchange(bed.moon, IKE_AUTH)
    bed.unanswered(bed.sun)
    until("obol sends IKE_AUTH", lambda: bed.requests(IKE_AUTH, source=bed.sun), 10)
    bed.moon.kill()
    wire.lose_exchange(bed.moon, None)
    bed.moon.launch()
    done, said = bed.moon.initiate()
    expect(done, f"strongSwan did not bring the child up: {said}")
    bed.agreed(30)
    bed.traffic()
    bed.down()
