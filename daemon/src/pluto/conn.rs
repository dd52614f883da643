//! One connection of `ipsec.conf`: what its words mean, before anybody knows which end is this
//! host.

use std::sync::Arc;
use std::time::Duration;

use obol_ike::crypto::signature::{PublicKey, Signatures};
use obol_ike::proposal::{EspProposal, IkeProposal};
use obol_ike::ts::TrafficSelector;

use super::keyword::Side;
use super::lists::Lists;
use super::merge::{Flat, Problem};
use super::policy::{self, Policy};
use super::public;
use super::refused;
use super::values::{self, Host, Id, Port};
use crate::config::{Located, shorten};

/// A connection that makes sense.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    /// Its name.
    pub(crate) name: Located<String>,
    /// Other names of it, which it may share.
    pub(crate) aliases: Vec<String>,
    /// What is done at start.
    pub(crate) auto: Auto,
    /// What happens to packets.
    pub(crate) kind: Kind,
    /// How the ends prove who they are.
    pub(crate) auth: Auth,
    /// The ends: left, right.
    pub(crate) ends: [End; 2],
    /// For the IKE SA, in order of preference.
    pub(crate) ike: Arc<[IkeProposal]>,
    /// For the Child SA, in order of preference.
    pub(crate) esp: Arc<[EspProposal]>,
    /// Lifetimes and all that is negotiated besides.
    pub(crate) policy: Policy,
}

/// What is done with a connection at start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Auto {
    /// It is not loaded.
    Ignore,
    /// It waits for the peer.
    Add,
    /// The first packet brings it up.
    Ondemand,
    /// It is brought up, and kept so.
    Up,
    /// It is kept up once it was.
    Keep,
}

/// What happens to packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// ESP in tunnel mode.
    Tunnel,
    /// ESP in transport mode.
    Transport,
    /// They pass in clear.
    Pass,
    /// They are dropped.
    Drop,
}

/// How the ends prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Auth {
    /// A shared secret.
    Secret,
    /// These signatures, as far as the keys make them.
    Signature(Signatures),
    /// These signatures or a shared secret, as the peer likes; we sign, if we have a key.
    Either(Signatures),
    /// Not at all: packets pass or are dropped without IKE.
    Never,
}

/// One end.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Its outer address.
    pub(crate) host: Located<Host>,
    /// Who it is.
    pub(crate) id: Id,
    /// What is behind it; empty: itself.
    pub(crate) subnets: Vec<TrafficSelector>,
    /// Further networks, each with a Child SA of its own.
    pub(crate) more_subnets: Vec<TrafficSelector>,
    /// The protocol and port to which all of that is narrowed.
    pub(crate) protoport: (u8, Port),
    /// Its public key.
    pub(crate) key: Option<Located<PublicKey>>,
    /// The CKAID of its key, in lower case.
    pub(crate) ckaid: Option<Located<String>>,
    /// A script of its own, for when this end is this host.
    pub(crate) updown: Option<String>,
}

/// Reads values of a connection and collects what is wrong with them.
pub(crate) struct Reader<'f> {
    pub(crate) flat: &'f Flat,
    lists: &'f Lists,
    pub(crate) errors: Vec<Problem>,
    pub(crate) notices: Vec<Problem>,
}

/// A connection, or why it is refused; and notices either way.
pub(crate) fn read(flat: &Flat, lists: &Lists) -> (Result<Conn, Vec<Problem>>, Vec<Problem>) {
    let mut reader = Reader {
        flat,
        lists,
        errors: flat.errors.clone(),
        notices: flat.notices.clone(),
    };
    let conn = reader.conn();
    reader.idle();
    refused::check(&mut reader);
    match conn {
        Some(conn) if reader.errors.is_empty() => (Ok(conn), reader.notices),
        _ => (Err(reader.errors), reader.notices),
    }
}

impl Reader<'_> {
    fn conn(&mut self) -> Option<Conn> {
        let auto = self.auto();
        let kind = self.kind();
        let auth = self.auth(kind);
        let left = self.end(Side::Left);
        let right = self.end(Side::Right);
        let policy = policy::read(self);
        let (ike, esp) = (self.ike(), self.esp(policy.pfs, &policy.esn));
        let aliases = self.flat.all(None, "connalias");
        let aliases = aliases
            .flat_map(|entry| entry.value.value.split_whitespace())
            .map(str::to_owned)
            .collect();
        let conn = Conn {
            name: self.flat.name.clone(),
            aliases,
            auto: auto?,
            kind: kind?,
            auth: auth?,
            ends: [left?, right?],
            ike: ike?,
            esp: esp?,
            policy,
        };
        self.check(&conn);
        Some(conn)
    }

    /// The value of a keyword as `parse` reads it; nothing if it is not there or wrong.
    pub(crate) fn value<T>(
        &mut self,
        word: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        self.value_of(None, word, parse)
    }

    /// The same of an end.
    pub(crate) fn value_of<T>(
        &mut self,
        side: Option<Side>,
        word: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let entry = self.flat.get(side, word)?;
        let text = &entry.value.value;
        let result = match text.is_empty() {
            true => Err(format!("{}= invalid, empty field", entry.key)),
            false => parse(text).map_err(|fix| {
                let text = shorten(text);
                format!("{}={text} is invalid: {fix}", entry.key)
            }),
        };
        match result {
            Ok(value) => Some(entry.value.with(value)),
            Err(message) => {
                let fix = match (side, word) {
                    (Some(side), "rsasigkey" | "pubkey" | "ecdsakey" | "eddsakey") => format!(
                        "put in what `ipsec showhostkey --{side}` prints on that host, in one line"
                    ),
                    _ => "correct the value, or remove the line".to_owned(),
                };
                let problem = Problem::new(&entry.value.place, message, fix);
                self.errors.push(problem);
                None
            }
        }
    }

    /// A keyword whose value is one of a few words, without regard to case.
    pub(crate) fn word<T: Copy>(
        &mut self,
        word: &'static str,
        words: &[(&str, T)],
    ) -> Option<Located<T>> {
        self.value(word, |text| {
            let found = words
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(text));
            found.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
                format!("valid options are {}", names.join(", "))
            })
        })
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&mut self, word: &'static str) -> Option<bool> {
        self.value(word, values::boolean).map(|flag| flag.value)
    }

    /// Notes every keyword that has no effect.
    fn idle(&mut self) {
        for entry in &self.flat.entries {
            if let Some(why) = entry.idle() {
                let message = format!("{} has no effect: {why}", entry.key);
                let problem = Problem::new(&entry.written.place, message, "");
                self.notices.push(problem);
            }
        }
    }

    fn auto(&mut self) -> Option<Auto> {
        const WORDS: &[(&str, Auto)] = &[
            ("ignore", Auto::Ignore),
            ("add", Auto::Add),
            ("ondemand", Auto::Ondemand),
            ("up", Auto::Up),
            ("keep", Auto::Keep),
            ("route", Auto::Ondemand),
            ("start", Auto::Up),
        ];
        match self.flat.get(None, "auto") {
            None => Some(Auto::Ignore),
            Some(_) => self.word("auto", WORDS).map(|auto| auto.value),
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        const WORDS: &[(&str, Kind)] = &[
            ("tunnel", Kind::Tunnel),
            ("transport", Kind::Transport),
            ("passthrough", Kind::Pass),
            ("pass", Kind::Pass),
            ("drop", Kind::Drop),
            ("reject", Kind::Drop),
        ];
        match self.flat.get(None, "type") {
            None => Some(Kind::Tunnel),
            Some(_) => self.word("type", WORDS).map(|kind| kind.value),
        }
    }

    fn auth(&mut self, kind: Option<Kind>) -> Option<Auth> {
        if let Some(Kind::Pass | Kind::Drop) = kind {
            return Some(Auth::Never);
        }
        if self.flat.get(None, "authby").is_none() {
            return self.auth_of_ends();
        }
        self.value("authby", authby).map(|auth| auth.value)
    }

    /// `leftauth` and `rightauth`, which stand for `authby`; by default signatures.
    fn auth_of_ends(&mut self) -> Option<Auth> {
        let ends = Side::BOTH.map(|side| {
            let has = self.flat.get(Some(side), "auth").is_some();
            has.then(|| self.value_of(Some(side), "auth", authby))
        });
        match ends {
            [None, None] => Some(Auth::Signature(Signatures::ALL)),
            [Some(left), Some(right)] => {
                let (left, right) = (left?, right?);
                if left.value != right.value {
                    let problem = Problem::new(
                        &right.place,
                        "leftauth and rightauth are of different kinds",
                        "obol translates one kind for both; write the connection as TOML",
                    );
                    self.errors.push(problem.beside(&left.place));
                }
                Some(left.value)
            }
            [Some(one), None] | [None, Some(one)] => {
                let problem = Problem::new(
                    &one?.place,
                    "leftauth and rightauth go together",
                    "set both of them, or authby",
                );
                self.errors.push(problem);
                None
            }
        }
    }

    fn end(&mut self, side: Side) -> Option<End> {
        let of = Some(side);
        if self.flat.get(of, "").is_none() {
            let message = format!("{side}= is not set");
            let fix = "add the address of that end";
            let problem = Problem::new(&self.flat.name.place, message, fix);
            self.errors.push(problem);
            return None;
        }
        let host = self.value_of(of, "", values::host);
        let id = self.value_of(of, "id", values::id);
        let subnets = self.value_of(of, "subnet", |text| selectors(text, ","));
        let protoport = self.value_of(of, "protoport", values::protoport);
        Some(End {
            host: host?,
            id: id.map_or(Id::Unset, |id| id.value),
            subnets: subnets.map_or_else(Vec::new, |subnets| subnets.value),
            more_subnets: self.more_subnets(side),
            protoport: protoport.map_or((0, Port::All), |found| found.value),
            key: self.key(side),
            ckaid: self.value_of(of, "ckaid", ckaid),
            updown: self.updown(side),
        })
    }

    /// `leftupdown`, unless it is pluto's own script, or none.
    fn updown(&mut self, side: Side) -> Option<String> {
        let entry = self.flat.get(Some(side), "updown")?;
        let command = entry.value.value.trim();
        let words = command.strip_prefix("ipsec ").unwrap_or(command);
        let program = words.split_whitespace().next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        if name.starts_with("_updown") {
            let message = format!(
                "{} has no effect: obol sets up routes and rules by itself",
                entry.key
            );
            let problem = Problem::new(&entry.written.place, message, "");
            self.notices.push(problem);
            return None;
        }
        (!matches!(command, "" | "%disabled")).then(|| command.to_owned())
    }

    /// `leftsubnets`, which may be repeated.
    fn more_subnets(&mut self, side: Side) -> Vec<TrafficSelector> {
        let mut found = Vec::new();
        for entry in self.flat.all(Some(side), "subnets") {
            match selectors(&entry.value.value, " \t,") {
                Ok(subnets) => found.extend(subnets),
                Err(fix) => {
                    let message = format!("{}subnets is invalid: {fix}", side);
                    let fix = "write {10.1.0.0/24 10.2.0.0/24}";
                    self.errors
                        .push(Problem::new(&entry.value.place, message, fix));
                }
            }
        }
        found
    }

    fn key(&mut self, side: Side) -> Option<Located<PublicKey>> {
        const WORDS: [&str; 4] = ["rsasigkey", "pubkey", "ecdsakey", "eddsakey"];
        let mut words = WORDS.into_iter();
        let word = words.find(|word| self.flat.get(Some(side), word).is_some())?;
        let entry = self.flat.get(Some(side), word)?;
        if entry.value.value == "%none" {
            return None;
        }
        self.value_of(Some(side), word, |text| public::read(word, text))
    }

    fn ike(&mut self) -> Option<Arc<[IkeProposal]>> {
        let lists = self.lists;
        if self.flat.get(None, "ike").is_none() {
            return Some(lists.default_ike());
        }
        let read = self.value("ike", |text| lists.ike(text))?;
        self.dropped("ike", &read.place, read.value.dropped);
        Some(read.value.proposals)
    }

    fn esp(&mut self, pfs: bool, esn: &[bool]) -> Option<Arc<[EspProposal]>> {
        let lists = self.lists;
        if self.flat.get(None, "esp").is_none() {
            return Some(lists.default_esp(pfs, esn));
        }
        let read = self.value("esp", |text| lists.esp(text, pfs, esn))?;
        self.dropped("esp", &read.place, read.value.dropped);
        Some(read.value.proposals)
    }

    fn dropped(&mut self, word: &str, place: &crate::config::Place, dropped: Vec<String>) {
        for what in dropped {
            let message = format!("{word}= is used without {what}");
            self.notices.push(Problem::new(place, message, ""));
        }
    }

    fn check(&mut self, conn: &Conn) {
        let [left, right] = &conn.ends;
        let is_open = |end: &End| matches!(end.host.value, Host::Any | Host::Opportunistic);
        if is_open(left) && is_open(right) {
            let problem = Problem::new(
                &right.host.place,
                "neither left= nor right= says who the local host is: both are %any",
                "write this host's address, or %defaultroute, at one end",
            );
            self.errors.push(problem.beside(&left.host.place));
        }
        let families = |end: &End| {
            let all = end.subnets.iter().chain(&end.more_subnets);
            let (mut v4, mut v6) = (false, false);
            all.for_each(|ts| *(if ts.start.is_ipv4() { &mut v4 } else { &mut v6 }) = true);
            (v4, v6)
        };
        if let ((l4, l6), (r4, r6)) = (families(left), families(right))
            && (l4 || l6)
            && (r4 || r6)
            && !(l4 && r4)
            && !(l6 && r6)
        {
            let message = "address family of leftsubnet conflicts with rightsubnet";
            let problem = Problem::new(&conn.name.place, message, "make both IPv4 or both IPv6");
            self.errors.push(problem);
        }
        if let Auth::Signature(signatures) | Auth::Either(signatures) = conn.auth {
            let keys = conn.ends.iter().filter_map(|end| end.key.as_ref());
            for key in keys.filter(|key| !signatures.suit(&key.value)) {
                let message = format!(
                    "the key is {}, and authby is for {signatures}",
                    key.value.kind()
                );
                let fix =
                    "name the key's kind in authby (rsasig, ecdsa, eddsa), or leave authby out";
                self.errors.push(Problem::new(&key.place, message, fix));
            }
        }
        if conn.kind == Kind::Transport {
            for (side, end) in Side::BOTH.iter().zip(&conn.ends) {
                let itself = |ts: &TrafficSelector| match end.host.value {
                    Host::Addr(addr) => ts.start == addr && ts.end == addr,
                    _ => false,
                };
                if !end.subnets.iter().chain(&end.more_subnets).all(itself) {
                    let message = format!(
                        "type=transport is between the two hosts, but there is a {side}subnet"
                    );
                    let fix = "remove it, or write type=tunnel";
                    self.errors
                        .push(Problem::new(&conn.name.place, message, fix));
                }
            }
        }
    }
}

fn selectors(text: &str, separators: &str) -> Result<Vec<TrafficSelector>, String> {
    let words = text.split(|c| separators.contains(c)).map(str::trim);
    let found: Result<Vec<_>, _> = words
        .filter(|word| !word.is_empty())
        .map(values::selector)
        .collect();
    match found {
        Ok(found) if found.is_empty() => Err("it names no network".into()),
        found => found,
    }
}

fn ckaid(text: &str) -> Result<String, String> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    match digits && text.len() == 40 {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("write 40 hexadecimal digits, as ipsec showhostkey --list does".into()),
    }
}

/// Words for proofs of identity, in a list: what of signatures they add up to.
fn authby(text: &str) -> Result<Auth, String> {
    let mut found = None;
    for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
        let auth = match word.to_ascii_lowercase().as_str() {
            "secret" | "psk" => Auth::Secret,
            "never" => return Err("never goes with type=passthrough, drop or reject only".into()),
            "rsa-sha1" => {
                return Err(
                    "obol neither signs nor accepts SHA-1 here; write rsasig, on both ends".into(),
                );
            }
            "ecdsa-sha1" => return Err("nobody signs so; write ecdsa".into()),
            "null" => {
                return Err("obol lets nobody in without a proof; write secret or rsasig".into());
            }
            word => match signatures(word) {
                Some(signatures) => Auth::Signature(signatures),
                None => {
                    let word = shorten(word);
                    return Err(format!(
                        "authby={word} is unknown; write secret, rsasig, rsa-sha2, ecdsa or eddsa"
                    ));
                }
            },
        };
        found = Some(match (found, auth) {
            (Some(Auth::Signature(some)), Auth::Signature(more)) => Auth::Signature(some.and(more)),
            (Some(Auth::Either(some)), Auth::Signature(more)) => Auth::Either(some.and(more)),
            (Some(Auth::Secret), Auth::Signature(some))
            | (Some(Auth::Signature(some) | Auth::Either(some)), Auth::Secret) => {
                Auth::Either(some)
            }
            _ => auth,
        });
    }
    found.ok_or_else(|| "write secret or rsasig".into())
}

/// The signatures that a word of `authby` stands for. With SHA-2 in its name, RSA is RSASSA-PSS alone; else
/// it may be PKCS#1 v1.5 too (RFC 7427 in both cases).
fn signatures(word: &str) -> Option<Signatures> {
    let words: &[&str] = match word {
        "rsasig" | "rsa" => &["rsa-pss", "rsa-pkcs1"],
        "rsa-sha2" => &["rsa-pss"],
        "rsa-sha2_256" => &["rsa-pss-sha256"],
        "rsa-sha2_384" => &["rsa-pss-sha384"],
        "rsa-sha2_512" => &["rsa-pss-sha512"],
        "ecdsa" | "ecdsa-sha2" => &["ecdsa"],
        "ecdsa-sha2_256" => &["ecdsa-sha256"],
        "ecdsa-sha2_384" => &["ecdsa-sha384"],
        "ecdsa-sha2_512" => &["ecdsa-sha512"],
        "eddsa" => &["ed25519"],
        _ => return None,
    };
    let each = words.iter().map(|word| word.parse::<Signatures>());
    each.reduce(|all, more| Ok(all?.and(more?)))?.ok()
}

/// A lifetime, clamped as pluto does.
pub(crate) fn clamp(time: Duration, most: Duration) -> (Duration, bool) {
    match time > most {
        true => (most, true),
        false => (time, false),
    }
}
