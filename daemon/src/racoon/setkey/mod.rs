//! setkey scripts: `/etc/ipsec-tools.conf` and `/etc/ipsec-tools.d/*.conf`.

mod policy;
mod sa;
pub(crate) mod script;
mod selector;
mod statement;
mod store;
mod table;
mod text;
pub(crate) mod write;

use crate::config::{Place, Report, Source};
use crate::racoon::names::Names;

pub(crate) use policy::{Action, Direction, Level, Priority, Rule, Transform};
pub(crate) use selector::decimal;
pub(crate) use statement::{Key, is_statement};
pub(crate) use store::{Store, Stored};
pub(crate) use table::{Entry, Table};
pub(crate) use text::without_keys;

use statement::Statement;
use text::Wrong;

/// A statement, and where it stands.
pub(crate) struct Line {
    statement: Statement,
    place: Place,
}

/// Reads a script. All that is wrong is reported, and nothing is done yet.
pub(crate) fn read(report: &Report<'_>, names: &Names, source: usize, text: &str) -> Vec<Line> {
    let (statements, wrong) = text::split(text);
    let tell = |wrong: &Wrong| {
        let place = place(source, wrong);
        report.error(&place, &wrong.message, &wrong.fix);
    };
    wrong.iter().for_each(tell);
    if let Some(at) = text.find("\r\n") {
        let span = at..at + 1;
        let message = "lines end in a carriage return, which is left out";
        report.warn(
            &Place { source, span },
            message,
            "save the file with Unix line ends",
        );
    }
    let mut lines = Vec::new();
    for words in &statements {
        match statement::read(names, words) {
            Ok(Statement::Exit) => break,
            Ok(statement) => lines.push(Line {
                statement,
                place: Place {
                    source,
                    span: words.span.clone(),
                },
            }),
            Err(wrong) => tell(&wrong),
        }
    }
    lines
}

fn place(source: usize, wrong: &Wrong) -> Place {
    Place {
        source,
        span: wrong.span.clone(),
    }
}

/// A script as a text that may be shown.
pub(crate) fn source(name: String, directory: std::path::PathBuf, text: &str) -> Source {
    Source {
        name,
        directory,
        text: without_keys(text),
        exposed: false,
    }
}
