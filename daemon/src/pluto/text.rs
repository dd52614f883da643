//! The grammar of `ipsec.conf`: lines become sections with parameters. Nothing is understood yet,
//! and no other file is read.

use std::ops::Range;

/// What a file holds, in its order.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Sections and inclusions.
    pub(crate) items: Vec<Item>,
    /// Lines that are none of the grammar's.
    pub(crate) errors: Vec<SyntaxError>,
    /// The first line that ends in a carriage return, which is not part of any value.
    pub(crate) carriage_return: Option<Range<usize>>,
}

/// A part of a file.
#[derive(Debug)]
pub(crate) enum Item {
    /// `config setup` or `conn NAME`.
    Section(Section),
    /// `include PATTERN`.
    Include(Token),
}

/// A section with its parameters.
#[derive(Debug)]
pub(crate) struct Section {
    /// The name of a `conn`; `None` is `config setup`.
    pub(crate) name: Option<Token>,
    /// The header, as octets of the text.
    pub(crate) span: Range<usize>,
    /// The lines below it.
    pub(crate) body: Range<usize>,
    /// Its parameters in their order.
    pub(crate) parameters: Vec<Parameter>,
}

/// `KEY = VALUE`.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    /// As it is written.
    pub(crate) key: Token,
    /// Without quotes or braces; empty if there is none.
    pub(crate) value: Token,
}

/// A word of the text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    /// The word.
    pub(crate) text: String,
    /// Where it stands, as octets of the text.
    pub(crate) span: Range<usize>,
}

/// Why a line is none of the grammar's.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct SyntaxError {
    /// Where, as octets of the text.
    pub(crate) span: Range<usize>,
    /// What to change.
    pub(crate) fix: &'static str,
}

/// A line, or what is left of it.
#[derive(Clone, Copy)]
struct Rest<'t> {
    text: &'t str,
    at: usize,
}

/// Parses one file.
pub(crate) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut at = 0;
    for line in text.split('\n') {
        let mut rest = Rest { text: line, at };
        at += line.len() + 1;
        if let Some(without) = line.strip_suffix('\r') {
            rest.text = without;
            let end = rest.at + line.len();
            parsed.carriage_return.get_or_insert(end - 1..end);
        }
        if let Err(error) = parse_line(&mut parsed.items, rest) {
            parsed.errors.push(error);
        }
    }
    parsed
}

fn parse_line(items: &mut Vec<Item>, line: Rest<'_>) -> Result<(), SyntaxError> {
    let statement = line.skip_blanks();
    if statement.is_over() {
        return Ok(());
    }
    if statement.at == line.at {
        return header(items, line);
    }
    match items.last_mut() {
        Some(Item::Section(section)) => {
            section.parameters.extend(parameter(statement)?);
            Ok(())
        }
        _ => Err(statement.error("a parameter belongs below a `conn NAME` or `config setup`")),
    }
}

/// The items of one file, without the parameters of its sections. `knows` is asked about each keyword, in a
/// `conn` or not. `None`: a line is wrong, or remarkable.
pub(crate) fn outline(text: &str, mut knows: impl FnMut(bool, &str) -> bool) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut at = 0;
    for line in text.split('\n') {
        let line = Rest { text: line, at };
        at += line.text.len() + 1;
        let statement = line.skip_blanks();
        if line.text.ends_with('\r') {
            return None;
        } else if statement.is_over() {
            continue;
        } else if statement.at == line.at {
            header(&mut items, line).ok()?;
            continue;
        }
        let Some(Item::Section(section)) = items.last_mut() else {
            return None;
        };
        section.body.end = line.at + line.text.len();
        let in_conn = section.name.is_some();
        let is_known = match plain_key(statement.text) {
            Some(key) => key.starts_with("x-") || knows(in_conn, key),
            None => match parameter(statement).ok()? {
                Some(parameter) => knows(in_conn, &parameter.key.text),
                None => true,
            },
        };
        if !is_known {
            return None;
        }
    }
    Some(items)
}

/// The key of a parameter with a value that is one word without quotes; `None`: it may be anything.
fn plain_key(statement: &str) -> Option<&str> {
    let (key, value) = statement.split_once('=')?;
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    let blank = |octet: u8| matches!(octet, b' ' | b'\t');
    let first = value.bytes().next()?;
    let is_plain = !key.is_empty()
        && key.bytes().all(plain)
        && !matches!(first, b'"' | b'{' | b'#')
        && !value.bytes().any(blank);
    is_plain.then_some(key)
}

/// The parameters of a section that was found by an outline of its text.
pub(crate) fn parameters(text: &str, section: &Section) -> Vec<Parameter> {
    let mut found = Vec::new();
    let mut at = section.body.start;
    for line in text[section.body.clone()].split('\n') {
        let statement = Rest { text: line, at }.skip_blanks();
        at += line.len() + 1;
        if !statement.is_over() {
            found.extend(parameter(statement).ok().flatten());
        }
    }
    found
}

fn header(items: &mut Vec<Item>, line: Rest<'_>) -> Result<(), SyntaxError> {
    const FIX: &str = "at the start of a line is `config setup`, `conn NAME` or `include FILE`; indent parameters";
    let (word, rest) = line.bare_word();
    let (argument, rest) = rest.skip_blanks().value()?;
    let span = word.span.start..argument.span.end.max(word.span.end);
    if argument.text.is_empty() || !rest.ends_here() {
        return Err(SyntaxError { span, fix: FIX });
    }
    let over = line.at + line.text.len();
    let section = |name| {
        Item::Section(Section {
            name,
            span: span.clone(),
            body: over..over,
            parameters: Vec::new(),
        })
    };
    match (word.text.as_str(), argument.text.as_str()) {
        ("config", "setup") => items.push(section(None)),
        ("conn", _) => items.push(section(Some(argument))),
        ("include", _) => items.push(Item::Include(argument)),
        ("version", _) if items.is_empty() => {}
        _ => return Err(SyntaxError { span, fix: FIX }),
    }
    Ok(())
}

/// One parameter; none for comments of the user's own.
fn parameter(line: Rest<'_>) -> Result<Option<Parameter>, SyntaxError> {
    const FIX: &str = "write KEY=VALUE, and a value with blanks in it as KEY=\"VALUE\"";
    let length = line.text.find(['=', ' ', '\t']).unwrap_or(line.text.len());
    let (key, rest) = line.take(length);
    let rest = rest.skip_blanks();
    let Some(after) = rest.text.strip_prefix('=') else {
        return Err(line.error(match key.text.as_str() {
            "conn" | "config" | "include" => "remove the blanks before it: it starts a line",
            _ => FIX,
        }));
    };
    if key.text.starts_with("x-") || key.text.starts_with("x_") {
        return Ok(None);
    }
    let value = Rest {
        text: after,
        at: rest.at + 1,
    };
    let blank = value.skip_blanks();
    // What follows the sign at once is part of the value, also if it is a `#`.
    if blank.is_over() && (blank.at > value.at || blank.text.is_empty()) {
        let text = String::new();
        let span = value.at..value.at;
        let value = Token { text, span };
        return Ok(Some(Parameter { key, value }));
    }
    let (value, rest) = blank.value()?;
    match rest.ends_here() && !key.text.is_empty() {
        true => Ok(Some(Parameter { key, value })),
        false => Err(line.error(FIX)),
    }
}

impl<'t> Rest<'t> {
    fn skip_blanks(self) -> Self {
        let text = self.text.trim_start_matches([' ', '\t']);
        Rest {
            text,
            at: self.at + self.text.len() - text.len(),
        }
    }

    /// Nothing but a comment is left.
    fn is_over(self) -> bool {
        self.text.is_empty() || self.text.starts_with('#')
    }

    /// Behind a word: nothing is left, or blanks and perhaps a comment.
    fn ends_here(self) -> bool {
        self.text.is_empty() || (self.text.starts_with([' ', '\t']) && self.skip_blanks().is_over())
    }

    fn take(self, length: usize) -> (Token, Self) {
        let (text, rest) = self.text.split_at(length);
        let token = Token {
            text: text.to_owned(),
            span: self.at..self.at + length,
        };
        let rest = Rest {
            text: rest,
            at: self.at + length,
        };
        (token, rest)
    }

    fn bare_word(self) -> (Token, Self) {
        self.take(self.text.find([' ', '\t']).unwrap_or(self.text.len()))
    }

    /// A value: in quotes, in braces, or one word.
    fn value(self) -> Result<(Token, Self), SyntaxError> {
        let (open, close, fix) = match self.text.chars().next() {
            Some('"') => ('"', '"', "end the value with \" on the same line"),
            Some('{') => ('{', '}', "end the value with } on the same line"),
            _ => return Ok(self.bare_word()),
        };
        let inner = &self.text[open.len_utf8()..];
        let Some(length) = inner.find(close) else {
            return Err(self.error(fix));
        };
        if open == '{' && inner[..length].contains('"') {
            return Err(self.error("write no quotes between braces"));
        }
        let (_, rest) = self.take(open.len_utf8() + length + close.len_utf8());
        let token = Token {
            text: inner[..length].to_owned(),
            span: self.at..rest.at,
        };
        Ok((token, rest))
    }

    fn error(self, fix: &'static str) -> SyntaxError {
        SyntaxError {
            span: self.at..self.at + self.text.trim_end().len(),
            fix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections as `NAME: KEY=VALUE KEY=VALUE`, inclusions as `<PATTERN>`, errors by line.
    fn shape(text: &str) -> String {
        let parsed = parse(text);
        let mut shape: Vec<String> = Vec::new();
        for item in &parsed.items {
            match item {
                Item::Include(pattern) => shape.push(format!("<{}>", pattern.text)),
                Item::Section(section) => {
                    let name = section.name.as_ref().map_or("setup", |name| &name.text);
                    let parameters = section.parameters.iter();
                    let words: Vec<String> = parameters
                        .map(|p| format!(" {}={}", p.key.text, p.value.text))
                        .collect();
                    shape.push(format!("{name}:{}", words.concat()));
                }
            }
        }
        for error in &parsed.errors {
            let line = 1 + text[..error.span.start].matches('\n').count();
            shape.push(format!("!{line}"));
        }
        shape.join("; ")
    }

    #[test]
    fn sections_and_parameters() {
        let text = "version 2\n# c\nconfig setup\n\tplutodebug=none\n\nconn a # x\n  left=1.2.3.4\n\n  # c\n  right = %any  # c\ninclude /etc/*.conf\nconn b\n";
        assert_eq!(
            shape(text),
            "setup: plutodebug=none; a: left=1.2.3.4 right=%any; </etc/*.conf>; b:"
        );
    }

    #[test]
    fn values() {
        let table = [
            ("leftid=@#0a0b", "leftid=@#0a0b"),
            ("leftid=#x", "leftid=#x"),
            ("left=a#b", "left=a#b"),
            ("left=a #b", "left=a"),
            ("left= # b", "left="),
            ("left=", "left="),
            (
                "leftid=\"C=US, O=Ex Inc, CN=a\"",
                "leftid=C=US, O=Ex Inc, CN=a",
            ),
            ("leftsubnets={ a b }  # c", "leftsubnets= a b "),
            ("leftid=a\"b\"", "leftid=a\"b\""),
            ("LEFT=a", "LEFT=a"),
            ("x-note=any thing \" at all", ""),
            ("x_note = 1", ""),
        ];
        for (line, expected) in table {
            let expected = match expected {
                "" => String::from("a:"),
                _ => format!("a: {expected}"),
            };
            assert_eq!(shape(&format!("conn a\n\t{line}")), expected, "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_the_grammar() {
        let table = [
            ("left=10.0.0.1", "!1"),
            ("conn a\nleft=10.0.0.1\n right=b", "a: right=b; !2"),
            ("conn a\n left=10.0.0.1 10.0.0.2", "a:; !2"),
            ("conn a\n conn b\n", "a:; !2"),
            ("conn", "!1"),
            ("conn a b", "!1"),
            ("config setups", "!1"),
            (" left=a", "!1"),
            ("conn a\n left\n", "a:; !2"),
            ("conn a\n =b\n", "a:; !2"),
            ("conn a\n leftid=\"x\n", "a:; !2"),
            ("conn a\n leftid=\"x\"y\n", "a:; !2"),
            ("conn a\n leftsubnets={x \"y\"}\n", "a:; !2"),
            ("conn a\nversion 2\n", "a:; !2"),
            ("include x\n left=a", "<x>; !2"),
        ];
        for (text, expected) in table {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn carriage_returns_are_no_part_of_values() {
        let text = "conn a\r\n  left=1.2.3.4\r\n";
        assert_eq!(shape(text), "a: left=1.2.3.4");
        assert_eq!(parse(text).carriage_return, Some(6..7));
        assert_eq!(parse("conn a\n").carriage_return, None);
    }

    #[test]
    fn an_outline_has_the_same_sections_or_none() {
        let words = ["left", "right", "leftid", "leftsubnets", "plutodebug"];
        let text = "version 2\n# c\nconfig setup\n\tplutodebug=none\n\nconn a # x\n  left=1.2.3.4\n\n  # c\n  right = %any  # c\n\tx-a=b c\n\tx_b = c\ninclude /etc/*.conf\nconn b\n\tleftid=\"b c\"\n leftsubnets={a b} # c\n leftid=@#0a\n left=\n right=#x";
        let knows =
            |in_conn, word: &str| in_conn != (word == "plutodebug") && words.contains(&word);
        let items = outline(text, knows);
        let parsed = parse(text);
        let items = items.unwrap();
        assert_eq!(items.len(), parsed.items.len());
        for (item, whole) in items.iter().zip(&parsed.items) {
            match (item, whole) {
                (Item::Section(section), Item::Section(whole)) => {
                    assert_eq!((&section.name, &section.span), (&whole.name, &whole.span));
                    let found = parameters(text, section);
                    let parts = |all: &[Parameter]| -> Vec<(Token, Token)> {
                        all.iter()
                            .map(|p| (p.key.clone(), p.value.clone()))
                            .collect()
                    };
                    assert_eq!(parts(&found), parts(&whole.parameters));
                }
                (Item::Include(pattern), Item::Include(whole)) => assert_eq!(pattern, whole),
                other => panic!("{other:?}"),
            }
        }
        for text in [
            "conn a\n left=1\n lefd=2\n",
            "conn a\n plutodebug=2\n",
            "conn a\r\n",
            "conn a\n left=1\r\n",
            "left=1\n",
            " left=1\n",
            "conn a\n left=1 2\n",
            "conn a\n conn b\n",
            "conn a\n leftid=\"x\n",
            "conn a\n =x\n",
            "include x\n left=1\n",
            "conn a b\n",
        ] {
            assert!(outline(text, knows).is_none(), "{text}");
        }
    }

    #[test]
    fn spans_are_where_the_words_are() {
        let text = "conn a\n  leftid = \"b c\"\n";
        let parsed = parse(text);
        let Some(Item::Section(section)) = parsed.items.first() else {
            panic!("{parsed:?}");
        };
        let [parameter] = section.parameters.as_slice() else {
            panic!("{section:?}");
        };
        assert_eq!(&text[section.span.clone()], "conn a");
        assert_eq!(&text[parameter.key.span.clone()], "leftid");
        assert_eq!(&text[parameter.value.span.clone()], "\"b c\"");
    }
}
