//! `config setup`: what holds for the daemon as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use super::files::{Entry, Section};
use super::values;
use crate::config::{Report, shorten};

/// What `config setup` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Setup {
    /// The one address that connections may have at this end.
    pub(crate) listen: Option<IpAddr>,
    /// A peer that comes from elsewhere replaces its former self.
    pub(crate) unique: bool,
    /// Ask every peer for a cookie.
    pub(crate) busy: bool,
    /// Half-open IKE SAs from which cookies are asked.
    pub(crate) cookie_threshold: Option<u64>,
    /// Half-open IKE SAs from which new ones are dropped.
    pub(crate) half_open_limit: Option<u64>,
    /// Where the secrets are.
    pub(crate) secrets: Option<PathBuf>,
    /// Where the NSS database is.
    pub(crate) nss: Option<PathBuf>,
    /// Where pluto's other files are.
    pub(crate) directory: Option<PathBuf>,
}

/// Values that ask for something that obol does not have, and that protects: with them the whole
/// configuration is refused.
const REFUSED: &[(&str, bool, &str)] = &[
    (
        "listen-tcp",
        true,
        "obol does not carry IKE over TCP, so peers could not reach it",
    ),
    ("listen-udp", false, "obol speaks IKE over UDP alone"),
    ("crl-strict", true, "obol has no certificates yet"),
    ("ocsp-strict", true, "obol has no certificates yet"),
    (
        "global-redirect",
        true,
        "obol redirects as redirect_to in obol.toml says",
    ),
];

/// What obol does in its own way.
const NOTED: &[(&str, &str)] = &[
    (
        "logfile",
        "obol logs to standard error, which systemd takes to the journal",
    ),
    ("logtime", "each line of the log has its time"),
    ("logappend", "obol writes no log file"),
    ("logip", "addresses of peers are in the log"),
    (
        "plutodebug",
        "log in obol.toml, or --log, says how much is logged",
    ),
    (
        "keep-alive",
        "obol keeps a mapping of a NAT alive by itself",
    ),
    ("shuntlifetime", "what is protected stays so until it is up"),
    (
        "nat-traversal",
        "obol looks for a NAT always, and does nothing about one that is not there",
    ),
];

/// Reads all `config setup` sections. A later value replaces an earlier one.
pub(crate) fn read(report: &Report<'_>, sections: &[Section]) -> Setup {
    let mut entries: HashMap<&str, &Entry> = HashMap::new();
    let setups = sections.iter().filter(|section| section.name.is_none());
    for entry in setups.flat_map(|section| &section.entries) {
        if let Some(first) = entries.insert(entry.key.keyword.word, entry) {
            let message = format!("{} replaces an earlier value", entry.written.value);
            report.warn(&first.written.place, message, "remove one of the two lines");
        }
    }
    let reader = Reader { report, entries };
    reader.remarks();
    let busy = reader.value("ddos-mode", |text| match text {
        "busy" => Ok(true),
        "auto" | "unlimited" => Ok(false),
        _ => Err("write auto, busy or unlimited".into()),
    });
    let path = |word| reader.value(word, |text| Ok(PathBuf::from(text)));
    Setup {
        listen: reader.value("listen", |text| {
            text.parse()
                .map_err(|_| "write one address of this host".to_owned())
        }),
        unique: reader.value("uniqueids", values::boolean).unwrap_or(true),
        busy: busy
            .or_else(|| reader.value("force-busy", values::boolean))
            .unwrap_or(false),
        cookie_threshold: reader.value("ddos-ike-threshold", number),
        half_open_limit: reader.value("max-halfopen-ike", number),
        secrets: path("secretsfile"),
        nss: path("nssdir"),
        directory: path("ipsecdir"),
    }
}

struct Reader<'r> {
    report: &'r Report<'r>,
    entries: HashMap<&'r str, &'r Entry>,
}

impl Reader<'_> {
    fn value<T>(&self, word: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let entry = self.entries.get(word)?;
        match parse(&entry.value.value) {
            Ok(value) => Some(value),
            Err(fix) => {
                let text = shorten(&entry.value.value);
                let message = format!("{}={text} is invalid", entry.written.value);
                self.report.error(&entry.value.place, message, fix);
                None
            }
        }
    }

    fn remarks(&self) {
        for (word, refused, why) in REFUSED {
            let refused = self.value(word, values::boolean) == Some(*refused);
            if refused && let Some(entry) = self.entries.get(word) {
                let message = format!("{}={} cannot be honoured: {why}", word, entry.value.value);
                self.report
                    .error(&entry.value.place, message, "remove the line");
            }
        }
        let mut idle: Vec<_> = self.entries.values().collect();
        idle.sort_by_key(|entry| (entry.written.place.source, entry.written.place.span.start));
        for entry in idle {
            let word = entry.key.keyword.word;
            let noted = NOTED.iter().find(|(noted, _)| *noted == word);
            if let Some(why) = entry.idle().or(noted.map(|(_, why)| *why)) {
                let message = format!("{word} has no effect: {why}");
                self.report.warn(&entry.written.place, message, "");
            }
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a number".to_owned())
}
