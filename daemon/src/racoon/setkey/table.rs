//! The policies that scripts leave behind: what would be in the kernel.

use super::policy::{Action, Priority};
use super::statement::{Key, PolicyLine, Statement};
use super::text::Wrong;
use super::{Line, place};
use crate::config::{Place, Report};

/// Policies in the order in which they are loaded.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// `None` was deleted.
    entries: Vec<Option<Entry>>,
    by_key: std::collections::HashMap<KeyHash, usize>,
}

/// A policy, and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// What it is about.
    pub(crate) key: Key,
    /// Which of several decides.
    pub(crate) priority: Priority,
    /// What happens.
    pub(crate) action: Action,
    /// Where it was written.
    pub(crate) place: Place,
}

type KeyHash = (
    obol_ike::ts::TrafficSelector,
    obol_ike::ts::TrafficSelector,
    u8,
);

impl Table {
    /// These, in this order.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let mut table = Self::default();
        for entry in entries {
            table.by_key.insert(hash(&entry.key), table.entries.len());
            table.entries.push(Some(entry));
        }
        table
    }

    /// Does what a script says. What cannot be done is reported.
    pub(crate) fn run(&mut self, report: &Report<'_>, lines: &[Line]) {
        for line in lines {
            match &line.statement {
                Statement::Add(policy) => self.add(report, policy, &line.place),
                Statement::Delete(key) => self.delete(report, key, &line.place),
                Statement::FlushPolicies => {
                    self.entries.clear();
                    self.by_key.clear();
                }
                Statement::AddSa(manual) => {
                    tell(report, &line.place, &manual.refused);
                }
                Statement::DumpPolicies
                | Statement::OneSa
                | Statement::FlushSas
                | Statement::DumpSas
                | Statement::Exit => {}
            }
        }
    }

    /// The policies: those that decide first come first.
    pub(crate) fn in_order(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        entries.sort_by_key(|entry| entry.priority);
        entries
    }

    fn add(&mut self, report: &Report<'_>, policy: &PolicyLine, place: &Place) {
        for notice in &policy.notices {
            let place = self::place(place.source, notice);
            report.warn(&place, &notice.message, &notice.fix);
        }
        if let Some(refused) = &policy.refused {
            tell(report, place, refused);
            return;
        }
        let entry = Entry {
            key: policy.key,
            priority: policy.priority,
            action: policy.action.clone(),
            place: place.clone(),
        };
        match self.by_key.get(&hash(&policy.key)) {
            Some(at) if policy.update => {
                if let Some(old) = self.entries.get_mut(*at) {
                    *old = Some(entry);
                }
            }
            Some(at) => {
                let old = self.entries.get(*at).and_then(Option::as_ref);
                let fix = match old.is_some_and(|old| old.action == entry.action) {
                    true => "remove one of them, or begin the script with spdflush;",
                    false => "remove one of them: they contradict each other",
                };
                let message = "File exists: there is a policy for the same packets";
                report.clash(place, old.map_or(place, |old| &old.place), message, fix);
            }
            None => {
                self.by_key.insert(hash(&policy.key), self.entries.len());
                self.entries.push(Some(entry));
            }
        }
    }

    fn delete(&mut self, report: &Report<'_>, key: &Key, place: &Place) {
        match self.by_key.remove(&hash(key)) {
            None => report.warn(
                place,
                "No entry: there is no such policy",
                "remove the line",
            ),
            Some(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    *entry = None;
                }
            }
        }
    }
}

fn tell(report: &Report<'_>, line: &Place, wrong: &Wrong) {
    let place = place(line.source, wrong);
    report.error(&place, &wrong.message, &wrong.fix);
}

fn hash(key: &Key) -> KeyHash {
    (key.src, key.dst, key.direction as u8)
}
