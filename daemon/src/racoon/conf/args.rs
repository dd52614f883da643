//! The words of a statement, one after another.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use obol_ike::proposal::Allowed;

use super::text::{Node, Token, TokenKind};
use crate::config::{Located, Place, Report, nearest, shorten};
use crate::racoon::setkey::decimal;

/// What is left of a statement. Whoever finds it wrong reports that and gives up the statement.
pub(crate) struct Args<'r, 'n> {
    /// Where to report.
    pub(crate) report: &'r Report<'r>,
    /// Which text it is in.
    pub(crate) source: usize,
    /// Weak algorithms that may be used.
    pub(crate) allowed: Allowed,
    node: &'n Node,
    next: usize,
}

/// It is wrong, and that was reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

/// What every argument comes as.
pub(crate) type Read<T> = Result<T, Reported>;

/// Durations that racoon knows; more would be a mistake.
const LONGEST: u64 = 366 * 86_400;

impl<'r, 'n> Args<'r, 'n> {
    /// The words behind the keyword of a statement.
    pub(crate) fn new(
        report: &'r Report<'r>,
        source: usize,
        allowed: Allowed,
        node: &'n Node,
    ) -> Self {
        Self {
            report,
            source,
            allowed,
            node,
            next: 1,
        }
    }

    /// The words of a statement in its block.
    pub(crate) fn of<'m>(&self, node: &'m Node) -> Args<'r, 'm> {
        Args::new(self.report, self.source, self.allowed, node)
    }

    /// The keyword.
    pub(crate) fn keyword(&self) -> &'n str {
        self.node.words.first().map_or("", |word| &word.text)
    }

    /// All words of the statement.
    pub(crate) fn place(&self) -> Place {
        Place {
            source: self.source,
            span: self.node.span.clone(),
        }
    }

    /// Where a word is.
    pub(crate) fn place_of(&self, token: &Token) -> Place {
        Place {
            source: self.source,
            span: token.span.clone(),
        }
    }

    /// A value that came from a word.
    pub(crate) fn located<T>(&self, token: &Token, value: T) -> Located<T> {
        Located {
            value,
            place: self.place_of(token),
        }
    }

    /// Whether there is one, be it empty.
    pub(crate) fn has_block(&self) -> bool {
        self.node.block.is_some()
    }

    /// The statements in its block.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn block(&self) -> Read<&'n [Node]> {
        match &self.node.block {
            Some(block) => Ok(block),
            None => {
                let message = format!("{} without a block", self.keyword());
                self.report
                    .error(&self.place(), message, "write { ... } behind it");
                Err(Reported)
            }
        }
    }

    /// The next word, which stays.
    pub(crate) fn peek(&self) -> Option<&'n Token> {
        self.node.words.get(self.next)
    }

    /// The next word if it is this one.
    pub(crate) fn take_if(&mut self, text: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|token| token.kind == TokenKind::Word && token.text == text);
        self.next += usize::from(found);
        found
    }

    /// The next word of this kind, if it is.
    pub(crate) fn take_kind(&mut self, kind: TokenKind) -> Option<&'n Token> {
        let token = self.peek().filter(|token| token.kind == kind)?;
        self.next += 1;
        Some(token)
    }

    /// The next word.
    ///
    /// # Errors
    /// There is none: `fix` says what is missing.
    pub(crate) fn next(&mut self, fix: &str) -> Read<&'n Token> {
        match self.peek() {
            Some(token) => {
                self.next += 1;
                Ok(token)
            }
            None => {
                let message = format!(
                    "\"{}\" syntax error: something is missing behind it",
                    self.keyword()
                );
                self.report.error(&self.place(), message, fix);
                Err(Reported)
            }
        }
    }

    /// A word does not belong where it is.
    pub(crate) fn syntax<T>(&self, token: &Token, fix: impl Into<String>) -> Read<T> {
        let message = format!("\"{}\" syntax error", shorten(&token.text));
        self.report.error(&self.place_of(token), message, fix);
        Err(Reported)
    }

    /// Nothing comes any more.
    ///
    /// # Errors
    /// Something does, or a block.
    pub(crate) fn end(&self) -> Read<()> {
        if let Some(token) = self.peek() {
            return self.syntax(token, "end the statement before it with ;");
        }
        match &self.node.block {
            None => Ok(()),
            Some(_) => {
                let message = format!("{} has no block", self.keyword());
                self.report
                    .error(&self.place(), message, "write ; in place of { ... }");
                Err(Reported)
            }
        }
    }

    /// One of these words.
    ///
    /// # Errors
    /// It is none of them.
    pub(crate) fn one_of<T: Copy>(&mut self, words: &[(&str, T)]) -> Read<Located<T>> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let fix = format!("write {}", names.join(", "));
        let token = self.next(&fix)?;
        match words.iter().find(|(word, _)| *word == token.text) {
            Some((_, value)) => Ok(self.located(token, *value)),
            None => {
                let near = nearest(&token.text, names.iter().copied());
                self.syntax(
                    token,
                    near.map_or(fix, |near| format!("did you mean {near}?")),
                )
            }
        }
    }

    /// `on` or `off`.
    ///
    /// # Errors
    /// It is neither.
    pub(crate) fn switch(&mut self) -> Read<bool> {
        let found = self.one_of(&[("on", true), ("off", false)])?;
        Ok(found.value)
    }

    /// A number up to `most`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn number(&mut self, most: u64) -> Read<u64> {
        let fix = format!("write a number up to {most}");
        let token = self.next(&fix)?;
        let hex = token
            .text
            .strip_prefix("0x")
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match hex.or(decimal(&token.text)).map(u64::from) {
            Some(number) if number <= most => Ok(number),
            _ => self.syntax(token, fix),
        }
    }

    /// `NUMBER UNIT`, where the unit may be left out if `bare`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn duration(&mut self, bare: bool) -> Read<Duration> {
        const FIX: &str = "write a time like 30 sec, 5 min or 12 hour";
        let place = self.peek().map(|token| self.place_of(token));
        let number = self.number(LONGEST)?;
        let factor = match self.peek().map(|token| token.text.as_str()) {
            Some("sec" | "secs" | "second" | "seconds") => 1,
            Some("min" | "mins" | "minute" | "minutes") => 60,
            Some("hour" | "hours") => 3600,
            None if bare => return Ok(Duration::from_secs(number)),
            _ => {
                let token = self.next(FIX)?;
                return self.syntax(token, FIX);
            }
        };
        self.next += 1;
        let seconds = number * factor;
        if seconds > LONGEST {
            self.report.error(
                &place.unwrap_or_else(|| self.place()),
                "a year is the longest time",
                FIX,
            );
            return Err(Reported);
        }
        Ok(Duration::from_secs(seconds))
    }

    /// A text in quotes.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn quoted(&mut self, fix: &str) -> Read<&'n Token> {
        let token = self.next(fix)?;
        match token.kind == TokenKind::Quoted && !token.text.is_empty() {
            true => Ok(token),
            false => self.syntax(token, fix),
        }
    }

    /// A path in quotes; relative ones start from `directory`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn path(&mut self, directory: &std::path::Path) -> Read<Located<PathBuf>> {
        let token = self.quoted("write a path in quotes")?;
        Ok(self.located(token, directory.join(&token.text)))
    }

    /// An address, with a port in brackets behind it if there is one.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn address(&mut self) -> Read<Located<(IpAddr, Option<u16>)>> {
        const FIX: &str = "write an address like 10.0.1.241, perhaps with [500] behind it";
        let token = self.next(FIX)?;
        let Ok(addr) = token.text.parse::<IpAddr>() else {
            return self.syntax(token, FIX);
        };
        let port = match self.take_kind(TokenKind::Port) {
            None => None,
            Some(port) => match port.text.parse::<u16>() {
                Ok(number) if number > 0 => Some(number),
                _ => return self.syntax(port, "write a port up to 65535 in the brackets"),
            },
        };
        Ok(self.located(token, (addr, port)))
    }

    /// It has no effect.
    pub(crate) fn idle(&self, why: &str) {
        let message = format!("{} has no effect: {why}", self.keyword());
        self.report.warn(
            &self.place(),
            message,
            "remove it once no racoon reads this file any more",
        );
    }

    /// It cannot be had.
    pub(crate) fn refuse(&self, why: &str, fix: &str) {
        let message = format!("{} is refused: {why}", self.keyword());
        self.report.error(&self.place(), message, fix);
    }
}
