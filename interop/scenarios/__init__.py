"""The scenarios. Each is a function of a `lab.bed.Bed`, run once per role of obol."""

from dataclasses import dataclass
from typing import Callable

INITIATOR, RESPONDER = "initiator", "responder"
BOTH = (INITIATOR, RESPONDER)

STRONGSWAN, NEXT, OPENIKED = "strongswan", "strongswan-next", "openiked"
BOTH_STRONGSWANS = (STRONGSWAN, NEXT)

ALL = []


@dataclass(frozen=True)
class Scenario:
    """A name, what it shows, the roles in which it makes sense, and how it goes."""

    name: str
    shows: str
    roles: tuple
    run: Callable
    needs_obol: bool = False  # makes no sense with another implementation at sun
    peers: tuple = (STRONGSWAN,)  # names of `peers.PEERS`

    def peers_of(self, everybody):
        """The peers to run it with; with `everybody`, every version of them."""
        if everybody and STRONGSWAN in self.peers and NEXT not in self.peers:
            return (*self.peers, NEXT)
        return self.peers


def scenario(name, roles=BOTH, needs_obol=False, shows=None, peers=(STRONGSWAN,)):
    """Registers a function as a scenario; its docstring says what it shows."""

    def register(function):
        text = (shows or function.__doc__).strip().splitlines()[0]
        ALL.append(Scenario(name, text, roles, function, needs_obol, peers))
        return function

    return register


def load():
    """All scenarios, in the order of their files."""
    from . import auth, negotiate, selectors, suites, families, rekey, protect, liveness, nat, moving, lossy, openiked, bulk  # noqa: F401

    return ALL
