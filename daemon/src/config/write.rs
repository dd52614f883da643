//! Writing obol's own configuration: what the translators of other daemons' files share.

use std::fmt;

/// A text in TOML that grows by lines.
pub(crate) trait Lines {
    /// Adds a line.
    fn line(&mut self, line: fmt::Arguments<'_>);

    /// Adds a key with a text.
    fn text(&mut self, key: &str, value: &str) {
        self.line(format_args!("{key} = {}", quoted(value)));
    }

    /// Adds a key with a list of texts.
    fn list<T: fmt::Display>(&mut self, key: &str, values: impl IntoIterator<Item = T>) {
        self.line(format_args!("{key} = {}", listed(values)));
    }
}

/// A list of texts as TOML has it.
pub(crate) fn listed<T: fmt::Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values
        .into_iter()
        .map(|value| quoted(&value.to_string()))
        .collect();
    format!("[{}]", values.join(", "))
}

/// A text as TOML has it.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |octet: u8| matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
    if text.bytes().all(plain) {
        return format!("\"{text}\"");
    }
    toml::Value::from(text).to_string()
}

/// A name in a path of keys: in quotes if it has a dot.
pub(crate) fn key(name: &str) -> String {
    match name.contains('.') {
        true => quoted(name),
        false => name.to_owned(),
    }
}

/// Whether names of connections and children may have it.
pub(crate) fn fits_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A name with nothing in it that obol does not take, and so long at most.
pub(crate) fn clean(name: &str, longest: usize) -> String {
    let clean = name.chars().map(|c| if fits_name(c) { c } else { '-' });
    clean.take(longest).collect()
}
