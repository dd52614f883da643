//! Scripts become statements of words. Nothing is understood yet.

use std::ops::Range;

/// A word of the text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Word {
    /// As it is written, without quotes.
    pub(crate) text: String,
    /// Where it stands, as octets of the text.
    pub(crate) span: Range<usize>,
    /// It stands in quotes, as keys do.
    pub(crate) quoted: bool,
}

/// What stands before a `;`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Words {
    /// At least one.
    pub(crate) words: Vec<Word>,
    /// All of it, as octets of the text.
    pub(crate) span: Range<usize>,
}

/// What is wrong at a place, and what to change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Wrong {
    /// Where, as octets of the text.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: String,
    /// What to change.
    pub(crate) fix: String,
}

impl Wrong {
    /// Something about a place.
    pub(crate) fn new(
        span: &Range<usize>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            span: span.clone(),
            message: message.into(),
            fix: fix.into(),
        }
    }

    /// setkey's own words for a word that does not belong where it is.
    pub(crate) fn syntax(word: &Word, fix: impl Into<String>) -> Self {
        let shown = if looks_secret(word) {
            "a key"
        } else {
            &word.text
        };
        Self::new(&word.span, format!("syntax error at [{shown}]"), fix)
    }
}

/// Splits a script into its statements.
pub(crate) fn split(text: &str) -> (Vec<Words>, Vec<Wrong>) {
    let mut statements = Vec::new();
    let mut wrong = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len();
        match rest.chars().next() {
            None => break,
            Some('#') => rest = &rest[rest.find('\n').unwrap_or(rest.len())..],
            Some(';') => {
                rest = &rest[1..];
                statements.extend(statement(std::mem::take(&mut words)));
            }
            Some('"') => {
                let inner = &rest[1..];
                let end = inner.find(['"', '\n']).unwrap_or(inner.len());
                if !inner[end..].starts_with('"') {
                    let fix = "end it with \" on the same line";
                    wrong.push(Wrong::new(&(at..at + 1), "a text without end", fix));
                }
                let length = (end + 2).min(rest.len());
                words.push(Word {
                    text: inner[..end].to_owned(),
                    span: at..at + length,
                    quoted: true,
                });
                rest = &rest[length..];
            }
            Some(_) => {
                let ends = |c: char| c.is_whitespace() || c == ';' || c == '#';
                let length = rest.find(ends).unwrap_or(rest.len());
                words.push(Word {
                    text: rest[..length].to_owned(),
                    span: at..at + length,
                    quoted: false,
                });
                rest = &rest[length..];
            }
        }
    }
    if let Some(last) = words.last() {
        let message = "the last statement has no end";
        wrong.push(Wrong::new(&last.span, message, "write ; behind it"));
        statements.extend(statement(words));
    }
    (statements, wrong)
}

fn statement(words: Vec<Word>) -> Option<Words> {
    let span = words.first()?.span.start..words.last()?.span.end;
    Some(Words { words, span })
}

/// Whether a word may be a key, which nobody is to see.
fn looks_secret(word: &Word) -> bool {
    let text = word.text.as_str();
    let digits = text.trim_start_matches("0x");
    word.quoted || (digits.len() > 15 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The same text with keys made unreadable, octet by octet, for excerpts.
pub(crate) fn without_keys(text: &str) -> String {
    let (statements, _) = split(text);
    let mut octets = text.as_bytes().to_vec();
    for statement in &statements {
        // `-E ALGORITHM KEY`: what an algorithm is called is no secret.
        let mut since_flag = 3;
        for word in &statement.words {
            since_flag += 1;
            if ["-E", "-A"].contains(&word.text.as_str()) {
                since_flag = 0;
            } else if since_flag == 2 || looks_secret(word) {
                octets[word.span.clone()].fill(b'x');
            }
        }
    }
    // Only whole words were replaced, and by ASCII.
    String::from_utf8(octets).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with blanks between them, statements with ` | `, errors with their octet.
    fn shape(text: &str) -> String {
        let (statements, wrong) = split(text);
        let mut parts: Vec<String> = Vec::new();
        for statement in &statements {
            let words: Vec<&str> = statement.words.iter().map(|w| w.text.as_str()).collect();
            parts.push(words.join(" "));
        }
        parts.extend(wrong.iter().map(|w| format!("!{}", w.span.start)));
        parts.join(" | ")
    }

    #[test]
    fn statements_and_comments() {
        let table = [
            (
                "#!/usr/sbin/setkey -f\nflush;\nspdflush;\n",
                "flush | spdflush",
            ),
            ("spdadd a\n  b # c ; d\n any;", "spdadd a b any"),
            ("flush;spdflush;;", "flush | spdflush"),
            ("flush", "flush | !0"),
            ("add -E x \"a;b # c\";", "add -E x a;b # c"),
            ("add \"a\nb;", "add a b | !4"),
            ("", ""),
            ("# only", ""),
            ("flush;\r\nspdflush;\r\n", "flush | spdflush"),
        ];
        for (text, expected) in table {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn keys_are_made_unreadable() {
        let text = "add a b esp 0x1000 -E aes-cbc 0x00112233445566778899aabbccddeeff -A hmac-sha1 \"sesam öffne dich, bitte\" ;\nspdadd 10.0.0.0/16 b tcp;";
        let shown = without_keys(text);
        assert_eq!(shown.len(), text.len());
        for part in ["0011", "sesam", "dich"] {
            assert!(!shown.contains(part), "{shown}");
        }
        for part in ["0x1000", "-E aes-cbc xxx", "spdadd 10.0.0.0/16 b tcp"] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}
