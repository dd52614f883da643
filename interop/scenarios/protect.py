"""What must not leave in clear, and the packet that brings a tunnel up."""

from lab.pcap import MARKER
from lab.wait import expect, until

from . import INITIATOR, scenario


@scenario("trap", roles=(INITIATOR,), needs_obol=True)
def trap(bed):
    """The first packet brings the tunnel up, and is itself answered."""
    bed.sun_settings.start = "trap"
    bed.start()
    bed.sun.nothing()
    bed.ping(bed.sun, count=1)
    bed.agreed()
    bed.traffic()
    bed.down()


@scenario("no-sa", roles=(INITIATOR,), needs_obol=True)
def no_sa(bed):
    """A protected flow without an SA is dropped, out and in."""
    bed.start()
    for peer in (bed.sun, bed.moon):
        expect(bed.unanswered(peer), f"{peer.kind} got an answer without a tunnel")
    # strongSwan guards nothing, so its pings were on the wire; nothing of sun's may be.
    own = bed.sun.end.hosts[0]
    left = [packet for packet in bed.wire() if packet.source == own]
    expect(not left, f"{len(left)} packets left {bed.sun.kind} in clear")
    came = [packet for packet in bed.wire() if packet.source == bed.moon.end.hosts[0]]
    expect(came, "strongSwan's pings in clear did not arrive, so this shows nothing")
    bed.clear_expected = True


@scenario("kill", needs_obol=True)
def kill(bed):
    """obol dies by SIGKILL under traffic: nothing leaves in clear; a new one takes over (INITIAL_CONTACT)."""
    bed.start()
    bed.up()
    pinging = bed.start_pinging(bed.sun, count=60)
    bed.traffic()
    bed.sun.kill()
    sent, got = bed.answered(pinging)
    expect(got < sent, "pings were answered although obol was dead")
    bed.check_wire()
    if bed.initiator is bed.moon:
        bed.moon.terminate_now()  # it cannot know that its SA is dead
    bed.sun.launch()
    bed.up()
    bed.traffic()


@scenario("purge", roles=(INITIATOR,), needs_obol=True)
def purge(bed):
    """`obol purge` lifts the protection of a dead daemon, and only then packets leave in clear."""
    bed.start()
    bed.up()
    before = bed.sun.container.sh("ip rule; ip -6 rule; ip route show table all")
    bed.sun.kill()
    expect(bed.unanswered(bed.sun), "a ping was answered although obol was dead")
    bed.check_wire()
    bed.sun.purge()
    after = bed.sun.container.sh("ip rule; ip -6 rule")
    expect(after.count("lookup") == 5, f"rules are left: {after}; before: {before}")
    bed.clear_expected = True
    own = bed.sun.end.hosts[0]
    bed.unanswered(bed.sun)
    # What this sees is what `check_wire` would have seen before.
    until("packets leave in clear", lambda: [
        p for p in bed.wire() if p.source == own and p.kind == "clear" and MARKER in p.frame
    ])
