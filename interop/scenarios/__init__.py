"""The scenarios. Each is a function of a `lab.bed.Bed`, run once per role of obol."""

from dataclasses import dataclass
from typing import Callable

INITIATOR, RESPONDER = "initiator", "responder"
BOTH = (INITIATOR, RESPONDER)

ALL = []


@dataclass(frozen=True)
class Scenario:
    """A name, what it shows, the roles in which it makes sense, and how it goes."""

    name: str
    shows: str
    roles: tuple
    run: Callable
    needs_obol: bool = False  # makes no sense with another implementation at sun


def scenario(name, roles=BOTH, needs_obol=False, shows=None):
    """Registers a function as a scenario; its docstring says what it shows."""

    def register(function):
        text = (shows or function.__doc__).strip().splitlines()[0]
        ALL.append(Scenario(name, text, roles, function, needs_obol))
        return function

    return register


def load():
    """All scenarios, in the order of their files."""
    from . import auth, negotiate, suites, families, rekey, protect  # noqa: F401

    return ALL
