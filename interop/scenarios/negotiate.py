"""Before the tunnel is there: retries, cookies, narrowing, encapsulation, crossing starts."""

from lab import probe
from lab.wait import expect, until

from . import scenario
from .auth import whole_life

KE = "aes128gcm16-prfsha256"


@scenario("ke-mismatch")
def ke_mismatch(bed):
    """The first key exchange is not the responder's: INVALID_KE_PAYLOAD, and a second try."""
    bed.initiator_settings.ike = f"{KE}-x25519-ecp256"
    bed.responder_settings.ike = f"{KE}-ecp256"
    whole_life(bed)
    expect(len(bed.requests(exchange=34)) == 2, "there was no second IKE_SA_INIT request")


@scenario("ke-mismatch-ecp384")
def ke_mismatch_ecp384(bed):
    """Of three key exchanges the responder wants the last one: INVALID_KE_PAYLOAD, and a second try with ECP-384."""
    bed.initiator_settings.ike = f"{KE}-x25519-ecp256-ecp384"
    bed.responder_settings.ike = f"{KE}-ecp384"
    whole_life(bed)
    expect(len(bed.requests(exchange=34)) == 2, "there was no second IKE_SA_INIT request")


@scenario("second-proposal")
def second_proposal(bed):
    """Of two proposals for IKE and for ESP the responder takes the second, and says its number."""
    first, second = "aes256-sha512-x25519", f"{KE}-x25519"
    bed.initiator_settings.ike, bed.initiator_settings.esp = f"{first},{second}", "aes256-sha512,aes128gcm16"
    bed.responder_settings.ike, bed.responder_settings.esp = second, "aes128gcm16"
    whole_life(bed)


@scenario("no-proposal")
def no_proposal(bed):
    """No common IKE proposal: NO_PROPOSAL_CHOSEN, nothing installed."""
    bed.initiator_settings.ike = "aes128gcm16-prfsha256-x25519"
    bed.responder_settings.ike = "aes256-sha512-modp3072"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing, 30)


def _child_refused(bed):
    """The IKE SA comes up and the child does not; no ESP is sent."""
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that the child is up: {said}")
    for peer in (bed.moon, bed.sun):
        children = [sa.children for sa in peer.sas() if sa.children]
        expect(not children, f"{peer.kind} has children: {children}")
    bed.expect_no_esp()


@scenario("no-esp-proposal")
def no_esp_proposal(bed):
    """No common ESP proposal: NO_PROPOSAL_CHOSEN for the child."""
    bed.initiator_settings.esp = "aes128gcm16"
    bed.responder_settings.esp = "aes256-sha512"
    _child_refused(bed)


@scenario("no-selectors")
def no_selectors(bed):
    """No common traffic selectors: TS_UNACCEPTABLE for the child."""
    bed.responder_settings.extra["other networks"] = True
    _child_refused(bed)


@scenario("cookie")
def cookie(bed):
    """The responder asks for a cookie, RFC 7296 section 2.6."""
    bed.both(ike=f"{KE}-x25519")
    bed.responder_settings.cookies = True
    bed.responder_settings.any_remote = True
    bed.start()
    probe.half_open(bed)
    bed.up()
    bed.traffic()
    expect(len(bed.requests(exchange=34, source=bed.initiator)) == 2, "there was no second IKE_SA_INIT request")
    bed.down()


@scenario("cookie-ke-mismatch")
def cookie_ke_mismatch(bed):
    """A cookie and INVALID_KE_PAYLOAD in one negotiation, RFC 7296 section 2.6.1."""
    bed.initiator_settings.ike = f"{KE}-x25519-ecp256"
    bed.responder_settings.ike = f"{KE}-ecp256"
    bed.responder_settings.cookies = True
    bed.responder_settings.any_remote = True
    bed.start()
    probe.half_open(bed, ke=19)
    bed.up()
    bed.traffic()
    bed.down()


@scenario("narrowing")
def narrowing(bed):
    """The responder protects less than is asked for and narrows the selectors."""
    bed.responder_settings.extra["narrow"] = True
    whole_life(bed)


@scenario("force-encap")
def force_encap(bed):
    """ESP in UDP although there is no NAT, because one end wants it."""
    bed.moon_settings.extra["strongswan.conf"] = "plugins { kernel-libipsec { raw_esp = yes } }"
    bed.sun_settings.encap = True
    bed.start()
    moon, sun = bed.up()
    expect(moon.children[0].encap and sun.children[0].encap, "ESP is not encapsulated")
    bed.traffic()
    expect(not [p for p in bed.wire() if p.protocol == 50], "there was ESP without UDP")
    bed.down()


@scenario("raw-esp")
def raw_esp(bed):
    """ESP as IP protocol 50, where neither end sees a NAT."""
    bed.both(extra={"strongswan.conf": "plugins { kernel-libipsec { raw_esp = yes } }"})
    bed.start()
    moon, sun = bed.up()
    expect(not moon.children[0].encap and not sun.children[0].encap, "ESP is encapsulated")
    bed.traffic()
    expect(not [p for p in bed.wire() if p.kind == "esp" and p.protocol == 17], "there was ESP in UDP")
    bed.down()


@scenario("crossing-start", roles=("initiator",))
def crossing_start(bed):
    """Both ends start at the same time and end with a working tunnel."""
    bed.both(start="start")
    bed.start()
    until("both ends have an SA", lambda: all(any(sa.established for sa in p.sas()) for p in (bed.moon, bed.sun)), 20)
    for peer in (bed.moon, bed.sun):
        bed.ping(peer, count=10)
