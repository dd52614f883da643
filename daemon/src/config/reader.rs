//! Tables of a TOML text with the place of every value. Each question names a key, so what is
//! left over at the end was misspelt.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Located, Place, Report};
use super::write::fits_name;

/// Misspelt keys are told the nearest one if it is at least this similar (Jaro-Winkler).
const SIMILAR: f64 = 0.75;

/// Keys of swanctl and other programs that have no place here, and what to do about them.
const FOREIGN: &[(&str, &str)] = &[
    ("version", "obol speaks IKEv2 only: remove the line"),
    ("fragmentation", "remove the line"),
    (
        "uniqueids",
        "write unique = \"no\", \"never\", \"replace\" or \"keep\" in a connection",
    ),
    (
        "dpd_timeout",
        "write dpd_retry and dpd_tries in its place: it is dead after so many times as long",
    ),
    (
        "certs",
        "this version knows raw public keys only: write pubkeys",
    ),
    (
        "cacerts",
        "this version knows raw public keys only: write pubkeys",
    ),
    ("left", "write local_addrs"),
    ("right", "write remote_addrs"),
    ("leftsubnet", "write local_ts"),
    ("rightsubnet", "write remote_ts"),
    ("leftid", "write local = { auth = …, id = … }"),
    ("rightid", "write remote = { auth = …, id = … }"),
    ("ike", "write proposals"),
    ("esp", "write esp_proposals"),
];

/// One table, and which of its keys were asked for.
pub(crate) struct Section<'a> {
    report: &'a Report<'a>,
    table: &'a DeTable<'a>,
    /// Its name for messages, as in a header: `connections.hosts`; empty for the whole file.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) place: Place,
    /// Where in the source the text begins that the table was read from.
    base: usize,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The top level of a text.
    pub(crate) fn root(
        report: &'a Report<'a>,
        (source, base): (usize, usize),
        table: &'a Spanned<DeTable<'a>>,
    ) -> Self {
        Self {
            report,
            table: table.get_ref(),
            name: String::new(),
            place: Place { source, span: 0..0 },
            base,
            known: RefCell::default(),
        }
    }

    /// The value of a key, and a note that the key is known.
    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn at<T>(&self, spanned: &Spanned<T>) -> Place {
        Place {
            source: self.place.source,
            span: shifted(spanned.span(), self.base),
        }
    }

    /// Whether a key is there; does not make it known.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// All keys that are there, in no order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Located<&str>> {
        self.table.iter().map(|(key, _)| Located {
            value: key.get_ref().as_ref(),
            place: self.at(key),
        })
    }

    /// A string.
    pub(crate) fn string(&self, key: &'static str) -> Option<Located<&'a str>> {
        let value = self.value(key)?;
        self.expect_string(key, value)
    }

    fn expect_string(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Located<&'a str>> {
        match value.get_ref().as_str() {
            Some(text) => Some(Located {
                value: text,
                place: self.at(value),
            }),
            None => {
                self.wrong_type(key, value, "a string", "put it in quotes");
                None
            }
        }
    }

    /// A list of strings; `None` where the key is not there or not such a list.
    pub(crate) fn strings(&self, key: &'static str) -> Option<Vec<Located<&'a str>>> {
        let value = self.value(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let fix = match value.get_ref() {
                DeValue::String(text) => format!("write {key} = [\"{}\"]", shorten(text)),
                _ => format!("write {key} = [\"…\"]"),
            };
            self.wrong_type(key, value, "a list of strings", &fix);
            return None;
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            texts.push(self.expect_string(key, item)?);
        }
        if texts.is_empty() {
            self.report.error(
                &self.at(value),
                format!("{key} is an empty list"),
                "put something in, or remove the line for the default",
            );
            return None;
        }
        Some(texts)
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(key, value, "true or false", "write it without quotes");
        }
        boolean
    }

    /// An integer within a range.
    pub(crate) fn integer(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let value = self.value(key)?;
        let (low, high) = (range.start(), range.end());
        let Some(integer) = value.get_ref().as_integer() else {
            let fix = format!("write a number from {low} to {high}, without quotes");
            self.wrong_type(key, value, "a whole number", &fix);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(Located {
                value: number,
                place: self.at(value),
            }),
            _ => {
                self.report.error(
                    &self.at(value),
                    format!("{key} = {integer} is out of range"),
                    format!("write a number from {low} to {high}"),
                );
                None
            }
        }
    }

    /// A number with a fraction, within a range.
    pub(crate) fn float(&self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(key)?;
        let number: Option<f64> = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.report.error(
                &self.at(value),
                format!("{key} is no number in its range"),
                format!("write a number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    /// A value that may be written as an integer or as a string with a unit.
    pub(crate) fn quantity<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            _ => {
                self.wrong_type(
                    key,
                    value,
                    "a quantity",
                    "write a number, or a string like \"4h\" or \"1GB\"",
                );
                return None;
            }
        };
        match parse(&text) {
            Ok(quantity) => Some(Located {
                value: quantity,
                place: self.at(value),
            }),
            Err(fix) => {
                let message = format!("{key} = \"{}\" is no value for it", shorten(&text));
                self.report.error(&self.at(value), message, fix);
                None
            }
        }
    }

    /// A table within this one.
    pub(crate) fn section(&self, key: &'static str) -> Option<Section<'a>> {
        let value = self.value(key)?;
        self.expect_section(key, value, self.at(value))
    }

    /// All tables of a table whose keys are names: `connections`, `children`, `secrets`.
    pub(crate) fn named(&self, key: &'static str) -> Vec<(Located<&'a str>, Section<'a>)> {
        let Some(outer) = self.section(key) else {
            return Vec::new();
        };
        // The order of the file counts: connections are tried in it.
        let mut entries: Vec<_> = outer.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let mut sections = Vec::new();
        for (name, value) in entries {
            let name = Located {
                value: name.get_ref().as_ref(),
                place: self.at(name),
            };
            if let Err(fix) = check_name(name.value) {
                let message = format!("\"{}\" cannot be a name", shorten(name.value));
                self.report.error(&name.place, message, fix);
            } else if let Some(section) =
                outer.expect_section(name.value, value, name.place.clone())
            {
                sections.push((name, section));
            }
        }
        sections
    }

    fn expect_section(
        &self,
        key: &str,
        value: &'a Spanned<DeValue<'a>>,
        place: Place,
    ) -> Option<Section<'a>> {
        let name = match self.name.as_str() {
            "" => key.to_owned(),
            outer => format!("{outer}.{key}"),
        };
        match value.get_ref().as_table() {
            Some(table) => Some(Section {
                report: self.report,
                table,
                name,
                place,
                base: self.base,
                known: RefCell::default(),
            }),
            None => {
                let fix = format!("write a table: [{name}]");
                self.wrong_type(key, value, "a table", &fix);
                None
            }
        }
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, fix: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message = format!("{} must be {wanted}, not {found}", shorten(key));
        self.report.error(&self.at(value), message, fix);
    }

    /// Reports every key that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let place = match self.name.as_str() {
                "" => "at the top level".to_owned(),
                name => format!("in [{name}]"),
            };
            let message = format!("unknown key `{}` {place}", shorten(name));
            self.report
                .error(&self.at(key), message, suggestion(name, &known));
        }
    }
}

/// A span of a part, in the whole that the part begins at `base` of.
pub(super) fn shifted(span: Range<usize>, base: usize) -> Range<usize> {
    span.start + base..span.end + base
}

/// What to write for a key that nobody knows.
fn suggestion(name: &str, known: &[&'static str]) -> String {
    if let Some((_, fix)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return (*fix).to_owned();
    }
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            known.dedup();
            format!("known here: {}", known.join(", "))
        }
    }
}

/// The candidate most like this word, if one is like it at all.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    let word = word.get(..64).unwrap_or(word);
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The first characters of a text, printable, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 60;
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let mut short: String = text.chars().take(LIMIT).map(clean).collect();
    if text.chars().nth(LIMIT).is_some() {
        short.push('…');
    }
    short
}

/// Names go on command lines and into logs: `hosts`, `hosts/pods`.
fn check_name(name: &str) -> Result<(), String> {
    if (1..=64).contains(&name.len()) && name.chars().all(fits_name) {
        return Ok(());
    }
    Err("use 1 to 64 letters, digits, '-', '_' and '.'".into())
}
