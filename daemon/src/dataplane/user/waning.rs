//! SAs that were replaced, and whose last packets may still be on their way, or wait in a socket of
//! ours: the message that ends an SA overtakes them. Their inbound half is kept a little longer. An
//! SA that is ended while no newer one carries its flow ends at once: its flow is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use obol_ike::event::ChildSaInfo;
use obol_ike::ts::TrafficSelector;
use rustix::time::Timespec;

use crate::dataplane::DRAIN;

/// What an SA carries, whichever SA it is.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(super) struct Flow {
    connection: String,
    child: String,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

impl Flow {
    /// The flow of an SA.
    pub(super) fn of(info: &ChildSaInfo) -> Arc<Self> {
        Arc::new(Self {
            connection: info.connection.clone(),
            child: info.child.clone(),
            local_ts: info.local_ts.clone(),
            remote_ts: info.remote_ts.clone(),
        })
    }
}

/// Which SAs carry which flow, and which of those that were replaced are still kept.
#[derive(Default)]
pub(super) struct Waning {
    /// The SPIs of a flow, oldest first.
    flows: HashMap<Arc<Flow>, Vec<u32>>,
    /// SPIs with the time of their end, in milliseconds, soonest first.
    kept: VecDeque<(u64, u32)>,
}

impl Waning {
    /// An SA carries this flow from now on.
    pub(super) fn begin(&mut self, flow: Arc<Flow>, spi: u32) {
        self.flows.entry(flow).or_default().push(spi);
    }

    /// An SA does not carry its flow any more; whether a newer one does.
    pub(super) fn end(&mut self, flow: &Arc<Flow>, spi: u32) -> bool {
        let Some(spis) = self.flows.get_mut(flow) else {
            return false;
        };
        let newest = spis.last().copied();
        spis.retain(|own| *own != spi);
        if spis.is_empty() {
            self.flows.remove(flow);
        }
        newest.is_some_and(|newest| newest != spi)
    }

    /// Keeps an SA that has a successor.
    pub(super) fn keep(&mut self, spi: u32, now: u64) {
        let drain = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
        self.kept.push_back((now.saturating_add(drain), spi));
    }

    /// The next SA whose time is over.
    pub(super) fn expire(&mut self, now: u64) -> Option<u32> {
        let (until, spi) = *self.kept.front()?;
        if until > now {
            return None;
        }
        self.kept.pop_front();
        Some(spi)
    }

    /// How long to wait until it is seen whether a time is over; `None`: nothing is kept.
    pub(super) fn patience(&self) -> Option<&'static Timespec> {
        const WAIT: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        (!self.kept.is_empty()).then_some(&WAIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(child: &str) -> Arc<Flow> {
        Arc::new(Flow {
            connection: "hosts".into(),
            child: child.into(),
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
        })
    }

    #[test]
    fn only_what_has_a_successor_is_kept() {
        let mut waning = Waning::default();
        waning.begin(flow("a"), 1);
        waning.begin(flow("b"), 2);
        assert!(!waning.end(&flow("a"), 1));
        waning.begin(flow("a"), 3);
        waning.begin(flow("a"), 4);
        assert!(!waning.end(&flow("a"), 4), "an older one is no successor");
        waning.begin(flow("a"), 5);
        assert!(waning.end(&flow("a"), 3));
        assert!(!waning.end(&flow("a"), 5));
        assert!(!waning.end(&flow("a"), 5), "it was ended before");
        assert_eq!(waning.flows.len(), 1);
    }

    #[test]
    fn it_is_kept_for_a_while_only() {
        let mut waning = Waning::default();
        assert!(waning.patience().is_none());
        waning.keep(1, 1_000);
        waning.keep(2, 2_000);
        assert!(waning.patience().is_some());
        let over = DRAIN.as_millis() as u64;
        assert_eq!(waning.expire(999 + over), None);
        assert_eq!(waning.expire(1_000 + over), Some(1));
        assert_eq!(waning.expire(1_000 + over), None);
        assert_eq!(waning.expire(9_000 + over), Some(2));
        assert!(waning.patience().is_none());
    }
}
