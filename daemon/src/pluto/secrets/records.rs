//! The grammar of `ipsec.secrets`: a record begins in the first column, and goes on over all lines
//! that begin with a blank.

/// A record.
#[derive(Debug, Default)]
pub(super) struct Record<'t> {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    /// Its words.
    pub(super) tokens: Vec<Token<'t>>,
    /// What is wrong with it, and what to change.
    pub(super) error: Option<(&'static str, &'static str)>,
}

/// A word of a record. It may be a secret.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Token<'t> {
    /// The word without quotes.
    pub(super) text: &'t str,
    /// Whether it was in quotes.
    pub(super) quoted: bool,
}

impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token<'_> {
    /// Whether it is this sign.
    pub(super) fn is(&self, sign: &str) -> bool {
        !self.quoted && self.text == sign
    }
}

impl<'t> Record<'t> {
    /// The pattern, if this is an inclusion.
    pub(super) fn included(&self) -> Option<&'t str> {
        match self.tokens.as_slice() {
            [include, pattern] if include.is("include") => Some(pattern.text),
            _ => None,
        }
    }
}

/// The records of a text, in their order.
pub(super) fn split(text: &str) -> Vec<Record<'_>> {
    let mut records: Vec<Record<'_>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_first = !line.starts_with([' ', '\t']);
        let mut tokens = Vec::new();
        let error = words(line, &mut tokens).err();
        if tokens.is_empty() && error.is_none() {
            continue;
        }
        match records.last_mut() {
            Some(record) if !is_first => {
                record.tokens.append(&mut tokens);
                record.error = record.error.or(error);
            }
            _ => records.push(Record {
                line: number,
                tokens,
                error: error.or((!is_first).then_some((
                    "it begins with a blank, and there is none that it could belong to",
                    "remove the blank",
                ))),
            }),
        }
    }
    records
}

fn words<'t>(
    line: &'t str,
    tokens: &mut Vec<Token<'t>>,
) -> Result<(), (&'static str, &'static str)> {
    let mut rest = line.trim_start_matches([' ', '\t']);
    while !rest.is_empty() && !rest.starts_with('#') {
        let quote = rest.chars().next().filter(|c| "\"'".contains(*c));
        if let Some(quote) = quote {
            let (text, after) = rest[1..].split_once(quote).ok_or((
                "unterminated string",
                "end it with the same quote on the same line",
            ))?;
            tokens.push(Token { text, quoted: true });
            rest = after;
        } else if rest.starts_with("0t") {
            tokens.push(Token {
                text: rest.trim_end(),
                quoted: false,
            });
            return Ok(());
        } else {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            bare(word, tokens);
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t']);
    }
    Ok(())
}

/// A word without quotes; a colon at its end is a word of its own.
fn bare<'t>(word: &'t str, tokens: &mut Vec<Token<'t>>) {
    let token = |text| Token {
        text,
        quoted: false,
    };
    match word.strip_suffix(':') {
        Some("") | None => tokens.push(token(word)),
        Some(before) => tokens.extend([token(before), token(":")]),
    }
}
