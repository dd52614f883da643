//! What holds between two hosts that are at rest.

use super::pair::{Node, Pair};
use crate::event::{InboundSa, OutboundSa};

impl Pair {
    /// Both ends have the same SAs with keys that fit, nothing is left behind, and no child is up
    /// twice.
    ///
    /// # Panics
    /// If not.
    pub fn assert_invariants(&self) {
        let (a, b) = (spis(&self.a, self), spis(&self.b, self));
        assert_eq!(a, b, "the ends have different IKE SAs");
        assert!(a.len() <= 1, "more than one IKE SA: {a:?}");
        assert_fits(&self.a, &self.b);
        assert_fits(&self.b, &self.a);
        for node in [&self.a, &self.b] {
            assert_once(node);
            assert_no_orphans(node, self);
        }
    }

    /// The invariants, and so many Child SAs.
    ///
    /// # Panics
    /// If not.
    pub fn assert_up(&self, children: usize) {
        self.assert_invariants();
        assert_eq!(self.a.plane.outbound.len(), children, "{:?}", self.a.events);
        assert_eq!(self.a.plane.current.len(), children);
        assert_eq!(self.b.plane.current.len(), children);
    }

    /// Nothing is up, and nothing left behind.
    ///
    /// # Panics
    /// If not.
    pub fn assert_down(&self) {
        for node in [&self.a, &self.b] {
            assert!(node.plane.inbound.is_empty() && node.plane.outbound.is_empty());
            assert!(node.endpoint.status(self.now).is_empty());
        }
    }
}

fn spis(node: &Node, pair: &Pair) -> Vec<(u64, u64)> {
    let status = node.endpoint.status(pair.now);
    let mut spis: Vec<(u64, u64)> = status.iter().map(|sa| (sa.spi_i.0, sa.spi_r.0)).collect();
    spis.sort_unstable();
    spis
}

/// What one end sends, the other receives: same SPI, keys, selectors, mode.
fn assert_fits(from: &Node, to: &Node) {
    for out in from.plane.outbound.values() {
        let into = to
            .plane
            .inbound
            .values()
            .find(|into| into.info.spi_in == out.info.spi_out);
        let into = into.unwrap_or_else(|| panic!("packets of {:?} are not accepted", out.info));
        assert_same(out, into);
    }
}

fn assert_same(out: &OutboundSa, into: &InboundSa) {
    assert!(out.keys.encr.ct_eq(&into.keys.encr), "different keys");
    assert!(out.keys.integ.ct_eq(&into.keys.integ), "different keys");
    assert!(!out.keys.encr.is_empty());
    assert_eq!(out.info.mode, into.info.mode);
    assert_eq!(out.info.esn, into.info.esn);
    assert_eq!(
        (out.info.encr, out.info.encap),
        (into.info.encr, into.info.encap)
    );
    if !out.info.nat {
        assert_eq!(out.info.local_ts, into.info.remote_ts);
        assert_eq!(out.info.remote_ts, into.info.local_ts);
    }
}

/// No child twice, but for the queues of one, and each that is up has packets go out.
fn assert_once(node: &Node) {
    let mut names: Vec<_> = node
        .plane
        .inbound
        .values()
        .map(|sa| (&sa.info.connection, &sa.info.child, sa.info.queue))
        .collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(all, names.len(), "a child is up twice: {names:?}");
    names.dedup_by_key(|(connection, child, _)| (*connection, *child));
    let out = node.plane.current.len();
    assert_eq!(out, names.len(), "a child without way out");
}

/// The data plane has what the endpoint knows of, and nothing else.
fn assert_no_orphans(node: &Node, pair: &Pair) {
    let status = node.endpoint.status(pair.now);
    let mut known: Vec<_> = status
        .iter()
        .flat_map(|sa| &sa.children)
        .map(|child| child.info.id)
        .collect();
    known.sort();
    let installed: Vec<_> = node.plane.inbound.keys().copied().collect();
    assert_eq!(known, installed, "endpoint and data plane differ");
    assert!(
        status.iter().all(|sa| sa.state == "established"),
        "{status:?}"
    );
}
