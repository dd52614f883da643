//! The SAs of a policy, as a worker has them: of thousands, one for each pair of hosts, the one that
//! carries a packet is found as fast as of a few.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, MutexGuard};

use obol_esp::{FlowKey, Frame, Index, Plan, SealError};
use obol_ike::event::ChildSaId;
use obol_ike::ts::TrafficSelector;

use super::place::{Place, Workers};
use super::sa::{Out, Way};

/// With so many lanes they are found by an index; fewer are tried one after another faster.
const INDEXED_FROM: usize = 16;

/// Our selectors, and the peer's.
type Sides = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// SAs by what they carry.
#[derive(Default)]
pub(super) struct Lanes {
    /// By number: the last one is to be used first.
    all: BTreeMap<u64, Arc<Lane>>,
    by_sides: HashMap<Sides, u64>,
    by_sa: HashMap<ChildSaId, u64>,
    index: Option<Index<Arc<Lane>>>,
}

/// SAs with the same selectors, newest first. There are several in a rekey, and where there is one for
/// each queue.
struct Lane {
    ways: Vec<Arc<Way>>,
    /// The workers that have one of these.
    served: Workers,
    /// The one that this worker uses.
    used: Arc<Way>,
}

/// An SA that carries a frame.
pub(super) struct Found<'a> {
    /// The SA, which no other worker uses meanwhile.
    pub(super) out: MutexGuard<'a, Out>,
    /// How the frame is carried.
    pub(super) plan: Result<Plan, SealError>,
    /// Other workers use it too. So that packets are on their way in the order of their sequence
    /// numbers, which not every peer's replay window would make up for, they are sent while the SA is
    /// held.
    pub(super) shared: bool,
}

impl Lane {
    /// Of SAs of which there is at least one.
    fn new(ways: Vec<Arc<Way>>, place: Place) -> Option<Self> {
        let queues = ways.iter().map(|way| place.of_queue(way.queue));
        let served = queues.fold(Workers::default(), Workers::with);
        let is_own = |way: &&Arc<Way>| place.of_queue(way.queue) == place.own();
        // Who has none uses the one that all others without would use.
        let own = ways.iter().find(is_own);
        let used = own.or_else(|| ways.iter().min_by_key(|way| way.queue))?;
        Some(Self {
            served,
            used: Arc::clone(used),
            ways,
        })
    }
}

impl Lanes {
    /// All SAs, those to be used first before others.
    pub(super) fn ways(&self) -> impl Iterator<Item = &Arc<Way>> {
        self.all.values().rev().flat_map(|lane| &lane.ways)
    }

    /// An SA by its name.
    pub(super) fn way(&self, id: ChildSaId) -> Option<&Arc<Way>> {
        let lane = self.all.get(self.by_sa.get(&id)?)?;
        lane.ways.iter().find(|way| way.id == id)
    }

    /// Takes an SA in, before all others.
    pub(super) fn insert(&mut self, sa: Arc<Way>, place: Place) {
        let same = self.by_sides.get(&sa.selectors).copied();
        let mut ways = same.map_or_else(Vec::new, |number| self.take(number));
        let number = self.all.last_key_value().map_or(0, |(last, _)| last + 1);
        ways.insert(0, sa);
        self.put(number, ways, place);
    }

    /// Forgets an SA; the queue that it was for.
    pub(super) fn remove(&mut self, id: ChildSaId, place: Place) -> Option<u16> {
        let number = *self.by_sa.get(&id)?;
        let mut ways = self.take(number);
        let found = ways.iter().position(|way| way.id == id);
        let queue = found.map(|at| ways.remove(at).queue);
        self.put(number, ways, place);
        queue
    }

    /// The SA that carries the frame, and is this worker's to use among `users`; `None`: there is
    /// none.
    pub(super) fn sa_for(&self, frame: &Frame<'_>, users: Workers) -> Option<Found<'_>> {
        self.find(frame.flow(), |lane| {
            let out = lane.used.lock()?;
            match out.sa.plan(frame) {
                Err(SealError::Selector) => None,
                plan => Some(Found {
                    out,
                    plan,
                    shared: !lane.served.has_all(users),
                }),
            }
        })
    }

    /// Whether there is an SA for packets of this flow.
    pub(super) fn carries(&self, flow: &FlowKey) -> bool {
        let carries = |lane: &Lane| {
            let out = lane.used.lock()?;
            out.sa.carries(flow).then_some(())
        };
        self.find(flow, carries).is_some()
    }

    fn find<'a, R>(
        &'a self,
        flow: &FlowKey,
        mut visit: impl FnMut(&'a Lane) -> Option<R>,
    ) -> Option<R> {
        match &self.index {
            Some(index) => index.find(flow, |lane| visit(lane)),
            None => self.all.values().rev().find_map(|lane| visit(lane)),
        }
    }

    fn take(&mut self, number: u64) -> Vec<Arc<Way>> {
        let Some(lane) = self.all.remove(&number) else {
            return Vec::new();
        };
        self.by_sides.remove(&lane.used.selectors);
        for way in &lane.ways {
            self.by_sa.remove(&way.id);
        }
        if let Some(index) = &mut self.index {
            index.remove(&lane.used.carries, rank(number));
        }
        lane.ways.clone()
    }

    fn put(&mut self, number: u64, ways: Vec<Arc<Way>>, place: Place) {
        if let Some(lane) = Lane::new(ways, place).map(Arc::new) {
            let sides = lane.used.selectors.clone();
            self.by_sides.insert(sides, number);
            self.by_sa
                .extend(lane.ways.iter().map(|way| (way.id, number)));
            if let Some(index) = &mut self.index {
                add(index, number, &lane);
            }
            self.all.insert(number, lane);
        }
        if self.all.len() < INDEXED_FROM {
            self.index = None;
        } else if self.index.is_none() {
            let index = self.index.insert(Index::new());
            for (number, lane) in &self.all {
                add(index, *number, lane);
            }
        }
    }
}

fn add(index: &mut Index<Arc<Lane>>, number: u64, lane: &Arc<Lane>) {
    for selector in &lane.used.carries {
        index.insert(*selector, rank(number), Arc::clone(lane));
    }
}

/// The highest number comes first.
fn rank(number: u64) -> u64 {
    u64::MAX - number
}
