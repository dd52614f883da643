//! `remote`: a peer, and how the IKE SA with it is made.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::identity::Identity;
use obol_ike::proposal::IkeProposal;

use super::args::{Args, Read, Reported};
use super::proposal;
use super::text::TokenKind;
use crate::config::generate::Level;
use crate::config::{Located, Place, Report, nearest};

/// Which peers a block is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Whom {
    /// Those that have no block of their own.
    Anonymous,
    /// The one with this address, and perhaps this port.
    Addr(IpAddr, Option<u16>),
    /// The one whose `remote_address` says where it is.
    Name(String),
}

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Whom it is about.
    pub(crate) whom: Whom,
    /// Where it begins.
    pub(crate) place: Place,
    /// `remote_address` of a block with a name.
    pub(crate) address: Option<Located<(IpAddr, Option<u16>)>>,
    /// `exchange_mode` is there, whichever it is.
    has_mode: bool,
    /// Who this host is; `None`: its address.
    pub(crate) own_id: Option<Located<Identity>>,
    /// Who the peer may be; none: anybody.
    pub(crate) peer_ids: Vec<Located<Identity>>,
    /// Whether that is looked at.
    pub(crate) verify: bool,
    /// `nat_traversal`.
    pub(crate) nat: Option<Nat>,
    /// `passive on`.
    pub(crate) passive: bool,
    /// `dpd on`.
    pub(crate) dpd: bool,
    /// Idle time before a probe; zero is never.
    pub(crate) dpd_delay: Duration,
    /// How long each probe waits for an answer.
    pub(crate) dpd_retry: Duration,
    /// Probes without answer after which the peer is dead.
    pub(crate) dpd_maxfail: u64,
    /// `initial_contact on`.
    pub(crate) initial_contact: bool,
    /// `ike_frag`.
    pub(crate) fragments: Option<Fragments>,
    /// Life of the IKE SA where the proposal does not say.
    pub(crate) lifetime: Duration,
    /// In the order of the text.
    pub(crate) proposals: Vec<Proposal>,
    /// `generate_policy`; `None`: off.
    pub(crate) generate: Option<Level>,
    /// Something in it is wrong, which was reported.
    pub(crate) broken: bool,
}

/// A block `proposal`.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    /// Algorithms.
    pub(crate) ike: IkeProposal,
    /// Life of the IKE SA.
    pub(crate) lifetime: Option<Duration>,
}

/// `nat_traversal`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nat {
    /// Nobody looks for a NAT.
    Off,
    /// ESP in UDP behind a NAT.
    On,
    /// ESP in UDP always.
    Force,
}

/// `ike_frag`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fragments {
    /// No.
    Off,
    /// Long messages.
    On,
    /// All messages.
    Force,
}

/// All statements, for those that are misspelt.
const STATEMENTS: [&str; 34] = [
    "exchange_mode",
    "my_identifier",
    "peers_identifier",
    "verify_identifier",
    "certificate_type",
    "ca_type",
    "peers_certfile",
    "verify_cert",
    "send_cert",
    "send_cr",
    "match_empty_cr",
    "initial_contact",
    "passive",
    "generate_policy",
    "nat_traversal",
    "ike_frag",
    "esp_frag",
    "dpd",
    "dpd_delay",
    "dpd_retry",
    "dpd_maxfail",
    "rekey",
    "lifetime",
    "proposal_check",
    "support_proxy",
    "nonce_size",
    "script",
    "ph1id",
    "doi",
    "situation",
    "weak_phase1_check",
    "mode_cfg",
    "proposal",
    "remote_address",
];

/// Reads a block, with those before it to inherit from.
pub(crate) fn read(args: &mut Args<'_, '_>, before: &[Remote]) -> Read<Remote> {
    let whom = whom(args)?;
    let mut remote = Remote {
        place: args.place(),
        ..match args.take_if("inherit") {
            true => inherited(args, before)?,
            false => Remote::new(whom.clone(), args.place()),
        }
    };
    remote.whom = whom;
    if let Some(twin) = before.iter().find(|other| other.whom == remote.whom) {
        args.report.clash(
            &remote.place,
            &twin.place,
            "there are two remote blocks for the same peers",
            "remove one of them",
        );
        return Err(Reported);
    }
    if let Some(token) = args.peek() {
        return args.syntax(token, "write { ... } or ; here");
    }
    let inherited = std::mem::take(&mut remote.proposals);
    if args.has_block() {
        for node in args.block()? {
            let mut args = args.of(node);
            if statement(&mut remote, &mut args).is_err() {
                remote.broken = true;
            }
        }
    }
    remote.proposals.extend(inherited);
    remote.check(args.report);
    Ok(remote)
}

fn whom(args: &mut Args<'_, '_>) -> Read<Whom> {
    if args.take_if("anonymous") {
        args.take_kind(TokenKind::Port);
        return Ok(Whom::Anonymous);
    }
    match args.take_kind(TokenKind::Quoted) {
        Some(name) => Ok(Whom::Name(name.text.clone())),
        None => args
            .address()
            .map(|addr| Whom::Addr(addr.value.0, addr.value.1)),
    }
}

fn inherited(args: &mut Args<'_, '_>, before: &[Remote]) -> Read<Remote> {
    let token = args.peek();
    let from = whom(args)?;
    let found = before.iter().find(|remote| remote.whom == from);
    match (found, token) {
        (Some(remote), _) => Ok(remote.clone()),
        (None, Some(token)) => args.syntax(
            token,
            "write a remote block before this one that has this name",
        ),
        (None, None) => Err(Reported),
    }
}

fn statement(remote: &mut Remote, args: &mut Args<'_, '_>) -> Read<()> {
    match args.keyword() {
        "exchange_mode" => {
            exchange(args)?;
            remote.has_mode = true;
        }
        "my_identifier" => remote.own_id = proposal::identifier(args)?,
        "peers_identifier" => remote.peer_ids.extend(proposal::identifier(args)?),
        "verify_identifier" => remote.verify = args.switch()?,
        "passive" => remote.passive = args.switch()?,
        "initial_contact" => remote.initial_contact = args.switch()?,
        "remote_address" => remote.address = Some(args.address()?),
        "nat_traversal" => {
            let words = [("off", Nat::Off), ("on", Nat::On), ("force", Nat::Force)];
            remote.nat = Some(args.one_of(&words)?.value);
        }
        "ike_frag" => {
            let words = [
                ("off", Fragments::Off),
                ("on", Fragments::On),
                ("force", Fragments::Force),
            ];
            remote.fragments = Some(args.one_of(&words)?.value);
        }
        "dpd" => remote.dpd = args.switch()?,
        "dpd_delay" => remote.dpd_delay = args.duration(true)?,
        "dpd_retry" => remote.dpd_retry = args.duration(true)?.max(Duration::from_secs(1)),
        "dpd_maxfail" => remote.dpd_maxfail = args.number(100)?.max(1),
        "lifetime" => remote.lifetime = lifetime(args)?,
        "generate_policy" => remote.generate = generate(args)?,
        "proposal" => {
            let place = args.place();
            remote.proposals.push(proposal::read(args, &place)?);
            return Ok(());
        }
        _ => return without_effect(args),
    }
    args.end()
}

/// Statements that have no effect, or none that is wanted.
fn without_effect(args: &mut Args<'_, '_>) -> Read<()> {
    match args.keyword() {
        "rekey" => {
            let words = [("on", true), ("force", true), ("off", false)];
            if !args.one_of(&words)?.value {
                args.idle("obol makes new keys before the old ones expire");
            }
        }
        "proposal_check" => {
            args.one_of(&[("obey", ()), ("strict", ()), ("claim", ()), ("exact", ())])?;
        }
        "send_cert" | "send_cr" | "match_empty_cr" | "support_mip6" => {
            args.switch()?;
            args.idle("obol has no certificates");
        }
        "support_proxy" | "weak_phase1_check" => {
            args.switch()?;
            args.idle("traffic selectors are always compared with the policy");
        }
        "esp_frag" | "nonce_size" | "ph1id" | "keepalive" => {
            args.number(65_535)?;
            args.idle("IKEv2 does it by itself");
        }
        "doi" | "situation" => {
            args.next("write a word")?;
            args.idle("IKEv2 has no such thing");
        }
        "certificate_type" | "ca_type" | "peers_certfile" | "verify_cert" | "certtype"
        | "my_certfile" => {
            args.refuse(
                "obol has no certificates yet",
                "use authentication_method pre_shared_key and remove the line",
            );
            return Err(Reported);
        }
        "mode_cfg" | "xauth_login" => {
            args.refuse(
                "IKEv1 Mode-Config and XAUTH have no equivalent here",
                "remove the line",
            );
            return Err(Reported);
        }
        "script" => {
            args.refuse("obol runs no scripts", "remove the line");
            return Err(Reported);
        }
        "dh_group" => {
            args.report.error(
                &args.place(),
                "DH group must be set in the proposal.",
                "move it into proposal { ... }",
            );
            return Err(Reported);
        }
        "encryption_algorithm"
        | "hash_algorithm"
        | "authentication_method"
        | "gss_id"
        | "gssapi_id" => {
            let message = format!("{} must be set in the proposal", args.keyword());
            args.report
                .error(&args.place(), message, "move it into proposal { ... }");
            return Err(Reported);
        }
        other => {
            let near = nearest(other, STATEMENTS.iter().copied());
            let fix = near.map_or("remove the line".to_owned(), |near| {
                format!("did you mean {near}?")
            });
            return unknown(args, &fix);
        }
    }
    args.end()
}

/// A statement that nobody knows.
pub(crate) fn unknown<T>(args: &Args<'_, '_>, fix: &str) -> Read<T> {
    let message = format!(
        "\"{}\" syntax error: there is no such statement here",
        args.keyword()
    );
    args.report.error(&args.place(), message, fix);
    Err(Reported)
}

/// The modes, which IKEv2 does not have.
fn exchange(args: &mut Args<'_, '_>) -> Read<()> {
    let words = [
        ("main", "main"),
        ("aggressive", "aggressive"),
        ("base", "base"),
    ];
    let first = args.one_of(&words)?;
    while args.peek().is_some() {
        args.one_of(&words)?;
    }
    let message = format!(
        "exchange_mode {} is IKEv1; this build negotiates IKEv2 with all peers",
        first.value
    );
    args.report
        .warn(&first.place, message, "nothing is to be changed");
    Ok(())
}

/// `generate_policy`: how strict policies are that are made for peers.
fn generate(args: &mut Args<'_, '_>) -> Read<Option<Level>> {
    let words = [
        ("off", None),
        ("on", Some(Level::Use)),
        ("require", Some(Level::Require)),
        ("unique", Some(Level::Unique)),
    ];
    let found = args.one_of(&words)?;
    let narrower = "a peer gets what it asks for between this host and its own address, but for packets that policies are about";
    match found.value {
        None => {}
        Some(Level::Use) => args.report.warn(
            &found.place,
            format!("opportunistic, cleartext allowed: {narrower}; without SA they pass in clear, and those to this host always"),
            "write generate_policy require",
        ),
        Some(_) => args.report.warn(&found.place, narrower, "write policies for other packets into a script of setkey"),
    }
    Ok(found.value)
}

/// `time T`.
pub(crate) fn lifetime(args: &mut Args<'_, '_>) -> Read<Duration> {
    let kind = args.one_of(&[("time", true), ("byte", false)])?;
    if !kind.value {
        args.report.error(
            &kind.place,
            "byte lifetime support was deprecated",
            "write lifetime time 24 hour",
        );
        return Err(Reported);
    }
    let place = args.place();
    let time = args.duration(false)?;
    // Less leaves no time to make new keys in.
    if time < Duration::from_secs(10) {
        args.report.error(
            &place,
            "the lifetime is too short",
            "write 10 sec at least; 8 hour is usual",
        );
        return Err(Reported);
    }
    Ok(time)
}

impl Remote {
    fn new(whom: Whom, place: Place) -> Self {
        Self {
            whom,
            place,
            address: None,
            has_mode: false,
            own_id: None,
            peer_ids: Vec::new(),
            verify: false,
            nat: None,
            passive: false,
            dpd: true,
            dpd_delay: Duration::ZERO,
            dpd_retry: Duration::from_secs(5),
            dpd_maxfail: 5,
            initial_contact: true,
            fragments: None,
            lifetime: Duration::from_secs(8 * 3600),
            proposals: Vec::new(),
            generate: None,
            broken: false,
        }
    }

    /// What only shows at its end.
    fn check(&mut self, report: &Report<'_>) {
        if self.broken {
            return;
        }
        let missing = if !self.has_mode {
            Some((
                "no exchange mode specified.",
                "add exchange_mode main; (obol negotiates IKEv2 all the same)",
            ))
        } else if self.proposals.is_empty() {
            Some((
                "no proposal in this remote",
                "add proposal { ... } with its four lines",
            ))
        } else if matches!(self.whom, Whom::Name(_)) && self.address.is_none() {
            Some((
                "this remote has a name and no address",
                "add remote_address ADDRESS;",
            ))
        } else {
            None
        };
        if let Some((message, fix)) = missing {
            report.error(&self.place, message, fix);
            self.broken = true;
        }
        if self.verify && self.peer_ids.len() > 1 {
            let place = self.peer_ids.last().map_or(&self.place, |id| &id.place);
            report.error(
                place,
                "obol accepts one identity of a peer, not several",
                "write a remote for each peer",
            );
            self.broken = true;
        }
    }

    /// The only peer it is about.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match &self.whom {
            Whom::Anonymous => None,
            Whom::Addr(addr, _) => Some(*addr),
            Whom::Name(_) => self.address.as_ref().map(|addr| addr.value.0),
        }
    }
}
