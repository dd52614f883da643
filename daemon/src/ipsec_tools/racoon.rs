//! `racoon`: the daemon, from the files of racoon and the policies of setkey.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{COMPATIBLE, Ended, Here, usage};
use crate::cli::{DEFAULT_RUNTIME_DIR, complain_line, print_line};
use crate::racoon::{Files, Overrides, load_to_run};
use crate::run::{self, Origin};

const USAGE: &str = "\
usage: racoon [-BdFvL46] [-f (file)] [-l (file)] [-p (port)] [-P (natt port)]
   -B: install SA to the kernel from the file specified by the configuration file: no effect
   -d: debug level, more -d will generate more debug message
   -C: dump parsed config file
   -L: include location in debug messages: no effect
   -F: run in foreground, do not become daemon
   -v: be more verbose: no effect
   -V: print version and exit
   -4, -6: IPv4 or IPv6 alone: no effect
   -f: pathname for configuration file
   -l: pathname for log file
   -p: port number for isakmp (default: 500)
   -P: port number for NAT-T (default: 4500)
";

/// Where racoon's configuration is.
const CONFIG: &str = "/etc/racoon/racoon.conf";
/// Where scripts look for its process ID.
const PID_FILE: &str = "/var/run/racoon.pid";
/// How long the daemon may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command line.
#[derive(Debug)]
struct Call {
    conf: PathBuf,
    log: Option<PathBuf>,
    foreground: bool,
    dump: bool,
    version: bool,
    overrides: Overrides,
}

impl Call {
    /// `None`: an option or argument that there is not.
    fn read(arguments: &[String]) -> Option<Self> {
        let mut call = Self {
            conf: CONFIG.into(),
            log: None,
            foreground: false,
            dump: false,
            version: false,
            overrides: Overrides::default(),
        };
        let mut words = arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut letters = word
                .strip_prefix('-')
                .filter(|rest| !rest.is_empty())?
                .chars();
            while let Some(letter) = letters.next() {
                if "flpP".contains(letter) {
                    let rest = letters.as_str();
                    let value = if rest.is_empty() { words.next()? } else { rest };
                    match letter {
                        'f' => call.conf = value.into(),
                        'l' => call.log = Some(value.into()),
                        'p' => call.overrides.port = Some(port(value)?),
                        _ => call.overrides.natt_port = Some(port(value)?),
                    }
                    break;
                }
                match letter {
                    'F' => call.foreground = true,
                    'C' => call.dump = true,
                    'V' => call.version = true,
                    'd' => {
                        let more = call.overrides.log == Some("debug");
                        call.overrides.log = Some(if more { "trace" } else { "debug" });
                    }
                    'v' | 'B' | 'L' | '4' | '6' => {}
                    _ => return None,
                }
            }
        }
        Some(call)
    }
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

pub(super) fn run(here: &Here, arguments: &[String]) -> Result<u8, Ended> {
    let Some(call) = Call::read(arguments) else {
        return usage(USAGE, 1);
    };
    if call.version {
        print_line(&format!(
            "racoon of obol {} (ipsec-tools {COMPATIBLE} compatible, IKEv2)",
            env!("CARGO_PKG_VERSION")
        ))?;
        return Ok(0);
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Ended::new("must be root to invoke this program."));
    }
    let files = Files {
        conf: call.conf.clone(),
        scripts: Vec::new(),
        store: Some(here.store()),
        overrides: call.overrides.clone(),
    };
    check(here, &files, call.dump)?;
    match call.foreground {
        true => foreground(here, &call, files),
        false => detach(here, &call, arguments),
    }
}

/// Finds all that is wrong with the files before anything else happens.
fn check(here: &Here, files: &Files, dump: bool) -> Result<(), Ended> {
    if let Err(errors) = load_to_run(files, &here.config) {
        let count = errors.0.len();
        let mut lines: Vec<String> = errors
            .0
            .iter()
            .map(|error| format!("racoon: ERROR: {error}"))
            .collect();
        lines.push(format!(
            "racoon: ERROR: fatal parse failure ({count} errors)"
        ));
        lines.push("racoon: failed to parse configuration file.".to_owned());
        return Err(Ended::new(lines.join("\n")));
    }
    if dump {
        let text = crate::racoon::translated(files, &here.config)
            .map_err(|e| Ended::new(e.to_string()))?;
        crate::cli::print_text(&text)?;
    }
    Ok(())
}

fn foreground(here: &Here, call: &Call, files: Files) -> Result<u8, Ended> {
    print_line("Foreground mode.")?;
    if let Some(path) = &call.log {
        let log = open_log(path)?;
        rustix::stdio::dup2_stderr(&log)
            .map_err(|e| Ended::new(format!("racoon: {}: {e}", path.display())))?;
    }
    let origin = Origin {
        config: here.config.clone(),
        pluto: None,
        racoon: Some(files),
    };
    run::run(origin, &here.runtime_dir, || PidFile::write(here))?;
    Ok(0)
}

/// Ends when the daemon runs by itself, or says why it does not.
fn detach(here: &Here, call: &Call, arguments: &[String]) -> Result<u8, Ended> {
    if here.runs()? {
        let text = format!("racoon: it runs already, at {}", here.runtime_dir.display());
        return Err(Ended::new(text));
    }
    let path = match &call.log {
        Some(path) => path.clone(),
        None => here.runtime_dir.join("racoon.log"),
    };
    let log = open_log(&path)?;
    let begin = log.metadata().map_or(0, |log| log.len());
    let cannot = |e| Ended::new(format!("racoon: cannot start: {e}"));
    let program = std::env::current_exe().map_err(cannot)?;
    let mut child = Command::new(program)
        .arg0("racoon")
        .arg("-F")
        .args(arguments)
        .env(crate::cli::RUNTIME_DIR_VARIABLE, &here.runtime_dir)
        .env(super::CONFIG_VARIABLE, &here.config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let until = Instant::now() + PATIENCE;
    while !here.runs()? {
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > until {
            let said = std::fs::read(&path).unwrap_or_default();
            let begin = usize::try_from(begin).unwrap_or_default();
            let said = said.get(begin..).unwrap_or_default();
            complain_line(String::from_utf8_lossy(said).trim_end());
            let text = format!("racoon: it does not run; {} says why", path.display());
            return Err(Ended::new(text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(0)
}

fn open_log(path: &Path) -> Result<File, Ended> {
    let open = || -> std::io::Result<File> {
        if let Some(directory) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let mut file = OpenOptions::new();
        file.create(true).append(true).mode(0o600).open(path)
    };
    open().map_err(|e| Ended::new(format!("racoon: cannot write {}: {e}", path.display())))
}

/// The process ID where scripts look for it, of the daemon of this host alone. Only who has the lock of the
/// directory writes it.
struct PidFile;

impl PidFile {
    fn write(here: &Here) -> Option<Self> {
        let is_usual = here.runtime_dir == Path::new(DEFAULT_RUNTIME_DIR);
        let text = format!("{}\n", std::process::id());
        let written = is_usual && std::fs::write(PID_FILE, text).is_ok();
        written.then_some(Self)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(PID_FILE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<Call> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Call::read(&words)
    }

    #[test]
    fn options_of_racoon() {
        let call = read("-F -f /x.conf -dd -v -4 -p 501 -P4501 -l /log").unwrap();
        assert!(call.foreground && !call.dump);
        assert_eq!(
            (call.conf, call.log),
            ("/x.conf".into(), Some("/log".into()))
        );
        assert_eq!(call.overrides.log, Some("trace"));
        assert_eq!(
            call.overrides.port.zip(call.overrides.natt_port),
            Some((501, 4501))
        );
        assert_eq!(read("").unwrap().conf, Path::new(CONFIG));
        assert_eq!(read("-d").unwrap().overrides.log, Some("debug"));
        for wrong in ["-x", "file", "-f", "-p 0", "-p x", "-"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }
}
