//! `conn` sections with `also=`, `alsoflip=` and `%default` become connections that stand alone.

use std::collections::{HashMap, HashSet};

use super::files::{Entry, Section};
use super::keyword::{Key, Side};
use crate::config::{Located, Place, Report};

/// A connection with everything that it inherits.
#[derive(Debug)]
pub(crate) struct Flat {
    /// Its name.
    pub(crate) name: Located<String>,
    /// Its parameters: first its own in the order of the text, then what it inherits.
    pub(crate) entries: Vec<Entry>,
    /// What is wrong with it: the connection is refused, all others are not.
    pub(crate) errors: Vec<Problem>,
    /// What is allowed but worth a line.
    pub(crate) notices: Vec<Problem>,
    /// Others inherit from it.
    is_base: bool,
}

/// Something about one line.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// Where.
    pub(crate) place: Place,
    /// Another place that has to do with it.
    pub(crate) other: Option<Place>,
    /// What it is.
    pub(crate) message: String,
    /// What to change.
    pub(crate) fix: String,
}

impl Problem {
    /// One with a place.
    pub(crate) fn new(place: &Place, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            other: None,
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// The same with another place.
    pub(crate) fn beside(self, other: &Place) -> Self {
        Self {
            other: Some(other.clone()),
            ..self
        }
    }
}

/// What the name of the section with defaults is.
pub(super) const DEFAULT: &str = "%default";

/// All `conn` sections but `%default`, or the one of this name, flat, in the order of the files.
pub(crate) fn flatten(report: &Report<'_>, sections: &[Section], only: Option<&str>) -> Vec<Flat> {
    let mut book = Book::default();
    let mut conns = Vec::new();
    for section in sections {
        match &section.name {
            None => {}
            Some(name) if name.value == DEFAULT => book.add_defaults(report, section),
            Some(name) => {
                let first = *book.by_name.entry(name.value.as_str()).or_insert(section);
                book.bases
                    .extend(section.targets().map(|(target, _)| target));
                conns.push((
                    name,
                    section,
                    (!std::ptr::eq(first, section)).then_some(first),
                ));
            }
        }
    }
    let wanted = conns
        .into_iter()
        .filter(|(name, ..)| only.is_none_or(|only| name.value == only));
    wanted
        .map(|(name, section, twin)| book.flat(name, section, twin))
        .collect()
}

/// What connections inherit from.
#[derive(Default)]
struct Book<'s> {
    by_name: HashMap<&'s str, &'s Section>,
    /// Names that some `also=` has.
    bases: HashSet<&'s str>,
    defaults: Vec<&'s Entry>,
}

impl<'s> Book<'s> {
    /// Several such sections add up, and the last value of a keyword counts.
    fn add_defaults(&mut self, report: &Report<'_>, section: &'s Section) {
        for entry in &section.entries {
            if let "also" | "alsoflip" = entry.key.keyword.word {
                report.error(
                    &entry.written.place,
                    format!("{}= is not allowed in conn {DEFAULT}", entry.written.value),
                    "write its parameters out",
                );
                continue;
            }
            let slot = entry.key.slot();
            self.defaults.retain(|other| other.key.slot() != slot);
            self.defaults.push(entry);
        }
    }

    fn flat(&self, name: &Located<String>, section: &'s Section, twin: Option<&Section>) -> Flat {
        let mut gathered = Gathered::default();
        if let Some(twin) = twin {
            let message = format!("conn {} is there twice", name.value);
            let problem = Problem::new(&name.place, message, "rename one of them");
            gathered.errors.push(problem.beside(&twin.place));
        }
        self.inherit(&mut gathered, name, section);
        for entry in &self.defaults {
            gathered.add_default(entry);
        }
        Flat {
            name: name.clone(),
            entries: gathered.entries,
            errors: gathered.errors,
            notices: gathered.notices,
            is_base: self.bases.contains(name.value.as_str()),
        }
    }

    /// The section's own parameters, then those of each `also=` with what it inherits, each
    /// section once.
    fn inherit(&self, gathered: &mut Gathered, name: &Located<String>, section: &'s Section) {
        let mut seen = HashSet::from([(name.value.as_str(), false)]);
        let mut waiting = vec![(section, false)];
        let mut is_own = true;
        while let Some((section, flipped)) = waiting.pop() {
            gathered.add(section, flipped, is_own);
            is_own = false;
            let mut targets = Vec::new();
            for (target, entry) in section.targets() {
                let Some((known, found)) = self.by_name.get_key_value(target) else {
                    let message = format!(
                        "cannot find conn '{target}' needed by conn '{}'",
                        name.value
                    );
                    let fix = "correct the name, or include the file that has it";
                    let problem = Problem::new(&entry.value.place, message, fix);
                    gathered.errors.push(problem);
                    continue;
                };
                let flips = flipped != (entry.key.keyword.word == "alsoflip");
                if seen.insert((*known, flips)) {
                    targets.push((*found, flips));
                }
            }
            waiting.extend(targets.into_iter().rev());
        }
    }
}

/// A connection on its way.
#[derive(Default)]
struct Gathered {
    entries: Vec<Entry>,
    /// The entry that has each slot, and whether the connection itself set it.
    slots: HashMap<(Option<Side>, &'static str), Place>,
    errors: Vec<Problem>,
    notices: Vec<Problem>,
}

impl Gathered {
    fn add(&mut self, section: &Section, flipped: bool, is_own: bool) {
        // Within a section the first value counts, but for `auto`.
        let mut here: HashMap<_, usize> = HashMap::new();
        for entry in &section.entries {
            let word = entry.key.keyword.word;
            if matches!(word, "also" | "alsoflip") {
                continue;
            }
            let key = if flipped {
                entry.key.flipped()
            } else {
                entry.key
            };
            let slot = key.slot();
            let entry = Entry {
                key,
                ..entry.clone()
            };
            if let Some(&at) = here.get(&slot) {
                self.repeat(at, entry);
            } else if let Some(first) = self.slots.get(&slot) {
                if !is_own {
                    let message = format!(
                        "{} of conn {} is not used",
                        entry.written.value,
                        section.name.as_ref().map_or("", |name| &name.value)
                    );
                    let fix = "the connection's own value, or that of an earlier also=, counts";
                    let problem = Problem::new(&entry.written.place, message, fix);
                    self.notices.push(problem.beside(first));
                }
            } else {
                here.insert(slot, self.entries.len());
                self.slots.insert(slot, entry.written.place.clone());
                self.entries.push(entry);
            }
        }
    }

    /// A keyword that is there a second time in one section.
    fn repeat(&mut self, at: usize, entry: Entry) {
        match entry.key.keyword.word {
            "subnets" | "connalias" => self.entries.push(entry),
            "auto" => self.entries[at] = entry,
            _ => {
                let first = &self.entries[at];
                let message = format!(
                    "ignoring duplicate conn keyword: {}={}",
                    entry.written.value, entry.value.value
                );
                let problem =
                    Problem::new(&entry.written.place, message, "remove one of the two lines");
                self.notices.push(problem.beside(&first.written.place));
            }
        }
    }

    fn add_default(&mut self, entry: &Entry) {
        if !self.slots.contains_key(&entry.key.slot()) {
            self.entries.push(entry.clone());
        }
    }
}

impl Section {
    /// What it inherits from, with the line that says so.
    fn targets(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let inherits = |entry: &&Entry| matches!(entry.key.keyword.word, "also" | "alsoflip");
        let entries = self.entries.iter().filter(inherits);
        entries.flat_map(|entry| {
            let words = entry.value.value.split_whitespace();
            words.map(move |word| (word, entry))
        })
    }
}

impl Flat {
    /// The end that is not there, where nothing but others' `also=` needs the connection: it is only
    /// a part of those.
    pub(crate) fn lacks_end(&self) -> Option<Side> {
        let auto = self.get(None, "auto").map(|auto| &*auto.value.value);
        let ignored = auto.is_none_or(|auto| auto.eq_ignore_ascii_case("ignore"));
        let mut sides = Side::BOTH.into_iter();
        let lacking = sides.find(|side| self.get(Some(*side), "").is_none());
        lacking.filter(|_| self.is_base && ignored)
    }

    /// The one value of a keyword.
    pub(crate) fn get(&self, side: Option<Side>, word: &str) -> Option<&Entry> {
        self.all(side, word).next()
    }

    /// All values of a keyword that may be repeated.
    pub(crate) fn all(&self, side: Option<Side>, word: &str) -> impl Iterator<Item = &Entry> {
        let is_it = move |key: Key| key.side == side && key.keyword.word == word;
        self.entries.iter().filter(move |entry| is_it(entry.key))
    }
}

impl Problem {
    /// As people read it.
    pub(crate) fn finding(self, report: &Report<'_>) -> crate::config::Finding {
        let finding = report.finding(&self.place, self.message, self.fix);
        match self.other {
            Some(other) => report.beside(finding, &other),
            None => finding,
        }
    }
}
