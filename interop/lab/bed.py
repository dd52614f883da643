"""One scenario's test bed: two ends on a network of their own, and a capture of the wire."""

import itertools
import os

from . import pcap, wire
from .plan import End, Settings
from .wait import PATIENCE, Failure, expect, until

PING = f"ping -p {pcap.MARKER.hex()}"


class Bed:
    """Two ends, `moon` and `sun`; sun is obol's seat. `role` says what sun is.

    A scenario sets `outer`, `inner` and the settings, calls `start`, and then speaks to the
    peers. Nothing is started before that.
    """

    def __init__(self, place, slot, directory, role, seats, keys, mounts=()):
        self.place = place  # `lab.docker` or `lab.netns`: what hosts are
        self.slot, self.directory, self.role = slot, directory, role
        self.seats, self.keys, self.mounts = seats, keys, mounts
        self.outer, self.inner = 4, (4,)
        self.identities = ("moon.interop.example", "sun.interop.example")
        self.moon_settings, self.sun_settings = Settings(), Settings()
        self.network = self.moon = self.sun = None
        self.peer_version = ""
        self.clear_expected = False
        self.moon_answers_early = False  # in clear, what came by ESP before its routes stood
        self.behind_nat = ()  # `moon`, `sun`: whose IKE and ESP go through a NAT

    # Building and tearing down.

    def start(self):
        """Makes the network and the containers, starts the capture, then both daemons."""
        self.place.remove_leftovers(self.slot)
        self.network = self.place.Network(self.slot)
        ends = self._end("moon", 0, 10), self._end("sun", 1, 20)
        self.moon = self._peer(self.seats[0], *ends, self.moon_settings)
        self.sun = self._peer(self.seats[1], *reversed(ends), self.sun_settings)
        for peer in (self.moon, self.sun):
            peer.addresses()
            if peer.end.name in self.behind_nat:
                wire.put_behind_nat(peer)
        self._capture()
        # Whoever starts its connection by itself comes last, so that it finds the other up.
        for peer in sorted((self.moon, self.sun), key=lambda p: p.settings.start != "none"):
            peer.start()
        self.peer_version = self.moon.version()

    def remove(self):
        """Removes containers and network."""
        self.place.remove_leftovers(self.slot)

    def autopsy(self):
        """Writes what the two ends have at this time into files beside their logs."""
        for peer in filter(None, (self.moon, self.sun)):
            try:
                peer.write("state.txt", peer.container.sh(peer.autopsy, check=False))
            except Exception as error:  # what failed before is what counts
                peer.write("state.txt", str(error))

    def _end(self, name, index, host):
        v4, v6 = f"{self.network.v4}.{host}", f"{self.network.v6}:{host}"
        outer, other = (v4, v6) if self.outer == 4 else (v6, v4)
        nets = {4: f"10.{index + 1}.0.0/16", 6: f"fd00:a{index + 1}::/64"}
        hosts = {4: f"10.{index + 1}.0.1", 6: f"fd00:a{index + 1}::1"}
        return End(
            name, outer, other, (*self.identities, f"{name}.interop.example")[index],
            [nets[family] for family in self.inner], [hosts[family] for family in self.inner],
        )

    def another_client(self, settings):
        """A third end, `carol`, with networks of its own and of the initiator's kind. It is not started."""
        kind = self.seats[1 if self.initiator is self.sun else 0]
        settings.extra.setdefault("remote address", self.initiator.remote_address)
        carol = self._peer(kind, self._end("carol", 2, 30), self.responder.end, settings)
        carol.addresses()
        return carol

    def _peer(self, kind, end, other, settings):
        share = os.path.join(self.directory, end.name)
        os.makedirs(share, exist_ok=True)
        v4, v6 = (end.outer, end.other_outer) if self.outer == 4 else (end.other_outer, end.outer)
        container = self.place.Container(kind.image, self.network, end.name, v4, v6, share, self.mounts)
        return kind(container, end, other, settings, self.keys)

    def _capture(self):
        path = os.path.join(self.sun.share, "wire.pcap")
        self.network.capture(self.sun.container)
        until("tcpdump captures", lambda: os.path.exists(path) and os.path.getsize(path) >= 24)

    # Speaking of the peers.

    @property
    def initiator(self):
        """The end that begins the IKE SA."""
        return self.sun if self.role == "initiator" else self.moon

    @property
    def moon_is_obol(self):
        """Known before `start`."""
        return self.seats[0].kind == "obol"

    @property
    def initiator_name(self):
        """`moon` or `sun`; known before `start`."""
        return "sun" if self.role == "initiator" else "moon"

    @property
    def responder(self):
        """The other one."""
        return self.moon if self.role == "initiator" else self.sun

    @property
    def initiator_settings(self):
        """Before `start`: the settings of the end that will begin."""
        return self.sun_settings if self.role == "initiator" else self.moon_settings

    @property
    def responder_settings(self):
        """Before `start`: the settings of the other end."""
        return self.moon_settings if self.role == "initiator" else self.sun_settings

    def both(self, **values):
        """Sets the same settings at both ends."""
        for settings in (self.moon_settings, self.sun_settings):
            for name, value in values.items():
                setattr(settings, name, value)

    # Steps that most scenarios have.

    def up(self):
        """The initiator brings the child up; both ends agree on what is up."""
        done, said = self.initiator.initiate()
        expect(done, f"{self.initiator.kind} did not bring the child up: {said}")
        return self.agreed()

    def agreed(self, seconds=10):
        """Waits until both ends have one IKE SA with one child and the same SPIs."""

        def check():
            moon, sun = self.moon.established(), self.sun.established()
            same = moon.spis == sun.spis or moon.unique
            expect(same, f"IKE SPIs differ: {moon.spis} and {sun.spis}")
            for a, b in zip(moon.children, sun.children):
                expect((a.spi_in, a.spi_out) == (b.spi_out, b.spi_in), f"ESP SPIs differ: {a} and {b}")
            return moon, sun

        return until("both ends have the same SAs", check, seconds)

    def traffic(self, count=3):
        """Pings both ways, in every inner family; all are answered and counted at both ends."""
        # Twenty seconds: strongSwan lists a rekeyed child for five more seconds, and the next rekey may come.
        both = (self.moon, self.sun)
        before = until("both ends have their children", lambda: [_counters(peer) for peer in both], 20)
        families = len(self.inner)
        for peer, family in itertools.product((self.moon, self.sun), range(families)):
            self.ping(peer, family, count)
        want = 2 * count * families

        def counted():
            for peer, old in zip((self.moon, self.sun), before):
                new = _counters(peer)
                if new.keys() != old.keys():
                    continue  # rekeyed meanwhile: the count began anew
                got = [sum(new[spi][way] - old[spi][way] for spi in new) for way in (0, 1)]
                expect(min(got) >= want, f"{peer.kind} counted {got} packets in and out, not {want}")
            return True

        until("both ends count the packets", counted, 20)

    def reauthenticated(self, old, seconds=15):
        """Waits until both ends have another IKE SA than `old` with another child."""

        def check():
            moon, _ = self.agreed(0)
            return moon.is_other_than(old) and moon.children[0].spi_in != old.children[0].spi_in

        until("both ends have a new IKE SA with a new child", check, seconds)

    def ping(self, peer, family=0, count=3, size=56, to=None):
        """Pings from `peer` to the host of the other end, or of `to`; every one must be answered."""
        own, far = peer.end.hosts[family], (to.end if to else peer.other).hosts[family]
        # For the last answer ping waits as long as between two, or twice the longest round trip.
        interval = max(0.3, 0.1 * PATIENCE)
        command = f"{PING} -s {size} -c {count} -i {interval} -W 5 -I {own} {far}"
        said = peer.container.sh(command, check=False)
        expect(f" {count} received" in said, f"ping from {peer.end.name}: {said}")

    def unanswered(self, peer):
        """Whether pings from `peer` get no answer."""
        own, far = peer.end.hosts[0], peer.other.hosts[0]
        return not peer.container.ok(f"{PING} -c 5 -i 0.1 -W 1 -I {own} {far}")

    def start_pinging(self, peer, count, interval=0.05):
        """Begins to ping in the background."""
        own, far = peer.end.hosts[0], peer.other.hosts[0]
        command = f"{PING} -q -c {count} -i {interval * PATIENCE} -W 2 -I {own} {far}"
        return peer.container.popen(command)

    @staticmethod
    def answered(pinging):
        """Waits for the end of a ping and returns how many were sent and answered."""
        said, _ = pinging.communicate(timeout=60 * PATIENCE)
        words = said.replace(",", "").split()
        if "transmitted" not in words:
            raise Failure(f"ping said: {said}")
        return int(words[words.index("packets") - 1]), int(words[words.index("received") - 1])

    def down(self, peer=None):
        """`peer`, by default the initiator, closes the connection; nothing is left at either end."""
        (peer or self.initiator).terminate()
        for end in (self.moon, self.sun):
            self.until_nothing(end)

    @staticmethod
    def until_nothing(peer, seconds=10):
        """Waits until `peer` has no SA."""
        until(f"{peer.kind} at {peer.end.name} has no SA", peer.nothing, seconds)

    # Rekeying.

    def prepare_rekey(self, end, kind):
        """Before `start`: `end` ("moon" or "sun") will be asked to rekey."""
        index = ("moon", "sun").index(end)
        self.seats[index].prepare_rekey((self.moon_settings, self.sun_settings)[index], kind)

    def rekeyed(self, old, seconds=15):
        """Waits until both ends have another child than `old`, and only that."""

        def check():
            moon, _ = self.agreed(0)
            new = moon.children[0]
            return new.spi_in != old.spi_in and new.spi_out != old.spi_out

        until("both ends have a rekeyed child", check, seconds)

    def ike_rekeyed(self, old, seconds=15):
        """Waits until both ends have another IKE SA than `old`, with the same child."""

        def check():
            moon, _ = self.agreed(0)
            same = moon.children[0].spi_in == old.children[0].spi_in
            return moon.is_other_than(old) and same

        until("both ends have a rekeyed IKE SA with its child", check, seconds)

    # What was on the wire.

    def wire(self):
        """The packets captured so far."""
        return list(pcap.packets(os.path.join(self.sun.share, "wire.pcap")))

    def requests(self, exchange, source=None):
        """The different IKE requests of an exchange type, from `source` or from either end.

        Repetitions are not counted. charon repeats a restarted IKE_SA_INIT when the answer comes
        before it has put its state away ("ignoring request with ID 0, already processing").
        """
        ends = {peer.end.outer for peer in ([source] if source else [self.moon, self.sun])}
        return {
            packet.ike
            for packet in self.wire()
            if packet.kind == "ike" and packet.source in ends
            and packet.ike[18] == exchange and not packet.ike[19] & 0x20
        }

    def expect_no_esp(self):
        """No ESP packet was sent by either end."""
        esp = [packet for packet in self.wire() if packet.kind == "esp"]
        expect(not esp, f"{len(esp)} ESP packets were sent")

    def check_wire(self):
        """Nothing but IKE and ESP (and errors about them) was on the wire."""
        seen = self.wire()
        if self.moon_answers_early:
            hosts = self.moon.end.hosts
            seen = [packet for packet in seen if not (packet.source in hosts and packet.is_echo_reply)]
        clear = [packet for packet in seen if packet.kind == "clear"]
        if clear and not self.clear_expected:
            first = clear[0]
            raise Failure(
                f"{len(clear)} packets in clear, the first from {first.source} to {first.destination}, "
                f"protocol {first.protocol}: {first.frame[:96].hex()}"
            )
        if not self.clear_expected:
            marked = [packet for packet in seen if pcap.MARKER in packet.frame]
            expect(not marked, f"{len(marked)} packets show the ping's data in clear")
        return seen


def _counters(peer):
    """Inbound SPI -> packets in and out, of every child."""
    return {c.spi_in: (c.packets_in, c.packets_out) for c in peer.established().children}
