"""Runs scenarios side by side, each in its own test bed."""

import concurrent.futures
import fcntl
import fnmatch
import functools
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass

from . import docker, keys
from .bed import Bed
from .wait import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass
class Result:
    """What became of one scenario in one role."""

    name: str
    role: str
    against: str
    shows: str
    failure: str | None
    seconds: float
    peer: str
    logs: str
    plane: str = ""  # obol's data plane, where that is a choice

    @property
    def key(self):
        """The name by which a failure can be expected."""
        return "/".join(filter(None, (self.name, self.role, self.against, self.plane)))


def select(all_scenarios, options):
    """Scenario, role and peer of all runs in containers that the options ask for."""
    from peers import PEERS

    return [
        (scenario, role, peer, "")
        for scenario in all_scenarios
        if not options.only or any(fnmatch.fnmatch(scenario.name, only) for only in options.only)
        if not (options.self_check and scenario.needs_obol)
        for role in scenario.roles
        if not options.role or role == options.role
        for peer in scenario.peers_of(options.everybody)
        if PEERS[peer].lab == "docker"
        if not options.peer or peer == options.peer
    ]


def select_vm(only=(), peer=None, plane=None, everybody=False):
    """Scenario, role, peer and data plane of all runs in the VM that are asked for.

    If nothing is asked for, they are those that scenarios name for that, since all would take three times as long.
    """
    import scenarios

    everybody = everybody or only or peer or plane
    found = []
    for scenario in scenarios.in_vm():
        for against in scenario.peers:
            for own in scenario.planes:
                # obol's own data plane at both ends needs no VM, and at which end it is makes no difference.
                if own == "userspace" and against in scenarios.OBOLS:
                    continue
                if everybody or scenario.brief is None or against in scenario.brief.get(own, ()):
                    found.append((scenario, scenario.roles[0], against, own))

    def wanted(run):
        names = run[0].name, "/".join((run[0].name, *run[1:]))
        asked = not only or any(fnmatch.fnmatch(name, pattern) for name in names for pattern in only)
        return asked and peer in (None, run[2]) and plane in (None, run[3])

    return list(filter(wanted, found))


def run(todo, options):
    """Runs them and returns their results in the order of `todo`."""
    if os.geteuid() != 0:
        raise SystemExit("interop/run needs root: it makes networks and containers")
    lock = _lock()
    subprocess.run([os.path.join(ROOT, "interop", "setup"), "--quiet"], check=True)
    directory = options.logs or tempfile.mkdtemp(prefix="obol-interop-")
    os.makedirs(directory, exist_ok=True)
    seat, mounts = _seat(options)
    jobs = 1 if options.keep else max(1, options.jobs)
    print(f"{len(todo)} runs, {jobs} at a time; logs in {directory}", flush=True)
    try:
        return run_all(todo, docker, directory, {"": seat}, mounts, jobs, options.keep)
    finally:
        lock.close()


def run_all(todo, place, directory, seats, mounts, jobs, keep=False):
    """Runs what `select` found, `jobs` at a time. `seats`: data plane -> what sits in obol's place."""
    making_keys = threading.Lock()

    def key_pair(kind, name):  # the same ones for all scenarios
        with making_keys:
            return keys.pair(directory, kind, name)

    slots = queue.SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)
    one = functools.partial(
        _one, place=place, slots=slots, directory=directory, seats=seats, keys=key_pair, mounts=mounts, keep=keep
    )
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, todo))
    finally:
        if not keep:
            for slot in range(jobs):
                place.remove_leftovers(slot)


def _lock():
    """Two runs on one machine would remove each other's containers."""
    file = open("/run/obol-interop.lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("another interop/run is at work on this machine") from None
    return file


def _seat(options):
    """What sits in obol's place, and what to mount for it."""
    from peers import Obol, StrongSwan

    if options.self_check:
        return StrongSwan, ()
    binary = options.obol or build()
    return Obol, ((os.path.abspath(binary), "/usr/local/bin/obol"),)


def build():
    """Builds obol and returns the binary's path."""
    subprocess.run(["cargo", "build", "--locked", "-p", "obol", "--bin", "obol"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "debug", "obol")


def _one(item, place, slots, directory, seats, keys, mounts, keep):
    from peers import PEERS

    scenario, role, against, plane = item
    result = Result(scenario.name, role, against, scenario.shows, None, 0, "", "", plane)
    logs = result.logs = os.path.join(directory, result.key.replace("/", "-"))
    shutil.rmtree(logs, ignore_errors=True)
    os.makedirs(logs)
    slot = slots.get()
    bed = Bed(place, slot, logs, role, (PEERS[against], seats[plane]), keys, mounts)
    began = time.monotonic()
    try:
        scenario.run(bed)
        bed.check_wire()
    except Failure as error:
        result.failure = str(error)
    except Exception:  # a bug of the lab or output nobody expected: a failure like any other
        result.failure = traceback.format_exc()
    if result.failure:
        bed.autopsy()
    result.seconds, result.peer = time.monotonic() - began, bed.peer_version
    if not keep:
        bed.remove()
    slots.put(slot)
    print(f"{'FAIL' if result.failure else 'ok':4} {result.seconds:6.1f} s  {result.key}", flush=True)
    if result.failure:
        print("     " + result.failure.replace("\n", "\n     "), file=sys.stderr, flush=True)
    return result
