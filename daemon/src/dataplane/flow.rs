//! What SAs carry, whichever SA it is: of two SAs of one flow, the newer one takes over.

use std::collections::HashMap;
use std::sync::Arc;

use obol_ike::event::ChildSaInfo;
use obol_ike::ts::TrafficSelector;

/// The packets of a child, as they were negotiated. Several SAs at once for one child (RFC 9611) carry
/// different ones.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(super) struct Flow {
    connection: String,
    child: String,
    queue: u16,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

impl Flow {
    /// The flow of an SA.
    pub(super) fn of(info: &ChildSaInfo) -> Arc<Self> {
        Arc::new(Self {
            connection: info.connection.clone(),
            child: info.child.clone(),
            queue: info.queue,
            local_ts: info.local_ts.clone(),
            remote_ts: info.remote_ts.clone(),
        })
    }

    /// Names of its connection and child.
    pub(super) fn name(&self) -> (&str, &str) {
        (&self.connection, &self.child)
    }
}

/// Which SAs carry each flow, the oldest first; `K` names an SA.
#[derive(Debug)]
pub(super) struct Flows<K>(HashMap<Arc<Flow>, Vec<K>>);

/// What is left of a flow when an SA ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// A newer SA carries it.
    Succeeded,
    /// An older one does.
    Preceded,
    /// Nothing.
    Closed,
}

impl<K> Default for Flows<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Copy + Eq> Flows<K> {
    /// The newest SA that carries a flow.
    pub(super) fn newest(&self, flow: &Flow) -> Option<K> {
        self.0.get(flow)?.last().copied()
    }

    /// An SA carries this flow from now on.
    pub(super) fn begin(&mut self, flow: Arc<Flow>, sa: K) {
        self.0.entry(flow).or_default().push(sa);
    }

    /// An SA does not carry its flow any more; `None`: it did not.
    pub(super) fn end(&mut self, flow: &Flow, sa: K) -> Option<Ended> {
        let sas = self.0.get_mut(flow)?;
        let place = sas.iter().position(|own| *own == sa)?;
        sas.remove(place);
        if sas.is_empty() {
            self.0.remove(flow);
            return Some(Ended::Closed);
        }
        Some(match place == sas.len() {
            true => Ended::Preceded,
            false => Ended::Succeeded,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(child: &str) -> Arc<Flow> {
        for_queue(child, 0)
    }

    fn for_queue(child: &str, queue: u16) -> Arc<Flow> {
        Arc::new(Flow {
            connection: "hosts".into(),
            child: child.into(),
            queue,
            local_ts: Vec::new(),
            remote_ts: Vec::new(),
        })
    }

    #[test]
    fn only_a_newer_sa_is_a_successor() {
        let mut flows = Flows::default();
        flows.begin(flow("a"), 1);
        flows.begin(flow("b"), 2);
        assert_eq!(flows.end(&flow("a"), 1), Some(Ended::Closed));
        flows.begin(flow("a"), 3);
        flows.begin(flow("a"), 4);
        assert_eq!(flows.end(&flow("a"), 4), Some(Ended::Preceded));
        flows.begin(flow("a"), 5);
        assert_eq!(flows.newest(&flow("a")), Some(5));
        assert_eq!(flows.end(&flow("a"), 3), Some(Ended::Succeeded));
        assert_eq!(flows.end(&flow("a"), 3), None, "it was ended before");
        assert_eq!(flows.end(&flow("a"), 5), Some(Ended::Closed));
        assert_eq!(flows.newest(&flow("a")), None);
        assert_eq!(flows.newest(&flow("b")), Some(2));
    }

    #[test]
    fn an_sa_for_another_queue_is_no_successor() {
        let mut flows = Flows::default();
        flows.begin(for_queue("a", 0), 1);
        flows.begin(for_queue("a", 1), 2);
        assert_eq!(flows.end(&for_queue("a", 0), 1), Some(Ended::Closed));
        flows.begin(for_queue("a", 1), 3);
        assert_eq!(flows.end(&for_queue("a", 1), 2), Some(Ended::Succeeded));
    }
}
