"""Every algorithm that both implementations have, in IKE and in ESP."""

from lab.wait import expect

from . import scenario
from .auth import whole_life

CIPHERS = {
    "aes128gcm16": ("aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    "aes256gcm16": ("aes256gcm16-prfsha384-x25519", "aes256gcm16"),
    "chacha20poly1305": ("chacha20poly1305-prfsha512-x25519", "chacha20poly1305"),
    "aes128-sha256": ("aes128-sha256-x25519", "aes128-sha256"),
    "aes192-sha384": ("aes192-sha384-x25519", "aes192-sha384"),
    "aes256-sha512": ("aes256-sha512-x25519", "aes256-sha512"),
}
KEY_EXCHANGES = ("ecp256", "ecp384", "ecp521", "modp2048", "modp3072", "modp4096")


def _register(name, ike, esp, shows):
    def run(bed):
        bed.both(ike=ike, esp=esp)
        whole_life(bed)

    scenario(name, shows=shows)(run)


for _name, (_ike, _esp) in CIPHERS.items():
    _register(f"suite-{_name}", _ike, _esp, f"{_name} in IKE and ESP.")
for _ke in KEY_EXCHANGES:
    _register(f"ke-{_ke}", f"aes128gcm16-prfsha256-{_ke}", "aes128gcm16", f"Key exchange {_ke}.")


@scenario("suite-3des")
def suite_3des(bed):
    """3DES in IKE and ESP, which obol has to be told to allow."""
    bed.both(ike="3des-sha256-modp2048", esp="3des-sha256")
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["obol"] = {"allow": ["3des"]}
    whole_life(bed)


def _pfs(bed, name, ours, theirs):
    """Rekeys the child; `ours` is the initiator's ESP proposal, `name` the expected method."""
    bed.both(ike="aes128gcm16-prfsha256-x25519")
    bed.initiator_settings.esp, bed.responder_settings.esp = ours, theirs
    bed.prepare_rekey(bed.initiator_name, "child")
    bed.start()
    before = bed.up()[0].children[0]
    bed.initiator.rekey("child")
    bed.rekeyed(before)
    suite = bed.moon.established().children[0].suite
    expect(name in suite, f"the rekeyed child has no key exchange of its own: {suite}")
    bed.traffic()
    bed.down()


for _ke, _name in (("x25519", "CURVE_25519"), ("ecp256", "ECP_256"), ("modp2048", "MODP_2048")):
    scenario(f"pfs-{_ke}", shows=f"Child rekey with a fresh key exchange ({_ke}).")(
        lambda bed, ke=_ke, name=_name: _pfs(bed, name, f"aes128gcm16-{ke}", f"aes128gcm16-{ke}")
    )


@scenario("pfs-ke-mismatch")
def pfs_ke_mismatch(bed):
    """Child rekey whose first key exchange is not the responder's: INVALID_KE_PAYLOAD inside the IKE SA."""
    _pfs(bed, "ECP_256", "aes128gcm16-x25519-ecp256", "aes128gcm16-ecp256")


@scenario("pfs-optional")
def pfs_optional(bed):
    """The initiator wants a key exchange for each child, the responder allows and does not want it: it takes none."""
    bed.both(ike="aes128gcm16-prfsha256-x25519")
    bed.initiator_settings.esp, bed.responder_settings.esp = "aes128gcm16-x25519,aes128gcm16", "aes128gcm16"
    bed.prepare_rekey(bed.initiator_name, "child")
    bed.start()
    before = bed.up()[0].children[0]
    bed.initiator.rekey("child")
    bed.rekeyed(before)
    bed.traffic()
    bed.down()
