//! Child SAs about which the configuration has no child: where a connection says so, a peer has what it
//! asks for, but for packets that a policy is about, and between this host and the peer's own address
//! only. So nobody gets at the packets of another peer, and nothing that is configured gives way.

use std::sync::Arc;

use crate::config::{Child, Connection, Generate, Mode, Path};
use crate::sa::negotiate::Between;
use crate::ts::TrafficSelector;

/// So many one IKE SA has at once.
pub(crate) const MOST: usize = 16;

/// Selectors of each side that are taken, the first ones; a responder may always take less.
const MOST_SELECTORS: usize = 4;

/// What a peer gets of these selectors, ours and its own, as a child; `None`: nothing.
pub(crate) fn generate(
    connection: &Connection,
    (local, remote): (&[TrafficSelector], &[TrafficSelector]),
    mode: Mode,
    between: Between,
) -> Option<Arc<Child>> {
    let generate = connection.generate.as_ref()?;
    // Behind a NAT, one address is that of several hosts.
    if between.nat.local || between.nat.remote {
        return None;
    }
    let child = child_of(generate, (local, remote), mode, between.path)?;
    let free = generate.allows(&child.local_ts, &child.remote_ts);
    free.then(|| Arc::new(child))
}

fn child_of(
    generate: &Generate,
    (local, remote): (&[TrafficSelector], &[TrafficSelector]),
    mode: Mode,
    path: Path,
) -> Option<Child> {
    let remote_ts = of_host(remote, path.remote);
    let local_ts = match mode {
        Mode::Transport => of_host(local, path.local),
        Mode::Tunnel => {
            let same_family = |ts: &&TrafficSelector| ts.start.is_ipv4() == path.remote.is_ipv4();
            let local = local.iter().filter(same_family);
            local.take(MOST_SELECTORS).copied().collect()
        }
    };
    if local_ts.is_empty() || remote_ts.is_empty() {
        return None;
    }
    Some(Child {
        name: name(mode, &local_ts, &remote_ts),
        mode,
        local_ts,
        remote_ts,
        ..generate.like.clone()
    })
}

fn of_host(selectors: &[TrafficSelector], host: std::net::SocketAddr) -> Vec<TrafficSelector> {
    let host = TrafficSelector::host(host.ip());
    let common = selectors.iter().filter_map(|ts| ts.intersect(&host));
    common.take(MOST_SELECTORS).collect()
}

/// The same packets have the same name, whoever asks for them.
fn name(mode: Mode, local: &[TrafficSelector], remote: &[TrafficSelector]) -> String {
    let mode = match mode {
        Mode::Transport => "transport",
        Mode::Tunnel => "tunnel",
    };
    let texts = |side: &[TrafficSelector]| {
        let texts: Vec<String> = side.iter().map(ToString::to_string).collect();
        texts.join("+")
    };
    format!(
        "{}{mode}:{}={}",
        Generate::MARK,
        texts(local),
        texts(remote)
    )
}

/// What becomes of a child that was made so when the configuration is another one; `None`: it goes.
pub(crate) fn made_anew(connection: &Connection, child: &Child) -> Option<Arc<Child>> {
    let generate = connection.generate.as_ref()?;
    if !Generate::made(&child.name) || !generate.allows(&child.local_ts, &child.remote_ts) {
        return None;
    }
    Some(Arc::new(Child {
        name: child.name.clone(),
        mode: child.mode,
        local_ts: child.local_ts.clone(),
        remote_ts: child.remote_ts.clone(),
        ..generate.like.clone()
    }))
}
