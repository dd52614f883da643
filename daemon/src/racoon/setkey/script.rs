//! What a script does to the policies that there are.
//!
//! All of it is read before any of it is done. A script that cannot be read opens nothing: then
//! only those of its lines before the mistake are done that protect.

use super::policy::Action;
use super::statement::{self, PolicyLine, Statement};
use super::store::{Store, Stored};
use super::text::{self, Words, Wrong};
use crate::racoon::names::Names;

/// What came of a script.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The policies from now on.
    pub(crate) store: Store,
    /// SAs are to be closed.
    pub(crate) flushes_sas: bool,
    /// What is to be listed.
    pub(crate) lists: Vec<List>,
    /// What is to be said, a line each.
    pub(crate) said: Vec<String>,
    /// A line was not done.
    pub(crate) failed: bool,
    /// It cannot be read whole.
    pub(crate) broken: bool,
}

/// What a script wants listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum List {
    Policies,
    Sas,
}

struct Run<'a> {
    file: &'a str,
    /// Where lines end.
    newlines: Vec<usize>,
    now: u64,
    outcome: Outcome,
}

/// Does what a script called `file` says; `now` is in seconds since 1970.
pub(crate) fn run(store: &Store, names: &Names, file: &str, text: &str, now: u64) -> Outcome {
    let mut run = Run {
        file,
        newlines: text.match_indices('\n').map(|(at, _)| at).collect(),
        now,
        outcome: Outcome {
            store: store.clone(),
            flushes_sas: false,
            lists: Vec::new(),
            said: Vec::new(),
            failed: false,
            broken: false,
        },
    };
    if text.contains("\r\n") {
        run.say("notice: lines end in a carriage return, which is left out".to_owned());
    }
    let (statements, wrong) = text::split(text);
    let mut good = Vec::new();
    let mut mistake = None;
    for words in &statements {
        let broken = wrong
            .iter()
            .find(|wrong| words.span.contains(&wrong.span.start));
        // What is no statement lacks more than its end.
        let earlier =
            |other: &Wrong| broken.is_none_or(|broken| other.span.start <= broken.span.start);
        match (statement::read(names, words), broken) {
            (Err(wrong), _) if earlier(&wrong) => mistake = Some(wrong),
            (_, Some(broken)) => mistake = Some(broken.clone()),
            (Err(wrong), None) => mistake = Some(wrong),
            (Ok(Statement::Exit), None) => break,
            (Ok(statement), None) => good.push((words, statement)),
        }
        if mistake.is_some() {
            break;
        }
    }
    if let Some(wrong) = mistake {
        run.mistake(&wrong);
        good.retain(|(_, statement)| protects(statement));
    }
    for (words, statement) in good {
        run.one(words, statement);
    }
    run.outcome
}

fn protects(statement: &Statement) -> bool {
    match statement {
        Statement::Add(policy) => !policy.update && policy.action != Action::Pass,
        _ => false,
    }
}

impl Run<'_> {
    fn say(&mut self, line: String) {
        self.outcome.said.push(line);
    }

    fn line(&self, at: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < at)
    }

    fn mistake(&mut self, wrong: &Wrong) {
        let line = self.line(wrong.span.start);
        self.say(format!("line {line}: {}", wrong.message));
        self.say(format!("parse failed, line {line}."));
        self.say(format!("{}:{line}: {}", self.file, wrong.fix));
        (self.outcome.failed, self.outcome.broken) = (true, true);
    }

    fn refuse(&mut self, words: &Words, why: &str) {
        let line = self.line(words.span.start);
        self.say(format!("The result of line {line}: {why}."));
        self.outcome.failed = true;
    }

    fn explain(&mut self, wrong: &Wrong, what: &str) {
        let line = self.line(wrong.span.start);
        let Wrong { message, fix, .. } = wrong;
        self.say(format!("{}:{line}: {message}: {fix}{what}", self.file));
    }

    fn one(&mut self, words: &Words, statement: Statement) {
        match statement {
            Statement::Add(policy) => self.add(words, policy),
            Statement::Delete(key) => match self.outcome.store.find(&key) {
                Some(at) => drop(self.outcome.store.policies.remove(at)),
                None => self.say("No entry.".to_owned()),
            },
            Statement::FlushPolicies => self.outcome.store.policies.clear(),
            Statement::FlushSas => self.outcome.flushes_sas = true,
            Statement::DumpPolicies => self.outcome.lists.push(List::Policies),
            Statement::DumpSas => self.outcome.lists.push(List::Sas),
            Statement::AddSa(manual) => {
                self.refuse(words, "Invalid argument");
                self.explain(&manual.refused, "");
            }
            Statement::OneSa => self.say("No entry.".to_owned()),
            Statement::Exit => {}
        }
    }

    fn add(&mut self, words: &Words, policy: PolicyLine) {
        for notice in &policy.notices {
            self.explain(notice, "");
        }
        let found = self.outcome.store.find(&policy.key);
        if found.is_some() && !policy.update {
            return self.refuse(words, "File exists");
        }
        let action = match &policy.refused {
            None => policy.action,
            Some(wrong) => {
                self.refuse(words, "Invalid argument");
                self.explain(wrong, "; what the line names is dropped until then");
                Action::Discard
            }
        };
        let stored = Stored {
            key: policy.key,
            priority: policy.priority,
            action,
            spid: self.outcome.store.number(policy.key.direction),
            created: self.now,
            file: self.file.to_owned(),
            line: self.line(words.span.start),
        };
        let policies = &mut self.outcome.store.policies;
        match found.and_then(|at| policies.get_mut(at)) {
            Some(old) => *old = stored,
            None => policies.push(stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = include_str!("../tests/mongodb.conf");

    fn after(store: &Store, text: &str) -> Outcome {
        run(
            store,
            &Names::for_tests(),
            "/etc/m.conf",
            text,
            1_772_366_400,
        )
    }

    fn loaded(text: &str) -> Store {
        let outcome = after(&Store::default(), text);
        assert!(!outcome.failed, "{:?}", outcome.said);
        outcome.store
    }

    #[test]
    fn r_a11_the_same_file_twice() {
        let store = loaded(STORY);
        assert_eq!(store.policies.len(), 4);
        let again = after(&store, STORY);
        let lines: Vec<String> = (1..=4)
            .map(|n| format!("The result of line {n}: File exists."))
            .collect();
        assert_eq!(again.said, lines);
        assert!(again.failed);
        assert_eq!(again.store.policies, store.policies);
    }

    #[test]
    fn r_a11_a_mistake_opens_nothing() {
        let store = loaded(STORY);
        let text = "flush; spdflush;\nspdadd 10.1.0.1 10.1.0.2 any -P out discard;\nspdadd 10.2.0.1 10.2.0.2 any -P out none;\nspdadd 10.0.0.0/16 10.0.0.0/16[27017 tcp -P out discard;\nspdadd ::1 ::2 any -P out discard;";
        let outcome = after(&store, text);
        assert_eq!(
            outcome.said[..2],
            [
                "line 4: syntax error at [10.0.0.0/16[27017]",
                "parse failed, line 4."
            ]
        );
        assert!(
            outcome.said[2].starts_with("/etc/m.conf:4: "),
            "{:?}",
            outcome.said
        );
        assert!(outcome.failed && !outcome.flushes_sas);
        assert_eq!(outcome.store.policies.len(), 5);
        assert_eq!(outcome.store.policies[4].action, Action::Discard);
        assert!(after(&store, "spdflush; spdflush").failed);
        // What is wrong first is told, and not that its end is missing too.
        for (text, said) in [
            ("spdflush", "line 1: the last statement has no end"),
            ("conn x\n left=10.0.0.1\n", "line 1: syntax error at [conn]"),
            ("spdflush;\n}{", "line 2: syntax error at [}{]"),
        ] {
            assert_eq!(after(&store, text).said[0], said);
        }
    }

    #[test]
    fn r_a11_carriage_returns_and_a_first_line_for_the_system() {
        let text = format!("#!/usr/sbin/setkey -f\nspdflush;\n{STORY}").replace('\n', "\r\n");
        let outcome = after(&loaded(STORY), &text);
        assert!(!outcome.failed, "{:?}", outcome.said);
        assert!(outcome.said[0].contains("carriage return"));
        assert_eq!(outcome.store.policies.len(), 4);
        assert_eq!(outcome.store.policies[0].line, 3);
    }

    #[test]
    fn r_a9_what_cannot_be_had_is_dropped() {
        let text = "spdadd 10.0.0.1 10.0.0.2 any -P out ipsec ah/transport//require;";
        let outcome = after(&Store::default(), text);
        assert!(outcome.failed);
        assert_eq!(outcome.said[0], "The result of line 1: Invalid argument.");
        assert!(
            outcome.said[1].contains("obol has no AH"),
            "{:?}",
            outcome.said
        );
        assert_eq!(outcome.store.policies[0].action, Action::Discard);
    }

    #[test]
    fn policies_are_deleted_and_replaced() {
        let store = loaded("spdadd 10.0.0.1 10.0.0.2 any -P out discard;");
        let gone = after(
            &store,
            "spddelete 10.0.0.1 10.0.0.2 any -P out; spddelete 10.0.0.1 10.0.0.2 any -P in;",
        );
        assert_eq!(
            (gone.said, gone.failed),
            (vec!["No entry.".to_owned()], false)
        );
        assert!(gone.store.policies.is_empty());
        let text = "spdupdate 10.0.0.1 10.0.0.2 any -P out none; spddump; dump; exit; nonsense;";
        let new = after(&store, text);
        assert_eq!(new.lists, [List::Policies, List::Sas]);
        assert_eq!(new.store.policies[0].action, Action::Pass);
        assert_ne!(new.store.policies[0].spid, store.policies[0].spid);
    }

    #[test]
    fn a_store_is_read_as_it_was_written() {
        let text = format!("{STORY}
            spdadd ::/0 ::/0 icmp6 135,0 -P out none;
            spdadd fd00::1 fd00::/8[53] udp -P in prio high + 10 discard;
            spdadd 10.1.0.0/16 10.2.0.0/16 any -P out prio 7 ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;
            spdadd 10.3.0.1 10.3.0.2 icmp 8 -P in ipsec esp/transport//unique;");
        let store = loaded(&text);
        let directory = std::env::temp_dir().join(format!("obol-store-{}", std::process::id()));
        let path = directory.join("setkey.conf");
        assert_eq!(Store::load(&path).unwrap(), Store::default());
        store.save(&path).unwrap();
        assert_eq!(Store::load(&path).unwrap(), store);
        std::fs::write(&path, "flush;").unwrap();
        assert!(Store::load(&path).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
