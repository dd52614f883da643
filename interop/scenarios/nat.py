"""NATs between the two ends: who is behind one, mappings that change, ports that are forwarded."""

import copy

from lab import wire
from lab.wait import expect, until

from . import scenario


def _through(bed, behind):
    """`behind` one NAT or two; the responder is found by the address that its NAT forwards."""
    bed.behind_nat = behind
    names = {"moon": bed.moon_settings, "sun": bed.sun_settings}
    hosts = {"moon": 10, "sun": 20}
    for name in behind:
        other = names["sun" if name == "moon" else "moon"]
        if bed.initiator_name == name:
            other.any_remote = True
        else:
            other.extra["remote address"] = wire.outer_address(f"172.29.{100 + bed.slot}.{hosts[name]}")
    bed.start()
    moon, sun = bed.up()
    expect(moon.children[0].encap and sun.children[0].encap, "ESP is not encapsulated")
    bed.traffic()
    ike = [packet for packet in bed.wire() if packet.kind == "ike"]
    for name in behind:
        outer = wire.outer_address(getattr(bed, name).end.outer)
        expect(any(outer in (p.source, p.destination) for p in ike), f"nobody saw the address of {name}'s NAT")


@scenario("nat-strongswan")
def nat_strongswan(bed):
    """strongSwan is behind a NAT that gives it another address and port."""
    _through(bed, ("moon",))
    bed.down()


@scenario("nat-obol")
def nat_obol(bed):
    """obol is behind a NAT that gives it another address and port."""
    _through(bed, ("sun",))
    bed.down()


@scenario("nat-both")
def nat_both(bed):
    """Both ends are behind a NAT; the responder's forwards its ports."""
    _through(bed, ("moon", "sun"))
    bed.down()


OBOL_FOR_CAROL = """
[connections.carol]
local = { auth = "psk", id = "sun.interop.example" }
remote = { auth = "psk", id = "carol.interop.example" }
[connections.carol.children.nets]
local_ts = ["10.2.0.0/16"]
remote_ts = ["10.3.0.0/16"]
[secrets.carol]
type = "psk"
ids = ["sun.interop.example", "carol.interop.example"]
secret = "what only carol shares with the gateway"
"""
SWANCTL_FOR_CAROL = """
carol {
  version = 2
  local { auth = psk
    id = moon.interop.example
  }
  remote { auth = psk
    id = carol.interop.example
  }
  children { nets { local_ts = 10.1.0.0/16
      remote_ts = 10.3.0.0/16
  } }
}
"""
SECRET_OF_CAROL = """
ike-carol {
  id-gateway = moon.interop.example
  id-carol = carol.interop.example
  secret = "what only carol shares with the gateway"
}
"""


@scenario("nat-two-clients", needs_obol=True)
def two_clients(bed):
    """Two clients behind the same NAT, each with its own secret; idle, they keep their mappings by keepalives."""
    bed.responder_settings.any_remote = True
    bed.sun_settings.extra["obol toml"] = OBOL_FOR_CAROL if bed.initiator_name == "moon" else ""
    if bed.initiator_name == "sun":
        bed.moon_settings.extra["swanctl connections"] = SWANCTL_FOR_CAROL
        bed.moon_settings.extra["swanctl secrets"] = SECRET_OF_CAROL
    bed.start()
    settings = copy.deepcopy(bed.initiator_settings)
    settings.secret, settings.extra["obol toml"] = "what only carol shares with the gateway", ""
    carol, gateway = bed.another_client(settings), bed.responder
    clients = (bed.initiator, carol)
    wire.NatBox(bed, clients, gateway)
    carol.start()
    for client in clients:
        done, said = client.initiate()
        expect(done, f"{client.end.name} did not bring its child up: {said}")

    def agreed():
        theirs = {sa.spis: sa.children[0] for sa in gateway.sas() if sa.established and len(sa.children) == 1}
        for client in clients:
            own = client.established()
            child = theirs.get(own.spis)
            expect(child and child.spi_in == own.children[0].spi_out, f"{client.end.name} has an SA that the gateway has not")
            expect(child.encap, "ESP is not encapsulated")
        return len(theirs) == 2

    until("the gateway has the same SAs as both clients", agreed)
    for client in clients:
        bed.ping(client)
        bed.ping(gateway, to=client)

    def kept():
        """The wire of sun is captured: it shows its own keepalives, or those of both clients."""
        sources = {(packet.source, packet.source_port) for packet in bed.wire() if packet.kind == "keepalive"}
        return len(sources) >= (1 if bed.initiator is bed.sun else 2)

    until("the clients send keepalives", kept, 40)
    for client in clients:
        bed.ping(gateway, to=client)
        client.terminate()
    for peer in (*clients, gateway):
        bed.until_nothing(peer)


@scenario("nat-reboots")
def nat_reboots(bed):
    """The NAT before the client forgets its mappings: the client notices, and the SAs follow it to another port."""
    bed.responder_settings.any_remote = True
    bed.initiator_settings.dpd_seconds = 2
    bed.start()
    box = wire.NatBox(bed, [bed.initiator], bed.responder)
    before, _ = bed.up()
    bed.traffic()
    box.reboot()
    # Both directions: the gateway sends to where the client is now.
    for peer in (bed.initiator, bed.responder):
        until("a ping is answered", lambda peer=peer: not bed.unanswered(peer), 30)
    after, _ = bed.agreed()
    expect(after.spis == before.spis, "the IKE SA is another one")
    if bed.responder is bed.sun:  # whose wire is captured
        ports = {packet.source_port for packet in bed.wire() if packet.source == box.address}
        expect(min(ports) < 30000 <= max(ports), f"the client did not come from another port: {ports}")
    bed.traffic()
    bed.down()
