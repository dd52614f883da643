"""Hosts in a VM: namespaces instead of containers, with what `docker` has under the same names.

A host has the root that its image names (a read-only one with a layer of its own on top), its own network, processes
and mounts, and one end of a cable to the network's bridge. Only the VM's first namespace sees the bridge: what is
captured there was really on the wire, before and after any ESP of the hosts' kernels.
"""

import os
import subprocess

from .wait import PATIENCE, Failure, until

ROOTS = "/roots"  # SUITE: the image `.../NAME:SUITE`
_hosts = {}  # slot -> hosts
_networks = {}  # slot -> network

MAKE_ROOT = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/new /mnt/work /mnt/root
mount -t overlay -o lowerdir={lower},upperdir=/mnt/new,workdir=/mnt/work root /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --bind {share} lab
{mounts}
hostname {name}
ip link set lo up
exec chroot . tini -- sleep infinity
"""


def run(*args, check=True, timeout=60):
    """Runs a command of the VM and returns its standard output, stripped."""
    done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=timeout * PATIENCE,
                          stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def remove_leftovers(slot):
    """Removes the hosts and the network of `slot`."""
    for host in _hosts.pop(slot, []):
        host.remove()
    network = _networks.pop(slot, None)
    if network:
        network.remove()


class Network:
    """A dual-stack bridge in the VM's first namespace."""

    def __init__(self, slot):
        self.slot = slot
        self.name = f"lab{slot}"
        self.v4 = f"172.29.{100 + slot}"
        self.v6 = f"fd29:{slot + 100}:"
        self.gateway = f"{self.v4}.1"
        self.captures = []
        run("ip", "link", "add", self.name, "type", "bridge", "mcast_snooping", "0")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.name)
        run("ip", "addr", "add", f"{self.v6}:1/64", "dev", self.name, "nodad")
        run("ip", "link", "set", self.name, "up")
        _networks[slot] = self

    def capture(self, host):
        """Begins to write what is on the bridge to wire.pcap of the host's share."""
        with open(os.path.join(host.share, "tcpdump.out"), "w") as said:
            self.captures.append(subprocess.Popen(
                ["tcpdump", "-Z", "root", "-i", self.name, "-s", "0", "-U", "--immediate-mode",
                 "-w", os.path.join(host.share, "wire.pcap")], stdout=said, stderr=said,
            ))

    def remove(self):
        for tcpdump in self.captures:
            tcpdump.terminate()
            tcpdump.wait()
        run("ip", "link", "del", self.name, check=False)


class Container:
    """A host that sleeps; daemons are started in it by `spawn`. `share` of the VM is /lab inside."""

    def __init__(self, image, network, name, v4, v6, share, mounts=(), sysctls=()):
        self.name = f"{network.name}-{name}"
        self.share = share
        lines = [f"touch .{target} && mount --bind {source} .{target}" for source, target in mounts]
        self.unshare = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c",
             MAKE_ROOT.format(lower=f"{ROOTS}/{image.split(':')[-1]}", share=share, name=name, mounts="\n".join(lines))],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        _hosts.setdefault(network.slot, []).append(self)
        self.pid = until(f"{self.name} is there", self._first_process, 20)
        self.cable = f"{network.name}{name}"[:15]
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        run("ip", "link", "set", self.cable, "master", network.name, "up")
        settings = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0")
        self.sh("\n".join([
            "set -e",
            f"sysctl -q -w {' '.join((*settings, *sysctls))}",
            f"ip addr add {v4}/24 dev eth0",
            f"ip addr add {v6}/64 dev eth0 nodad",
            "ip link set eth0 up",
            f"ip route add default via {network.gateway}",
        ]))

    def _first_process(self):
        """The number of tini, by which the namespaces are entered."""
        if self.unshare.poll() is not None:
            raise Failure(f"cannot make {self.name}: {self.unshare.stderr.read().strip()}")
        with open(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children") as file:
            pid = file.read().strip()
        if not pid:
            return None
        with open(f"/proc/{pid}/comm") as file:
            return pid if file.read().strip() == "tini" else None

    def _inside(self, script):
        return ["nsenter", "--target", self.pid, "--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wdns=/",
                "sh", "-c", script]

    def sh(self, script, check=True, timeout=60):
        """Runs a shell script in the host and returns its output."""
        return run(*self._inside(script), check=check, timeout=timeout)

    def ok(self, script, timeout=60):
        """Whether a shell script succeeds in the host."""
        done = subprocess.run(self._inside(script), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=timeout * PATIENCE)
        return done.returncode == 0

    def spawn(self, script):
        """Starts a shell script in the background of the host."""
        # A child of the host's first process, not of ours: nobody waits for it here.
        self.sh(f"setsid sh -c {_quoted(script)} >/dev/null 2>&1 </dev/null &")

    def popen(self, script):
        """Starts a shell script whose output is wanted later."""
        return subprocess.Popen(self._inside(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def link(self, state):
        """Sets the VM's end of the host's cable `up` or `down`, as if it were pulled."""
        run("ip", "link", "set", self.cable, state)

    def remove(self):
        """Ends all processes of the host; its network and its files go with the last one."""
        self.unshare.kill()
        self.unshare.communicate()


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"
