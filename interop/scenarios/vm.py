"""What needs the kernel's ESP at one end or both. Each runs once per peer and data plane of obol, in a VM.

A daemon takes its time to start there, so each scenario does as much as it can with two of them, in both roles.
"""

from lab.wait import expect

from . import BOTH, vm_scenario


def _life(bed):
    """Up by each end, traffic, down by each end."""
    bed.start()
    for bed.role in BOTH:
        bed.up()
        bed.traffic()
        bed.down()


@vm_scenario("vm-psk")
def psk(bed):
    """PSK, a tunnel between subnets, both ends' own proposals; each end begins and ends it."""
    _life(bed)


@vm_scenario("vm-rsa")
def rsa(bed):
    """Raw RSA keys; each end begins and ends it."""
    bed.both(auth="rsa")
    _life(bed)


@vm_scenario("vm-v6")
def v6(bed):
    """IPv6 subnets over IPv6; each end begins and ends it."""
    bed.outer, bed.inner = 6, (6,)
    _life(bed)


@vm_scenario("vm-esn")
def esn(bed):
    """Extended sequence numbers with AES-CBC and HMAC, whose check value covers the half that is not sent."""
    bed.both(ike="aes128gcm16-prfsha256-x25519", esp="aes128-sha256-esn")
    bed.start()
    for bed.role in BOTH:
        bed.up()
        state = bed.moon.container.sh("ip xfrm state")
        if bed.moon.plane != "userspace":
            expect("esn" in state and "cbc(aes)" in state, f"the kernel of {bed.moon.kind} has no such SA: {state}")
        bed.traffic()
        bed.down()


@vm_scenario("vm-encap")
def encap(bed):
    """ESP in UDP without a NAT, because obol says so; the wire shows no other ESP."""
    bed.sun_settings.encap = True
    _life(bed)
    plain = [packet for packet in bed.wire() if packet.kind == "esp" and packet.protocol == 50]
    expect(not plain, f"{len(plain)} ESP packets were not in UDP")
