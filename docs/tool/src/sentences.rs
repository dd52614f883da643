//! Sentences with a key word of RFC 2119 in the text of an RFC, counted by section: what a list of
//! requirements must have an entry for.

use std::collections::BTreeMap;

/// The key words; what negates them follows them.
const KEY_WORDS: [&str; 5] = ["MUST", "SHALL", "SHOULD", "REQUIRED", "RECOMMENDED"];

/// How many such sentences each section of an RFC has, of those that have some. The text is the
/// plain one, with page breaks, headers and footers.
#[must_use]
pub fn count(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (section, lines) in sections(text) {
        let sentences: usize = paragraphs(&lines)
            .iter()
            .map(|text| in_paragraph(text))
            .sum();
        if sentences > 0 {
            *counts.entry(section).or_default() += sentences;
        }
    }
    counts
}

/// The lines of each section, without those that pages add.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    for (number, page) in text.split('\u{c}').enumerate() {
        for line in page_lines(page, number > 0) {
            match heading(line) {
                Some(section) => sections.push((section, Vec::new())),
                None => sections.last_mut().expect("one").1.push(line),
            }
        }
    }
    sections
}

fn page_lines(page: &str, has_header: bool) -> Vec<&str> {
    let mut lines: Vec<&str> = page
        .lines()
        .map(|line| line.trim_end_matches('\r'))
        .collect();
    let is_blank = |line: Option<&&str>| line.is_some_and(|line| line.trim().is_empty());
    while is_blank(lines.first()) {
        lines.remove(0);
    }
    if has_header && lines.first().is_some_and(|line| line.starts_with("RFC ")) {
        lines.remove(0);
    }
    while is_blank(lines.last()) {
        lines.pop();
    }
    if lines.last().is_some_and(|line| line.contains("[Page ")) {
        lines.pop();
    }
    while is_blank(lines.last()) {
        lines.pop();
    }
    while is_blank(lines.first()) {
        lines.remove(0);
    }
    lines
}

/// The number of the section that a line begins, unless it is one of the table of contents.
fn heading(line: &str) -> Option<String> {
    let (number, title) = match line.strip_prefix("Appendix ") {
        Some(rest) => rest.split_once([' ', ':', '.'])?,
        None => line.split_once(' ')?,
    };
    let number = number.trim_end_matches(['.', ':']);
    let is_number = number.split('.').all(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits || part.len() == 1 && part.bytes().all(|b| b.is_ascii_uppercase())
    });
    let appendix = number
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_uppercase());
    let is_heading =
        is_number && (!appendix || line.starts_with("Appendix ") || number.contains('.'));
    let in_contents = title.contains(". .")
        || title.contains("..")
        || title.ends_with(|c: char| c.is_ascii_digit());
    let title_follows = title.trim_start().len() + 3 > title.len();
    (is_heading && !in_contents && title_follows && !title.trim().is_empty())
        .then(|| number.to_owned())
}

/// Joined lines, with a paragraph that a page break has cut put together again.
fn paragraphs(lines: &[&str]) -> Vec<String> {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut blank = true;
    for line in lines {
        let text = line.trim();
        if text.is_empty() {
            blank = true;
            continue;
        }
        let goes_on = paragraphs.last().is_some_and(|last| {
            !last.ends_with(['.', ':', ';', ')', '!', '?', '"'])
                && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '(')
        });
        match paragraphs.last_mut() {
            Some(last) if !blank || goes_on => {
                last.push(' ');
                last.push_str(text);
            }
            _ => paragraphs.push(text.to_owned()),
        }
        blank = false;
    }
    paragraphs
}

fn in_paragraph(text: &str) -> usize {
    let mut sentences = 0;
    let mut start = 0;
    for (at, _) in text.match_indices(['.', '!', '?']) {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix(['"', ')']).unwrap_or(rest);
        let next = rest.trim_start();
        let ends = next.len() < rest.len()
            && next.starts_with(|c: char| c.is_ascii_uppercase() || "\"([".contains(c));
        if ends {
            sentences += usize::from(has_key_word(&text[start..=at]));
            start = at + 1;
        }
    }
    sentences + usize::from(has_key_word(&text[start..]))
}

fn has_key_word(sentence: &str) -> bool {
    let mut words = sentence.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.any(|word| KEY_WORDS.contains(&word))
}
