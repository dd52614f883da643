"""The scenarios. Each is a function of a `lab.bed.Bed`, run once per role of obol."""

from dataclasses import dataclass
from typing import Callable

INITIATOR, RESPONDER = "initiator", "responder"
BOTH = (INITIATOR, RESPONDER)

STRONGSWAN, NEXT, OPENIKED = "strongswan", "strongswan-next", "openiked"
BOTH_STRONGSWANS = (STRONGSWAN, NEXT)
KERNEL_STRONGSWAN, LIBRESWAN, LIBRESWAN_4 = "strongswan-kernel", "libreswan", "libreswan-4"
OTHERS_IN_VM = (KERNEL_STRONGSWAN, LIBRESWAN, LIBRESWAN_4)
KERNEL_OBOL, USERSPACE_OBOL = OBOLS = "obol-kernel", "obol-userspace"
ALL_IN_VM = (*OTHERS_IN_VM, *OBOLS)
PLANES = ("userspace", "kernel")  # of obol, in the VM

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
    planes: tuple = ()  # data planes of obol, of a scenario that needs the VM
    brief: dict | None = None  # data plane -> the peers of the default list, if those are not all

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


def vm_scenario(name, peers=ALL_IN_VM, planes=PLANES, brief=None):
    """Registers a function as a scenario for the VM, where obol sits at sun and has both roles in turn."""

    def register(function):
        text = function.__doc__.strip().splitlines()[0]
        ALL.append(Scenario(name, text, (INITIATOR,), function, True, peers, planes, brief))
        return function

    return register


def in_vm():
    """The scenarios for the VM."""
    return [scenario for scenario in load() if scenario.planes]


def load():
    """All scenarios, in the order of their files."""
    from . import auth, negotiate, selectors, suites, families, rekey, protect, liveness, nat, moving, lossy, openiked, bulk, pluto, vm, vm_plane  # noqa: F401

    return ALL
