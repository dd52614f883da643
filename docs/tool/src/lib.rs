//! `docs/conformance.md` from the lists in `docs/requirements` and the annotations in the sources.
//!
//! A list has one entry for each sentence of a document with a key word of RFC 2119, in our own
//! words. An annotation is a comment line of its own, above the item or inside the function that
//! it speaks of:
//!
//! ```text
//! //= rfc7296 2.8.1-3              this code does it
//! //= test rfc7296 2.8.1-3 2.10-1  the test below shows these two
//! ```
//!
//! [`Conformance::problems`] tells where lists and annotations disagree.

mod annotation;
mod render;
mod requirement;
mod sentences;

use std::collections::BTreeMap;
use std::path::Path;

pub use annotation::{Annotation, Kind, scan};
pub use requirement::{Answer, Document, Requirement};
pub use sentences::count;

/// Where the sources are that may be annotated, below the root of the repository.
const SOURCES: [&str; 3] = ["ike", "esp", "daemon"];

/// The documents in the order of the table; each is `docs/requirements/NAME.toml`.
const DOCUMENTS: [&str; 7] = [
    "rfc7296", "rfc7383", "rfc7427", "rfc4555", "rfc5723", "rfc4303", "security",
];

/// The lists, and what the sources say of them.
#[derive(Debug, Default)]
pub struct Conformance {
    documents: Vec<Document>,
    annotations: Vec<Annotation>,
    /// By "document id", as annotations name it.
    by_id: BTreeMap<String, Places>,
    problems: Vec<String>,
}

/// Indices of the annotations of one requirement.
#[derive(Debug, Default, Clone)]
struct Places {
    code: Vec<usize>,
    tests: Vec<usize>,
}

impl Conformance {
    /// Reads lists and sources of the repository at `root`.
    ///
    /// # Errors
    /// The first file that cannot be read or is no list.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut documents = Vec::new();
        for name in DOCUMENTS {
            let path = root.join("docs/requirements").join(format!("{name}.toml"));
            let text = read(&path)?;
            documents.push(Document::parse(name, &text)?);
        }
        let mut annotations = Vec::new();
        for source in SOURCES {
            for file in annotation::rust_files(&root.join(source))? {
                let name = file.strip_prefix(root).unwrap_or(&file);
                let name = name.to_string_lossy().replace('\\', "/");
                annotations.extend(scan(&name, &read(&file)?)?);
            }
        }
        Ok(Self::new(documents, annotations))
    }

    /// Puts lists and annotations together.
    #[must_use]
    pub fn new(documents: Vec<Document>, annotations: Vec<Annotation>) -> Self {
        let mut new = Self {
            documents,
            annotations,
            ..Self::default()
        };
        new.link();
        new.check();
        new
    }

    /// What must be put right: nothing, when lists and sources agree.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Where a list and the text of its document differ in the number of entries: section, sentences
    /// with key words, entries.
    ///
    /// # Errors
    /// There is no such list.
    pub fn compare(&self, name: &str, text: &str) -> Result<Vec<(String, usize, usize)>, String> {
        let document = self.documents.iter().find(|d| d.name == name);
        let document = document.ok_or_else(|| format!("no list {name}"))?;
        let mut all: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (section, sentences) in count(text) {
            all.entry(section).or_default().0 = sentences;
        }
        for section in &document.sections {
            all.entry(section.number.clone()).or_default().1 = section.requirements.len();
        }
        let differing = all.into_iter().filter(|(_, (a, b))| a != b);
        Ok(differing.map(|(section, (a, b))| (section, a, b)).collect())
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> String {
        render::page(self)
    }

    fn link(&mut self) {
        for document in &self.documents {
            for requirement in document.requirements() {
                let name = format!("{} {}", document.name, requirement.id);
                self.by_id.insert(name, Places::default());
            }
        }
        for (index, annotation) in self.annotations.iter().enumerate() {
            for id in &annotation.ids {
                let name = format!("{} {id}", annotation.document);
                let Some(places) = self.by_id.get_mut(&name) else {
                    self.problems
                        .push(format!("{}: no requirement {name}", annotation.place()));
                    continue;
                };
                match annotation.kind {
                    Kind::Code => places.code.push(index),
                    Kind::Test => places.tests.push(index),
                }
            }
        }
    }

    fn check(&mut self) {
        for document in &self.documents {
            for requirement in document.requirements() {
                let name = format!("{} {}", document.name, requirement.id);
                let places = &self.by_id[&name];
                let problem = match &requirement.answer {
                    Answer::Done => match (places.code.is_empty(), places.tests.is_empty()) {
                        (true, true) => Some("has neither code, test nor exception".to_owned()),
                        (true, false) => Some("has a test, but no code".to_owned()),
                        (false, true) => Some("has code, but no test".to_owned()),
                        (false, false) => None,
                    },
                    Answer::Exception(_) | Answer::Gap(_) => None,
                    Answer::Note | Answer::Same(_)
                        if !places.code.is_empty() || !places.tests.is_empty() =>
                    {
                        Some("asks nothing of its own, but is annotated".to_owned())
                    }
                    Answer::Note => None,
                    Answer::Same(other) => self.check_same(other),
                };
                if let Some(problem) = problem {
                    self.problems.push(format!("{name} {problem}"));
                }
            }
        }
    }

    fn check_same(&self, other: &str) -> Option<String> {
        match self.find(other) {
            None => Some(format!("is the same as {other}, which there is not")),
            Some(requirement) => match requirement.answer {
                Answer::Same(_) | Answer::Note => Some(format!(
                    "is the same as {other}, which asks nothing of its own"
                )),
                _ => None,
            },
        }
    }

    /// The requirement that is called `DOCUMENT ID`.
    fn find(&self, name: &str) -> Option<&Requirement> {
        let (document, id) = name.split_once(' ')?;
        let document = self.documents.iter().find(|d| d.name == document)?;
        document.requirements().find(|r| r.id == id)
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The root of the repository that this crate was built in.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Where the page is, below the root.
pub const PAGE: &str = "docs/conformance.md";
