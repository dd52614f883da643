"""The implementations that a scenario puts at its two ends."""

from .obol import Obol
from .strongswan import StrongSwan

__all__ = ["Obol", "StrongSwan"]
