"""Several children, protocols and ports, and what is refused."""

from lab.wait import expect, until

from . import INITIATOR, RESPONDER, scenario
from .auth import whole_life

SERVER = (
    "exec perl -MIO::Socket::INET -e '"
    '$l = IO::Socket::INET->new(LocalPort => %d, Listen => 5, ReuseAddr => 1) or die; while ($c = $l->accept) { print $c "hello\\n"; close $c }'
    "'"
)
CLIENT = (
    "perl -MIO::Socket::INET -e '"
    '$s = IO::Socket::INET->new(PeerAddr => "%s", PeerPort => %d, LocalAddr => "%s", Timeout => 5) or exit 1; exit(<$s> =~ /hello/ ? 0 : 1)'
    "'"
)


def _children(bed, children):
    """`children`: name -> selectors of moon and of sun, both as strongSwan writes them."""
    bed.moon_settings.extra["children"] = {name: ([moon], [sun]) for name, (moon, sun) in children.items()}
    bed.sun_settings.extra["children"] = {name: ([sun], [moon]) for name, (moon, sun) in children.items()}


def _reached(bed, port):
    """Whether sun reaches a server on moon."""
    bed.moon.container.spawn(SERVER % port)
    until("the server listens", lambda: bed.moon.container.ok(f"grep -q ':{port:04X} 00000000:0000 0A' /proc/net/tcp"))
    return bed.sun.container.ok(CLIENT % (bed.moon.end.hosts[0], port, bed.sun.end.hosts[0]))


@scenario("protocol-and-port")
def protocol_and_port(bed):
    """One child for ICMP, one for TCP port 22, on one IKE SA; another port is in neither."""
    _children(bed, {
        "icmp": ("10.1.0.0/16[icmp]", "10.2.0.0/16[icmp]"),
        "ssh": ("10.1.0.0/16[tcp/22]", "10.2.0.0/16[tcp]"),
    })
    bed.start()
    moon, _ = bed.up()
    expect(len(moon.children) == 2, f"there are {len(moon.children)} children")
    for peer in (bed.moon, bed.sun):
        bed.ping(peer)
    before = bed.moon.established().children
    expect(_reached(bed, 22), "TCP port 22 is not reached through its child")
    after = {child.name: child for child in bed.moon.established().children}
    old = {child.name: child for child in before}
    expect(after["ssh"].packets_in >= old["ssh"].packets_in + 3, "the connection did not go through its child")
    expect(after["icmp"].packets_in == old["icmp"].packets_in, "the connection went through the other child")
    bed.down()


@scenario("port-range")
def port_range(bed):
    """A child for a range of TCP ports."""
    _children(bed, {"range": ("10.1.0.0/16[tcp/7000-7015]", "10.2.0.0/16[tcp]")})
    bed.start()
    bed.up()
    expect(_reached(bed, 7007), "a port of the range is not reached")
    child = bed.moon.established().children[0]
    expect(child.packets_in >= 3, f"the child counted {child.packets_in} packets")
    bed.down()


@scenario("icmp-types")
def icmp_types(bed):
    """A child for a range of ICMP types, from echo replies (type 0) to echo requests (type 8, code 255 at most)."""
    _children(bed, {"echo": ("10.1.0.0/16[icmp/0-2303]", "10.2.0.0/16[icmp/0-2303]")})
    whole_life(bed)


@scenario("trap-each-its-own", roles=(INITIATOR,), needs_obol=True)
def trap_each_its_own(bed):
    """Each of two traps brings up its own child, on one IKE SA: ICMP the one, TCP port 22 the other."""
    _children(bed, {
        "icmp": ("10.1.0.0/16[icmp]", "10.2.0.0/16[icmp]"),
        "ssh": ("10.1.0.0/16[tcp/22]", "10.2.0.0/16[tcp]"),
    })
    bed.sun_settings.start = "trap"
    bed.start()
    bed.ping(bed.sun, count=1)
    children = [[child.name for child in sa.children] for sa in bed.sun.sas()]
    expect(children == [["icmp"]], f"the ping brought up {children}")
    expect(_reached(bed, 22), "TCP port 22 is not reached through its child")
    moon, _ = bed.agreed()
    expect([child.name for child in moon.children] == ["icmp", "ssh"], f"there are {moon.children}")
    bed.down()


@scenario("delete-child-by-strongswan")
def delete_child_by_strongswan(bed):
    """strongSwan closes the child alone; the IKE SA goes on and brings another one up."""
    _delete_child(bed, "moon")


@scenario("delete-child-by-obol")
def delete_child_by_obol(bed):
    """obol closes the child alone; the IKE SA goes on and brings another one up."""
    _delete_child(bed, "sun")


def _delete_child(bed, by):
    bed.start()
    old, _ = bed.up()
    getattr(bed, by).terminate_child()
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} has no child", lambda: [sa.children for sa in peer.sas()] == [[]], 10)
    new, _ = bed.up()
    expect(old.spis == new.spis, "the IKE SA did not go on")
    expect(old.children[0].spi_in != new.children[0].spi_in, "the child is the old one")
    bed.traffic()
    bed.down()


@scenario("one-child-refused")
def one_child_refused(bed):
    """The child of IKE_AUTH is refused for its selectors; the IKE SA stays, and the next child comes up on it."""
    _children(bed, {"one": ("10.1.1.0/24", "10.2.1.0/24"), "two": ("10.1.0.0/24", "10.2.0.0/24")})
    bed.responder_settings.extra["children"]["one"] = (["192.168.1.0/24"], ["192.168.2.0/24"])
    bed.start()

    def has(children):
        seen = [[[c.name for c in sa.children] for sa in peer.sas() if sa.established] for peer in (bed.moon, bed.sun)]
        return seen == [[children], [children]]

    bed.initiator.initiate_child("one")
    until("both ends have an IKE SA without child", lambda: has([]))
    before = bed.moon.sas()[0].spis
    bed.initiator.initiate_child("two")
    until("both ends have the second child on it", lambda: has(["two"]))
    expect(bed.moon.sas()[0].spis == before, "the IKE SA is another one")
    for peer in (bed.moon, bed.sun):
        bed.ping(peer)
    bed.down()


@scenario("pfs-mismatch-on-rekey", roles=(INITIATOR,), needs_obol=True)
def pfs_mismatch_on_rekey(bed):
    """obol rekeys the child with a key exchange that strongSwan does not want: INVALID_KE_PAYLOAD, and a second try."""
    # Else obol would begin with the key exchange of the IKE SA, which is the right one.
    bed.both(ike="aes128gcm16-prfsha256-x25519")
    bed.sun_settings.esp = "aes128gcm16-x25519-ecp256"
    bed.moon_settings.esp = "aes128gcm16-ecp256"
    bed.prepare_rekey("sun", "child")
    bed.start()
    before, _ = bed.up()
    bed.sun.rekey("child")
    bed.rekeyed(before.children[0])
    requests = bed.requests(exchange=36, source=bed.sun)
    expect(len(requests) == 2, f"{len(requests)} CREATE_CHILD_SA requests, not 2")
    bed.traffic()
    bed.down()


@scenario("pfs-mismatch-by-strongswan", roles=(INITIATOR,), needs_obol=True)
def pfs_mismatch_by_strongswan(bed):
    """strongSwan rekeys the child with a key exchange that obol does not want: INVALID_KE_PAYLOAD, and a second try."""
    bed.moon_settings.esp = "aes128gcm16-x25519-ecp256"
    bed.sun_settings.esp = "aes128gcm16-ecp256"
    bed.start()
    before, _ = bed.up()
    bed.moon.rekey("child")
    bed.rekeyed(before.children[0])
    requests = bed.requests(exchange=36, source=bed.moon)
    expect(len(requests) == 2, f"{len(requests)} CREATE_CHILD_SA requests, not 2")
    bed.traffic()
    bed.down()


@scenario("mode-mismatch", roles=(RESPONDER,), needs_obol=True)
def mode_mismatch(bed):
    """strongSwan asks for a tunnel where obol is to use transport mode: the child is refused, and the log says what differs."""
    for settings in (bed.moon_settings, bed.sun_settings):
        settings.extra = {"host to host": "transport"}
    bed.start()
    done, said = bed.initiator.initiate()
    expect(not done, f"{bed.initiator.kind} says that the child is up: {said}")
    for peer in (bed.moon, bed.sun):
        until(f"{peer.kind} has no child", lambda: not any(sa.children for sa in peer.sas()), 10)
    line = bed.sun.wait_log(r"^.*no Child SA.*$").group(0)
    expect("transport" in line, f"the log does not say what differs: {line}")
    bed.expect_no_esp()


@scenario("first-try-fails", roles=(INITIATOR,), needs_obol=True)
def first_try_fails(bed):
    """The first packet finds no peer; when the peer is there, the next one brings the tunnel up."""
    bed.sun_settings.start = "trap"
    bed.sun_settings.extra["obol"] = {"retransmit_timeout": "300ms", "retransmit_tries": 3}
    bed.start()
    bed.moon.stop()
    expect(bed.unanswered(bed.sun), "a ping was answered although there is no peer")
    bed.until_nothing(bed.sun, 30)
    bed.moon.launch()
    until("a packet brings the tunnel up", lambda: not bed.unanswered(bed.sun), 30)
    bed.agreed()
    bed.traffic()
    bed.check_wire()


@scenario("narrowed-trap", roles=(INITIATOR,), needs_obol=True)
def narrowed_trap(bed):
    """The first packet asks for a net, strongSwan narrows; what was narrowed lasts over rekeys of both SAs."""
    bed.sun_settings.start = "trap"
    bed.moon_settings.extra["narrow"] = True
    bed.prepare_rekey("sun", "child")
    bed.start()
    bed.ping(bed.sun, count=1)
    first, _ = bed.agreed()
    bed.sun.rekey("child")
    bed.rekeyed(first.children[0])
    second, _ = bed.agreed()
    bed.moon.rekey("ike")
    bed.ike_rekeyed(second)
    bed.traffic()
    bed.down()
