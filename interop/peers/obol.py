"""obol: the binary under test, in a container beside nothing else."""

import json
import os
import shutil

from lab.plan import CHILD, CONNECTION, ChildSa, IkeSa, spi
from lab.wait import Failure, until

from .base import Peer
from .libreswan import rsasigkey

# Where the files of pluto are, for those scenarios that have them.
FILES = "--ipsec-conf /lab/etc/ipsec.conf --ipsec-secrets /lab/etc/ipsec.secrets --nssdir /lab/etc/nss"
OBOL = "obol --runtime-dir /lab/run"
IPSEC = "OBOL_RUNTIME_DIR=/lab/run obol ipsec"


class Obol(Peer):
    """`obol run` with a configuration file, controlled by the `obol` command."""

    kind = "obol"
    autopsy = f"{OBOL} status; {Peer.autopsy}"

    def start(self):
        self._configure()
        self.launch()

    def launch(self):
        """Starts the daemon with the configuration that is there."""
        more = FILES if "pluto" in self.settings.extra else ""
        self.container.spawn(f"exec {OBOL} run --config /lab/etc/obol.toml {more} >>/lab/obol.log 2>&1")
        until("obol answers", self._answers, 20)

    def _answers(self):
        if self.container.ok(f"{OBOL} status --json"):
            return True
        if not self.running("obol"):
            raise Failure(f"obol does not run; its log ends with: {self.log()[-600:]}")
        return False

    def _configure(self):
        if "pluto" in self.settings.extra:
            self._configure_as_pluto(self.settings.extra["pluto"])
            return
        s, me, peer = self.settings, self.end, self.other
        local, remote = {"auth": _auth(s.auth)}, {"auth": _auth(s.peer_auth)}
        secrets = []
        if "psk" in (s.auth, s.peer_auth):
            ids = [me.identity, self.remote_identity]
            secrets.append(_table("secrets.shared", {"type": "psk", "ids": ids, "secret": s.secret}))
        if s.auth != "psk":
            self._install(self.keys(s.auth, me.name)[0], "own.pem")
            secrets.append(_table("secrets.own", {"type": "private-key", "file": "own.pem"}))
        if s.peer_auth != "psk":
            self._install(self.keys(s.peer_auth, peer.name)[1], "peer.pem")
            remote["pubkeys"] = ["peer.pem"]
        connection = {
            "local_addrs": [me.outer],
            "remote_addrs": ["%any" if s.any_remote else self.remote_address],
            "proposals": s.ike_proposals or None,
            "encap": True if s.encap else None,
            "rekey_time": f"{s.ike_rekey_seconds}s" if s.ike_rekey_seconds else None,
            "dpd_delay": f"{s.dpd_seconds}s" if s.dpd_seconds else None,
            # Rekeyed this often, it must still be allowed to grow older than a lost request.
            "over_time": "1m" if s.ike_rekey_seconds else None,
            "local": {**local, "id": me.identity},
            "remote": {**remote, "id": self.remote_identity, **s.extra.get("obol remote", {})},
            **s.extra.get("obol connection", {}),
        }
        children = {
            f"connections.{CONNECTION}.children.{name}": {
                "local_ts": ours,
                "remote_ts": theirs,
                "mode": s.mode or s.extra.get("host to host"),
                "start_action": s.start,
                "esp_proposals": s.esp_proposals or None,
                "rekey_time": f"{s.child_rekey_seconds}s" if s.child_rekey_seconds else None,
                "rekey_packets": s.child_rekey_packets,
                **s.extra.get("obol child", {}),
            }
            for name, (ours, theirs) in self.children().items()
        }
        daemon = {"cookie_threshold": 0 if s.cookies else None}
        if self.plane:
            daemon["dataplane"] = self.plane
        daemon.update(s.extra.get("obol", {}))
        self.write("etc/obol.toml", "\n".join([
            _table("daemon", daemon),
            s.extra.get("obol toml", ""),
            _table(f"connections.{CONNECTION}", connection),
            *(_table(name, child) for name, child in children.items()),
            *secrets,
        ]))

    def _configure_as_pluto(self, conns):
        """Conns for moon and sun with their public keys, and the private one where `ipsec newhostkey` leaves it."""
        s, ends = self.settings, {end.name: end for end in (self.end, self.other)}
        keys = {name: rsasigkey(self.keys("rsa", name)[1]) for name in ends}
        auto = {"none": "add", "trap": "route", "start": "start"}[s.start]
        self.write("etc/obol.toml", _table("daemon", {"dataplane": self.plane} if self.plane else {}))
        self.write("etc/ipsec.conf", "config setup\n" + conns.format(**ends, keys=keys, auto=auto))
        self.write("etc/ipsec.secrets", "")
        os.makedirs(os.path.join(self.share, "etc", "nss", "obol-keys"), mode=0o700, exist_ok=True)
        self._install(self.keys("rsa", self.end.name)[0], "nss/obol-keys/own.pem")

    def _install(self, source, name):
        os.makedirs(os.path.join(self.share, "etc"), exist_ok=True)
        shutil.copy(source, os.path.join(self.share, "etc", name))

    def stop(self):
        self.container.ok("pkill -TERM -x obol")
        until("obol is gone", lambda: not self.running("obol"), 15)

    def kill(self):
        """Ends the daemon with SIGKILL, so that it cannot clean up."""
        self.container.sh("pkill -KILL -x obol")
        until("obol is gone", lambda: not self.running("obol"), 5)

    def purge(self):
        """Lifts the protection that a dead daemon left."""
        self.container.sh(f"{OBOL} purge --config /lab/etc/obol.toml")

    def reload(self):
        """Writes the configuration anew and makes the daemon read it."""
        self._configure()
        return self.container.sh(f"{OBOL} reload")

    def version(self):
        return self.container.sh("obol --version")

    def _orders(self, verb):
        """The commands that do this to the connection: pluto's conns have names of their own, and its commands."""
        if "pluto" not in self.settings.extra:
            return [f"{OBOL} {verb} {CONNECTION} 2>&1"]
        return [f"{IPSEC} {verb} {name} 2>&1" for name in self.children()]

    def initiate(self):
        try:
            return True, self.container.sh("set -e; " + "; ".join(self._orders("up")), timeout=60)
        except Failure as failure:
            return False, str(failure)

    def initiate_child(self, name):
        """Brings one child up, without waiting for it."""
        self.container.spawn(f"{OBOL} up {CONNECTION}/{name}")

    def terminate(self):
        try:
            for order in self._orders("down"):
                self.container.sh(order)
        except Failure as failure:  # in the VM some peers take longer than `down` waits
            if "goes on trying" not in str(failure):
                raise

    def begin_to_terminate(self, child=False):
        """Closes the connection, or the child alone, without waiting for the peer."""
        self.container.spawn(f"{OBOL} down {CONNECTION}{f'/{CHILD}' if child else ''}")

    def terminate_child(self):
        """Closes the child alone."""
        self.container.sh(f"{OBOL} down {CONNECTION}/{CHILD}")

    @staticmethod
    def prepare_rekey(settings, kind):
        if kind == "ike":
            settings.ike_rekey_seconds = 4
        else:
            settings.child_rekey_packets = 300

    def rekey(self, kind):
        if kind == "child":
            own, far = self.end.hosts[0], self.other.hosts[0]
            self.container.ok(f"ping -q -c 310 -i 0.005 -W 1 -I {own} {far}")

    def status(self):
        """`obol status --json`, decoded."""
        return json.loads(self.container.sh(f"{OBOL} status --json"))

    def drops(self):
        """Packets dropped, by reason."""
        return self.status()["drops"]

    def sas(self):
        found = self.status()["ike_sas"]
        return [self._ike(sa) for sa in found if sa["remote"]["addr"] != self.probe]

    @staticmethod
    def _ike(sa):
        return IkeSa(
            established=sa["state"] == "established",
            spi_i=spi(sa["spi_i"]),
            spi_r=spi(sa["spi_r"]),
            suite=_suite(sa.get("algorithms") or {}),
            children=[Obol._child(child) for child in sa["children"]],
        )

    @staticmethod
    def _child(child):
        return ChildSa(
            name=child["name"],
            installed=child["state"] == "installed",
            spi_in=spi(child["spi_in"]),
            spi_out=spi(child["spi_out"]),
            packets_in=child["packets_in"],
            packets_out=child["packets_out"],
            encap=child["encapsulation"] == "udp",
            suite=_suite(child),
        )


class UserspaceObol(Obol):
    """obol with its own ESP, in the VM."""

    plane = "userspace"
    lab = "vm"


class KernelObol(Obol):
    """obol with the kernel's ESP."""

    plane = "kernel"
    lab = "vm"


def _auth(kind):
    return "psk" if kind == "psk" else "pubkey"


def _suite(values):
    names = ("encr", "integ", "prf", "ke")
    return "/".join(str(values[name]) for name in names if values.get(name))


def _table(name, values):
    """A TOML table; JSON's strings, numbers, booleans and lists are TOML's too."""
    lines = [f"[{name}]"]
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        elif value is not None:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"
