//! Which of thousands have packets in common, as far as the addresses of both sides tell. Nobody compares
//! all with all: a sweep over the addresses of our side, and of what it has come upon and not left, a
//! tree over those of the peer's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

/// Packets between two ranges of addresses, and whose they are.
struct Area {
    local: (IpAddr, IpAddr),
    remote: (IpAddr, IpAddr),
    owner: usize,
}

/// The packets of many, each with a number.
#[derive(Default)]
pub(crate) struct Areas(Vec<Area>);

impl Areas {
    /// Adds packets of an owner: those from any of these selectors to any of those.
    pub(crate) fn add<'t>(
        &mut self,
        owner: usize,
        local: impl Iterator<Item = &'t TrafficSelector>,
        remote: impl Iterator<Item = &'t TrafficSelector> + Clone,
    ) {
        let range = |ts: &TrafficSelector| (ts.start <= ts.end).then_some((ts.start, ts.end));
        for local in local.filter_map(range) {
            let remote = remote.clone().filter_map(range);
            let same_family = remote.filter(|remote| remote.0.is_ipv4() == local.0.is_ipv4());
            self.0.extend(same_family.map(|remote| Area {
                local,
                remote,
                owner,
            }));
        }
    }

    /// The pairs of owners who have addresses of both sides in common, the greater number first.
    pub(crate) fn meeting(mut self) -> BTreeSet<(usize, usize)> {
        self.0.sort_unstable_by_key(|area| area.local.0);
        let mut open = Open::of(&self.0);
        let mut pairs = BTreeSet::new();
        for place in 0..self.0.len() {
            let own = self.0[place].owner;
            open.meeting(place, |other| {
                if own != other {
                    pairs.insert((own.max(other), own.min(other)));
                }
            });
            open.add(place);
        }
        pairs
    }
}

/// The areas that the sweep is in, by their places, and some that it has left: those are forgotten where
/// somebody comes upon them.
struct Open<'a> {
    areas: &'a [Area],
    /// Where areas begin on the peer's side: each address once, in order.
    starts: Vec<IpAddr>,
    /// By where they begin, as a place in `starts`.
    begun: BTreeSet<(usize, usize)>,
    /// A tree over `starts`, its root at 1 and its leaves at the end. A node has the areas which all
    /// starts below it are in, other than the start of the area itself.
    nodes: Vec<Vec<usize>>,
}

impl<'a> Open<'a> {
    fn of(areas: &'a [Area]) -> Self {
        let mut starts: Vec<IpAddr> = areas.iter().map(|area| area.remote.0).collect();
        starts.sort_unstable();
        starts.dedup();
        Self {
            areas,
            nodes: vec![Vec::new(); 2 * starts.len()],
            starts,
            begun: BTreeSet::new(),
        }
    }

    /// The places in `starts` that an area has.
    fn starts_in(&self, place: usize) -> std::ops::Range<usize> {
        let (start, end) = self.areas[place].remote;
        let first = self.starts.partition_point(|known| *known < start);
        first..self.starts.partition_point(|known| *known <= end)
    }

    fn add(&mut self, place: usize) {
        let starts = self.starts_in(place);
        self.begun.insert((starts.start, place));
        let leaves = self.starts.len();
        let (mut from, mut to) = (starts.start + 1 + leaves, starts.end + leaves);
        while from < to {
            if from % 2 == 1 {
                self.nodes[from].push(place);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                self.nodes[to].push(place);
            }
            (from, to) = (from / 2, to / 2);
        }
    }

    /// Tells of the owners of all that are open and meet this one.
    fn meeting(&mut self, place: usize, mut found: impl FnMut(usize)) {
        let (areas, at) = (self.areas, self.areas[place].local.0);
        let mut is_open = |other: usize| {
            let open = areas[other].local.1 >= at;
            if open {
                found(areas[other].owner);
            }
            open
        };
        // Those that begin in this one, and those that this one begins in.
        let starts = self.starts_in(place);
        let begun = self.begun.range((starts.start, 0)..(starts.end, 0));
        let left: Vec<_> = begun
            .filter(|(_, other)| !is_open(*other))
            .copied()
            .collect();
        for one in left {
            self.begun.remove(&one);
        }
        let mut node = starts.start + self.starts.len();
        while node > 0 {
            self.nodes[node].retain(|other| is_open(*other));
            node /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(start: u8, end: u8) -> TrafficSelector {
        format!("10.0.0.{start}-10.0.0.{end}").parse().unwrap()
    }

    /// All with all.
    fn compared(all: &[(TrafficSelector, TrafficSelector)]) -> BTreeSet<(usize, usize)> {
        let meets = |a: &TrafficSelector, b: &TrafficSelector| a.intersect(b).is_some();
        let mut pairs = BTreeSet::new();
        for (second, one) in all.iter().enumerate() {
            for (first, other) in all[..second].iter().enumerate() {
                if meets(&one.0, &other.0) && meets(&one.1, &other.1) {
                    pairs.insert((second, first));
                }
            }
        }
        pairs
    }

    fn swept(all: &[(TrafficSelector, TrafficSelector)]) -> BTreeSet<(usize, usize)> {
        let mut areas = Areas::default();
        for (owner, (local, remote)) in all.iter().enumerate() {
            areas.add(owner, [local].into_iter(), [remote].into_iter());
        }
        areas.meeting()
    }

    #[test]
    fn the_sweep_finds_what_a_comparison_of_all_with_all_does() {
        let mut state = 1_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut met = 0;
        for round in 0..200 {
            let wide = if round % 2 == 0 { 8 } else { 60 };
            let mut range = || {
                let start = random(190) as u8;
                ts(start, start + random(wide) as u8)
            };
            let all: Vec<_> = (0..60).map(|_| (range(), range())).collect();
            let found = swept(&all);
            assert_eq!(found, compared(&all), "{all:?}");
            met += found.len();
        }
        assert!(met > 1000, "{met}");
    }

    #[test]
    fn families_do_not_meet_and_what_is_no_range_meets_nothing() {
        let v6: TrafficSelector = "::/0".parse().unwrap();
        let all: TrafficSelector = "0.0.0.0/0".parse().unwrap();
        let none = TrafficSelector {
            start: all.end,
            end: all.start,
            ..all
        };
        let rows = [(v6, v6), (all, all), (none, all), (all, none), (v6, all)];
        assert_eq!(swept(&rows), BTreeSet::new());
        assert_eq!(swept(&[(v6, v6), (v6, v6)]), BTreeSet::from([(1, 0)]));
        assert_eq!(swept(&[]), BTreeSet::new());
    }
}
