//! The policies that setkey was told so far: what would be in the kernel. The file is a script of
//! setkey, so that what reads scripts reads it; comments say what scripts cannot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::policy::{Action, Direction, Priority};
use super::statement::{self, Key, Statement};
use super::table::Entry;
use super::{text, write};
use crate::config::{Place, Source};
use crate::racoon::names::Names;

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// What it is about.
    pub(crate) key: Key,
    /// Which of several decides.
    pub(crate) priority: Priority,
    /// What happens.
    pub(crate) action: Action,
    /// Its number, which no other policy has or had.
    pub(crate) spid: u32,
    /// When it was added, in seconds since 1970.
    pub(crate) created: u64,
    /// The script that it is from.
    pub(crate) file: String,
    /// The line there, from 1.
    pub(crate) line: usize,
}

/// All policies, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Store {
    /// The policies.
    pub(crate) policies: Vec<Stored>,
    next: u32,
}

const FIRST: &str = "# The policies of setkey, as obol keeps them. setkey -DP lists them, setkey -FP removes them.\n";
/// Longest line number that is shown as it is.
const LONGEST: usize = 1_000_000;

impl Store {
    /// What policies are to protect is dropped from now on, and there are no others.
    pub(crate) fn drop_all(&mut self) {
        self.policies.retain(|policy| policy.action != Action::Pass);
        for policy in &mut self.policies {
            policy.action = Action::Discard;
        }
    }

    /// Reads a store; where there is none, nothing was added yet.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).ok_or_else(|| {
                let what = format!(
                    "{} is no store of obol's: setkey -FP makes a new one, which protects nothing",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut store = Self::default();
        let mut lines = text.strip_prefix(FIRST)?.lines();
        store.next = lines.next()?.strip_prefix("# next ")?.parse().ok()?;
        while let Some(remark) = lines.next() {
            let mut parts = remark.strip_prefix("# ")?.splitn(4, ' ');
            let (spid, created) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let line = parts.next()?.parse().ok()?;
            let file = parts.next()?.to_owned();
            let (statements, wrong) = text::split(lines.next()?);
            let ([words], []) = (statements.as_slice(), wrong.as_slice()) else {
                return None;
            };
            let Ok(Statement::Add(policy)) = statement::read(&Names::none(), words) else {
                return None;
            };
            store.policies.push(Stored {
                key: policy.key,
                priority: policy.priority,
                action: policy.action,
                spid,
                created,
                file,
                line,
            });
        }
        Some(store)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{FIRST}# next {}\n", self.next);
        for policy in &self.policies {
            let Stored {
                spid,
                created,
                line,
                ..
            } = policy;
            // Whatever a file is called, a remark is one line.
            let file: String = policy.file.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(text, "# {spid} {created} {line} {file}");
            let _ = writeln!(text, "{}", policy.statement());
        }
        text
    }

    /// Writes it in one step.
    ///
    /// # Errors
    /// What the system says; the file is as it was.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    }

    /// Where a policy with this key is.
    pub(crate) fn find(&self, key: &Key) -> Option<usize> {
        self.policies.iter().position(|policy| policy.key == *key)
    }

    /// A number for a new policy, as the kernel gives them.
    pub(crate) fn number(&mut self, direction: Direction) -> u32 {
        self.next = self.next.wrapping_add(1).max(1);
        let low = match direction {
            Direction::In => 0,
            Direction::Out => 1,
            Direction::Fwd => 2,
        };
        self.next << 3 | low
    }

    /// The policies as entries of a table, and their statements as texts in which each stands on
    /// the line that it has in its script, apart from those of a script of that name at another time.
    pub(crate) fn entries(&self, sources: &mut Vec<Source>) -> Vec<Entry> {
        let mut files: BTreeMap<(&str, u64), Vec<usize>> = BTreeMap::new();
        for (at, policy) in self.policies.iter().enumerate() {
            let script = (policy.file.as_str(), policy.created);
            files.entry(script).or_default().push(at);
        }
        let mut entries: Vec<Option<Entry>> = vec![None; self.policies.len()];
        for ((file, _), mut own) in files {
            own.sort_by_key(|at| self.policies[*at].line);
            let mut text = String::new();
            let mut line = 1;
            for at in own {
                let policy = &self.policies[at];
                while line < policy.line.min(LONGEST) {
                    text.push('\n');
                    line += 1;
                }
                let begin = text.len();
                text.push_str(&policy.statement());
                let place = Place {
                    source: sources.len(),
                    span: begin..text.len(),
                };
                text.push(' ');
                entries[at] = Some(Entry {
                    key: policy.key,
                    priority: policy.priority,
                    action: policy.action.clone(),
                    place,
                });
            }
            sources.push(Source {
                name: file.to_owned(),
                directory: PathBuf::new(),
                text,
                exposed: false,
            });
        }
        entries.into_iter().flatten().collect()
    }
}

impl Stored {
    fn statement(&self) -> String {
        write::statement(&self.key, self.priority, &self.action)
    }
}
