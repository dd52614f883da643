//! Identities, RFC 7296 section 3.5: what a peer claims to be.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::wire::{Id, IdType, Malformed};

/// An identity as it goes into an ID payload.
///
/// Compare with [`Identity::matches`]; `==` is about spelling too.
#[derive(Clone, Eq, PartialEq, Hash)]
pub enum Identity {
    /// ID_IPV4_ADDR.
    Ipv4(Ipv4Addr),
    /// ID_IPV6_ADDR.
    Ipv6(Ipv6Addr),
    /// ID_FQDN: a host name, compared without regard to ASCII case.
    Fqdn(String),
    /// ID_RFC822_ADDR: `user@host`.
    Rfc822(String),
    /// ID_KEY_ID: opaque octets.
    KeyId(Vec<u8>),
    /// Any other type, and names that are no text, kept as they came.
    Other(IdType, Vec<u8>),
}

/// Why a text is no identity.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseIdentityError {
    /// Nothing is left after the prefix.
    #[error("an identity must not be empty")]
    Empty,
    /// Longer than [`MAX_TEXT_LEN`].
    #[error("an identity of more than {MAX_TEXT_LEN} octets")]
    TooLong,
    /// The text after the prefix is not what the prefix says.
    #[error("`{text}` is no {kind}")]
    NotA {
        /// What it should be.
        kind: &'static str,
        /// What it is.
        text: String,
    },
    /// Looks like a distinguished name.
    #[error("`{0}`: distinguished names are not supported; give a host name, address or key ID")]
    DistinguishedName(String),
    /// Has a wildcard.
    #[error("`{0}`: an identity has no wildcards; leave it out to accept any")]
    Wildcard(String),
    /// Has a prefix that is not known.
    #[error("`{0}:` is no kind of identity: use fqdn, email, ipv4, ipv6 or keyid")]
    Prefix(String),
}

/// Octets that an identity may have in the configuration. (RFC 1035 allows host names 253, RFC
/// 5321 mail addresses 254.)
pub const MAX_TEXT_LEN: usize = 1024;

/// Octets of an identity that are printed; the rest is counted.
const SHOWN_OCTETS: usize = 256;

impl Identity {
    //= rfc7296 3.5-4 3.5-5 3.5-6
    /// The identity in an ID payload.
    ///
    /// A name that is no text of the kind that its type lays down becomes [`Identity::Other`]
    /// and so never equals a configured one.
    ///
    /// # Errors
    /// If the length is not that of the type, or nothing is in it.
    pub fn from_payload(id: &Id<'_>) -> Result<Self, Malformed> {
        let (ty, data) = (id.ty(), id.data());
        if data.is_empty() {
            return Err(Malformed::Length);
        }
        let text = std::str::from_utf8(data).ok();
        let identity = match (ty, text) {
            (IdType::IPV4_ADDR, _) => Self::Ipv4(
                <[u8; 4]>::try_from(data)
                    .map_err(|_| Malformed::Length)?
                    .into(),
            ),
            (IdType::IPV6_ADDR, _) => Self::Ipv6(
                <[u8; 16]>::try_from(data)
                    .map_err(|_| Malformed::Length)?
                    .into(),
            ),
            (IdType::FQDN, Some(name)) if is_host_name(name) => Self::Fqdn(name.to_owned()),
            (IdType::RFC822_ADDR, Some(name)) if is_mail_address(name) => {
                Self::Rfc822(name.to_owned())
            }
            (IdType::KEY_ID, _) => Self::KeyId(data.to_vec()),
            _ => Self::Other(ty, data.to_vec()),
        };
        Ok(identity)
    }

    //= rfc7296 3.5-1 3.5-4 3.5-5
    /// The body of an ID payload, RFC 7296 section 3.5: type, three zero octets, data.
    pub fn to_body(&self) -> Vec<u8> {
        let (ty, data): (IdType, &[u8]) = match self {
            Self::Ipv4(address) => (IdType::IPV4_ADDR, &address.octets()),
            Self::Ipv6(address) => (IdType::IPV6_ADDR, &address.octets()),
            Self::Fqdn(name) => (IdType::FQDN, name.as_bytes()),
            Self::Rfc822(name) => (IdType::RFC822_ADDR, name.as_bytes()),
            Self::KeyId(octets) => (IdType::KEY_ID, octets),
            Self::Other(ty, octets) => (*ty, octets),
        };
        [&[ty.0, 0, 0, 0], data].concat()
    }

    /// Whether both name the same: equal types and octets, where host names (also the one in a
    /// mail address) are compared without regard to ASCII case.
    pub fn matches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fqdn(a), Self::Fqdn(b)) => a.eq_ignore_ascii_case(b),
            (Self::Rfc822(a), Self::Rfc822(b)) => match (a.rsplit_once('@'), b.rsplit_once('@')) {
                (Some((user_a, host_a)), Some((user_b, host_b))) => {
                    user_a == user_b && host_a.eq_ignore_ascii_case(host_b)
                }
                _ => a == b,
            },
            _ => self == other,
        }
    }

    /// To be hashed so that [`matches`](Self::matches) finds what the hash finds.
    pub(crate) fn fold(&self) -> Fold<'_> {
        Fold(self)
    }
}

/// An identity to be hashed: the hashes of identities that match are equal.
pub(crate) struct Fold<'a>(&'a Identity);

impl Hash for Fold<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let host = |name: &str, state: &mut H| {
            for part in name.as_bytes().chunks(32) {
                let mut lower = [0; 32];
                let lower = &mut lower[..part.len()];
                lower.copy_from_slice(part);
                lower.make_ascii_lowercase();
                state.write(lower);
            }
        };
        match self.0 {
            Identity::Fqdn(name) => host(name, state),
            Identity::Rfc822(name) => match name.rsplit_once('@') {
                Some((user, name)) => {
                    user.hash(state);
                    host(name, state);
                }
                None => name.hash(state),
            },
            other => other.hash(state),
        }
    }
}

impl From<std::net::IpAddr> for Identity {
    fn from(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(address) => Self::Ipv4(address),
            std::net::IpAddr::V6(address) => Self::Ipv6(address),
        }
    }
}

/// `@host` or `host`, `user@host` or `@@user@host`, addresses, `@#hex`, and the prefixes
/// `fqdn:`, `email:`, `ipv4:`, `ipv6:` and `keyid:`.
impl FromStr for Identity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, ParseIdentityError> {
        if text.len() > MAX_TEXT_LEN {
            return Err(ParseIdentityError::TooLong);
        }
        if let Some(hex) = text.strip_prefix("@#") {
            return parse_hex(hex).map(Self::KeyId);
        }
        if let Some(name) = text.strip_prefix("@@") {
            return parse_mail_address(name);
        }
        if let Some(name) = text.strip_prefix('@') {
            return parse_host_name(name);
        }
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(address.into());
        }
        match text.split_once(':') {
            Some((prefix, value)) => parse_prefixed(prefix, value),
            None if text.contains('=') => {
                Err(ParseIdentityError::DistinguishedName(text.to_owned()))
            }
            None if text.contains('@') => parse_mail_address(text),
            None => parse_host_name(text),
        }
    }
}

/// In the form that reads back as the same identity. Control characters are escaped, and of a
/// long identity only the beginning is shown: it comes from a peer and goes to logs.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => write!(f, "{address}"),
            Self::Ipv6(address) => write!(f, "{address}"),
            Self::Fqdn(name) if name.parse().as_ref() == Ok(self) => write_text(f, name),
            Self::Fqdn(name) => {
                f.write_str("fqdn:")?;
                write_text(f, name)
            }
            Self::Rfc822(name) if name.parse().as_ref() == Ok(self) => write_text(f, name),
            Self::Rfc822(name) => {
                f.write_str("email:")?;
                write_text(f, name)
            }
            Self::KeyId(octets) => {
                f.write_str("@#")?;
                write_hex(f, octets)
            }
            Self::Other(ty, octets) => {
                write!(f, "{ty}:#")?;
                write_hex(f, octets)
            }
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//= rfc7296 3.5-8
fn parse_prefixed(prefix: &str, value: &str) -> Result<Identity, ParseIdentityError> {
    let not_a = |kind| ParseIdentityError::NotA {
        kind,
        text: value.to_owned(),
    };
    if value.is_empty() {
        return Err(ParseIdentityError::Empty);
    }
    match prefix.to_ascii_lowercase().as_str() {
        "fqdn" | "dns" => parse_host_name(value),
        "email" | "rfc822" => parse_mail_address(value),
        "ipv4" => value
            .parse()
            .map(Identity::Ipv4)
            .map_err(|_| not_a("IPv4 address")),
        "ipv6" => value
            .parse()
            .map(Identity::Ipv6)
            .map_err(|_| not_a("IPv6 address")),
        "keyid" => Ok(Identity::KeyId(value.as_bytes().to_vec())),
        "asn1dn" | "dn" => Err(ParseIdentityError::DistinguishedName(value.to_owned())),
        _ => Err(ParseIdentityError::Prefix(prefix.to_owned())),
    }
}

fn parse_host_name(text: &str) -> Result<Identity, ParseIdentityError> {
    check_plain(text)?;
    if is_host_name(text) {
        Ok(Identity::Fqdn(text.to_owned()))
    } else {
        Err(ParseIdentityError::NotA {
            kind: "host name",
            text: text.to_owned(),
        })
    }
}

//= rfc7296 3.5-7
fn parse_mail_address(text: &str) -> Result<Identity, ParseIdentityError> {
    check_plain(text)?;
    if is_mail_address(text) {
        Ok(Identity::Rfc822(text.to_owned()))
    } else {
        Err(ParseIdentityError::NotA {
            kind: "mail address",
            text: text.to_owned(),
        })
    }
}

//= rfc7296 3.5-2 3.5-3
fn check_plain(text: &str) -> Result<(), ParseIdentityError> {
    if text.is_empty() {
        return Err(ParseIdentityError::Empty);
    }
    if text.contains(['*', '%']) {
        return Err(ParseIdentityError::Wildcard(text.to_owned()));
    }
    Ok(())
}

/// ASCII without control characters and spaces; `@` would make it another kind of identity.
/// The grammar of names is left to those who resolve them: peers have underscores and more.
fn is_host_name(text: &str) -> bool {
    text.bytes()
        .all(|octet| octet.is_ascii_graphic() && octet != b'@')
}

/// UTF-8 (RFC 7296 section 3.5) without control characters and spaces, with a user and a host.
fn is_mail_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

fn parse_hex(text: &str) -> Result<Vec<u8>, ParseIdentityError> {
    let not_hex = || ParseIdentityError::NotA {
        kind: "hexadecimal key ID",
        text: text.to_owned(),
    };
    if text.is_empty() {
        return Err(ParseIdentityError::Empty);
    }
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.ok_or_else(not_hex)?;
    let (pairs, odd) = digits.as_chunks();
    if !odd.is_empty() {
        return Err(not_hex());
    }
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high << 4 | low).map_err(|_| not_hex()))
        .collect()
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let shown = text.floor_char_boundary(SHOWN_OCTETS);
    let (shown, hidden) = text.split_at(shown);
    for c in shown.chars() {
        if c.is_control() {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            write!(f, "{c}")?;
        }
    }
    write_hidden(f, hidden.len())
}

fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let (shown, hidden) = octets.split_at(octets.len().min(SHOWN_OCTETS / 2));
    for octet in shown {
        write!(f, "{octet:02x}")?;
    }
    write_hidden(f, hidden.len())
}

fn write_hidden(f: &mut fmt::Formatter<'_>, octets: usize) -> fmt::Result {
    if octets == 0 {
        Ok(())
    } else {
        write!(f, "... ({octets} more octets)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(text: &str) -> Result<Identity, ParseIdentityError> {
        text.parse()
    }

    fn fqdn(name: &str) -> Identity {
        Identity::Fqdn(name.to_owned())
    }

    fn mail(name: &str) -> Identity {
        Identity::Rfc822(name.to_owned())
    }

    fn from_wire(ty: IdType, data: &[u8]) -> Result<Identity, Malformed> {
        let body = [&[ty.0, 0, 0, 0], data].concat();
        Identity::from_payload(&Id::from_body(&body).unwrap())
    }

    //= test rfc7296 3.5-4 3.5-5 3.5-6 3.5-7 3.5-8
    #[test]
    fn every_form_is_read() {
        for (text, want) in [
            ("@moon.example.com", fqdn("moon.example.com")),
            ("moon.example.com", fqdn("moon.example.com")),
            ("fqdn:moon", fqdn("moon")),
            ("@10.0.0.1", fqdn("10.0.0.1")),
            ("carol@example.com", mail("carol@example.com")),
            ("@@carol@example.com", mail("carol@example.com")),
            ("email:carol@example.com", mail("carol@example.com")),
            ("10.0.0.1", Identity::Ipv4([10, 0, 0, 1].into())),
            ("ipv4:10.0.0.1", Identity::Ipv4([10, 0, 0, 1].into())),
            ("::1", Identity::Ipv6(Ipv6Addr::LOCALHOST)),
            ("ipv6:::1", Identity::Ipv6(Ipv6Addr::LOCALHOST)),
            ("@#0aFF", Identity::KeyId(vec![10, 255])),
            ("keyid:branch 7", Identity::KeyId(b"branch 7".to_vec())),
        ] {
            assert_eq!(id(text), Ok(want), "{text}");
        }
    }

    //= test rfc7296 3.5-2 3.5-3
    #[test]
    fn every_mistake_has_its_error() {
        use ParseIdentityError::*;
        let s = str::to_owned;
        let not_a = |kind, text: &str| NotA {
            kind,
            text: s(text),
        };
        for (text, want) in [
            ("", Empty),
            ("@", Empty),
            ("@#", Empty),
            ("keyid:", Empty),
            ("@#abc", not_a("hexadecimal key ID", "abc")),
            ("@#xy", not_a("hexadecimal key ID", "xy")),
            ("two words", not_a("host name", "two words")),
            ("carol@", not_a("mail address", "carol@")),
            ("@@carol", not_a("mail address", "carol")),
            ("ipv4:::1", not_a("IPv4 address", "::1")),
            ("C=CH, CN=moon", DistinguishedName(s("C=CH, CN=moon"))),
            ("asn1dn:#3000", DistinguishedName(s("#3000"))),
            ("%any", Wildcard(s("%any"))),
            ("*@example.com", Wildcard(s("*@example.com"))),
            ("host:500", Prefix(s("host"))),
            (&"a".repeat(1025), TooLong),
        ] {
            assert_eq!(id(text), Err(want), "{text}");
        }
    }

    #[test]
    fn host_names_match_without_case_and_users_with_it() {
        for (a, b, want) in [
            ("moon.example.com", "MOON.example.COM", true),
            ("moon", "sun", false),
            ("carol@example.com", "carol@EXAMPLE.com", true),
            ("carol@example.com", "Carol@example.com", false),
            ("10.0.0.1", "@10.0.0.1", false),
            ("@moon", "keyid:moon", false),
            ("keyid:moon", "keyid:MOON", false),
        ] {
            assert_eq!(id(a).unwrap().matches(&id(b).unwrap()), want, "{a} {b}");
        }
    }

    //= test rfc7296 3.5-6
    #[test]
    fn lengths_on_the_wire_are_checked() {
        for (ty, len, ok) in [
            (IdType::IPV4_ADDR, 4, true),
            (IdType::IPV4_ADDR, 3, false),
            (IdType::IPV4_ADDR, 16, false),
            (IdType::IPV6_ADDR, 16, true),
            (IdType::IPV6_ADDR, 4, false),
            (IdType::KEY_ID, 1, true),
            (IdType::KEY_ID, 0, false),
            (IdType::FQDN, 0, false),
        ] {
            assert_eq!(from_wire(ty, &vec![b'a'; len]).is_ok(), ok, "{ty} {len}");
        }
    }

    #[test]
    fn a_name_that_is_no_text_matches_no_configured_name() {
        for name in [&b"moon\0"[..], b"moon\n", b"m\xffon", b"moon "] {
            let identity = from_wire(IdType::FQDN, name).unwrap();
            assert_eq!(identity, Identity::Other(IdType::FQDN, name.to_vec()));
            assert!(!identity.matches(&fqdn("moon")));
        }
    }

    #[test]
    fn what_is_printed_is_bounded_and_has_no_control_characters() {
        let long = fqdn(&"a".repeat(60_000)).to_string();
        assert!(
            long.len() < 300 && long.ends_with("... (59744 more octets)"),
            "{long}"
        );
        let long = Identity::KeyId(vec![0; 60_000]).to_string();
        assert!(long.len() < 300 && long.ends_with("more octets)"), "{long}");
        assert_eq!(fqdn("a\x1b[2J\n").to_string(), "fqdn:a\\u{1b}[2J\\u{a}");
        assert_eq!(format!("{:?}", fqdn("moon")), "moon");
    }

    fn identities() -> impl Strategy<Value = Identity> {
        prop_oneof![
            any::<Ipv4Addr>().prop_map(Identity::Ipv4),
            any::<Ipv6Addr>().prop_map(Identity::Ipv6),
            "[!-?A-~]{1,60}".prop_map(Identity::Fqdn),
            "[!-~é]{1,20}@[!-?A-~]{1,20}".prop_map(Identity::Rfc822),
            prop::collection::vec(any::<u8>(), 1..60).prop_map(Identity::KeyId),
            prop::collection::vec(any::<u8>(), 1..60)
                .prop_map(|data| Identity::Other(IdType::DER_ASN1_DN, data)),
        ]
    }

    proptest! {
        //= test rfc7296 3.5-1 3.5-4 3.5-5
        #[test]
        fn the_wire_keeps_every_identity(identity in identities()) {
            let body = identity.to_body();
            let back = Identity::from_payload(&Id::from_body(&body).unwrap());
            prop_assert_eq!(back, Ok(identity));
        }

        #[test]
        fn what_is_printed_reads_back(identity in identities()) {
            let printable = match &identity {
                Identity::Fqdn(name) | Identity::Rfc822(name) => !name.contains(['*', '%']),
                Identity::Other(..) => false,
                _ => true,
            };
            prop_assume!(printable);
            prop_assert_eq!(id(&identity.to_string()), Ok(identity));
        }

        #[test]
        fn no_text_and_no_payload_panics(text in ".{0,40}", ty in any::<u8>(), data: Vec<u8>) {
            let _ = id(&text).map(|identity| identity.to_string());
            let _ = from_wire(IdType(ty), &data).map(|identity| identity.to_string());
        }
    }
}
