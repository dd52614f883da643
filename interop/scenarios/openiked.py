"""OpenIKED, the IKE daemon of OpenBSD, in its Linux edition. It has no data plane here, so there
are no pings, and it does not rekey a child by itself: its kernel would tell it when."""

import time

from lab import wire
from lab.wait import expect, until

from . import INITIATOR, OPENIKED, RESPONDER, scenario

PEERS = (OPENIKED,)


def _life(bed):
    """Start, bring up, agree on the SPIs of both SAs, close."""
    bed.start()
    bed.up()
    bed.down()


@scenario("iked-psk", peers=PEERS)
def psk(bed):
    """Shared secret, subnet to subnet, both peers' default proposals."""
    _life(bed)


@scenario("iked-rsa", peers=PEERS)
def rsa(bed):
    """RSA raw public keys, 3072 bits, RFC 7427 signatures."""
    bed.both(auth="rsa")
    _life(bed)


@scenario("iked-gcm", peers=PEERS)
def gcm(bed):
    """AES-GCM for IKE, AES-CBC with HMAC-SHA2-512 for ESP, both named."""
    bed.moon_settings.extra["ikesa"] = "ikesa enc aes-256-gcm prf hmac-sha2-384 group ecp384"
    bed.moon_settings.extra["childsa"] = "childsa enc aes-256 auth hmac-sha2-512"
    bed.sun_settings.ike, bed.sun_settings.esp = "aes256gcm16-prfsha384-ecp384", "aes256-sha512"
    _life(bed)


@scenario("iked-ecp521", peers=PEERS)
def ecp521(bed):
    """AES-CBC-256 with HMAC-SHA2-512 for IKE, and ECP-521."""
    bed.moon_settings.extra["ikesa"] = "ikesa enc aes-256 auth hmac-sha2-512 prf hmac-sha2-512 group ecp521"
    bed.sun_settings.ike = "aes256-sha512-ecp521"
    _life(bed)


@scenario("iked-modp", peers=PEERS)
def modp(bed):
    """AES-CBC-128 with HMAC-SHA2-256 and MODP-4096 for IKE, AES-CBC-192 with HMAC-SHA2-384 for ESP."""
    bed.moon_settings.extra["ikesa"] = "ikesa enc aes-128 auth hmac-sha2-256 prf hmac-sha2-256 group modp4096"
    bed.moon_settings.extra["childsa"] = "childsa enc aes-192 auth hmac-sha2-384"
    bed.sun_settings.ike, bed.sun_settings.esp = "aes128-sha256-modp4096", "aes192-sha384"
    _life(bed)


@scenario("iked-id-address", peers=PEERS)
def id_address(bed):
    """Identities are IPv4 addresses."""
    bed.identities = ("192.0.2.1", "192.0.2.2")
    bed.moon_settings.extra["iked id type"] = "IPV4"
    _life(bed)


@scenario("iked-no-proposal", peers=PEERS)
def no_proposal(bed):
    """No common IKE proposal: NO_PROPOSAL_CHOSEN, nothing installed."""
    bed.moon_settings.extra["ikesa"] = "ikesa enc aes-256 auth hmac-sha2-512 prf hmac-sha2-512 group ecp521"
    bed.sun_settings.ike = "aes128gcm16-prfsha256-x25519"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    until(f"{bed.sun.kind} has no SA", bed.sun.nothing, 40)
    bed.expect_no_esp()


@scenario("iked-nat", peers=PEERS)
def nat(bed):
    """The initiator is behind a NAT: ESP goes in UDP at both ends, and obol sees or keeps up the mapping."""
    bed.responder_settings.any_remote = True
    bed.start()
    wire.NatBox(bed, [bed.initiator], bed.responder)
    _, sun = bed.up()
    expect(sun.children[0].encap, "ESP is not encapsulated")
    bed.down()


@scenario("iked-fragmentation", peers=PEERS)
def fragmentation(bed):
    """IKE messages of obol in pieces (RFC 7383), because OpenIKED says that it can join them."""
    bed.both(auth="rsa")
    bed.moon_settings.extra["iked"] = "set fragmentation"
    bed.sun_settings.extra["obol connection"] = {"fragmentation": "force", "fragment_size": 576}
    bed.start()
    bed.up()
    pieces = [p for p in bed.wire() if p.kind == "ike" and p.source == bed.sun.end.outer and p.ike[16] == 53]
    expect(len(pieces) >= 2, f"obol sent {len(pieces)} pieces of messages")
    bed.down()


@scenario("iked-two-networks", peers=PEERS)
def two_networks(bed):
    """One Child SA with IPv4 and IPv6 selectors."""
    bed.inner = (4, 6)
    _life(bed)


@scenario("iked-lossy", peers=PEERS, roles=(INITIATOR,))
def lossy(bed):
    """30 % of the IKE messages are lost and 30 % come twice, each way: obol asks until it is up."""
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "500ms", "retransmit_base": 1.2, "retransmit_tries": 20}
    bed.start()
    for peer in (bed.moon, bed.sun):
        wire.make_lossy(peer, 30, 30)
    bed.initiator.initiate()
    bed.agreed(60)
    for peer in (bed.moon, bed.sun):
        wire.make_calm(peer)
    bed.down()


@scenario("iked-ke-mismatch", peers=PEERS)
def ke_mismatch(bed):
    """The first key exchange is not the responder's: INVALID_KE_PAYLOAD, and a second try."""
    groups = {"first": ("group curve25519 group ecp256", "x25519-ecp256"), "only": ("group ecp256", "ecp256")}
    moon, sun = ("only", "first") if bed.role == INITIATOR else ("first", "only")
    bed.moon_settings.extra["ikesa"] = f"ikesa enc aes-128-gcm prf hmac-sha2-256 {groups[moon][0]}"
    bed.sun_settings.ike = f"aes128gcm16-prfsha256-{groups[sun][1]}"
    _life(bed)
    expect(len(bed.requests(exchange=34)) == 2, "there was no second IKE_SA_INIT request")


@scenario("iked-wrong-psk", peers=PEERS)
def wrong_psk(bed):
    """Secrets differ: AUTHENTICATION_FAILED, nothing installed."""
    bed.moon_settings.secret = "another secret than the other end has"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} has no child", lambda: not any(sa.children for sa in peer.sas()), 10)
    bed.expect_no_esp()


@scenario("iked-v6", peers=PEERS)
def v6(bed):
    """The IKE SA over IPv6, with IPv6 subnets."""
    bed.outer, bed.inner = 6, (6,)
    _life(bed)


@scenario("iked-transport", peers=PEERS)
def transport(bed):
    """Transport mode between the two hosts."""
    bed.both(extra={"iked mode": "transport", "host to host": "transport"})
    _life(bed)


@scenario("iked-narrowing", peers=PEERS, roles=(RESPONDER,))
def narrowing(bed):
    """obol protects less than OpenIKED asks for and narrows the selectors."""
    bed.responder_settings.extra["narrow"] = True
    _life(bed)


def _rekeyed(bed, kind, settings):
    settings.ike_rekey_seconds = 8 if kind == "ike" else None
    settings.child_rekey_seconds = 8 if kind == "child" else None
    bed.start()
    before = bed.up()[0]
    if kind == "ike":
        bed.ike_rekeyed(before, 30)
    else:
        bed.rekeyed(before.children[0], 30)
    bed.down()


@scenario("iked-child-rekey-by-obol", peers=PEERS)
def child_rekey_by_obol(bed):
    """obol rekeys the child."""
    _rekeyed(bed, "child", bed.sun_settings)


@scenario("iked-ike-rekey-by-obol", peers=PEERS)
def ike_rekey_by_obol(bed):
    """obol rekeys the IKE SA; the child moves over."""
    _rekeyed(bed, "ike", bed.sun_settings)


@scenario("iked-ike-rekey-by-iked", peers=PEERS)
def ike_rekey_by_iked(bed):
    """OpenIKED rekeys the IKE SA; the child moves over."""
    _rekeyed(bed, "ike", bed.moon_settings)


@scenario("iked-rekey-storm", peers=PEERS)
def rekey_storm(bed):
    """Both ends rekey child and IKE SA every few seconds, so that exchanges cross; one of each is left."""
    bed.both(ike_rekey_seconds=7, child_rekey_seconds=5)
    bed.start()
    bed.up()
    end = time.monotonic() + 40
    while time.monotonic() < end:
        bed.agreed(20)
        time.sleep(0.5)
    rekeys = len(bed.requests(exchange=36))
    expect(rekeys >= 8, f"only {rekeys} CREATE_CHILD_SA requests in 40 s")


@scenario("iked-delete-by-obol", peers=PEERS)
def delete_by_obol(bed):
    """obol closes the connection; nothing is left at either end."""
    bed.start()
    bed.up()
    bed.down(bed.sun)


@scenario("iked-delete-by-iked", peers=PEERS)
def delete_by_iked(bed):
    """OpenIKED closes the connection; nothing is left at either end."""
    bed.start()
    bed.up()
    bed.down(bed.moon)


@scenario("iked-restart", peers=PEERS, roles=(RESPONDER,))
def restart(bed):
    """OpenIKED dies without a word and begins anew without INITIAL_CONTACT: obol notices that the old SA is dead."""
    bed.sun_settings.dpd_seconds = 2
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "300ms", "retransmit_tries": 3}
    bed.start()
    old, _ = bed.up()
    bed.moon.kill()
    bed.moon.launch()
    bed.reauthenticated(old, 30)
    bed.down()


@scenario("iked-dead-peer", peers=PEERS, roles=(INITIATOR,))
def dead_peer(bed):
    """OpenIKED vanishes: obol notices, and restores the SAs when it is back."""
    bed.sun_settings.start = "start"
    bed.sun_settings.dpd_seconds = 2
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "300ms", "retransmit_tries": 3}
    bed.start()
    old, _ = bed.agreed(20)
    bed.moon.kill()
    until("obol gives the dead SA up", lambda: all(sa.spis != old.spis for sa in bed.sun.sas()), 20)
    bed.moon.launch()
    new, _ = bed.agreed(30)
    expect(old.spis != new.spis, "the IKE SA is the old one")
