"""OpenIKED: iked with a PF_KEY socket that takes every SA and encrypts nothing (stub/pfkey.c)."""

import os
import re
import shutil

from lab.plan import ChildSa, IkeSa, spi
from lab.wait import Failure, until

from .base import Peer

POLICY = """{globals}
ikev2 "net" {mode} {tmode} esp {flows} \\
  local {local} peer {remote} \\
  {ike} {esp} \\
  srcid {local_id} dstid {remote_id} \\
  {lifetimes} \\
  {auth}
"""

IKED = "LD_PRELOAD=/lab/pfkey.so exec iked -dvv"


class OpenIked(Peer):
    """iked, controlled by ikectl. It has no data plane: scenarios compare SAs and look at the wire."""

    kind = "openiked"
    image = "obol-interop/openiked:trixie"

    def start(self):
        shutil.copy("/run/obol-interop-pfkey.so", os.path.join(self.share, "pfkey.so"))
        self.started = False
        if self.settings.start == "none":
            self._launch("passive")

    def launch(self):
        """Starts the daemon; it begins by itself if it began before."""
        self._launch(self.mode)

    def _launch(self, mode):
        self.mode = mode
        self._configure(mode)
        self.container.sh(
            "mkdir -p /etc/iked/private /etc/iked/pubkeys/fqdn && cp /lab/iked.conf /etc/iked.conf"
            " && chmod 600 /etc/iked.conf && if [ -d /lab/keys ]; then cp -r /lab/keys/. /etc/iked/; fi"
        )
        self.container.spawn(f"{IKED} >>/lab/openiked.log 2>&1")
        until("iked answers", lambda: self.container.ok("ikectl show sa"), 20)
        until("iked has its policy", lambda: "loaded 1 configuration rules" in self.log(), 10)

    def _configure(self, mode):
        s, me, peer = self.settings, self.end, self.other
        if s.auth != "psk":
            self._install(self.keys(s.auth, me.name)[0], "private/local.key")
            self._install(self.keys(s.peer_auth, peer.name)[1], f"pubkeys/fqdn/{peer.identity}")
        flows = [f"from {a} to {b}" for ours, theirs in self.children().values() for a, b in zip(ours, theirs)]
        lifetimes = []
        if s.ike_rekey_seconds:
            lifetimes.append(f"ikelifetime {s.ike_rekey_seconds}")
        if s.child_rekey_seconds:
            lifetimes.append(f"lifetime {s.child_rekey_seconds}")
        self.write("iked.conf", POLICY.format(
            globals=s.extra.get("iked", ""), mode=mode, tmode=s.extra.get("iked mode", "tunnel"),
            flows=" ".join(flows), local=me.outer, remote="any" if s.any_remote else peer.outer,
            ike=s.extra.get("ikesa", ""), esp=s.extra.get("childsa", ""),
            local_id=me.identity, remote_id=self.remote_identity, lifetimes=" ".join(lifetimes),
            auth=f'psk "{s.secret}"' if s.auth == "psk" else "rfc7427",
        ))

    def _install(self, source, name):
        target = os.path.join(self.share, "keys", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(source, target)
        os.chmod(target, 0o644)

    def stop(self):
        self.container.ok("pkill -TERM -x iked")
        until("iked is gone", lambda: not self.running("iked"), 15)

    def kill(self):
        """Ends the daemon with SIGKILL, so that it cannot tell anybody."""
        self.container.sh("pkill -KILL -x iked")
        until("iked is gone", lambda: not self.running("iked"), 5)

    def version(self):
        package = self.container.sh("dpkg-query -W -f '${Version}' openiked")
        return f"OpenIKED {package.split('-')[0]}"

    def initiate(self):
        """iked begins what its policy says as soon as it runs."""
        if self.running("iked"):
            self.stop()
        self._launch("active")
        try:
            return until("iked has an SA with a child", lambda: any(sa.established and sa.children for sa in self.sas()), 15), ""
        except Failure as failure:
            return False, str(failure)

    def terminate(self):
        self.container.sh(f"ikectl reset id {self.settings.extra.get('iked id type', 'FQDN')}/{self.other.identity}")

    def sas(self):
        found, at = [], None
        for line in self.container.sh("ikectl show sa").splitlines():
            if line.startswith("iked_sas:"):
                at = self._ike(line)
                found.append(at)
            elif at and line.lstrip().startswith("sa_childsas:"):
                self._child(at, line)
        for sa in found:
            sa.children = [c for c in sa.children if c.spi_in != "0" and c.spi_out != "0"]
        return found

    @staticmethod
    def _ike(line):
        spis = re.search(r"rspi 0x(\w+) ispi 0x(\w+)", line)
        if not spis:
            raise Failure(f"ikectl said: {line}")
        return IkeSa("ESTABLISHED" in line, spi(spis[2]), spi(spis[1]), "", [])

    def _child(self, sa, line):
        """iked lists the two directions one by one, each with a pointer to its partner."""
        own, value, way, partner, loaded = re.search(
            r"(0x\w+|\(nil\)) ESP 0x(\w+) (in|out) .*\((\w*)\) B=.* P=(0x\w+|\(nil\))", line
        ).group(1, 2, 3, 5, 4)
        known = next((c for c in sa.children if c.suite in (own, partner)), None)
        if known is None:
            name = next(iter(self.children()))
            known = ChildSa(name, "L" in loaded, "0", "0", 0, 0, False, own)
            sa.children.append(known)
        if way == "in":
            known.spi_in = spi(value)
        else:
            known.spi_out = spi(value)
