//! Packets that wait for an SA: for so many pairs of hosts, and so little of each, that a peer that does
//! not answer takes no room from one that will.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use obol_esp::FlowKey;

/// Frames kept for a pair of hosts, or for a policy between two ends: enough for the first of each of a
/// few flows.
pub(super) const FRAMES: usize = 16;
/// Octets kept for the same: one frame as long as any, and some.
pub(super) const OCTETS: usize = 128 << 10;
/// Octets kept in all.
pub(super) const OCTETS_IN_ALL: usize = 16 << 20;
/// Pairs of hosts and policies for which something is kept, in all.
pub(super) const MOST: usize = 4096;
/// Milliseconds after which a kept frame is of no use to anyone.
pub(super) const FOR: u64 = 10_000;

/// What frames wait for: an SA of a policy, in one that spans several pairs of hosts for this pair.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Whom {
    /// The number of the policy.
    pub(super) policy: u64,
    /// Source and destination.
    pub(super) hosts: Option<(IpAddr, IpAddr)>,
}

/// All that waits at a worker.
#[derive(Default)]
pub(super) struct Waiting {
    /// The one that began to wait first comes first.
    queues: BTreeMap<u64, Queue>,
    by_whom: HashMap<Whom, u64>,
    octets: usize,
    begun: u64,
    /// Frames that nobody got.
    lost: u64,
}

struct Queue {
    whom: Whom,
    frames: VecDeque<Kept>,
    octets: usize,
}

/// What was too old.
#[derive(Default)]
struct Old {
    frames: u64,
    octets: usize,
}

/// A frame, as it came from the device.
pub(super) struct Kept {
    /// Whose it is.
    pub(super) flow: FlowKey,
    /// All of it.
    pub(super) octets: Vec<u8>,
    since: u64,
}

impl Waiting {
    /// Keeps a frame if there is room; whether there was. Where there is too much of all, those that began
    /// to wait first have waited in vain for longest, and go.
    pub(super) fn keep(&mut self, whom: Whom, flow: &FlowKey, octets: &[u8], now: u64) -> bool {
        self.expire(now);
        let number = match self.by_whom.get(&whom) {
            Some(number) => *number,
            None => self.begin(whom),
        };
        let Some(queue) = self.queues.get_mut(&number) else {
            return false;
        };
        let old = queue.expire(now);
        self.octets -= old.octets;
        self.lost += old.frames;
        let room = queue.frames.len() < FRAMES && queue.octets + octets.len() <= OCTETS;
        if room {
            queue.octets += octets.len();
            self.octets += octets.len();
            queue.frames.push_back(Kept {
                flow: *flow,
                octets: octets.to_vec(),
                since: now,
            });
        }
        while self.octets > OCTETS_IN_ALL && self.drop_first(number) {}
        room
    }

    /// Takes out what waits for this and is not too old.
    pub(super) fn take(&mut self, whom: Whom, now: u64) -> VecDeque<Kept> {
        let Some(number) = self.by_whom.get(&whom).copied() else {
            return VecDeque::new();
        };
        let mut frames = self
            .remove(number)
            .map_or_else(VecDeque::new, |queue| queue.frames);
        let all = frames.len();
        frames.retain(|kept| !kept.is_old(now));
        self.lost += (all - frames.len()) as u64;
        frames
    }

    /// Frames that have waited in vain, since the last time: too old, or gone with their policy or for others.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Puts back what was taken out and still has to wait.
    pub(super) fn put_back(&mut self, whom: Whom, frames: VecDeque<Kept>) {
        if frames.is_empty() {
            return;
        }
        let number = self.begin(whom);
        if let Some(queue) = self.queues.get_mut(&number) {
            queue.octets = frames.iter().map(|kept| kept.octets.len()).sum();
            self.octets += queue.octets;
            queue.frames = frames;
        }
    }

    /// For whom something waits of a policy.
    pub(super) fn of_policy(&self, policy: u64) -> Vec<Whom> {
        let all = self.by_whom.keys().filter(|whom| whom.policy == policy);
        all.copied().collect()
    }

    /// Forgets what waits for policies of which this is not true.
    pub(super) fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        let gone = self
            .queues
            .iter()
            .filter(|(_, queue)| !stays(queue.whom.policy));
        let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
        for number in gone {
            self.drop(number);
        }
    }

    fn begin(&mut self, whom: Whom) -> u64 {
        let number = self.begun;
        self.begun += 1;
        if self.queues.len() >= MOST {
            self.drop_first(number);
        }
        let queue = Queue {
            whom,
            frames: VecDeque::new(),
            octets: 0,
        };
        self.queues.insert(number, queue);
        self.by_whom.insert(whom, number);
        number
    }

    fn expire(&mut self, now: u64) {
        while let Some((number, queue)) = self.queues.first_key_value() {
            if queue.frames.back().is_some_and(|kept| !kept.is_old(now)) {
                return;
            }
            let number = *number;
            self.drop(number);
        }
    }

    /// Drops what began to wait first beside this one; whether there was any.
    fn drop_first(&mut self, but: u64) -> bool {
        let first = self.queues.keys().copied().find(|number| *number != but);
        first.is_some_and(|number| self.drop(number))
    }

    /// Drops what waits there; whether there was anything.
    fn drop(&mut self, number: u64) -> bool {
        let queue = self.remove(number);
        self.lost += queue.as_ref().map_or(0, |queue| queue.frames.len()) as u64;
        queue.is_some()
    }

    fn remove(&mut self, number: u64) -> Option<Queue> {
        let queue = self.queues.remove(&number)?;
        self.by_whom.remove(&queue.whom);
        self.octets -= queue.octets;
        Some(queue)
    }
}

impl Queue {
    /// Drops what is too old; how much that was.
    fn expire(&mut self, now: u64) -> Old {
        let mut old = Old::default();
        while let Some(first) = self.frames.pop_front_if(|kept| kept.is_old(now)) {
            old.frames += 1;
            old.octets += first.octets.len();
        }
        self.octets -= old.octets;
        old
    }
}

impl Kept {
    fn is_old(&self, now: u64) -> bool {
        now.saturating_sub(self.since) >= FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whom(number: u32) -> Whom {
        let hosts = (
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from(number.to_be_bytes()),
        );
        Whom {
            policy: 1,
            hosts: Some(hosts),
        }
    }

    fn keep(waiting: &mut Waiting, number: u32, octets: &[u8], now: u64) -> bool {
        let whom = whom(number);
        let (source, destination) = whom.hosts.unwrap();
        let flow = FlowKey {
            source,
            destination,
            protocol: 17,
            source_port: 1,
            destination_port: 2,
            fragment: false,
            ports_known: true,
        };
        waiting.keep(whom, &flow, octets, now)
    }

    #[test]
    fn few_packets_and_few_octets_of_a_pair_are_kept_and_not_for_long() {
        let mut waiting = Waiting::default();
        let kept = (0..100).filter(|_| keep(&mut waiting, 1, b"packet", 1));
        assert_eq!(kept.count(), FRAMES);
        assert!(!keep(&mut waiting, 1, b"packet", FOR));
        assert!(keep(&mut waiting, 2, b"packet", FOR), "another pair");
        assert!(keep(&mut waiting, 1, b"packet", FOR + 1));
        assert_eq!(waiting.octets, 12);
        assert_eq!(waiting.take(whom(1), FOR + 1).len(), 1);
        assert_eq!(waiting.take_lost(), FRAMES as u64);
        assert!(waiting.take(whom(2), 2 * FOR).is_empty());
        assert_eq!((waiting.octets, waiting.queues.len()), (0, 0));
        assert_eq!((waiting.take_lost(), waiting.take_lost()), (1, 0));

        let packet = vec![0; 60_000];
        let kept = (0..100).filter(|_| keep(&mut waiting, 1, &packet, 1));
        assert_eq!(kept.count(), 2);
    }

    #[test]
    fn who_floods_one_pair_takes_no_room_from_others() {
        let mut waiting = Waiting::default();
        let packet = vec![0; 60_000];
        for number in 0..1000 {
            for _ in 0..100 {
                keep(&mut waiting, 0, &packet, 1);
            }
            assert!(keep(&mut waiting, number + 1, b"first", 1));
        }
        for number in 0..1000 {
            assert_eq!(waiting.take(whom(number + 1), 2).len(), 1, "{number}");
        }
        assert_eq!(waiting.take(whom(0), 2).len(), 2);
    }

    #[test]
    fn no_more_is_kept_whoever_is_asked_for_and_the_last_are() {
        let mut waiting = Waiting::default();
        let packet = vec![0; 60_000];
        let mut kept = 0;
        for number in 0..100_000 {
            let octets = if number % 2 == 0 {
                &packet[..]
            } else {
                b"short"
            };
            assert!(keep(&mut waiting, number, octets, 1));
            kept += 1;
            assert!(waiting.octets <= OCTETS_IN_ALL && waiting.queues.len() <= MOST);
        }
        for number in 100_000..110_000 {
            assert!(keep(&mut waiting, number, b"short", 1));
            assert!(waiting.queues.len() <= MOST && waiting.by_whom.len() <= MOST);
        }
        kept += 10_000;
        let there: usize = waiting
            .queues
            .values()
            .map(|queue| queue.frames.len())
            .sum();
        assert_eq!(waiting.take_lost() + there as u64, kept);
        assert_eq!(waiting.take(whom(109_999), 2).len(), 1);
        assert!(waiting.take(whom(0), 2).is_empty());
    }

    #[test]
    fn what_waits_for_a_policy_goes_with_it() {
        let mut waiting = Waiting::default();
        keep(&mut waiting, 1, b"packet", 1);
        assert_eq!(waiting.of_policy(1), [whom(1)]);
        let frames = waiting.take(whom(1), 1);
        waiting.put_back(whom(1), frames);
        waiting.retain(|policy| policy == 1);
        assert_eq!((waiting.octets, waiting.of_policy(2).len()), (6, 0));
        assert_eq!(waiting.take_lost(), 0);
        waiting.retain(|policy| policy == 2);
        assert_eq!((waiting.octets, waiting.queues.len()), (0, 0));
        assert_eq!(waiting.take_lost(), 1);
    }
}
