//! Which data plane carries which connection, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use obol_ike::config::{Child, Config, Connection, SpiHalf};

use super::DataPlaneError;
use crate::config::{ConnectionChoice, DataPlaneChoice};

/// One of the two data planes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Which {
    /// The kernel's.
    Kernel,
    /// Our own.
    User,
}

impl Which {
    /// `kernel` or `userspace`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "userspace",
        }
    }

    /// The half of the SPIs that tells its packets from those of the other one.
    pub(crate) fn half(self) -> SpiHalf {
        match self {
            Self::Kernel => SpiHalf::Upper,
            Self::User => SpiHalf::Lower,
        }
    }

    /// The one whose SPIs are of this half.
    pub(crate) fn of(half: SpiHalf) -> Self {
        match half {
            SpiHalf::Upper => Self::Kernel,
            SpiHalf::Lower => Self::User,
        }
    }
}

/// What carries a connection, and why, in words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Carried {
    /// Which of them.
    pub(crate) by: Which,
    /// Why.
    pub(crate) why: String,
}

/// What carries each connection, by its name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Assignment {
    connections: BTreeMap<String, Carried>,
    /// What has policies of no connection, which drop.
    others: Carried,
}

/// Decides for each connection. `probe` says what keeps the kernel from carrying these children; without
/// any connection, `default` counts.
///
/// # Errors
/// The kernel is to carry what it cannot.
pub(crate) fn assign(
    config: &Config,
    choices: &[ConnectionChoice],
    default: DataPlaneChoice,
    mut probe: impl FnMut(&[Arc<Child>]) -> Result<(), DataPlaneError>,
) -> Result<Assignment, DataPlaneError> {
    let mut assigned = BTreeMap::new();
    for (connection, chosen) in config.connections.iter().zip(choices) {
        let generated = connection
            .generate
            .iter()
            .map(|generate| Arc::new(generate.like.clone()));
        let children: Vec<_> = connection
            .children
            .iter()
            .cloned()
            .chain(generated)
            .collect();
        let probed = || match most_queues(&children) {
            1 => probe(&children),
            _ => Err(DataPlaneError::Refused(
                "several queues of a child need the userspace data plane".to_owned(),
            )),
        };
        let choice = match chosen.is_kernel() {
            true => DataPlaneChoice::Kernel,
            false => chosen.choice,
        };
        let carried = choose(choice, probed).map_err(|error| {
            let (name, place) = (&connection.name, &chosen.place);
            DataPlaneError::Refused(format!(
                "{place}: connection {name} is to be carried by the kernel, and {error}"
            ))
        })?;
        let why = match chosen.choice {
            DataPlaneChoice::Auto if chosen.needs_kernel => {
                "auto: only the kernel has the options of its children".to_owned()
            }
            _ => carried.why,
        };
        let carried = Carried { why, ..carried };
        assigned.insert(connection.name.clone(), carried);
    }
    let first = assigned.values().min_by_key(|carried| carried.by);
    let others = match first {
        Some(first) => first.clone(),
        None => choose(default, || probe(&[]))?,
    };
    Ok(Assignment {
        connections: assigned,
        others,
    })
}

/// Decides for one connection, or for a daemon without any.
fn choose(
    choice: DataPlaneChoice,
    probe: impl FnOnce() -> Result<(), DataPlaneError>,
) -> Result<Carried, DataPlaneError> {
    let (by, why) = match choice {
        DataPlaneChoice::Userspace => (Which::User, "configured".to_owned()),
        DataPlaneChoice::Kernel => {
            probe()?;
            (Which::Kernel, "configured".to_owned())
        }
        DataPlaneChoice::Auto => match probe() {
            Ok(()) => (
                Which::Kernel,
                "auto: the kernel takes what is configured".to_owned(),
            ),
            Err(error) => (Which::User, format!("auto: the kernel cannot: {error}")),
        },
    };
    Ok(Carried { by, why })
}

impl Assignment {
    /// What carries a connection, or has the policies of what is none.
    pub(crate) fn of(&self, connection: &str) -> &Carried {
        self.connections.get(connection).unwrap_or(&self.others)
    }

    /// Whether one data plane carries all.
    pub(crate) fn is_all(&self, which: Which) -> bool {
        self.planes().iter().all(|needed| *needed == which)
    }

    /// Takes in what was decided for further connections.
    pub(crate) fn add(&mut self, more: Self) {
        self.connections.extend(more.connections);
    }

    /// Each connection.
    pub(crate) fn connections(&self) -> impl Iterator<Item = (&String, &Carried)> {
        self.connections.iter()
    }

    /// Those that are needed, at least one.
    pub(crate) fn planes(&self) -> BTreeSet<Which> {
        let carried = self.connections.values().chain([&self.others]);
        carried.map(|carried| carried.by).collect()
    }

    /// Gives the children of each connection SPIs that tell what carries them.
    pub(crate) fn mark(&self, config: &mut Config) {
        for connection in &mut config.connections {
            let half = self.of(&connection.name).by.half();
            if connection
                .children
                .iter()
                .any(|child| child.spi_half != half)
            {
                for child in &mut Arc::make_mut(connection).children {
                    Arc::make_mut(child).spi_half = half;
                }
            }
            let generate = connection.generate.as_ref();
            if generate.is_some_and(|generate| generate.like.spi_half != half)
                && let Some(generate) = &mut Arc::make_mut(connection).generate
            {
                generate.like.spi_half = half;
            }
        }
    }

    /// The queues of the child that has most (RFC 9611), of those that our own data plane carries.
    pub(crate) fn workers(&self, config: &Config) -> usize {
        let ours = |connection: &&Arc<Connection>| self.of(&connection.name).by == Which::User;
        let connections = config.connections.iter().filter(ours);
        connections
            .map(|connection| most_queues(&connection.children))
            .max()
            .unwrap_or(1)
    }

    /// In short: which there are, and why if that is the same for all.
    pub(crate) fn summary(&self) -> (&'static str, String) {
        let name = match self.planes().len() {
            1 => self.others.by.name(),
            _ => "both",
        };
        let mut all = self.connections.values();
        let why = match all.all(|carried| *carried == self.others) {
            true => self.others.why.clone(),
            false => "by connection: `obol list` says which and why".to_owned(),
        };
        (name, why)
    }
}

/// The queues of the child that has most.
fn most_queues(children: &[Arc<Child>]) -> usize {
    let queues = children.iter().map(|child| usize::from(child.queues)).max();
    queues.unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::NoFiles;
    use crate::config::{Loaded, parse_str};

    /// Connections a, b, ... which end with these lines.
    fn loaded(lines: &[&str]) -> Loaded {
        let mut text = String::new();
        for (n, line) in lines.iter().enumerate() {
            let name = char::from(b'a' + n as u8);
            text.push_str(&format!(
                "[connections.{name}]\nremote_addrs = [\"192.0.2.{n}\"]\n\
                 local = {{ auth = \"psk\", id = \"@l\" }}\nremote = {{ auth = \"psk\", id = \"@r{n}\" }}\n\
                 {line}\nlocal_ts = [\"10.0.0.0/16\"]\nremote_ts = [\"10.1.{n}.0/24\"]\n"
            ));
        }
        text.push_str("[secrets.s]\ntype = \"psk\"\nsecret = \"0sdm0tc2VjcmV0LXZtLXNlY3JldA==\"\n");
        parse_str("t.toml", &text, &NoFiles).unwrap()
    }

    const KERNEL: &str = "dataplane = \"kernel\"\n[connections.a.children.net]";
    const AUTO: &str = "dataplane = \"auto\"\n[connections.b.children.net]";
    const QUEUES: &str = "dataplane = \"auto\"\n[connections.c.children.net]\nqueues = 3";
    const OURS: &str = "[connections.d.children.net]\nqueues = 2";

    #[test]
    fn each_connection_is_carried_by_what_it_says_or_needs() {
        let mut loaded = loaded(&[KERNEL, AUTO, QUEUES, OURS]);
        let assigned = assign(
            &loaded.ike,
            &loaded.data_planes,
            DataPlaneChoice::Auto,
            |_| Ok(()),
        )
        .unwrap();
        let of = |name| (assigned.of(name).by, assigned.of(name).why.as_str());
        assert_eq!(of("a"), (Which::Kernel, "configured"));
        assert_eq!(of("b").0, Which::Kernel);
        assert_eq!(of("c").0, Which::User);
        assert!(of("c").1.contains("several queues"), "{}", of("c").1);
        assert_eq!(of("d"), (Which::User, "configured"));
        assert_eq!(assigned.workers(&loaded.ike), 3);
        assert_eq!(assigned.summary().0, "both");
        // What is of no connection is blocked by one that is there.
        assert_eq!(of("[drop]").0, Which::Kernel);

        assigned.mark(&mut loaded.ike);
        let connections = loaded.ike.connections.iter();
        let halves: Vec<_> = connections.map(|c| c.children[0].spi_half).collect();
        use SpiHalf::{Lower, Upper};
        assert_eq!(halves, [Upper, Upper, Lower, Lower]);
    }

    #[test]
    fn what_the_kernel_cannot_is_an_error_only_for_who_insists() {
        let cannot = |_: &[Arc<Child>]| Err(DataPlaneError::Refused("it has no ESP".into()));
        let error = |loaded: &Loaded| {
            assign(
                &loaded.ike,
                &loaded.data_planes,
                DataPlaneChoice::Auto,
                cannot,
            )
        };
        let refused = error(&loaded(&[KERNEL])).unwrap_err().to_string();
        assert_eq!(
            refused,
            "t.toml:5:13: connection a is to be carried by the kernel, and it has no ESP"
        );
        let auto = loaded(&["dataplane = \"auto\"\n[connections.a.children.net]"]);
        let assigned = error(&auto).unwrap();
        let summary = (
            "userspace",
            "auto: the kernel cannot: it has no ESP".to_owned(),
        );
        assert_eq!(assigned.summary(), summary);
        assert_eq!(assigned.of("[drop]").by, Which::User);
        let none = error(&loaded(&[])).unwrap();
        assert_eq!(none.planes(), BTreeSet::from([Which::User]));
    }
}
