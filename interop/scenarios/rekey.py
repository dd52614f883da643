"""New keys while traffic flows, and orderly ends."""

from lab.wait import expect, until

from . import INITIATOR, RESPONDER, scenario


def _rekey(bed, kind, by):
    """Rekeys once, `by` one end, with pings running through it; not one may be lost."""
    bed.prepare_rekey(by, kind)
    bed.start()
    before = bed.up()[0]
    peer = bed.moon if by == "moon" else bed.sun
    pinging = [bed.start_pinging(p, count=100) for p in (bed.moon, bed.sun)]
    peer.rekey(kind)
    if kind == "child":
        bed.rekeyed(before.children[0])
    else:
        bed.ike_rekeyed(before)
    for ping in pinging:
        sent, got = bed.answered(ping)
        expect(sent == got == 100, f"{sent - got} of {sent} pings were lost during the rekey")
    bed.traffic()
    bed.down()


@scenario("child-rekey-by-obol")
def child_rekey_by_obol(bed):
    """obol rekeys the child; traffic goes on without loss."""
    _rekey(bed, "child", "sun")


@scenario("child-rekey-by-strongswan")
def child_rekey_by_strongswan(bed):
    """strongSwan rekeys the child; traffic goes on without loss."""
    _rekey(bed, "child", "moon")


@scenario("ike-rekey-by-obol")
def ike_rekey_by_obol(bed):
    """obol rekeys the IKE SA; the child moves over and traffic goes on."""
    _rekey(bed, "ike", "sun")


@scenario("ike-rekey-by-strongswan")
def ike_rekey_by_strongswan(bed):
    """strongSwan rekeys the IKE SA; the child moves over and traffic goes on."""
    _rekey(bed, "ike", "moon")


def _crossing(bed, kind):
    """Both ends ask for the same rekey while the link is down; their repeated requests cross."""
    bed.prepare_rekey("sun", kind)
    bed.start()
    before = bed.up()[0]
    bed.sun.container.link("down")
    bed.sun.rekey(kind)
    if kind == "ike":
        until("obol asks for a rekey", lambda: any(not sa.established for sa in bed.sun.sas()), 10)
    bed.moon.rekey(kind)
    bed.sun.container.link("up")
    if kind == "child":
        bed.rekeyed(before.children[0], 30)
    else:
        bed.ike_rekeyed(before, 30)
    bed.traffic()
    bed.down()


@scenario("child-rekey-crossing", needs_obol=True)
def child_rekey_crossing(bed):
    """Both ends rekey the child at the same time and agree on one, RFC 7296 section 2.8.1."""
    _crossing(bed, "child")


@scenario("ike-rekey-crossing", needs_obol=True)
def ike_rekey_crossing(bed):
    """Both ends rekey the IKE SA at the same time and agree on one, RFC 7296 section 2.8.2."""
    _crossing(bed, "ike")


@scenario("rekey-crosses-child")
def rekey_crosses_child(bed):
    """strongSwan rekeys the IKE SA while sun asks for a second child on it: both come about, RFC 7296 section 2.25."""
    bed.inner = (4, 6)
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["split"] = True
    bed.start()
    bed.initiator.initiate_child("nets-0")

    def first():
        seen = [peer.sas() for peer in (bed.moon, bed.sun)]
        up = [[child.installed for sa in sas if sa.established for child in sa.children] for sas in seen]
        return up == [[True], [True]] and seen[0][0].spis

    before = until("both ends have the first child", first)
    bed.sun.container.link("down")
    bed.sun.initiate_child("nets-1")
    bed.moon.rekey("ike")
    bed.sun.container.link("up")
    # Each may be told to try again later, as RFC 7296 section 2.25 has it.
    until("both ends have a new IKE SA with both children", lambda: bed.agreed(0)[0].spis != before, 60)
    bed.traffic()
    bed.down()


@scenario("delete-crossing")
def delete_crossing(bed):
    """One end closes the child while the other one closes the IKE SA, and the other way round: nothing is left."""
    bed.start()
    for at_child, at_ike in ((bed.sun, bed.moon), (bed.moon, bed.sun)):
        bed.up()
        bed.sun.container.link("down")
        at_child.begin_to_terminate(child=True)
        at_ike.begin_to_terminate()
        bed.sun.container.link("up")
        for peer in (bed.moon, bed.sun):
            bed.until_nothing(peer, 30)


@scenario("reauthentication-by-obol", needs_obol=True)
def reauthentication_by_obol(bed):
    """obol wants proofs every 15 s: it makes a new IKE SA before the old one goes, or has strongSwan do it (RFC 4478)."""
    bed.sun_settings.extra["obol connection"] = {"reauth_time": "15s"}
    # strongSwan begins so long before the time is up; with its default of 24 minutes it would begin at once, always.
    bed.moon_settings.extra["swanctl"] = "over_time = 3s"
    bed.start()
    old, _ = bed.up()
    pinging = [bed.start_pinging(p, count=250, interval=0.1) for p in (bed.moon, bed.sun)]
    bed.reauthenticated(old, 30)
    for ping in pinging:
        sent, got = bed.answered(ping)
        expect(sent == got, f"{sent - got} of {sent} pings were lost")


@scenario("reauthentication", roles=(RESPONDER,))
def reauthentication(bed):
    """strongSwan makes a new IKE SA with a new child before it closes the old one; nothing is lost."""
    bed.start()
    old, _ = bed.up()
    pinging = [bed.start_pinging(p, count=100) for p in (bed.moon, bed.sun)]
    bed.moon.reauthenticate()
    bed.reauthenticated(old)
    for ping in pinging:
        sent, got = bed.answered(ping)
        expect(sent == got == 100, f"{sent - got} of {sent} pings were lost")
    bed.traffic()
    bed.down()


def _blocked(bed):
    """obol lets nothing out in clear when the tunnel is down; the capture is looked at later."""
    if bed.sun.kind == "obol":
        expect(bed.unanswered(bed.sun), "a ping was answered without a tunnel")


@scenario("delete-by-obol")
def delete_by_obol(bed):
    """obol closes the connection; nothing is left at either end, and nothing leaves in clear."""
    bed.start()
    bed.up()
    bed.traffic()
    bed.down(bed.sun)
    _blocked(bed)


@scenario("delete-by-strongswan")
def delete_by_strongswan(bed):
    """strongSwan closes the connection; nothing is left at either end, and nothing leaves in clear."""
    bed.start()
    bed.up()
    bed.traffic()
    bed.down(bed.moon)
    _blocked(bed)


@scenario("stop")
def stop(bed):
    """obol ends by SIGTERM and tells the peer."""
    bed.start()
    bed.up()
    bed.sun.stop()
    bed.until_nothing(bed.moon)


@scenario("peer-restart", roles=(RESPONDER,))
def peer_restart(bed):
    """strongSwan dies without a word, comes back and begins anew: INITIAL_CONTACT replaces the old SA."""
    bed.start()
    old, _ = bed.up()
    bed.moon.kill()
    bed.moon.launch()
    new, _ = bed.up()
    expect(old.spis != new.spis, "the IKE SA is the old one")
    bed.traffic()
    bed.down()


@scenario("dead-peer", roles=(INITIATOR,), needs_obol=True)
def dead_peer(bed):
    """strongSwan vanishes: obol notices, keeps the flow closed, and restores the tunnel when it is back."""
    bed.sun_settings.start = "start"
    bed.sun_settings.dpd_seconds = 2
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "300ms", "retransmit_tries": 3}
    bed.start()
    old, _ = bed.agreed(20)
    bed.moon.kill()
    until("obol gives the dead SA up", lambda: all(sa.spis != old.spis for sa in bed.sun.sas()), 20)
    _blocked(bed)
    bed.moon.launch()
    new, _ = bed.agreed(30)
    expect(old.spis != new.spis, "the IKE SA is the old one")
    bed.traffic()
