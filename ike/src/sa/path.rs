//! Where an IKE SA and its Child SAs are, and that they go along when that changes: RFC 7296
//! section 2.23.

use crate::config::{Mode, Path};
use crate::context::{Context, Waiting};
use crate::event::{Ask, ChildSaId, Event, MovedSa};
use crate::exchange::nat::{IKE_PORT, Nat};
use crate::sa::IkeSa;
use crate::sa::mobike::{EspPlace, Mobility};

/// Where an IKE SA is, and what it knows for moving.
pub(crate) struct Place {
    path: Path,
    nat: Nat,
    mobility: Mobility,
}

impl IkeSa {
    /// Whether ESP is to go into UDP: there is a NAT, or the operator wants it so.
    pub(crate) fn wants_encap(&self) -> bool {
        self.nat.any() || self.connection.force_encap
    }

    //= rfc7296 2.23-5
    /// Whether ESP goes into UDP. It never does on port 500, even if the peer stays there in spite
    /// of a NAT (RFC 7296 section 2.23).
    pub(crate) fn encap(&self) -> bool {
        self.wants_encap() && self.path.local.port() != IKE_PORT
    }

    //= rfc7296 2.23-13 2.23-14
    //= security S-23
    //= rfc4555 3.8-4
    /// An authenticated message, never seen before, came by `path`. A peer behind a NAT is followed
    /// to where the NAT has put it, unless we are behind one ourselves: then anyone who can pass
    /// our packets on could break the connection with a single one (RFC 7296 section 2.23). With
    /// MOBIKE, peers say where they are (RFC 4555 section 3.8).
    pub(crate) fn follow(&mut self, cx: &mut Context, path: Path) {
        if self.may_follow() && !self.mobility.on && path != self.path {
            self.set_path(cx, path);
            self.move_children(cx);
        }
    }

    fn may_follow(&self) -> bool {
        self.nat.remote && !self.nat.local
    }

    /// The data plane opened a packet that came by another path, and was never seen before.
    pub(crate) fn on_peer_moved(&mut self, cx: &mut Context, path: Path) {
        if self.established().is_none() || !self.encap() || !self.may_follow() {
            return;
        }
        if self.mobility.on {
            self.esp_came_from(cx, path);
        } else {
            self.follow(cx, path);
        }
    }

    /// Where the IKE SA is, for the one that takes its place.
    pub(crate) fn place(&self) -> Place {
        Place {
            path: self.path,
            nat: self.nat,
            mobility: self.mobility.take_over(),
        }
    }

    /// Takes Child SAs over from an IKE SA at `place`. With MOBIKE, that is the place of this one,
    /// too; else it has found its own already.
    pub(crate) fn take_over_place(&mut self, cx: &mut Context, place: Place) {
        if place.mobility.on {
            self.path = place.path;
            self.nat = place.nat;
            self.mobility = place.mobility;
        }
        self.move_children(cx);
    }

    /// The IKE SA is on another path from here on.
    pub(crate) fn set_path(&mut self, cx: &mut Context, path: Path) {
        let from = std::mem::replace(&mut self.path, path);
        if from != path {
            cx.event(Event::Moved {
                id: self.id,
                connection: self.connection.name.clone(),
                from,
                to: path,
            });
        }
    }

    /// Puts all Child SAs where ESP goes. Those in transport mode are about the two
    /// addresses themselves: where these change, they are closed, and come again if they are
    /// wanted.
    pub(crate) fn move_children(&mut self, cx: &mut Context) {
        let ids: Vec<ChildSaId> = self.children.iter().map(|c| c.info.id).collect();
        for id in ids {
            self.move_child(cx, id);
        }
    }

    fn move_child(&mut self, cx: &mut Context, id: ChildSaId) {
        let EspPlace { path, encap, nat } = self.esp_place();
        let Some(child) = self.child_mut(id).filter(|child| !child.taken_out) else {
            return;
        };
        let info = &mut child.info;
        if (info.path, info.encap, info.nat) == (path, encap, nat) {
            return;
        }
        let hosts = |path: Path| (path.local.ip(), path.remote.ip());
        if info.mode == Mode::Transport && hosts(info.path) != hosts(path) {
            self.delete_child(id);
            return;
        }
        (info.path, info.encap, info.nat) = (path, encap, nat);
        if let Some(outbound) = &mut child.outbound {
            outbound.info = child.info.clone();
        }
        let moved = MovedSa {
            id,
            path,
            encap,
            nat,
        };
        cx.ask(Waiting::Nobody, Ask::MovePath(moved));
    }
}
