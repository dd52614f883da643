"""What needs the kernel's ESP at one end or both. Each runs once per peer and data plane of obol, in a VM.

A daemon takes its time to start there, so each scenario does as much as it can with two of them, in both roles.
The default list has what is between obol and others once on the kernel's data plane, and some of it on obol's own.
"""

from lab.pcap import MARKER
from lab.wait import expect, until

from . import BOTH, KERNEL_OBOL, KERNEL_STRONGSWAN, LIBRESWAN, LIBRESWAN_4, OBOLS, OTHERS_IN_VM, USERSPACE_OBOL, vm_scenario


def _life(bed):
    """Up by each end, traffic, down by each end."""
    bed.start()
    for bed.role in BOTH:
        bed.up()
        bed.traffic()
        bed.down()


@vm_scenario("vm-psk", brief={"kernel": (*OTHERS_IN_VM, KERNEL_OBOL), "userspace": (LIBRESWAN,)})
def psk(bed):
    """PSK, a tunnel between subnets, both ends' own proposals; each end begins and ends it."""
    _life(bed)


@vm_scenario("vm-rsa", peers=OTHERS_IN_VM, brief={"kernel": (KERNEL_STRONGSWAN, LIBRESWAN), "userspace": (LIBRESWAN_4,)})
def rsa(bed):
    """Raw RSA keys; each end begins and ends it."""
    bed.both(auth="rsa")
    _life(bed)


@vm_scenario("vm-v6", brief={"kernel": (USERSPACE_OBOL,), "userspace": (KERNEL_STRONGSWAN,)})
def v6(bed):
    """IPv6 subnets over IPv6; each end begins and ends it."""
    bed.outer, bed.inner = 6, (6,)
    _life(bed)


@vm_scenario("vm-esn", brief={"kernel": (LIBRESWAN_4, KERNEL_OBOL), "userspace": (KERNEL_STRONGSWAN,)})
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


@vm_scenario("vm-encap", brief={"kernel": (LIBRESWAN, USERSPACE_OBOL)})
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


@vm_scenario("vm-child-rekey", brief={"kernel": (KERNEL_STRONGSWAN, LIBRESWAN)})
def child_rekey(bed):
    """Each end rekeys the child under traffic, without loss; each deletes the child alone and makes another."""
    _prepare_child_rekey(bed)
    bed.start()
    bed.role = "initiator"
    for by in (bed.moon, bed.sun):
        before = bed.up()[0].children[0]
        early = bed.sun.plane == "kernel" and bed.moon.hasty and by is bed.sun
        with no_ping_lost(bed, but_early=early):
            by.rekey("child")
            bed.rekeyed(before)
        bed.traffic()
        by.terminate_child()
        for peer in (bed.moon, bed.sun):
            until(f"{peer.kind} has no child", lambda: not any(sa.children for sa in peer.sas()))
        # What some have begun they begin again when it is closed, and it would never be gone.
        bed.role = "initiator" if bed.moon.insists else "responder"
    bed.up()
    bed.traffic()
    bed.down()


@vm_scenario("vm-ike-rekey", brief={"kernel": (KERNEL_STRONGSWAN, LIBRESWAN_4)})
def ike_rekey(bed):
    """Each end rekeys the IKE SA under traffic, without loss."""
    bed.sun_settings.ike_rekey_seconds = 30
    if bed.moon_is_obol:
        bed.moon_settings.ike_rekey_seconds = 20  # is asked for nothing, and rekeys by itself
    bed.start()
    bed.role = "initiator"
    before = bed.up()[0]
    with no_ping_lost(bed, count=250):
        bed.moon.rekey("ike")
        bed.ike_rekeyed(before)
        before = bed.agreed()[0]
        bed.ike_rekeyed(before, 15)  # obol's turn
    bed.traffic()
    bed.down()


class no_ping_lost:
    """Pings both ways around something, of which not one may be lost.

    With `but_early`, those may that came by an SA that obol could not have yet: its kernel counts them, and drops them.
    """

    def __init__(self, bed, count=100, but_early=False):
        self.bed, self.count, self.but_early = bed, count, but_early

    def __enter__(self):
        bed = self.bed
        self.before = bed.sun.drops().get("unknown-spi", 0)
        self.pinging = [bed.start_pinging(peer, count=self.count) for peer in (bed.moon, bed.sun)]

    def __exit__(self, failed, *_):
        said = [self.bed.answered(ping) for ping in self.pinging]
        if failed:
            return
        lost = sum(sent - got for sent, got in said)
        early = self.bed.sun.drops().get("unknown-spi", 0) - self.before
        expect([sent for sent, _ in said] == [self.count] * 2, f"not all pings were sent: {said}")
        expect(lost <= (min(early, 2) if self.but_early else 0), f"{lost} pings were lost; {early} packets came early")


# One port, in both directions: what each end offers to others, and what others offer to it.

SERVE = """
perl -MIO::Socket::IP -e '
    $listen = IO::Socket::IP->new(LocalHost => "%s", LocalPort => %d, Listen => 5, ReuseAddr => 1) or die;
    while ($client = $listen->accept) { print $client scalar <$client>; close $client }
'
"""
ASK = """
perl -MIO::Socket::IP -e '
    $server = IO::Socket::IP->new(PeerHost => "%s", PeerPort => %d, Timeout => 60) or die "cannot connect";
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


def _up(bed, *names, most=1):
    """Waits until both ends have these children, each once, and at most so many IKE SAs; moon mirrors the names."""

    def check():
        for peer, wanted in ((bed.sun, names), (bed.moon, [_mirror(name) for name in names])):
            sas = [sa for sa in peer.sas() if sa.established]
            found = sorted(child.name for sa in sas for child in sa.children if child.installed)
            fits = 1 <= len(sas) <= most and found == sorted(wanted)
            expect(fits, f"{peer.kind} has {sas}, not {sorted(wanted)} with {most} IKE SAs at most")
        return True

    until(f"both ends have {names}", check)


def _mirror(name):
    return {"server": "client", "client": "server"}[name]


@vm_scenario("vm-mongodb", brief={"kernel": (KERNEL_STRONGSWAN, LIBRESWAN), "userspace": (LIBRESWAN_4,)})
def mongodb(bed):
    """Transport mode for TCP 27017: the first packet of either end brings it up, and nothing is in clear."""
    _mongodb(bed)


@vm_scenario("vm-mongodb-v6", peers=(KERNEL_STRONGSWAN, *OBOLS), brief={"kernel": (USERSPACE_OBOL,)})
def mongodb_v6(bed):
    """The same over IPv6."""
    bed.outer, bed.inner = 6, (6,)
    _mongodb(bed)


def _mongodb(bed):
    _by_port(bed, "tcp", 27017)
    bed.start()
    for peer in (bed.moon, bed.sun):
        peer.container.spawn(SERVE % (peer.end.outer, 27017))
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


@vm_scenario("vm-vxlan", brief={"kernel": (LIBRESWAN,), "userspace": (KERNEL_STRONGSWAN,)})
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
        # Both devices say something of their own at once. Then either end may have an IKE SA of its own for its child,
        # which the other one does not need for anything.
        _up(bed, "client", "server", most=2)
        peer.container.sh(f"ping -p {MARKER.hex()} -i 0.5 -W 5 -c 10 -s 1300 {inner[other]}")
        bed.check_wire()
        # Its neighbours are looked for at any time, and that would bring up what is to be gone.
        for end in inner:
            end.container.sh("ip link set vx down")
        peer.terminate()
        for end in inner:
            bed.until_nothing(end)
