"""What needs the kernel's ESP at one end or both. Each runs once per peer and data plane of obol, in a VM.

A daemon takes its time to start there, so each scenario does as much as it can with two of them, in both roles.
"""

import re

from lab.pcap import MARKER
from lab.wait import expect, until

from . import BOTH, KERNEL_OBOL, KERNEL_STRONGSWAN, LIBRESWAN, OTHERS_IN_VM, USERSPACE_OBOL, vm_scenario


def _life(bed):
    """Up by each end, traffic, down by each end."""
    bed.start()
    for bed.role in BOTH:
        bed.up()
        bed.traffic()
        bed.down()


@vm_scenario("vm-psk", peers=(*OTHERS_IN_VM, KERNEL_OBOL))
def psk(bed):
    """PSK, a tunnel between subnets, both ends' own proposals; each end begins and ends it."""
    _life(bed)


@vm_scenario("vm-rsa", planes=("userspace",))
def rsa(bed):
    """Raw RSA keys; each end begins and ends it."""
    bed.both(auth="rsa")
    _life(bed)


@vm_scenario("vm-v6", planes=("userspace",))
def v6(bed):
    """IPv6 subnets over IPv6; each end begins and ends it."""
    bed.outer, bed.inner = 6, (6,)
    _life(bed)


@vm_scenario("vm-esn", planes=("userspace",))
def esn(bed):
    """Extended sequence numbers with AES-CBC and HMAC, whose check value covers the half that is not sent."""
    bed.both(ike="aes128gcm16-prfsha256-x25519", esp="aes128-sha256-esn")
    bed.start()
    for bed.role in BOTH:
        bed.up()
        for peer in (bed.moon, bed.sun):
            state = peer.container.sh("ip xfrm state")
            if peer.plane != "userspace":
                expect("esn" in state and "cbc(aes)" in state, f"the kernel of {peer.kind} has no such SA: {state}")
        bed.traffic()
        bed.down()


@vm_scenario("vm-encap", planes=("userspace",))
def encap(bed):
    """ESP in UDP without a NAT, because obol says so; the wire shows no other ESP."""
    bed.sun_settings.encap = True
    _life(bed)
    plain = [packet for packet in bed.wire() if packet.kind == "esp" and packet.protocol == 50]
    expect(not plain, f"{len(plain)} ESP packets were not in UDP")


def _prepare_child_rekey(bed):
    """obol will rekey the child after some packets, and has time for it: the hard limit is far away."""
    for end, settings in (("moon", bed.moon_settings), ("sun", bed.sun_settings)):
        bed.prepare_rekey(end, "child")
        settings.extra["obol child"] = {"life_packets": 10000}


@vm_scenario("vm-child-rekey", peers=(KERNEL_STRONGSWAN,))
def child_rekey(bed):
    """Each end rekeys the child under traffic, without loss; each deletes the child alone and makes another."""
    _prepare_child_rekey(bed)
    bed.start()
    bed.role = "initiator"
    for by in (bed.moon, bed.sun):
        before = bed.up()[0].children[0]
        with _no_ping_lost(bed):
            by.rekey("child")
            bed.rekeyed(before)
        bed.traffic()
        by.terminate_child()
        for peer in (bed.moon, bed.sun):
            until(f"{peer.kind} has no child", lambda: not any(sa.children for sa in peer.sas()))
        bed.role = "responder"
    bed.up()
    bed.traffic()
    bed.down()


@vm_scenario("vm-ike-rekey", peers=(KERNEL_STRONGSWAN, LIBRESWAN))
def ike_rekey(bed):
    """Each end rekeys the IKE SA under traffic, without loss."""
    bed.sun_settings.ike_rekey_seconds = 30
    bed.start()
    bed.role = "initiator"
    before = bed.up()[0]
    with _no_ping_lost(bed, count=250):
        bed.moon.rekey("ike")
        bed.ike_rekeyed(before)
        before = bed.agreed()[0]
        bed.ike_rekeyed(before, 15)  # obol's turn
    bed.traffic()
    bed.down()


class _no_ping_lost:
    """Pings both ways around something, of which not one may be lost."""

    def __init__(self, bed, count=100):
        self.bed, self.count = bed, count

    def __enter__(self):
        bed = self.bed
        self.pinging = [bed.start_pinging(peer, count=self.count) for peer in (bed.moon, bed.sun)]

    def __exit__(self, failed, *_):
        for ping in self.pinging:
            sent, got = self.bed.answered(ping)
            if not failed:
                expect(sent == got == self.count, f"{sent - got} of {sent} pings were lost")


# One port, in both directions: what each end offers to others, and what others offer to it.

SERVE = """
perl -MIO::Socket::INET -e '
    $listen = IO::Socket::INET->new(LocalPort => %d, Listen => 5, ReuseAddr => 1) or die;
    while ($client = $listen->accept) { print $client scalar <$client>; close $client }
'
"""
ASK = """
perl -MIO::Socket::INET -e '
    $server = IO::Socket::INET->new(PeerAddr => "%s", PeerPort => %d, Timeout => 60) or die "cannot connect";
    print $server "%s\\n"; print scalar <$server>;
'
"""


def _by_port(bed, protocol, port):
    """Children for a service that both ends offer: `server` for what others ask us, `client` for what we ask."""
    service, anybody = [f"dynamic[{protocol}/{port}]"], [f"dynamic[{protocol}]"]
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.mode, settings.start = "transport", "trap"
        settings.extra["children"] = {"server": (service, anybody), "client": (anybody, service)}


def _asked(bed, client, server, port):
    """`client` asks `server` for what it said itself."""
    text = MARKER.decode()
    said = client.container.sh(ASK % (server.end.outer, port, text), timeout=90)
    expect(said == text, f"the server at {server.end.name} answered: {said}")


def _up(bed, *names):
    """Waits until both ends have these children and one IKE SA; moon's names may be others."""

    def check():
        for peer, wanted in ((bed.sun, names), (bed.moon, [_mirror(name) for name in names])):
            sas = [sa for sa in peer.sas() if sa.established]
            found = sorted(child.name for sa in sas for child in sa.children if child.installed)
            expect(len(sas) == 1 and found == sorted(wanted), f"{peer.kind} has {sas}, not {sorted(wanted)}")
        return True

    until(f"both ends have {names}", check)


def _mirror(name):
    return {"server": "client", "client": "server"}[name]


@vm_scenario("vm-mongodb", peers=(KERNEL_STRONGSWAN, LIBRESWAN))
def mongodb(bed):
    """Transport mode for TCP 27017: the first packet of either end brings it up, and nothing is in clear."""
    _by_port(bed, "tcp", 27017)
    bed.start()
    for peer in (bed.moon, bed.sun):
        peer.container.spawn(SERVE % 27017)
        until("the server listens", lambda: peer.container.ok("ss -Hltn sport = 27017 | grep -q ."))
    for client, server, child in ((bed.sun, bed.moon, "client"), (bed.moon, bed.sun, "server")):
        _asked(bed, client, server, 27017)
        _up(bed, child)
        _asked(bed, server, client, 27017)
        _up(bed, "client", "server")
        for peer in (bed.moon, bed.sun):
            for child in peer.sas()[0].children:
                expect(min(child.packets_in, child.packets_out) >= 4, f"{peer.kind} counts {child}")
        bed.check_wire()
        client.terminate()
        for peer in (bed.moon, bed.sun):
            bed.until_nothing(peer)


VXLAN = """
set -e
ip link add vx type vxlan id 1 dstport 8472 local {own} remote {far} dev eth0
ip addr add {inner}/24 dev vx
"""


@vm_scenario("vm-vxlan", peers=(KERNEL_STRONGSWAN, LIBRESWAN), planes=("userspace",))
def vxlan(bed):
    """Transport mode for a vxlan device's UDP 8472, brought up by its first packet; nothing is in clear."""
    _by_port(bed, "udp", 8472)
    bed.start()
    inner = {bed.moon: "10.99.0.1", bed.sun: "10.99.0.2"}
    for peer, own in inner.items():
        peer.container.sh(VXLAN.format(own=peer.end.outer, far=peer.other.outer, inner=own))
    for peer, other in ((bed.sun, bed.moon), (bed.moon, bed.sun)):
        for end in inner:
            end.container.sh("ip link set vx up")
        ping = f"ping -p {MARKER.hex()} -W 5 -c 1 {inner[other]}"
        until("a ping through the vxlan is answered", lambda: peer.container.ok(ping), 20)
        _up(bed, "client", "server")
        peer.container.sh(f"ping -p {MARKER.hex()} -i 0.5 -W 5 -c 10 -s 1300 {inner[other]}")
        bed.check_wire()
        # Its neighbours are looked for at any time, and that would bring up what is to be gone.
        for end in inner:
            end.container.sh("ip link set vx down")
        peer.terminate()
        for end in inner:
            bed.until_nothing(end)


# What only the data plane decides.


@vm_scenario("vm-kill", peers=(USERSPACE_OBOL,), planes=("kernel",))
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
