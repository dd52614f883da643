//! What one end can live through, as a tree. An endpoint without clock and randomness of its own
//! is a function of what it was told, so that each history is lived once, however many schedules
//! of the whole pass through it; and none has to be cloned, since it can be lived again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{OTHER, Op, setup};
use crate::config::Path;
use crate::event::{Answer, Ask, AskId, ChildSaId, ChildSaInfo, Command, EspKeys, Event, Output};
use crate::testing::pair::{End, Node};
use crate::testing::setup::{A, B, HOSTS, PODS};
use crate::timer::TimerKind;

/// A datagram that was ever sent.
pub(super) type Mail = u32;
/// A history.
pub(super) type Lived = u32;

/// Between two inputs.
const TICK: Duration = Duration::from_millis(1);
/// Endpoints that are kept to live on, at most.
const MAX_ALIVE: usize = 4096;

/// One thing that an end is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Input {
    Begin(Op),
    Deliver(Mail),
    Timer,
    /// The data plane, which does things in order, says that it has done the first of them.
    Answer,
    /// The data plane opened the first packet of this SA.
    Used(ChildSaId),
}

/// An input, when it comes, and whether the data plane takes its time over what it asks for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Step {
    pub(super) at: Duration,
    pub(super) input: Input,
    pub(super) late: bool,
}

/// A direction of a Child SA as data planes see it: two that fit have all of it in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Way {
    pub(super) spi: u32,
    digest: u64,
}

/// What can be seen of an end after a step.
#[derive(Default)]
pub(super) struct View {
    pub(super) sent: Vec<Mail>,
    pub(super) deadline: Option<(Duration, TimerKind)>,
    /// Answers of the data plane that are still to come.
    pub(super) held: usize,
    /// The step asked something of the data plane.
    pub(super) asked: bool,
    /// By child: what new packets go out with.
    pub(super) current: BTreeMap<String, Way>,
    pub(super) outbound: Vec<Way>,
    pub(super) inbound: Vec<(ChildSaId, Way)>,
    /// Inbound SAs on which no packet came yet.
    pub(super) unused: Vec<ChildSaId>,
    /// SPIs of its IKE SAs.
    pub(super) ikes: Vec<(u64, u64)>,
    /// What must not be at rest.
    pub(super) unrest: Vec<String>,
    /// The endpoint panicked.
    pub(super) broken: Option<String>,
    /// What it told, for whoever reads a schedule.
    pub(super) events: Vec<String>,
}

struct Branch {
    parent: Option<(Lived, Step)>,
    seed: u64,
    view: View,
    alive: Option<Box<Alive>>,
}

/// An endpoint, and the host around it.
struct Alive {
    node: Node,
    end: End,
    begun: Instant,
    now: Duration,
    held: VecDeque<(AskId, Answer)>,
    used: Vec<ChildSaId>,
}

/// All datagrams that were ever sent.
#[derive(Default)]
pub(super) struct Mails {
    octets: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, Mail>,
}

/// All histories of one end.
pub(super) struct Tree {
    end: End,
    begun: Instant,
    branches: Vec<Branch>,
    next: HashMap<(Lived, Step), Lived>,
    alive: usize,
}

impl Mails {
    pub(super) fn octets(&self, mail: Mail) -> &[u8] {
        &self.octets[mail as usize]
    }

    fn id(&mut self, octets: &[u8]) -> Mail {
        if let Some(id) = self.ids.get(octets) {
            return *id;
        }
        let id = self.octets.len() as Mail;
        self.octets.push(octets.to_vec());
        self.ids.insert(octets.to_vec(), id);
        id
    }
}

impl Tree {
    pub(super) fn new(end: End, begun: Instant) -> Self {
        Self {
            end,
            begun,
            branches: Vec::new(),
            next: HashMap::new(),
            alive: 0,
        }
    }

    /// A host that has lived through nothing. `seed` decides all its random draws.
    pub(super) fn root(&mut self, seed: u64) -> Lived {
        let alive = Alive::new(self.end, self.begun, seed);
        self.branches.push(Branch {
            parent: None,
            seed,
            view: alive.view(),
            alive: None,
        });
        (self.branches.len() - 1) as Lived
    }

    pub(super) fn view(&self, lived: Lived) -> &View {
        &self.branches[lived as usize].view
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.branches.len()
    }

    /// All that was sent in a history, in order.
    pub(super) fn sent(&self, lived: Lived) -> Vec<Mail> {
        let (root, steps) = self.steps(lived);
        let mut sent = self.view(root).sent.clone();
        let mut at = root;
        for step in steps {
            at = self.next[&(at, step)];
            sent.extend(&self.view(at).sent);
        }
        sent
    }

    /// The history that goes on with this step.
    pub(super) fn extend(&mut self, mails: &mut Mails, lived: Lived, step: Step) -> Lived {
        if let Some(next) = self.next.get(&(lived, step)) {
            return *next;
        }
        let mut alive = match self.branches[lived as usize].alive.take() {
            Some(alive) => {
                self.alive -= 1;
                alive
            }
            None => self.relive(mails, lived),
        };
        let view = alive.live(mails, step);
        let keep = view.broken.is_none() && self.alive < MAX_ALIVE;
        self.alive += usize::from(keep);
        self.branches.push(Branch {
            parent: Some((lived, step)),
            seed: self.branches[lived as usize].seed,
            view,
            alive: keep.then_some(alive),
        });
        let next = (self.branches.len() - 1) as Lived;
        self.next.insert((lived, step), next);
        next
    }

    fn steps(&self, lived: Lived) -> (Lived, Vec<Step>) {
        let (mut at, mut steps) = (lived, Vec::new());
        while let Some((parent, step)) = self.branches[at as usize].parent {
            steps.push(step);
            at = parent;
        }
        steps.reverse();
        (at, steps)
    }

    /// Lives a history again.
    fn relive(&self, mails: &mut Mails, lived: Lived) -> Box<Alive> {
        let (mut at, steps) = self.steps(lived);
        let mut alive = Box::new(Alive::new(
            self.end,
            self.begun,
            self.branches[at as usize].seed,
        ));
        for step in steps {
            at = self.next[&(at, step)];
            let view = alive.live(mails, step);
            assert_eq!(view.sent, self.view(at).sent, "not the same history again");
        }
        alive
    }
}

impl Alive {
    fn new(end: End, begun: Instant, seed: u64) -> Self {
        let pair = setup(seed).pair(seed);
        let node = match end {
            End::A => pair.a,
            End::B => pair.b,
        };
        Self {
            node,
            end,
            begun,
            now: Duration::ZERO,
            held: VecDeque::new(),
            used: Vec::new(),
        }
    }

    fn live(&mut self, mails: &mut Mails, step: Step) -> View {
        self.now = step.at.max(self.now + TICK);
        let mut sent = Vec::new();
        let lived = catch_unwind(AssertUnwindSafe(|| self.act(mails, step, &mut sent)));
        let mut view = match lived {
            Ok(asked) => View {
                asked,
                ..self.view()
            },
            Err(panic) => View {
                broken: Some(words(&*panic)),
                ..View::default()
            },
        };
        view.sent = sent.iter().map(|octets| mails.id(octets)).collect();
        view.events = self.node.events.drain(..).map(told).collect();
        view
    }

    /// Does a step; says whether it asked something of the data plane.
    fn act(&mut self, mails: &Mails, step: Step, sent: &mut Vec<Vec<u8>>) -> bool {
        let now = self.begun + self.now;
        let endpoint = &mut self.node.endpoint;
        match step.input {
            Input::Begin(op) => {
                // Another schedule may have left nothing to do it with.
                let _ = endpoint.handle_command(now, op.command());
            }
            Input::Deliver(mail) => {
                let (local, remote) = match self.end {
                    End::A => (A, B),
                    End::B => (B, A),
                };
                let path = Path {
                    local: (local, 500).into(),
                    remote: (remote, 500).into(),
                };
                let _ = endpoint.handle_datagram(now, path, mails.octets(mail));
            }
            Input::Timer => endpoint.handle_timeout(now),
            Input::Answer => {
                if let Some((id, answer)) = self.held.pop_front() {
                    endpoint.handle_answer(now, id, answer);
                }
            }
            Input::Used(id) => {
                self.used.push(id);
                let _ = endpoint.handle_command(now, Command::InboundUsed(id));
            }
        }
        self.drain(now, step.late, sent)
    }

    fn drain(&mut self, now: Instant, late: bool, sent: &mut Vec<Vec<u8>>) -> bool {
        let mut asked = false;
        while let Some(output) = self.node.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => sent.push(transmit.datagram.to_vec()),
                Output::Event(event) => self.node.events.push(event),
                Output::Ask(id, ask) => {
                    let of_plane = !matches!(ask, Ask::Psk { .. } | Ask::Sign { .. });
                    asked |= of_plane;
                    let answer = self.node.answer(ask);
                    if of_plane && (late || !self.held.is_empty()) {
                        self.held.push_back((id, answer));
                    } else {
                        self.node.endpoint.handle_answer(now, id, answer);
                    }
                }
            }
        }
        asked
    }

    fn view(&self) -> View {
        let plane = &self.node.plane;
        let out = |id: &ChildSaId| {
            let sa = plane.outbound.get(id)?;
            Some(way(&sa.info, &sa.keys, sa.info.spi_out.0, true))
        };
        let inbound: Vec<(ChildSaId, Way)> = plane
            .inbound
            .iter()
            .map(|(id, sa)| (*id, way(&sa.info, &sa.keys, sa.info.spi_in.0, false)))
            .collect();
        let unused = |(id, _): &(ChildSaId, Way)| (!self.used.contains(id)).then_some(*id);
        let timeout = self.node.endpoint.poll_timeout();
        let status = self.node.endpoint.status(self.begun + self.now);
        let mut ikes: Vec<_> = status.iter().map(|sa| (sa.spi_i.0, sa.spi_r.0)).collect();
        ikes.sort_unstable();
        View {
            deadline: timeout.map(|(at, kind)| (at - self.begun, kind)),
            held: self.held.len(),
            current: plane
                .current
                .iter()
                .filter_map(|((_, child), id)| Some((child.clone(), out(id)?)))
                .collect(),
            outbound: plane.outbound.keys().filter_map(out).collect(),
            unused: inbound.iter().filter_map(unused).collect(),
            inbound,
            ikes,
            unrest: self.unrest(),
            ..View::default()
        }
    }

    /// What must not be at rest: things under way, and a data plane that differs.
    fn unrest(&self) -> Vec<String> {
        let mut found = self.node.endpoint.leftovers();
        let plane = &self.node.plane;
        let status = self.node.endpoint.status(self.begun + self.now);
        let known = status.iter().flat_map(|sa| &sa.children);
        let mut known: Vec<ChildSaId> = known.map(|child| child.info.id).collect();
        known.sort();
        let installed: Vec<ChildSaId> = plane.inbound.keys().copied().collect();
        if known != installed {
            found.push(format!("knows of {known:?}, has installed {installed:?}"));
        }
        let mut names: Vec<&str> = plane.inbound.values().map(|sa| &*sa.info.child).collect();
        names.sort_unstable();
        if names.windows(2).any(|two| two[0] == two[1]) {
            found.push(format!("a child is up twice: {names:?}"));
        }
        if plane.current.len() != names.len() {
            found.push("a child has no way out".to_owned());
        }
        found
    }
}

impl Op {
    fn command(self) -> Command {
        let connection = HOSTS.to_owned();
        let child = PODS.to_owned();
        let initiate = |child: &str| Command::Initiate {
            connection: HOSTS.to_owned(),
            child: Some(child.to_owned()),
            local: None,
        };
        match self {
            Self::RekeyChild => Command::RekeyChild { connection, child },
            Self::RekeyIke => Command::RekeyIke { connection },
            Self::DeleteChild => Command::Terminate {
                connection,
                child: Some(child),
            },
            Self::DeleteIke => Command::Terminate {
                connection,
                child: None,
            },
            Self::CreateChild => initiate(OTHER),
            Self::FirstContact => initiate(PODS),
        }
    }
}

/// What the two ends of one direction have in common.
fn way(info: &ChildSaInfo, keys: &EspKeys, spi: u32, sends: bool) -> Way {
    let (from, to) = if sends {
        (&info.local_ts, &info.remote_ts)
    } else {
        (&info.remote_ts, &info.local_ts)
    };
    let mut hasher = DefaultHasher::new();
    keys.encr.expose().hash(&mut hasher);
    keys.integ.expose().hash(&mut hasher);
    (&info.child, info.mode, info.encr.0, info.esn, info.encap).hash(&mut hasher);
    format!("{from:?} {to:?}").hash(&mut hasher);
    Way {
        spi,
        digest: hasher.finish(),
    }
}

fn told(event: Event) -> String {
    match event {
        Event::ChildUp(info) => format!(
            "ChildUp {:?} {} in {:?} out {:?}",
            info.id, info.child, info.spi_in, info.spi_out
        ),
        other => format!("{other:?}"),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
