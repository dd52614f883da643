//! Our addresses and the peer's: which paths there are, and what follows when ours change.

use std::net::IpAddr;

use crate::config::{Connection, Mode, Path};
use crate::context::Context;
use crate::directory::fits_path;
use crate::event::LocalAddresses;
use crate::exchange::nat::{IKE_PORT, NAT_PORT};
use crate::sa::IkeSa;
use crate::sa::mobike::octets;
use crate::wire::{Notify, NotifyType};

/// Addresses of ours that the peer is told beside the one in use.
const ADDITIONAL: usize = 8;
/// Paths that are tried when the one in use is dead.
const PATHS: usize = 16;

impl IkeSa {
    /// Our addresses have changed; `cx` has them as they are, `old` as they were.
    pub(crate) fn on_local_addresses(&mut self, cx: &mut Context, old: &LocalAddresses) {
        let (local, remote) = (self.path.local.ip(), self.path.remote.ip());
        if !self.mobility.on || self.is_closing() || self.established().is_none() {
            return;
        }
        let gone = !cx.local.addresses.contains(&local);
        let source = self.source_towards(&cx.local, remote);
        let rerouted = old.source(remote) == Some(local) && source.is_some_and(|new| new != local);
        match (self.mobility.decides, source) {
            (true, _) if gone || rerouted => self.try_another_path(cx),
            (false, Some(source)) if gone => self.leave_address(cx, source),
            _ if self.others_of(&old.addresses) != self.others_of(&cx.local.addresses) => {
                self.owe_addresses();
            }
            _ => {}
        }
    }

    /// As the one who decides: the best of the paths that the peer has not refused.
    pub(crate) fn try_another_path(&mut self, cx: &mut Context) {
        let refused = &self.mobility.refused;
        let mut paths = self.paths(cx).into_iter();
        if let Some(path) = paths.find(|path| !refused.contains(path)) {
            self.move_to(cx, path);
        }
    }

    /// The path in use seems dead: the open request goes out on all others. The one on which it is
    /// answered is the next (RFC 4555 section 3.10).
    pub(crate) fn search_path(&mut self, cx: &mut Context) {
        let Some(open) = self.requests.open() else {
            return;
        };
        if !self.mobility.on || !self.mobility.decides || !open.retransmit.is_late() {
            return;
        }
        let datagrams = open.datagrams.clone();
        for path in self.paths(cx) {
            if path != self.path {
                cx.transmit_all(path, &datagrams);
            }
        }
    }

    /// The open request was answered, by `path`: whether that ends such a search.
    pub(crate) fn found_path(&self, cx: &Context, path: Path) -> bool {
        let late = |open: &crate::exchange::windows::OpenRequest<_>| open.retransmit.is_late();
        self.mobility.on
            && self.mobility.decides
            && path != self.path
            && self.requests.open().is_some_and(late)
            && self.paths(cx).contains(&path)
    }

    /// Whether the connection lets the two ends be there.
    pub(crate) fn accepts_path(&self, path: Path) -> bool {
        let peer = path.remote.ip();
        let no_host = match peer {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        let odd =
            no_host || peer.is_unspecified() || peer.is_multicast() || peer == path.local.ip();
        !odd && path.remote.port() != 0 && fits_path(&self.connection, path)
    }

    /// ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS, RFC 4555 section 3.4.
    pub(crate) fn additional_addresses(&self, cx: &Context) -> Vec<Notify<'static>> {
        let others = self.others_of(&cx.local.addresses).into_iter();
        let notify = |address: IpAddr| {
            let ty = if address.is_ipv4() {
                NotifyType::ADDITIONAL_IP4_ADDRESS
            } else {
                NotifyType::ADDITIONAL_IP6_ADDRESS
            };
            Notify::with_data(ty, octets(address))
        };
        others.map(notify).collect()
    }

    fn others_of(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let own = self.usable(addresses).into_iter();
        let others = own.filter(|own| *own != self.path.local.ip());
        others.take(ADDITIONAL).collect()
    }

    /// Those of our addresses that the connection can use. What it protects in a tunnel is reached
    /// through it, and no end of it, unless it is one already.
    fn usable(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let listed = &self.connection.local_addrs;
        let usable = |own: &IpAddr| {
            let fits = listed.is_empty() || listed.contains(own);
            fits && (*own == self.path.local.ip() || !is_inside(&self.connection, *own))
        };
        addresses.iter().copied().filter(usable).collect()
    }

    /// From which address of ours packets to `remote` leave, if the connection can use it.
    fn source_towards(&self, local: &LocalAddresses, remote: IpAddr) -> Option<IpAddr> {
        let usable = self.usable(&local.addresses);
        let of_family = |own: &&IpAddr| own.is_ipv4() == remote.is_ipv4();
        let routed = local.source(remote).filter(|own| usable.contains(own));
        routed.or_else(|| usable.iter().find(of_family).copied())
    }

    /// All paths to the peer, best first: to where it is, and from where the system would send.
    fn paths(&self, cx: &Context) -> Vec<Path> {
        let usable = self.usable(&cx.local.addresses);
        let mut remotes = vec![self.path.remote.ip()];
        let told = self.mobility.peer_addresses.iter();
        remotes.extend(told.chain(&self.connection.remote_addrs));
        let mut paths = Vec::new();
        for remote in remotes {
            let first = self.source_towards(&cx.local, remote);
            let same_family = |own: &IpAddr| own.is_ipv4() == remote.is_ipv4();
            let locals = first.into_iter().chain(usable.iter().copied());
            for local in locals.filter(same_family) {
                let path = self.path_between(local, remote);
                if !paths.contains(&path) && self.accepts_path(path) {
                    paths.push(path);
                }
            }
        }
        paths.truncate(PATHS);
        paths
    }

    fn path_between(&self, local: IpAddr, remote: IpAddr) -> Path {
        let mut path = self.path;
        path.local.set_ip(local);
        if remote != path.remote.ip() {
            path.remote.set_ip(remote);
            let natt = path.local.port() != IKE_PORT;
            path.remote.set_port(if natt { NAT_PORT } else { IKE_PORT });
        }
        path
    }
}

fn is_inside(connection: &Connection, address: IpAddr) -> bool {
    let tunnels = connection.children.iter();
    tunnels
        .filter(|child| child.mode == Mode::Tunnel)
        .flat_map(|child| &child.local_ts)
        .any(|ts| ts.start <= address && address <= ts.end && !is_any(ts))
}

/// All addresses: that is no subnet behind us.
fn is_any(ts: &crate::ts::TrafficSelector) -> bool {
    ts.start.is_unspecified()
}
