//! Which connections of pluto's files are to be in force: those that can be had and, of those that cannot
//! any more, what they were before.

use super::{Loader, TRANSLATION, usable, usable_shunt};
use crate::config::{ConfigErrors, Finding};
use crate::control::protocol::Absence;
use crate::pluto::Understood;
use crate::pluto::conn::{Auto, Conn};
use crate::pluto::former::InForce;
use crate::pluto::native;
use crate::pluto::orient::{HostView, Oriented, orient};
use crate::pluto::setup::Setup;

impl<'w> Loader<'w> {
    /// Why a connection is not in force, by its own word and what somebody asked for.
    pub(super) fn why_not(&self, conn: &Conn) -> Option<(Absence, &'static str)> {
        let name = &conn.name.value;
        if self.deleted.contains(name) {
            return Some((Absence::Ignored, "it was taken out while it waited"));
        }
        why_not(conn, self.wanted.contains(name), self.routed.contains(name))
    }

    fn former(&self, name: &str) -> Option<&'w InForce> {
        self.occasion.world()?.former.get(name)
    }

    /// The connections that are to be in force: those that were before come first.
    pub(super) fn choose<'c>(
        &mut self,
        understood: &'c Understood,
        view: &HostView,
    ) -> Vec<Oriented<'c>>
    where
        'w: 'c,
    {
        let before = self.occasion.world();
        let mut chosen: Vec<Oriented<'c>> = Vec::new();
        let occasion = self.occasion;
        let left = |own: &Self, name: &str| -> Option<&'w InForce> {
            own.former(name).filter(|former| former.is_left(occasion))
        };
        if let Some(before) = occasion.beside() {
            let all = before.former.all();
            let all = all.filter(|former| former.is_left(occasion));
            chosen.extend(all.map(|former| former.seen(view)));
            let kept = before.kept.iter();
            let kept = kept.filter(|(name, _)| left(self, name).is_some());
            let kept = kept.map(|(name, why)| (name.clone(), why.clone()));
            self.world.kept = kept.collect();
        }
        for (name, errors) in &understood.refused {
            if left(self, name).is_some() {
                continue;
            }
            for error in errors {
                self.keep_or_refuse(name, error.clone());
            }
            chosen.extend(self.former(name).map(InForce::as_it_was));
        }
        for conn in &understood.conns {
            let name = &conn.name.value;
            // Nobody asked for what is new in the files.
            let is_new = occasion.leaves(name, &conn.aliases)
                && before.is_some_and(|before| !before.others.contains_key(name));
            if !is_new && left(self, name).is_none() {
                chosen.extend(self.choose_one(conn, understood, view));
            }
        }
        if let Some(before) = before {
            chosen.sort_by_key(|conn| before.former.place(&conn.conn.name.value));
        }
        chosen
    }

    fn choose_one<'c>(
        &mut self,
        conn: &'c Conn,
        understood: &Understood,
        view: &HostView,
    ) -> Option<Oriented<'c>>
    where
        'w: 'c,
    {
        let name = &conn.name.value;
        if let Some((kind, why)) = self.why_not(conn) {
            self.leave_out(conn, kind, why.to_owned());
            return None;
        }
        let former = self.former(name);
        let oriented = match orient(conn, view) {
            Ok(oriented) => oriented,
            Err(why) => match former.and_then(|former| former.instead_of(conn)) {
                Some(oriented) => {
                    let finding = understood.finding(&conn.name, why.to_string(), "");
                    self.keep_or_refuse(name, finding);
                    oriented
                }
                None => {
                    self.leave_out(conn, Absence::Unoriented, why.to_string());
                    return None;
                }
            },
        };
        if let Some(peer) = oriented.unresolved()
            && former.is_none()
        {
            let why = format!("{peer} has no address now");
            let effect = match usable_shunt(&oriented) {
                Ok(()) => "its packets are dropped until it has one",
                Err(_) => "which packets to protect is not known before it has one",
            };
            let text = format!("{name} waits: {why}, and {effect}");
            let fix = "write an address, or see that the name is known; it is looked up again";
            self.warnings
                .push(understood.finding(&conn.name, text, fix));
            self.leave_out(conn, Absence::Unresolved, why);
            return usable_shunt(&oriented).is_ok().then_some(oriented);
        }
        match self.ring.has_named(&oriented).and(usable(&oriented)) {
            Ok(()) => Some(oriented),
            Err((why, fix)) => {
                let finding = understood.finding(&conn.name, why, fix);
                self.keep_or_refuse(name, finding);
                former.map(InForce::as_it_was)
            }
        }
    }

    /// What cannot be had beside the others is left out if it is new, and otherwise stays as it was.
    ///
    /// # Errors
    /// Nothing of that would help.
    pub(super) fn settle<'c>(
        &mut self,
        errors: ConfigErrors,
        conns: &mut Vec<Oriented<'c>>,
        lines: &[(usize, Vec<String>)],
        understood: &Understood,
    ) -> Result<(), ConfigErrors>
    where
        'w: 'c,
    {
        let culprits: Vec<(Vec<String>, Finding)> = errors
            .0
            .iter()
            .filter_map(|error| Some((whose(&error.location, lines)?, error.clone())))
            .collect();
        if culprits.len() < errors.0.len() || culprits.is_empty() {
            return Err(errors);
        }
        let of = |place: Option<&String>| place.and_then(|place| whose(place, lines));
        for (names, error) in culprits {
            let others = of(error.also.as_ref()).unwrap_or_default();
            let exchanged = exchanged(&error);
            // The error as it is about one connection, and as it is about the other one.
            let sides = [(&names, &error), (&others, &exchanged)];
            let new = |names: &[String]| -> Vec<String> {
                let new = names.iter().filter(|name| self.former(name).is_none());
                new.cloned().collect()
            };
            let mut leave = sides.iter().map(|(names, error)| (new(names), *error));
            if let Some((leave, error)) = leave.find(|(new, _)| !new.is_empty()) {
                conns.retain(|conn| !leave.contains(&conn.conn.name.value));
                let error = in_files(error, &leave, lines, understood);
                self.refuse(&leave.join(", "), error);
                continue;
            }
            let mut is_other = false;
            for conn in conns.iter_mut() {
                let name = &conn.conn.name.value;
                let side = sides.iter().find(|(names, _)| names.contains(name));
                if let Some((names, error)) = side
                    && let Some(former) = self.former(name).map(InForce::as_it_was)
                    && !is_same(&former, conn)
                {
                    is_other = true;
                    let error = in_files(error, names, lines, understood);
                    self.keep_or_refuse(name, error);
                    *conn = former;
                }
            }
            if !is_other {
                return Err(errors);
            }
        }
        Ok(())
    }

    /// Says that a connection stays as it was or, if it was not, that it is refused.
    fn keep_or_refuse(&mut self, name: &str, mut finding: Finding) {
        if self.former(name).is_none() {
            return self.refuse(name, finding);
        }
        let why = finding.message.clone();
        finding.message = format!("{name} stays as it was: {why}");
        self.warnings.push(finding);
        self.world.kept.entry(name.to_owned()).or_insert(why);
    }
}

/// Why a connection is not in force by its own word, if it is not. Who is asked for may be `wanted` in spite of
/// `auto=ignore`, or `routed` in spite of `auto=add`.
pub(crate) fn why_not(conn: &Conn, wanted: bool, routed: bool) -> Option<(Absence, &'static str)> {
    if conn.auto == Auto::Ignore && !wanted {
        return Some((Absence::Ignored, "auto=ignore"));
    }
    let waits = conn.is_shunt() && conn.auto == Auto::Add && !routed;
    waits.then_some((Absence::Unrouted, "it is not routed (auto=add)"))
}

/// An error about two connections, said of the other one.
fn exchanged(error: &Finding) -> Finding {
    let mut exchanged = error.clone();
    if let Some(also) = &mut exchanged.also {
        std::mem::swap(also, &mut exchanged.location);
    }
    exchanged
}

/// Whether two connections are the same in obol's words.
fn is_same(one: &Oriented<'_>, other: &Oriented<'_>) -> bool {
    let text =
        |conn: &Oriented<'_>| native::translate(&Setup::default(), std::slice::from_ref(conn)).text;
    text(one) == text(other)
}

/// An error about two connections, at their places in pluto's files.
fn in_files(
    error: &Finding,
    names: &[String],
    lines: &[(usize, Vec<String>)],
    understood: &Understood,
) -> Finding {
    let conn = |names: &[String]| {
        let mut conns = understood.conns.iter();
        conns.find(|conn| names.contains(&conn.name.value))
    };
    let others = error.also.as_ref().and_then(|also| whose(also, lines));
    let both = conn(names).zip(others.and_then(|others| conn(&others)));
    let Some((own, other)) = both else {
        return error.clone();
    };
    let message = format!("conn {} is in its way: {}", other.name.value, error.message);
    let mut finding = understood.finding(&own.name, message, &error.fix);
    finding.also = Some(understood.location(&other.name));
    finding
}

/// The connections that a place in the translation is about.
fn whose(location: &str, lines: &[(usize, Vec<String>)]) -> Option<Vec<String>> {
    let place = location.strip_prefix(TRANSLATION)?.strip_prefix(':')?;
    let line: usize = place.split(':').next()?.parse().ok()?;
    let before = lines.iter().rev().find(|(from, _)| *from <= line)?;
    Some(before.1.clone())
}
