//! The tables `[connections.NAME]`: the peer, and how each side proves who it is.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::{
    Childless, Connection, DpdRetry, LocalAuth, LocalAuthMethod, Mobike, Mode, PeerPolicy,
    RemoteAuth, RemoteAuthMethod, Unique,
};
use obol_ike::crypto::keyfile;
use obol_ike::crypto::signature::PublicKey;
use obol_ike::identity::Identity;
use obol_ike::ts::TrafficSelector;

use super::child::{self, ReadChild};
use super::daemon::at_least_100ms;
use super::files::FileSource;
use super::finding::{Located, Place, Report};
use super::fragmentation;
use super::generate::{self, ReadGenerate};
use super::planes::{self, DataPlaneChoice};
use super::proposals::Proposals;
use super::reader::{Section, nearest, shorten};
use super::redirect;
use super::resumption;
use super::secrets::{Secrets, read_id, resolve};
use super::signatures;
use super::values;

const REKEY_TIME: Duration = Duration::from_secs(4 * 3600);
/// Less would keep both ends busy with nothing else.
const SHORTEST_REAUTH: Duration = Duration::from_secs(10);
const DPD_DELAY: Duration = Duration::from_secs(30);
const DPD_RETRY: Duration = Duration::from_secs(5);
const DPD_TRIES: u32 = 5;

/// A connection, and where its parts were written.
pub(crate) struct ReadConnection {
    /// What it means, without its children.
    pub(crate) config: Connection,
    /// Where its name is.
    pub(crate) place: Place,
    /// Where `local` is.
    pub(crate) local_place: Place,
    /// What is to carry it, if it says so itself.
    pub(crate) data_plane: Option<Located<DataPlaneChoice>>,
    /// Our addresses.
    pub(crate) local_addrs: Vec<Located<IpAddr>>,
    /// Its children.
    pub(crate) children: Vec<ReadChild>,
    /// What a peer may ask for that none of them is about.
    pub(super) generate: Option<ReadGenerate>,
}

/// Reads one connection; `None` if that makes no sense, which is reported.
pub(crate) fn read(
    report: &Report<'_>,
    files: &dyn FileSource,
    (secrets, lists): (&Secrets, &Proposals),
    name: &Located<&str>,
    section: Section<'_>,
) -> Option<ReadConnection> {
    let local_addrs = read_addresses(report, &section, "local_addrs");
    let remote_addrs = read_addresses(report, &section, "remote_addrs");
    let proposals = lists.of_ike(report, &section);
    let local = read_local(report, secrets, name, &section);
    let remote = read_remote(report, files, name, &section);
    let keying_tries = section.integer("keyingtries", 0..=u64::from(u32::MAX));
    let times = read_times(report, &section);
    let dpd_delay = match section.quantity("dpd_delay", values::duration) {
        Some(delay) => Some(delay.value).filter(|delay| !delay.is_zero()),
        None => Some(DPD_DELAY),
    };
    let dpd_retry = read_dpd_retry(&section);
    let force_encap = section.boolean("encap").unwrap_or(false);
    let nat_traversal = read_nat_traversal(report, &section, force_encap);
    let childless = read_childless(report, &section);
    let initial_contact = section.boolean("initial_contact").unwrap_or(true);
    let fragmentation = fragmentation::read(report, &section);
    let mobike = read_mobike(report, &section);
    let allow_sha1_rsa = section.boolean("allow_sha1_rsa").unwrap_or(false);
    let peer = read_peer_policy(report, &section);
    let redirect = redirect::read(report, &section);
    let resumption = resumption::read(report, &section);
    let data_plane = planes::read(report, &section);
    let (local_addrs, remote_addrs) = (local_addrs?, remote_addrs?);
    check_ends(report, &local_addrs, &remote_addrs);
    let generate = generate::read(report, lists, name, &section);
    let alone =
        matches!(childless, Some(Childless::Prefer | Childless::Force)) || section.has("generate");
    let addrs = (&*local_addrs, &*remote_addrs);
    let children = child::read_all(report, lists, name, &section, addrs, alone);
    section.finish();

    let (local_place, local) = local?;
    let (remote, said_id) = remote?;
    if remote_addrs.is_empty() && remote.value.id.is_none() && !said_id {
        report.error(
            &remote.place,
            "neither remote_addrs nor the remote id says who the peer is",
            "add id = \"…\" to remote, or remote_addrs to the connection; id = \"%any\" is whoever has the secret or key",
        );
        return None;
    }
    let remote_place = remote.place.clone();
    let (rekey_time, over_time) = times?;
    let mut config = Connection {
        name: name.value.into(),
        local_addrs: local_addrs.iter().map(|addr| addr.value).collect(),
        source: None,
        remote_addrs: remote_addrs.iter().map(|addr| addr.value).collect(),
        ike_proposals: proposals?,
        local,
        remote: remote.value,
        children: Vec::new(),
        keying_tries: keying_tries
            .map_or(0, |tries| u32::try_from(tries.value).unwrap_or(u32::MAX)),
        rekey_time,
        over_time,
        dpd_delay,
        dpd_retry,
        force_encap,
        nat_traversal,
        childless: childless?,
        initial_contact,
        fragmentation,
        mobike: mobike?,
        allow_sha1_rsa,
        peer,
        redirect,
        resumption,
        // Once all policies are known.
        generate: None,
    };
    redirect::check(report, &name.place, &config, &children);
    signatures::check(report, &name.place, &config);
    if !said_id {
        expect_address(report, &mut config, &remote_place);
    }
    warn_of_shared_networks(report, &config, &children);
    Some(ReadConnection {
        config,
        place: name.place.clone(),
        local_place,
        data_plane,
        local_addrs,
        children,
        generate: generate?,
    })
}

/// A secret says who has it, and nothing of who the peer is: without an identity, who has the secret of
/// another peer could take this one's place. So the peer of a connection to one address is that address.
fn expect_address(report: &Report<'_>, config: &mut Connection, place: &Place) {
    if !config.remote.method.takes_psk() {
        return;
    }
    match config.remote_addrs.as_slice() {
        [addr] => config.remote.id = Some(Identity::from(*addr)),
        _ => report.warn(
            place,
            format!(
                "the peer of connection {} may claim to be anybody: whoever has a secret that this \
                 host has, too, can take its place",
                config.name
            ),
            "add id = \"…\" to remote; id = \"%any\" says that this is meant",
        ),
    }
}

/// The networks behind peers of one connection are those of who comes first: nobody else gets them as long as
/// that one is up.
fn warn_of_shared_networks(report: &Report<'_>, connection: &Connection, children: &[ReadChild]) {
    if !connection.remote_addrs.is_empty() || connection.remote.id.is_some() {
        return;
    }
    let has_many = |ts: &&Located<TrafficSelector>| ts.value.start != ts.value.end;
    let tunnels = children
        .iter()
        .filter(|child| child.config.mode == Mode::Tunnel);
    for ts in tunnels.filter_map(|child| child.remote_ts.iter().find(has_many)) {
        report.warn(
            &ts.place,
            format!(
                "any peer of connection {} may ask for any part of {}, and whoever has it keeps it from the peers that it belongs to",
                connection.name, ts.value
            ),
            "give each peer a connection with its id and its networks",
        );
    }
}

/// How often an idle peer is asked; either of the two goes with the default of the other.
fn read_dpd_retry(section: &Section<'_>) -> Option<DpdRetry> {
    let after = section.quantity("dpd_retry", at_least_100ms);
    let tries = section.integer("dpd_tries", 1..=100);
    if after.is_none() && tries.is_none() {
        return None;
    }
    Some(DpdRetry {
        after: after.map_or(DPD_RETRY, |after| after.value),
        tries: tries.map_or(DPD_TRIES, |tries| {
            u32::try_from(tries.value).unwrap_or(DPD_TRIES)
        }),
    })
}

/// Whether NATs are looked for.
fn read_nat_traversal(report: &Report<'_>, section: &Section<'_>, encap: bool) -> bool {
    let nat_traversal = section.boolean("nat_traversal").unwrap_or(true);
    if encap && !nat_traversal {
        report.error(
            &section.place,
            "encap = true puts ESP into UDP, and nat_traversal = false never does",
            "remove one of the two lines",
        );
    }
    nat_traversal
}

/// Whether IKE SAs come up without children.
fn read_childless(report: &Report<'_>, section: &Section<'_>) -> Option<Childless> {
    let Some(text) = section.string("childless") else {
        return (!section.has("childless")).then(Childless::default);
    };
    match text.value {
        "never" => Some(Childless::Never),
        "allow" => Some(Childless::Allow),
        "prefer" => Some(Childless::Prefer),
        "force" => Some(Childless::Force),
        other => {
            report.error(
                &text.place,
                format!("childless = \"{}\" is none that obol knows", shorten(other)),
                "write \"never\", \"allow\" (if the peer does it), \"prefer\" (where the peer can) or \"force\"",
            );
            None
        }
    }
}

/// A list of addresses; empty means any.
fn read_addresses(
    report: &Report<'_>,
    section: &Section<'_>,
    key: &'static str,
) -> Option<Vec<Located<IpAddr>>> {
    let Some(texts) = section.strings(key) else {
        return (!section.has(key)).then(Vec::new);
    };
    let mut addrs: Vec<Located<IpAddr>> = Vec::new();
    let (mut any, mut complete) = (false, true);
    for text in &texts {
        match values::address(text.value) {
            Ok(Some(addr)) => {
                if let Some(first) = addrs.iter().find(|other| other.value == addr) {
                    report.clash(
                        &text.place,
                        &first.place,
                        format!("{addr} is listed twice in {key}"),
                        "remove one of them",
                    );
                }
                addrs.push(text.with(addr));
            }
            Ok(None) => any = true,
            Err(fix) => {
                let message = format!("\"{}\" is no address for {key}", shorten(text.value));
                report.error(&text.place, message, fix);
                complete = false;
            }
        }
    }
    if any && !addrs.is_empty() {
        report.error(
            &texts[0].place,
            format!("{key} lists %any beside addresses, which says nothing"),
            "remove %any, or the addresses",
        );
    }
    complete.then_some(addrs)
}

/// Both ends must differ and have an address family in common.
fn check_ends(report: &Report<'_>, local: &[Located<IpAddr>], remote: &[Located<IpAddr>]) {
    for addr in local {
        if let Some(other) = remote.iter().find(|other| other.value == addr.value) {
            report.clash(
                &other.place,
                &addr.place,
                format!("{} is in local_addrs and in remote_addrs", addr.value),
                "local_addrs are this host's, remote_addrs the peer's",
            );
        }
    }
    let (Some(_), Some(first)) = (local.first(), remote.first()) else {
        return;
    };
    let common = local.iter().any(|l| {
        remote
            .iter()
            .any(|r| l.value.is_ipv4() == r.value.is_ipv4())
    });
    if !common {
        report.error(
            &first.place,
            "local_addrs and remote_addrs are of different address families",
            "give both ends an IPv4 address, or both an IPv6 address",
        );
    }
}

/// Whether to move to other addresses, and whether ESP waits for the peer to show that it is there.
fn read_mobike(report: &Report<'_>, section: &Section<'_>) -> Option<Mobike> {
    let enabled = section.boolean("mobike").unwrap_or(true);
    let check_first = match section.string("return_routability") {
        None if section.has("return_routability") => return None,
        None => true,
        Some(text) => match text.value {
            "before" => true,
            "after" => false,
            other => {
                let message = format!("return_routability = \"{}\" is neither", shorten(other));
                let fix = "write \"before\" (ESP moves once the peer has shown that it receives there) or \"after\" (at once)";
                report.error(&text.place, message, fix);
                return None;
            }
        },
    };
    Some(Mobike {
        enabled,
        check_first,
    })
}

/// Rekey time, and the age at which an IKE SA that was not rekeyed is closed. As in swanctl,
/// `over_time` is what comes on top of `rekey_time`; of one that this end never rekeys, it is all.
fn read_times(report: &Report<'_>, section: &Section<'_>) -> Option<(Duration, Duration)> {
    let rekey = section.quantity("rekey_time", child::rekey_time);
    let over = section.quantity("over_time", values::duration);
    if (rekey.is_none() && section.has("rekey_time"))
        || (over.is_none() && section.has("over_time"))
    {
        return None;
    }
    let rekey = rekey.map_or(REKEY_TIME, |rekey| rekey.value);
    let never = rekey == Duration::MAX;
    let over = match over {
        Some(over) if over.value.is_zero() => {
            report.error(
                &over.place,
                "over_time leaves no time to rekey in",
                "remove the line for a tenth of rekey_time",
            );
            return None;
        }
        Some(over) => over.value,
        None if never => REKEY_TIME + REKEY_TIME / 10,
        None => rekey / 10,
    };
    Some((rekey, if never { over } else { rekey + over }))
}

/// How long a proof of identity is good, and what to do when a peer comes twice.
fn read_peer_policy(report: &Report<'_>, section: &Section<'_>) -> PeerPolicy {
    let reauth_time = section.quantity("reauth_time", reauth_time);
    let reauth_time = reauth_time.map(|time| time.value);
    let unique = match section.string("unique") {
        None => Unique::default(),
        Some(text) => match text.value {
            "no" => Unique::No,
            "never" => Unique::Never,
            "replace" => Unique::Replace,
            "keep" => Unique::Keep,
            other => {
                let message = format!("unique = \"{}\" is none that obol knows", shorten(other));
                let fix = "write \"no\", \"never\", \"replace\" or \"keep\"";
                report.error(&text.place, message, fix);
                Unique::default()
            }
        },
    };
    PeerPolicy {
        reauth_time: reauth_time.filter(|time| !time.is_zero()),
        unique,
    }
}

fn reauth_time(text: &str) -> Result<Duration, String> {
    let time = values::duration(text)?;
    if !time.is_zero() && time < SHORTEST_REAUTH {
        return Err("10s is the shortest, and 0 means never".into());
    }
    Ok(time)
}

/// The table `local` or `remote`, with the place to complain at.
fn auth_section<'a>(
    report: &Report<'_>,
    name: &Located<&str>,
    section: &Section<'a>,
    key: &'static str,
) -> Option<Section<'a>> {
    let found = section.section(key);
    if found.is_none() && !section.has(key) {
        report.error(
            &name.place,
            format!("connection {} has no {key}", name.value),
            format!("add {key} = {{ auth = \"psk\", id = \"@…\" }}"),
        );
    }
    found
}

/// What proves an identity.
#[derive(Clone, Copy)]
enum Method {
    Psk,
    Key,
    Either,
}

/// `psk` (true) or `pubkey` (false).
fn read_method(report: &Report<'_>, section: &Section<'_>, either: bool) -> Option<Method> {
    let Some(auth) = section.string("auth") else {
        if !section.has("auth") {
            report.error(
                &section.place,
                format!("[{}] has no auth", section.name),
                "add auth = \"psk\" or auth = \"pubkey\"",
            );
        }
        return None;
    };
    match auth.value {
        "psk" => Some(Method::Psk),
        "pubkey" => Some(Method::Key),
        "pubkey|psk" if either => Some(Method::Either),
        other => {
            let fix = if other.starts_with("eap") {
                "obol does not do EAP: write \"psk\" or \"pubkey\""
            } else {
                "write \"psk\" or \"pubkey\" (which is RSA, ECDSA or Ed25519, by the key)"
            };
            let message = format!("auth = \"{}\" is none that obol knows", shorten(other));
            report.error(&auth.place, message, fix);
            None
        }
    }
}

/// The `id` of a side: `Err` if it is wrong, `Ok(None)` if there is none.
fn read_side_id(report: &Report<'_>, section: &Section<'_>) -> Result<Option<Identity>, ()> {
    match section.string("id") {
        Some(text) if text.value == "%any" => Ok(None),
        Some(text) => match read_id(report, &text) {
            Some(id) => Ok(Some(id.value)),
            None => Err(()),
        },
        None if section.has("id") => Err(()),
        None => Ok(None),
    }
}

fn read_local(
    report: &Report<'_>,
    secrets: &Secrets,
    name: &Located<&str>,
    section: &Section<'_>,
) -> Option<(Place, LocalAuth)> {
    let local = auth_section(report, name, section, "local")?;
    let psk = read_method(report, &local, false);
    let id = read_side_id(report, &local);
    let place = local.place.clone();
    let method = match psk {
        Some(Method::Psk) => Some(LocalAuthMethod::Psk),
        Some(Method::Key | Method::Either) => {
            own_key(report, secrets, &local).map(LocalAuthMethod::Key)
        }
        None => None,
    };
    if local.has("pubkeys") {
        report.error(
            &place,
            "local has pubkeys, which are the peer's",
            "move them to remote; the own key is key = \"NAME\" of a [secrets.NAME]",
        );
        local.strings("pubkeys");
    }
    let keys = method.as_ref().map(|method| match method {
        LocalAuthMethod::Psk => None,
        LocalAuthMethod::Key(key) => Some(std::slice::from_ref(key)),
    });
    let signatures = keys.map(|keys| signatures::read(report, &local, keys));
    if psk.is_some() && method.is_some() {
        local.finish();
    }
    let (id, method, signatures) = (id.ok()?, method?, signatures??);
    let auth = LocalAuth {
        id,
        method,
        signatures,
    };
    Some((place, auth))
}

/// Our key: the one named, or the only one.
fn own_key(report: &Report<'_>, secrets: &Secrets, local: &Section<'_>) -> Option<PublicKey> {
    let keys = secrets.credentials.keys();
    if let Some(key) = local.string("key") {
        let found = keys.iter().find(|(name, _)| *name == key.value);
        if found.is_none() && !secrets.incomplete {
            let fix = match nearest(key.value, keys.iter().map(|(name, _)| *name)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!(
                    "add [secrets.{}] with type = \"private-key\" and file = \"…\"",
                    shorten(key.value)
                ),
            };
            let message = format!("no private key is called \"{}\"", shorten(key.value));
            report.error(&key.place, message, fix);
        }
        return found.map(|(_, key)| (*key).clone());
    }
    match keys.as_slice() {
        _ if local.has("key") => None,
        [(_, key)] => Some((*key).clone()),
        [] => {
            if !secrets.incomplete {
                report.error(
                    &local.place,
                    "auth is pubkey, but there is no private key",
                    "add [secrets.NAME] with type = \"private-key\" and file = \"…\"",
                );
            }
            None
        }
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
            report.error(
                &local.place,
                "there are several private keys",
                format!("add key = \"…\", one of {}", names.join(", ")),
            );
            None
        }
    }
}

/// Who the peer must prove to be, and whether the file says so: `%any` is said, too.
fn read_remote(
    report: &Report<'_>,
    files: &dyn FileSource,
    name: &Located<&str>,
    section: &Section<'_>,
) -> Option<(Located<RemoteAuth>, bool)> {
    let remote = auth_section(report, name, section, "remote")?;
    let said_id = remote.has("id");
    let psk = read_method(report, &remote, true);
    let id = read_side_id(report, &remote);
    let method = match psk {
        Some(Method::Psk) => {
            if remote.has("pubkeys") {
                report.error(
                    &remote.place,
                    "auth is psk, but there are pubkeys",
                    "write auth = \"pubkey\", or remove pubkeys",
                );
                remote.strings("pubkeys");
            }
            Some(RemoteAuthMethod::Psk)
        }
        Some(Method::Key) => read_pubkeys(report, files, &remote).map(RemoteAuthMethod::Keys),
        Some(Method::Either) => {
            read_pubkeys(report, files, &remote).map(RemoteAuthMethod::KeysOrPsk)
        }
        None => None,
    };
    let place = remote.place.clone();
    let keys = method
        .as_ref()
        .map(|method| method.takes_signatures().then_some(method.keys()));
    let signatures = match keys {
        Some(keys) => signatures::read(report, &remote, keys),
        // What is wrong with it waits until the keys are right.
        None => remote.strings("signatures").and(None),
    };
    if psk.is_some() {
        remote.finish();
    }
    let value = RemoteAuth {
        id: id.ok()?,
        method: method?,
        signatures: signatures?,
    };
    Some((Located { value, place }, said_id))
}

fn read_pubkeys(
    report: &Report<'_>,
    files: &dyn FileSource,
    remote: &Section<'_>,
) -> Option<Vec<PublicKey>> {
    let Some(texts) = remote.strings("pubkeys") else {
        if !remote.has("pubkeys") {
            report.error(
                &remote.place,
                "auth is pubkey, but there are no pubkeys of the peer",
                "add pubkeys = [\"peer.pub\"]: a file, or the key itself (ssh-ed25519 …, 0s…, PEM)",
            );
        }
        return None;
    };
    let mut keys = Vec::new();
    let mut complete = true;
    for text in &texts {
        match read_pubkey(report, files, text) {
            Ok(key) => keys.push(key),
            Err((message, fix)) => {
                report.error(&text.place, message, fix);
                complete = false;
            }
        }
    }
    complete.then_some(keys)
}

/// A public key: inline if it looks like one, else a file.
fn read_pubkey(
    report: &Report<'_>,
    files: &dyn FileSource,
    text: &Located<&str>,
) -> Result<PublicKey, (String, String)> {
    const FIX: &str = "write a file name, or a key as ssh-ed25519 …, ecdsa-sha2-…, ssh-rsa …, 0s… (RFC 3110) or PEM";
    let inline = ["0s", "0x", "ssh-", "-----BEGIN"]
        .iter()
        .any(|start| text.value.trim_start().starts_with(start));
    if inline {
        return keyfile::parse_public(text.value.as_bytes())
            .map_err(|e| (e.to_string(), FIX.to_owned()));
    }
    let octets = files
        .public(&resolve(report, text))
        .map_err(|problem| (problem.message, problem.fix))?;
    keyfile::parse_public(&octets)
        .map_err(|e| (format!("{}: {e}", shorten(text.value)), FIX.to_owned()))
}
