//! Two hosts with the files of racoon and setkey, and its programs.

use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use obol_daemon::demo::lab::{Host, Lab, SERVICE};
use obol_daemon::demo::traffic::{Service, converse};

use crate::daemons::LIMIT;
use crate::support::obol;

pub(crate) const RACOON: &str = include_str!("../../src/racoon/tests/racoon.conf");
pub(crate) const POLICIES: &str = include_str!("../../src/racoon/tests/mongodb.conf");
pub(crate) const PSK: &str =
    "*  /zatck0CNzYad4fGw4ZV9G1R8b93pdBzCc3I7iXh2zzvediol0yBR8F8wCHKryXE\n";

/// How long is waited for what must not come.
pub(crate) const IN_VAIN: Duration = Duration::from_secs(1);

/// Two hosts with the files of the story, below a directory each.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    programs: PathBuf,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let lab = Lab::new(obol(), None).unwrap();
        let programs = lab.directory().to_owned();
        for name in ["racoon", "racoonctl", "setkey"] {
            symlink(obol(), programs.join(name)).unwrap();
        }
        let bed = Self { lab, programs };
        for host in [&bed.lab.a, &bed.lab.b] {
            bed.furnish(host);
        }
        bed
    }

    /// Gives a host the files.
    pub(crate) fn furnish(&self, host: &Host) {
        fs::write(&host.config, "").unwrap();
        let etc = self.etc(host);
        fs::create_dir_all(etc.join("ipsec-tools.d")).unwrap();
        let psk = etc.join("psk.txt");
        let racoon = RACOON.replace("/etc/racoon/psk.txt", &psk.display().to_string());
        fs::write(etc.join("racoon.conf"), racoon).unwrap();
        fs::write(&psk, PSK).unwrap();
        fs::set_permissions(&psk, fs::Permissions::from_mode(0o400)).unwrap();
        let policies = POLICIES.replace("10.0.0.0/16", "192.168.0.0/16");
        fs::write(etc.join("ipsec-tools.d/mongodb.conf"), policies).unwrap();
    }

    /// Changes `racoon.conf` of a host.
    pub(crate) fn edit(&self, host: &Host, from: &str, to: &str) {
        let path = self.etc(host).join("racoon.conf");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    pub(crate) fn etc(&self, host: &Host) -> PathBuf {
        self.programs.join(format!("{}-etc", host.side.name))
    }

    pub(crate) fn command(&self, host: &Host, line: &str) -> Command {
        let line = line.replace("ETC", &self.etc(host).display().to_string());
        let mut words = line.split(' ');
        let mut command = Command::new(self.programs.join(words.next().unwrap()));
        command.args(words.filter(|word| !word.is_empty()));
        command
            .env("OBOL_RUNTIME_DIR", &host.runtime)
            .env("OBOL_CONFIG", &host.config)
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, host: &Host, line: &str) -> Output {
        let mut command = self.command(host, line);
        host.netns.run(|| command.output()).unwrap().unwrap()
    }

    /// What it printed; it must succeed.
    pub(crate) fn does(&self, host: &Host, line: &str) -> String {
        let output = self.run(host, line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it complained about; it must fail with 1.
    pub(crate) fn fails(&self, host: &Host, line: &str) -> String {
        let output = self.run(host, line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// `service racoon start`: it goes on by itself.
    pub(crate) fn start<'b>(&'b self, host: &'b Host) -> Racoon<'b> {
        self.does(host, "racoon -f ETC/racoon.conf");
        Racoon { host }
    }

    pub(crate) fn sas(&self, host: &Host) -> usize {
        let listed = self.does(host, "setkey -D");
        listed.matches("state=mature").count()
    }
}

/// A daemon that runs by itself, until this is dropped.
pub(crate) struct Racoon<'b> {
    host: &'b Host,
}

impl Racoon<'_> {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = fs::read_to_string(self.host.runtime.join("obol.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        if rustix::process::kill_process(pid, signal).is_err() {
            return;
        }
        // It has ended when its last thread has let go of the lock.
        let lock = fs::File::open(self.host.runtime.join("obol.pid")).unwrap();
        let free = || {
            let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
            rustix::fs::flock(&lock, shared).is_ok()
        };
        let deadline = Instant::now() + LIMIT;
        while !free() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Racoon<'_> {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

/// Services on both hosts.
pub(crate) fn services(bed: &Bed) -> [Service; 2] {
    [&bed.lab.a, &bed.lab.b].map(|host| service(host, SERVICE))
}

pub(crate) fn service(host: &Host, port: u16) -> Service {
    Service::start(&host.netns, SocketAddrV4::new(host.side.address, port)).unwrap()
}

pub(crate) async fn talks_at(host: &Host, peer: &Host, port: u16, limit: Duration) -> bool {
    let service = SocketAddrV4::new(peer.side.address, port);
    let done = converse(&host.netns, host.side.address, service, limit).await;
    done.is_ok()
}

pub(crate) async fn talks(host: &Host, peer: &Host, limit: Duration) -> bool {
    talks_at(host, peer, SERVICE, limit).await
}
