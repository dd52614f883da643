//! Packets that are not a child's, though its selectors have them: a narrower policy of another
//! connection is about them, so they must come by an SA of that one, or pass, or not come at all.

use std::collections::HashMap;
use std::sync::Arc;

use obol_esp::Selector;
use obol_ike::ts::TrafficSelector;

use super::sa::selectors;
use crate::config::is_narrower;
use crate::dataplane::flow::Flow;
use crate::dataplane::{DataPlaneError, Policy, meeting};
use crate::host::pairs;

/// By connection and child: packets to us that are for others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Others(HashMap<String, HashMap<String, Vec<Selector>>>);

impl Others {
    /// Of these policies. Few are narrower than one of another connection.
    ///
    /// # Errors
    /// A range that ends before it starts.
    pub(super) fn of(policies: &[Policy]) -> Result<Arc<Self>, DataPlaneError> {
        let mut others = Self::default();
        for (narrow, wide) in meeting(policies) {
            let (narrow, wide) = (&policies[narrow], &policies[wide]);
            let inner = pairs(&narrow.local_ts, &narrow.remote_ts);
            let is_inner = |wide: &(TrafficSelector, TrafficSelector)| {
                inner.iter().any(|narrow| is_narrower(narrow, wide))
            };
            let mut outer = pairs(&wide.local_ts, &wide.remote_ts).into_iter();
            if wide.connection != narrow.connection && outer.any(|wide| is_inner(&wide)) {
                let children = others.0.entry(wide.connection.clone()).or_default();
                let found = children.entry(wide.child.clone()).or_default();
                found.extend(selectors(&narrow.remote_ts, &narrow.local_ts)?);
            }
        }
        Ok(Arc::new(others))
    }

    /// What is not for the SAs of this flow.
    pub(super) fn for_flow(&self, flow: &Flow) -> Vec<Selector> {
        let (connection, child) = flow.name();
        let found = self.0.get(connection).and_then(|c| c.get(child));
        found.cloned().unwrap_or_default()
    }
}
