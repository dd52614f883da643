"""What both configurations of a scenario are written from."""

from dataclasses import dataclass, field

CONNECTION = "net"
CHILD = "nets"
SECRET = "a shared secret that only this lab knows"


@dataclass
class End:
    """One end of the tunnel, as either configuration sees it."""

    name: str
    outer: str
    other_outer: str  # the address of the other family
    identity: str
    nets: list
    hosts: list  # our own address in each of `nets`


@dataclass
class Settings:
    """How one end is configured. `None` leaves the peer's own default."""

    auth: str = "psk"  # how this end proves itself: psk | rsa | ed25519 | p256 | p384 | p521
    remote_auth: str | None = None  # how the other end does; `None`: the same way
    secret: str = SECRET
    ike: str | None = None  # one proposal, or several with commas between them
    esp: str | None = None
    mode: str | None = None  # tunnel | transport
    start: str = "none"  # none | trap | start
    encap: bool = False
    any_remote: bool = False
    ike_rekey_seconds: int | None = None
    child_rekey_seconds: int | None = None
    child_rekey_packets: int | None = None
    cookies: bool = False  # ask for cookies
    dpd_seconds: int | None = None
    log: int = 2  # charon's log level
    extra: dict = field(default_factory=dict)  # file or implementation -> more of its own words

    @property
    def ike_proposals(self):
        """Proposals for the IKE SA, the best one first."""
        return self.ike.split(",") if self.ike else []

    @property
    def esp_proposals(self):
        """Proposals for Child SAs, the best one first."""
        return self.esp.split(",") if self.esp else []

    @property
    def peer_auth(self):
        """How the other end proves itself."""
        return self.remote_auth or self.auth


@dataclass
class ChildSa:
    """A Child SA as a peer reports it. SPIs are hexadecimal, without leading zeros."""

    name: str
    installed: bool
    spi_in: str
    spi_out: str
    packets_in: int
    packets_out: int
    encap: bool
    suite: str


@dataclass
class IkeSa:
    """An IKE SA as a peer reports it."""

    established: bool
    spi_i: str
    spi_r: str
    suite: str
    children: list
    unique: str = ""  # a name that no other one has, of a peer that does not tell SPIs

    @property
    def spis(self):
        return self.spi_i, self.spi_r

    def is_other_than(self, old):
        """Whether it is not the IKE SA that the same peer reported as `old`."""
        if self.unique:
            return self.unique != old.unique
        return self.spi_i != old.spi_i and self.spi_r != old.spi_r


def spi(text):
    """An SPI in the form in which the two ends are compared."""
    return text.lower().removeprefix("0x").lstrip("0") or "0"
