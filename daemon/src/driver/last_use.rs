//! When packets of a policy were last carried, also by SAs that are gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use obol_ike::config::Generate;
use obol_ike::event::ChildSaId;
use obol_ike::status::IkeSaStatus;

use crate::config::Loaded;
use crate::dataplane::Usage;

/// A connection and a child of it, by their names.
type Name = (String, String);

/// What is remembered of SAs that are gone.
#[derive(Debug, Default)]
pub(super) struct LastUses {
    gone: HashMap<Name, Times>,
    /// The SA that was removed last, whose name is told right after.
    removed: Option<(ChildSaId, Times)>,
}

/// When the last packet came in, and when one went out.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    inbound: Option<Instant>,
    outbound: Option<Instant>,
}

impl Times {
    fn of(now: Instant, usage: Usage) -> Self {
        let ago = |age: Option<Duration>| now.checked_sub(age?);
        Self {
            inbound: ago(usage.last_in),
            outbound: ago(usage.last_out),
        }
    }

    fn later(self, other: Self) -> Self {
        Self {
            inbound: self.inbound.max(other.inbound),
            outbound: self.outbound.max(other.outbound),
        }
    }
}

impl LastUses {
    /// An SA is about to leave the data plane.
    pub(super) fn removing(&mut self, now: Instant, id: ChildSaId, usage: Option<Usage>) {
        self.removed = usage.map(|usage| (id, Times::of(now, usage)));
    }

    /// It has, and was called so.
    pub(super) fn removed(&mut self, id: ChildSaId, connection: &str, child: &str) {
        // Peers make up what those are called, and so how many there are.
        if Generate::made(child) {
            return;
        }
        if let Some((_, times)) = self.removed.take_if(|(of, _)| *of == id) {
            let name = (connection.to_owned(), child.to_owned());
            let known = self.gone.entry(name).or_default();
            *known = known.later(times);
        }
    }

    /// Only what is configured is remembered.
    pub(super) fn adapt(&mut self, loaded: &Loaded) {
        let policies = loaded.policies.iter();
        let mut known: HashMap<Name, Times> = policies
            .filter_map(|policy| {
                let name = (policy.connection.clone(), policy.child.clone());
                let times = self.gone.get(&name).copied()?;
                Some((name, times))
            })
            .collect();
        std::mem::swap(&mut self.gone, &mut known);
    }

    /// For how long nothing came in, and for how long nothing went out, by the names of children. None of
    /// those of which no packet is known.
    pub(super) fn ages(
        &self,
        now: Instant,
        sas: &[IkeSaStatus],
        usages: &HashMap<ChildSaId, Usage>,
    ) -> HashMap<Name, (Option<u64>, Option<u64>)> {
        let mut all = self.gone.clone();
        for child in sas.iter().flat_map(|sa| &sa.children) {
            let Some(usage) = usages.get(&child.info.id) else {
                continue;
            };
            let name = (child.info.connection.clone(), child.info.child.clone());
            let known = all.entry(name).or_default();
            *known = known.later(Times::of(now, *usage));
        }
        let age = |at: Option<Instant>| Some(now.saturating_duration_since(at?).as_secs());
        all.into_iter()
            .map(|(name, times)| (name, (age(times.inbound), age(times.outbound))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packet_counts_whichever_sa_carried_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let used = |inbound: u64, outbound: Option<u64>| Usage {
            last_in: Some(Duration::from_secs(inbound)),
            last_out: outbound.map(Duration::from_secs),
            ..Usage::default()
        };
        let mut uses = LastUses::default();
        let ages = |uses: &LastUses, now| {
            let ages = uses.ages(at(now), &[], &HashMap::new());
            ages.get(&("c".to_owned(), "a".to_owned())).copied()
        };
        assert_eq!(ages(&uses, 200), None);
        uses.removing(at(100), ChildSaId(1), Some(used(10, None)));
        // Another one than was asked for.
        uses.removed(ChildSaId(2), "c", "a");
        assert_eq!(ages(&uses, 200), None);
        uses.removed(ChildSaId(1), "c", "a");
        assert_eq!(ages(&uses, 200), Some((Some(110), None)));
        uses.removing(at(150), ChildSaId(3), Some(used(100, Some(5))));
        uses.removed(ChildSaId(3), "c", "a");
        assert_eq!(ages(&uses, 200), Some((Some(110), Some(55))));
        uses.removing(at(160), ChildSaId(4), Some(used(1, None)));
        uses.removed(ChildSaId(4), "c", "generated:x");
        assert_eq!(ages(&uses, 200), Some((Some(110), Some(55))));
    }
}
