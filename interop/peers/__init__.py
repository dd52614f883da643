"""The implementations that a scenario puts at its two ends."""

from .obol import Obol
from .openiked import OpenIked
from .strongswan import NextStrongSwan, StrongSwan

# What a scenario calls obol's peer -> what it is.
PEERS = {"strongswan": StrongSwan, "strongswan-next": NextStrongSwan, "openiked": OpenIked}

__all__ = ["PEERS", "NextStrongSwan", "Obol", "OpenIked", "StrongSwan"]
