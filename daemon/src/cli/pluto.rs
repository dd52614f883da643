//! `obol check` and `obol convert` for the files of pluto.

use std::net::IpAddr;
use std::path::Path;

use serde_json::json;

use super::{complain_line, print_json, print_text};
use crate::config::Finding;
use crate::control::protocol::SCHEMA_VERSION;
use crate::dataplane::Cleartext;
use crate::error::{ExitClass, Failure};
use crate::pluto::{self, Auto, HostView, Kind, Oriented, Understood};

/// Whether a file is pluto's, by its name.
pub(super) fn is_pluto(path: &Path) -> bool {
    path.extension() == Some("conf".as_ref())
}

/// Checks `ipsec.conf`, and says what each connection means on this host.
///
/// # Errors
/// It cannot be read as a whole, or connections are refused.
pub(super) fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let (understood, view) = load(path, json)?;
    if json {
        print_json(&report(&understood, &view))?;
    } else {
        complain(&understood);
        let mut text = format!("{} on this host\n", path.display());
        for conn in &understood.conns {
            text.push('\n');
            text.push_str(&match pluto::orient(conn, &view) {
                Ok(oriented) => describe(&oriented),
                Err(why) => format!("{}: not this host's, {why}\n", conn.name.value),
            });
        }
        for (name, why) in &understood.parts {
            text.push_str(&format!("\n{name}: {why}\n"));
        }
        print_text(&text)?;
    }
    refused(&understood)
}

/// Prints what `ipsec.conf` means on this host in obol's own words.
///
/// # Errors
/// It cannot be read as a whole, or connections are refused.
pub(super) fn convert(path: &Path) -> Result<(), Failure> {
    let (understood, view) = load(path, false)?;
    complain(&understood);
    let mut conns: Vec<Oriented<'_>> = Vec::new();
    let mut others = Vec::new();
    for conn in &understood.conns {
        let name = &conn.name.value;
        match (
            pluto::orient(conn, &view),
            pluto::why_not(conn, false, false),
        ) {
            (Ok(oriented), None) => conns.push(oriented),
            (Ok(oriented), Some((_, why))) => {
                complain_line(&format!("{name}: a comment only, {why}"));
                others.push((oriented, why));
            }
            (Err(why), _) => complain_line(&format!("{name}: left out, {why}")),
        }
    }
    print_text(&pluto::convert(&understood.setup, &conns, &others))?;
    refused(&understood)
}

/// What the files say, without what obol cannot run on this host.
fn load(path: &Path, json: bool) -> Result<(Understood, HostView), Failure> {
    let mut understood = read(path, json)?;
    let view = host_view(&mut understood)?;
    pluto::refuse(&mut understood, &view);
    Ok((understood, view))
}

fn read(path: &Path, json: bool) -> Result<Understood, Failure> {
    pluto::load(path).map_err(|errors| {
        if json {
            let report = json!({
                "schema_version": SCHEMA_VERSION,
                "ok": false,
                "errors": super::check::findings(&errors.0),
            });
            // What cannot be printed is in the failure all the same.
            let _ = print_json(&report);
        }
        errors.into()
    })
}

fn complain(understood: &Understood) {
    for notice in &understood.notices {
        complain_line(&format!("notice: {notice}"));
    }
    for (name, errors) in &understood.refused {
        for error in errors {
            complain_line(&format!("{name} is refused: {error}"));
        }
    }
}

fn refused(understood: &Understood) -> Result<(), Failure> {
    match understood.refused.len() {
        0 => Ok(()),
        n => Err(Failure::new(
            ExitClass::Config,
            format!(
                "{n} of {} connections are refused",
                n + understood.conns.len()
            ),
        )),
    }
}

/// Where obol differs from pluto about packets of a connection that waits for its peer.
const BLOCKS_FIRST: &str = "  until the peer has built an SA, its packets are dropped, which pluto lets pass in clear; negotiationshunt=passthrough lets them pass\n";

/// Whether packets are dropped that pluto lets pass: those before the first SA.
fn blocks_first(conn: &pluto::Conn) -> bool {
    let esp = matches!(conn.kind, Kind::Tunnel | Kind::Transport);
    esp && conn.auto == Auto::Add && conn.policy.cleartext == Cleartext::Never
}

fn describe(oriented: &Oriented<'_>) -> String {
    let conn = oriented.conn;
    let what = match (conn.kind, conn.auto) {
        (_, Auto::Ignore) => "is not loaded at start (auto=ignore)",
        (Kind::Pass, Auto::Add) => "lets packets pass in clear once it is routed (auto=add)",
        (Kind::Drop, Auto::Add) => "drops packets once it is routed (auto=add)",
        (Kind::Pass, _) => "lets packets pass in clear",
        (Kind::Drop, _) => "drops packets",
        (_, Auto::Add) => "waits for the peer",
        (_, Auto::Ondemand) => "comes up with the first packet",
        (_, Auto::Up) => "comes up at start and is kept up",
        (_, Auto::Keep) => "waits for the peer, and is then kept up",
    };
    let mode = match conn.kind {
        Kind::Transport => "transport",
        _ => "tunnel",
    };
    let remote = oriented.remote_addrs.iter().map(IpAddr::to_string);
    let remote = remote.collect::<Vec<_>>().join(", ");
    let aliases = match conn.aliases.as_slice() {
        [] => String::new(),
        aliases => format!(" (also {})", aliases.join(", ")),
    };
    let mut text = format!(
        "{}{aliases}: {what}\n  {} ... {}\n",
        conn.name.value,
        oriented.local_addr,
        if remote.is_empty() {
            "anybody"
        } else {
            &remote
        }
    );
    for child in oriented.children() {
        let list = |ts: &[obol_ike::ts::TrafficSelector]| {
            let texts: Vec<String> = ts.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        text.push_str(&format!(
            "  {mode} {} === {} ({})\n",
            list(&child.local_ts),
            list(&child.remote_ts),
            child.name
        ));
    }
    if blocks_first(conn) {
        text.push_str(BLOCKS_FIRST);
    }
    if let Some(command) = &oriented.local_end().updown {
        text.push_str(&format!("  runs {command} (leftupdown or rightupdown)\n"));
    }
    text
}

fn report(understood: &Understood, view: &HostView) -> serde_json::Value {
    let conn = |conn: &pluto::Conn| match pluto::orient(conn, view) {
        Ok(oriented) => json!({
            "name": conn.name.value,
            "oriented": true,
            "local": oriented.local_addr.to_string(),
            "remote": oriented.remote_addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
            "children": oriented.children().iter().map(|child| json!({
                "name": child.name,
                "local_ts": child.local_ts.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "remote_ts": child.remote_ts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        }),
        Err(why) => json!({"name": conn.name.value, "oriented": false, "why": why.to_string()}),
    };
    let refused = |(name, errors): &(String, Vec<Finding>)| json!({"name": name, "errors": super::check::findings(errors)});
    json!({
        "schema_version": SCHEMA_VERSION,
        "ok": understood.refused.is_empty(),
        "notices": super::check::findings(&understood.notices),
        "conns": understood.conns.iter().map(conn).collect::<Vec<_>>(),
        "refused": understood.refused.iter().map(refused).collect::<Vec<_>>(),
    })
}

/// This host as it is now.
fn host_view(understood: &mut Understood) -> Result<HostView, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::system("cannot ask for the addresses of this host", &e))?;
    runtime
        .block_on(HostView::now(understood))
        .map_err(|e| Failure::new(ExitClass::Failed, e.to_string()))
}
