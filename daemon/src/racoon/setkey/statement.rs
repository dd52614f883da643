//! What the words of a statement say.

use std::net::IpAddr;
use std::ops::Range;

use obol_ike::ts::TrafficSelector;

use super::policy::{self, Action, Direction, Priority};
use super::sa::{self, Manual, Protocol};
use super::selector::{self, Flags, Side, Upper};
use super::text::{Word, Words, Wrong};
use crate::config::nearest;
use crate::racoon::names::Names;

/// A statement that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// `spdadd`, `spdupdate`.
    Add(PolicyLine),
    /// `spddelete`.
    Delete(Key),
    /// `spdflush`.
    FlushPolicies,
    /// `spddump`.
    DumpPolicies,
    /// `add`.
    AddSa(Manual),
    /// `get`, `delete`, `deleteall`.
    OneSa,
    /// `flush`.
    FlushSas,
    /// `dump`.
    DumpSas,
    /// `exit`, `quit`, `bye`: what follows is not read.
    Exit,
}

/// What tells policies apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key {
    /// Where packets come from.
    pub(crate) src: TrafficSelector,
    /// Where they go.
    pub(crate) dst: TrafficSelector,
    /// Which way.
    pub(crate) direction: Direction,
}

/// A policy as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyLine {
    /// What it is about.
    pub(crate) key: Key,
    /// It replaces one with the same key.
    pub(crate) update: bool,
    /// Which of several that fit a packet decides.
    pub(crate) priority: Priority,
    /// What happens to packets.
    pub(crate) action: Action,
    /// Why it cannot be had; its packets are blocked.
    pub(crate) refused: Option<Wrong>,
    /// What is allowed but worth a line.
    pub(crate) notices: Vec<Wrong>,
}

/// What is left of a statement.
pub(crate) struct Rest<'w> {
    words: std::iter::Peekable<std::slice::Iter<'w, Word>>,
    end: Range<usize>,
}

const STATEMENTS: [&str; 16] = [
    "spdadd",
    "spdupdate",
    "spddelete",
    "spdflush",
    "spddump",
    "add",
    "get",
    "delete",
    "deleteall",
    "flush",
    "dump",
    "exit",
    "quit",
    "bye",
    "promisc",
    "spdsetidx",
];

/// Whether a script may begin with this word.
pub(crate) fn is_statement(word: &str) -> bool {
    STATEMENTS.contains(&word)
}

/// Understands one statement.
///
/// # Errors
/// It is none of the grammar's, or a name in it is unknown.
pub(crate) fn read(names: &Names, words: &Words) -> Result<Statement, Wrong> {
    let mut rest = Rest {
        words: words.words.iter().peekable(),
        end: words.span.end.saturating_sub(1)..words.span.end,
    };
    let first = rest.next("write a statement")?;
    let statement = match first.text.as_str() {
        "spdadd" => policy_line(names, &mut rest, false).map(Statement::Add),
        "spdupdate" => policy_line(names, &mut rest, true).map(Statement::Add),
        "spddelete" => delete(names, &mut rest).map(Statement::Delete),
        "spdflush" => Ok(Statement::FlushPolicies),
        "spddump" => Ok(Statement::DumpPolicies),
        "add" => sa::add(names, &mut rest).map(Statement::AddSa),
        "get" | "delete" => sa::name(names, &mut rest, true).map(|()| Statement::OneSa),
        "deleteall" => sa::name(names, &mut rest, false).map(|()| Statement::OneSa),
        "flush" => protocol_if_any(&mut rest).map(|()| Statement::FlushSas),
        "dump" => protocol_if_any(&mut rest).map(|()| Statement::DumpSas),
        "exit" | "quit" | "bye" => Ok(Statement::Exit),
        other => {
            let known = STATEMENTS[..14].iter().copied();
            let fix = match nearest(other, known) {
                Some(near) => format!("did you mean {near}?"),
                None => {
                    "a statement begins with spdadd, spdupdate, spddelete, spdflush, spddump, add, \
                         get, delete, deleteall, flush, dump or exit"
                        .to_owned()
                }
            };
            Err(Wrong::syntax(first, fix))
        }
    }?;
    match rest.peek() {
        None => Ok(statement),
        Some(word) if is_statement(&word.text) => {
            Err(Wrong::syntax(word, "end the statement before it with ;"))
        }
        Some(word) => Err(Wrong::syntax(
            word,
            "remove it, or end the statement before it with ;",
        )),
    }
}

fn protocol_if_any(rest: &mut Rest<'_>) -> Result<(), Wrong> {
    match rest.peek() {
        None => Ok(()),
        Some(_) => Protocol::read(rest).map(|_| ()),
    }
}

fn policy_line(names: &Names, rest: &mut Rest<'_>, update: bool) -> Result<PolicyLine, Wrong> {
    let flags = Flags::read(rest);
    let mut notices = Vec::new();
    let src = Side::read(names, rest, flags)?;
    let dst = Side::read(names, rest, flags)?;
    let upper = Upper::read(names, rest)?;
    let mut refused = upper.refused.clone();
    if rest.take_if("-ctx").is_some() {
        let context = rest.next("write -ctx DOI ALGORITHM CONTEXT")?;
        rest.next("write -ctx DOI ALGORITHM CONTEXT")?;
        rest.next("write -ctx DOI ALGORITHM CONTEXT")?;
        let message = "security contexts (-ctx) have no equivalent in obol";
        refused.get_or_insert(Wrong::new(
            &context.span,
            message,
            "remove -ctx and what goes with it",
        ));
    }
    let (src, dst) = selector::pair(names, &src, &dst, &upper, &mut notices)?;
    let said = policy::read(rest)?;
    let refused = refused.or_else(|| said.refused());
    notices.extend(said.notices);
    Ok(PolicyLine {
        key: Key {
            src,
            dst,
            direction: said.direction,
        },
        update,
        priority: said.priority,
        action: said.action,
        refused,
        notices,
    })
}

fn delete(names: &Names, rest: &mut Rest<'_>) -> Result<Key, Wrong> {
    let flags = Flags::read(rest);
    let src = Side::read(names, rest, flags)?;
    let dst = Side::read(names, rest, flags)?;
    let upper = Upper::read(names, rest)?;
    let (src, dst) = selector::pair(names, &src, &dst, &upper, &mut Vec::new())?;
    rest.expect("-P", "write -P in, -P out or -P fwd behind the selectors")?;
    let direction = Direction::read(rest)?;
    Ok(Key {
        src,
        dst,
        direction,
    })
}

impl<'w> Rest<'w> {
    /// The next word.
    ///
    /// # Errors
    /// There is none: `fix` says what is missing.
    pub(crate) fn next(&mut self, fix: &str) -> Result<&'w Word, Wrong> {
        self.words
            .next()
            .ok_or_else(|| Wrong::new(&self.end, "the statement ends too early", fix))
    }

    /// The next word, which stays.
    pub(crate) fn peek(&mut self) -> Option<&'w Word> {
        self.words.peek().copied()
    }

    /// The next word if it is this one.
    pub(crate) fn take_if(&mut self, text: &str) -> Option<&'w Word> {
        self.words.next_if(|word| word.text == text && !word.quoted)
    }

    /// The next word if it begins so.
    pub(crate) fn take_if_begins(&mut self, prefix: &str) -> Option<&'w Word> {
        self.words
            .next_if(|word| word.text.starts_with(prefix) && !word.quoted)
    }

    /// This word.
    ///
    /// # Errors
    /// Another one comes, or none.
    pub(crate) fn expect(&mut self, text: &str, fix: &str) -> Result<&'w Word, Wrong> {
        let word = self.next(fix)?;
        match word.text == text {
            true => Ok(word),
            false => Err(Wrong::syntax(word, fix)),
        }
    }
}

/// One address of a host.
///
/// # Errors
/// It is none, or there are several.
pub(crate) fn host(names: &Names, word: &Word, text: &str, flags: Flags) -> Result<IpAddr, Wrong> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return match flags.allows(addr) {
            true => Ok(addr),
            false => Err(Wrong::new(
                &word.span,
                format!("{addr} is not of the address family that the flags name"),
                "remove -4 or -6, or write an address of that family",
            )),
        };
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if flags.numeric || text.is_empty() || !text.chars().all(is_name) {
        return Err(Wrong::syntax(
            word,
            "write an address like 10.0.1.13, 10.0.0.0/16 or fd00::/64",
        ));
    }
    // What looks like an address is one that is misspelt.
    let digits = |c: char| c.is_ascii_digit() || c == '.';
    let addrs = match text.chars().all(digits) {
        true => Vec::new(),
        false => names.host(text),
    };
    let addrs: Vec<IpAddr> = addrs
        .into_iter()
        .filter(|addr| flags.allows(*addr))
        .collect();
    match addrs.as_slice() {
        [addr] => Ok(*addr),
        [] => Err(Wrong::new(
            &word.span,
            format!("{text} is no address, and no host of that name is known"),
            "write an address like 10.0.1.13, or 10.0.0.0/16 for a network",
        )),
        _ => Err(Wrong::new(
            &word.span,
            format!(
                "multiple address specified: {text} has {} addresses",
                addrs.len()
            ),
            "write one address",
        )),
    }
}
