"""Two network namespaces with a veth between them, and the processes that run there."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

ENDS = (0, 1)
SPACES = ("obol-compare-a", "obol-compare-b")
OUTER = ("192.0.2.1", "192.0.2.2")
INNER = ("198.51.100.1", "198.51.100.2")
VETH = ("cmpveth0", "cmpveth1")
MTU = 1400  # of what goes through a tunnel; the veth has 1500


class Failure(Exception):
    """Something did not work; the text says what."""


def run(*command, check=True, timeout=60, **how):
    """Runs a command and returns what it printed."""
    if "input" not in how:
        how["stdin"] = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              timeout=timeout, **how)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{command[0]}: {error}") from error
    if check and done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stdout.strip()[-500:]}")
    return done.stdout


def inside(end, *command):
    """The command line that runs `command` in a namespace, with the same process id."""
    return ("ip", "netns", "exec", SPACES[end], *command)


class Bed:
    """The namespaces of one visit to one peer. Everything is gone when it is left."""

    def __init__(self, offload):
        self.offload = offload
        self.processes = []

    def __enter__(self):
        remove_spaces()
        self.scratch = tempfile.mkdtemp(prefix="obol-compare-")
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        for space in SPACES:
            run("ip", "netns", "add", space)
        run("ip", "link", "add", VETH[0], "netns", SPACES[0], "mtu", "1500", "type", "veth",
            "peer", "name", VETH[1], "netns", SPACES[1], "mtu", "1500")
        for end in ENDS:
            for name in ("all", "default"):
                self.run(end, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
            self.run(end, "ip", "link", "set", "lo", "up")
            self.run(end, "ip", "addr", "add", f"{OUTER[end]}/24", "dev", VETH[end])
            self.run(end, "ip", "link", "set", VETH[end], "up")
            if not self.offload:
                self.run(end, "ethtool", "-K", VETH[end], "tx-udp-segmentation", "off")
        self.wait_for(OUTER[1])

    def __exit__(self, *_):
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        remove_spaces()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def run(self, end, *command, **how):
        """Runs a command in a namespace and returns what it printed."""
        return run(*inside(end, *command), **how)

    def spawn(self, end, *command, name, environment=None):
        """Starts a process that is ended with the bed. Its output goes to the file `name`."""
        with open(self.path(name), "w") as log:
            process = subprocess.Popen(inside(end, *command), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env=os.environ | (environment or {}), start_new_session=True)
        self.processes.append(process)
        return process

    def path(self, *names):
        """A file in the folder that goes with the bed."""
        return os.path.join(self.scratch, *names)

    def write(self, name, text):
        """Writes a file that only root can read, and returns its path."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
        return path

    def read(self, name):
        """What a process has said."""
        with open(self.path(name), errors="replace") as file:
            return file.read()

    def logs(self):
        """The end of what the processes have said."""
        said = []
        for name in sorted(os.listdir(self.scratch)):
            if name.endswith(".log"):
                said.append(f"{name}: {' '.join(self.read(name).split())[-300:]}")
        return "; ".join(said)

    def wait_for(self, address):
        """Waits until `address` answers the first end."""
        until(f"{address} answers", lambda: subprocess.run(
            inside(0, "ping", "-c1", "-W1", address), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=False).returncode == 0, 20)

    def address(self, end, device):
        """Gives a tunnel's device its inner address."""
        self.run(end, "ip", "addr", "add", f"{INNER[end]}/24", "dev", device)
        self.run(end, "ip", "link", "set", device, "mtu", str(MTU), "up")


def until(what, holds, seconds):
    """Waits until `holds()`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def remove_spaces():
    """Removes the namespaces, also those of a run that was killed, with what still runs in them."""
    there = re.findall(r"^\S+", run("ip", "netns", "list"), re.MULTILINE)
    for space in SPACES:
        if space in there:
            for process in run("ip", "netns", "pids", space, check=False).split():
                with contextlib.suppress(ProcessLookupError, ValueError):
                    os.kill(int(process), signal.SIGKILL)
            run("ip", "netns", "del", space, check=False)
