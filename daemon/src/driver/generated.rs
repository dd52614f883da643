//! Policies for what peers asked for and no child is about (`generate` of a connection): each is set
//! before its first SA, and goes after its last one. One that lets nothing pass in clear stays for a while: for
//! what TCP has yet to say where the last one was closed, and for as long as an SA lives where nobody has
//! closed it, since it was kept from being made anew.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use obol_ike::config::{Generate, Path};
use obol_ike::event::{AskId, ChildSaId, ChildSaInfo, Event, InboundSa};
use tracing::{info, warn};

use super::Driver;
use crate::config::Loaded;
use crate::config::generate::Level;
use crate::control::protocol::GeneratedReport;
use crate::dataplane::{Clear, DataPlane, DataPlaneError, KernelOptions, Policy};

/// So many there are at once, of all peers.
const MOST: usize = 1024;

/// So long what is strict stays closed after the last SA was closed: Linux repeats the last segments of a
/// connection that its program has closed for some 100 s, and they would be in clear.
const LINGER: Duration = Duration::from_secs(120);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Generated {
    made: Vec<Made>,
    /// SAs whose policy is not set yet.
    waiting: Vec<(AskId, Box<InboundSa>)>,
}

/// One of them.
#[derive(Debug)]
struct Made {
    policy: Policy,
    level: Level,
    /// Between which addresses the last SA was made.
    path: Path,
    since: Instant,
    /// How long an SA lives.
    life: Duration,
    /// SAs that it has.
    sas: HashSet<ChildSaId>,
    /// The last SA is gone: until when it stays all the same.
    held: Option<Held>,
    /// An operator closes the last SA, so that it is open then.
    released: bool,
}

/// Why a policy stays without SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Held {
    until: Instant,
    /// The last SA was closed, so there is less to wait for than where it was lost.
    closed: bool,
}

impl Made {
    fn is(&self, connection: &str, child: &str) -> bool {
        self.policy.connection == connection && self.policy.child == child
    }

    /// How strict a configuration has it; `None`: it has it no more.
    fn level_by(&self, loaded: &Loaded) -> Option<Level> {
        let mut connections = loaded.ike.connections.iter();
        let found = connections.find(|c| c.name == self.policy.connection)?;
        let (local, remote) = (&self.policy.local_ts, &self.policy.remote_ts);
        let allowed = found.generate.as_ref()?.allows(local, remote);
        let level = loaded.generated.get(&found.name).copied();
        level.filter(|_| allowed)
    }

    fn stays(&self, now: Instant) -> bool {
        !self.sas.is_empty() || self.held.is_some_and(|held| held.until > now)
    }
}

impl Generated {
    /// What is told of a policy, if it is one of these.
    pub(super) fn report(&self, now: Instant, policy: &Policy) -> Option<GeneratedReport> {
        let mut made = self.made.iter();
        let made = made.find(|made| made.is(&policy.connection, &policy.child))?;
        let ends = (made.path.local.ip(), made.path.remote.ip());
        Some(GeneratedReport {
            level: made.level.word().to_owned(),
            ends: (ends.0.to_string(), ends.1.to_string()),
            age_s: now.saturating_duration_since(made.since).as_secs(),
            life_s: made.life.as_secs(),
        })
    }

    fn find(&mut self, connection: &str, child: &str) -> Option<&mut Made> {
        let mut made = self.made.iter_mut();
        made.find(|made| made.is(connection, child))
    }

    /// Takes an SA whose policy is to be set first; gives back any other.
    pub(super) fn hold_up(&mut self, id: AskId, sa: Box<InboundSa>) -> Option<Box<InboundSa>> {
        if !Generate::made(&sa.info.child) {
            return Some(sa);
        }
        match self.find(&sa.info.connection, &sa.info.child) {
            Some(made) => {
                made.sas.insert(sa.info.id);
                made.path = sa.info.path;
                Some(sa)
            }
            None => {
                self.waiting.push((id, sa));
                None
            }
        }
    }

    /// An SA is gone, or was never there.
    pub(super) fn forget(&mut self, id: ChildSaId) {
        for made in &mut self.made {
            made.sas.remove(&id);
        }
    }

    /// When one that is held goes.
    pub(super) fn due(&self) -> Option<Instant> {
        let alone = self.made.iter().filter(|made| made.sas.is_empty());
        alone.filter_map(|made| Some(made.held?.until)).min()
    }

    /// An operator closes a connection: what stays without SA goes.
    pub(super) fn release(&mut self, connection: &str) {
        let made = self.made.iter_mut();
        let released = made.filter(|made| made.policy.connection == connection);
        for made in released {
            (made.held, made.released) = (None, true);
        }
    }

    /// What waits without SA goes where another one is about the same packets.
    fn replace(&mut self, info: &ChildSaInfo) {
        self.made.retain(|made| {
            let policy = &made.policy;
            let same = (&policy.connection, policy.mode) == (&info.connection, info.mode)
                && (&policy.local_ts, &policy.remote_ts) == (&info.local_ts, &info.remote_ts);
            !(same && made.sas.is_empty())
        });
    }

    /// Makes room for one more: of those that only wait after a last word, the one goes that has waited longest.
    fn make_room(&mut self) {
        let waits = |made: &Made| {
            let held = made.held.filter(|held| held.closed)?;
            made.sas.is_empty().then_some(held.until)
        };
        let waiting = self.made.iter().enumerate();
        let waiting = waiting.filter_map(|(at, made)| Some((waits(made)?, at)));
        if let Some((_, at)) = waiting.min() {
            self.made.remove(at);
        }
    }

    /// Notes how an SA ended, and that there is one again.
    pub(super) fn note(&mut self, now: Instant, event: &Event) {
        match event {
            Event::ChildUp(info) => {
                if let Some(made) = self.find(&info.connection, &info.child) {
                    (made.held, made.released) = (None, false);
                }
            }
            Event::ChildDown {
                connection,
                child,
                expired,
                ..
            } => {
                let Some(made) = self.find(connection, child) else {
                    return;
                };
                let closed = !expired;
                let time = if closed {
                    LINGER.min(made.life)
                } else {
                    made.life
                };
                let until = now + time;
                let stays = made.level != Level::Use && !made.released && made.sas.is_empty();
                made.held = stays.then_some(Held { until, closed });
            }
            _ => {}
        }
    }

    /// Puts those that another configuration still has behind its policies.
    pub(super) fn carry_over(&self, loaded: &mut Loaded) {
        let policies = self.made.iter().filter_map(|made| {
            let clear = Clear::at_first(made.level_by(loaded)?.cleartext());
            let policy = made.policy.clone();
            Some(Policy { clear, ..policy })
        });
        let policies: Vec<Policy> = policies.collect();
        loaded.policies.extend(policies);
    }

    /// The other configuration counts: those that it has not are forgotten.
    pub(super) fn adapt(&mut self, loaded: &Loaded) {
        self.made.retain_mut(|made| {
            let Some(level) = made.level_by(loaded) else {
                return false;
            };
            made.level = level;
            made.policy.clear = Clear::at_first(level.cleartext());
            true
        });
    }
}

impl<D: DataPlane> Driver<D> {
    /// Sets the policies that SAs wait for, and takes out those that have served. Says whether the
    /// endpoint has heard of it.
    pub(super) async fn settle_generated(&mut self) -> bool {
        let now = self.clock.now();
        let waiting = std::mem::take(&mut self.generated.waiting);
        let mut refused = Vec::new();
        for (id, sa) in waiting {
            if let Err(why) = self.make_policy(now, &sa) {
                refused.push((id, why));
                continue;
            }
            self.generated.waiting.push((id, sa));
        }
        let told = !refused.is_empty() || !self.generated.waiting.is_empty();
        for (id, why) in refused {
            warn!("{why}");
            self.reply(id, super::answers::refused(why));
        }
        if told || !self.generated.made.iter().all(|made| made.stays(now)) {
            self.set_generated(now).await;
        }
        told
    }

    /// A policy for an SA that has none.
    fn make_policy(&mut self, now: Instant, sa: &InboundSa) -> Result<(), String> {
        let info = &sa.info;
        if let Some(made) = self.generated.find(&info.connection, &info.child) {
            made.sas.insert(info.id);
            made.path = info.path;
            return Ok(());
        }
        let level = self.loaded.generated.get(&info.connection).copied();
        let found = self.endpoint.configured(&info.connection);
        let generate = found.and_then(|connection| connection.generate.as_ref());
        let (Some(level), Some(generate)) = (level, generate) else {
            return Err(format!("connection {} makes no policies", info.connection));
        };
        self.generated.replace(info);
        if self.generated.made.len() >= MOST {
            self.generated.make_room();
        }
        if self.generated.made.len() >= MOST {
            return Err(format!(
                "{MOST} policies were made for peers already, and there is none for one more"
            ));
        }
        let life = generate.like.life_time;
        self.generated.made.push(Made {
            policy: Policy {
                connection: info.connection.clone(),
                child: info.child.clone(),
                mode: info.mode,
                local_ts: info.local_ts.clone(),
                remote_ts: info.remote_ts.clone(),
                trap: false,
                pass: false,
                narrower: false,
                clear: Clear::at_first(level.cleartext()),
                kernel: KernelOptions::default(),
            },
            level,
            path: info.path,
            since: now,
            life,
            sas: HashSet::from([info.id]),
            held: None,
            released: false,
        });
        Ok(())
    }

    /// Tells the data plane which policies there are, and then gives it the SAs that wait.
    async fn set_generated(&mut self, now: Instant) {
        self.generated.made.retain(|made| made.stays(now));
        let configured = self.loaded.policies.iter();
        let configured = configured.filter(|policy| !Generate::made(&policy.child));
        let mut policies: Vec<Policy> = configured.cloned().collect();
        policies.extend(self.generated.made.iter().map(|made| made.policy.clone()));
        let waiting = std::mem::take(&mut self.generated.waiting);
        if policies != self.loaded.policies {
            if let Err(error) = self.plane.set_policies(policies.clone()).await {
                self.not_set(waiting, &error);
                return;
            }
            self.tell_of(&policies);
            self.loaded.policies = policies;
        }
        for (id, sa) in waiting {
            if let Some(answer) = self.add_inbound(id, sa) {
                self.reply(id, answer);
            }
        }
    }

    fn not_set(&mut self, waiting: Vec<(AskId, Box<InboundSa>)>, error: &DataPlaneError) {
        warn!(%error, "a policy that a peer asked for is not set");
        for (id, sa) in waiting {
            self.generated.forget(sa.info.id);
            self.reply(id, super::answers::refused(error.to_string()));
        }
    }

    fn tell_of(&self, policies: &[Policy]) {
        let before = &self.loaded.policies;
        for policy in policies.iter().filter(|policy| !before.contains(policy)) {
            let (connection, child) = (&policy.connection, &policy.child);
            info!(%connection, %child, "policy generated, since a peer asked for it");
        }
        let made = before.iter().filter(|policy| Generate::made(&policy.child));
        for policy in made.filter(|policy| !policies.contains(policy)) {
            let (connection, child) = (&policy.connection, &policy.child);
            info!(%connection, %child, "generated policy removed: its SA is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use obol_ike::config::Mode;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn made(child: &str, level: Level) -> Made {
        Made {
            policy: Policy {
                connection: "c".to_owned(),
                child: child.to_owned(),
                mode: Mode::Transport,
                local_ts: Vec::new(),
                remote_ts: Vec::new(),
                trap: false,
                pass: false,
                narrower: false,
                clear: Clear::at_first(level.cleartext()),
                kernel: KernelOptions::default(),
            },
            level,
            path: Path {
                local: "192.0.2.1:500".parse().unwrap(),
                remote: "192.0.2.2:500".parse().unwrap(),
            },
            since: Instant::now(),
            life: 3600 * SECOND,
            sas: HashSet::new(),
            held: None,
            released: false,
        }
    }

    fn down(child: &str, expired: bool) -> Event {
        Event::ChildDown {
            id: ChildSaId(1),
            connection: "c".to_owned(),
            child: child.to_owned(),
            expired,
        }
    }

    /// How long one of each level stays after its SA has gone, in seconds.
    fn stays(level: Level, expired: bool, released: bool) -> Option<u64> {
        let now = Instant::now();
        let mut all = Generated::default();
        all.made.push(made("a", level));
        if released {
            all.release("c");
        }
        all.note(now, &down("a", expired));
        let due = all.due().map(|due| (due - now).as_secs());
        let until = due.map_or(now, |seconds| {
            now + SECOND * u32::try_from(seconds).unwrap()
        });
        assert!(!all.made[0].stays(until));
        due
    }

    #[test]
    fn what_is_strict_stays_after_its_sa_unless_an_operator_opens_it() {
        for level in [Level::Require, Level::Unique] {
            assert_eq!(stays(level, false, false), Some(120));
            assert_eq!(stays(level, true, false), Some(3600));
            assert_eq!(stays(level, false, true), None);
            assert_eq!(stays(level, true, true), None);
        }
        assert_eq!(stays(Level::Use, false, false), None);
        assert_eq!(stays(Level::Use, true, false), None);
    }

    #[test]
    fn a_policy_with_an_sa_waits_for_nothing() {
        let now = Instant::now();
        let mut all = Generated::default();
        all.made.push(made("a", Level::Require));
        all.note(now, &down("a", true));
        let until = now + 3600 * SECOND;
        assert_eq!(all.due(), Some(until));
        all.made[0].sas.insert(ChildSaId(1));
        assert_eq!(all.due(), None, "its time is over when its SA is gone");
        all.forget(ChildSaId(1));
        assert_eq!(all.due(), Some(until));
    }

    #[test]
    fn those_that_wait_after_a_last_word_make_room_for_others() {
        let now = Instant::now();
        let mut all = Generated::default();
        for name in ["lost", "second", "first", "in use"] {
            all.made.push(made(name, Level::Require));
        }
        all.note(now, &down("lost", true));
        all.note(now + SECOND, &down("second", false));
        all.note(now, &down("first", false));
        all.made[3].sas.insert(ChildSaId(2));
        for gone in ["first", "second"] {
            all.make_room();
            assert!(!all.made.iter().any(|made| made.is("c", gone)), "{gone}");
        }
        all.make_room();
        assert_eq!(all.made.len(), 2);
    }
}
