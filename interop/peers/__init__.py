"""The implementations that a scenario puts at its two ends."""

from .libreswan import Libreswan, OldLibreswan
from .obol import KernelObol, Obol, UserspaceObol
from .openiked import OpenIked
from .strongswan import KernelStrongSwan, NextStrongSwan, StrongSwan

# What a scenario calls obol's peer -> what it is.
PEERS = {
    "strongswan": StrongSwan, "strongswan-next": NextStrongSwan, "openiked": OpenIked,
    "strongswan-kernel": KernelStrongSwan, "libreswan": Libreswan, "libreswan-4": OldLibreswan,
    "obol-kernel": KernelObol, "obol-userspace": UserspaceObol,
}

# In the VM, where obol has a choice: data plane -> obol with it.
PLANES = {"userspace": UserspaceObol, "kernel": KernelObol}

__all__ = ["PEERS", "PLANES", "NextStrongSwan", "Obol", "OpenIked", "StrongSwan"]
