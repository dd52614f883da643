//! Reports as people read them.

use crate::control::protocol::{
    AuthReport, ChildReport, ChildSaReport, ConnectionReport, EndReport, IkeSaReport, PolicyReport,
    PolicyState, StatusReport,
};

/// Connections differ in what carries them.
const BOTH: &str = "both";

/// Rows in aligned columns, the first row being the heading; no space at the end of a line.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str("  ");
            line.push_str(cell);
            let fill = width - cell.chars().count();
            line.extend(std::iter::repeat_n(' ', fill));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The state of a daemon.
pub(crate) fn status(report: &StatusReport) -> String {
    let daemon = &report.daemon;
    let why = match &*daemon.data_plane_why {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    let data_plane = match &*daemon.data_plane {
        BOTH => "both data planes".to_owned(),
        one => format!("{one} data plane"),
    };
    let mut text = format!(
        "obol {}, pid {}, up {}, {data_plane}{why}, {}\n",
        daemon.version,
        daemon.pid,
        duration(daemon.uptime_s),
        daemon.config
    );
    if daemon.shows_keys {
        text.push_str("keys of Child SAs are kept, and root can see them (show_keys)\n");
    }
    if !daemon.allows.is_empty() {
        let words = daemon.allows.join(", ");
        text.push_str(&format!("weak algorithms may be used: {words} (allow)\n"));
    }
    for sa in &report.ike_sas {
        text.push('\n');
        text.push_str(&ike_sa(sa));
    }
    if !report.policies.is_empty() {
        text.push('\n');
        text.push_str(&policies(&report.policies, daemon.data_plane == BOTH));
    }
    let drops = report.drops.iter().filter(|(_, count)| **count > 0);
    let mut rows: Vec<_> = drops
        .map(|(reason, count)| row([reason, &count.to_string()]))
        .collect();
    if !rows.is_empty() {
        rows.insert(0, row(["DROPPED", "COUNT"]));
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

fn ike_sa(sa: &IkeSaReport) -> String {
    let name = match sa.name.as_str() {
        "" => "(no connection yet)",
        name => name,
    };
    let mut text = format!("{name}: {} for {}", sa.state, duration(sa.age_s));
    if let Some(rekey) = sa.rekey_in_s {
        text.push_str(&format!(", rekey in {}", duration(rekey)));
    }
    if let Some(reauth) = sa.reauth_in_s {
        text.push_str(&format!(", new proof in {}", duration(reauth)));
    }
    text.push_str(&format!(
        ", {}\n  {} to {}\n",
        sa.role,
        end(&sa.local),
        end(&sa.remote)
    ));
    if let Some(algorithms) = &sa.algorithms {
        let parts = [
            Some(algorithms.encr.as_str()),
            algorithms.integ.as_deref(),
            Some(algorithms.prf.as_str()),
            Some(algorithms.ke.as_str()),
        ];
        let parts: Vec<&str> = parts.into_iter().flatten().collect();
        let nat = match (sa.nat.local, sa.nat.remote) {
            (false, false) => "no NAT",
            (true, false) => "NAT on our side",
            (false, true) => "NAT on the peer's side",
            (true, true) => "NAT on both sides",
        };
        let crash = match sa.crash_detection {
            true => ", crash detection",
            false => "",
        };
        let mobike = if sa.mobike { ", MOBIKE" } else { "" };
        let resumed = if sa.resumed { ", resumed" } else { "" };
        text.push_str(&format!(
            "  {}, {nat}{crash}{mobike}{resumed}\n",
            parts.join("-")
        ));
    }
    let mut rows = vec![row([
        "CHILD", "STATE", "MODE", "LOCAL", "REMOTE", "ESP", "IN", "OUT", "LAST IN", "REKEY",
    ])];
    rows.extend(sa.children.iter().map(child_row));
    if rows.len() > 1 {
        text.push_str(&table(&rows));
    }
    text
}

fn child_row(child: &ChildSaReport) -> Vec<String> {
    let encapsulation = match child.encapsulation.as_str() {
        "udp" => ", in UDP",
        _ => "",
    };
    let esp = match &child.integ {
        Some(integ) => format!("{}-{integ}{encapsulation}", child.encr),
        None => format!("{}{encapsulation}", child.encr),
    };
    let last_in = match child.last_in_s {
        Some(seconds) => format!("{} ago", duration(seconds)),
        None => "never".to_owned(),
    };
    let rekey = match child.rekey_in_s {
        Some(seconds) => format!("in {}", duration(seconds)),
        None => "-".to_owned(),
    };
    let name = match child.queue {
        0 => child.name.clone(),
        queue => format!("{}, queue {queue}", child.name),
    };
    row([
        &name,
        &child.state,
        &child.mode,
        &child.local_ts.join(" "),
        &child.remote_ts.join(" "),
        &esp,
        &bytes(child.bytes_in),
        &bytes(child.bytes_out),
        &last_in,
        &rekey,
    ])
}

fn end(end: &EndReport) -> String {
    let port = end.port;
    let socket = match end.addr.contains(':') {
        true => format!("[{}]:{port}", end.addr),
        false => format!("{}:{port}", end.addr),
    };
    match &end.id {
        Some(id) => format!("{socket} ({id})"),
        None => socket,
    }
}

/// `planes`: with what carries each.
fn policies(policies: &[PolicyReport], planes: bool) -> String {
    let mut rows = vec![row([
        "PROTECTED",
        "MODE",
        "LOCAL",
        "REMOTE",
        "PACKETS",
        "DATAPLANE",
    ])];
    for policy in policies {
        rows.push(row([
            &format!("{}/{}", policy.connection, policy.child),
            &policy.mode,
            &policy.local_ts.join(" "),
            &policy.remote_ts.join(" "),
            &outlook(policy),
            &policy.data_plane,
        ]));
    }
    if !planes {
        rows.iter_mut().for_each(|row| row.truncate(5));
    }
    table(&rows)
}

/// What happens to packets now, and when that may change.
fn outlook(policy: &PolicyReport) -> String {
    let mut state = policy_state(policy.state).to_owned();
    if let Some(cleartext) = &policy.cleartext {
        state.push_str(&format!(" ({cleartext})"));
    }
    match (policy.next_try_in_s, policy.failures) {
        (Some(seconds), failures) => format!(
            "{state}; next try in {} ({failures} failed)",
            duration(seconds)
        ),
        (None, failures) if failures > 0 && policy.state != PolicyState::Up => {
            format!("{state}; {failures} tries failed")
        }
        _ => state,
    }
}

fn policy_state(state: PolicyState) -> &'static str {
    match state {
        PolicyState::Up => "through ESP",
        PolicyState::Trapped => "wait for an SA",
        PolicyState::Blocked => "dropped",
        PolicyState::Passing => "in clear",
    }
}

/// Configured connections.
pub(crate) fn connections(connections: &[ConnectionReport]) -> String {
    let blocks: Vec<String> = connections.iter().map(connection).collect();
    match blocks.is_empty() {
        true => "no connections\n".to_owned(),
        false => blocks.join("\n"),
    }
}

fn connection(report: &ConnectionReport) -> String {
    let state = match &report.state {
        Some(state) => format!(": {state}"),
        None => String::new(),
    };
    let addrs = |addrs: &[String]| match addrs {
        [] => "any address".to_owned(),
        addrs => addrs.join(" "),
    };
    let local_id = report.local.id.as_deref().unwrap_or("its address");
    let remote_id = report.remote.id.as_deref().unwrap_or("anybody");
    let mut rows = vec![
        row([
            "local",
            &addrs(&report.local_addrs),
            &format!("{} as {local_id}", proof(&report.local)),
        ]),
        row([
            "remote",
            &addrs(&report.remote_addrs),
            &format!("{} as {remote_id}", proof(&report.remote)),
        ]),
    ];
    if let Some(carrier) = &report.data_plane {
        rows.push(row(["dataplane", &carrier.name, &carrier.why]));
    }
    let mut text = format!("{}{state}\n{}", report.name, table(&rows));
    if report.generates {
        text.push_str(
            "  what a peer asks for is protected too, between this host and its own address (generate)\n",
        );
    }
    text.push_str(&proposals("IKE", &report.proposals));
    rows = vec![row([
        "CHILD", "MODE", "LOCAL", "REMOTE", "START", "PACKETS",
    ])];
    for child in &report.children {
        rows.push(row([
            &child.name,
            &child.mode,
            &child.local_ts.join(" "),
            &child.remote_ts.join(" "),
            &child.start_action,
            child.state.map_or("-", policy_state),
        ]));
    }
    if report.children.iter().all(|child| child.state.is_none()) {
        rows.iter_mut().for_each(|row| row.truncate(5));
    }
    text.push_str(&table(&rows));
    for child in &report.children {
        if let Some(cleartext) = &child.cleartext {
            text.push_str(&format!("  {}:  {cleartext}\n", child.name));
        }
    }
    text.push_str(&esp_proposals(&report.children));
    text
}

/// `pubkey`, with the kinds of signatures where they are not just any.
fn proof(side: &AuthReport) -> String {
    match side.signatures.as_slice() {
        [] => side.auth.clone(),
        some => format!("{} ({})", side.auth, some.join(", ")),
    }
}

/// ESP proposals: once if all children have the same.
fn esp_proposals(children: &[ChildReport]) -> String {
    match children {
        [] => String::new(),
        [first, rest @ ..] if rest.iter().all(|c| c.proposals == first.proposals) => {
            proposals("ESP", &first.proposals)
        }
        children => children
            .iter()
            .map(|child| proposals(&format!("ESP {}", child.name), &child.proposals))
            .collect(),
    }
}

fn proposals(what: &str, proposals: &[String]) -> String {
    let indent = " ".repeat(what.len() + 5);
    format!("  {what}:  {}\n", proposals.join(&format!("\n{indent}")))
}

/// A time in its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A number of bytes with a unit, in three or four digits.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    for unit in ["kB", "MB", "GB", "TB"] {
        value /= 1000.0;
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
    }
    format!("{:.1} PB", value / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::CarrierReport;

    #[test]
    fn columns_line_up() {
        let rows = [row(["A", "B"]), row(["long", "x"]), row(["é", "yy"])];
        assert_eq!(table(&rows), "  A     B\n  long  x\n  é     yy\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn times_and_sizes_are_short() {
        let times = [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3660, "1h01m"),
            (90_000, "1d01h"),
        ];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_234_567, "1.2 MB"),
            (u64::MAX, "18446.7 PB"),
        ];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
    }

    const STATUS: &str = r#"{
        "schema_version": 1,
        "daemon": {"pid": 7, "version": "1.2.3", "uptime_s": 61, "data_plane": "userspace",
                   "config": "/etc/obol/obol.toml"},
        "ike_sas": [{
            "name": "hosts", "state": "established", "role": "initiator",
            "local": {"addr": "192.168.0.1", "port": 500, "id": "a.example.com"},
            "remote": {"addr": "fd00::2", "port": 500, "id": null},
            "spi_i": "0000000000000001", "spi_r": "0000000000000002",
            "algorithms": {"encr": "aes256gcm16", "integ": null, "prf": "prfsha256",
                           "ke": "x25519"},
            "nat": {"local": false, "remote": true}, "mobike": true, "resumed": true,
            "fragmentation": false, "age_s": 5, "rekey_in_s": 14400,
            "children": [{
                "name": "pods", "state": "installed", "mode": "tunnel",
                "queue": 0, "spi_in": "00000100", "spi_out": "00000200",
                "local_ts": ["172.16.1.0/24"], "remote_ts": ["172.16.2.0/24"],
                "encr": "aes256", "integ": "sha256", "ke": null, "esn": true,
                "encapsulation": "udp", "bytes_in": 1500, "bytes_out": 0,
                "packets_in": 2, "packets_out": 0, "last_in_s": 3, "last_out_s": null,
                "data_plane": "userspace", "age_s": 5, "rekey_in_s": 3540
            }]
        }],
        "policies": [{"connection": "hosts", "child": "pods", "mode": "tunnel",
                      "local_ts": ["172.16.1.0/24"], "remote_ts": ["172.16.2.0/24"],
                      "state": "up"}],
        "drops": {"replay": 0, "no_sa": 4}
    }"#;

    #[test]
    fn status_is_readable() {
        let report: StatusReport = serde_json::from_str(STATUS).unwrap();
        let expected = "\
obol 1.2.3, pid 7, up 1m01s, userspace data plane, /etc/obol/obol.toml

hosts: established for 5s, rekey in 4h00m, initiator
  192.168.0.1:500 (a.example.com) to [fd00::2]:500
  aes256gcm16-prfsha256-x25519, NAT on the peer's side, MOBIKE, resumed
  CHILD  STATE      MODE    LOCAL          REMOTE         ESP                    IN      OUT  LAST IN  REKEY
  pods   installed  tunnel  172.16.1.0/24  172.16.2.0/24  aes256-sha256, in UDP  1.5 kB  0 B  3s ago   in 59m00s

  PROTECTED   MODE    LOCAL          REMOTE         PACKETS
  hosts/pods  tunnel  172.16.1.0/24  172.16.2.0/24  through ESP

  DROPPED  COUNT
  no_sa    4
";
        assert_eq!(status(&report), expected);
    }

    #[test]
    fn what_carries_each_child_is_told_where_they_differ() {
        let mut report: StatusReport = serde_json::from_str(STATUS).unwrap();
        report.daemon.data_plane = "both".into();
        report.daemon.data_plane_why = "so".into();
        report.policies[0].data_plane = "kernel".into();
        let text = status(&report);
        assert!(text.contains(", both data planes (so), "), "{text}");
        assert!(text.contains("PACKETS      DATAPLANE\n"), "{text}");
        assert!(text.contains("through ESP  kernel\n"), "{text}");
    }

    #[test]
    fn additional_sas_are_told_apart() {
        let mut report: StatusReport = serde_json::from_str(STATUS).unwrap();
        let mut second = report.ike_sas[0].children[0].clone();
        second.queue = 1;
        report.ike_sas[0].children.push(second);
        let text = status(&report);
        assert!(
            text.contains("\n  pods           installed  tunnel"),
            "{text}"
        );
        assert!(
            text.contains("\n  pods, queue 1  installed  tunnel"),
            "{text}"
        );
    }

    #[test]
    fn the_next_try_is_told() {
        let mut report: StatusReport = serde_json::from_str(STATUS).unwrap();
        let policy = &mut report.policies[0];
        assert_eq!(outlook(policy), "through ESP");
        (policy.state, policy.failures) = (PolicyState::Trapped, 3);
        assert_eq!(outlook(policy), "wait for an SA; 3 tries failed");
        policy.next_try_in_s = Some(61);
        assert_eq!(
            outlook(policy),
            "wait for an SA; next try in 1m01s (3 failed)"
        );
    }

    #[test]
    fn connections_are_readable() {
        let child = |name: &str, state| ChildReport {
            cleartext: None,
            name: name.into(),
            state,
            mode: "tunnel".into(),
            start_action: "trap".into(),
            close_action: "trap".into(),
            dpd_action: "trap".into(),
            local_ts: vec!["10.1.0.0/16".into()],
            remote_ts: vec!["10.2.0.0/16".into()],
            proposals: vec!["aes256gcm16".into(), "aes128gcm16".into()],
            offer: None,
            life_s: 3600,
            rekey_bytes: None,
            rekey_packets: None,
            rekey_s: 3000,
        };
        let auth = |id: Option<&str>| AuthReport {
            auth: "psk".into(),
            id: id.map(Into::into),
            keys: Vec::new(),
            signatures: Vec::new(),
        };
        let mut report = ConnectionReport {
            name: "hosts".into(),
            state: Some("up".into()),
            data_plane: Some(CarrierReport {
                name: "kernel".into(),
                why: "configured".into(),
            }),
            local_addrs: vec!["192.0.2.1".into()],
            remote_addrs: vec![],
            local: auth(None),
            remote: auth(Some("b.example.com")),
            proposals: vec!["aes256gcm16-prfsha256-x25519".into()],
            dpd_delay_s: 30,
            ike_life_s: 3600,
            margin_s: 360,
            never_rekeyed: false,
            keying_tries: 0,
            initial_contact: true,
            fragmentation: true,
            generates: false,
            children: vec![child("a", Some(PolicyState::Trapped))],
        };
        let expected = "\
hosts: up
  local      192.0.2.1    psk as its address
  remote     any address  psk as b.example.com
  dataplane  kernel       configured
  IKE:  aes256gcm16-prfsha256-x25519
  CHILD  MODE    LOCAL        REMOTE       START  PACKETS
  a      tunnel  10.1.0.0/16  10.2.0.0/16  trap   wait for an SA
  ESP:  aes256gcm16
        aes128gcm16
";
        assert_eq!(connections(&[report.clone()]), expected);
        report.remote.auth = "pubkey".into();
        report.remote.signatures = vec!["rsa-pss".into()];
        let said = connections(&[report.clone()]);
        assert!(said.contains("pubkey (rsa-pss) as b.example.com"), "{said}");
        report.children = vec![child("a", None)];
        assert!(!connections(&[report]).contains("PACKETS"));
        assert_eq!(connections(&[]), "no connections\n");
    }
}
