//! The configuration as it is reported: by `obol list` from the daemon, by `obol check` from a
//! file.

use obol_ike::config::{
    Child, Config, Connection, LocalAuthMethod, Mode, RemoteAuthMethod, StartAction,
};

use super::protocol::{AuthReport, ChildReport, ConnectionReport};

/// Every connection, without states.
pub(crate) fn connections(config: &Config) -> Vec<ConnectionReport> {
    config.connections.iter().map(|c| connection(c)).collect()
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
    let local_auth = match connection.local.method {
        LocalAuthMethod::Psk => "psk",
        LocalAuthMethod::Key(_) => "pubkey",
    };
    let remote_auth = match connection.remote.method {
        RemoteAuthMethod::Psk => "psk",
        RemoteAuthMethod::Keys(_) => "pubkey",
    };
    let side = |auth: &str, id: Option<&obol_ike::identity::Identity>| AuthReport {
        auth: auth.to_owned(),
        id: id.map(ToString::to_string),
    };
    ConnectionReport {
        name: connection.name.clone(),
        state: None,
        data_plane: None,
        local_addrs: texts(&connection.local_addrs),
        remote_addrs: texts(&connection.remote_addrs),
        local: side(local_auth, connection.local.id.as_ref()),
        remote: side(remote_auth, connection.remote.id.as_ref()),
        proposals: texts(&connection.ike_proposals),
        dpd_delay_s: connection.dpd_delay.map_or(0, |delay| delay.as_secs()),
        children: connection.children.iter().map(|c| child(c)).collect(),
    }
}

fn child(child: &Child) -> ChildReport {
    ChildReport {
        name: child.name.clone(),
        state: None,
        mode: mode(child.mode).to_owned(),
        start_action: action(child.start_action).to_owned(),
        close_action: action(child.upkeep.close_action.unwrap_or(child.start_action)).to_owned(),
        dpd_action: action(child.upkeep.dpd_action.unwrap_or(child.start_action)).to_owned(),
        local_ts: texts(&child.local_ts),
        remote_ts: texts(&child.remote_ts),
        proposals: texts(&child.esp_proposals),
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
