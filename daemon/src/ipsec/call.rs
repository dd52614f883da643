//! What may be written after `ipsec`: `ipsec VERB NAME`, the older `ipsec auto --VERB NAME`, and
//! `ipsec whack`, in the forms that scripts use.

use std::path::PathBuf;

/// What is to be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    Help,
    Version,
    VersionCode,
    Unit(&'static str),
    Add,
    Delete,
    Up,
    /// Add, and bring up.
    Start,
    Down,
    Route,
    Unroute,
    /// All that the daemon does by itself, or that a reload does.
    Listen,
    Reread,
    RereadSecrets,
    Status,
    BriefStatus,
    GlobalStatus,
    ShowStates,
    ShuntStatus,
    TrafficStatus,
    ConnectionStatus,
    BriefConnectionStatus,
    /// About something that obol does not have: what pluto says without it.
    Without(&'static str),
    ListKeys,
    ListSecrets,
    RekeyIke,
    RekeyChild,
    /// Close the SA of this number.
    DeleteState(u64),
    CheckConfig,
    AddAll,
}

/// A command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) verb: Verb,
    pub(super) name: Option<String>,
    /// `--config`.
    pub(super) config: Option<PathBuf>,
    /// The directory of `--ctlsocket`, or `--rundir`.
    pub(super) rundir: Option<PathBuf>,
    /// Do not wait for the outcome.
    pub(super) asynchronous: bool,
    /// Written as `ipsec auto --VERB`.
    pub(super) by_auto: bool,
    /// Only say what would be done.
    pub(super) dry_run: bool,
    /// `--deletestate`.
    state: Option<u64>,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usage(pub(super) String);

/// Verbs, with whether they need the name of a connection.
const VERBS: &[(&str, Verb, Need)] = &[
    ("help", Verb::Help, Need::Nothing),
    ("version", Verb::Version, Need::Nothing),
    ("versioncode", Verb::VersionCode, Need::Nothing),
    ("start", Verb::Unit("start"), Need::May),
    ("stop", Verb::Unit("stop"), Need::Nothing),
    ("restart", Verb::Unit("restart"), Need::Nothing),
    ("condrestart", Verb::Unit("try-restart"), Need::Nothing),
    ("add", Verb::Add, Need::Name),
    ("replace", Verb::Add, Need::Name),
    ("delete", Verb::Delete, Need::Name),
    ("up", Verb::Up, Need::Name),
    ("initiate", Verb::Up, Need::Name),
    ("down", Verb::Down, Need::Name),
    ("terminate", Verb::Down, Need::Name),
    ("route", Verb::Route, Need::Name),
    ("ondemand", Verb::Route, Need::Name),
    ("unroute", Verb::Unroute, Need::Name),
    ("listen", Verb::Listen, Need::Nothing),
    ("ready", Verb::Listen, Need::Nothing),
    ("secrets", Verb::RereadSecrets, Need::Nothing),
    ("rereadsecrets", Verb::RereadSecrets, Need::Nothing),
    ("rereadcerts", Verb::Reread, Need::Nothing),
    ("rereadall", Verb::Reread, Need::Nothing),
    ("fetchcrls", Verb::Without(""), Need::Nothing),
    ("status", Verb::Status, Need::Nothing),
    ("briefstatus", Verb::BriefStatus, Need::Nothing),
    ("globalstatus", Verb::GlobalStatus, Need::Nothing),
    ("showstates", Verb::ShowStates, Need::Nothing),
    ("shuntstatus", Verb::ShuntStatus, Need::Nothing),
    ("trafficstatus", Verb::TrafficStatus, Need::May),
    ("connectionstatus", Verb::ConnectionStatus, Need::May),
    (
        "briefconnectionstatus",
        Verb::BriefConnectionStatus,
        Need::May,
    ),
    (
        "fipsstatus",
        Verb::Without("FIPS mode disabled"),
        Need::Nothing,
    ),
    (
        "addresspoolstatus",
        Verb::Without("address pools: none"),
        Need::Nothing,
    ),
    (
        "listcerts",
        Verb::Without("List of X.509 End Certificates:"),
        Need::Nothing,
    ),
    (
        "listcacerts",
        Verb::Without("List of X.509 CA Certificates:"),
        Need::Nothing,
    ),
    ("listcrls", Verb::Without("List of CRLs:"), Need::Nothing),
    ("listpubkeys", Verb::ListKeys, Need::Nothing),
    ("listall", Verb::ListKeys, Need::Nothing),
    ("listpsks", Verb::ListSecrets, Need::Nothing),
    ("listsecrets", Verb::ListSecrets, Need::Nothing),
    ("rekey-ike", Verb::RekeyIke, Need::Name),
    ("rekey-child", Verb::RekeyChild, Need::Name),
    ("rekey-ipsec", Verb::RekeyChild, Need::Name),
    ("checkconfig", Verb::CheckConfig, Need::Nothing),
];

/// Whether a verb takes a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Nothing,
    May,
    Name,
}

/// Options that all commands have, and that may come before the verb.
const COMMON: &[&str] = &[
    "config",
    "ctlsocket",
    "rundir",
    "asynchronous",
    "verbose",
    "dry-run",
];
/// Options of `whack` that are no verbs, and have a value.
const VALUES: &[&str] = &["remote-host", "oppohere", "oppothere"];
/// Those without a value that change nothing here.
const IGNORED: &[&str] = &["verbose", "utc", "autoall", "label"];

impl Call {
    fn new(verb: Verb) -> Self {
        Self {
            verb,
            name: None,
            config: None,
            rundir: None,
            asynchronous: false,
            by_auto: false,
            dry_run: false,
            state: None,
        }
    }

    /// Reads what is written after `ipsec`.
    ///
    /// # Errors
    /// Nothing, or nothing that is known.
    pub(super) fn read(arguments: &[String]) -> Result<Self, Usage> {
        let (first, rest) = arguments
            .split_first()
            .ok_or_else(|| Usage("Usage: ipsec COMMAND [ARGUMENT]...".to_owned()))?;
        if ["-n", "--dry-run"].contains(&first.as_str()) && !rest.is_empty() {
            let call = Self::read(rest)?;
            return Ok(Self {
                dry_run: true,
                ..call
            });
        }
        match first.as_str() {
            "auto" => Self::of_options(rest, "auto "),
            "whack" => Self::of_options(rest, "whack "),
            "addconn" => Self::addconn(rest),
            "setup" => match rest.first().map(String::as_str) {
                Some("start" | "stop" | "restart" | "condrestart" | "status") => Self::read(rest),
                _ => Err(Usage(
                    "Usage: ipsec setup {start|stop|restart|status}".to_owned(),
                )),
            },
            // `ipsec --config FILE --up NAME`: as with `auto`, of which 5.x makes no more than that.
            option if COMMON.iter().any(|common| is_option(option, common)) => {
                Self::of_options(arguments, "")
            }
            // A connection may have any name, so only options are looked for behind the verb.
            verb => {
                let word = verb.strip_prefix("--").unwrap_or(verb);
                let (_, verb, need) = find(word).ok_or_else(|| {
                    Usage(format!(
                        "ipsec: unknown IPsec command \"{verb}\" (\"ipsec help\" for list)"
                    ))
                })?;
                let mut call = Self::new(*verb);
                call.options(rest, |_| false)?;
                call.finish(word, *need)
            }
        }
    }

    /// `ipsec auto`, `ipsec whack`, or without a program between, whose verbs are options.
    fn of_options(arguments: &[String], program: &str) -> Result<Self, Usage> {
        let mut call = Self::new(Verb::Help);
        let mut found: Option<(&'static str, Verb, Need)> = None;
        call.options(arguments, |option| {
            let verb = match option {
                "shutdown" => find("stop"),
                "list" => find("listpubkeys"),
                other => find(other),
            };
            found = found.or(verb.copied());
            verb.is_some()
        })?;
        call.by_auto = program == "auto ";
        let state = call
            .state
            .map(|number| ("deletestate", Verb::DeleteState(number), Need::Nothing));
        let (word, verb, mut need) = found
            .or(state)
            .ok_or_else(|| Usage(format!("Usage: ipsec {program}--VERB [NAME]")))?;
        if verb == Verb::Unit("start") {
            need = Need::Name;
        }
        call.verb = verb;
        call.finish(word, need)
    }

    fn addconn(arguments: &[String]) -> Result<Self, Usage> {
        let mut call = Self::new(Verb::AddAll);
        let mut check = false;
        call.options(arguments, |option| {
            check |= option == "checkconfig";
            option == "checkconfig"
        })?;
        match (check, call.name.is_some()) {
            (true, _) => call.verb = Verb::CheckConfig,
            (false, true) => call.verb = Verb::Add,
            (false, false) => {}
        }
        Ok(call)
    }

    /// Reads options; those that `is_verb` does not know are common to all.
    fn options(
        &mut self,
        arguments: &[String],
        mut is_verb: impl FnMut(&str) -> bool,
    ) -> Result<(), Usage> {
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let option = argument.strip_prefix("--");
            let Some(option) = option.or_else(|| argument.strip_prefix('-')) else {
                if self.name.replace(argument.clone()).is_some() {
                    return Err(Usage(format!("ipsec: unexpected argument \"{argument}\"")));
                }
                continue;
            };
            let (option, given) = match option.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (option, None),
            };
            let mut value = || {
                given
                    .clone()
                    .or_else(|| arguments.next().cloned())
                    .ok_or_else(|| Usage(format!("ipsec: --{option} needs a value")))
            };
            match option {
                "config" => self.config = Some(value()?.into()),
                "rundir" => self.rundir = Some(value()?.into()),
                "ctlsocket" => {
                    let socket = PathBuf::from(value()?);
                    self.rundir = socket.parent().map(Into::into);
                }
                "name" => self.name = Some(value()?),
                "deletestate" => {
                    let number = value()?.trim_start_matches('#').parse();
                    let number = number.map_err(|_| {
                        Usage("ipsec: --deletestate needs the number of an SA".to_owned())
                    })?;
                    self.state = Some(number);
                }
                "asynchronous" => self.asynchronous = true,
                "n" | "dry-run" => self.dry_run = true,
                option if VALUES.contains(&option) => drop(value()?),
                option if IGNORED.contains(&option) => {}
                option if is_verb(option) => {}
                _ => return Err(Usage(format!("ipsec: unrecognized option \"{argument}\""))),
            }
        }
        Ok(())
    }

    /// What would be done, where only that is to be said and something would.
    pub(super) fn would(&self) -> Option<String> {
        let name = self.name.as_deref().unwrap_or_default();
        let what = match self.verb {
            Verb::Unit(word) => format!("{word} the service"),
            Verb::Add => format!("load \"{name}\" as the files have it now"),
            Verb::Delete => format!("close \"{name}\" and unload it"),
            Verb::Up => format!("bring up \"{name}\""),
            Verb::Start => format!("load \"{name}\" as the files have it now, and bring it up"),
            Verb::Down => format!("close \"{name}\""),
            Verb::Route => format!("have packets ask for \"{name}\""),
            Verb::Unroute => format!("have no packet ask for \"{name}\""),
            Verb::Listen => "look at the addresses of this host again".to_owned(),
            Verb::Reread | Verb::AddAll => "read the files again".to_owned(),
            Verb::RereadSecrets => "read the secrets again".to_owned(),
            Verb::RekeyIke => format!("rekey the IKE SA of \"{name}\""),
            Verb::RekeyChild => format!("rekey \"{name}\""),
            Verb::DeleteState(number) => format!("close SA #{number}"),
            Verb::Help
            | Verb::Version
            | Verb::VersionCode
            | Verb::Status
            | Verb::BriefStatus
            | Verb::GlobalStatus
            | Verb::ShowStates
            | Verb::ShuntStatus
            | Verb::TrafficStatus
            | Verb::ConnectionStatus
            | Verb::BriefConnectionStatus
            | Verb::Without(_)
            | Verb::ListKeys
            | Verb::ListSecrets
            | Verb::CheckConfig => return None,
        };
        self.dry_run.then(|| format!("dry run: would {what}"))
    }

    fn finish(mut self, word: &str, need: Need) -> Result<Self, Usage> {
        if self.verb == Verb::Unit("start") && self.name.is_some() {
            self.verb = Verb::Start;
        }
        match (need, &self.name) {
            (Need::Name, None) => Err(Usage(format!(
                "ipsec: \"{word}\" needs the name of a connection"
            ))),
            (Need::Nothing, Some(name)) => Err(Usage(format!(
                "ipsec: \"{word}\" takes no name, and there is \"{name}\""
            ))),
            _ => Ok(self),
        }
    }
}

/// Whether an argument is this option, perhaps with its value.
fn is_option(argument: &str, name: &str) -> bool {
    let rest = argument.strip_prefix("--");
    let rest = rest.and_then(|rest| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
}

fn find(word: &str) -> Option<&'static (&'static str, Verb, Need)> {
    VERBS.iter().find(|(known, ..)| *known == word)
}

/// The commands, for `ipsec help`.
pub(super) fn list() -> impl Iterator<Item = &'static str> {
    let verbs = VERBS.iter().map(|(word, ..)| *word);
    verbs.chain(["newhostkey", "showhostkey", "auto", "whack", "setup"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, Usage> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Call::read(&arguments)
    }

    #[test]
    fn three_ways_to_say_the_same() {
        for line in [
            "up a-b",
            "auto --up a-b",
            "whack --initiate --name a-b",
            "whack --name a-b --initiate",
            "--config=/x --ctlsocket /run/pluto/pluto.ctl --up a-b",
        ] {
            let call = read(line).unwrap();
            assert_eq!(call.verb, Verb::Up, "{line}");
            assert_eq!(call.name.as_deref(), Some("a-b"), "{line}");
        }
        for line in [
            "start a-b",
            "auto --config /x --ctlsocket /run/pluto/pluto.ctl --start --asynchronous a-b",
            "--ctlsocket /run/pluto/pluto.ctl --start a-b",
        ] {
            let call = read(line).unwrap();
            assert_eq!(call.verb, Verb::Start, "{line}");
            assert_eq!(call.name.as_deref(), Some("a-b"), "{line}");
        }
        assert!(!read("--rundir /x --status").unwrap().by_auto);
        let call = read("auto --ctlsocket /run/x/pluto.ctl --asynchronous --up a").unwrap();
        assert_eq!(call.rundir, Some("/run/x".into()));
        assert!(call.asynchronous && call.by_auto);
        assert_eq!(read("setup start").unwrap().verb, Verb::Unit("start"));
        assert_eq!(read("--versioncode").unwrap().verb, Verb::VersionCode);
        assert_eq!(read("whack --shutdown").unwrap().verb, Verb::Unit("stop"));
        for line in [
            "whack --deletestate 7",
            "whack --deletestate=7",
            "whack --deletestate #7",
        ] {
            assert_eq!(read(line).unwrap().verb, Verb::DeleteState(7), "{line}");
        }
        for (line, verb) in [
            ("whack --rekey-ike --name a-b", Verb::RekeyIke),
            ("whack --rekey-child --name a-b", Verb::RekeyChild),
            ("whack --name a-b --rekey-ipsec", Verb::RekeyChild),
            ("auto --rekey-ike a-b", Verb::RekeyIke),
        ] {
            let call = read(line).unwrap();
            assert_eq!(
                (call.verb, call.name.as_deref()),
                (verb, Some("a-b")),
                "{line}"
            );
        }
        assert_eq!(read("whack --listpsks").unwrap().verb, Verb::ListSecrets);
        assert_eq!(
            read("addconn --checkconfig --config=/x").unwrap().verb,
            Verb::CheckConfig
        );
    }

    #[test]
    fn a_dry_run_is_none_whatever_is_to_be_done() {
        for (verb, _, need) in VERBS {
            let name = if *need == Need::Name { " a-b" } else { "" };
            let forms = [
                format!("-n {verb}{name}"),
                format!("--dry-run {verb}{name}"),
                format!("{verb} -n{name}"),
                format!("{verb}{name} --dry-run"),
            ];
            for line in forms {
                assert!(read(&line).unwrap().dry_run, "{line}");
            }
        }
        for line in [
            "auto --dry-run --delete a-b",
            "auto -n --delete a-b",
            "auto --delete a-b -n",
            "-n auto --delete a-b",
            "whack -n --delete --name a-b",
            "--dry-run --delete a-b",
        ] {
            let would = read(line).unwrap().would();
            let expected = "dry run: would close \"a-b\" and unload it";
            assert_eq!(would.as_deref(), Some(expected), "{line}");
        }
        assert_eq!(read("delete a-b").unwrap().would(), None);
        assert_eq!(read("status -n").unwrap().would(), None);
        assert!(read("setup -n stop").is_err());
        let down = read("auto --down -n a").unwrap().would();
        assert_eq!(down.as_deref(), Some("dry run: would close \"a\""));
        let stop = read("stop -n").unwrap().would();
        assert_eq!(stop.as_deref(), Some("dry run: would stop the service"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("", "Usage: ipsec COMMAND"),
            ("frob", "unknown IPsec command \"frob\""),
            ("up", "needs the name"),
            ("auto a-b", "Usage: ipsec auto --VERB"),
            ("auto --start", "needs the name"),
            ("--config /x", "Usage: ipsec --VERB"),
            ("whack --deletestate", "needs a value"),
            ("whack --deletestate x", "needs the number"),
            ("whack --rekey-ike", "needs the name"),
            ("status a-b", "takes no name"),
            ("up a b", "unexpected argument \"b\""),
            ("up a --frob", "\"--frob\""),
            ("up a --config", "needs a value"),
        ] {
            let Usage(text) = read(line).unwrap_err();
            assert!(text.contains(word), "{line}: {text}");
        }
    }
}
