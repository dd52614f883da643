//! The commands that change something: bring up and close, load and unload.

use std::collections::HashSet;
use std::path::Path;

use super::call::Verb;
use super::out::{Out, Style};
use super::progress::Progress;
use super::status::{View, child_number, child_words, id_type, ike_number, written};
use super::{CONFIG, Daemon, Ended, code};
use crate::cli::complain_line;
use crate::config::changes::ChildChange;
use crate::control::protocol::{
    Absence, ChangeReport, ConnectionReport, DownReport, DownTarget, IkeSaReport, PsksReport,
    ReloadReport, Request, SaName, SecretsReport, UpReport,
};
use crate::pluto;

/// How long `up` waits, in milliseconds: as long as a connection that is not to be given up soon.
const UP: u64 = 120_000;
const DOWN: u64 = 10_000;

/// Brings up what a name means; the exit code is that of the first which does not come up.
pub(super) fn up(daemon: &Daemon, out: &Out, name: &str, asynchronous: bool) -> Result<u8, Ended> {
    let before = daemon.view(Some(name))?;
    let wanted: Vec<(String, String)> = before
        .find(Some(name))
        .map(|(connection, child)| (connection.name.clone(), child.name.clone()))
        .collect();
    if wanted.is_empty() && before.is_shunt(name) {
        let text = format!("\"{name}\": cannot initiate connection: authby=never");
        return Err(Ended::new(code::NEVER, text));
    }
    if wanted.is_empty() {
        return Err(before.unknown(name));
    }
    let mut worst = 0;
    for (connection, child) in &wanted {
        let request = Request::Up {
            connection: connection.clone(),
            child: Some(child.clone()),
            timeout_ms: if asynchronous { 0 } else { UP },
        };
        let mut progress = Progress::of(&before, out, connection, child);
        match daemon.ask_and_hear::<UpReport>(&request, |step| progress.tell(step)) {
            Ok(_) => established(&daemon.view(Some(name))?, &before, out, connection, child),
            // It goes on by itself.
            Err(ended) if asynchronous && ended.code == code::NO_RESPONSE => {}
            Err(ended) => {
                progress.failed(&ended.text);
                // Nothing was to be loaded: what is wrong with the configuration, as a secret that
                // is not there, makes this one fail.
                let code = match ended.code {
                    code::CONFIG => code::FATAL,
                    code => code,
                };
                worst = if worst == 0 { code } else { worst };
            }
        }
    }
    Ok(worst)
}

/// Loads what a name means as the files have it now, and brings it up.
pub(super) fn start(
    daemon: &Daemon,
    out: &Out,
    name: &str,
    asynchronous: bool,
) -> Result<u8, Ended> {
    change(daemon, out, Verb::Add, name)?;
    up(daemon, out, name, asynchronous)
}

/// The lines that scripts look for. Of an IKE SA that was there `before` nothing is said, and what was
/// not, this end has begun.
fn established(view: &View, before: &View, out: &Out, connection: &str, child: &str) {
    let configured = view.list.connections.iter();
    let configured: Vec<&ConnectionReport> = configured
        .filter(|known| known.name == connection)
        .collect();
    for (ike, sa) in view.up(connection, child).into_iter().take(1) {
        let name = view.instance(ike, child);
        let id = ike.remote.id.as_deref().map(written).unwrap_or_default();
        let proof = proof(out.style, ike, &id);
        let mut old = before.sas_of(connection);
        let is_old = old.any(|old| old.id == ike.id && old.state == ike.state);
        if !is_old
            || before
                .up(connection, child)
                .iter()
                .any(|(_, old)| old.id == sa.id)
        {
            let text = format!(
                "{name} #{}: {} established IKE SA; authenticated peer {proof}",
                ike_number(ike),
                ike.role
            );
            out.line("003", &text);
        }
        let role = match is_old {
            true => "initiator",
            false => ike.role.as_str(),
        };
        let active = configured.iter().any(|known| known.dpd_delay_s > 0);
        let text = format!(
            "{name} #{}: {role} established Child SA using #{}; {}",
            child_number(sa),
            ike_number(ike),
            child_words(out.style, sa, active)
        );
        out.line("004", &text);
    }
}

/// What a peer has proven its identity by.
fn proof(style: Style, ike: &IkeSaReport, id: &str) -> String {
    let by = ike.proven_by.as_ref();
    let word = by.map_or("psk", |proof| &*proof.by);
    let (kind, hash) = word.rsplit_once('-').unwrap_or((word, ""));
    let kind = match kind {
        "rsa-pss" => "RSASSA-PSS",
        "rsa-pkcs1" => "PKCS#1 1.5 RSA",
        "ecdsa" => "ECDSA",
        "ed25519" => "EDDSA",
        _ => return format!("using authby=secret and {} '{id}'", id_type(id)),
    };
    let hash = match hash.strip_prefix("sha") {
        Some(bits) => format!("SHA2_{bits}"),
        None => "IDENTITY".to_owned(),
    };
    let bits = by.and_then(|proof| proof.key_bits).unwrap_or_default();
    match style {
        Style::Five => format!(
            "using preloaded certificate '{id}' and {bits}-bit {kind} with {hash} digital signature"
        ),
        Style::Four => format!(
            "'{bits}-bit {kind} with {hash}' digital signature using preloaded certificate '{id}'"
        ),
    }
}

/// Closes what a name means, and the IKE SA with it unless others use it.
pub(super) fn down(daemon: &Daemon, out: &Out, name: &str) -> Result<u8, Ended> {
    let view = daemon.view(Some(name))?;
    let wanted = view.meant(name)?;
    for (connection, child) in &wanted {
        let request = match others(&view, &wanted, connection) {
            true => DownTarget::Child {
                connection: (*connection).to_owned(),
                child: (*child).to_owned(),
            },
            false => DownTarget::Whole((*connection).to_owned()),
        };
        say_end(&view, out, connection, child, &request);
        daemon.ask::<DownReport>(&Request::Down {
            target: request,
            timeout_ms: DOWN,
        })?;
    }
    Ok(0)
}

/// Whether other children than these are up on an IKE SA of the connection.
fn others(view: &View, wanted: &[(&str, &str)], connection: &str) -> bool {
    let sas = view.status.ike_sas.iter();
    let children = sas
        .filter(|sa| sa.name == connection)
        .flat_map(|sa| &sa.children);
    let mut names = children.map(|child| (connection, &*child.name));
    names.any(|name| !wanted.contains(&name))
}

fn say_end(view: &View, out: &Out, connection: &str, child: &str, target: &DownTarget) {
    for (ike, sa) in view.up(connection, child) {
        let name = view.instance(ike, child);
        let mut sharers = ike.children.iter().filter(|other| other.name != child);
        let sharer = sharers.next().map_or("others", |other| &other.name);
        let (ike, number) = (ike_number(ike), child_number(sa));
        let is_shared = matches!(target, DownTarget::Child { .. });
        let lines = match (out.style, is_shared) {
            (Style::Five, true) => [
                format!(
                    "{name}: initiating delete of connection's Child SA #{number}, IKE SA #{ike} is shared with \"{sharer}\""
                ),
                format!(
                    "{name} #{number}: sent INFORMATIONAL request to delete established Child SA using IKE SA #{ike}"
                ),
            ],
            (Style::Five, false) => [
                format!(
                    "{name}: initiating delete of connection's IKE SA #{ike} (and Child SA #{number})"
                ),
                format!("{name} #{ike}: sent INFORMATIONAL request to delete IKE SA"),
            ],
            (Style::Four, shared) => [
                format!("{name}: terminating SAs using this connection"),
                match shared {
                    true => format!("{name}: IKE SA is shared - only terminating IPsec SA"),
                    false => format!("{name} #{ike}: deleting IKE SA (established IKE SA)"),
                },
            ],
        };
        lines.iter().for_each(|line| out.line("002", line));
        let text = format!(
            "{name} #{number}: ESP traffic information: in={}B out={}B",
            sa.bytes_in, sa.bytes_out
        );
        out.line("005", &text);
    }
}

/// Rekeys what a name means, or the IKE SA that it is on.
pub(super) fn rekey(daemon: &Daemon, out: &Out, verb: Verb, name: &str) -> Result<u8, Ended> {
    let view = daemon.view(Some(name))?;
    let wanted = view.meant(name)?;
    let mut any = false;
    let mut said = HashSet::new();
    for (connection, child) in wanted {
        let up = view.up(connection, child);
        let Some((ike, sa)) = up.first() else {
            continue;
        };
        any = true;
        let (name, ike_sa) = (view.instance(ike, child), ike_number(ike));
        let is_ike = verb == Verb::RekeyIke;
        if is_ike && !said.insert(ike_sa) {
            continue;
        }
        let () = daemon.ask(&Request::Rekey {
            connection: connection.to_owned(),
            child: (!is_ike).then(|| child.to_owned()),
        })?;
        let text = match is_ike {
            true => format!("{name} #{ike_sa}: initiating rekey to replace IKE SA #{ike_sa}"),
            false => format!(
                "{name} #{0}: initiating rekey to replace Child SA #{0} using IKE SA #{ike_sa}",
                child_number(sa)
            ),
        };
        out.line("002", &text);
    }
    match any {
        true => Ok(0),
        false => Err(Ended::new(
            code::FAILED,
            format!("\"{name}\": cannot be rekeyed: no SA is up"),
        )),
    }
}

/// Closes one SA. pluto counts all SAs by one number.
pub(super) fn delete_state(daemon: &Daemon, out: &Out, number: u64) -> Result<u8, Ended> {
    let sa = match number % 2 {
        0 => SaName::Child(number / 2),
        _ => SaName::Ike(number / 2 + 1),
    };
    let closed: Result<(), Ended> = daemon.ask(&Request::CloseSa(sa));
    closed.map_err(|ended| match ended.code {
        code::FAILED => Ended::new(code::UNKNOWN_NAME, format!("no state #{number} to delete")),
        _ => ended,
    })?;
    out.line("002", &format!("#{number}: deleting"));
    Ok(0)
}

/// Says which shared secrets there are, and which connections use them.
pub(super) fn list_secrets(daemon: &Daemon, out: &Out) -> Result<u8, Ended> {
    let report: PsksReport = daemon.ask(&Request::Psks)?;
    out.blank();
    let text = format!("List of Pre-shared secrets (from {}):", report.file);
    out.line("000", &text);
    out.blank();
    for record in &report.records {
        let line = record.place.rsplit(':').next().unwrap_or_default();
        let ids = match record.ids.is_empty() {
            true => "%any".to_owned(),
            false => record.ids.join(" "),
        };
        let used: Vec<String> = record
            .used_by
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let used = match used.is_empty() {
            true => "used by no connection".to_owned(),
            false => format!("used by {}", used.join(", ")),
        };
        let place = &record.place;
        out.line("000", &format!("    {line}: PSK {ids} ({place}; {used})"));
    }
    Ok(0)
}

/// Loads, unloads, traps or untraps what a name means; all is read again for it.
pub(super) fn change(daemon: &Daemon, out: &Out, verb: Verb, name: &str) -> Result<u8, Ended> {
    let to = match verb {
        Verb::Delete => ChildChange::Unload,
        Verb::Route => ChildChange::Trap,
        Verb::Unroute => ChildChange::Wait,
        _ => ChildChange::Load,
    };
    let request = Request::Change {
        name: name.to_owned(),
        to,
    };
    let report: ChangeReport = daemon.ask(&request).map_err(|ended| {
        match ended.text.starts_with("no connection or alias") {
            true if verb == Verb::Add => Ended::new(
                code::UNKNOWN_NAME,
                format!("conn {name}: not found (tried aliases)"),
            ),
            true => Ended::unknown(name),
            false => ended,
        }
    })?;
    if let Some(not) = &report.waits {
        let what = match not.kind {
            Absence::Unoriented => "unoriented IKEv2 connection",
            Absence::Ignored | Absence::Unrouted | Absence::Unresolved => "connection",
        };
        out.line("002", &format!("\"{name}\": added {what} ({})", not.why));
    }
    for (_, child) in &report.children {
        let text = match to {
            ChildChange::Load => format!("\"{child}\": added IKEv2 connection"),
            ChildChange::Unload => format!("\"{child}\": terminating SAs using this connection"),
            ChildChange::Trap | ChildChange::Wait => continue,
        };
        out.line("002", &text);
    }
    Ok(0)
}

/// Has the daemon look at the addresses of this host again.
pub(super) fn listen(daemon: &Daemon, out: &Out) -> Result<u8, Ended> {
    let () = daemon.ask(&Request::Listen)?;
    out.line("002", "listening for IKE messages");
    Ok(0)
}

/// Has the daemon read its files again.
pub(super) fn read_again(daemon: &Daemon, out: &Out, verb: Verb) -> Result<u8, Ended> {
    let report: ReloadReport = daemon.ask(&Request::Reload)?;
    for warning in &report.warnings {
        complain_line(warning);
    }
    match verb {
        Verb::Reread => out.line("002", "configuration and secrets are read again"),
        _ => {
            for name in report.added.iter().chain(&report.changed) {
                out.line("002", &format!("\"{name}\": added IKEv2 connection"));
            }
        }
    }
    Ok(0)
}

/// Has the daemon read secrets and private keys again, and nothing else.
pub(super) fn read_secrets(daemon: &Daemon, out: &Out) -> Result<u8, Ended> {
    let report: SecretsReport = daemon.ask(&Request::Secrets)?;
    out.line("002", "forgetting secrets");
    for file in &report.files {
        out.line("002", &format!("loading secrets from \"{file}\""));
    }
    for warning in &report.warnings {
        complain_line(warning);
    }
    Ok(0)
}

/// Says what is wrong with the configuration, and nothing where nothing is.
pub(super) fn check_config(path: Option<&Path>) -> Result<u8, Ended> {
    let path = path.unwrap_or(Path::new(CONFIG));
    let understood = pluto::load(path).map_err(|errors| {
        let lines = errors.0.iter().map(|error| format!("ERROR: {error}"));
        Ended::new(code::CONFIG, lines.collect::<Vec<_>>().join("\n"))
    })?;
    for (name, errors) in &understood.refused {
        for error in errors {
            complain_line(&format!("ERROR: conn {name}: {error}"));
        }
    }
    Ok(match understood.refused.is_empty() {
        true => 0,
        false => code::CONFIG,
    })
}
