"""What is measured of one peer in one visit: TCP, UDP, ping, processor and memory, as flat figures."""

import json
import os
import re
import subprocess
import time

from .bed import SPACES, Failure, inside, until

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LOSS = 0.001  # a rate with less loss than this is "loss-free"
PROBES, PROBE = 5, 0.4  # how many, seconds


def clocks():
    """Seconds since boot in which cores did something, and in which another guest had them."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, hard, soft, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + hard + soft) / TICKS, steal / TICKS


def others():
    """Core seconds of all processes that do not belong to this run, and of their children that have ended."""
    own = {os.stat(f"/run/netns/{space}").st_ino for space in SPACES}
    total = 0
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            space = os.stat(f"/proc/{process}/ns/net").st_ino
            with open(f"/proc/{process}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it has just ended
        if space not in own and int(process) != os.getpid():
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def resident(process):
    """MiB of memory a process has."""
    with open(f"/proc/{process.pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE / (1 << 20)


class Visit:
    """The measurements of a peer whose tunnel is up in `bed`."""

    def __init__(self, bed, peer, options):
        self.bed, self.peer, self.seconds = bed, peer, options.seconds
        self.blaster = peer.blaster
        self.figures = {}
        self.bits, self.busy = 0.0, 0.0

    def measure(self):
        """All figures: Gbit/s, packets per second, microseconds, MiB."""
        self.bed.spawn(1, "iperf3", "-s", name="iperf3.log")
        until("iperf3 listens", lambda: ":5201" in self.bed.run(1, "ss", "-ltn"), 5)
        begun, stolen, elsewhere = time.monotonic(), clocks()[1], others()
        self.figures["rss_before"] = self.memory()
        self.ping("idle", self.start_ping(1.0))
        for streams in (1, 4):
            self.figures[f"tcp{streams}"] = self.tcp("-P", str(streams))
            self.figures[f"tcp{streams}_back"] = self.tcp("-P", str(streams), "-R")
        asked = self.start_ping(self.seconds - 0.2)
        self.figures["both"] = self.tcp("--bidir")
        self.ping("load", asked)
        self.figures["per_core"] = self.bits / max(self.busy, 0.01)
        self.figures["rss_flood"] = self.memory()
        self.loss_free()
        self.small()
        self.figures["rss_after"] = self.memory()
        took = time.monotonic() - begun
        self.figures["stolen"] = 100 * (clocks()[1] - stolen) / took
        self.figures["others"] = 100 * (others() - elsewhere) / took
        return self.figures

    def memory(self):
        """Of the larger of the two daemons."""
        return max((resident(process) for process in self.peer.daemons), default=0.0)

    def start_ping(self, seconds):
        command = ("ping", "-i", "0.002", "-c", str(int(seconds / 0.002)), "-w", "10", self.peer.target)
        return subprocess.Popen(inside(0, *command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def ping(self, when, process):
        try:
            said = process.communicate(timeout=20)[0]
        finally:
            process.kill()
        times = sorted(float(found) for found in re.findall(r"time=([\d.]+)", said))
        if not times:
            raise Failure("no ping was answered")
        self.figures[f"ping_{when}_p50"] = 1000 * times[len(times) // 2]
        self.figures[f"ping_{when}_p99"] = 1000 * times[len(times) * 99 // 100]

    def tcp(self, *how):
        """Gbit/s that have arrived, both ways together."""
        for _ in range(5):
            busy = clocks()[0] - others()
            said = self.bed.run(0, "iperf3", "-J", "-c", self.peer.target, "-t", str(self.seconds), *how, check=False,
                                timeout=self.seconds + 30)
            busy = clocks()[0] - others() - busy
            if '"error"' not in said:
                break
            time.sleep(0.3)  # the server is not done with the last run yet
        try:
            end = json.loads(said)["end"]
            bits = sum(end[name]["bytes"] * 8 for name in end if name.startswith("sum_received"))
            seconds = end["sum_received"]["seconds"]
        except (ValueError, KeyError) as error:
            raise Failure(f"iperf3: {' '.join(said.split())[-200:]}") from error
        self.bits += bits / 1e9
        self.busy += busy
        return bits / 1e9 / seconds

    def blast(self, length, rate, seconds):
        """Sends UDP of `length` octets at a rate: datagrams per second sent, arrived, and the part that was lost."""
        to = (self.peer.target, "7777")
        counter = subprocess.Popen(inside(1, self.blaster, "count", *to), stdout=subprocess.PIPE, text=True)
        try:
            counter.stdout.readline()
            sent = json.loads(self.bed.run(0, self.blaster, "send", *to, str(length), str(rate), str(seconds)))
            got = json.loads(counter.communicate(timeout=30)[0])
        finally:
            counter.kill()
            counter.wait()
        lost = 1 - got["datagrams"] / max(1, sent["datagrams"])
        # A queue that took long to drain hides that the rate was too high.
        if got["seconds"] > 1.05 * sent["seconds"] + 0.1:
            lost = max(lost, 1 - sent["seconds"] / got["seconds"])
        return sent["datagrams"] / sent["seconds"], got["datagrams"] / max(sent["seconds"], got["seconds"]), lost

    def loss_free(self):
        """The highest rate of 1400 octets without loss, by halving the range between 0 and all there is."""
        sent, got, lost = self.blast(1400, 0, PROBE)
        low, high = (got, sent) if lost <= LOSS else (0.0, min(sent, 2 * got + 10000))
        for _ in range(PROBES if lost > LOSS else 0):
            middle = (low + high) / 2
            for _ in range(2):  # what another guest of the machine has spoiled gets a second chance
                offered, got, lost = self.blast(1400, int(middle), PROBE)
                if lost <= LOSS and offered > 0.95 * middle:
                    low = got
                    break
            else:
                high = middle
        self.figures["udp"] = low * 1400 * 8 / 1e9

    def small(self):
        """Packets of 64 octets that arrive of a flood, in thousands per second."""
        self.figures["small"] = self.blast(64, 0, max(1.0, self.seconds / 2))[1] / 1e3
