//! Commands from the control socket, and those who wait for their outcome.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use obol_ike::config::Connection;
use obol_ike::endpoint::Endpoint;
use obol_ike::error::CommandError;
use obol_ike::event::{ChildSaId, Command, IkeSaId};

use super::Driver;
use super::heard::Held;
use crate::config::changes::{Changes, ChildChange};
use crate::control::Call;
use crate::control::protocol::{
    Absence, ChangeReport, DownReport, DownTarget, RedirectReport, ReloadReport, Reply, Request,
    SaName, UpReport,
};
use crate::dataplane::DataPlane;
use crate::error::{ExitClass, Failure};
use crate::pluto::{NamesFound, Occasion};

/// Somebody who waits for an `up` or a `down`.
pub(super) struct Waiter {
    pub(super) call: Call,
    goal: Goal,
    started: Instant,
    pub(super) deadline: Instant,
}

/// What a name on a command line means.
struct Meant {
    connection: String,
    children: Vec<String>,
    /// The children are all that the connection has, and it is meant as well.
    is_whole: bool,
}

impl Meant {
    /// The children one by one, or `None` for the connection with all of them.
    fn each(&self) -> impl Iterator<Item = Option<String>> {
        let children = match self.is_whole {
            true => vec![None],
            false => self.children.iter().cloned().map(Some).collect(),
        };
        children.into_iter()
    }
}

enum Goal {
    /// These children of the connection are up.
    Up {
        connection: String,
        children: Vec<String>,
    },
    /// Nothing of the targets is left.
    Down {
        targets: Vec<DownTarget>,
        closed: Vec<String>,
    },
}

impl<D: DataPlane> Driver<D> {
    pub(super) async fn call(&mut self, now: Instant, call: Call) {
        match call.request.clone() {
            Request::Status => call.reply(Reply::done(&self.status_report())),
            Request::Overview { name } => {
                call.reply(Reply::done(&self.overview_report(name.as_deref())));
            }
            Request::List => call.reply(Reply::done(&self.list_report())),
            Request::Keys => call.reply(self.keys_reply()),
            Request::CloseSa(sa) => {
                let command = match sa {
                    SaName::Ike(id) => Command::CloseIke(IkeSaId(id)),
                    SaName::Child(id) => Command::CloseChild(ChildSaId(id)),
                };
                call.reply(self.obeyed(now, command));
            }
            Request::Rekey { connection, child } => {
                let command = match child {
                    None => Command::RekeyIke { connection },
                    Some(child) => Command::RekeyChild { connection, child },
                };
                call.reply(self.obeyed(now, command));
            }
            Request::Psks => call.reply(Reply::done(&self.psks_report())),
            Request::Reload => self.when_heard(now, Held::Reload(Some(call))).await,
            Request::Listen => {
                let done = self.listen(now).await;
                call.reply(done.map_or_else(Into::into, |()| Reply::done(&())));
            }
            Request::Secrets => {
                let reply = match self.read_secrets(now).await {
                    Ok(report) => Reply::done(&report),
                    Err(failure) => failure.into(),
                };
                call.reply(reply);
            }
            Request::Up {
                connection,
                child,
                timeout_ms,
            } => {
                self.call_up(now, call, connection, child, timeout_ms).await;
            }
            Request::Down { target, timeout_ms } => self.call_down(now, call, target, timeout_ms),
            Request::Watch => self.watch(now, call),
            Request::Establish {
                source,
                destination,
                flow,
            } => {
                let reply = self.establish(now, source, destination, flow);
                call.reply(reply.unwrap_or_else(Into::into));
            }
            Request::Change { name, to } => {
                self.when_heard(now, Held::Change(call, name, to)).await;
            }
            Request::Redirect { connection, to } => {
                let reply = self.redirect(now, connection, to);
                call.reply(reply.unwrap_or_else(Into::into));
            }
        }
    }

    /// From now on this is done about the children that a name means; with an error, all stays as
    /// it was.
    pub(super) async fn change(
        &mut self,
        now: Instant,
        (name, to): (&str, ChildChange),
        heard: &NamesFound,
    ) -> Result<Reply, Failure> {
        let before = (self.changes.clone(), self.origin.clone());
        if let Some(files) = &mut self.origin.pluto {
            files.want(name, to != ChildChange::Unload);
            let waits = self.loaded.pluto.why_not(name);
            if to == ChildChange::Unload && waits.is_some_and(|not| not.kind != Absence::Ignored) {
                files.delete(name);
            }
            match to {
                ChildChange::Load => {}
                other => files.route(name, other == ChildChange::Trap),
            }
        }
        let done = self.change_found(now, name, to, heard).await;
        if done.is_err() {
            (self.changes, self.origin) = before;
        }
        Ok(Reply::done(&done?))
    }

    async fn change_found(
        &mut self,
        now: Instant,
        name: &str,
        to: ChildChange,
        heard: &NamesFound,
    ) -> Result<ChangeReport, Failure> {
        let done = match to {
            ChildChange::Load => self.add(now, name, heard).await?,
            ChildChange::Unload => self.unload(now, name).await?.map(Into::into),
            ChildChange::Trap | ChildChange::Wait => self.route(now, name, to, heard).await?,
        };
        if let Some(report) = done {
            return Ok(report);
        }
        let occasion = Occasion::Named(&self.loaded.pluto, heard, name);
        let loaded = crate::run::load_checked(&self.origin, occasion, &self.loaded).await?;
        if to == ChildChange::Load
            && let Some(why) = loaded.pluto.why_kept(name)
        {
            let text = format!("{name} stays as it was: {why}");
            return Err(Failure::new(ExitClass::Config, text));
        }
        let mut children = Changes::find(&loaded, name);
        if children.is_empty() && matches!(to, ChildChange::Unload | ChildChange::Wait) {
            // One that is there only because somebody asked for it.
            children = Changes::find(&self.loaded, name);
        }
        if children.is_empty() {
            let text = match loaded.pluto.why_not(name).cloned() {
                // It is there, and waits for what it lacks.
                Some(not) if to == ChildChange::Load => {
                    self.take(now, loaded).await?;
                    return Ok(ChangeReport {
                        children: Vec::new(),
                        waits: Some(not),
                    });
                }
                // It was there, and waited.
                Some(_) if self.is_deleted(name) => {
                    self.take(now, loaded).await?;
                    return Ok(Vec::new().into());
                }
                Some(not) => format!("{name} is not loaded: {}", not.why),
                None => format!("no connection or alias named {name:?}"),
            };
            return Err(Failure::new(ExitClass::Usage, text));
        }
        for child in &children {
            self.changes.say(child.clone(), to);
        }
        self.take(now, loaded).await?;
        Ok(children.into())
    }

    /// Has the endpoint do something of which there is nothing to wait for.
    fn obeyed(&mut self, now: Instant, command: Command) -> Reply {
        match self.endpoint.handle_command(now, command) {
            Ok(()) => Reply::done(&()),
            Err(e @ (CommandError::NoSuchSa | CommandError::NotUp(_))) => {
                Failure::new(ExitClass::Usage, e.to_string()).into()
            }
            Err(e) => Failure::new(ExitClass::Failed, e.to_string()).into(),
        }
    }

    fn redirect(&mut self, now: Instant, connection: String, to: IpAddr) -> Result<Reply, Failure> {
        self.children_of(&connection, None)?;
        let command = Command::Redirect {
            connection: connection.clone(),
            to,
        };
        let told = self.endpoint.handle_command(now, command);
        told.map_err(|e| Failure::new(ExitClass::Failed, e.to_string()))?;
        Ok(Reply::done(&RedirectReport { connection, to }))
    }

    async fn call_up(
        &mut self,
        now: Instant,
        call: Call,
        connection: String,
        child: Option<String>,
        timeout_ms: u64,
    ) {
        let meant = match self.meant(connection, child) {
            Ok(meant) => meant,
            Err(failure) => return call.reply(failure.into()),
        };
        for child in meant.each() {
            let command = Command::Initiate {
                connection: meant.connection.clone(),
                child,
                local: None,
            };
            if let Err(e) = self.endpoint.handle_command(now, command) {
                return call.reply(Failure::new(ExitClass::Failed, e.to_string()).into());
            }
        }
        let Meant {
            connection,
            children,
            ..
        } = meant;
        let goal = Goal::Up {
            connection,
            children,
        };
        self.waiters.push(waiter(call, goal, now, timeout_ms));
    }

    fn call_down(&mut self, now: Instant, call: Call, target: DownTarget, timeout_ms: u64) {
        let meant = match target {
            DownTarget::All => {
                let targets = vec![DownTarget::All];
                let closed = standing(&self.endpoint, now, &targets);
                self.lifting = true;
                self.waiters.push(waiter(
                    call,
                    Goal::Down { targets, closed },
                    now,
                    timeout_ms,
                ));
                return self.stop(now);
            }
            DownTarget::Connection(connection) => self.meant(connection, None),
            DownTarget::Whole(connection) => self.whole(connection),
            DownTarget::Child { connection, child } => self.meant(connection, Some(child)),
        };
        let meant = match meant {
            Ok(meant) => meant,
            Err(failure) => return call.reply(failure.into()),
        };
        let connection = &meant.connection;
        let targets: Vec<DownTarget> = meant
            .each()
            .map(|child| match child {
                None => DownTarget::Connection(connection.clone()),
                Some(child) => DownTarget::Child {
                    connection: connection.clone(),
                    child,
                },
            })
            .collect();
        let closed = standing(&self.endpoint, now, &targets);
        if meant.is_whole {
            self.generated.release(connection);
        }
        for child in meant.each() {
            let connection = connection.clone();
            self.command(now, Command::Terminate { connection, child });
        }
        let goal = Goal::Down { targets, closed };
        self.waiters.push(waiter(call, goal, now, timeout_ms));
    }

    /// What a name means: a connection of pluto's by its own name, or what the configuration calls
    /// so.
    fn meant(&self, connection: String, child: Option<String>) -> Result<Meant, Failure> {
        let name = match &child {
            None => connection.clone(),
            Some(child) => format!("{connection}/{child}"),
        };
        let world = &self.loaded.pluto;
        if let Some(not) = world.why_not(&name) {
            let text = format!("{name} is not loaded: {}", not.why);
            return Err(Failure::new(ExitClass::Config, text));
        }
        let Some(places) = world.names.get(&name) else {
            let children = self.children_of(&connection, child.as_deref())?;
            let is_whole = child.is_none();
            return Ok(Meant {
                connection,
                children,
                is_whole,
            });
        };
        let (connection, _) = &places[0];
        if places.iter().any(|(other, _)| other != connection) {
            let text =
                format!("{name} stands for connections with several peers: name one of them");
            return Err(Failure::new(ExitClass::Usage, text));
        }
        let children: Vec<String> = places.iter().map(|(_, child)| child.clone()).collect();
        let all = self.children_of(connection, None)?;
        Ok(Meant {
            connection: connection.clone(),
            is_whole: all.iter().all(|child| children.contains(child)),
            children,
        })
    }

    /// A connection by obol's name for it.
    fn whole(&self, connection: String) -> Result<Meant, Failure> {
        Ok(Meant {
            children: self.children_of(&connection, None)?,
            connection,
            is_whole: true,
        })
    }

    /// The children that a name means.
    fn children_of(&self, connection: &str, child: Option<&str>) -> Result<Vec<String>, Failure> {
        let Some(found) = self.endpoint.configured(connection) else {
            let connections = &self.loaded.ike.connections;
            let names = connections.iter().map(|c| c.name.as_str());
            return Err(unknown("connection", connection, names));
        };
        let all = found.children.iter().map(|c| c.name.as_str());
        match child {
            None => Ok(all.map(str::to_owned).collect()),
            Some(child) if all.clone().any(|name| name == child) => Ok(vec![child.to_owned()]),
            Some(child) => Err(unknown("child", child, all)),
        }
    }

    /// Answers those whose goal is met.
    pub(super) fn settle_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let now = self.clock.now();
        self.waiters.retain(|waiter| !waiter.call.is_over());
        let (met, open) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter: &Waiter| waiter.met(&self.endpoint, now));
        self.waiters = open;
        for waiter in met {
            let reply = waiter.success(now);
            waiter.call.reply(reply);
        }
    }

    /// Answers those who have waited long enough.
    pub(super) fn expire_waiters(&mut self, now: Instant) {
        let (late, open) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter: &Waiter| waiter.deadline <= now);
        self.waiters = open;
        for waiter in late {
            let seconds = now.saturating_duration_since(waiter.started).as_secs_f64();
            let what = match &waiter.goal {
                Goal::Up { connection, .. } => match self.silent_peer(now, connection) {
                    Some(peer) => format!(
                        "{connection} is not up: {peer} has not answered (is its IKE daemon running, and do firewalls let UDP 500 pass both ways, and 4500 where there is a NAT?)"
                    ),
                    None => format!("{connection} is not up"),
                },
                Goal::Down { .. } => "the peer has not confirmed".to_owned(),
            };
            let text = format!("{what} after {seconds:.1} s; the daemon goes on trying");
            waiter
                .call
                .reply(Failure::new(ExitClass::NoAnswer, text).into());
        }
    }

    /// The peer that a connection waits for without having an IKE SA with it yet.
    fn silent_peer(&self, now: Instant, connection: &str) -> Option<IpAddr> {
        let sas = self.endpoint.status_of_connection(connection, now);
        let silent = sas.iter().all(|sa| sa.state == "connecting");
        let first = sas.first().filter(|_| silent);
        first.map(|sa| sa.path.remote.ip())
    }

    /// Tells those who wait for an `up` that it failed.
    pub(super) fn fail_waiters(
        &mut self,
        connection: Option<&str>,
        child: Option<&str>,
        failure: &Failure,
    ) {
        let (failed, open) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter: &Waiter| waiter.concerns(connection, child));
        self.waiters = open;
        for waiter in failed {
            waiter.call.reply(failure.clone().into());
        }
    }

    /// Answers everybody at the end.
    pub(super) fn dismiss_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            let reply = match waiter.goal {
                Goal::Down { .. } => waiter.success(self.clock.now()),
                Goal::Up { .. } => {
                    Failure::new(ExitClass::NotRunning, "the daemon is stopping").into()
                }
            };
            waiter.call.reply(reply);
        }
    }

    /// Whether somebody has taken it out while it waited.
    fn is_deleted(&self, name: &str) -> bool {
        let files = self.origin.pluto.as_ref();
        files.is_some_and(|files| files.deleted.contains(name))
    }

    pub(super) fn reload_report(&self, before: &obol_ike::config::Config) -> ReloadReport {
        let old = &before.connections;
        let mut report = ReloadReport {
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            unchanged: Vec::new(),
            warnings: self
                .loaded
                .warnings
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        let new = &self.loaded.ike.connections;
        let known: HashMap<&str, &Arc<Connection>> =
            old.iter().map(|c| (c.name.as_str(), c)).collect();
        let kept: HashSet<&str> = new.iter().map(|c| c.name.as_str()).collect();
        for connection in &self.loaded.ike.connections {
            let list = match known.get(connection.name.as_str()) {
                None => &mut report.added,
                Some(same) if *same == connection => &mut report.unchanged,
                Some(_) => &mut report.changed,
            };
            list.push(connection.name.clone());
        }
        let gone = old.iter().filter(|c| !kept.contains(c.name.as_str()));
        report.removed.extend(gone.map(|c| c.name.clone()));
        report
    }
}

impl Waiter {
    fn met(&self, endpoint: &Endpoint, now: Instant) -> bool {
        match &self.goal {
            // Without children, the IKE SA is all there is.
            Goal::Up {
                connection,
                children,
            } if children.is_empty() => endpoint.is_established(connection, None),
            Goal::Up {
                connection,
                children,
            } => children
                .iter()
                .all(|child| endpoint.is_established(connection, Some(child))),
            Goal::Down { targets, .. } => standing(endpoint, now, targets).is_empty(),
        }
    }

    fn success(&self, now: Instant) -> Reply {
        match &self.goal {
            Goal::Up {
                connection,
                children,
            } => {
                let took = now.saturating_duration_since(self.started).as_millis();
                Reply::done(&UpReport {
                    connection: connection.clone(),
                    children: children.clone(),
                    took_ms: u64::try_from(took).unwrap_or(u64::MAX),
                })
            }
            Goal::Down { closed, .. } => Reply::done(&DownReport {
                closed: closed.clone(),
            }),
        }
    }

    /// Whether it is for children of this connection to come up.
    pub(super) fn waits_for(&self, connection: &str) -> bool {
        self.concerns(Some(connection), None)
    }

    fn concerns(&self, failed: Option<&str>, failed_child: Option<&str>) -> bool {
        match &self.goal {
            Goal::Up {
                connection,
                children,
            } => {
                failed == Some(connection)
                    && failed_child.is_none_or(|name| children.iter().any(|c| c == name))
            }
            Goal::Down { .. } => false,
        }
    }
}

fn waiter(call: Call, goal: Goal, now: Instant, timeout_ms: u64) -> Waiter {
    let timeout = Duration::from_millis(timeout_ms.min(3_600_000));
    Waiter {
        call,
        goal,
        started: now,
        deadline: now + timeout,
    }
}

/// Everything that stands and belongs to the targets, as `CONNECTION` or `CONNECTION/CHILD`.
fn standing(endpoint: &Endpoint, now: Instant, targets: &[DownTarget]) -> Vec<String> {
    let each = targets.iter();
    each.flat_map(|target| standing_of(endpoint, now, target))
        .collect()
}

fn standing_of(endpoint: &Endpoint, now: Instant, target: &DownTarget) -> Vec<String> {
    let (connection, child) = match target {
        DownTarget::All => {
            let all = endpoint.status(now).into_iter();
            let mut names: Vec<_> = all.map(|sa| sa.connection.unwrap_or_default()).collect();
            names.dedup();
            return names;
        }
        DownTarget::Connection(connection) | DownTarget::Whole(connection) => (connection, None),
        DownTarget::Child { connection, child } => (connection, Some(child)),
    };
    let stands = endpoint.has(connection, child.map(String::as_str));
    let name = match child {
        None => connection.clone(),
        Some(child) => format!("{connection}/{child}"),
    };
    stands.then_some(name).into_iter().collect()
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let list = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    Failure::new(
        ExitClass::Usage,
        format!("there is no {what} {name:?}; configured: {list}"),
    )
}
