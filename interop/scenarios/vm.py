"""What needs the kernel's ESP at one end or both. Each runs once per peer and data plane of obol, in a VM.

A daemon takes its time to start there, so each scenario does as much as it can with two of them, in both roles.
"""

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
