"""obol with the files of pluto, as hosts have them that ran it before."""

from lab.bed import PING
from lab.wait import expect

from . import BOTH_STRONGSWANS, scenario
from .auth import refused_for_pkcs1

# The same on all hosts: one conn between the hosts themselves, and one that adds networks to it.
STORY = """
conn moon-sun-subnet
  also=moon-sun
  leftsubnet={moon.nets[0]}
  rightsubnet={sun.nets[0]}

conn moon-sun
  type=tunnel
  leftid=@{moon.identity}
  left={moon.outer}
  leftrsasigkey={keys[moon]}
  rightid=@{sun.identity}
  right={sun.outer}
  rightrsasigkey={keys[sun]}
  authby=rsasig
  auto={auto}
"""

# The networks alone.
NETS = """
conn moon-sun
  leftid=@{moon.identity}
  left={moon.outer}
  leftsubnet={moon.nets[0]}
  leftrsasigkey={keys[moon]}
  rightid=@{sun.identity}
  right={sun.outer}
  rightsubnet={sun.nets[0]}
  rightrsasigkey={keys[sun]}
  authby=rsasig
  auto={auto}
"""

# What strongSwan with its ESP in user space needs for an SA between the hosts themselves: its own packets go past it.
HOST_TO_HOST = """
  plugins {
    kernel-libipsec { allow_peer_ts = yes }
    kernel-netlink { fwmark = !0x42 }
    socket-default { fwmark = 0x42 }
  }
"""


@scenario("pluto-story", needs_obol=True, peers=BOTH_STRONGSWANS)
def story(bed):
    """obol runs from pluto's files: two conns by `also=`, raw RSA keys, host to host and net to net."""
    bed.both(auth="rsa")
    bed.initiator_settings.start = "start"
    bed.sun_settings.extra["pluto"] = STORY
    bed.moon_settings.extra["strongswan.conf"] = HOST_TO_HOST
    # The second child is made with a key exchange of its own, as `pfs=yes` of pluto's defaults has it, and not strongSwan 6.0's.
    bed.moon_settings.esp = "aes256gcm16-ecp256,aes256gcm16"
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["children"] = children
    bed.start()
    bed.agreed(20)
    bed.traffic()
    _between_hosts(bed)
    bed.down()


@scenario("pluto-rsa-sha2", needs_obol=True, peers=BOTH_STRONGSWANS)
def rsa_sha2(bed):
    """`authby=rsa-sha2` of pluto's files: strongSwan signs with RSASSA-PSS, as rsa_pss = yes has it."""
    _rsa_sha2(bed)
    bed.moon_settings.extra["strongswan.conf"] = "rsa_pss = yes"
    bed.start()
    bed.up()
    bed.traffic()
    bed.down()


@scenario("pluto-rsa-sha2-refused", needs_obol=True, peers=BOTH_STRONGSWANS)
def rsa_sha2_refused(bed):
    """`authby=rsa-sha2`, and strongSwan signs with PKCS#1 v1.5: refused, and obol's log names charon.rsa_pss."""
    _rsa_sha2(bed)
    refused_for_pkcs1(bed)


def _rsa_sha2(bed):
    bed.both(auth="rsa")
    bed.sun_settings.extra["pluto"] = NETS.replace("authby=rsasig", "authby=rsa-sha2")
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra["children"] = lambda own, far: {"moon-sun": (own.nets, far.nets)}


def children(own, far):
    """What the conns are about, as one end sees it."""
    return {"moon-sun": ([own.outer], [far.outer]), "moon-sun-subnet": (own.nets, far.nets)}


def _between_hosts(bed):
    for peer in (bed.moon, bed.sun):
        said = peer.container.sh(f"{PING} -c 3 -i 0.3 -W 5 {peer.other.outer}", check=False)
        expect(" 3 received" in said, f"ping from {peer.end.name} to the other host: {said}")
