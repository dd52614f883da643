//! What many IKE SAs take of memory, and many connections of time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use obol_benches::heap;
use obol_ike::config::{Child, Connection, StartAction};
use obol_ike::testing::setup::mirror;

use crate::ends::{End, close, config, name, nth, shake};

/// Octets of live heap of a responder for each IKE SA with one child.
pub(crate) fn memory(count: usize) -> f64 {
    let mut theirs = mirror(&nth(0), StartAction::None);
    theirs.remote_addrs.clear();
    theirs.remote.id = None;
    theirs.children = vec![Arc::new(Child {
        remote_ts: vec!["10.0.0.0/8".parse().expect("a network")],
        ..Child::clone(&theirs.children[0])
    })];
    let mut responder = End::new(vec![theirs], 1);
    let now = Instant::now();
    let mut started = End::new(vec![nth(count)], 2);
    shake(&mut started, &mut responder, count, now);
    let before = heap::live();
    for n in 0..count {
        let mut initiator = End::new(vec![nth(n)], n as u64 + 3);
        shake(&mut initiator, &mut responder, n, now);
    }
    let live = heap::live() - before;
    let status = responder.endpoint.status(now);
    assert_eq!(status.len(), count + 1, "all are up");
    live as f64 / count as f64
}

/// The shortest time of a handshake by the last of so many connections.
pub(crate) fn among(count: usize) -> Duration {
    let ours: Vec<Connection> = (0..count).map(nth).collect();
    let theirs = ours.iter().map(|c| mirror(c, StartAction::None)).collect();
    let (mut a, mut b) = (End::new(ours, 1), End::new(theirs, 2));
    let now = Instant::now();
    let times = (0..200).map(|_| {
        let start = Instant::now();
        shake(&mut a, &mut b, count - 1, now);
        let took = start.elapsed();
        close(&mut a, &mut b, count - 1, now);
        took
    });
    times.min().unwrap_or_default()
}

/// The shortest time for each connection when so many are added by a reload.
pub(crate) fn added(count: usize) -> Duration {
    let now = Instant::now();
    let connections: Vec<Connection> = (1..=count).map(nth).collect();
    let times = (0..5).map(|_| {
        let mut end = End::new(vec![nth(0)], 1);
        let all = std::iter::once(nth(0)).chain(connections.iter().cloned());
        let after = Arc::new(config(all.collect()));
        let start = Instant::now();
        end.endpoint.reload(now, after);
        let took = start.elapsed();
        assert_eq!(
            end.endpoint.outlook(now).len(),
            count + 1,
            "{} is known",
            name(count)
        );
        took
    });
    times.min().unwrap_or_default() / u32::try_from(count).unwrap_or(u32::MAX)
}
