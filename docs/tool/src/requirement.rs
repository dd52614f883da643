//! Lists of requirements: `docs/requirements/*.toml`.
//!
//! ```toml
//! title = "..."
//! url = "..."                    # where it can be read, if it can
//!
//! ["2.8.1"]                      # a section, and its key-word sentences by number
//! title = "..."
//! 1 = { must = "own words" }
//! 2 = { should = "own words", exception = "why obol does not" }
//! 3 = { must = "own words", gap = "what is missing" }
//! 4 = { same = "rfc7296 2.5-2" } # said before, or elsewhere
//! 5 = { note = "why this sentence asks nothing of an implementation" }
//! ```

use toml::Value;

/// One document with its sections.
#[derive(Debug)]
pub struct Document {
    /// As annotations name it, `rfc7296`.
    pub name: String,
    /// What it is called.
    pub title: String,
    /// Where it can be read.
    pub url: Option<String>,
    /// In the order of the document.
    pub sections: Vec<Section>,
}

/// One section with at least one requirement.
#[derive(Debug)]
pub struct Section {
    /// `2.8.1`, or `A`.
    pub number: String,
    /// The heading.
    pub title: String,
    /// By number, from 1 without a gap.
    pub requirements: Vec<Requirement>,
}

/// One sentence of a document.
#[derive(Debug)]
pub struct Requirement {
    /// Section and number, `2.8.1-3`.
    pub id: String,
    /// `MUST`, `SHOULD NOT`; empty for what asks nothing of its own.
    pub level: String,
    /// In our own words.
    pub text: String,
    /// What obol makes of it.
    pub answer: Answer,
}

/// What obol makes of a requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It does it: code and a test are annotated.
    Done,
    /// It does not, and why.
    Exception(String),
    /// It should and does not yet.
    Gap(String),
    /// It is the same as another requirement.
    Same(String),
    /// The sentence asks nothing of an implementation.
    Note,
}

const LEVELS: [&str; 4] = ["must", "must-not", "should", "should-not"];

impl Document {
    /// Reads a list.
    ///
    /// # Errors
    /// What is not as the module describes.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error| format!("{name}: {error}"))?;
        let mut sections = Vec::new();
        for (number, value) in &table {
            if let Some(section) = value.as_table() {
                sections.push(
                    Section::parse(number, section).map_err(|e| format!("{name} {number}: {e}"))?,
                );
            }
        }
        sections.sort_by_key(|section| sort_key(&section.number));
        Ok(Self {
            name: name.to_owned(),
            title: string(&table, "title")?,
            url: table.get("url").and_then(Value::as_str).map(str::to_owned),
            sections,
        })
    }

    /// All requirements, in order.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.sections.iter().flat_map(|s| &s.requirements)
    }
}

impl Section {
    fn parse(number: &str, table: &toml::Table) -> Result<Self, String> {
        let count = table.len().saturating_sub(1);
        let mut requirements = Vec::with_capacity(count);
        for index in 1..=count {
            let entry = table.get(&index.to_string()).and_then(Value::as_table);
            let entry = entry.ok_or_else(|| format!("no number {index} of {count}"))?;
            let requirement = Requirement::parse(format!("{number}-{index}"), entry)
                .map_err(|error| format!("number {index}: {error}"))?;
            requirements.push(requirement);
        }
        Ok(Self {
            number: number.to_owned(),
            title: string(table, "title")?,
            requirements,
        })
    }
}

impl Requirement {
    fn parse(id: String, table: &toml::Table) -> Result<Self, String> {
        let new = |level: &str, text: String, answer| Self {
            id: id.clone(),
            level: level.replace('-', " ").to_uppercase(),
            text,
            answer,
        };
        let keys: Vec<&str> = table.keys().map(String::as_str).collect();
        match keys.as_slice() {
            ["same"] => Ok(new("", String::new(), Answer::Same(string(table, "same")?))),
            ["note"] => Ok(new("", string(table, "note")?, Answer::Note)),
            _ => {
                let mut level = None;
                let mut answer = Answer::Done;
                for key in keys {
                    match key {
                        "exception" => answer = Answer::Exception(string(table, key)?),
                        "gap" => answer = Answer::Gap(string(table, key)?),
                        _ if LEVELS.contains(&key) && level.is_none() => level = Some(key),
                        _ => return Err(format!("{key} is not expected here")),
                    }
                }
                let level = level.ok_or("no level")?;
                Ok(new(level, string(table, level)?, answer))
            }
        }
    }
}

/// Numbers by value, and appendices after them.
fn sort_key(number: &str) -> Vec<(u32, String)> {
    let parts = number.split('.');
    parts
        .map(|part| match part.parse() {
            Ok(value) => (value, String::new()),
            Err(_) => (u32::MAX, part.to_owned()),
        })
        .collect()
}

fn string(table: &toml::Table, key: &str) -> Result<String, String> {
    match table.get(key).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{key} must be a text")),
    }
}
