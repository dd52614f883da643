//! The grammar of `racoon.conf`: statements of words, some with a block of statements.

use std::ops::Range;

/// Blocks within blocks. racoon has two.
const DEEPEST: usize = 8;

/// A statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Node {
    /// At least one.
    pub(crate) words: Vec<Token>,
    /// What stands between braces, if there are any.
    pub(crate) block: Option<Vec<Node>>,
    /// Its words, as octets of the text.
    pub(crate) span: Range<usize>,
}

/// A word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    /// Without quotes or brackets.
    pub(crate) text: String,
    /// Where it stands, as octets of the text.
    pub(crate) span: Range<usize>,
    /// What it is.
    pub(crate) kind: TokenKind,
}

/// What a word is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenKind {
    /// A keyword, an address, a number.
    Word,
    /// A text in quotes.
    Quoted,
    /// A port in brackets.
    Port,
}

/// Why a text is none of the grammar's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SyntaxError {
    /// Where, as octets of the text.
    pub(crate) span: Range<usize>,
    /// What stands there.
    pub(crate) token: String,
    /// What to change.
    pub(crate) fix: &'static str,
}

enum Piece {
    Token(Token),
    Open(usize),
    Close(usize),
    End,
}

/// Parses one file; stops at the first error, behind which all would be guesses.
///
/// # Errors
/// It is none of the grammar's.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let mut blocks: Vec<Vec<Node>> = vec![Vec::new()];
    // The statements whose blocks are open.
    let mut owners: Vec<(Vec<Token>, usize)> = Vec::new();
    let mut words: Vec<Token> = Vec::new();
    let mut at = 0;
    while let Some((piece, next)) = piece(text, at)? {
        at = next;
        match piece {
            Piece::Token(token) => words.push(token),
            Piece::Open(place) => {
                if words.is_empty() || owners.len() == DEEPEST {
                    return Err(error(
                        text,
                        place,
                        "a block belongs to a statement, as in remote anonymous { ... }",
                    ));
                }
                owners.push((std::mem::take(&mut words), place));
                blocks.push(Vec::new());
            }
            Piece::End => {
                // An empty statement does no harm.
                if let (Some(node), Some(block)) =
                    (node(std::mem::take(&mut words), None), blocks.last_mut())
                {
                    block.push(node);
                }
            }
            Piece::Close(place) => {
                if let Some(last) = words.last() {
                    return Err(error(text, last.span.start, "write ; behind it"));
                }
                let (Some((owner, _)), Some(block)) = (owners.pop(), blocks.pop()) else {
                    return Err(error(text, place, "remove it: no block is open"));
                };
                if let (Some(node), Some(outer)) = (node(owner, Some(block)), blocks.last_mut()) {
                    outer.push(node);
                }
            }
        }
    }
    if let Some(last) = words.last() {
        return Err(error(text, last.span.start, "write ; behind it"));
    }
    if let Some((_, place)) = owners.last() {
        return Err(error(text, *place, "write } where this block ends"));
    }
    Ok(blocks.pop().unwrap_or_default())
}

fn node(words: Vec<Token>, block: Option<Vec<Node>>) -> Option<Node> {
    let span = words.first()?.span.start..words.last()?.span.end;
    Some(Node { words, block, span })
}

/// The next piece of a text, and where the one behind it begins.
fn piece(text: &str, mut at: usize) -> Result<Option<(Piece, usize)>, SyntaxError> {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        let one = at + first.len_utf8();
        let found = match first {
            '#' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            // Members of lists may have commas between them.
            c if c.is_whitespace() || c == ',' => {
                at = one;
                continue;
            }
            ';' => (Piece::End, one),
            '{' => (Piece::Open(at), one),
            '}' => (Piece::Close(at), one),
            '"' => enclosed(
                text,
                at,
                '"',
                TokenKind::Quoted,
                "end the text with \" on the same line",
            )?,
            '[' => enclosed(text, at, ']', TokenKind::Port, "close the port with ]")?,
            ']' => return Err(error(text, at, "write [ before the port")),
            _ => {
                let ends = |c: char| c.is_whitespace() || "{};,\"[]#".contains(c);
                let length = rest.find(ends).unwrap_or(rest.len());
                (
                    token(rest, at, 0..length, length, TokenKind::Word),
                    at + length,
                )
            }
        };
        return Ok(Some(found));
    }
}

fn enclosed(
    text: &str,
    at: usize,
    close: char,
    kind: TokenKind,
    fix: &'static str,
) -> Result<(Piece, usize), SyntaxError> {
    let rest = text.get(at..).unwrap_or_default();
    let inner = rest.get(1..).unwrap_or_default();
    match inner.find([close, '\n']) {
        Some(length) if inner[length..].starts_with(close) => {
            let whole = length + 2;
            Ok((token(rest, at, 1..1 + length, whole, kind), at + whole))
        }
        _ => Err(error(text, at, fix)),
    }
}

fn token(rest: &str, at: usize, inner: Range<usize>, length: usize, kind: TokenKind) -> Piece {
    Piece::Token(Token {
        text: rest.get(inner).unwrap_or_default().to_owned(),
        span: at..at + length,
        kind,
    })
}

fn error(text: &str, at: usize, fix: &'static str) -> SyntaxError {
    let rest = text.get(at..).unwrap_or_default();
    let ends = |c: char| c.is_whitespace() || "{};".contains(c);
    let length = rest
        .find(ends)
        .filter(|length| *length > 0)
        .unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8));
    SyntaxError {
        span: at..at + length,
        token: rest.get(..length).unwrap_or_default().to_owned(),
        fix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nodes: &[Node]) -> String {
        let one = |node: &Node| {
            let words: Vec<String> = node
                .words
                .iter()
                .map(|word| match word.kind {
                    TokenKind::Word => word.text.clone(),
                    TokenKind::Quoted => format!("'{}'", word.text),
                    TokenKind::Port => format!("[{}]", word.text),
                })
                .collect();
            match &node.block {
                None => format!("{};", words.join(" ")),
                Some(block) => format!("{}{{{}}}", words.join(" "), shape(block)),
            }
        };
        nodes.iter().map(one).collect()
    }

    fn parsed(text: &str) -> String {
        match parse(text) {
            Ok(nodes) => shape(&nodes),
            Err(e) => format!("!{} {}", e.span.start, e.token),
        }
    }

    #[test]
    fn statements_and_blocks() {
        let table = [
            (
                "log debug; # c\npath include \"/a;b\";",
                "log debug;path include '/a;b';",
            ),
            (
                "remote 10.0.0.1[500]{a b,c;proposal{d;}}",
                "remote 10.0.0.1 [500]{a b c;proposal{d;}}",
            ),
            ("sainfo anonymous { };;x;", "sainfo anonymous{}x;"),
            ("", ""),
            ("a", "!0 a"),
            ("a { b }", "!4 b"),
            ("a { b;", "!2 {"),
            ("}", "!0 }"),
            ("{ a; }", "!0 {"),
            ("a \"b\nc\";", "!2 \"b"),
            ("a [5;", "!2 [5"),
            ("a 5];", "!3 ]"),
            ("a{a{a{a{a{a{a{a{a{", "!17 {"),
        ];
        for (text, expected) in table {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }
}
