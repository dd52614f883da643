//! The notifies of RFC 5685, and how many redirects a client has followed lately.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use crate::config::Redirect;
use crate::wire::{Notify, NotifyType};

const IPV4: u8 = 1;
const IPV6: u8 = 2;
const FQDN: u8 = 3;

/// Who a REDIRECT names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Gateway {
    /// An address.
    Address(IpAddr),
    /// A name, which nobody here looks up.
    Name,
    /// Something else.
    Unknown(u8),
}

/// REDIRECT, RFC 5685 section 9.2; the nonce only in reply to IKE_SA_INIT.
pub(crate) fn notify(to: IpAddr, nonce: &[u8]) -> Notify<'static> {
    let mut data = identity(to);
    data.extend_from_slice(nonce);
    Notify::with_data(NotifyType::REDIRECT, data)
}

/// REDIRECTED_FROM, RFC 5685 section 9.3.
pub(crate) fn redirected_from(gateway: IpAddr) -> Notify<'static> {
    Notify::with_data(NotifyType::REDIRECTED_FROM, identity(gateway))
}

fn identity(gateway: IpAddr) -> Vec<u8> {
    match gateway {
        IpAddr::V4(ip) => [&[IPV4, 4], &ip.octets()[..]].concat(),
        IpAddr::V6(ip) => [&[IPV6, 16], &ip.octets()[..]].concat(),
    }
}

/// What a REDIRECT says: who, and the nonce that follows. `None` if it is malformed.
pub(crate) fn parse<'a>(notify: &'a Notify<'_>) -> Option<(Gateway, &'a [u8])> {
    let (&[ty, len], rest) = notify.data.split_first_chunk::<2>()?;
    let (identity, nonce) = rest.split_at_checked(usize::from(len))?;
    let gateway = match ty {
        IPV4 => Gateway::Address(Ipv4Addr::from(<[u8; 4]>::try_from(identity).ok()?).into()),
        IPV6 => Gateway::Address(Ipv6Addr::from(<[u8; 16]>::try_from(identity).ok()?).into()),
        FQDN => Gateway::Name,
        _ => Gateway::Unknown(ty),
    };
    Some((gateway, nonce))
}

/// When each connection was redirected lately.
#[derive(Debug, Default)]
pub(crate) struct Trail(BTreeMap<String, VecDeque<Instant>>);

impl Trail {
    /// Notes one more redirect of a connection, unless there were too many.
    pub(crate) fn follow(&mut self, now: Instant, connection: &str, limits: Redirect) -> bool {
        let times = self.0.entry(connection.to_owned()).or_default();
        times.retain(|at| now.saturating_duration_since(*at) < limits.period);
        let may = times.len() < usize::try_from(limits.most).unwrap_or(usize::MAX);
        if may {
            times.push_back(now);
        }
        may
    }

    /// Forgets connections that are gone.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["192.0.2.7", "2001:db8::7"] {
            let to: IpAddr = text.parse().expect("an address");
            let notify = notify(to, b"nonce");
            let said = parse(&notify);
            assert_eq!(said, Some((Gateway::Address(to), &b"nonce"[..])));
        }
    }

    #[test]
    fn lengths_and_types_are_checked() {
        for (data, expected) in [
            (&[][..], None),
            (&[1], None),
            (&[1, 4, 192, 0, 2], None),
            (&[1, 3, 192, 0, 2], None),
            (&[1, 5, 192, 0, 2, 7, 9], None),
            (&[2, 4, 192, 0, 2, 7], None),
            (&[3, 1, b'a'], Some((Gateway::Name, &[][..]))),
            (&[9, 0, 5], Some((Gateway::Unknown(9), &[5][..]))),
        ] {
            let notify = Notify::with_data(NotifyType::REDIRECT, data);
            assert_eq!(parse(&notify), expected, "{data:?}");
        }
    }
}
