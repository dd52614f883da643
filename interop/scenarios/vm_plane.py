"""What the data plane alone decides: its end under traffic, a wire that loses and disorders, addresses that move, firewalls."""

import os
import re

from lab.wait import expect, until

from . import KERNEL_OBOL, KERNEL_STRONGSWAN, OBOLS, USERSPACE_OBOL, moving, vm_scenario
from .vm import no_ping_lost


@vm_scenario("vm-kill", peers=(KERNEL_STRONGSWAN, *OBOLS), brief={"kernel": (USERSPACE_OBOL,)})
def kill_under_traffic(bed):
    """obol is killed under traffic: nothing leaves in clear; the next one takes over, and traffic goes on."""
    bed.start()
    bed.up()
    pinging = bed.start_pinging(bed.sun, count=60)
    bed.traffic()
    bed.sun.kill()
    bed.answered(pinging)
    bed.check_wire()
    bed.sun.launch()
    bed.up()
    bed.traffic()
    bed.down()


FIREWALL = """
set -e
iptables -A INPUT -s {far} -m policy --dir in --pol ipsec
iptables -A INPUT -s {far} -m policy --dir in --pol none -j DROP
iptables -A OUTPUT -d {far} -m policy --dir out --pol ipsec
iptables -A OUTPUT -d {far} -m policy --dir out --pol none -j DROP
nft -f - <<'RULES'
table ip lab {{
    chain in {{
        type filter hook input priority 10
        ip saddr {far} meta secpath exists counter
        ip saddr {far} meta secpath missing counter
    }}
    chain out {{
        type filter hook output priority 10
        ip daddr {far} rt ipsec exists counter
        ip daddr {far} rt ipsec missing counter
    }}
}}
RULES
"""
MASQUERADE = "iptables -t nat -A POSTROUTING -s {own} -o eth0 {match} -j MASQUERADE"


@vm_scenario("vm-firewall", peers=(KERNEL_STRONGSWAN,), planes=("kernel",))
def firewall(bed):
    """`-m policy`, `meta secpath` and `rt ipsec` tell what is protected; MASQUERADE, with or without them, leaks nothing."""
    bed.start()
    bed.up()
    host, own, far = bed.sun.container, bed.sun.end.nets[0], bed.moon.end.nets[0]
    host.sh(FIREWALL.format(far=far))
    bed.traffic(count=5)
    seen = host.sh("iptables -nvxL INPUT; iptables -nvxL OUTPUT")
    packets = [int(line.split()[0]) for line in seen.splitlines() if "policy match" in line]
    expect(packets == [10, 0, 10, 0], f"iptables counts {packets} packets with and without IPsec, in and out: {seen}")
    seen = host.sh("nft list table ip lab")
    packets = [int(word) for word in re.findall(r"counter packets (\d+)", seen)]
    expect(packets == [10, 0, 10, 0], f"nft counts {packets} packets with and without IPsec, in and out: {seen}")
    host.sh(MASQUERADE.format(own=own, match="-m policy --dir out --pol none"))
    bed.traffic()
    host.sh("iptables -t nat -F")
    host.sh(MASQUERADE.format(own=own, match=""))
    bed.unanswered(bed.sun)
    bed.check_wire()


@vm_scenario("vm-auto", peers=(KERNEL_STRONGSWAN,), planes=("kernel",))
def auto(bed):
    """`dataplane = "auto"` tries the kernel and takes it; log and `obol status` say so and why."""
    bed.sun_settings.extra["obol"] = {"dataplane": "auto"}
    bed.start()
    bed.up()
    daemon = bed.sun.status()["daemon"]
    expect(daemon["data_plane"] == "kernel", f"it is the data plane of {daemon}")
    expect(daemon["data_plane_why"] == "auto: the kernel takes what is configured", f"status says: {daemon}")
    said = bed.sun.container.sh("obol --runtime-dir /lab/run status")
    expect("kernel data plane (auto: the kernel takes" in said, f"status says: {said}")
    bed.sun.wait_log("auto: the kernel takes what is configured")
    expect("proto esp" in bed.sun.container.sh("ip xfrm state"), "the kernel has no SA")
    bed.traffic()
    bed.down()


@vm_scenario("vm-reload", peers=OBOLS, brief={"kernel": (USERSPACE_OBOL,)})
def reload(bed):
    """`obol reload` under traffic: what did not change goes on without loss, a removed child goes."""
    moving.reload(bed)


@vm_scenario("vm-mobike", peers=(KERNEL_STRONGSWAN, *OBOLS), brief={"kernel": (KERNEL_STRONGSWAN,)})
def mobike(bed):
    """obol's address changes under traffic: it tells the peer (RFC 4555), and the SAs move."""
    bed.sun_settings.extra["obol connection"] = {"local_addrs": ["%any"]}
    bed.moon_settings.any_remote = True
    bed.start()
    bed.up()
    moving.moved(bed, bed.sun, count=60)


@vm_scenario("vm-mobike-peer", peers=(KERNEL_STRONGSWAN, *OBOLS), brief={"kernel": (USERSPACE_OBOL,)})
def mobike_peer(bed):
    """The peer's address changes under traffic: it tells obol (RFC 4555), and the SAs move."""
    bed.sun_settings.any_remote = True
    bed.moon_settings.extra["local"] = "%any"
    bed.moon_settings.extra["obol connection"] = {"local_addrs": ["%any"]}
    bed.start()
    bed.role = "responder"
    bed.up()
    moving.moved(bed, bed.moon, count=60)


# A stream whose octets are compared.

TAKE = """
perl -MIO::Socket::IP -e '
    $listen = IO::Socket::IP->new(LocalHost => "%s", LocalPort => 9000, Listen => 1, ReuseAddr => 1) or die;
    $from = $listen->accept; open $to, ">", "/lab/taken";
    print $to $octets while read $from, $octets, 65536; close $to; rename "/lab/taken", "/lab/stream"
'
"""
GIVE = """
perl -MIO::Socket::IP -e '
    $to = IO::Socket::IP->new(PeerHost => "%s", PeerPort => 9000, Timeout => 60) or die "cannot connect";
    open $from, "<", "/lab/stream"; print $to $octets while read $from, $octets, 65536
'
"""
OCTETS = 300_000
LATE = "delay 30ms 25ms"  # each packet 5 to 55 ms, so that they overtake each other
LOSSY = f"{LATE} loss 3%"


def _wire(bed, what):
    """Makes both cables treat what the hosts are sent so; `None`: as it comes."""
    for peer in (bed.moon, bed.sun):
        cable = peer.container.cable
        how = ("replace", "dev", cable, "root", "netem", *what.split()) if what else ("del", "dev", cable, "root")
        bed.place.run("tc", "qdisc", *how)


@vm_scenario("vm-netem", peers=(KERNEL_STRONGSWAN, *OBOLS), brief={"kernel": (USERSPACE_OBOL,)})
def netem(bed):
    """Packets that overtake each other: none is lost, nor in a rekey; with 3 % loss rekeys end and a stream is whole."""
    bed.prepare_rekey("sun", "child")
    # On so slow a wire the packets of a rekey are more than usual, and the hard limit is not what is tried here.
    bed.sun_settings.extra["obol child"] = {"life_packets": 10000}
    bed.start()
    _wire(bed, LATE)
    before = bed.up()[0].children[0]
    with no_ping_lost(bed):
        bed.sun.rekey("child")
        bed.rekeyed(before, 30)
    _wire(bed, LOSSY)
    before = bed.agreed()[0].children[0]
    bed.moon.container.spawn(TAKE % bed.moon.end.hosts[0])
    until("the server listens", lambda: bed.moon.container.ok("ss -Hltn sport = 9000 | grep -q ."))
    octets = os.urandom(OCTETS)
    with open(os.path.join(bed.sun.share, "stream"), "wb") as file:
        file.write(octets)
    bed.sun.container.sh(GIVE % bed.moon.end.hosts[0], timeout=120)
    arrived = os.path.join(bed.moon.share, "stream")
    until("all has arrived", lambda: os.path.exists(arrived), 30)
    with open(arrived, "rb") as file:
        expect(file.read() == octets, "what arrived is not what was sent")
    bed.sun.rekey("child")
    bed.rekeyed(before, 60)
    _wire(bed, None)
    bed.agreed(60)
    with no_ping_lost(bed, count=20):
        pass
    bed.traffic()
    bed.down()
