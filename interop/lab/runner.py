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

from . import keys
from .bed import Bed
from .docker import remove_leftovers
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

    @property
    def key(self):
        """The name by which a failure can be expected."""
        return f"{self.name}/{self.role}/{self.against}"


def select(all_scenarios, options):
    """Scenario, role and peer of all runs that the options ask for."""
    return [
        (scenario, role, peer)
        for scenario in all_scenarios
        if not options.only or any(fnmatch.fnmatch(scenario.name, only) for only in options.only)
        if not (options.self_check and scenario.needs_obol)
        for role in scenario.roles
        if not options.role or role == options.role
        for peer in scenario.peers_of(options.everybody)
        if not options.peer or peer == options.peer
    ]


def run(todo, options):
    """Runs them and returns their results in the order of `todo`."""
    if os.geteuid() != 0:
        raise SystemExit("interop/run needs root: it makes networks and containers")
    lock = _lock()
    subprocess.run([os.path.join(ROOT, "interop", "setup"), "--quiet"], check=True)
    directory = options.logs or tempfile.mkdtemp(prefix="obol-interop-")
    os.makedirs(directory, exist_ok=True)
    making_keys = threading.Lock()

    def key_pair(kind, name):  # the same ones for all scenarios
        with making_keys:
            return keys.pair(directory, kind, name)

    seat, mounts = _seat(options)
    jobs = 1 if options.keep else max(1, options.jobs)
    slots = queue.SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)
    one = functools.partial(
        _one, slots=slots, directory=directory, seat=seat, keys=key_pair, mounts=mounts, keep=options.keep
    )
    print(f"{len(todo)} runs, {jobs} at a time; logs in {directory}", flush=True)
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, todo))
    finally:
        if not options.keep:
            for slot in range(jobs):
                remove_leftovers(slot)
        lock.close()


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
    binary = options.obol or _build()
    return Obol, ((os.path.abspath(binary), "/usr/local/bin/obol"),)


def _build():
    subprocess.run(["cargo", "build", "--locked", "-p", "obol", "--bin", "obol"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "debug", "obol")


def _one(item, slots, directory, seat, keys, mounts, keep):
    from peers import PEERS

    scenario, role, against = item
    logs = os.path.join(directory, f"{scenario.name}-{role}-{against}")
    shutil.rmtree(logs, ignore_errors=True)
    os.makedirs(logs)
    slot = slots.get()
    bed = Bed(slot, logs, role, (PEERS[against], seat), keys, mounts)
    failure, began = None, time.monotonic()
    try:
        scenario.run(bed)
        bed.check_wire()
    except Failure as error:
        failure = str(error)
    except Exception:  # a bug of the lab or output nobody expected: a failure like any other
        failure = traceback.format_exc()
    seconds = time.monotonic() - began
    if not keep:
        bed.remove()
    slots.put(slot)
    print(f"{'FAIL' if failure else 'ok':4} {seconds:6.1f} s  {scenario.name}/{role}/{against}", flush=True)
    if failure:
        print("     " + failure.replace("\n", "\n     "), file=sys.stderr, flush=True)
    return Result(scenario.name, role, against, scenario.shows, failure, seconds, bed.peer_version, logs)
