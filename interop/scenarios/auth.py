"""Who is who: shared secrets, raw public keys, identities, and what happens when they do not fit."""

from lab.wait import expect, until

from . import INITIATOR, RESPONDER, scenario


def whole_life(bed):
    """Start, bring up, send traffic both ways, close."""
    bed.start()
    bed.up()
    bed.traffic()
    bed.down()


@scenario("psk")
def psk(bed):
    """Shared secret, subnet to subnet, both peers' default proposals."""
    whole_life(bed)


@scenario("rsa")
def rsa(bed):
    """RSA raw public keys, 3072 bits, RFC 7427 signatures."""
    bed.both(auth="rsa")
    whole_life(bed)


@scenario("ed25519")
def ed25519(bed):
    """Ed25519 raw public keys, RFC 8420 signatures."""
    bed.both(auth="ed25519")
    whole_life(bed)


@scenario("ecdsa")
def ecdsa(bed):
    """ECDSA raw public keys, P-256 at one end and P-384 at the other, RFC 7427 signatures."""
    bed.moon_settings.auth, bed.moon_settings.remote_auth = "p256", "p384"
    bed.sun_settings.auth, bed.sun_settings.remote_auth = "p384", "p256"
    whole_life(bed)


@scenario("ecdsa-p521")
def ecdsa_p521(bed):
    """ECDSA raw public keys on P-521, RFC 7427 signatures."""
    bed.both(auth="p521")
    whole_life(bed)


@scenario("ecdsa-rfc4754")
def ecdsa_old(bed):
    """strongSwan speaks no RFC 7427: AUTH methods 9 and 10, which fix hash and curve."""
    bed.moon_settings.auth, bed.moon_settings.remote_auth = "p256", "p384"
    bed.sun_settings.auth, bed.sun_settings.remote_auth = "p384", "p256"
    bed.moon_settings.extra["strongswan.conf"] = "signature_authentication = no"
    whole_life(bed)


@scenario("mixed-auth")
def mixed(bed):
    """strongSwan signs with RSA, the other end knows a shared secret."""
    bed.moon_settings.auth, bed.moon_settings.remote_auth = "rsa", "psk"
    bed.sun_settings.auth, bed.sun_settings.remote_auth = "psk", "rsa"
    whole_life(bed)


@scenario("id-address")
def id_address(bed):
    """Identities are IPv4 addresses."""
    bed.identities = ("192.0.2.1", "192.0.2.2")
    whole_life(bed)


@scenario("id-email")
def id_email(bed):
    """Identities are mail addresses."""
    bed.identities = ("moon@interop.example", "sun@interop.example")
    whole_life(bed)


@scenario("wrong-psk")
def wrong_psk(bed):
    """Secrets differ: AUTHENTICATION_FAILED, nothing installed, the log names both identities."""
    bed.moon_settings.secret = "not the secret that sun knows"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing)
    for peer in (bed.moon, bed.sun):
        if peer.kind == "obol":
            line = peer.wait_log(r"^.*no IKE SA.*$").group(0)
            for word in ("moon.interop.example", "sun.interop.example", "secret"):
                expect(word in line, f"{word} is not in the log line: {line}")
        else:
            peer.wait_log(r"N\(AUTH_FAILED\)")
    bed.expect_no_esp()


@scenario("unknown-peer")
def unknown_peer(bed):
    """The responder does not know the initiator's identity: AUTHENTICATION_FAILED, nothing installed."""
    bed.responder_settings.extra["remote identity"] = "mars.interop.example"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing)
    pattern = "AUTHENTICATION_FAILED" if bed.initiator.kind == "obol" else r"N\(AUTH_FAILED\)"
    bed.initiator.wait_log(pattern)
    bed.expect_no_esp()


OBOL_MORE_SECRETS = """
[secrets.of-others]
type = "psk"
ids = ["sun.interop.example", "mars.interop.example"]
secret = "what only mars knows, and not moon at all"
[secrets.of-everybody]
type = "psk"
secret = "what everybody else knows, and not moon"
"""
SWANCTL_MORE_SECRETS = """
ike-others {
  id-own = moon.interop.example
  id-other = mars.interop.example
  secret = "what only mars knows, and not sun at all"
}
ike-sun {
  id-own = moon.interop.example
  id-other = sun.interop.example
  secret = "the secret of these two"
}
"""


@scenario("several-secrets")
def several_secrets(bed):
    """Each end has secrets of other pairs and one for everybody, and takes the one of these two."""
    bed.sun_settings.secret = "the secret of these two"
    bed.moon_settings.secret = "what is for everybody, and is not to be taken"
    bed.sun_settings.extra["obol toml"] = OBOL_MORE_SECRETS
    bed.moon_settings.extra["swanctl secrets"] = SWANCTL_MORE_SECRETS
    whole_life(bed)


@scenario("start", roles=(INITIATOR,))
def start(bed):
    """start_action = start brings the tunnel up without being asked."""
    bed.initiator_settings.start = "start"
    bed.start()
    bed.agreed(20)
    bed.traffic()


@scenario("id-keyid")
def id_keyid(bed):
    """Identities are opaque octets, ID_KEY_ID."""
    bed.identities = ("@#6d6f6f6e00ff", "@#73756e00ff01")
    whole_life(bed)


@scenario("id-address-v6")
def id_address_v6(bed):
    """Identities are IPv6 addresses, over IPv6."""
    bed.outer, bed.inner = 6, (6,)
    bed.identities = ("2001:db8::1", "2001:db8::2")
    whole_life(bed)


@scenario("rsa-pss")
def rsa_pss(bed):
    """RSA keys with RSASSA-PSS, asked for and used by strongSwan."""
    bed.both(auth="rsa")
    bed.moon_settings.extra["auth"] = "rsa/pss-sha256"
    bed.moon_settings.extra["strongswan.conf"] = "rsa_pss = yes"
    whole_life(bed)


@scenario("rsa-pss-required", needs_obol=True)
def rsa_pss_required(bed):
    """obol takes RSASSA-PSS only (`signatures`), and strongSwan signs so with rsa_pss = yes."""
    bed.both(auth="rsa")
    bed.moon_settings.extra["strongswan.conf"] = "rsa_pss = yes"
    bed.sun_settings.extra["obol remote"] = {"signatures": ["rsa-pss"]}
    whole_life(bed)


@scenario("rsa-pss-refused", needs_obol=True)
def rsa_pss_refused(bed):
    """The same where strongSwan signs with PKCS#1 v1.5: refused, and obol's log names charon.rsa_pss."""
    bed.both(auth="rsa")
    bed.sun_settings.extra["obol remote"] = {"signatures": ["rsa-pss"]}
    refused_for_pkcs1(bed)


def refused_for_pkcs1(bed):
    """It does not come up, nothing is left, and obol says what strongSwan has to change."""
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    line = bed.sun.wait_log(r"^.*PKCS#1.*$").group(0)
    for word in ("RSASSA-PSS", "charon.rsa_pss"):
        expect(word in line, f"{word} is not in the log line: {line}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing, 30)
    bed.expect_no_esp()


@scenario("rsa-sha1")
def rsa_sha1(bed):
    """strongSwan speaks no RFC 7427: AUTH method 1 with SHA-1, which obol must be told to allow."""
    bed.both(auth="rsa")
    bed.moon_settings.extra["strongswan.conf"] = "signature_authentication = no"
    bed.sun_settings.extra["obol connection"] = {"allow_sha1_rsa": True}
    whole_life(bed)


@scenario("rsa-sha1-refused")
def rsa_sha1_refused(bed):
    """The same without being told: refused at both ends, nothing installed."""
    bed.both(auth="rsa")
    bed.moon_settings.extra["strongswan.conf"] = "signature_authentication = no"
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that it is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing, 30)
    bed.expect_no_esp()


@scenario("no-idr", roles=(RESPONDER,))
def no_idr(bed):
    """strongSwan does not say whom it wants to reach: no IDr in its IKE_AUTH."""
    bed.moon_settings.extra["remote identity"] = "%any"
    whole_life(bed)


OTHER_CONNECTION = """
[connections.other]
remote_addrs = ["%any"]
local = { auth = "psk", id = "sun.interop.example" }
remote = { auth = "psk", id = "mars.interop.example" }
[connections.other.children.nets]
local_ts = ["10.2.0.0/16"]
remote_ts = ["10.77.0.0/16"]
[secrets.other]
type = "psk"
ids = ["sun.interop.example", "mars.interop.example"]
secret = "what only mars knows, and not moon at all"
"""


@scenario("connection-by-identity", roles=(RESPONDER,), needs_obol=True)
def connection_by_identity(bed):
    """obol has a connection by secret and one by RSA key for any address, and finds the right one by the identity."""
    bed.both(auth="rsa")
    bed.sun_settings.any_remote = True
    bed.sun_settings.extra["obol toml"] = OTHER_CONNECTION
    whole_life(bed)
