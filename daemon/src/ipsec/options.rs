//! The options of pluto's commands for keys: `--name`, `--name VALUE` and `--name=VALUE`.

use std::path::PathBuf;
use std::slice::Iter;

/// What was written, an option at a time.
pub(super) struct Options<'a> {
    rest: Iter<'a, String>,
    name: &'a str,
    given: Option<&'a str>,
}

impl<'a> Options<'a> {
    pub(super) fn new(arguments: &'a [String]) -> Self {
        let rest = arguments.iter();
        Self {
            rest,
            name: "",
            given: None,
        }
    }

    /// The next option's name.
    pub(super) fn next(&mut self) -> Option<&'a str> {
        let argument = self.rest.next()?;
        (self.name, self.given) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), None),
        };
        Some(self.name)
    }

    /// The value of that option: what is behind its `=`, or the next argument.
    pub(super) fn value(&mut self) -> Result<&'a str, String> {
        let value = self.given.or_else(|| self.rest.next().map(String::as_str));
        value.ok_or_else(|| format!("{} needs a value", self.name))
    }

    /// The value as the directory of an NSS database, which may be written as NSS' own programs want it.
    pub(super) fn directory(&mut self) -> Result<PathBuf, String> {
        let directory = self.value()?;
        Ok(directory.strip_prefix("sql:").unwrap_or(directory).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_value() {
        let arguments =
            ["--bits", "4096", "--nssdir=sql:/etc/x=y", "--quiet", "-d"].map(String::from);
        let mut options = Options::new(&arguments);
        assert_eq!(options.next(), Some("--bits"));
        assert_eq!(options.value(), Ok("4096"));
        assert_eq!(options.next(), Some("--nssdir"));
        assert_eq!(options.directory(), Ok("/etc/x=y".into()));
        assert_eq!(options.next(), Some("--quiet"));
        assert_eq!(options.next(), Some("-d"));
        assert_eq!(options.value(), Err("-d needs a value".to_owned()));
        assert_eq!(options.next(), None);
    }
}
