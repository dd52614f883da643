"""What a scenario asks of an implementation."""

import os
import re

from lab.plan import CHILD
from lab.wait import Failure, until


class Peer:
    """One end: a container, an implementation in it, and its configuration.

    Subclasses write the configuration, start and stop the daemon, and read its state.
    """

    kind = "?"
    image = "obol-interop/strongswan:trixie"
    autopsy = "ip addr; ip rule; ip route show table all; nft list ruleset; ip -s xfrm state; ip xfrm policy"
    plane = ""  # obol's data plane, where it is chosen
    lab = "docker"  # where it can be a peer: `docker` or `vm`
    insists = False  # begins again what it began and others closed
    hasty = False  # sends by a new child before the other end can have it
    probe = None  # an address whose half-open SAs are the lab's own doing

    def __init__(self, container, end, other, settings, keys):
        self.container = container
        self.share = container.share
        self.end, self.other = end, other
        self.settings = settings
        self.keys = keys  # lab.keys.pair, bound to this run's directory

    # What a subclass provides.

    def start(self):
        """Writes the configuration, starts the daemon and waits until it answers."""
        raise NotImplementedError

    def stop(self):
        """Ends the daemon in an orderly way and waits until it is gone."""
        raise NotImplementedError

    def sas(self):
        """The IKE SAs with their children."""
        raise NotImplementedError

    def initiate(self):
        """Brings the child up; returns whether that worked, and what the peer said."""
        raise NotImplementedError

    def terminate(self):
        """Closes the connection, with deletes to the other end."""
        raise NotImplementedError

    @staticmethod
    def prepare_rekey(settings, kind):
        """Called before `start`, when `rekey(kind)` will follow; `kind` is `ike` or `child`."""

    def rekey(self, kind):
        """Starts a rekey, unless one comes by itself after `prepare_rekey`."""

    def version(self):
        """The version, as the implementation prints it."""
        raise NotImplementedError

    def log(self):
        """The whole log of the daemon."""
        return self.read(f"{self.kind}.log")

    # What all have in common.

    @property
    def remote_identity(self):
        """What the configuration expects the other end to be."""
        return self.settings.extra.get("remote identity", self.other.identity)

    @property
    def remote_address(self):
        """Where the configuration expects the other end to be."""
        return self.settings.extra.get("remote address", self.other.outer)

    def children(self):
        """The configured children: name -> our and the other end's networks. One for all
        networks, or one for each."""
        if "children" in self.settings.extra:
            children = self.settings.extra["children"]
            return children(self.end, self.other) if callable(children) else children
        ours, theirs = list(self.end.nets), list(self.other.nets)
        if self.settings.extra.get("narrow"):
            ours, theirs = ([net.replace("/16", "/24") for net in side] for side in (ours, theirs))
        if self.settings.extra.get("host to host"):
            ours, theirs = [self.end.outer], [self.other.outer]
        if self.settings.extra.get("other networks"):
            ours, theirs = ["192.168.1.0/24"], ["192.168.2.0/24"]
        if not self.settings.extra.get("split"):
            return {CHILD: (ours, theirs)}
        return {f"{CHILD}-{at}": ([own], [far]) for at, (own, far) in enumerate(zip(ours, theirs))}

    def read(self, name):
        """A file of the shared directory, empty if there is none."""
        try:
            with open(os.path.join(self.share, name), errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def write(self, name, text, mode=0o600):
        """Writes a file of the shared directory."""
        path = os.path.join(self.share, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)

    def running(self, process):
        """Whether a process of this name runs in the container."""
        return self.container.ok(f"pgrep -x {process}")

    def addresses(self):
        """Gives the container its own addresses in the protected networks, and a route to the
        other end's networks that does not lead through any tunnel: what leaks arrives."""
        lines = []
        for host in self.end.hosts:
            family, more = ("-6", "nodad") if ":" in host else ("-4", "")
            lines.append(f"ip {family} addr add {host} dev lo {more}")
        self.container.sh("\n".join(["set -e", *lines, *self._routes()]))

    def move(self, address):
        """Takes the IPv4 address from the container and gives it another one."""
        lines = [f"ip addr del {self.end.outer}/24 dev eth0", f"ip addr add {address}/24 dev eth0"]
        self.container.sh("\n".join(["set -e", *lines, *self._routes()]))

    def _routes(self):
        lines = []
        for net in self.other.nets:
            family = "-6" if ":" in net else "-4"
            own = next((h for h in self.end.hosts if (":" in h) == (":" in net)), None)
            same = (":" in self.other.outer) == (":" in net)
            via = self.other.outer if same else self.other.other_outer
            source = f"src {own}" if own else ""
            lines.append(f"ip {family} route replace {net} via {via} {source}")
        return lines

    def wait_log(self, pattern, seconds=10):
        """Waits for a line of the log that matches, and returns the match."""
        return until(
            f"{self.kind} at {self.end.name} logs /{pattern}/",
            lambda: re.search(pattern, self.log(), re.MULTILINE),
            seconds,
        )

    def established(self):
        """The one IKE SA, if it and exactly the configured children are up."""
        sas = self.sas()
        up = [sa for sa in sas if sa.established]
        if len(sas) != 1 or len(up) != 1:
            raise Failure(f"{self.kind} has {len(sas)} IKE SAs, {len(up)} established")
        up[0].children.sort(key=lambda child: child.name)
        found = [child.name for child in up[0].children if child.installed]
        if len(found) != len(up[0].children) or found != sorted(self.children()):
            raise Failure(f"{self.kind} has the children {up[0].children}, not {sorted(self.children())}")
        return up[0]

    def nothing(self):
        """Whether there is no SA at all."""
        sas = self.sas()
        if sas:
            raise Failure(f"{self.kind} has {len(sas)} IKE SAs: {sas}")
        return True
