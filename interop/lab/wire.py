"""What happens to IKE and ESP between the two ends: a NAT, loss, repetition. By nftables in the containers."""

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


def forget_mappings(peer):
    """The NAT before `peer` restarts: the next packet gets another port."""
    peer.container.sh("nft delete table ip lab-nat; conntrack -F 2>/dev/null || true")
    _nft(peer, NAT.format(inner=peer.end.outer, outer=outer_address(peer.end.outer)))


def make_lossy(peer, loss, repeated):
    """Loses a share of the IKE messages to `peer`, and sends a share of those from it twice; in percent."""
    if peer.container.ok("nft list table ip lab-loss"):
        raise Failure(f"{peer.end.name} is lossy already")
    _nft(peer, LOSSY.format(loss=loss, repeated=repeated, other=peer.other.outer))


def make_calm(peer):
    """Ends what `make_lossy` began; returns how many messages it lost or repeated."""
    said = peer.container.sh("nft list table ip lab-loss")
    peer.container.sh("nft delete table ip lab-loss")
    return sum(int(count) for count in re.findall(r"counter packets (\d+)", said))
