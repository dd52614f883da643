//! The configuration as it is reported: by `obol list` from the daemon, by `obol check` from a
//! file.

use std::collections::HashMap;
use std::time::Duration;

use obol_ike::config::{
    Child, Connection, FragmentationMode, LocalAuthMethod, Mode, RemoteAuthMethod, StartAction,
};
use obol_ike::crypto::signature::{PublicKey, Signatures};
use obol_ike::identity::Identity;

use super::protocol::{AuthReport, ChildReport, ConnectionReport, OfferReport};
use crate::config::Loaded;
use crate::dataplane::Policy;

/// Every connection, without states.
pub(crate) fn connections(loaded: &Loaded) -> Vec<ConnectionReport> {
    let connections = loaded.ike.connections.iter();
    let mut reports: Vec<_> = connections.map(|c| connection(c)).collect();
    cleartexts(&mut reports, &loaded.policies);
    reports
}

/// Says of which children packets pass in clear at times.
pub(crate) fn cleartexts(reports: &mut [ConnectionReport], policies: &[Policy]) {
    let said = policies.iter().filter_map(|policy| {
        let said = policy.clear.when.said()?;
        Some(((policy.connection.as_str(), policy.child.as_str()), said))
    });
    let said: HashMap<_, _> = said.collect();
    for report in reports.iter_mut().filter(|_| !said.is_empty()) {
        for child in &mut report.children {
            let name = (report.name.as_str(), child.name.as_str());
            child.cleartext = said.get(&name).map(|said| (*said).to_owned());
        }
    }
}

/// The word for a mode.
pub(crate) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Tunnel => "tunnel",
        Mode::Transport => "transport",
    }
}

/// Each as text.
pub(crate) fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// One connection, without states.
pub(crate) fn connection(connection: &Connection) -> ConnectionReport {
    ConnectionReport {
        proposals: texts(&connection.ike_proposals),
        children: connection.children.iter().map(|c| child(c)).collect(),
        ..in_short(connection)
    }
}

/// The same with what proposals come to in their place.
pub(crate) fn in_short(connection: &Connection) -> ConnectionReport {
    let local = match &connection.local.method {
        LocalAuthMethod::Psk => ("psk", Vec::new()),
        LocalAuthMethod::Key(key) => ("pubkey", vec![key_text(key)]),
    };
    let remote = match &connection.remote.method {
        RemoteAuthMethod::Psk => ("psk", Vec::new()),
        RemoteAuthMethod::Keys(keys) => ("pubkey", keys.iter().map(key_text).collect()),
        RemoteAuthMethod::KeysOrPsk(keys) => ("pubkey|psk", keys.iter().map(key_text).collect()),
    };
    let side = |(auth, keys): (&str, _), id: Option<&Identity>, signatures| AuthReport {
        auth: auth.to_owned(),
        id: id.map(ToString::to_string),
        keys,
        signatures: match signatures {
            Signatures::ALL => Vec::new(),
            some => texts(&some.to_words()),
        },
    };
    let (own, peer) = (&connection.local, &connection.remote);
    let margin = connection.margin();
    ConnectionReport {
        name: connection.name.clone(),
        state: None,
        data_plane: None,
        local_addrs: texts(&connection.local_addrs),
        remote_addrs: texts(&connection.remote_addrs),
        local: side(local, own.id.as_ref(), own.signatures),
        remote: side(remote, peer.id.as_ref(), peer.signatures),
        proposals: Vec::new(),
        dpd_delay_s: connection.dpd_delay.map_or(0, |delay| delay.as_secs()),
        ike_life_s: connection.over_time.as_secs(),
        margin_s: margin.as_secs(),
        never_rekeyed: connection.rekey_time == Duration::MAX,
        keying_tries: connection.keying_tries,
        initial_contact: connection.initial_contact,
        fragmentation: connection.fragmentation.mode != FragmentationMode::No,
        generates: connection.generate.is_some(),
        children: connection
            .children
            .iter()
            .map(|c| child_in_short(c))
            .collect(),
    }
}

/// A public key as configurations have it.
fn key_text(key: &PublicKey) -> String {
    key.to_rfc3110().unwrap_or_else(|| key.to_openssh(""))
}

/// What the proposals of a child come to.
fn offer(child: &Child) -> OfferReport {
    let proposals = &child.esp_proposals;
    let has = |esn: bool| proposals.iter().any(|p| p.esn.contains(&esn));
    OfferReport {
        pfs: proposals.iter().any(|p| !p.ke.is_empty()),
        esn: has(true),
        no_esn: has(false),
    }
}

/// One child, without its state.
pub(crate) fn child(child: &Child) -> ChildReport {
    ChildReport {
        proposals: texts(&child.esp_proposals),
        offer: None,
        ..child_in_short(child)
    }
}

fn child_in_short(child: &Child) -> ChildReport {
    ChildReport {
        name: child.name.clone(),
        state: None,
        cleartext: None,
        mode: mode(child.mode).to_owned(),
        start_action: action(child.start_action).to_owned(),
        close_action: action(child.upkeep.close_action.unwrap_or(child.start_action)).to_owned(),
        dpd_action: action(child.upkeep.dpd_action.unwrap_or(child.start_action)).to_owned(),
        local_ts: texts(&child.local_ts),
        remote_ts: texts(&child.remote_ts),
        proposals: Vec::new(),
        offer: Some(offer(child)),
        life_s: child.life_time.as_secs(),
        rekey_bytes: child.rekey_bytes,
        rekey_packets: child.rekey_packets,
        rekey_s: match child.rekey_time {
            Duration::MAX => 0,
            time => time.as_secs(),
        },
    }
}

/// The word for an action.
fn action(action: StartAction) -> &'static str {
    match action {
        StartAction::None => "none",
        StartAction::Trap => "trap",
        StartAction::Start => "start",
    }
}
