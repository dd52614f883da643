//! The same connections as obol's own configuration: what `obol convert` prints, and what
//! `obol run` reads.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use obol_ike::crypto::signature::{PublicKey, Signatures};
use obol_ike::proposal::{EspProposal, IkeProposal};

use super::conn::{Auth, Auto, Conn, End, Kind};
use super::keystore;
use super::orient::Oriented;
use super::policy::{DpdAction, Encapsulation, Policy};
use super::setup::Setup;
use super::values::Id;
use crate::config::shunt::{DROP, PASS};
use crate::config::write::{self, Lines, key};
use crate::dataplane::Cleartext;

/// Octets of a text that are read at once, and a little more.
const PART: usize = 256 << 10;

/// A text in TOML, a table after another.
#[derive(Default)]
pub(crate) struct Native {
    /// The text.
    pub(crate) text: String,
    /// What each connection has become: its name, then the names of a connection and a child.
    pub(crate) children: Vec<(String, (String, String))>,
    /// From which line on, counted from 1, a table is whose.
    pub(crate) lines: Vec<(usize, Vec<String>)>,
    /// Where the text may be cut into parts that can be read one by one.
    pub(crate) cuts: Vec<usize>,
    /// Lines so far.
    written: usize,
    names: HashSet<String>,
    /// Proposals as they were written last: most often, all connections have the same.
    ike: Written<IkeProposal>,
    esp: Written<EspProposal>,
    /// The same of what passes or is dropped.
    shunts: HashSet<String>,
    /// Private keys are named by [`key_name`], and nothing is said to people.
    to_run: bool,
}

/// A list and its text.
struct Written<T> {
    list: Vec<T>,
    text: String,
}

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            text: "[]".to_owned(),
        }
    }
}

impl<T: Clone + PartialEq + fmt::Display> Written<T> {
    fn text(&mut self, list: &[T]) -> String {
        if self.list != list {
            self.list = list.to_vec();
            self.text = write::listed(list);
        }
        self.text.clone()
    }
}

/// Connections whose IKE SAs are one: pluto shares an IKE SA between connections with the same
/// ends, proofs and algorithms.
struct Group<'c> {
    members: Vec<&'c Oriented<'c>>,
}

/// The setup and the connections as TOML; those of `others` as comments, with why they are not in force.
pub(crate) fn convert(
    setup: &Setup,
    conns: &[Oriented<'_>],
    others: &[(Oriented<'_>, &str)],
) -> String {
    let mut native = Native::default();
    native.daemon(setup);
    for group in groups(conns) {
        native.connection(&group, setup.unique);
    }
    for conn in conns.iter().filter(|conn| conn.is_shunt()) {
        native.shunt(conn);
    }
    for (conn, why) in others {
        let mut other = Native::default();
        match conn.is_shunt() {
            true => other.shunt(conn),
            false => other.connection(
                &Group {
                    members: vec![conn],
                },
                setup.unique,
            ),
        }
        native.line(format_args!(
            "# {} is not in force: {why}",
            conn.conn.name.value
        ));
        for line in other.text.lines() {
            native.line(format_args!("{}", format!("# {line}").trim_end()));
        }
        native.line(format_args!(""));
    }
    native.secrets(setup, conns);
    native.text
}

/// The same for obol itself to read.
pub(crate) fn translate(setup: &Setup, conns: &[Oriented<'_>]) -> Native {
    let mut native = Native {
        to_run: true,
        ..Native::default()
    };
    native.daemon(setup);
    for group in groups(conns) {
        native.connection(&group, setup.unique);
    }
    for conn in conns.iter().filter(|conn| conn.is_shunt()) {
        native.shunt(conn);
    }
    native
}

/// How a private key is called.
pub(crate) fn key_name(key: &PublicKey) -> String {
    format!("ckaid-{}", keystore::ckaid(key))
}

fn groups<'c>(conns: &'c [Oriented<'c>]) -> Vec<Group<'c>> {
    let mut groups: Vec<Group<'c>> = Vec::new();
    let mut by_ends: std::collections::HashMap<_, Vec<usize>> = std::collections::HashMap::new();
    for conn in conns {
        if conn.is_shunt() {
            continue;
        }
        let candidates = by_ends
            .entry((conn.local_addr, conn.remote_addrs.clone()))
            .or_default();
        let found = candidates
            .iter()
            .find(|at| shares(groups[**at].members[0], conn));
        match found {
            Some(at) => groups[*at].members.push(conn),
            None => {
                candidates.push(groups.len());
                groups.push(Group {
                    members: vec![conn],
                });
            }
        }
    }
    groups
}

/// Whether two connections between the same addresses have one IKE SA.
fn shares(one: &Oriented<'_>, other: &Oriented<'_>) -> bool {
    let key = |end: &End| end.key.as_ref().map(|key| key.value.clone());
    let same = |a: &End, b: &End| a.id == b.id && key(a) == key(b);
    let of_ike = |policy: &Policy| {
        (
            policy.ike_life,
            policy.margin,
            (policy.rekey, policy.keying_tries),
            policy.reauth,
            policy.dpd_delay,
            policy.encapsulation,
            policy.mobike,
            policy.fragmentation,
            policy.initial_contact,
        )
    };
    let proof = |conn: &Oriented<'_>| proofs(conn.conn.auth, [conn.local_end(), conn.remote_end()]);
    proof(one) == proof(other)
        && one.conn.ike == other.conn.ike
        && of_ike(&one.conn.policy) == of_ike(&other.conn.policy)
        && same(one.local_end(), other.local_end())
        && same(one.remote_end(), other.remote_end())
}

/// Whether it is by secrets, by signatures, or by either; and by which signatures at either end.
fn proofs(auth: Auth, ends: [&End; 2]) -> ([bool; 2], [Option<Signatures>; 2]) {
    let kind = [auth == Auth::Secret, matches!(auth, Auth::Either(_))];
    (kind, ends.map(|end| signatures(auth, end)))
}

/// The signatures of an end, where that says more than its key does.
fn signatures(auth: Auth, end: &End) -> Option<Signatures> {
    let (Auth::Signature(signatures) | Auth::Either(signatures)) = auth else {
        return None;
    };
    let key = end.key.as_ref();
    if key.is_none() && matches!(auth, Auth::Either(_)) {
        return None;
    }
    let limits = key.is_none_or(|key| signatures.limit(&key.value));
    (limits && signatures != Signatures::ALL).then_some(signatures)
}

impl Native {
    fn daemon(&mut self, setup: &Setup) {
        let cookies = if setup.busy {
            Some(0)
        } else {
            setup.cookie_threshold
        };
        if cookies.is_none() && setup.half_open_limit.is_none() {
            return;
        }
        self.line(format_args!("[daemon]"));
        if let Some(threshold) = cookies {
            self.line(format_args!("cookie_threshold = {threshold}"));
        }
        if let Some(limit) = setup.half_open_limit {
            self.line(format_args!("half_open_limit = {limit}"));
        }
        self.line(format_args!(""));
    }

    /// What is secret is not in `ipsec.conf`, so only a hint where it is.
    fn secrets(&mut self, setup: &Setup, conns: &[Oriented<'_>]) {
        let by_secret = |auth| matches!(auth, Auth::Secret | Auth::Either(_));
        if conns.iter().any(|conn| by_secret(conn.conn.auth)) {
            let path = setup
                .secrets
                .as_deref()
                .unwrap_or(Path::new("/etc/ipsec.secrets"));
            self.line(format_args!(
                "# Shared secrets are in {}: for each, add",
                path.display()
            ));
            self.line(format_args!("# [secrets.NAME]"));
            self.line(format_args!("# type = \"psk\""));
            self.line(format_args!("# ids = [\"@own\", \"@peer\"]"));
            self.line(format_args!("# file = \"NAME.psk\""));
        }
        if conns.iter().any(|conn| conn.conn.signs()) {
            let nss = setup.nss.as_deref().or(setup.directory.as_deref());
            let path = nss.unwrap_or(Path::new("/var/lib/ipsec/nss"));
            self.line(format_args!(
                "# The private key is in the NSS database in {}: write it as PEM to own.key",
                path.display()
            ));
            self.line(format_args!("[secrets.own]"));
            self.text("type", "private-key");
            self.text("file", "own.key");
        }
    }

    fn connection(&mut self, group: &Group<'_>, unique: bool) {
        self.cut();
        let first = group.members[0];
        let conn = first.conn;
        // The shortest name of several is most likely the one that the others are derived from.
        let names = group
            .members
            .iter()
            .map(|member| member.conn.name.value.as_str());
        let name = names.min_by_key(|name| name.len()).unwrap_or_default();
        let name = free_name(&mut self.names, name);
        let policy = &conn.policy;
        let members = group.members.iter();
        self.begin(
            members
                .map(|member| member.conn.name.value.clone())
                .collect(),
        );
        self.line(format_args!("[connections.{}]", key(&name)));
        self.list("local_addrs", [first.local_addr]);
        if !first.remote_addrs.is_empty() {
            self.list("remote_addrs", &first.remote_addrs);
        }
        let proposals = self.ike.text(&conn.ike);
        self.line(format_args!("proposals = {proposals}"));
        if policy.keying_tries > 0 {
            self.line(format_args!("keyingtries = {}", policy.keying_tries));
        }
        let (rekey, over) = match policy.rekey {
            true => (policy.ike_life.saturating_sub(policy.margin), policy.margin),
            false => (Duration::ZERO, policy.ike_life),
        };
        self.time("rekey_time", rekey);
        self.time("over_time", over);
        self.time("dpd_delay", policy.dpd_delay);
        if policy.reauth && policy.rekey {
            self.time("reauth_time", policy.ike_life.saturating_sub(policy.margin));
        }
        if policy.encapsulation == Encapsulation::Yes {
            self.line(format_args!("encap = true"));
        }
        if policy.encapsulation == Encapsulation::No {
            self.line(format_args!("nat_traversal = false"));
        }
        if !policy.initial_contact {
            self.line(format_args!("initial_contact = false"));
        }
        if !policy.fragmentation {
            self.line(format_args!("fragmentation = \"no\""));
        }
        self.line(format_args!("mobike = {}", policy.mobike));
        if !unique {
            self.text("unique", "never");
        }
        self.line(format_args!(""));
        self.side(
            &name,
            "local",
            conn.auth,
            first.local_end(),
            Some(first.local_addr),
        );
        let remote = first.remote_addrs.first().copied();
        self.side(&name, "remote", conn.auth, first.remote_end(), remote);
        let mut names = HashSet::new();
        for member in &group.members {
            self.children(&name, &mut names, member);
        }
    }

    /// Packets that pass or are dropped without IKE.
    fn shunt(&mut self, conn: &Oriented<'_>) {
        self.cut();
        let (table, connection) = match conn.conn.kind {
            Kind::Pass => ("pass", PASS),
            _ => ("drop", DROP),
        };
        for child in conn.children() {
            let name = free_name(&mut self.shunts, &child.name);
            let own = conn.conn.name.value.clone();
            let place = (connection.to_owned(), name.clone());
            if child.name != own {
                self.children.push((child.name.clone(), place.clone()));
            }
            self.children.push((own.clone(), place));
            self.begin(vec![own]);
            self.line(format_args!("[{table}.{}]", key(&name)));
            self.list("local_ts", &child.local_ts);
            self.list("remote_ts", &child.remote_ts);
            self.line(format_args!(""));
        }
    }

    fn side(&mut self, name: &str, side: &str, auth: Auth, end: &End, addr: Option<IpAddr>) {
        let signatures = signatures(auth, end);
        let auth = match auth {
            Auth::Secret => "psk",
            // Without a key, there is nothing but the secret.
            Auth::Either(_) if end.key.is_none() => "psk",
            Auth::Either(_) if side == "remote" => "pubkey|psk",
            Auth::Signature(_) | Auth::Either(_) | Auth::Never => "pubkey",
        };
        self.line(format_args!("[connections.{}.{side}]", key(name)));
        self.text("auth", auth);
        match (&end.id, addr) {
            (Id::Is(id), _) => self.text("id", &id.to_string()),
            (Id::Unset | Id::Resolve(_), Some(addr)) => self.text("id", &addr.to_string()),
            _ => self.text("id", "%any"),
        }
        if let Some(signatures) = signatures {
            self.list("signatures", signatures.to_words());
        }
        if auth != "psk"
            && side == "remote"
            && let Some(key) = &end.key
        {
            self.list("pubkeys", [public_text(&key.value)]);
        }
        if self.to_run
            && auth == "pubkey"
            && side == "local"
            && let Some(key) = &end.key
        {
            self.text("key", &key_name(&key.value));
        }
        self.line(format_args!(""));
    }

    fn children(&mut self, connection: &str, names: &mut HashSet<String>, conn: &Oriented<'_>) {
        for child in conn.children() {
            let name = free_name(names, &child.name);
            let own = conn.conn.name.value.clone();
            let place = (connection.to_owned(), name.clone());
            if child.name != own {
                self.children.push((child.name.clone(), place.clone()));
            }
            self.children.push((own.clone(), place));
            self.begin(vec![own]);
            let table = format!("{}.children.{}", key(connection), key(&name));
            self.line(format_args!("[connections.{table}]"));
            if conn.conn.kind == Kind::Transport {
                self.text("mode", "transport");
            }
            for (key, selectors) in [
                ("local_ts", &child.local_ts),
                ("remote_ts", &child.remote_ts),
            ] {
                if !selectors.is_empty() {
                    self.list(key, selectors);
                }
            }
            let proposals = self.esp.text(&conn.conn.esp);
            self.line(format_args!("esp_proposals = {proposals}"));
            self.actions(conn.conn);
            let cleartext = conn.conn.policy.cleartext;
            if cleartext != Cleartext::Never {
                self.text("cleartext", cleartext.word());
            }
            self.lifetimes(&conn.conn.policy);
            if let Some(command) = &conn.local_end().updown {
                self.text("updown", command);
            }
            self.line(format_args!(""));
        }
    }

    fn actions(&mut self, conn: &Conn) {
        let start = match conn.auto {
            Auto::Up => "start",
            Auto::Ondemand => "trap",
            Auto::Ignore | Auto::Add | Auto::Keep => "none",
        };
        self.text("start_action", start);
        if conn.auto == Auto::Keep {
            self.text("close_action", "start");
        }
        let dpd = match conn.policy.dpd_action {
            Some(DpdAction::Restart) => Some("start"),
            Some(DpdAction::Hold) => Some("trap"),
            Some(DpdAction::Clear) => Some("none"),
            None if conn.auto == Auto::Keep => Some("start"),
            None => None,
        };
        if let Some(dpd) = dpd {
            self.text("dpd_action", dpd);
        }
    }

    fn lifetimes(&mut self, policy: &Policy) {
        let (rekey, limits) = match policy.rekey {
            true => (policy.child_life.saturating_sub(policy.margin), "rekey"),
            // There is nothing but the end.
            false => (Duration::ZERO, "life"),
        };
        self.time("rekey_time", rekey);
        self.time("life_time", policy.child_life);
        if let Some(bytes) = policy.bytes {
            self.line(format_args!("{limits}_bytes = {bytes}"));
        }
        if let Some(packets) = policy.packets {
            self.line(format_args!("{limits}_packets = {packets}"));
        }
    }

    /// What follows has nothing to do with what was before.
    fn cut(&mut self) {
        let since = self.cuts.last().copied().unwrap_or_default();
        if self.text.len() - since > PART {
            self.cuts.push(self.text.len());
        }
    }

    /// What follows is of these connections.
    fn begin(&mut self, whose: Vec<String>) {
        self.lines.push((self.written + 1, whose));
    }

    fn time(&mut self, key: &str, time: Duration) {
        self.line(format_args!("{key} = \"{}s\"", time.as_secs()));
    }
}

impl Lines for Native {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        self.written += 1;
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A name that obol takes, and that is not among those that are taken.
fn free_name(taken: &mut HashSet<String>, name: &str) -> String {
    let name = clean(name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let mut all = std::iter::once(name.clone()).chain(numbered);
    let free = all.find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// A name that obol takes, with room for a number.
pub(crate) fn clean(name: &str) -> String {
    write::clean(name, 56)
}

fn public_text(key: &PublicKey) -> String {
    key.to_rfc3110()
        .unwrap_or_else(|| key.to_openssh("").trim_end().to_owned())
}
