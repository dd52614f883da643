//! The same as obol's own configuration: what `obol convert` prints.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use obol_ike::identity::Identity;
use obol_ike::proposal::Allowed;
use obol_ike::ts::TrafficSelector;

use super::conf::{Conf, Fragments, Nat, Whom};
use super::plan::{Generate, Peer, Plan, Protected};
use super::regions::Region;
use crate::config::write::{self, Lines, key, quoted};
use crate::dataplane::Cleartext;

/// A text in TOML, a table after another.
#[derive(Default)]
struct Native {
    text: String,
    names: HashMap<String, usize>,
}

/// The plan as TOML, with the secrets of `psk`, and weak algorithms that are `allowed`.
pub(crate) fn convert(
    conf: &Conf,
    plan: &Plan<'_>,
    psk: Option<&Path>,
    allowed: Allowed,
) -> String {
    let mut native = Native::default();
    native.daemon(conf, allowed);
    for peer in &plan.peers {
        native.connection(conf, plan, peer);
    }
    for region in &plan.drops {
        native.dropped(region);
    }
    if let Some(psk) = psk {
        native.line(format_args!("[secrets.racoon]"));
        native.text("type", "psk.txt");
        native.text("file", &psk.display().to_string());
    }
    native.text
}

impl Native {
    fn daemon(&mut self, conf: &Conf, allowed: Allowed) {
        let mut lines: Vec<String> = Vec::new();
        let words: Vec<String> = allowed.words().into_iter().map(quoted).collect();
        if !words.is_empty() {
            lines.push(format!("allow = [{}]", words.join(", ")));
        }
        let port = |addrs: &[crate::config::Located<(std::net::IpAddr, Option<u16>)>]| {
            addrs.iter().find_map(|addr| addr.value.1)
        };
        if let Some(port) = port(&conf.listen).filter(|port| *port != 500) {
            lines.push(format!("port = {port}"));
        }
        if let Some(port) = port(&conf.natt).filter(|port| *port != 4500) {
            lines.push(format!("natt_port = {port}"));
        }
        if let Some(level) = conf.log {
            lines.push(format!("log = {}", quoted(level)));
        }
        if let Some(time) = conf.phase1 {
            lines.push(format!("half_open_timeout = {}", time_text(time)));
        }
        // racoon repeats at equal distances.
        if let Some(interval) = conf.interval {
            lines.push(format!("retransmit_timeout = {}", time_text(interval)));
            lines.push("retransmit_base = 1.0".to_owned());
        }
        if let Some(counter) = conf.counter {
            lines.push(format!("retransmit_tries = {}", counter.max(1)));
        }
        if lines.is_empty() {
            return;
        }
        self.line(format_args!("[daemon]"));
        for line in lines {
            self.line(format_args!("{line}"));
        }
        self.line(format_args!(""));
    }

    fn connection(&mut self, conf: &Conf, plan: &Plan<'_>, peer: &Peer<'_>) {
        let remote = peer.remote;
        let name = match (peer.tunnel, &remote.whom) {
            (Some((_, addr)), _) => format!("tunnel-{addr}"),
            (None, Whom::Anonymous) => "anonymous".to_owned(),
            (None, Whom::Addr(addr, _)) => addr.to_string(),
            (None, Whom::Name(name)) => name.clone(),
        };
        let name = self.unique(&clean(&name));
        self.line(format_args!("[connections.{}]", key(&name)));
        match peer.tunnel {
            Some((own, _)) => self.list("local_addrs", [own]),
            None if !conf.listen.is_empty() => {
                self.list("local_addrs", conf.listen.iter().map(|addr| addr.value.0));
            }
            None => {}
        }
        match peer.tunnel.map(|(_, addr)| addr).or(remote.peer()) {
            Some(addr) => self.list("remote_addrs", [addr]),
            None => self.list("remote_addrs", ["%any"]),
        }
        self.list(
            "proposals",
            remote.proposals.iter().map(|proposal| &proposal.ike),
        );
        let lives = remote
            .proposals
            .iter()
            .map(|proposal| proposal.lifetime.unwrap_or(remote.lifetime));
        let life = lives.min().unwrap_or(remote.lifetime);
        self.time("rekey_time", soft(life));
        self.time("over_time", life.saturating_sub(soft(life)));
        let delay = if remote.dpd {
            remote.dpd_delay
        } else {
            Duration::ZERO
        };
        self.time("dpd_delay", delay);
        if !delay.is_zero() {
            self.time("dpd_retry", remote.dpd_retry);
            self.line(format_args!("dpd_tries = {}", remote.dpd_maxfail));
        }
        if !remote.initial_contact {
            self.line(format_args!("initial_contact = false"));
        }
        match remote.fragments {
            Some(Fragments::Off) => self.text("fragmentation", "no"),
            Some(Fragments::Force) => self.text("fragmentation", "force"),
            Some(Fragments::On) | None => {}
        }
        if remote.nat == Some(Nat::Force) {
            self.line(format_args!("encap = true"));
        }
        if matches!(remote.nat, None | Some(Nat::Off)) {
            self.line(format_args!("nat_traversal = false"));
        }
        // racoon's SAs stay where they are.
        self.line(format_args!("mobike = false"));
        let own = remote.own_id.as_ref().map(|id| &id.value);
        let peers = remote.peer_ids.first().filter(|_| remote.verify);
        self.side("local", own.map(id_text));
        self.side(
            "remote",
            Some(peers.map_or("%any".to_owned(), |id| id_text(&id.value))),
        );
        self.line(format_args!(""));
        let mut children = HashMap::new();
        for child in &peer.children {
            self.child(&name, peer, child, &mut children);
        }
        if let Some(generate) = &peer.generate {
            self.generate(&name, generate, &plan.passes);
        }
    }

    fn generate(&mut self, connection: &str, generate: &Generate, passes: &[Region]) {
        self.line(format_args!("[connections.{}.generate]", key(connection)));
        self.text("level", generate.level.word());
        self.list("esp_proposals", [&generate.esp]);
        self.lives(generate.lifetime);
        if !passes.is_empty() {
            let pairs = passes
                .iter()
                .map(|region| format!("{}={}", region.local, region.remote));
            self.list("except", pairs);
        }
        self.line(format_args!(""));
    }

    fn lives(&mut self, lifetime: Duration) {
        self.time("rekey_time", soft(lifetime));
        self.time("life_time", lifetime);
        self.time("inactivity", soft(lifetime) / 2);
    }

    fn side(&mut self, side: &str, id: Option<String>) {
        let id = id.map_or(String::new(), |id| format!(", id = {}", quoted(&id)));
        self.line(format_args!("{side} = {{ auth = \"psk\"{id} }}"));
    }

    fn child(
        &mut self,
        connection: &str,
        peer: &Peer<'_>,
        child: &Protected,
        names: &mut HashMap<String, usize>,
    ) {
        let name = numbered(names, &role(&child.region));
        self.line(format_args!(
            "[connections.{}.children.{name}]",
            key(connection)
        ));
        if peer.tunnel.is_none() {
            self.text("mode", "transport");
        }
        self.list("local_ts", [child.region.local]);
        self.list("remote_ts", [child.region.remote]);
        self.list("esp_proposals", [&child.esp]);
        self.text("start_action", if child.trap { "trap" } else { "none" });
        if child.clear {
            self.text("cleartext", Cleartext::Opportunistic.word());
        }
        self.lives(child.lifetime);
        self.line(format_args!(""));
    }

    fn dropped(&mut self, region: &Region) {
        let name = self.unique("dropped");
        self.line(format_args!("[drop.{name}]"));
        self.list("local_ts", [region.local]);
        self.list("remote_ts", [region.remote]);
        self.line(format_args!(""));
    }

    fn unique(&mut self, name: &str) -> String {
        numbered(&mut self.names, name)
    }

    fn time(&mut self, key: &str, time: Duration) {
        self.line(format_args!("{key} = {}", time_text(time)));
    }
}

impl Lines for Native {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// When racoon makes new keys: at four fifths.
fn soft(life: Duration) -> Duration {
    life * 4 / 5
}

fn time_text(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("\"{}s\"", time.as_secs()),
        _ => format!("\"{}ms\"", time.as_millis()),
    }
}

/// A name that nobody else has.
fn numbered(names: &mut HashMap<String, usize>, name: &str) -> String {
    let count = names.entry(name.to_owned()).or_default();
    *count += 1;
    match *count {
        1 => name.to_owned(),
        count => format!("{name}-{count}"),
    }
}

/// What this host is to the other side.
fn role(region: &Region) -> String {
    let port = |ts: &TrafficSelector| {
        let one = ts.start_port == ts.end_port && [6, 17, 33, 132, 136].contains(&ts.protocol);
        one.then_some(ts.start_port)
    };
    match (port(&region.local), port(&region.remote)) {
        (Some(port), None) => format!("server-{port}"),
        (None, Some(port)) => format!("client-{port}"),
        (Some(own), Some(other)) => format!("from-{own}-to-{other}"),
        (None, None) => "flow".to_owned(),
    }
}

/// An identity as obol reads it back.
fn id_text(id: &Identity) -> String {
    match id {
        Identity::Fqdn(name) => format!("@{name}"),
        Identity::Rfc822(name) => format!("@@{name}"),
        Identity::KeyId(octets) => {
            let digits: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            format!("@#{}", digits.concat())
        }
        other => other.to_string(),
    }
}

/// A name that obol takes, with room for what distinguishes it.
fn clean(name: &str) -> String {
    write::clean(name, 48)
}
