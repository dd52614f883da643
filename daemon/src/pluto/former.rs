//! Connections in force, as they were when they were loaded. One that the files, its names or this host do not
//! give any more when they are looked at again stays as it was: what it protects must not leave in clear,
//! whatever a half-written file, a silent resolver or an address that is gone would make of it. Only who takes
//! it out of the files or unloads it by its name takes its protection away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::conn::Conn;
use super::keyword::Side;
use super::orient::{HostView, Oriented, orient};
use super::running::NamesFound;
use super::values::Host;
use super::world::World;

/// What the files are looked at for.
#[derive(Clone, Copy)]
pub(crate) enum Occasion<'w> {
    /// Nothing is loaded yet, or nothing of it matters.
    Start,
    /// Somebody wants them to count as they are now; and what was heard of names for that.
    Heard(&'w World, &'w NamesFound),
    /// Somebody wants what this name means to count as the files have it now, and of all else what there is of it;
    /// and what was heard of names for that.
    Named(&'w World, &'w NamesFound, &'w str),
    /// Addresses or names have changed. Nobody asked for what the files say by now, so it counts for what is
    /// not this host's yet, and for nothing else.
    Event(&'w World),
}

impl<'w> Occasion<'w> {
    /// What is loaded.
    pub(super) fn world(self) -> Option<&'w World> {
        match self {
            Self::Start => None,
            Self::Heard(world, _) | Self::Named(world, ..) | Self::Event(world) => Some(world),
        }
    }

    /// What is loaded, where not all of the files is to count as it is by now.
    pub(super) fn beside(self) -> Option<&'w World> {
        match self {
            Self::Start | Self::Heard(..) => None,
            Self::Named(world, ..) | Self::Event(world) => Some(world),
        }
    }

    /// Whether nobody asked for the connection of this name, with these other names.
    pub(super) fn leaves(self, name: &str, aliases: &[String]) -> bool {
        match self {
            Self::Start | Self::Heard(..) => false,
            Self::Named(_, _, asked) => asked != name && aliases.iter().all(|own| own != asked),
            Self::Event(_) => true,
        }
    }
}

/// A connection in force.
#[derive(Debug)]
pub(super) struct InForce {
    conn: Conn,
    local: Side,
    local_addr: IpAddr,
    remote_addrs: Vec<IpAddr>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Former {
    /// In order; nothing where one was that is unloaded.
    order: Vec<Option<Arc<InForce>>>,
    places: HashMap<String, usize>,
}

impl Former {
    /// What is in force from now on, in this order.
    pub(super) fn of(conns: &[Oriented<'_>]) -> Self {
        let mut former = Self::default();
        for conn in conns {
            former.push(Arc::new(InForce {
                conn: conn.conn.clone(),
                local: conn.local,
                local_addr: conn.local_addr,
                remote_addrs: conn.remote_addrs.clone(),
            }));
        }
        former
    }

    /// One more, or another one in the place of that of this name.
    fn push(&mut self, one: Arc<InForce>) {
        let name = &one.conn.name.value;
        match self.places.get(name) {
            Some(place) => self.order[*place] = Some(one),
            None => {
                self.places.insert(name.clone(), self.order.len());
                self.order.push(Some(one));
            }
        }
    }

    /// Takes in others.
    pub(super) fn add(&mut self, others: Self) {
        let others = others.order.into_iter().flatten();
        others.for_each(|one| self.push(one));
    }

    /// Forgets those of which this is not true, but for their places.
    pub(super) fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        for one in &mut self.order {
            one.take_if(|one| !stays(&one.conn.name.value));
        }
    }

    /// A connection of this name.
    pub(super) fn get(&self, name: &str) -> Option<&InForce> {
        self.order[*self.places.get(name)?].as_deref()
    }

    /// The place that a connection of this name has, or will have.
    pub(super) fn place(&self, name: &str) -> usize {
        self.places.get(name).copied().unwrap_or(usize::MAX)
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &InForce> {
        self.order.iter().flatten().map(|one| &**one)
    }
}

impl InForce {
    /// Whether nobody asked for it.
    pub(super) fn is_left(&self, occasion: Occasion<'_>) -> bool {
        occasion.leaves(&self.conn.name.value, &self.conn.aliases)
    }

    /// As it was.
    pub(super) fn as_it_was(&self) -> Oriented<'_> {
        Oriented {
            conn: &self.conn,
            local: self.local,
            local_addr: self.local_addr,
            remote_addrs: self.remote_addrs.clone(),
        }
    }

    /// As this host sees it now, and as it was before as far as that is not known.
    pub(super) fn seen(&self, view: &HostView) -> Oriented<'_> {
        let now = orient(&self.conn, view).ok();
        now.filter(|now| !now.remote_addrs.is_empty() || self.remote_addrs.is_empty())
            .unwrap_or_else(|| self.as_it_was())
    }

    /// What the files say of it by now, for a host that it is not this one's by their word. `None`: they are
    /// right, it is another host's now.
    pub(super) fn instead_of<'c>(&'c self, conn: &'c Conn) -> Option<Oriented<'c>> {
        let hosts = |conn: &Conn| conn.ends.each_ref().map(|end| end.host.value.clone());
        if hosts(conn) == hosts(&self.conn) {
            // The host has changed, not the connection.
            return Some(Oriented {
                conn,
                ..self.as_it_was()
            });
        }
        let is_known = |host: &Host| matches!(host, Host::Addr(_) | Host::Any);
        (!hosts(conn).iter().all(is_known)).then(|| self.as_it_was())
    }
}
