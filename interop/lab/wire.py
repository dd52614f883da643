"""What happens to IKE and ESP between the two ends: a NAT, loss, repetition. By nftables in the containers."""

import os
import re

from .wait import Failure

# The ports behind a NAT: other ones for every new flow.
NAT = """
table ip lab-nat {{
  chain out {{
    type nat hook postrouting priority 100
    ip saddr {inner} udp sport {{ 500, 4500 }} snat to {outer}:20000-29999
  }}
  chain in {{
    type nat hook prerouting priority -100
    ip daddr {outer} udp dport {{ 500, 4500 }} dnat to {inner}
  }}
}}
"""

# The same for several hosts behind one address.
BOX = """
table ip lab-nat
delete table ip lab-nat
table ip lab-nat {{
  chain out {{
    type nat hook postrouting priority 100
    ip saddr {{ {clients} }} udp dport {{ 500, 4500 }} snat to {outer}:{ports}
  }}
}}
"""

# What `conntrack -F` does: IPCTNL_MSG_CT_DELETE without attributes, to NETLINK_NETFILTER.
FORGET = r"""perl -e '
    socket(S, 16, 3, 12) && send(S, pack("LSSLLCCn", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0), 0) or die "netlink: $!";
    recv(S, $_, 4096, 0); my $error = unpack("x16l"); die "netlink answers $error" if $error;
'"""

# IKE alone: what is on port 4500 without the non-ESP marker is ESP.
LOSSY = """
table ip lab-loss {{
  chain in {{
    type filter hook input priority -300
    udp dport 500 numgen random mod 100 < {loss} counter drop
    udp dport 4500 @th,64,32 0 numgen random mod 100 < {loss} counter drop
  }}
  chain out {{
    type filter hook postrouting priority -300
    ip daddr {other} udp dport 500 numgen random mod 100 < {repeated} counter dup to {other} device eth0
    ip daddr {other} udp dport 4500 @th,64,32 0 numgen random mod 100 < {repeated} counter dup to {other} device eth0
  }}
}}
"""


# The octet after SPIs, next payload and version.
DEAF = """
table ip lab-deaf {{
  chain in {{
    type filter hook input priority -300
    udp dport 500 @th,208,8 {exchange} counter drop
    udp dport 4500 @th,64,32 0 @th,240,8 {exchange} counter drop
  }}
}}
"""


def outer_address(address):
    """Another address of the same network: what others see of an end behind a NAT, or where it moves."""
    prefix, host = address.rsplit(".", 1)
    return f"{prefix}.{int(host) + 100}"


def _nft(peer, rules):
    peer.write("rules.nft", rules)
    peer.container.sh("nft -f /lab/rules.nft")


def put_behind_nat(peer):
    """Gives what `peer` sends another source address and port, and forwards what comes for that address."""
    outer = outer_address(peer.end.outer)
    peer.container.sh(f"ip addr add {outer}/24 dev eth0")
    _nft(peer, NAT.format(inner=peer.end.outer, outer=outer))


class NatBox:
    """A NAT in a container of its own: what `clients` send to `server` comes from its address."""

    def __init__(self, bed, clients, server):
        self.clients = clients
        share = os.path.join(bed.directory, "nat")
        os.makedirs(share)
        self.address = f"{bed.network.v4}.40"
        forward = ("net.ipv4.ip_forward=1", *(f"net.ipv4.conf.{name}.send_redirects=0" for name in ("all", "default")))
        v6 = f"{bed.network.v6}:40"
        self.container = bed.place.Container(server.image, bed.network, "nat", self.address, v6, share, sysctls=forward)
        self._map("20000-29999")
        for peer in clients:
            peer.container.sh(f"ip route add {server.end.outer}/32 via {self.address}")

    def _map(self, ports):
        addresses = ", ".join(peer.end.outer for peer in self.clients)
        with open(os.path.join(self.container.share, "rules.nft"), "w") as file:
            file.write(BOX.format(clients=addresses, outer=self.address, ports=ports))
        self.container.sh("nft -f /lab/rules.nft")

    def reboot(self):
        """Forgets all mappings; the next packets get other ports."""
        self._map("30000-39999")
        self.container.sh(FORGET)


def make_lossy(peer, loss, repeated):
    """Loses a share of the IKE messages to `peer`, and sends a share of those from it twice; in percent."""
    if peer.container.ok("nft list table ip lab-loss"):
        raise Failure(f"{peer.end.name} is lossy already")
    _nft(peer, LOSSY.format(loss=loss, repeated=repeated, other=peer.other.outer))


def lose_exchange(peer, exchange):
    """Loses every message of this exchange type to `peer`; `None`: no more."""
    if exchange is None:
        peer.container.sh("nft delete table ip lab-deaf")
    else:
        _nft(peer, DEAF.format(exchange=exchange))


def make_calm(peer):
    """Ends what `make_lossy` began; returns how many messages it lost or repeated."""
    said = peer.container.sh("nft list table ip lab-loss")
    peer.container.sh("nft delete table ip lab-loss")
    return sum(int(count) for count in re.findall(r"counter packets (\d+)", said))
