//! Runs scripts one after another, each for so long at most.

use std::collections::HashMap;
use std::io::{PipeReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tracing::{info, warn};

use super::environment::Environment;

/// How long a script may take. Then it is killed, with all that it has started.
const LIMIT: Duration = Duration::from_secs(10);
/// Octets of what a script says that are told in the log.
const SAID: usize = 4096;
/// Where its programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A script to run.
#[derive(Debug)]
pub(super) struct Job {
    /// About which connection.
    pub(super) name: String,
    /// What is run.
    pub(super) command: String,
    /// Its environment, and nothing else; the verb comes first.
    pub(super) environment: Environment,
}

impl Job {
    fn verb(&self) -> &str {
        self.environment.first().map_or("", |(_, verb)| verb)
    }
}

/// The thread, which is there once there was a script.
pub(super) struct Runner {
    work: Option<(Sender<Job>, JoinHandle<()>)>,
    now: Arc<Mutex<Now>>,
}

/// What the thread is at.
#[derive(Default)]
struct Now {
    /// The script that runs, by its process group; it is not waited for yet.
    group: Option<Pid>,
    /// No other one is to be begun.
    over: bool,
    /// How many wait, by the connections that they are about.
    waiting: HashMap<String, usize>,
}

impl Runner {
    /// Without thread.
    pub(super) fn new() -> Self {
        Self {
            work: None,
            now: Arc::default(),
        }
    }

    /// Has a script run, after those that wait.
    pub(super) fn run(&mut self, job: Job) {
        let sender = match &self.work {
            Some((sender, _)) => sender,
            None => {
                let (sender, jobs) = channel();
                let thread = std::thread::Builder::new().name("obol-updown".to_owned());
                let now = Arc::clone(&self.now);
                match thread.spawn(move || run_all(&jobs, &now)) {
                    Ok(thread) => &self.work.insert((sender, thread)).0,
                    Err(error) => return told("cannot be run", &job, &error.to_string()),
                }
            }
        };
        let mut now = locked(&self.now);
        *now.waiting.entry(job.name.clone()).or_default() += 1;
        if let Err(SendError(job)) = sender.send(job) {
            told("is not run", &job, "the thread that runs scripts has ended");
        }
    }

    /// How many scripts about this connection wait.
    pub(super) fn waiting(&self, name: &str) -> usize {
        locked(&self.now).waiting.get(name).copied().unwrap_or(0)
    }

    /// Waits until all have run, but no longer than this. Then the one that runs is killed, and the
    /// others are not begun.
    pub(super) fn end(self, limit: Duration) {
        let Some((sender, thread)) = self.work else {
            return;
        };
        drop(sender);
        let deadline = Instant::now() + limit;
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                let mut now = locked(&self.now);
                now.over = true;
                if let Some(group) = now.group {
                    // It is there, since nobody has waited for it.
                    let _ = kill_process_group(group, Signal::KILL);
                }
                warn!("not all updown scripts have run {limit:?} after the end");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn run_all(jobs: &Receiver<Job>, now: &Mutex<Now>) {
    while let Ok(job) = jobs.recv() {
        run(&job, now);
    }
}

/// Nobody panics while it is locked.
fn locked(now: &Mutex<Now>) -> MutexGuard<'_, Now> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one, and tells what it said and how it ended if not well.
fn run(job: &Job, now: &Mutex<Now>) {
    let mut state = locked(now);
    if let Some(waiting) = state.waiting.get_mut(&job.name) {
        *waiting -= 1;
        if *waiting == 0 {
            state.waiting.remove(&job.name);
        }
    }
    if state.over {
        return;
    }
    let (child, output) = match start(job) {
        Ok(started) => started,
        Err(error) => return told("cannot be run", job, &error.to_string()),
    };
    state.group = Some(Pid::from_child(&child));
    drop(state);
    let (said, ended) = wait(child, output, LIMIT, now);
    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
    match ended {
        Ok(status) if status.success() => {
            if !said.is_empty() {
                info!(connection = job.name, verb = job.verb(), "updown: {said}");
            }
        }
        Ok(status) => told("failed", job, &format!("{status}: {said}")),
        Err(error) => told("was killed", job, &format!("{error}: {said}")),
    }
}

fn told(what: &str, job: &Job, why: &str) {
    let (connection, verb, command) = (&job.name, job.verb(), &job.command);
    warn!(%connection, verb, command, "updown script {what}: {why}");
}

fn start(job: &Job) -> std::io::Result<(Child, PipeReader)> {
    let (output, writer) = std::io::pipe()?;
    let mut command = program(&job.command);
    command
        .env_clear()
        .env("PATH", PATH)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    Ok((command.spawn()?, output))
}

/// The program itself where the text is one with its arguments, else a shell for it. Nothing but
/// the operator's text is ever in it.
fn program(text: &str) -> Command {
    let plain = |c: char| c.is_ascii_alphanumeric() || " \t/._-+:,@%=".contains(c);
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default();
    if text.chars().all(plain) && !first.contains('=') {
        let mut command = Command::new(first);
        command.args(words);
        return command;
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    command
}

/// What it said, and how it ended. What it leaves running is not waited for.
fn wait(
    mut child: Child,
    mut output: PipeReader,
    limit: Duration,
    now: &Mutex<Now>,
) -> (Vec<u8>, std::io::Result<ExitStatus>) {
    let mut said = Vec::new();
    let done = watch(&child, &mut output, &mut said, limit);
    if done.is_err() {
        // It is there until it is waited for, which is next.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    locked(now).group = None;
    let ended = child.wait();
    (said, done.and(ended))
}

/// Reads what it says until it has ended.
fn watch(
    child: &Child,
    output: &mut PipeReader,
    said: &mut Vec<u8>,
    limit: Duration,
) -> std::io::Result<()> {
    let deadline = Instant::now() + limit;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("it ran for more than {} s", limit.as_secs_f32());
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text));
        }
        let mut fds = [
            PollFd::new(&ended, PollFlags::IN),
            PollFd::new(&*output, PollFlags::IN),
        ];
        let fds = if open { &mut fds[..] } else { &mut fds[..1] };
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(fds, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        let over = !fds[0].revents().is_empty();
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if readable {
            let mut octets = [0; 4096];
            let length = output.read(&mut octets)?;
            open = length > 0;
            let room = SAID.saturating_sub(said.len());
            said.extend(&octets[..length.min(room)]);
        } else if over {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(command: &str, limit: Duration) -> (String, std::io::Result<ExitStatus>) {
        let job = Job {
            name: "a-b".into(),
            command: command.into(),
            environment: vec![
                ("PLUTO_VERB", "up-host".into()),
                ("PLUTO_PEER_ID", "$(id)".into()),
            ],
        };
        let (child, output) = start(&job).unwrap();
        let (said, ended) = wait(child, output, limit, &Mutex::default());
        (String::from_utf8(said).unwrap(), ended)
    }

    #[test]
    fn a_program_is_run_as_it_is_and_what_a_shell_is_for_by_one() {
        let (said, ended) = ran("printenv PLUTO_PEER_ID", LIMIT);
        assert!(ended.unwrap().success());
        assert_eq!(said, "$(id)\n");
        let (said, ended) = ran("echo \"$PLUTO_VERB|$PLUTO_PEER_ID\" >&2; exit 3", LIMIT);
        assert_eq!(ended.unwrap().code(), Some(3));
        assert_eq!(said, "up-host|$(id)\n");
        let (said, _) = ran("env", LIMIT);
        let mut names: Vec<&str> = said
            .lines()
            .filter_map(|l| Some(l.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["PATH", "PLUTO_PEER_ID", "PLUTO_VERB"]);
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let (said, ended) = ran(
            "echo begun; sleep 1000 & sleep 1001",
            Duration::from_millis(300),
        );
        assert_eq!(said, "begun\n");
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_it_leaves_running_is_not_waited_for_and_long_speeches_are_cut() {
        let (_, ended) = ran("sleep 2 &", LIMIT);
        assert!(ended.unwrap().success());
        let (said, ended) = ran(
            "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done",
            LIMIT,
        );
        assert!(ended.unwrap().success());
        assert_eq!(said.len(), SAID);
    }

    #[test]
    fn at_the_end_what_hangs_is_killed_and_nothing_more_is_begun() {
        let trace = std::env::temp_dir().join(format!("obol-updown-{}", std::process::id()));
        let mut runner = Runner::new();
        for command in [
            "sleep 1002".to_owned(),
            format!("touch {}", trace.display()),
        ] {
            runner.run(Job {
                name: "a-b".into(),
                command,
                environment: Vec::new(),
            });
        }
        let now = Arc::clone(&runner.now);
        while locked(&now).group.is_none() {
            std::thread::yield_now();
        }
        runner.end(Duration::from_millis(50));
        // The thread clears it once what hung is dead.
        while locked(&now).group.is_some() {
            std::thread::yield_now();
        }
        assert!(!trace.exists());
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let job = Job {
            name: "a-b".into(),
            command: "/nonexistent/updown".into(),
            environment: Vec::new(),
        };
        assert!(start(&job).is_err());
    }
}
