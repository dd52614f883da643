"""strongSwan: charon-systemd with ESP in user space (kernel-libipsec), in the VM in the kernel."""

import os
import shutil

from lab.plan import CHILD, CONNECTION, ChildSa, IkeSa, spi
from lab.vici import Vici
from lab.wait import Failure, until

from .base import Peer

# Only what the scenarios need.
PLUGINS = (
    "random nonce aes aesni gcm sha1 sha2 hmac kdf mgf1 pem pkcs1 pkcs8 pubkey x509 constraints "
    "openssl curve25519 chapoly gmp {kernel} socket-default vici updown counters"
)

DAEMON = """charon-systemd {{
  load_modular = no
  load = {plugins}
  install_virtual_ip = no
  {cookies}
  {extra}
  retransmit_timeout = 1
  retransmit_base = 1.6
  retransmit_tries = {tries}
  plugins {{ vici {{ socket = unix:///lab/charon.vici }} }}
  journal {{ default = -1 }}
  filelog {{
    log {{
      path = /lab/strongswan.log
      time_format = %T
      time_add_ms = yes
      default = {level}
      enc = {enc}
      lib = 1
      job = 1
      flush_line = yes
    }}
  }}
}}
"""

SWANCTL = """connections {{
  {connection} {{
    version = 2
    local_addrs = {local}
    remote_addrs = {remote}
    {ike}
    encap = {encap}
    {more}
    dpd_delay = {dpd}s
    rekey_time = {ike_rekey}
    local {{
      auth = {local_auth}
      id = "{local_id}"
      {local_key}
    }}
    remote {{
      auth = {remote_auth}
      id = "{remote_id}"
      {remote_key}
    }}
    children {{
{children}    }}
    rand_time = 0
  }}
  {others}
}}
secrets {{
  ike-lab {{
    secret = "{secret}"
  }}
  {secrets}
}}
"""

SWANCTL_CHILD = """      {child} {{
        local_ts = {local_ts}
        remote_ts = {remote_ts}
        {esp}
        mode = {mode}
        start_action = {start}
        rekey_time = {rekey}
        {packets}
        {more}
        rand_time = 0
      }}
"""


class StrongSwan(Peer):
    """charon-systemd of Debian 13, controlled over VICI."""

    kind = "strongswan"
    kernel = "kernel-libipsec kernel-netlink"  # libipsec must be asked before netlink

    def start(self):
        self._configure()
        self.launch()

    def launch(self):
        """Starts the daemon with the configuration that is there."""
        self.container.sh(
            "mkdir -p /etc/swanctl/private /etc/swanctl/pubkey"
            " && cp /lab/strongswan.conf /etc/strongswan.conf"
            " && cp -r /lab/swanctl/. /etc/swanctl/ && rm -f /lab/charon.vici"
        )
        self.container.spawn("exec charon-systemd >/lab/charon.out 2>&1")
        until("charon answers", self._answers, 20)
        said = self.container.sh("swanctl --load-all --noprompt --uri unix:///lab/charon.vici 2>&1")
        if "loaded connection" not in said:
            raise Failure(f"swanctl did not load the connection: {said}")

    def _answers(self):
        try:
            return self._request("version")
        except OSError as error:
            raise Failure(str(error)) from error

    def _socket(self):
        return Vici(os.path.join(self.share, "charon.vici"))

    def _request(self, name, **arguments):
        with self._socket() as vici:
            return vici.request(name, **arguments)

    def _configure(self):
        s, me, peer = self.settings, self.end, self.other
        local_key = remote_key = ""
        if s.auth != "psk":
            private, public = self.keys(s.auth, me.name)
            self._install(private, "private", f"{me.name}.pem")
            self._install(public, "pubkey", f"{me.name}.pem")
            local_key = f"pubkeys = {me.name}.pem"
        if s.peer_auth != "psk":
            self._install(self.keys(s.peer_auth, peer.name)[1], "pubkey", f"{peer.name}.pem")
            remote_key = f"pubkeys = {peer.name}.pem"
        # Cookies are asked for from the first half-open SA on; zero would turn them off.
        cookies = "cookie_threshold = 1\n  cookie_threshold_ip = 1\n  block_threshold = 100" if s.cookies else ""
        self.write("strongswan.conf", DAEMON.format(
            plugins=PLUGINS.format(kernel=self.kernel), cookies=cookies, level=s.log, enc=1 if s.log < 4 else s.log, extra=s.extra.get("strongswan.conf", ""),
            tries=s.extra.get("charon tries", 6),
        ))
        children = "".join(
            SWANCTL_CHILD.format(
                child=name, local_ts=",".join(ours), remote_ts=",".join(theirs), start=s.start, mode=s.mode or "tunnel",
                esp=f"esp_proposals = {','.join(s.esp_proposals)}" if s.esp_proposals else "",
                rekey=f"{s.child_rekey_seconds}s" if s.child_rekey_seconds else "1h",
                more=s.extra.get("swanctl child", ""),
                packets=f"rekey_packets = {s.child_rekey_packets}" if s.child_rekey_packets else "",
            )
            for name, (ours, theirs) in self.children().items()
        )
        self.write("swanctl/swanctl.conf", SWANCTL.format(
            connection=CONNECTION, children=children,
            local=s.extra.get("local", me.outer), remote="%any" if s.any_remote else self.remote_address,
            ike=f"proposals = {','.join(s.ike_proposals)}" if s.ike_proposals else "",
            encap="yes" if s.encap else "no", more=s.extra.get("swanctl", ""),
            dpd=s.dpd_seconds or 30,
            ike_rekey=f"{s.ike_rekey_seconds}s" if s.ike_rekey_seconds else "4h",
            local_auth=s.extra.get("auth", _auth(s.auth)), remote_auth=s.extra.get("auth", _auth(s.peer_auth)),
            local_id=me.identity, remote_id=self.remote_identity,
            local_key=local_key, remote_key=remote_key, secret=s.secret,
            others=s.extra.get("swanctl connections", ""), secrets=s.extra.get("swanctl secrets", ""),
        ))

    def _install(self, source, directory, name):
        target = os.path.join(self.share, "swanctl", directory)
        os.makedirs(target, exist_ok=True)
        shutil.copy(source, os.path.join(target, name))

    def stop(self):
        self.container.ok("pkill -TERM -x charon-systemd")
        until("charon is gone", lambda: not self.running("charon-systemd"), 15)

    def kill(self):
        """Ends the daemon with SIGKILL, so that it cannot tell anybody."""
        self.container.sh("pkill -KILL -x charon-systemd")
        until("charon is gone", lambda: not self.running("charon-systemd"), 5)

    def version(self):
        answer = self._request("version")
        return f"strongSwan {answer['version']}"

    def initiate(self):
        for child in self.children():
            patience = self.settings.extra.get("patience", 20)
            answer = self._request("initiate", ike=CONNECTION, child=child, timeout=patience * 1000)
            if answer.get("success") != "yes":
                return False, answer.get("errmsg", "")
        return True, ""

    def initiate_child(self, name):
        """Brings one child up, without waiting for it."""
        self._request("initiate", ike=CONNECTION, child=name, timeout=-1)

    def terminate(self):
        self._request("terminate", ike=CONNECTION, timeout=10000)

    def begin_to_terminate(self, child=False):
        """Closes the connection, or the child alone, without waiting for the peer."""
        self._request("terminate", timeout=-1, **({"child": CHILD} if child else {"ike": CONNECTION}))

    def terminate_now(self):
        """Forgets the connection without waiting for the other end."""
        self._request("terminate", ike=CONNECTION, timeout=100, force="yes")

    def terminate_child(self):
        """Closes the child alone."""
        self._request("terminate", child=CHILD, timeout=10000)

    def rekey(self, kind):
        answer = self._request("rekey", **{kind: CONNECTION if kind == "ike" else CHILD})
        if answer.get("success") != "yes":
            raise Failure(f"charon refused to rekey: {answer}")

    def reauthenticate(self):
        """Makes a new IKE SA with a new child beside the old one, then closes the old one."""
        answer = self._request("rekey", ike=CONNECTION, reauth="yes")
        if answer.get("success") != "yes":
            raise Failure(f"charon refused to reauthenticate: {answer}")

    def sas(self):
        with self._socket() as vici:
            _, events = vici.stream("list-sas", "list-sa")
        found = [sa for event in events for sa in event.values()]
        return [self._ike(sa) for sa in found if sa.get("remote-host") != self.probe]

    @staticmethod
    def _ike(sa):
        return IkeSa(
            established=sa.get("state") == "ESTABLISHED",
            spi_i=spi(sa["initiator-spi"]),
            spi_r=spi(sa["responder-spi"]),
            suite=_suite(sa, "encr-alg", "encr-keysize", "integ-alg", "prf-alg", "dh-group"),
            children=[StrongSwan._child(c) for c in sa.get("child-sas", {}).values()],
        )

    @staticmethod
    def _child(child):
        return ChildSa(
            name=child["name"],
            installed=child["state"] == "INSTALLED",
            spi_in=spi(child.get("spi-in", "0")),
            spi_out=spi(child.get("spi-out", "0")),
            packets_in=int(child.get("packets-in", 0)),
            packets_out=int(child.get("packets-out", 0)),
            encap=child.get("encap") == "yes",
            suite=_suite(child, "encr-alg", "encr-keysize", "integ-alg", "dh-group"),
        )


class NextStrongSwan(StrongSwan):
    """charon-systemd of the Debian after that."""

    image = "obol-interop/strongswan:forky"


class KernelStrongSwan(StrongSwan):
    """charon-systemd with the kernel's ESP."""

    kernel = "kernel-netlink"
    lab = "vm"


def _auth(kind):
    return "psk" if kind == "psk" else "pubkey"


def _suite(values, *names):
    return "/".join(values[name] for name in names if values.get(name))
