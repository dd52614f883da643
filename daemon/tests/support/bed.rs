//! Two hosts whose daemons are asked by pluto's commands.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use obol_daemon::demo::lab::{B, Host, Lab};
use obol_daemon::demo::traffic::ping;

use super::daemons::{LIMIT, PATIENCE};
use super::support::obol;

/// The hosts' daemons, and the program by the name of `ipsec`.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    pub(crate) ipsec: PathBuf,
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with("").await
    }

    /// With more in the files of both.
    pub(crate) async fn with(more: &str) -> Self {
        let mut lab = Lab::new(obol(), None).unwrap();
        for host in [&mut lab.a, &mut lab.b] {
            let text = std::fs::read_to_string(&host.config).unwrap();
            let text = text.replace("start_action = \"start\"", "start_action = \"none\"") + more;
            std::fs::write(&host.config, text).unwrap();
            host.start().unwrap();
            let deadline = Instant::now() + LIMIT;
            while host.status().await.is_err() {
                assert!(host.runs() && Instant::now() < deadline);
                tokio::task::yield_now().await;
            }
        }
        let ipsec = lab.directory().join("ipsec");
        symlink(obol(), &ipsec).unwrap();
        Self { lab, ipsec }
    }

    pub(crate) async fn pinged(&self) {
        let a = &self.lab.a;
        let deadline = Instant::now() + LIMIT;
        let done = ping(&a.netns, a.side.pod, B.pod, PATIENCE, deadline).await;
        if let Err(error) = done {
            panic!("{error}\n{}", std::fs::read_to_string(&a.log).unwrap());
        }
    }

    /// Exit code and what was printed.
    pub(crate) fn run(&self, line: &str) -> (i32, String) {
        self.run_as(&self.ipsec, &self.lab.a, line, "5")
    }

    pub(crate) fn run_as(
        &self,
        program: &Path,
        host: &Host,
        line: &str,
        compat: &str,
    ) -> (i32, String) {
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .env("OBOL_RUNTIME_DIR", &host.runtime)
            .env("OBOL_COMPAT", compat);
        let output = host.netns.run(|| command.output()).unwrap().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

pub(crate) fn assert_lines(text: &str, patterns: &[&str]) {
    for pattern in patterns {
        let mut parts = pattern.split('*');
        let start = parts.next().unwrap();
        let fits = |line: &str| {
            let mut rest = line.strip_prefix(start)?;
            for part in parts.clone() {
                rest = &rest[rest.find(part)? + part.len()..];
            }
            Some(())
        };
        assert!(
            text.lines().any(|line| fits(line).is_some()),
            "no line is like {pattern}:\n{text}"
        );
    }
}

/// A lab whose hosts run from pluto's files.
pub(crate) struct Files {
    pub(crate) bed: Bed,
    pub(crate) conf: PathBuf,
}

impl Files {
    pub(crate) fn new(conns: &str) -> Self {
        let lab = Lab::new(obol(), None).unwrap();
        let ipsec = lab.directory().join("ipsec");
        symlink(obol(), &ipsec).unwrap();
        let directory = lab.directory();
        let conf = directory.join("ipsec.conf");
        let secrets = directory.join("ipsec.secrets");
        std::fs::write(&secrets, "@a @b : PSK \"a secret for a and b\"\n").unwrap();
        std::fs::set_permissions(&secrets, PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "config setup\n\tsecretsfile={}\n\n{conns}",
            secrets.display()
        );
        std::fs::write(&conf, text).unwrap();
        let files = Self {
            bed: Bed { lab, ipsec },
            conf,
        };
        for host in files.hosts() {
            let (code, text) = files.on(host, "start");
            assert_eq!(code, 0, "{text}");
        }
        files
    }

    pub(crate) fn hosts(&self) -> [&Host; 2] {
        [&self.bed.lab.a, &self.bed.lab.b]
    }

    /// Exit code of a command on a host, and what was printed.
    pub(crate) fn on(&self, host: &Host, line: &str) -> (i32, String) {
        let rundir = self.bed.lab.directory().join(host.side.name);
        let (rundir, conf) = (rundir.display(), self.conf.display());
        let line = format!("{line} --rundir {rundir} --config {conf}");
        self.bed.run_as(&self.bed.ipsec, host, &line, "5")
    }

    pub(crate) fn stop(&self) {
        for host in self.hosts() {
            let (code, text) = self.on(host, "stop");
            assert_eq!(code, 0, "{text}");
            assert_eq!(self.on(host, "status").0, 33);
        }
    }
}

pub(crate) const CONNS: &str = "\
conn %default
\tleft=192.168.0.1
\tleftid=@a
\tright=192.168.0.2
\trightid=@b
\tauthby=secret

conn nets
\tleftsubnet=172.16.1.0/24
\trightsubnet=172.16.2.0/24
\tauto=add

conn later
\tleftsubnet=172.16.1.0/24
\trightsubnet=172.16.3.0/24
\tauto=ignore

conn elsewhere
\tleft=192.168.0.8
\tright=192.168.0.9
\tauto=add
";
