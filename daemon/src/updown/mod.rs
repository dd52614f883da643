//! Scripts of an operator's that are told what becomes of a child: `updown` of a child, pluto's
//! `leftupdown`.
//!
//! ```text
//!  configuration ─ Scripts::set ─┐
//!  Child SAs ──── up, down ──────┴─ jobs: verbs with an environment ─► Runner, one after another
//! ```
//!
//! obol itself needs none of it: routes, rules and policies are there before a script runs, and
//! whatever it does or leaves undone, nothing waits for it.

mod environment;
mod runner;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use obol_ike::event::ChildSaId;

pub(crate) use environment::Facts;
use runner::{Job, Runner};

/// Scripts about one connection that may wait when it comes up once more. Peers can make SAs come and go, and
/// scripts are slow.
const WAITING: usize = 1024;

/// Names of a connection and a child.
pub(crate) type Name = (String, String);

/// A script, and what it is about before there is an SA.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// What is run.
    pub(crate) command: String,
    /// What is known of the child.
    pub(crate) facts: Facts,
    /// Packets ask for it, so that it has its routes without an SA.
    pub(crate) routed: bool,
}

/// All scripts, and what each was told.
pub(crate) struct Scripts {
    told: BTreeMap<Name, Told>,
    /// What is to be run.
    jobs: Vec<Job>,
    runner: Runner,
}

/// What a script knows.
struct Told {
    wanted: Wanted,
    /// It was told `route`.
    is_routed: bool,
    /// With whom it is up: by the address of the peer.
    up: BTreeMap<IpAddr, Up>,
}

struct Up {
    sas: BTreeSet<ChildSaId>,
    facts: Facts,
    /// The script knows; else too many waited.
    is_known: bool,
}

impl Up {
    fn new(sas: BTreeSet<ChildSaId>, facts: Facts) -> Self {
        let is_known = true;
        Self {
            sas,
            facts,
            is_known,
        }
    }
}

impl Told {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            is_routed: false,
            up: BTreeMap::new(),
        }
    }

    fn tell(&self, jobs: &mut Vec<Job>, verbs: &[&'static str], facts: &Facts) {
        for verb in verbs {
            for environment in facts.environments(verb) {
                jobs.push(Job {
                    name: facts.name.clone(),
                    command: self.wanted.command.clone(),
                    environment,
                });
            }
        }
    }

    fn route(&mut self, jobs: &mut Vec<Job>, facts: &Facts) {
        if !self.is_routed {
            self.is_routed = true;
            self.tell(jobs, &["prepare", "route"], facts);
        }
    }

    /// Without SA and trap nothing is routed.
    fn unroute(&mut self, jobs: &mut Vec<Job>, facts: &Facts) {
        if self.is_routed && self.up.is_empty() && !self.wanted.routed {
            self.is_routed = false;
            self.tell(jobs, &["unroute"], facts);
        }
    }

    /// Whoever heard that it is up hears this too, however many wait.
    fn down(&self, jobs: &mut Vec<Job>, up: &Up) {
        if up.is_known {
            self.tell(jobs, &["down"], &up.facts);
        }
    }

    fn end(mut self, jobs: &mut Vec<Job>) {
        self.wanted.routed = false;
        let mut last = self.wanted.facts.clone();
        for up in std::mem::take(&mut self.up).into_values() {
            self.down(jobs, &up);
            last = up.facts;
        }
        self.unroute(jobs, &last);
    }
}

impl Scripts {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            told: BTreeMap::new(),
            jobs: Vec::new(),
            runner: Runner::new(),
        }
    }

    /// These are the scripts from now on. What goes is told so; what comes finds SAs that are up.
    pub(crate) fn set(&mut self, wanted: BTreeMap<Name, Wanted>) {
        let same = |told: &Told, wanted: &Wanted| {
            told.wanted.command == wanted.command && told.wanted.facts == wanted.facts
        };
        let stale: Vec<Name> = self
            .told
            .iter()
            .filter(|(name, told)| wanted.get(*name).is_none_or(|new| !same(told, new)))
            .map(|(name, _)| name.clone())
            .collect();
        let mut replaced = BTreeMap::new();
        for name in stale {
            if let Some(told) = self.told.remove(&name) {
                if wanted.contains_key(&name) {
                    let up = told.up.iter();
                    let up = up.map(|(peer, up)| (*peer, (up.sas.clone(), up.facts.clone())));
                    replaced.insert(name, up.collect::<Vec<_>>());
                }
                told.end(&mut self.jobs);
            }
        }
        for (name, new) in wanted {
            let told = self.told.entry(name.clone());
            let told = told.or_insert_with(|| Told::new(new.clone()));
            told.wanted = new;
            let facts = told.wanted.facts.clone();
            if told.wanted.routed {
                told.route(&mut self.jobs, &facts);
            }
            for (peer, (sas, facts)) in replaced.remove(&name).unwrap_or_default() {
                told.route(&mut self.jobs, &facts);
                told.tell(&mut self.jobs, &["up"], &facts);
                told.up.insert(peer, Up::new(sas, facts));
            }
            told.unroute(&mut self.jobs, &facts);
        }
    }

    /// Whether anybody is told about a child.
    pub(crate) fn has(&self, name: &Name) -> bool {
        self.told.contains_key(name)
    }

    /// An SA of a child is up with a peer. Only the first one is told.
    pub(crate) fn up(&mut self, name: &Name, peer: IpAddr, id: ChildSaId, facts: Facts) {
        let Some(told) = self.told.get_mut(name) else {
            return;
        };
        if let Some(up) = told.up.get_mut(&peer) {
            up.sas.insert(id);
            return;
        }
        let mut up = Up::new(BTreeSet::from([id]), facts);
        let jobs = self.jobs.iter().filter(|job| job.name == up.facts.name);
        up.is_known = jobs.count() + self.runner.waiting(&up.facts.name) < WAITING;
        if up.is_known {
            told.route(&mut self.jobs, &up.facts);
            told.tell(&mut self.jobs, &["up"], &up.facts);
        } else {
            tracing::warn!(connection = up.facts.name, %peer, "updown is not told: too many of its scripts wait");
        }
        told.up.insert(peer, up);
    }

    /// An SA is gone. Only the last one of a child with a peer is told.
    pub(crate) fn down(&mut self, id: ChildSaId) {
        for told in self.told.values_mut() {
            let mut up = told.up.iter_mut();
            let Some((peer, up)) = up.find(|(_, up)| up.sas.contains(&id)) else {
                continue;
            };
            let peer = *peer;
            up.sas.remove(&id);
            if up.sas.is_empty()
                && let Some(up) = told.up.remove(&peer)
            {
                told.down(&mut self.jobs, &up);
                told.unroute(&mut self.jobs, &up.facts);
            }
            return;
        }
    }

    /// Tells all that it is over, and waits until they have heard it, but no longer than this.
    pub(crate) fn end(mut self, limit: Duration) {
        for told in std::mem::take(&mut self.told).into_values() {
            told.end(&mut self.jobs);
        }
        self.run();
        self.runner.end(limit);
    }

    /// Has what was told since be run, and waits for nothing.
    pub(crate) fn run(&mut self) {
        for job in self.jobs.drain(..) {
            self.runner.run(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::environment::tests::facts;
    use super::*;

    fn name() -> Name {
        ("hosts".into(), "net".into())
    }

    fn wanted(command: &str, routed: bool) -> BTreeMap<Name, Wanted> {
        let wanted = Wanted {
            command: command.into(),
            facts: facts(),
            routed,
        };
        BTreeMap::from([(name(), wanted)])
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// What was told since it was asked last, as `COMMAND VERB`.
    fn told(scripts: &mut Scripts) -> Vec<String> {
        scripts
            .jobs
            .drain(..)
            .map(|job| format!("{} {}", job.command, job.environment[0].1))
            .collect()
    }

    #[test]
    fn a_child_is_routed_up_and_down_once_whatever_its_sas_do() {
        let mut scripts = Scripts::new();
        scripts.set(wanted("a", false));
        assert_eq!(told(&mut scripts), [""; 0]);
        let up = |scripts: &mut Scripts, id| scripts.up(&name(), PEER, ChildSaId(id), facts());
        up(&mut scripts, 1);
        let expected = ["a prepare-client", "a route-client", "a up-client"];
        assert_eq!(told(&mut scripts), expected);
        // A rekey.
        up(&mut scripts, 2);
        scripts.down(ChildSaId(1));
        scripts.set(wanted("a", false));
        assert_eq!(told(&mut scripts), [""; 0]);
        scripts.down(ChildSaId(2));
        scripts.down(ChildSaId(2));
        assert_eq!(told(&mut scripts), ["a down-client", "a unroute-client"]);
    }

    #[test]
    fn what_packets_ask_for_is_routed_without_an_sa() {
        let mut scripts = Scripts::new();
        scripts.set(wanted("a", true));
        assert_eq!(told(&mut scripts), ["a prepare-client", "a route-client"]);
        scripts.up(&name(), PEER, ChildSaId(1), facts());
        scripts.down(ChildSaId(1));
        assert_eq!(told(&mut scripts), ["a up-client", "a down-client"]);
        scripts.set(wanted("a", false));
        assert_eq!(told(&mut scripts), ["a unroute-client"]);
    }

    #[test]
    fn a_connection_that_comes_and_goes_keeps_no_other_one_from_being_told() {
        let mut scripts = Scripts::new();
        let mut both = wanted("a", false);
        let (other, script) = (("others".to_owned(), "net".to_owned()), wanted("b", false));
        let script = script.into_values().next().unwrap();
        let others = Facts {
            name: "others".into(),
            ..facts()
        };
        both.insert(other.clone(), script);
        scripts.set(both);
        scripts.up(&other, PEER, ChildSaId(0), others);
        for id in 1..1000 {
            scripts.up(&name(), PEER, ChildSaId(id), facts());
            scripts.down(ChildSaId(id));
        }
        scripts.up(&name(), PEER, ChildSaId(1000), facts());
        scripts.down(ChildSaId(0));
        let all = told(&mut scripts);
        let count = |what: &str| all.iter().filter(|job| *job == what).count();
        assert!(count("a up-client") < 300, "{}", count("a up-client"));
        assert_eq!(count("a up-client"), count("a down-client"));
        assert_eq!(count("b up-client"), 1);
        assert_eq!(count("b down-client"), 1);
        // There is room again.
        scripts.down(ChildSaId(1000));
        assert_eq!(told(&mut scripts), [""; 0], "it was not told of that one");
        scripts.up(&name(), PEER, ChildSaId(1001), facts());
        assert_eq!(told(&mut scripts).last().unwrap(), "a up-client");
    }

    #[test]
    fn another_script_takes_over_what_is_up_and_all_are_told_of_the_end() {
        let mut scripts = Scripts::new();
        scripts.set(wanted("a", false));
        scripts.up(&name(), PEER, ChildSaId(1), facts());
        told(&mut scripts);
        scripts.set(wanted("b", false));
        let expected = [
            "a down-client",
            "a unroute-client",
            "b prepare-client",
            "b route-client",
            "b up-client",
        ];
        assert_eq!(told(&mut scripts), expected);
        scripts.set(BTreeMap::new());
        assert_eq!(told(&mut scripts), ["b down-client", "b unroute-client"]);
        scripts.down(ChildSaId(1));
        assert_eq!(told(&mut scripts), [""; 0]);
    }
}
