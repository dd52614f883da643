"""The peers: how each gets its programs, and how it makes a tunnel between the two ends of a bed."""

import contextlib
import os
import re
import time

from . import get
from .bed import ENDS, INNER, MTU, OUTER, Failure, run, until


class Peer:
    """One way from end to end. `start` fills `daemons` with its two processes, if it has some."""

    target = INNER[1]
    rival = True  # one that obol is to be compared with

    def __init__(self, options):
        self.options = options
        self.daemons = []

    def version(self):
        """What it is, as it says itself; raises `Failure` where it cannot be had."""
        return self.note

    def start(self, bed):
        """Brings the tunnel up, except for waiting until it carries something."""


class Veth(Peer):
    name, label, rival = "veth", "veth, no tunnel", False
    note = "both ends in clear, no tunnel"
    target = OUTER[1]


class Forwarder(Peer):
    name, label, rival = "forward", "forwarder without crypto", False
    note = "benches/peers/forward.c: TUN and UDP with all offload, packets cut, checked and joined, no cipher"

    def version(self):
        self.program = get.compiled(self.options.cache, "forward")
        return self.note

    def start(self, bed):
        for end in ENDS:
            self.daemons.append(bed.spawn(end, self.program, "cmptun", OUTER[end], OUTER[1 - end], "4500",
                                          name=f"forward{end}.log"))
        for end in ENDS:
            until("a TUN device", lambda end=end: "cmptun" in bed.run(end, "ip", "-o", "link"), 5)
            bed.address(end, "cmptun")


OBOL = """[connections.bench]
local_addrs = ["{own}"]
remote_addrs = ["{peer}"]
encap = {encap}
local = {{ auth = "psk", id = "@end{end}.bench.example" }}
remote = {{ auth = "psk", id = "@end{far}.bench.example" }}
[connections.bench.children.net]
local_ts = ["{inner}/32"]
remote_ts = ["{far_inner}/32"]
esp_proposals = ["aes128gcm16"]
start_action = "{action}"
[secrets.bench]
type = "psk"
secret = "a secret that only this bench knows"
"""


class Obol(Peer):
    rival, encap = False, "true"
    name, label, note = "obol-udp", "**obol**, ESP in UDP", "AES-128-GCM, encap = true"

    def version(self):
        self.program = get.obol(self.options)
        return f"{run(self.program, '--version').strip()}, {self.note}"

    def start(self, bed):
        for end in reversed(ENDS):
            bed.run(end, "ip", "addr", "add", f"{INNER[end]}/32", "dev", "lo")
            config = bed.write(f"obol{end}.toml", OBOL.format(
                own=OUTER[end], peer=OUTER[1 - end], end=end, far=1 - end, inner=INNER[end], far_inner=INNER[1 - end],
                encap=self.encap, action="none" if end else "start"))
            log = f"obol{end}.log"
            self.daemons.insert(0, bed.spawn(end, self.program, "--runtime-dir", bed.path(f"run{end}"), "run",
                                             "--config", config, name=log))
            until("obol is ready", lambda log=log: "ready" in bed.read(log), 10)
        for end in ENDS:
            bed.run(end, "ip", "link", "set", "obol0", "mtu", str(MTU))


class ObolPlain(Obol):
    name, label, encap, note = "obol-esp", "**obol**, plain ESP", "false", "AES-128-GCM, IP protocol 50"


class WireGuard(Peer):
    """A WireGuard in user space, which the tool `wg` sets up."""

    arguments = ("-f", "--disable-drop-privileges")

    def start(self, bed):
        devices = ("cmpwg0", "cmpwg1")
        sockets = [f"/var/run/wireguard/{device}.sock" for device in devices]
        for path in sockets:  # of a run that was killed
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        secrets = [run("wg", "genkey").strip() for _ in ENDS]
        public = [run("wg", "pubkey", input=secret).strip() for secret in secrets]
        quiet = {"LOG_LEVEL": "error", "WG_LOG_LEVEL": "error", "RUST_LOG": "error", "WG_PROCESS_FOREGROUND": "1"}
        for end in ENDS:
            self.daemons.append(bed.spawn(end, self.program, *self.arguments, devices[end],
                                          name=f"wg{end}.log", environment=quiet))
        for end in ENDS:
            until(f"{self.name} listens", lambda end=end: os.path.exists(sockets[end]), 5)
            time.sleep(0.2)  # the socket is there a little before it answers
            key = bed.write(f"wg{end}.key", secrets[end])
            bed.run(end, "wg", "set", devices[end], "private-key", key, "listen-port", "51820", "peer", public[1 - end],
                    "endpoint", f"{OUTER[1 - end]}:51820", "allowed-ips", f"{INNER[1 - end]}/32")
            bed.address(end, devices[end])


class WireGuardGo(WireGuard):
    name, label = "wireguard-go", "wireguard-go 20231211"
    arguments = ("-f",)

    def version(self):
        get.tool("wg", "wireguard-tools")
        tree = get.trixie(self.options.cache)
        self.program = os.path.join(tree, "usr/bin/wireguard-go")
        said = run("chroot", tree, "dpkg-query", "-W", "-f", "${Version}", "wireguard-go")
        return f"wireguard-go {said}, ChaCha20-Poly1305"


class Gotatun(WireGuard):
    name, label, crate = "gotatun", "gotatun 0.10.2", "gotatun-cli@0.10.2"

    def version(self):
        get.tool("wg", "wireguard-tools")
        self.program = get.crate(self.options.cache, self.name, self.crate)
        return f"{run(self.program, '--version').strip()}, ChaCha20-Poly1305"


class BoringTun(Gotatun):
    name, label, crate = "boringtun-cli", "boringtun-cli 0.7.1", "boringtun-cli@0.7.1"


class OpenVpn(Peer):
    name, label = "openvpn", "OpenVPN 2.6, no DCO"

    def version(self):
        self.program = get.tool("openvpn", "openvpn")
        get.tool("openssl", "openssl")
        said = run(self.program, "--version", check=False).split()
        if said[1:] and not said[1].startswith("2.6"):
            raise Failure(f"OpenVPN {said[1]} is not 2.6")
        return f"{' '.join(said[:2])}, AES-128-GCM, --disable-dco"

    def start(self, bed):
        pins = []
        for end in ENDS:
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", f"/CN=end{end}",
                "-keyout", bed.path(f"{end}.key"), "-out", bed.path(f"{end}.crt"))
            said = run("openssl", "x509", "-in", bed.path(f"{end}.crt"), "-noout", "-fingerprint", "-sha256")
            pins.append(re.search("=(.*)", said).group(1))
        for end in ENDS:
            self.daemons.append(bed.spawn(
                end, self.program, "--dev", "cmpovpn", "--dev-type", "tun", "--topology", "p2p", "--proto", "udp",
                "--local", OUTER[end], "--remote", OUTER[1 - end], "1194", "--port", "1194",
                "--ifconfig", INNER[end], INNER[1 - end], "--tls-server" if end else "--tls-client", "--dh", "none",
                "--cert", bed.path(f"{end}.crt"), "--key", bed.path(f"{end}.key"), "--peer-fingerprint", pins[1 - end],
                "--data-ciphers", "AES-128-GCM", "--tun-mtu", str(MTU), "--mssfix", "0", "--txqueuelen", "1000",
                "--disable-dco", name=f"openvpn{end}.log"))
