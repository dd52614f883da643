"""Containers and networks, by the docker command."""

import os
import subprocess

from .wait import Failure

PREFIX = "obol-interop"


def docker(*args, check=True, timeout=60):
    """Runs docker with `args` and returns its standard output, stripped."""
    done = subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise Failure(f"docker {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def remove_leftovers(slot):
    """Removes what an interrupted run may have left in `slot`."""
    label = f"label={PREFIX}={slot}"
    containers = docker("ps", "-aq", "--filter", label).split()
    if containers:
        docker("rm", "-f", *containers, check=False)
    networks = docker("network", "ls", "-q", "--filter", label).split()
    if networks:
        docker("network", "rm", *networks, check=False)


class Network:
    """A dual-stack bridge. Its addresses depend on the slot, so that scenarios can run side by
    side.

    Not `--internal`: docker would drop what comes from addresses outside the bridge's subnet,
    and so hide a packet that leaves in clear. Without masquerading nothing finds a way back in.
    """

    def __init__(self, slot):
        self.slot = slot
        self.name = f"{PREFIX}-{slot}"
        self.v4 = f"172.29.{100 + slot}"
        self.v6 = f"fd29:{slot + 100}:"
        self.gateway = f"{self.v4}.1"
        docker(
            "network", "create", "--label", f"{PREFIX}={slot}",
            "-o", "com.docker.network.bridge.enable_ip_masquerade=false",
            "--subnet", f"{self.v4}.0/24", "--gateway", self.gateway,
            "--ipv6", "--subnet", f"{self.v6}:/64", "--gateway", f"{self.v6}:1",
            self.name,
        )

    def capture(self, container):
        """Begins to write what is on the container's link to wire.pcap of its share."""
        container.spawn(
            "exec tcpdump -Z root -i eth0 -s 0 -U --immediate-mode -w /lab/wire.pcap >/lab/tcpdump.out 2>&1"
        )

    def remove(self):
        docker("network", "rm", self.name, check=False)


class Container:
    """A container that sleeps; daemons are started in it by `spawn`.

    `share` on the host is /lab inside.
    """

    def __init__(self, image, network, name, v4, v6, share, mounts=(), sysctls=()):
        self.name = f"{network.name}-{name}"
        self.share = share
        args = [
            "run", "-d", "--init", "--name", self.name, "--hostname", name,
            "--label", f"{PREFIX}={network.slot}",
            "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--device", "/dev/net/tun",
            "--sysctl", "net.ipv6.conf.all.disable_ipv6=0",
            "--sysctl", "net.ipv6.conf.default.accept_dad=0",
            "--sysctl", "net.ipv6.conf.all.accept_dad=0",
            "--network", network.name, "--ip", v4, "--ip6", v6,
            "-v", f"{share}:/lab",
        ]
        for setting in sysctls:
            args += ["--sysctl", setting]
        for source, target in mounts:
            args += ["-v", f"{source}:{target}:ro"]
        docker(*args, image, "sleep", "infinity")

    def sh(self, script, check=True, timeout=60):
        """Runs a shell script in the container and returns its output."""
        return docker("exec", self.name, "sh", "-c", script, check=check, timeout=timeout)

    def ok(self, script, timeout=60):
        """Whether a shell script succeeds in the container."""
        done = subprocess.run(
            ["docker", "exec", self.name, "sh", "-c", script],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout,
        )
        return done.returncode == 0

    def spawn(self, script):
        """Starts a shell script in the background of the container."""
        docker("exec", "-d", self.name, "sh", "-c", script)

    def popen(self, script):
        """Starts a shell script whose output is wanted later."""
        return subprocess.Popen(
            ["docker", "exec", self.name, "sh", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )

    def link(self, state):
        """Sets the host's end of the container's link `up` or `down`, as if a cable were pulled."""
        index = self.sh("cat /sys/class/net/eth0/iflink")
        for name in os.listdir("/sys/class/net"):
            with open(f"/sys/class/net/{name}/ifindex") as file:
                if file.read().strip() == index:
                    subprocess.run(["ip", "link", "set", name, state], check=True)
                    return
        raise Failure(f"no interface of this host has the index {index}")

    def remove(self):
        docker("rm", "-f", self.name, check=False)
