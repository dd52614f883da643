"""strongSwan 6 with kernel-libipsec: ESP in user space, always in UDP."""

import os

from . import get
from .bed import ENDS, INNER, MTU, OUTER, Failure, run, until
from .tunnels import Peer

PLUGINS = "random nonce aesni aes sha1 sha2 hmac kdf pem pkcs1 pubkey openssl gcm curve25519" \
          " kernel-libipsec kernel-netlink socket-default updown vici"

CHARON = """charon-systemd {
  load_modular = no
  load = PLUGINS
  install_virtual_ip = no
  journal { default = -1 }
  filelog { stderr { default = 0 } }
}
"""

CONNECTION = """connections {{ bench {{
  version = 2
  local_addrs = {own}
  remote_addrs = {peer}
  proposals = aes128gcm16-prfsha256-x25519
  mobike = no
  local {{
    auth = psk
    id = end{end}.bench.example
  }}
  remote {{
    auth = psk
    id = end{far}.bench.example
  }}
  children {{ net {{
    local_ts = {inner}/32
    remote_ts = {far_inner}/32
    esp_proposals = aes128gcm16
  }} }}
}} }}
secrets {{ ike-bench {{ secret = "a secret that only this bench knows" }} }}
"""

# Each charon sees its own files over those of the one tree of trixie, in a mount namespace of its own.
START = """set -e
mount --make-rprivate /
mount --bind {scratch}/charon.conf {tree}/etc/strongswan.conf
mount --bind {scratch}/swanctl{end}.conf {tree}/etc/swanctl/swanctl.conf
mount -t tmpfs tmpfs {tree}/run
mount -t proc proc {tree}/proc
mount --rbind /dev {tree}/dev
exec chroot {tree} /usr/sbin/charon-systemd
"""


class StrongSwan(Peer):
    name, label = "strongswan", "strongSwan 6, libipsec"

    def version(self):
        self.tree = get.trixie(self.options.cache)
        said = run("chroot", self.tree, "dpkg-query", "-W", "-f", "${Version}", "charon-systemd")
        return f"strongSwan {said}, kernel-libipsec, AES-128-GCM (aesni)"

    def start(self, bed):
        bed.write("charon.conf", CHARON.replace("PLUGINS", PLUGINS))
        for end in ENDS:
            bed.write(f"swanctl{end}.conf", CONNECTION.format(
                own=OUTER[end], peer=OUTER[1 - end], end=end, far=1 - end, inner=INNER[end], far_inner=INNER[1 - end]))
            start = bed.write(f"start{end}.sh", START.format(scratch=bed.scratch, tree=self.tree, end=end))
            self.daemons.append(bed.spawn(end, "unshare", "-m", "sh", start, name=f"charon{end}.log"))
        for end in ENDS:
            bed.run(end, "ip", "addr", "add", f"{INNER[end]}/32", "dev", "lo")
            until("charon answers", lambda end=end: "uptime" in self.swanctl(end, "--stats"), 10)
            self.swanctl(end, "--load-all", "--noprompt")
        said = self.swanctl(0, "--initiate", "--child", "net", "--timeout", "10")
        if "completed successfully" not in said:
            raise Failure(f"charon: {said.strip()[-300:]}")
        for end in ENDS:
            bed.run(end, "ip", "link", "set", "ipsec0", "mtu", str(MTU))

    def swanctl(self, end, *arguments):
        process = str(self.daemons[end].pid)
        if not os.path.exists(f"/proc/{process}"):
            raise Failure("charon has ended")
        return run("nsenter", "-t", process, "-m", "-n", "-r", "-w", "swanctl", *arguments, check=False)
