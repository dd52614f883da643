//! What SAs carry, whichever SA it is: SAs of one flow share a request ID, so that the policies
//! of the old one are those of the new one.

use std::collections::HashMap;

use obol_ike::event::{ChildSaId, ChildSaInfo};
use obol_ike::ts::TrafficSelector;

/// The SAs of each flow.
#[derive(Debug, Default)]
pub(super) struct Flows(HashMap<Flow, Carried>);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Flow {
    connection: String,
    child: String,
    local_ts: Vec<TrafficSelector>,
    remote_ts: Vec<TrafficSelector>,
}

#[derive(Debug)]
struct Carried {
    reqid: u32,
    /// The oldest first.
    sas: Vec<ChildSaId>,
}

/// What is left of a flow when an SA ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// A newer SA carries it.
    Succeeded,
    /// An older one does.
    Preceded,
    /// Nothing: its request ID is free.
    Closed(u32),
}

impl Flow {
    fn of(info: &ChildSaInfo) -> Self {
        Self {
            connection: info.connection.clone(),
            child: info.child.clone(),
            local_ts: info.local_ts.clone(),
            remote_ts: info.remote_ts.clone(),
        }
    }
}

impl Flows {
    /// The request ID of a flow that SAs carry.
    pub(super) fn reqid(&self, info: &ChildSaInfo) -> Option<u32> {
        Some(self.0.get(&Flow::of(info))?.reqid)
    }

    /// An SA carries its flow from now on.
    pub(super) fn begin(&mut self, info: &ChildSaInfo, reqid: u32) {
        let carried = self.0.entry(Flow::of(info)).or_insert(Carried {
            reqid,
            sas: Vec::new(),
        });
        carried.sas.push(info.id);
    }

    /// An SA does not carry its flow any more.
    pub(super) fn end(&mut self, info: &ChildSaInfo) -> Option<Ended> {
        let flow = Flow::of(info);
        let carried = self.0.get_mut(&flow)?;
        let newest = carried.sas.last().copied();
        carried.sas.retain(|own| *own != info.id);
        let reqid = carried.reqid;
        if carried.sas.is_empty() {
            self.0.remove(&flow);
            return Some(Ended::Closed(reqid));
        }
        Some(match newest == Some(info.id) {
            true => Ended::Preceded,
            false => Ended::Succeeded,
        })
    }
}
