//! The state of the whole, and what can happen in it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::local::{Input, Lived, Mail, Mails, Step, Tree, View};
use super::{Limits, Op, Scenario};
use crate::event::ChildSaId;
use crate::testing::pair::End;
use crate::timer::TimerKind;

/// What is due later than this after the last timer is no part of an operation.
const HORIZON: Duration = Duration::from_secs(120);
/// What a restarted host draws is not what it drew before.
const RESTARTED: u64 = 1_000_003;

/// Both ends, what is between them, and which mishaps were.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct State {
    /// When the last timer went off.
    pub(super) clock: Duration,
    pub(super) ends: [Lived; 2],
    /// Under way, by who sent it; sorted.
    flying: Vec<(u8, Mail)>,
    lost: Vec<Mail>,
    repeated: Vec<Mail>,
    late: u8,
    early: u8,
    /// Operations not begun yet.
    todo: [bool; 2],
}

/// What can happen next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Move {
    /// The first, or the second, operation.
    Begin { op: u8, late: bool },
    /// A message arrives; `late`: and the data plane takes its time.
    Deliver { from: u8, mail: Mail, late: bool },
    /// A message is lost.
    Lose { from: u8, mail: Mail },
    /// A message will arrive twice.
    Repeat { from: u8, mail: Mail },
    /// A data plane answers at last.
    Answer { end: u8 },
    /// The first packet arrives on an SA.
    Use { end: u8, id: ChildSaId },
    /// The next timer of both ends goes off.
    Timer,
}

/// What states are made of.
pub(super) struct World {
    pub(super) scenario: Scenario,
    pub(super) mails: Mails,
    trees: [Tree; 2],
    first: State,
}

impl State {
    /// Names the state; 128 bits, so that no two have the same.
    pub(super) fn fingerprint(&self) -> u128 {
        let half = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, self).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }

    fn mishaps(&self) -> u32 {
        (self.lost.len() + self.repeated.len()) as u32 + u32::from(self.late + self.early)
    }
}

impl World {
    /// The two ends when the operations can begin.
    #[expect(
        clippy::disallowed_methods,
        reason = "an instant to begin at; virtual time goes on from there"
    )]
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        let begun = Instant::now();
        let mut world = Self {
            scenario,
            mails: Mails::default(),
            trees: [Tree::new(End::A, begun), Tree::new(End::B, begun)],
            first: State::default(),
        };
        let [a, b] = &mut world.trees;
        let mut state = State {
            ends: [a.root(seed), b.root(seed)],
            ..State::default()
        };
        let restarted = |end: End| scenario.ops.contains(&(end, Op::FirstContact));
        if !(restarted(End::A) && restarted(End::B)) {
            state = world.bring_up(state);
        }
        for (n, end) in [End::A, End::B].into_iter().enumerate() {
            if restarted(end) {
                state.ends[n] = world.trees[n].root(seed + RESTARTED);
            }
        }
        state.todo = [true, true];
        world.first = state;
        world
    }

    /// Lets the first end begin, and all go well, until nothing is left to do.
    fn bring_up(&mut self, state: State) -> State {
        let up = Step {
            at: state.clock,
            input: Input::Begin(Op::FirstContact),
            late: false,
        };
        let mut state = self.live(state, 0, up);
        let calm = Limits {
            mishaps: 0,
            ..Limits::default()
        };
        while let Some(choice) = self.moves(&state, &calm).pop() {
            state = self.after(&state, choice);
        }
        state
    }

    pub(super) fn first(&self) -> State {
        self.first.clone()
    }

    pub(super) fn histories(&self) -> usize {
        self.trees.iter().map(Tree::len).sum()
    }

    pub(super) fn view(&self, state: &State, end: usize) -> &View {
        self.trees[end].view(state.ends[end])
    }

    /// All that an end has sent, in order, since it began.
    pub(super) fn sent(&self, state: &State, end: usize) -> Vec<Mail> {
        self.trees[end].sent(state.ends[end])
    }

    /// Whether messages are under way, a data plane is at work, or an operation is to begin: they
    /// are begun at once, as far as timers are concerned.
    fn busy(&self, state: &State) -> bool {
        let held = || (0..2).any(|end| self.view(state, end).held > 0);
        !state.flying.is_empty() || state.todo.contains(&true) || held()
    }

    /// What can happen, in no order that matters.
    pub(super) fn moves(&self, state: &State, limits: &Limits) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.is_broken(state) {
            return moves;
        }
        let late = state.mishaps() < limits.mishaps && u32::from(state.late) < limits.late;
        let may_be_late: &[bool] = if late { &[false, true] } else { &[false] };
        self.timer(state, limits, &mut moves);
        for end in 0..2 {
            self.of_plane(state, end, &mut moves);
        }
        self.of_mails(state, limits, may_be_late, &mut moves);
        for op in (0..2u8).filter(|op| state.todo[usize::from(*op)]) {
            moves.extend(
                may_be_late
                    .iter()
                    .map(|late| Move::Begin { op, late: *late }),
            );
        }
        moves
    }

    fn is_broken(&self, state: &State) -> bool {
        (0..2).any(|end| self.view(state, end).broken.is_some())
    }

    fn of_plane(&self, state: &State, end: usize, moves: &mut Vec<Move>) {
        let view = self.view(state, end);
        let peer = self.view(state, 1 - end);
        if view.held > 0 {
            moves.push(Move::Answer { end: end as u8 });
        }
        for id in &view.unused {
            let into = view.inbound.iter().find(|(other, _)| other == id);
            if into.is_some_and(|(_, way)| peer.current.values().any(|out| out == way)) {
                moves.push(Move::Use {
                    end: end as u8,
                    id: *id,
                });
            }
        }
    }

    fn of_mails(&self, state: &State, limits: &Limits, lateness: &[bool], moves: &mut Vec<Move>) {
        let left = state.mishaps() < limits.mishaps;
        let mut flying = state.flying.clone();
        flying.dedup();
        for (from, mail) in flying {
            if left && state.lost.len() < limits.lost as usize && !state.lost.contains(&mail) {
                moves.push(Move::Lose { from, mail });
            }
            let once = !state.repeated.contains(&mail);
            if left && state.repeated.len() < limits.repeated as usize && once {
                moves.push(Move::Repeat { from, mail });
            }
            moves.extend(lateness.iter().map(|late| Move::Deliver {
                from,
                mail,
                late: *late,
            }));
        }
    }

    /// The next timer, if it may go off: any when all is quiet, and short ones early.
    fn timer(&self, state: &State, limits: &Limits, moves: &mut Vec<Move>) {
        let Some((_, (at, kind))) = self.next_timer(state) else {
            return;
        };
        let short = matches!(
            kind,
            TimerKind::Retransmit
                | TimerKind::TryAgain
                | TimerKind::SwitchOutbound
                | TimerKind::Start
        );
        let early = u32::from(state.early) < limits.early && state.mishaps() < limits.mishaps;
        let allowed = if self.busy(state) {
            short && early
        } else {
            at.saturating_sub(state.clock) < HORIZON
        };
        if allowed {
            moves.push(Move::Timer);
        }
    }

    fn next_timer(&self, state: &State) -> Option<(usize, (Duration, TimerKind))> {
        let deadline = |end: usize| Some((end, self.view(state, end).deadline?));
        [deadline(0), deadline(1)]
            .into_iter()
            .flatten()
            .min_by_key(|(_, deadline)| *deadline)
    }

    /// The state after a move.
    pub(super) fn after(&mut self, state: &State, choice: Move) -> State {
        let mut next = state.clone();
        let step = |input, late| Step {
            at: state.clock,
            input,
            late,
        };
        match choice {
            Move::Begin { op, late } => {
                let (end, what) = self.scenario.ops[usize::from(op)];
                next.todo[usize::from(op)] = false;
                self.live(next, end as usize, step(Input::Begin(what), late))
            }
            Move::Deliver { from, mail, late } => {
                take(&mut next.flying, (from, mail));
                let to = 1 - usize::from(from);
                self.live(next, to, step(Input::Deliver(mail), late))
            }
            Move::Lose { from, mail } => {
                take(&mut next.flying, (from, mail));
                put(&mut next.lost, mail);
                next
            }
            Move::Repeat { from, mail } => {
                put(&mut next.flying, (from, mail));
                put(&mut next.repeated, mail);
                next
            }
            Move::Answer { end } => self.live(next, end.into(), step(Input::Answer, false)),
            Move::Use { end, id } => self.live(next, end.into(), step(Input::Used(id), false)),
            Move::Timer => self.after_timer(next),
        }
    }

    fn after_timer(&mut self, mut state: State) -> State {
        let Some((end, (at, _))) = self.next_timer(&state) else {
            return state;
        };
        state.early += u8::from(self.busy(&state));
        state.clock = state.clock.max(at);
        let step = Step {
            at: state.clock,
            input: Input::Timer,
            late: false,
        };
        self.live(state, end, step)
    }

    fn live(&mut self, mut state: State, end: usize, step: Step) -> State {
        let tree = &mut self.trees[end];
        let mut lived = tree.extend(&mut self.mails, state.ends[end], step);
        // Where the data plane has nothing to do, it cannot be late.
        if step.late && !tree.view(lived).asked {
            let at_once = Step {
                late: false,
                ..step
            };
            lived = tree.extend(&mut self.mails, state.ends[end], at_once);
        } else if step.late {
            state.late += 1;
        }
        state.ends[end] = lived;
        for mail in &self.trees[end].view(lived).sent {
            put(&mut state.flying, (end as u8, *mail));
        }
        state
    }
}

fn put<T: Ord>(list: &mut Vec<T>, item: T) {
    let at = list.partition_point(|other| *other < item);
    list.insert(at, item);
}

fn take<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if let Some(at) = list.iter().position(|other| *other == item) {
        list.remove(at);
    }
}
