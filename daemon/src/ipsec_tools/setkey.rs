//! `setkey`: policies that hold from now on, with or without a daemon.

use std::fs::{DirBuilder, File};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::enforce::enforce;
use super::when::Clock;
use super::{COMPATIBLE, Ended, Here, service, spd, usage};
use crate::cli::{complain_line, print_line, print_text};
use crate::config::{ConfigErrors, Finding};
use crate::control::protocol::{DownReport, DownTarget, ReloadReport, Request, StatusReport};
use crate::error::{ExitClass, Failure};
use crate::racoon::script::{self, List, Outcome};
use crate::racoon::{Names, Store, closed};
use crate::run::Lock;

const USAGE: &str = "\
usage: setkey [-v] file ...
       setkey [-nv] -c
       setkey [-nv] -f filename
       setkey [-v] -D[P] [-a]
       setkey [-v] -F[P]
       setkey [-h] [-V]
";

/// How long peers have to confirm that SAs are closed.
const FAREWELL: u64 = 5_000;
/// How long a daemon may take to begin, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
enum Do {
    Script(Option<String>),
    Dump,
    Flush,
    Usage,
    Version,
}

/// A command line.
#[derive(Debug, PartialEq)]
struct Call {
    what: Do,
    /// Policies, not SAs.
    policies: bool,
    dead_too: bool,
    /// Nothing is to be done.
    dry: bool,
}

impl Call {
    fn read(arguments: &[String]) -> Result<Self, Ended> {
        let mut call = Self {
            what: Do::Usage,
            policies: false,
            dead_too: false,
            dry: false,
        };
        let mut words = arguments.iter().map(String::as_str).peekable();
        while let Some(word) = words.next_if(|word| word.starts_with('-') && word.len() > 1) {
            let mut letters = word[1..].chars();
            while let Some(letter) = letters.next() {
                match letter {
                    'f' => {
                        let rest = letters.as_str();
                        let file = if rest.is_empty() {
                            words.next()
                        } else {
                            Some(rest)
                        };
                        let file = file.ok_or_else(|| Ended::new(USAGE.trim_end()))?;
                        call.what = Do::Script(Some(file.to_owned()));
                        break;
                    }
                    'c' => call.what = Do::Script(None),
                    'D' => call.what = Do::Dump,
                    'F' => call.what = Do::Flush,
                    'P' => call.policies = true,
                    'a' => call.dead_too = true,
                    'n' => call.dry = true,
                    // Both are how it is; -k would leave out copies for packets through this host,
                    // which are but listed.
                    'v' | 'p' | 'r' | 'k' => {}
                    'h' | '?' => {
                        call.what = Do::Usage;
                        return Ok(call);
                    }
                    'V' => {
                        call.what = Do::Version;
                        return Ok(call);
                    }
                    other => return Err(unknown(other)),
                }
            }
        }
        match (words.next(), &call.what) {
            (None, _) => Ok(call),
            (Some(file), Do::Usage) => Err(Ended::new(format!(
                "setkey: messages of PF_KEY, as they are recorded in {file}, are none of obol's: to run a script use setkey -f {file}"
            ))),
            (Some(more), _) => Err(Ended::new(format!(
                "setkey: what is {more} for?\n{}",
                USAGE.trim_end()
            ))),
        }
    }
}

fn unknown(letter: char) -> Ended {
    Ended::new(match letter {
        'x' => "setkey: -x: there are no messages of PF_KEY to watch; racoonctl show-event tells what happens".to_owned(),
        'H' => "setkey: -H: there are no messages of PF_KEY to dump".to_owned(),
        'l' => "setkey: -l: use watch setkey -D".to_owned(),
        other => format!("setkey: invalid option -- '{other}'\n{}", USAGE.trim_end()),
    })
}

pub(super) fn run(here: &Here, arguments: &[String]) -> Result<u8, Ended> {
    if let Some((first, rest)) = arguments.split_first()
        && first == "--service"
    {
        return service::run(here, rest);
    }
    let call = Call::read(arguments)?;
    match &call.what {
        Do::Usage => usage(USAGE, 1),
        Do::Version => {
            print_line(&format!(
                "setkey of obol {} (ipsec-tools {COMPATIBLE} compatible)",
                env!("CARGO_PKG_VERSION")
            ))?;
            Ok(1)
        }
        Do::Script(None) => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|e| Ended::new(format!("setkey: standard input: {e}")))?;
            Setkey::open(here)?.script("stdin", &text, call.dry)
        }
        Do::Script(Some(file)) => {
            let text = std::fs::read_to_string(file)
                .map_err(|e| Ended::new(format!("setkey: fopen: {file}: {e}")))?;
            Setkey::open(here)?.script(file, &text, call.dry)
        }
        Do::Dump if call.policies => {
            list_policies(here, &load(here)?, &Clock::here())?;
            Ok(0)
        }
        Do::Dump => {
            list_sas(here, call.dead_too)?;
            Ok(0)
        }
        Do::Flush if call.policies => {
            let mut setkey = Setkey::open_any(here)?;
            setkey.commit(Store::default())?;
            // With their SAs go the policies that were made for peers.
            if let Some(status) = status(here)? {
                close(here, generating(&status))?;
            }
            Ok(0)
        }
        Do::Flush => {
            flush_sas(here)?;
            Ok(0)
        }
    }
}

/// The policies that setkey was told, and what a daemon knows of them.
fn list_policies(here: &Here, store: &Store, clock: &Clock) -> Result<(), Ended> {
    let known = match here.ask::<StatusReport>(&Request::Status) {
        Ok(status) => status.policies,
        Err(_) => Vec::new(),
    };
    print_text(&spd::list(store, &known, std::process::id(), clock))?;
    Ok(())
}

/// The SAs that a daemon has; without one there are none.
fn list_sas(here: &Here, dead_too: bool) -> Result<(), Ended> {
    let text = match here.view() {
        Ok(view) => view.esp(dead_too, &Clock::here()),
        Err(failure) if failure.code == ExitClass::NotRunning => "No SAD entries.\n".to_owned(),
        Err(failure) => return Err(failure.into()),
    };
    print_text(&text)?;
    Ok(())
}

/// What a daemon says of itself, if there is one.
fn status(here: &Here) -> Result<Option<StatusReport>, Ended> {
    match here.ask(&Request::Status) {
        Err(failure) if failure.code == ExitClass::NotRunning => Ok(None),
        status => Ok(Some(status?)),
    }
}

/// The connections that have policies which were made for peers.
fn generating(status: &StatusReport) -> Vec<String> {
    let policies = status.policies.iter();
    let generated = policies.filter(|policy| policy.generated.is_some());
    generated.map(|policy| policy.connection.clone()).collect()
}

/// Closes all SAs. What the policies name waits for others.
fn flush_sas(here: &Here) -> Result<(), Ended> {
    let Some(status) = status(here)? else {
        return Ok(());
    };
    let mut names = generating(&status);
    names.extend(status.ike_sas.into_iter().map(|sa| sa.name));
    close(here, names)
}

/// Closes all SAs of these connections.
fn close(here: &Here, mut names: Vec<String>) -> Result<(), Ended> {
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    for name in names {
        let request = Request::Down {
            target: DownTarget::Connection(name),
            timeout_ms: FAREWELL,
        };
        match here.ask::<DownReport>(&request) {
            // A peer that is gone does not confirm.
            Err(failure) if failure.code != ExitClass::NoAnswer => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(())
}

fn load(here: &Here) -> Result<Store, Ended> {
    let path = here.store();
    Store::load(&path).map_err(|e| Ended::new(format!("setkey: {}: {e}", path.display())))
}

/// The store, which nobody else changes meanwhile.
pub(super) struct Setkey<'h> {
    here: &'h Here,
    store: Store,
    _lock: File,
}

impl<'h> Setkey<'h> {
    pub(super) fn open(here: &'h Here) -> Result<Self, Ended> {
        let lock = lock(here)?;
        Ok(Self {
            here,
            store: load(here)?,
            _lock: lock,
        })
    }

    /// All policies are those of these scripts from now on, in one step; with a mistake in one of
    /// them, all is as it was. Where nothing was, as when a host starts, what they are to protect must not be open
    /// for a mistake: then what can be used of them is. Whether every line was done.
    pub(super) fn swap(&mut self, scripts: &[(String, String)]) -> Result<bool, Ended> {
        let now = Clock::here().now;
        let first = self.store.policies.is_empty();
        let mut store = self.store.clone();
        store.policies.clear();
        let (mut failed, mut broken) = (false, false);
        for (file, text) in scripts {
            let outcome = script::run(&store, &Names::of_system(), file, text, now);
            for line in &outcome.said {
                complain_line(line);
            }
            store = outcome.store;
            failed |= outcome.failed;
            broken |= outcome.broken;
        }
        if broken && !first {
            return Err(Ended::new(
                "setkey: nothing of these files is used; all is as it was",
            ));
        }
        if first && let Err(errors) = closed(&store) {
            complain_line(&errors.to_string());
            complain_line(
                "setkey: these policies cannot hold together: what they are to protect is dropped until that is mended",
            );
            store.drop_all();
            failed = true;
        } else if broken {
            complain_line(
                "setkey: what is before a mistake, and without one, holds; mend the rest",
            );
        }
        self.commit(store)?;
        Ok(!failed)
    }

    /// Also where the store is broken: it is to be replaced.
    pub(super) fn open_any(here: &'h Here) -> Result<Self, Ended> {
        let lock = lock(here)?;
        Ok(Self {
            here,
            store: load(here).unwrap_or_default(),
            _lock: lock,
        })
    }

    fn script(&mut self, file: &str, text: &str, dry: bool) -> Result<u8, Ended> {
        let clock = Clock::here();
        let outcome = script::run(&self.store, &Names::of_system(), file, text, clock.now);
        for line in &outcome.said {
            complain_line(line);
        }
        let Outcome {
            store,
            flushes_sas,
            lists,
            failed,
            ..
        } = outcome;
        if !dry {
            self.commit(store)?;
            if flushes_sas {
                flush_sas(self.here)?;
            }
            for list in lists {
                match list {
                    List::Policies => {
                        list_policies(self.here, &self.store, &clock)?;
                    }
                    List::Sas => list_sas(self.here, false)?,
                }
            }
        } else {
            closed(&store).map_err(wrong)?;
        }
        Ok(u8::from(failed))
    }

    /// These are the policies from now on: what enforces them goes over to them in one step. With an
    /// error, all is as it was.
    pub(super) fn commit(&mut self, store: Store) -> Result<(), Ended> {
        let (boxes, notices) = closed(&store).map_err(wrong)?;
        if !notices.is_empty() && store != self.store {
            let before = self.told(&store);
            for notice in notices.iter().filter(|notice| !before.contains(notice)) {
                complain_line(&format!("notice: {notice}"));
            }
        }
        let path = self.here.store();
        let unwritten = |e| Ended::new(format!("setkey: {}: {e}", path.display()));
        store.save(&path).map_err(unwritten)?;
        let done = self.daemon().and_then(|runs| match runs {
            true => self.reload(),
            false => enforce(self.here, &boxes),
        });
        if let Err(failure) = done {
            self.store.save(&path).map_err(unwritten)?;
            let text = format!("setkey: {}; all is as it was", failure.message);
            return Err(Ended::new(text));
        }
        self.store = store;
        Ok(())
    }

    /// What was said of policies when they were loaded, of which some stay.
    fn told(&self, store: &Store) -> Vec<Finding> {
        let mut policies = self.store.policies.iter();
        match policies.any(|old| store.policies.contains(old)) {
            true => closed(&self.store).map_or_else(|_| Vec::new(), |(_, notices)| notices),
            false => Vec::new(),
        }
    }

    /// Whether a daemon runs; one that starts is waited for.
    fn daemon(&self) -> Result<bool, Failure> {
        let directory = &self.here.runtime_dir;
        let until = Instant::now() + PATIENCE;
        while !self.here.runs()? {
            if !Lock::is_taken(directory) {
                return Ok(false);
            }
            if Instant::now() > until {
                let text = "a daemon begins or ends, and does not get done with it: try again";
                return Err(Failure::new(ExitClass::Failed, text));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn reload(&self) -> Result<(), Failure> {
        let status: StatusReport = self.here.ask(&Request::Status)?;
        if !status.daemon.by_setkey {
            let text = format!(
                "the daemon that runs has its policies from {}, not from setkey: stop it, and start racoon",
                status.daemon.config
            );
            return Err(Failure::new(ExitClass::Config, text));
        }
        let _: ReloadReport = self.here.ask(&Request::Reload)?;
        Ok(())
    }
}

/// Whoever changes the policies holds this.
fn lock(here: &Here) -> Result<File, Ended> {
    let path = here.runtime_dir.join("setkey.lock");
    let cannot = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::PermissionDenied => Ended::new(format!(
            "setkey: {}: Operation not permitted",
            path.display()
        )),
        _ => Ended::new(format!("setkey: {}: {e}", path.display())),
    };
    // As the daemon makes it: who can open a lock there can take it.
    let mut directory = DirBuilder::new();
    let directory = directory.recursive(true).mode(0o700);
    directory.create(&here.runtime_dir).map_err(cannot)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(cannot)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|e| cannot(e.into()))?;
    Ok(file)
}

fn wrong(errors: ConfigErrors) -> Ended {
    Ended::new(format!(
        "{errors}\nsetkey: nothing of it is used; all is as it was"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Call, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Call::read(&words).map_err(|Ended(text)| text)
    }

    #[test]
    fn r_a16_options_of_setkey() {
        for (line, what, policies) in [
            (
                "-f /etc/x.conf",
                Do::Script(Some("/etc/x.conf".into())),
                false,
            ),
            (
                "-vf/etc/x.conf",
                Do::Script(Some("/etc/x.conf".into())),
                false,
            ),
            ("-c", Do::Script(None), false),
            ("-D", Do::Dump, false),
            ("-DP", Do::Dump, true),
            ("-D -P", Do::Dump, true),
            ("-F", Do::Flush, false),
            ("-FP", Do::Flush, true),
            ("-PF", Do::Flush, true),
            ("", Do::Usage, false),
            ("-h -D", Do::Usage, false),
            ("-V", Do::Version, false),
        ] {
            let call = read(line).unwrap();
            assert_eq!((call.what, call.policies), (what, policies), "{line}");
        }
        assert!(read("-nf x").unwrap().dry && read("-aD").unwrap().dead_too);
        for (line, text) in [
            ("/etc/x.conf", "use setkey -f /etc/x.conf"),
            ("-x", "racoonctl show-event"),
            ("-H", "PF_KEY"),
            ("-lD", "watch setkey -D"),
            ("-q", "invalid option -- 'q'"),
            ("-f", "usage:"),
            ("-D more", "what is more for?"),
        ] {
            assert!(read(line).unwrap_err().contains(text), "{line}");
        }
    }
}
