//! The states: what the second host is in when the message comes.

use std::time::Duration;

use obol_ike::config::{Path, StartAction};
use obol_ike::event::{Command, EspSpi, IkeSpi};
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{A, B, HOSTS, PODS, Setup, child, pods};

/// A state by name.
pub(crate) struct State {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) means: &'static str,
    /// Brings two hosts into it.
    build: fn() -> At,
}

/// Two hosts, the second in the state.
pub(crate) struct At {
    /// How it was built.
    build: fn() -> At,
    /// Both.
    pub(crate) pair: Pair,
    /// SPIs of the IKE SA that the message is for; zeros if there is none.
    pub(crate) spis: (IkeSpi, IkeSpi),
    /// The IKE SAs to watch.
    pub(crate) watched: Vec<(IkeSpi, IkeSpi)>,
    /// Where the message comes from and goes to, as the second host sees it.
    pub(crate) path: Path,
    /// SPI of the Child SA's packets to the first host, if there is one.
    pub(crate) theirs: Option<EspSpi>,
}

impl State {
    /// Two hosts, the second in this state; the same ones every time.
    pub(crate) fn enter(&self) -> At {
        At {
            build: self.build,
            ..(self.build)()
        }
    }
}

impl At {
    /// The same state once more.
    pub(crate) fn again(&self) -> Self {
        Self {
            build: self.build,
            ..(self.build)()
        }
    }
}

const HOP: Duration = Duration::from_millis(10);

/// All states.
pub(crate) const STATES: &[State] = &[
    State {
        name: "nothing",
        means: "No IKE SA.",
        build: nothing,
    },
    State {
        name: "initiator: IKE_SA_INIT sent",
        means: "We asked; no answer yet.",
        build: init_sent,
    },
    State {
        name: "initiator: IKE_AUTH sent",
        means: "Keys are there, the peer is not proven.",
        build: auth_sent,
    },
    State {
        name: "initiator: IKE_SESSION_RESUME sent",
        means: "We lost an IKE SA, and presented its ticket; no answer yet.",
        build: ticket_sent,
    },
    State {
        name: "initiator: IKE_AUTH of a resumed IKE SA sent",
        means: "The ticket was taken; keys are there, the peer is not proven.",
        build: resumed_auth_sent,
    },
    State {
        name: "responder: half-open",
        means: "We answered IKE_SA_INIT.",
        build: half_open,
    },
    State {
        name: "responder: half-open by a ticket",
        means: "We answered IKE_SESSION_RESUME of a peer that lost its IKE SA, as we did.",
        build: ticket_taken,
    },
    State {
        name: "responder: IKE_AUTH in work",
        means: "The request came; the secret is being looked up.",
        build: auth_in_work,
    },
    State {
        name: "responder: refused",
        means: "IKE_AUTH was answered with an error, which may have to be repeated.",
        build: refused,
    },
    State {
        name: "up, initiator",
        means: "Established; we began; nothing is open.",
        build: up_initiator,
    },
    State {
        name: "up, responder",
        means: "Established; the peer began; nothing is open.",
        build: up_responder,
    },
    State {
        name: "up without a child",
        means: "Established; the only Child SA was deleted.",
        build: childless,
    },
    State {
        name: "creating a child",
        means: "Our CREATE_CHILD_SA for another Child SA is open.",
        build: creating,
    },
    State {
        name: "rekeying the child",
        means: "Our CREATE_CHILD_SA for a Child SA's rekey is open.",
        build: rekeying_child,
    },
    State {
        name: "rekeying the IKE SA",
        means: "Our CREATE_CHILD_SA for the IKE SA's rekey is open.",
        build: rekeying_ike,
    },
    State {
        name: "deleting the child",
        means: "Our delete of the Child SA is open.",
        build: deleting_child,
    },
    State {
        name: "deleting the IKE SA",
        means: "Our delete of the IKE SA is open.",
        build: deleting_ike,
    },
    State {
        name: "asking for a sign of life",
        means: "Our empty INFORMATIONAL is open.",
        build: asking,
    },
    State {
        name: "answering a child rekey",
        means: "The peer's CREATE_CHILD_SA waits for the data plane.",
        build: answering,
    },
    State {
        name: "both rekey the child",
        means: "Our rekey of the child is open, and the peer's was answered.",
        build: both_rekey_child,
    },
    State {
        name: "both rekey the IKE SA",
        means: "Our rekey of the IKE SA is open, and the peer's was answered: contested. The message is for the old one.",
        build: both_rekey_ike,
    },
    State {
        name: "undecided successor",
        means: "The same; the message is for the peer's new IKE SA, which may lose.",
        build: undecided,
    },
    State {
        name: "replaced by the peer's rekey",
        means: "The peer rekeyed the IKE SA and has to delete the old one, which the message is for.",
        build: replaced,
    },
    State {
        name: "gone",
        means: "We gave the IKE SA up; the peer still has it.",
        build: gone,
    },
];

fn path() -> Path {
    Path {
        local: (B, 500).into(),
        remote: (A, 500).into(),
    }
}

fn setup() -> Setup {
    let second = child(
        "second",
        obol_ike::config::Mode::Tunnel,
        "172.17.1.0/24",
        "172.17.2.0/24",
        StartAction::None,
    );
    Setup::new(7).children(vec![pods(StartAction::None), second])
}

fn initiate(pair: &mut Pair, end: End, child: &str) {
    let command = Command::Initiate {
        connection: HOSTS.to_owned(),
        child: Some(child.to_owned()),
        local: None,
    };
    pair.command(end, command).expect("it exists");
}

/// In the state that this pair is in.
fn at(pair: Pair) -> At {
    let sas = pair.b.endpoint.status(pair.now);
    let watched: Vec<_> = sas.iter().map(|sa| (sa.spi_i, sa.spi_r)).collect();
    let theirs = sas
        .iter()
        .flat_map(|sa| &sa.children)
        .map(|child| child.info.spi_out)
        .next();
    let path = sas.first().map_or(path(), |sa| sa.path);
    At {
        build: nothing,
        spis: watched.first().copied().unwrap_or((IkeSpi(0), IkeSpi(0))),
        watched,
        path,
        theirs,
        pair,
    }
}

/// Both hosts with an IKE SA and a Child SA that this end began.
fn established(by: End) -> Pair {
    let mut pair = setup().pair(7);
    initiate(&mut pair, by, PODS);
    pair.run_until_idle();
    pair.assert_up(1);
    pair
}

/// The second host was given a command, and nobody has heard of it yet.
fn commanded(pair: &mut Pair, end: End, command: Command) {
    pair.command(end, command).expect("it is up");
}

fn rekey_child() -> Command {
    Command::RekeyChild {
        connection: HOSTS.to_owned(),
        child: PODS.to_owned(),
    }
}

fn rekey_ike() -> Command {
    Command::RekeyIke {
        connection: HOSTS.to_owned(),
    }
}

fn terminate(child: Option<&str>) -> Command {
    Command::Terminate {
        connection: HOSTS.to_owned(),
        child: child.map(str::to_owned),
    }
}

fn nothing() -> At {
    at(setup().pair(7))
}

fn init_sent() -> At {
    let mut pair = setup().pair(7);
    initiate(&mut pair, End::B, PODS);
    at(pair)
}

fn auth_sent() -> At {
    let mut pair = setup().pair(7);
    initiate(&mut pair, End::B, PODS);
    pair.run_for(2 * HOP);
    at(pair)
}

/// Both hosts with an IKE SA that this end began, has a ticket of, and has lost since.
fn lost(by: End) -> Pair {
    let mut setup = setup();
    setup.connection.resumption.enabled = true;
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = setup.pair(7);
    initiate(&mut pair, by, PODS);
    pair.run_until_idle();
    pair.assert_up(1);
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(300));
    pair.net.partitioned = false;
    pair.net.sent.clear();
    pair
}

fn ticket_sent() -> At {
    let mut pair = lost(End::B);
    initiate(&mut pair, End::B, PODS);
    at(pair)
}

fn resumed_auth_sent() -> At {
    let mut pair = lost(End::B);
    initiate(&mut pair, End::B, PODS);
    pair.run_for(2 * HOP);
    at(pair)
}

fn ticket_taken() -> At {
    let mut pair = lost(End::A);
    initiate(&mut pair, End::A, PODS);
    pair.run_for(2 * HOP);
    at(pair)
}

fn half_open() -> At {
    let mut pair = setup().pair(7);
    initiate(&mut pair, End::A, PODS);
    pair.run_for(2 * HOP);
    at(pair)
}

fn auth_in_work() -> At {
    let mut pair = setup().pair(7);
    pair.b.answer_delay = Duration::from_secs(3600);
    initiate(&mut pair, End::A, PODS);
    pair.run_for(3 * HOP);
    at(pair)
}

fn refused() -> At {
    let mut setup = setup();
    setup.secret_a = b"not what the other has";
    let mut pair = setup.pair(7);
    initiate(&mut pair, End::A, PODS);
    pair.run_for(2 * HOP);
    let mut found = at(pair);
    found.pair.run_for(HOP);
    found
}

fn up_initiator() -> At {
    at(established(End::B))
}

fn up_responder() -> At {
    at(established(End::A))
}

fn childless() -> At {
    let mut pair = established(End::A);
    commanded(&mut pair, End::A, terminate(Some(PODS)));
    pair.run_until_idle();
    at(pair)
}

fn creating() -> At {
    let mut pair = established(End::B);
    initiate(&mut pair, End::B, "second");
    at(pair)
}

fn rekeying_child() -> At {
    let mut pair = established(End::B);
    commanded(&mut pair, End::B, rekey_child());
    at(pair)
}

fn rekeying_ike() -> At {
    let mut pair = established(End::B);
    commanded(&mut pair, End::B, rekey_ike());
    at(pair)
}

fn deleting_child() -> At {
    let mut pair = established(End::B);
    commanded(&mut pair, End::B, terminate(Some(PODS)));
    at(pair)
}

fn deleting_ike() -> At {
    let mut pair = established(End::B);
    commanded(&mut pair, End::B, terminate(None));
    at(pair)
}

fn asking() -> At {
    let mut setup = setup();
    setup.connection.dpd_delay = Some(Duration::from_secs(30));
    let mut pair = setup.pair(7);
    initiate(&mut pair, End::B, PODS);
    pair.run_until_idle();
    pair.net.partitioned = true;
    pair.run_for(Duration::from_secs(31));
    pair.net.partitioned = false;
    at(pair)
}

fn answering() -> At {
    let mut pair = established(End::B);
    pair.b.answer_delay = Duration::from_secs(3600);
    commanded(&mut pair, End::A, rekey_child());
    pair.run_for(HOP);
    at(pair)
}

fn both(command: fn() -> Command) -> Pair {
    let mut pair = established(End::B);
    commanded(&mut pair, End::A, command());
    commanded(&mut pair, End::B, command());
    pair.run_for(HOP);
    pair
}

fn both_rekey_child() -> At {
    at(both(rekey_child))
}

fn both_rekey_ike() -> At {
    at(both(rekey_ike))
}

fn undecided() -> At {
    // The first host has its new IKE SA only when it has the second one's reply.
    let mut pair = both(rekey_ike);
    let reply = pair
        .net
        .sent
        .iter()
        .rfind(|packet| packet.from.ip() == B && packet.datagram[19] & 0x20 != 0)
        .expect("a reply")
        .clone();
    let path = Path {
        local: reply.to,
        remote: reply.from,
    };
    let now = pair.now;
    let taken = pair.a.endpoint.handle_datagram(now, path, &reply.datagram);
    assert_eq!(taken, Ok(()));
    pair.run_for(Duration::ZERO);
    let mut found = at(pair);
    found.spis = found.watched.last().copied().expect("a new IKE SA");
    found
}

fn replaced() -> At {
    let mut pair = established(End::B);
    commanded(&mut pair, End::A, rekey_ike());
    pair.run_for(2 * HOP);
    at(pair)
}

fn gone() -> At {
    let mut found = at(established(End::B));
    found.pair.net.partitioned = true;
    commanded(&mut found.pair, End::B, terminate(None));
    found.pair.run_for(Duration::from_secs(600));
    found.pair.net.partitioned = false;
    found
}

/// A Child SA that nobody has.
pub(crate) const NO_CHILD: EspSpi = EspSpi(0x0bad_0bad);
