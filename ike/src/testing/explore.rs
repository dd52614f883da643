//! All interleavings of two operations: whatever the order in which their messages arrive, are
//! lost or repeated, and however late the data planes answer, both ends agree in the end.
//!
//! Two real endpoints, with their real cryptography. Each end is a function of what it was told
//! (`local`), so that the state of the whole is two histories, what is under way between them,
//! and what of the mishaps is left (`state`); two orders that no end can tell apart are one state.

mod check;
mod local;
mod replay;
mod state;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::pair::End;
use super::setup::{Setup, child, pods};
use crate::config::{Mode, StartAction};
use state::{Move, State, World};

/// The child that is created; the other one, `pods`, is up from the start.
const OTHER: &str = "other";

/// No schedule has more moves than this; one that does never comes to rest.
const MAX_DEPTH: u32 = 400;

/// An operation that an operator, a packet or a timer begins at one end.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Op {
    /// Rekey the Child SA that is up.
    RekeyChild,
    /// Rekey the IKE SA.
    RekeyIke,
    /// Delete the Child SA that is up, to stay down.
    DeleteChild,
    /// Delete the IKE SA, to stay down.
    DeleteIke,
    /// Create another Child SA.
    CreateChild,
    /// Begin from nothing; the other end, unless it does the same, still has the SAs with the
    /// host that this one was before it restarted.
    FirstContact,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RekeyChild,
        Self::RekeyIke,
        Self::DeleteChild,
        Self::DeleteIke,
        Self::CreateChild,
        Self::FirstContact,
    ];

    /// As a command line names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RekeyChild => "rekey-child",
            Self::RekeyIke => "rekey-ike",
            Self::DeleteChild => "delete-child",
            Self::DeleteIke => "delete-ike",
            Self::CreateChild => "create-child",
            Self::FirstContact => "first-contact",
        }
    }
}

/// Two operations and where they begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scenario {
    /// The two.
    pub ops: [(End, Op); 2],
}

impl Scenario {
    /// Every pair: one at each end, and both at one.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (n, one) in Op::ALL.into_iter().enumerate() {
            for (m, other) in Op::ALL.into_iter().enumerate() {
                all.push(Self {
                    ops: [(End::A, one), (End::B, other)],
                });
                // Who restarts has nothing on which the other could begin.
                let first = one == Op::FirstContact || other == Op::FirstContact;
                if n <= m && !first {
                    for end in [End::A, End::B] {
                        all.push(Self {
                            ops: [(end, one), (end, other)],
                        });
                    }
                }
            }
        }
        all
    }

    fn has(&self, op: Op) -> bool {
        self.ops.iter().any(|(_, other)| *other == op)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(one, first), (other, second)] = self.ops;
        write!(f, "{one:?}:{},{other:?}:{}", first.name(), second.name())
    }
}

impl std::str::FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::all()
            .into_iter()
            .find(|scenario| scenario.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("no scenario {text:?}; there is \"A:rekey-child,B:rekey-ike\""))
    }
}

/// How many mishaps one schedule has. Each message is lost once and repeated once at most.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Messages lost.
    pub lost: u32,
    /// Messages that arrive twice.
    pub repeated: u32,
    /// Steps after which a data plane takes its time.
    pub late: u32,
    /// Timers that go off while messages are under way or an operation is not begun.
    pub early: u32,
    /// Losses, repetitions, late answers and early timers in all.
    pub mishaps: u32,
    /// States; from there on, the exploration is not complete.
    pub states: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lost: 2,
            repeated: 1,
            late: 1,
            early: 1,
            mishaps: 2,
            states: 20_000_000,
        }
    }
}

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// Moves between them.
    pub transitions: usize,
    /// States in which nothing happens any more.
    pub finals: usize,
    /// Different histories of single ends.
    pub histories: usize,
    /// Moves of the longest schedule that passes through no state twice.
    pub depth: u32,
    /// Whether the limit of states was met.
    pub cut: bool,
    /// What is wrong, with the shortest schedule that leads to it.
    pub violation: Option<Violation>,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// How to get there; [`replay`] takes it.
    pub schedule: String,
}

fn setup(seed: u64) -> Setup {
    let (ours, theirs) = ("10.1.0.0/16", "10.2.0.0/16");
    let other = child(OTHER, Mode::Tunnel, ours, theirs, StartAction::None);
    Setup::new(seed).children(vec![pods(StartAction::None), other])
}

/// Passes through all states of two operations. `seed` decides nonces, and by that who wins
/// where both ends do the same at once.
pub fn explore(scenario: Scenario, seed: u64, limits: Limits) -> Report {
    Exploration::new(scenario, seed, limits).run()
}

/// Follows one schedule, and tells what happens, a line each.
///
/// # Errors
/// If a move is not one that is possible there.
pub fn replay(scenario: Scenario, seed: u64, schedule: &str) -> Result<Vec<String>, String> {
    replay::narrate(&mut World::new(scenario, seed), schedule)
}

struct Exploration {
    world: World,
    limits: Limits,
    seen: HashSet<u128>,
    open: VecDeque<(State, u32, u32)>,
    /// From which state each came, and by which move.
    came: Vec<(u32, Move)>,
    report: Report,
}

impl Exploration {
    fn new(scenario: Scenario, seed: u64, limits: Limits) -> Self {
        Self {
            world: World::new(scenario, seed),
            limits,
            seen: HashSet::new(),
            open: VecDeque::new(),
            came: Vec::new(),
            report: Report::default(),
        }
    }

    fn run(mut self) -> Report {
        let first = self.world.first();
        self.add(first, 0, Move::Timer, 0);
        while let Some((state, number, depth)) = self.open.pop_front() {
            self.visit(&state, number, depth);
            if self.report.violation.is_some() {
                break;
            }
        }
        self.report.states = self.seen.len();
        self.report.histories = self.world.histories();
        self.report
    }

    fn visit(&mut self, state: &State, number: u32, depth: u32) {
        self.report.depth = self.report.depth.max(depth);
        let moves = self.world.moves(state, &self.limits);
        let wrong = match check::always(&self.world, state) {
            Err(wrong) => Err(wrong),
            Ok(()) if moves.is_empty() => check::at_rest(&self.world, state),
            Ok(()) if depth >= MAX_DEPTH => Err("it does not come to rest".to_owned()),
            Ok(()) => Ok(()),
        };
        if let Err(what) = wrong {
            let schedule = self.schedule(number);
            self.report.violation = Some(Violation { what, schedule });
            return;
        }
        self.report.finals += usize::from(moves.is_empty());
        for choice in moves {
            self.report.transitions += 1;
            let next = self.world.after(state, choice);
            self.add(next, number, choice, depth + 1);
        }
    }

    fn add(&mut self, state: State, from: u32, by: Move, depth: u32) {
        if self.seen.len() >= self.limits.states {
            self.report.cut = true;
            return;
        }
        if self.seen.insert(state.fingerprint()) {
            self.open.push_back((state, self.came.len() as u32, depth));
            self.came.push((from, by));
        }
    }

    fn schedule(&mut self, mut number: u32) -> String {
        let mut moves = Vec::new();
        while number != 0 {
            let (from, by) = self.came[number as usize];
            moves.push(by);
            number = from;
        }
        moves.reverse();
        replay::write(&mut self.world, &moves)
    }
}

/// For a report: a time of the simulation.
fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
