//! The pluto that runs: which process it is, what it has up, and how it is stopped and started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::error::{ExitClass, Failure};
use crate::pluto::running_pid;
use crate::service;

/// Where Libreswan has its programs, if `ipsec` is obol by now.
const LIBEXEC: [&str; 2] = ["/usr/libexec/ipsec", "/usr/lib/ipsec"];
/// What systemd calls it.
const UNIT: &str = "ipsec.service";
/// How often it is looked whether something has come to pass.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running pluto.
#[derive(Debug)]
pub(super) struct Pluto {
    /// Its process.
    pub(super) pid: u32,
    rundir: PathBuf,
    /// It is the main process of the unit.
    pub(super) by_unit: bool,
    /// The unit runs obol when it is started next.
    pub(super) unit_is_obol: bool,
    /// How it was started.
    command: Vec<String>,
}

impl Pluto {
    /// The one that runs, by its file in `rundir`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find(rundir: &Path) -> Result<Self, Failure> {
        let pid = running_pid(rundir).ok_or_else(|| {
            let text = format!(
                "no pluto runs (by {}): there is nothing to take over, so start obol as ever",
                rundir.join("pluto.pid").display()
            );
            Failure::new(ExitClass::NotRunning, text)
        })?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = command.split(|octet| *octet == 0);
        let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
        let starts = service::shown(UNIT, "ExecStart").unwrap_or_default();
        Ok(Self {
            pid,
            rundir: rundir.to_owned(),
            by_unit: service::is_main_of(pid, UNIT),
            unit_is_obol: starts.contains("obol"),
            command: words.filter(|word| !word.is_empty()).collect(),
        })
    }

    /// The names of what is up, by `trafficstatus`; those of peers whose address is not known
    /// before come apart, since they come by themselves.
    ///
    /// # Errors
    /// pluto does not tell.
    pub(super) fn up(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), Failure> {
        let output = self.whack(&["--trafficstatus"])?;
        if !output.status.success() {
            return Err(failed("pluto does not tell what is up", &output));
        }
        Ok(names(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The names of connections whose packets it protects, up or not, by `status`: in clear they do not
    /// leave.
    ///
    /// # Errors
    /// pluto does not tell.
    pub(super) fn routed(&self) -> Result<BTreeSet<String>, Failure> {
        let output = self.whack(&["--status"])?;
        if !output.status.success() {
            return Err(failed("pluto does not tell what it has routed", &output));
        }
        Ok(routed(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Which of these are not up.
    ///
    /// # Errors
    /// pluto does not tell, or does not run any more.
    pub(super) fn lacks(rundir: &Path, up: &BTreeSet<String>) -> Result<Vec<String>, Failure> {
        let (is_up, _) = Self::find(rundir)?.up()?;
        Ok(up.difference(&is_up).cloned().collect())
    }

    /// Has it begin with these: those that it does not begin with by itself were begun by somebody.
    pub(super) fn initiate(rundir: &Path, names: &[String]) -> Result<(), Failure> {
        let pluto = Self::find(rundir)?;
        for name in names {
            pluto.whack(&["--initiate", "--asynchronous", "--name", name])?;
        }
        Ok(())
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Errors
    /// It goes on: then nothing has changed.
    pub(super) fn stop(&self, limit: Duration) -> Result<(), Failure> {
        let output = match self.by_unit {
            true => ran(Command::new("systemctl").args(["stop", UNIT]))?,
            false => self.whack(&["--shutdown"])?,
        };
        let deadline = Instant::now() + limit;
        while running_pid(&self.rundir) == Some(self.pid) {
            if Instant::now() >= deadline {
                let what = format!("pluto (pid {}) has not ended after {limit:?}", self.pid);
                return Err(failed(&what, &output));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Starts it as it was started before, and waits until it runs.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn start(&self, limit: Duration) -> Result<(), Failure> {
        if self.by_unit && !self.unit_is_obol {
            let output = ran(Command::new("systemctl").args(["start", UNIT]))?;
            if !output.status.success() {
                return Err(failed("systemctl cannot start pluto", &output));
            }
        } else {
            let (program, arguments) = self.command.split_first().ok_or_else(|| {
                Failure::new(ExitClass::Failed, "it is not known how pluto was started")
            })?;
            let mut command = Command::new(program);
            command
                .args(arguments)
                .current_dir("/")
                .stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let cannot = |e: &std::io::Error| Failure::system(format!("cannot start {program}"), e);
            command.spawn().map_err(|e| cannot(&e))?;
        }
        let deadline = Instant::now() + limit;
        while running_pid(&self.rundir).is_none() {
            if Instant::now() >= deadline {
                let text = format!("pluto does not run {limit:?} after it was started");
                return Err(Failure::new(ExitClass::Failed, text));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// How it is stopped, in words.
    pub(super) fn stop_words(&self) -> String {
        match self.by_unit {
            true => format!("systemctl stop {UNIT}"),
            false => "ipsec whack --shutdown".to_owned(),
        }
    }

    /// How it would be started again, in words.
    pub(super) fn start_words(&self) -> String {
        match self.by_unit && !self.unit_is_obol {
            true => format!("systemctl start {UNIT}"),
            false => self.command.join(" "),
        }
    }

    /// Asks pluto by its own client: the `ipsec` of the path, unless that is obol already.
    fn whack(&self, arguments: &[&str]) -> Result<Output, Failure> {
        let mut command = match theirs() {
            Some(ipsec) => {
                let mut command = Command::new(ipsec);
                command.arg("whack");
                command
            }
            None => {
                let whack = LIBEXEC.iter().map(|dir| Path::new(dir).join("whack"));
                let whack = whack.into_iter().find(|path| path.exists()).ok_or_else(|| {
                    let text = "pluto's client is found neither as ipsec nor as /usr/libexec/ipsec/whack";
                    Failure::new(ExitClass::Failed, text)
                })?;
                Command::new(whack)
            }
        };
        ran(command.args(arguments))
    }
}

/// The `ipsec` of the path that is not this program.
fn theirs() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join("ipsec"));
    let real = |path: &PathBuf| fs::canonicalize(path).ok();
    found
        .into_iter()
        .find(|path| real(path).is_some_and(|real| real != own))
}

fn ran(command: &mut Command) -> Result<Output, Failure> {
    let output = command.stdin(Stdio::null()).output();
    output.map_err(|e| {
        let program = command.get_program().to_string_lossy().into_owned();
        Failure::system(format!("cannot run {program}"), &e)
    })
}

fn failed(what: &str, output: &Output) -> Failure {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let text = match said.last() {
        Some(last) => format!("{what}: {last}"),
        None => what.to_owned(),
    };
    Failure::new(ExitClass::Failed, text)
}

/// Names in lines of `trafficstatus`: `#2: "a-b", type=ESP, …`, with `006 ` before it in 4.x. Those
/// with an instance, `"road"[1] 203.0.113.9`, come second.
fn names(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut fixed, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let line = line.strip_prefix("006 ").unwrap_or(line);
        let parts = line
            .starts_with('#')
            .then(|| line.split('"').collect::<Vec<_>>());
        let Some([_, name, rest, ..]) = parts.as_deref() else {
            continue;
        };
        match rest.starts_with('[') {
            true => instances.insert((*name).to_owned()),
            false => fixed.insert((*name).to_owned()),
        };
    }
    (fixed, instances)
}

/// Names in lines of `status`: `"a-b": 192.0.2.1...192.0.2.2; routed-ondemand; …`, in 4.x `000 "a-b": …;
/// prospective erouted; …`.
fn routed(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let line = line.strip_prefix("000 ").unwrap_or(line);
        let (name, rest) = line.strip_prefix('"')?.split_once('"')?;
        let state = rest.split("; ").nth(1)?;
        let mut words = state.split([' ', '-']);
        let is_routed = words.any(|word| word == "erouted" || word == "routed");
        is_routed.then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_routed_is_read_from_the_status_of_all_versions() {
        let text = "\
000 Connection list:
000 \"up\": 10.1.0.0/24===192.0.2.1[@a]...192.0.2.2[@b]===10.2.0.0/24; erouted; eroute owner: #3
000 \"up\":     oriented; my_ip=unset; their_ip=unset;
000 \"idle/1x2\": 192.0.2.1[@a]...192.0.2.2[@b]; prospective erouted; eroute owner: #0
000 \"off\": 192.0.2.1[@a]...192.0.2.2[@b]; unrouted; eroute owner: #0
\"five\": 192.0.2.1[@a]...192.0.2.2[@b]; routed-ondemand; my_ip=unset; their_ip=unset;
\"five\":   routing: routed-ondemand; owner: Child SA #3;
\"added\": 192.0.2.1[@a]...192.0.2.2[@b]; unrouted; my_ip=unset; their_ip=unset;
\"road\"[1]: 192.0.2.1[@a]...192.0.2.9[@b]; routed-tunnel; my_ip=unset; their_ip=unset;
\"broken
";
        let routed = routed(text);
        let routed: Vec<&str> = routed.iter().map(String::as_str).collect();
        assert_eq!(routed, ["five", "idle/1x2", "road", "up"]);
    }

    #[test]
    fn names_are_read_from_the_lines_of_all_versions() {
        let text = "\
006 #2: \"a-b\", type=ESP, add_time=1709290000, inBytes=84, outBytes=84, maxBytes=2^63B, id='@b'
#4: \"nets/1x2\", type=ESP, add_time=1709290000, inBytes=84, outBytes=84, maxBytes=2^63B, id='@b'
006 #5: \"road\"[1] 203.0.113.9, type=ESP, add_time=1709290000, inBytes=0, outBytes=0, id='@rw', lease=10.9.0.1/32
000 using kernel interface: xfrm
#broken
";
        let (fixed, instances) = names(text);
        assert_eq!(fixed.into_iter().collect::<Vec<_>>(), ["a-b", "nets/1x2"]);
        assert_eq!(instances.into_iter().collect::<Vec<_>>(), ["road"]);
    }
}
