//! Failures of a negotiation in an operator's words: what happened, and who must change what.

use obol_ike::config::{Mode, Path};
use obol_ike::error::{ChildFailure, IkeFailure, NotResumed, RedirectRefusal};
use obol_ike::event::{PacketFlow, Withheld};
use obol_ike::wire::NotifyType;

use crate::error::ExitClass;

/// Why there is no IKE SA.
pub(super) fn ike_failure(reason: &IkeFailure, path: Option<&Path>) -> (ExitClass, String) {
    let peer = path.map_or_else(|| "the peer".to_owned(), |p| p.remote.to_string());
    match reason {
        IkeFailure::NoAnswer { tries, after } => (
            ExitClass::NoAnswer,
            format!(
                "{peer} did not answer {tries} requests in {:.1} s: is its IKE daemon running, and do firewalls let UDP 500 pass both ways, and 4500 where there is a NAT?",
                after.as_secs_f64()
            ),
        ),
        IkeFailure::Refused(notify) => (ExitClass::Refused, refused(&peer, *notify)),
        IkeFailure::PeerNotProven {
            local,
            remote,
            reason,
        } => (
            ExitClass::Refused,
            format!("{peer} says it is {remote} and did not prove it to us ({local}): {reason}"),
        ),
        IkeFailure::WeAreNotProven { local, remote } => {
            let expected = remote
                .as_ref()
                .map_or_else(|| "anybody".to_owned(), |r| r.to_string());
            (
                ExitClass::Refused,
                format!(
                    "{peer} answered AUTHENTICATION_FAILED to us as {local} (we expect it to be {expected}): the secret or key that it has for {local} differs from ours, or it knows no connection for these two identities; compare both sides' id and secret or public key"
                ),
            )
        }
        IkeFailure::NoProposalChosen { offered, ours } => (
            ExitClass::Refused,
            format!(
                "no common IKE algorithms with {peer}: it offers {offered}, and we have {ours}; compare `proposals` on both sides"
            ),
        ),
        IkeFailure::NoConnection => (
            ExitClass::Config,
            format!(
                "{peer} asks for an IKE SA, and no connection here has these addresses: check local_addrs and remote_addrs"
            ),
        ),
        IkeFailure::Protocol(what) => (
            ExitClass::Failed,
            format!("{peer} broke the protocol: {what}"),
        ),
        IkeFailure::Credentials(what) => (ExitClass::Config, what.clone()),
        IkeFailure::Closed => (
            ExitClass::Failed,
            "closed by an operator or a reload".into(),
        ),
        IkeFailure::PeerDeleted => (ExitClass::Refused, format!("{peer} closed the IKE SA")),
        IkeFailure::Replaced => (ExitClass::Failed, "replaced by a newer IKE SA".into()),
        IkeFailure::NoChildless => (
            ExitClass::Refused,
            format!(
                "{peer} does not do without a Child SA at first (RFC 6023): set childless = \"allow\" and configure a child"
            ),
        ),
        IkeFailure::PeerCrashed => (
            ExitClass::Failed,
            format!("{peer} has lost its state: it was restarted"),
        ),
        IkeFailure::Resumed => (
            ExitClass::Failed,
            format!("{peer} lost it, and has made another one of it with its ticket"),
        ),
        IkeFailure::Expired => (
            ExitClass::Failed,
            "too old, and not rekeyed or proven anew".into(),
        ),
        IkeFailure::Redirected { to } => (
            ExitClass::Failed,
            format!("the gateway has sent the client to {to}"),
        ),
        IkeFailure::RedirectRefused(reason) => (
            ExitClass::Refused,
            format!(
                "{peer} sends us elsewhere, and we do not go: {}",
                redirect_refusal(*reason)
            ),
        ),
        IkeFailure::Crowded { remote, up } => (
            ExitClass::Refused,
            format!(
                "{remote} at {peer} is refused: {up} IKE SAs are up on this connection, which takes anybody; if they are all wanted, \
                 raise open_ike_sas in [daemon]"
            ),
        ),
        IkeFailure::UpElsewhere { remote } => (
            ExitClass::Refused,
            format!(
                "{remote} has proven itself at {peer}, but is up from another address, and unique = \"keep\""
            ),
        ),
    }
}

/// Why a ticket did not serve.
pub(super) fn not_resumed(reason: NotResumed) -> String {
    match reason {
        NotResumed::Refused => {
            "the peer does not take the ticket: it was restarted, closed that IKE SA, or is configured anew".into()
        }
        NotResumed::NoAnswer => "the peer does not answer to the ticket".into(),
        NotResumed::Notify(notify) => format!("the peer answers {notify} to the ticket"),
        NotResumed::SecretChanged => {
            "the shared secret is another one than when the ticket was given".into()
        }
        NotResumed::NotProven => "who answers does not prove to have given the ticket".into(),
    }
}

/// Why a redirect is not followed.
pub(super) fn redirect_refusal(reason: RedirectRefusal) -> String {
    match reason {
        RedirectRefusal::Malformed => "the redirect is malformed".into(),
        RedirectRefusal::Name => {
            "it gives a name, and obol looks up none: let the gateway give an address".into()
        }
        RedirectRefusal::UnknownType(ty) => {
            format!("it names a gateway by type {ty}, which obol does not know")
        }
        RedirectRefusal::Unfit => "that is no address of another gateway".into(),
        RedirectRefusal::Family => {
            "local_addrs has no address of that family".into()
        }
        RedirectRefusal::TooMany => {
            "too many redirects: do gateways send us to each other? (redirect_limit, redirect_period)"
                .into()
        }
        RedirectRefusal::Busy => "a new IKE SA is being made already".into(),
    }
}

fn refused(peer: &str, notify: NotifyType) -> String {
    let advice = match notify {
        NotifyType::AUTHENTICATION_FAILED => {
            ": compare identities and secrets or keys on both sides"
        }
        NotifyType::NO_PROPOSAL_CHOSEN => {
            ": it accepts none of our IKE algorithms, or has no connection for our address; compare `proposals` and addresses on both sides"
        }
        _ => "",
    };
    format!("{peer} refused with {notify}{advice}")
}

/// Why there is no Child SA.
pub(super) fn child_failure(reason: &ChildFailure) -> (ExitClass, String) {
    match reason {
        ChildFailure::Refused(NotifyType::TS_UNACCEPTABLE) => (
            ExitClass::Refused,
            "the peer refused with TS_UNACCEPTABLE: our local_ts and remote_ts must mirror what it has configured".into(),
        ),
        ChildFailure::Refused(NotifyType::NO_PROPOSAL_CHOSEN) => (
            ExitClass::Refused,
            "the peer refused with NO_PROPOSAL_CHOSEN: compare `esp_proposals` and `mode` on both sides".into(),
        ),
        ChildFailure::Refused(NotifyType::SINGLE_PAIR_REQUIRED) => (
            ExitClass::Refused,
            "the peer wants an SA for each pair of addresses: start_action = \"trap\" asks for the pair of the first packet, or write single addresses into local_ts and remote_ts".into(),
        ),
        ChildFailure::Refused(notify) => {
            (ExitClass::Refused, format!("the peer refused with {notify}"))
        }
        ChildFailure::NoProposalChosen => (
            ExitClass::Refused,
            "no common ESP algorithms: compare `esp_proposals` on both sides".into(),
        ),
        ChildFailure::TsUnacceptable => (
            ExitClass::Refused,
            "no common traffic selectors: local_ts and remote_ts must mirror each other on the two sides".into(),
        ),
        ChildFailure::Withheld(withheld) => (ExitClass::Refused, self::withheld(withheld)),
        ChildFailure::ModeMismatch { ours } => (ExitClass::Refused, other_mode(*ours)),
        ChildFailure::RekeyNarrows => (
            ExitClass::Refused,
            "the peer answers a rekey with less than is in use, so the old SA stays until its end: its remote_ts and local_ts must still cover what they did".into(),
        ),
        ChildFailure::DataPlane(what) => {
            (ExitClass::Failed, format!("this host did not take the SA: {what}"))
        }
        ChildFailure::Protocol(what) => {
            (ExitClass::Failed, format!("the peer broke the protocol: {what}"))
        }
        ChildFailure::IkeDown => (ExitClass::Failed, "the IKE SA ended first".into()),
    }
}

/// What a peer does not get, whose it is, and who can change that.
pub(super) fn withheld(withheld: &Withheld) -> String {
    let Withheld {
        peer,
        path,
        networks,
        owner,
        ..
    } = withheld;
    let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
    let networks = networks.join(" ");
    let (at, connection) = (path.remote.ip(), &owner.connection);
    let who = owner.identity.as_ref().map(ToString::to_string);
    let who = who.unwrap_or_else(|| "its peer".into());
    match owner.address {
        Some(address) => format!(
            "{peer} at {at} does not get {networks}, which {who} at {address} has on connection {connection:?} as long as it is up: \
             give each peer a connection with its id and its networks"
        ),
        None => format!(
            "{peer} at {at} does not get {networks}, which connection {connection:?} has for {who}: \
             let the peer ask for its own networks, or change remote_ts on this side"
        ),
    }
}

fn other_mode(ours: Mode) -> String {
    let (here, there) = match ours {
        Mode::Transport => ("transport", "tunnel"),
        Mode::Tunnel => ("tunnel", "transport"),
    };
    format!(
        "the peer wants {there} mode, and this side is configured for {here} mode: set mode = \"{there}\" on this side, or {here} mode on the peer"
    )
}

/// A packet asked for a Child SA that does not carry it.
pub(super) fn left_out(flow: &PacketFlow, more: bool) -> String {
    let advice = if more {
        "it would with another SA, so give these addresses a child of their own"
    } else {
        "its local_ts and remote_ts leave them out, so compare the selectors on both sides"
    };
    format!(
        "the peer's selectors do not carry packets from {} to {} (IP protocol {}), which are dropped: {advice}",
        flow.source, flow.destination, flow.protocol
    )
}

#[cfg(test)]
mod tests {
    use obol_ike::event::Owner;

    use super::*;

    #[test]
    fn whose_a_network_is_that_a_peer_does_not_get() {
        let mut of = Withheld {
            connection: "guests".into(),
            peer: "@second.example.com".parse().unwrap(),
            path: Path {
                local: "192.0.2.1:500".parse().unwrap(),
                remote: "192.0.2.12:500".parse().unwrap(),
            },
            networks: ["10.1.0.0/16", "10.3.0.0/16"]
                .map(|ts| ts.parse().unwrap())
                .into(),
            owner: Owner {
                connection: "guests".into(),
                identity: "@first.example.com".parse().ok(),
                address: Some([192, 0, 2, 11].into()),
            },
        };
        let asked = "second.example.com at 192.0.2.12 does not get 10.1.0.0/16 10.3.0.0/16, which ";
        let text = withheld(&of);
        assert!(text.contains(asked), "{text}");
        assert!(
            text.contains("first.example.com at 192.0.2.11 has on connection \"guests\""),
            "{text}"
        );
        of.owner.address = None;
        let text = withheld(&of);
        assert!(text.contains(asked), "{text}");
        assert!(
            text.contains("which connection \"guests\" has for "),
            "{text}"
        );
        of.owner.identity = None;
        assert!(withheld(&of).contains("for its peer: "));
    }

    #[test]
    fn a_mode_mismatch_names_what_each_side_may_change() {
        for (ours, here, there) in [
            (Mode::Transport, "transport", "tunnel"),
            (Mode::Tunnel, "tunnel", "transport"),
        ] {
            let (_, text) = child_failure(&ChildFailure::ModeMismatch { ours });
            assert!(
                text.contains(&format!("the peer wants {there} mode")),
                "{text}"
            );
            assert!(
                text.contains(&format!(
                    "set mode = \"{there}\" on this side, or {here} mode on the peer"
                )),
                "{text}"
            );
        }
    }
}
