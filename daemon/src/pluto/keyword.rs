//! Every keyword that some version of pluto knew, and in general what becomes of it.

use std::fmt;

/// An end of a connection, as it is written. Which one is this host shows only where they meet
/// its addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Side {
    /// `left…`
    Left,
    /// `right…`
    Right,
}

impl Side {
    /// Both of them.
    pub(crate) const BOTH: [Self; 2] = [Self::Left, Self::Right];

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Right => "right",
        })
    }
}

/// What becomes of a keyword.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Its value decides: some other module reads it.
    Read,
    /// It has no effect; why that is safe.
    Idle(&'static str),
}

/// A keyword in its present spelling.
#[derive(Debug)]
pub(crate) struct Keyword {
    /// In lower case, without `left` or `right`.
    pub(crate) word: &'static str,
    /// What becomes of it.
    pub(crate) fate: Fate,
}

/// A keyword where it may stand, with its end if it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// The end, for keywords that have one.
    pub(crate) side: Option<Side>,
    /// The keyword.
    pub(crate) keyword: &'static Keyword,
}

/// Why a text is no keyword.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Unknown {
    /// It is one with `left` or `right` before it.
    NeedsSide,
    /// It is one of the other kind of section.
    OtherSection,
    /// It is none at all; the nearest one.
    Nowhere(Option<String>),
}

/// The kind of section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// `config setup`
    Setup,
    /// `conn`
    Conn,
}

use Fate::{Idle, Read};

macro_rules! keywords {
    ($($fate:expr => $($word:literal)+;)*) => {
        &[$($(Keyword { word: $word, fate: $fate },)+)*]
    };
}

const IKEV1: &str = "it was for IKEv1, which obol does not speak";
const OBSOLETE: &str = "pluto itself has no use for it any more";
const OFFER: &str = "it is an offer that a peer may decline, and obol does not make it";
const LOGS: &str = "obol logs in its own way, see log in obol.toml";
const RESOURCES: &str = "obol chooses by itself";
const RESOLVER: &str = "obol asks the system's resolver";
const CERTIFICATES: &str = "obol has no certificates yet";
const DISPLAY: &str = "it is only shown";

static SETUP: &[Keyword] = keywords! {
    Read => "listen" "listen-tcp" "listen-udp" "uniqueids" "logfile" "logtime" "logappend" "logip"
        "plutodebug" "secretsfile" "ipsecdir" "nssdir" "keep-alive" "ddos-mode"
        "ddos-ike-threshold" "max-halfopen-ike" "force-busy" "crl-strict" "ocsp-strict"
        "shuntlifetime" "global-redirect" "nat-traversal";
    Idle(IKEV1) => "ikev1-policy" "virtual-private" "ikev1-secctx-attr-type" "force-keepalive"
        "disable-port-floating" "nat-ikeport";
    Idle(LOGS) => "klipsdebug" "perpeerlog" "perpeerlogdir" "syslog" "audit-log" "loglimit"
        "plutostderrlog" "plutostderrlogtime" "statsbin" "nflog-all";
    Idle(RESOURCES) => "nhelpers" "seedbits" "seeddev" "ike-socket-bufsize"
        "ike-socket-errqueue" "xfrmlifetime" "expire-lifetime" "expire-shunt-interval"
        "protostack" "dumpdir" "seccomp" "retransmits";
    Idle(RESOLVER) => "dnssec-enable" "dnssec-rootkey-file" "dnssec-trusted" "dnssec-anchors"
        "dns-resolver";
    Idle(CERTIFICATES) => "crlcheckinterval" "crl-timeout" "ocsp-enable" "ocsp-timeout"
        "ocsp-responder" "ocsp-uri" "ocsp-trustname" "ocsp-cache-size" "ocsp-cache-min-age"
        "ocsp-cache-max-age" "ocsp-method" "curl-iface" "curl-timeout" "nocrsend";
    Idle("obol never sends it") => "myvendorid" "global-redirect-to" "drop-oppo-null";
    Idle(OBSOLETE) => "interfaces" "oe" "pluto" "plutoopts" "plutowait" "plutofork"
        "plutorestartoncrash" "prepluto" "postpluto" "overridemtu" "hidetos" "fragicmp"
        "rp-filter" "forwardcontrol" "myid" "secctx-attr-type" "secctx-attr-value"
        "ikev1-dpdtimeout";
};

/// Keywords of a connection as a whole.
static CONN: &[Keyword] = keywords! {
    Read => "also" "alsoflip" "auto" "keyexchange" "ikev2" "type" "connalias" "hostaddrfamily"
        "phase2" "authby" "require-id-on-certificate" "sendca" "ppk" "ikelifetime"
        "ipsec-lifetime" "rekeymargin" "rekeyfuzz" "rekey" "reauth" "ipsec-max-bytes"
        "ipsec-max-packets" "keyingtries" "pfs" "dpddelay" "dpdaction" "retransmit-interval"
        "retransmit-timeout" "initial-contact" "fragmentation" "mobike" "narrowing"
        "encapsulation" "aggressive" "sha2-truncbug" "enable-tcp" "send-redirect" "ike" "esp"
        "ah" "failureshunt" "negotiationshunt" "priority" "reqid" "mark" "mark-in" "mark-out"
        "ipsec-interface" "sec-label" "replay-window" "esn" "decap-dscp" "encap-dscp"
        "nopmtudisc" "mtu" "metric" "iptfs" "clones" "vti-interface" "vti-routing" "vti-shared"
        "modecfgdns" "modecfgdomains" "nat-keepalive";
    Idle(OFFER) => "compress" "session-resumption" "intermediate" "accept-redirect"
        "accept-redirect-to" "redirect-to" "ppk-ids" "send-vendorid" "tfc"
        "send-esp-tfc-padding-not-supported" "send-supported-auth-methods" "nic-offload";
    Idle(IKEV1) => "nat-ikev1-method" "ikepad" "pfs-rekey-workaround" "fake-strongswan"
        "ms-dh-downgrade" "remote-peer-type" "cisco-split" "cisco-unity" "modecfgpull"
        "modecfgbanner" "xauthby" "xauthfail" "initial-contact-cisco" "xauthname";
    Idle("death is what retransmit-timeout says, as in pluto") => "dpdtimeout";
    Idle("obol's own selectors decide") => "clientaddrfamily" "overlapip" "share-lease"
        "ignore-peer-dns" "dns-match-id" "reject-simultaneous-ike-auth";
    Idle(DISPLAY) => "debug" "groundhog" "nm-configured" "nflog-group" "loglimit";
    Idle("there is no TCP to have a port") => "tcp-remoteport";
    Idle("iptfs is not used") => "iptfs-fragmentation" "iptfs-packet-size" "iptfs-max-queue-size"
        "iptfs-init-delay" "iptfs-reorder-window" "iptfs-drop-time";
    Idle("the interface is obol's own anyhow") => "ipsec-interface-managed";
    Idle(OBSOLETE) => "labeled-ipsec" "loopback" "sareftrack" "modecfgwins1" "modecfgwins2"
        "subnetwithin" "disablearrivalcheck" "updown-config" "expire-lifetime"
        "expire-shunt-interval" "eddsakey";
    Read => "pam-authorize";
};

/// Keywords of an end.
static END: &[Keyword] = keywords! {
    Read => "" "id" "subnet" "subnets" "protoport" "sourceip" "interface-ip" "ikeport" "updown"
        "cert" "ckaid" "ca" "rsasigkey" "ecdsakey" "eddsakey" "pubkey" "auth" "autheap"
        "addresspool" "modecfgclient" "modecfgserver" "cat" "xauthserver" "xauthclient" "vti"
        "nexthop";
    Idle(CERTIFICATES) => "sendcert";
    Idle(IKEV1) => "username" "xauthusername" "rsasigkey2";
};

/// Older spellings of keywords of a connection.
static FORMER: &[(&str, &str)] = &[
    ("forceencaps", "encapsulation"),
    ("ike-frag", "fragmentation"),
    ("salifetime", "ipsec-lifetime"),
    ("keylife", "ipsec-lifetime"),
    ("lifetime", "ipsec-lifetime"),
    ("phase2alg", "esp"),
    ("aggrmode", "aggressive"),
    ("nflog", "nflog-group"),
    ("policy-label", "sec-label"),
    ("ikev1-dpdtimeout", "dpdtimeout"),
    ("connaddrfamily", "hostaddrfamily"),
    ("modecfgdns1", "modecfgdns"),
    ("modecfgdns2", "modecfgdns"),
    ("modecfgdomain", "modecfgdomains"),
    ("send-no-esp-tfc", "send-esp-tfc-padding-not-supported"),
    ("dns-match-id,", "dns-match-id"),
];

/// Older spellings of keywords of the setup.
static FORMER_SETUP: &[(&str, &str)] = &[
    ("strictcrlpolicy", "crl-strict"),
    ("ddos-ike-treshold", "ddos-ike-threshold"),
];

impl Key {
    /// The keyword that `text` is.
    ///
    /// # Errors
    /// It is none here.
    pub(crate) fn find(place: Place, text: &str) -> Result<Self, Unknown> {
        let text = text.to_ascii_lowercase().replace('_', "-");
        let found = match place {
            Place::Setup => in_setup(&text),
            Place::Conn => in_conn(&text),
        };
        if let Some(key) = found {
            return Ok(key);
        }
        let elsewhere = match place {
            Place::Setup => in_conn(&text),
            Place::Conn => in_setup(&text),
        };
        if elsewhere.is_some() {
            return Err(Unknown::OtherSection);
        }
        if place == Place::Conn && !text.is_empty() && lookup(END, &text).is_some() {
            return Err(Unknown::NeedsSide);
        }
        Err(Unknown::Nowhere(nearest(place, &text)))
    }

    /// Keywords that say the same in different ways have one slot: a connection that sets one of
    /// them has no use for another one that it inherits.
    pub(crate) fn slot(self) -> (Option<Side>, &'static str) {
        let word = match (self.side, self.keyword.word) {
            (Some(_), "rsasigkey" | "ecdsakey" | "eddsakey") => "pubkey",
            (_, word) => word,
        };
        (self.side, word)
    }

    /// The same keyword of the other end.
    pub(crate) fn flipped(self) -> Self {
        Self {
            side: self.side.map(Side::other),
            ..self
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.side {
            write!(f, "{side}")?;
        }
        f.write_str(self.keyword.word)
    }
}

fn lookup(table: &'static [Keyword], word: &str) -> Option<&'static Keyword> {
    table.iter().find(|keyword| keyword.word == word)
}

fn present<'t>(former: &[(&str, &'static str)], text: &'t str) -> &'t str {
    let found = former.iter().find(|(old, _)| *old == text);
    found.map_or(text, |(_, new)| new)
}

fn in_setup(text: &str) -> Option<Key> {
    let keyword = lookup(SETUP, present(FORMER_SETUP, text))?;
    Some(Key {
        side: None,
        keyword,
    })
}

fn in_conn(text: &str) -> Option<Key> {
    let whole = lookup(CONN, present(FORMER, text)).map(|keyword| (None, keyword));
    let of_end = || {
        let (side, word) = match text.strip_prefix("left") {
            Some(word) => (Side::Left, word),
            None => (Side::Right, text.strip_prefix("right")?),
        };
        let word = word.strip_prefix('-').unwrap_or(word);
        Some((Some(side), lookup(END, word)?))
    };
    let (side, keyword) = whole.or_else(of_end)?;
    Some(Key { side, keyword })
}

/// The keyword that was probably meant.
fn nearest(place: Place, text: &str) -> Option<String> {
    let sides = |keyword: &Keyword| Side::BOTH.map(|side| format!("{side}{}", keyword.word));
    let known: Vec<String> = match place {
        Place::Setup => SETUP.iter().map(|keyword| keyword.word.into()).collect(),
        Place::Conn => {
            let whole = CONN.iter().map(|keyword| keyword.word.to_owned());
            whole.chain(END.iter().flat_map(sides)).collect()
        }
    };
    let near = crate::config::nearest(text, known.iter().map(String::as_str));
    near.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        match Key::find(Place::Conn, text) {
            Ok(key) => key.to_string(),
            Err(unknown) => format!("{unknown:?}"),
        }
    }

    #[test]
    fn spellings() {
        let table = [
            ("left", "left"),
            ("LeftId", "leftid"),
            ("left-subnet", "leftsubnet"),
            ("rightrsasigkey", "rightrsasigkey"),
            ("sha2_truncbug", "sha2-truncbug"),
            ("salifetime", "ipsec-lifetime"),
            ("forceencaps", "encapsulation"),
            ("phase2alg", "esp"),
            ("dns-match-id,", "dns-match-id"),
            ("subnet", "NeedsSide"),
            ("plutodebug", "OtherSection"),
            ("lefsubnet", "Nowhere(Some(\"leftsubnet\"))"),
            ("frobnicate", "Nowhere(None)"),
            ("", "Nowhere(None)"),
        ];
        for (text, expected) in table {
            assert_eq!(found(text), expected, "{text}");
        }
        assert!(matches!(
            Key::find(Place::Setup, "leftid"),
            Err(Unknown::OtherSection)
        ));
    }

    #[test]
    fn no_keyword_is_there_twice() {
        for table in [SETUP, CONN, END] {
            for (i, keyword) in table.iter().enumerate() {
                let first = table.iter().position(|other| other.word == keyword.word);
                assert_eq!(first, Some(i), "{}", keyword.word);
            }
        }
        for (old, new) in FORMER {
            assert!(lookup(CONN, new).is_some(), "{old} -> {new}");
        }
        for (old, new) in FORMER_SETUP {
            assert!(lookup(SETUP, new).is_some(), "{old} -> {new}");
        }
    }

    #[test]
    fn keys_that_say_the_same_have_one_slot() {
        let slot = |text| Key::find(Place::Conn, text).unwrap().slot();
        assert_eq!(slot("leftrsasigkey"), slot("leftpubkey"));
        assert_ne!(slot("leftrsasigkey"), slot("rightrsasigkey"));
        assert_ne!(slot("leftid"), slot("left"));
    }
}
