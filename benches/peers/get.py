"""The programs of the comparison: from the system, from its package mirror, from crates, or compiled here."""

import json
import os
import shutil
import subprocess

from .bed import Failure, run

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOLS = {"ip": "iproute2", "ping": "iputils-ping", "iperf3": "iperf3", "ethtool": "ethtool", "gcc": "gcc",
         "sysctl": "procps", "nsenter": "util-linux"}
IN_TRIXIE = "charon-systemd,strongswan-swanctl,libcharon-extra-plugins,libstrongswan-extra-plugins," \
            "libstrongswan-standard-plugins,wireguard-go"


def tool(command, package):
    """The path of a command, whose package is installed unless it is there."""
    found = shutil.which(command)
    if not found:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        install = ("apt-get", "-qq", "-y", "--no-install-recommends", "install", package)
        run("apt-get", "-qq", "update", check=False, timeout=300)
        run(*install, env=os.environ | quiet, timeout=600)
        found = shutil.which(command)
    if not found:
        raise Failure(f"{package} has no {command}")
    return found


def tools():
    """What every measurement needs."""
    for command, package in TOOLS.items():
        tool(command, package)
    if not os.path.exists("/usr/include/netinet/udp.h"):
        run("apt-get", "-qq", "-y", "--no-install-recommends", "install", "libc6-dev", timeout=600)


def compiled(cache, name):
    """A C program of this folder."""
    out = os.path.join(cache, name)
    run("gcc", "-O3", "-Wall", "-o", out, os.path.join(HERE, f"{name}.c"), "-lpthread")
    return out


def crate(cache, command, wanted):
    """A program that cargo installs."""
    path = os.path.join(cache, "bin", command)
    if not os.path.exists(path):
        run("cargo", "install", "--quiet", "--locked", "--root", cache, wanted, timeout=1800)
    return path


def trixie(cache):
    """A tree of Debian 13 with strongSwan 6 and wireguard-go 20231211, from the mirror that apt here is set up with."""
    tree, done = os.path.join(cache, "trixie"), os.path.join(cache, "trixie.done")
    if not os.path.exists(done):
        debootstrap = tool("debootstrap", "debootstrap")
        shutil.rmtree(tree, ignore_errors=True)
        run(debootstrap, "--variant=minbase", f"--include={IN_TRIXIE}", "trixie", tree, *mirror(), timeout=1800)
        with open(done, "w"):
            pass
    return tree


def mirror():
    """The mirror of this system's own main archive, if apt names one; else debootstrap knows it."""
    said = run("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", check=False)
    for line in said.splitlines():
        label, uri, *_ = [*line.split(), "", ""]
        if label == "Debian" and uri.rstrip("/").endswith("/debian"):
            return (uri,)
    return ()


def obol(options):
    """The release build of obol."""
    if options.obol:
        return os.path.abspath(options.obol)
    try:
        subprocess.run(["cargo", "build", "--quiet", "--release", "--locked", "-p", "obol"], cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"cargo: {error}") from error
    said = run("cargo", "metadata", "--no-deps", "--format-version", "1", cwd=ROOT)
    return os.path.join(json.loads(said[said.index("{"):])["target_directory"], "release", "obol")
