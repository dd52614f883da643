"""Libreswan: pluto with the kernel's ESP. It tells no IKE SPIs, so its IKE SAs go by pluto's own numbers."""

import base64
import re
import subprocess

from lab.plan import CHILD, CONNECTION, ChildSa, IkeSa, spi
from lab.wait import Failure, until

from .base import Peer

CONF = """config setup
  logfile=/lab/libreswan.log
  logtime=no
{setup}

conn %default
  type={mode}
  left={local}
  leftid={local_id}
  right={remote}
  rightid={remote_id}
  authby={auth}
{keys}
  {ike}
  {esp}
  {more}
"""

CONN = """
conn {name}
  auto={start}
  {left}
  {right}
"""

# What a proposal's words are for pluto.
WORDS = {
    "aes128gcm16": "aes_gcm128", "aes256gcm16": "aes_gcm256", "chacha20poly1305": "chacha20_poly1305",
    "aes128": "aes128", "aes256": "aes256", "sha256": "sha2_256", "sha384": "sha2_384", "sha512": "sha2_512",
    "prfsha256": "sha2_256", "prfsha384": "sha2_384", "prfsha512": "sha2_512",
    "x25519": "dh31", "ecp256": "dh19", "ecp384": "dh20", "modp2048": "dh14",
}
START = {"none": "add", "trap": "route", "start": "start"}
WHACK = "/usr/libexec/ipsec/whack"

# Two lines of `whack --status` each: what state it is, and what it protects.
STATE = re.compile(
    r'^(?:000 )?#(?P<number>\d+): "(?P<conn>[^"]+)"\S* (?:STATE_V2_)?(?P<state>\w+) \((?P<words>[^)]*)\)(?P<rest>.*)$', re.M
)
SPIS = re.compile(r'^(?:000 )?#(?P<number>\d+): "[^"]+".* esp[.:](?P<out>[0-9a-f]+)@\S+ esp[.:](?P<in>[0-9a-f]+)@', re.M)


class Libreswan(Peer):
    """pluto of Debian 13."""

    kind = "libreswan"
    lab = "vm"
    insists = hasty = True
    autopsy = f"{WHACK} --status; {Peer.autopsy}"
    rekey_words = {"ike": "--rekey-ike", "child": "--rekey-child"}

    def start(self):
        self._configure()
        self.container.sh("mkdir -p /run/pluto /etc/ipsec.d/policies /var/lib/ipsec/nss && ipsec initnss", timeout=60)
        if self.settings.auth != "psk":
            self._import_key()
        self.launch()

    def launch(self):
        """Starts the daemon with the configuration that is there."""
        self.container.sh("cp /lab/ipsec.conf /lab/ipsec.secrets /etc/ && rm -f /run/pluto/pluto.*")
        self.container.sh("ipsec pluto --config /etc/ipsec.conf")
        until("pluto has its connections", self._answers, 30)
        # A packet that comes while pluto takes the SAs away asks in vain, and its kernel does not ask again for so long.
        self.container.sh("echo 3 > /proc/sys/net/core/xfrm_acq_expires")

    def _answers(self):
        status = self._status()
        missing = [name for name in self.children() if f'"{name}":' not in status]
        if missing:
            raise Failure(f"it has no connection {missing[0]}; its log ends with: {self.log()[-600:]}")
        return True

    def _status(self):
        return self.container.sh(f"{WHACK} --status", check=False)

    def _configure(self):
        s, me, peer = self.settings, self.end, self.other
        keys, auth = "", "secret"
        if s.auth != "psk":
            own, far = self.keys(s.auth, me.name)[1], self.keys(s.peer_auth, peer.name)[1]
            keys = f"  leftrsasigkey={rsasigkey(own)}\n  rightrsasigkey={rsasigkey(far)}"
            auth = "rsasig"
        text = CONF.format(
            setup=s.extra.get("config setup", ""), mode=s.mode or "tunnel",
            local=me.outer, remote="%any" if s.any_remote else self.remote_address,
            local_id=_identity(me.identity), remote_id=_identity(self.remote_identity), auth=auth, keys=keys,
            ike=f"ike={_proposals(s.ike_proposals)}" if s.ike else "",
            esp=f"esp={_proposals(s.esp_proposals)}" if s.esp else "",
            more="\n  ".join(self._more()),
        )
        for name, (ours, theirs) in self.children().items():
            text += CONN.format(name=name, start=START[s.start], left=_side("left", ours[0], me.outer),
                                right=_side("right", theirs[0], peer.outer))
        self.write("ipsec.conf", text)
        self.write("ipsec.secrets", f': PSK "{s.secret}"\n')

    def _more(self):
        s = self.settings
        if s.encap:
            yield "encapsulation=yes"
        if any("esn" in proposal for proposal in s.esp_proposals):
            yield "esn=yes"
        if s.ike_rekey_seconds:
            yield f"ikelifetime={s.ike_rekey_seconds}s"
        yield from s.extra.get("ipsec.conf", ())

    def _import_key(self):
        """Puts the key pair into NSS's database, by way of a certificate that nobody looks at."""
        private = self.keys(self.settings.auth, self.end.name)[0]
        with open(private) as file:
            self.write("own.pem", file.read())
        self.container.sh(
            "set -e; cd /lab; openssl req -x509 -new -key own.pem -subj /CN=lab -days 3650 -out own.crt\n"
            "openssl pkcs12 -export -inkey own.pem -in own.crt -name own -passout pass: -out own.p12\n"
            "pk12util -i own.p12 -d sql:/var/lib/ipsec/nss -W '' -K ''", timeout=60,
        )

    def stop(self):
        self.container.ok(f"{WHACK} --shutdown")
        until("pluto is gone", lambda: not self.running("pluto"), 15)

    def kill(self):
        """Ends the daemon with SIGKILL, so that it cannot tell anybody."""
        self.container.sh("pkill -KILL -x pluto")
        until("pluto is gone", lambda: not self.running("pluto"), 5)

    def version(self):
        return self.container.sh("ipsec --version").replace("(XFRM)", "").strip()

    def initiate(self):
        said = ""
        for name in self.children():
            try:
                said += self.container.sh(f"timeout 60 {WHACK} --name {name} --initiate 2>&1", timeout=70)
            except Failure as failure:
                return False, str(failure)
        return True, said

    def terminate(self):
        self._whack(*(f"--name {name} --terminate" for name in self.children()))

    def terminate_child(self):
        """Closes the child alone."""
        self._whack(*(f"--deletestate {found['number']}" for found in SPIS.finditer(self._status())))

    def rekey(self, kind):
        self._whack(f"--name {CHILD} {self.rekey_words[kind]}")

    def _whack(self, *orders):
        # whack's exit code is that of the last line that pluto logged, and not always zero when all is well.
        for order in orders:
            self.container.sh(f"timeout 30 {WHACK} {order} >>/lab/whack.out 2>&1", check=False)

    def sas(self):
        status = self._status()
        counts = self._packets()
        spis = {found["number"]: (spi(found["in"]), spi(found["out"])) for found in SPIS.finditer(status)}
        parents, children = {}, {}
        for state in STATE.finditer(status):
            parent = re.search(r"IKE SA #(\d+)", state["rest"])
            if parent or "CHILD" in state["state"]:
                children.setdefault(parent and parent[1], []).append(self._child(state, spis, counts))
            else:
                number = state["number"]
                parents[number] = IkeSa("ESTABLISHED" in state["state"], "", "", f"#{number}", [], unique=number)
        for number, sa in parents.items():
            sa.children = children.get(number, [])
        return list(parents.values())

    def nothing(self):
        """Whether there is no SA, but for handshakes of obol's that came second to one from here.

        obol gives them up when that one has made the SA; pluto keeps its half for minutes, and nobody can tell it.
        """
        sas = [sa for sa in self.sas() if sa.established or sa.children]
        if sas:
            raise Failure(f"{self.kind} has {len(sas)} IKE SAs: {sas}")
        return True

    @staticmethod
    def _child(state, spis, counts):
        spi_in, spi_out = spis.get(state["number"], ("0", "0"))
        return ChildSa(
            name=state["conn"], installed="ESTABLISHED" in state["state"], spi_in=spi_in, spi_out=spi_out,
            packets_in=counts.get(spi_in, 0), packets_out=counts.get(spi_out, 0), encap=False, suite="",
        )

    def _packets(self):
        """SPI -> packets, as the kernel counts them."""
        return {
            spi(found[1]): int(found[2])
            for found in re.finditer(r"spi 0x([0-9a-f]+).*?lifetime current:\s*\d+\(bytes\), (\d+)\(packets\)",
                                     self.container.sh("ip -s xfrm state"), re.S)
        }


class OldLibreswan(Libreswan):
    """pluto of Debian 12."""

    image = "obol-interop/libreswan:bookworm"
    rekey_words = {"ike": "--rekey-ike", "child": "--rekey-ipsec"}


def rsasigkey(public):
    """The key of a PEM file as RFC 3110 has it, in base64."""
    said = subprocess.run(["openssl", "rsa", "-pubin", "-noout", "-modulus", "-text", "-in", public],
                          check=True, capture_output=True, text=True).stdout
    modulus = bytes.fromhex(re.search(r"Modulus=([0-9A-F]+)", said)[1])
    exponent = int(re.search(r"Exponent: (\d+)", said)[1])
    octets = exponent.to_bytes((exponent.bit_length() + 7) // 8, "big")
    return "0s" + base64.b64encode(bytes([len(octets)]) + octets + modulus).decode()


def _identity(text):
    return text if re.fullmatch(r"[0-9.:]+", text) else f"@{text.removeprefix('@')}"


def _side(side, selector, outer):
    """A selector `NET[PROTOCOL/PORT]` as pluto's two words."""
    net, _, rest = selector.partition("[")
    lines = [f"{side}subnet={net}"] if net.split("/")[0] != outer and net != "dynamic" else []
    if rest:
        lines.append(f"{side}protoport={rest.rstrip(']')}")
    return "\n  ".join(lines)


def _proposals(proposals):
    return ",".join(_proposal(proposal) for proposal in proposals)


def _proposal(proposal):
    words = [WORDS[word] for word in proposal.split("-") if word not in ("esn", "noesn")]
    return "-".join(words)
