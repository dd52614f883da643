//! Which end of a connection is this host, and the Child SAs that it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use obol_ike::ts::TrafficSelector;

use super::conn::{Auth, Conn, End, Kind};
use super::keyword::Side;
use super::values::{self, Host, Port};

/// Addresses that are nobody's (RFC 5737, RFC 3849): the default route leads there.
const SOMEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// What is known of this host.
#[derive(Clone, Debug)]
pub(crate) struct HostView {
    /// Its addresses, with the names of their interfaces.
    pub(crate) addrs: Vec<(String, IpAddr)>,
    /// The source address of packets to an address.
    pub(crate) source: fn(IpAddr) -> Option<IpAddr>,
    /// What names stand for.
    pub(crate) names: Vec<(String, Vec<IpAddr>)>,
}

/// A connection as seen from this host.
#[derive(Clone, Debug)]
pub(crate) struct Oriented<'c> {
    /// The connection.
    pub(crate) conn: &'c Conn,
    /// Which end is this host.
    pub(crate) local: Side,
    /// Its address.
    pub(crate) local_addr: IpAddr,
    /// The peer's addresses; empty: whoever it is.
    pub(crate) remote_addrs: Vec<IpAddr>,
}

/// A Child SA.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ChildOf {
    /// The name of the connection, with `/1x2` where it stands for several.
    pub(crate) name: String,
    /// What is protected on this side.
    pub(crate) local_ts: Vec<TrafficSelector>,
    /// What is protected on the peer's side.
    pub(crate) remote_ts: Vec<TrafficSelector>,
}

/// Why a connection is of no use here, which is no error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unoriented {
    /// Neither end has an address of this host.
    Neither {
        /// What left is.
        left: String,
        /// What right is.
        right: String,
    },
    /// Both ends have.
    Both {
        /// What left is.
        left: String,
        /// What right is.
        right: String,
    },
}

impl std::fmt::Display for Unoriented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Neither { left, right } => {
                write!(
                    f,
                    "neither left={left} nor right={right} match an interface"
                )
            }
            Self::Both { left, right } => {
                write!(f, "connection matches both left {left} and right {right}")
            }
        }
    }
}

/// The connection as seen from this host.
///
/// # Errors
/// It is not this host's, or it cannot be said which end is.
pub(crate) fn orient<'c>(conn: &'c Conn, host: &HostView) -> Result<Oriented<'c>, Unoriented> {
    let [left, right] = &conn.ends;
    let ours = |end: &End, peer: &End| host.own_address(&end.host.value, &peer.host.value);
    let text = |end: &End| host_text(&end.host.value);
    let (local, local_addr) = match (ours(left, right), ours(right, left)) {
        (Some(addr), None) => (Side::Left, addr),
        (None, Some(addr)) => (Side::Right, addr),
        (None, None) => {
            let (left, right) = (text(left), text(right));
            return Err(Unoriented::Neither { left, right });
        }
        // Where nobody is to be met, the loopback address stands for nobody.
        (Some(addr), Some(other)) if conn.is_shunt() && other.is_loopback() => (Side::Left, addr),
        (Some(other), Some(addr)) if conn.is_shunt() && other.is_loopback() => (Side::Right, addr),
        (Some(_), Some(_)) => {
            let (left, right) = (text(left), text(right));
            return Err(Unoriented::Both { left, right });
        }
    };
    let remote = &conn.end(local.other()).host.value;
    Ok(Oriented {
        conn,
        local,
        local_addr,
        remote_addrs: host.peer_addresses(remote),
    })
}

impl HostView {
    fn has(&self, addr: IpAddr) -> bool {
        self.addrs.iter().any(|(_, own)| *own == addr)
    }

    /// The address of this host that is meant, if one is.
    fn own_address(&self, host: &Host, peer: &Host) -> Option<IpAddr> {
        match host {
            Host::Addr(addr) => Some(*addr).filter(|addr| self.has(*addr)),
            Host::Name(_) => {
                let mut addrs = self.peer_addresses(host).into_iter();
                addrs.find(|addr| self.has(*addr))
            }
            Host::DefaultRoute => {
                let mut peers = self.peer_addresses(peer);
                if matches!(peer, Host::Any) {
                    peers.extend(SOMEWHERE);
                }
                peers.into_iter().find_map(|peer| (self.source)(peer))
            }
            Host::Interface(name) => {
                let found = self.addrs.iter().find(|(device, _)| device == name);
                found.map(|(_, addr)| *addr)
            }
            Host::Any | Host::Opportunistic => None,
        }
    }

    fn peer_addresses(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Addr(addr) => vec![*addr],
            Host::Name(name) => {
                let found = self.names.iter().find(|(known, _)| known == name);
                found.map_or_else(Vec::new, |(_, addrs)| addrs.clone())
            }
            Host::DefaultRoute | Host::Any | Host::Interface(_) | Host::Opportunistic => Vec::new(),
        }
    }
}

/// As it is written.
pub(crate) fn host_text(host: &Host) -> String {
    match host {
        Host::Addr(addr) => addr.to_string(),
        Host::Name(name) => name.clone(),
        Host::DefaultRoute => "%defaultroute".into(),
        Host::Any => "%any".into(),
        Host::Interface(name) => format!("%{name}"),
        Host::Opportunistic => "%opportunistic".into(),
    }
}

impl Conn {
    /// Whether packets pass or are dropped without IKE.
    pub(crate) fn is_shunt(&self) -> bool {
        matches!(self.kind, Kind::Pass | Kind::Drop)
    }

    /// Whether the ends prove who they are by signatures.
    pub(crate) fn signs(&self) -> bool {
        matches!(self.auth, Auth::Signature(_) | Auth::Either(_))
    }

    /// One of its ends.
    pub(crate) fn end(&self, side: Side) -> &End {
        let [left, right] = &self.ends;
        match side {
            Side::Left => left,
            Side::Right => right,
        }
    }
}

impl Oriented<'_> {
    /// The name of a peer that has no address yet.
    pub(crate) fn unresolved(&self) -> Option<&str> {
        match &self.remote_end().host.value {
            Host::Name(name) if self.remote_addrs.is_empty() && !self.conn.is_shunt() => Some(name),
            _ => None,
        }
    }

    /// Whether packets pass or are dropped without IKE, for now at least.
    pub(crate) fn is_shunt(&self) -> bool {
        self.conn.is_shunt() || self.unresolved().is_some()
    }

    /// This host's end.
    pub(crate) fn local_end(&self) -> &End {
        self.conn.end(self.local)
    }

    /// The peer's end.
    pub(crate) fn remote_end(&self) -> &End {
        self.conn.end(self.local.other())
    }

    /// The Child SAs that it stands for: one for each pair of `leftsubnets` and `rightsubnets`,
    /// numbered as pluto does, where pairs of different address families are none.
    pub(crate) fn children(&self) -> Vec<ChildOf> {
        let ends = Side::BOTH.map(|side| self.networks(side));
        let [left, right] = &ends;
        let name = &self.conn.name.value;
        let of_pair = |l: &[TrafficSelector], r: &[TrafficSelector], name: String| {
            let (local, remote) = match self.local {
                Side::Left => (l, r),
                Side::Right => (r, l),
            };
            ChildOf {
                name,
                local_ts: local.to_vec(),
                remote_ts: remote.to_vec(),
            }
        };
        if left.numbered.is_empty() && right.numbered.is_empty() {
            return vec![of_pair(&left.whole, &right.whole, name.clone())];
        }
        let mut children = Vec::new();
        for (i, l) in left.each() {
            for (j, r) in right.each() {
                let family = |ts: &[TrafficSelector]| ts.first().map(|ts| ts.start.is_ipv4());
                if family(&l) == family(&r) {
                    children.push(of_pair(&l, &r, format!("{name}/{i}x{j}")));
                }
            }
        }
        children
    }

    fn networks(&self, side: Side) -> Networks {
        let end = self.conn.end(side);
        let narrowed = |ts: &TrafficSelector| {
            let mut ts = *ts;
            if end.protoport != (0, Port::All) {
                values::narrow(&mut ts, end.protoport);
            }
            ts
        };
        let whole: Vec<TrafficSelector> = match end.subnets.is_empty() {
            false => end.subnets.iter().map(narrowed).collect(),
            true => {
                let own = match side == self.local {
                    true => vec![self.local_addr],
                    false => self.remote_addrs.clone(),
                };
                let hosts = own.into_iter().map(TrafficSelector::host);
                hosts.map(|ts| narrowed(&ts)).collect()
            }
        };
        Networks {
            has_subnet: !end.subnets.is_empty(),
            whole,
            numbered: end.more_subnets.iter().map(narrowed).collect(),
        }
    }
}

/// What is behind one end.
struct Networks {
    /// `leftsubnet`, or the host itself.
    whole: Vec<TrafficSelector>,
    /// Whether there was a `leftsubnet`.
    has_subnet: bool,
    /// `leftsubnets`.
    numbered: Vec<TrafficSelector>,
}

impl Networks {
    /// Each with its number: a `leftsubnet` beside `leftsubnets` has 0.
    fn each(&self) -> Vec<(usize, Vec<TrafficSelector>)> {
        let numbered = (1..).zip(self.numbered.iter().map(|ts| vec![*ts]));
        match self.numbered.is_empty() {
            true => vec![(if self.has_subnet { 1 } else { 0 }, self.whole.clone())],
            false if self.has_subnet => std::iter::once((0, self.whole.clone()))
                .chain(numbered)
                .collect(),
            false => numbered.collect(),
        }
    }
}
