//! What Ansible's role for VPNs leaves on hosts: a conn and a secret for each pair in files of their own, for
//! hosts by name, and the service restarted. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
#[path = "support/pluto.rs"]
mod pluto;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use daemons::{LIMIT, PATIENCE, ike_sas, installed};
use obol_daemon::demo::lab::{Host, Lab};
use obol_daemon::demo::traffic::ping;
use pluto::{ipsec, log, run_from, write};
use support::{is_root, obol};

/// The names of the hosts.
const NAMES: [&str; 2] = ["host01.local", "host02.local"];

/// The main files, as packages have them.
const CONF: &str = "version 2.0\n\nconfig setup\n\ninclude ipsec.d/*.conf\n";
const SECRETS: &str = "include ipsec.d/*.secrets\n";

/// A lab whose hosts have these names for themselves alone, and configurations with an empty directory
/// for each.
struct Named {
    lab: Lab,
    directories: [PathBuf; 2],
    /// Starts obol, and the names.
    program: PathBuf,
    names: PathBuf,
}

impl Named {
    fn new(test: &str) -> Self {
        let program = std::env::temp_dir().join(format!("obol-{test}-{}", std::process::id()));
        let names = program.with_extension("hosts");
        let [a, b] = NAMES;
        write(
            &names,
            &format!("192.168.0.1 {a}\n192.168.0.2 {b}\n"),
            0o644,
        );
        // Names are the whole system's, but for a process with mounts of its own.
        let script = format!(
            "#!/bin/sh\nexec unshare -m sh -c 'mount --bind {} /etc/hosts && exec {} \"$@\"' sh \"$@\"\n",
            names.display(),
            obol().display()
        );
        write(&program, &script, 0o755);
        let mut lab = Lab::new(&program, None).unwrap();
        let directories = ["a-etc", "b-etc"].map(|name| lab.directory().join(name));
        for (host, own) in [&mut lab.a, &mut lab.b].into_iter().zip(&directories) {
            fs::create_dir_all(own.join("ipsec.d")).unwrap();
            write(&own.join("ipsec.conf"), CONF, 0o644);
            write(&own.join("ipsec.secrets"), SECRETS, 0o600);
            run_from(host, own);
        }
        Self {
            lab,
            directories,
            program,
            names,
        }
    }

    /// Writes the files of the pair on both hosts, about themselves or these networks.
    fn write(&self, nets: Option<[&str; 2]>) {
        for (number, directory) in self.directories.iter().enumerate() {
            write_pair(directory, number, nets);
        }
    }

    fn start(&mut self) {
        for host in [&mut self.lab.a, &mut self.lab.b] {
            host.start().unwrap();
        }
    }

    /// Waits until both ends have children of these names up.
    async fn up(&mut self, wanted: [&[&str]; 2]) {
        let deadline = Instant::now() + LIMIT;
        let hosts = [&mut self.lab.a, &mut self.lab.b];
        for (host, wanted) in hosts.into_iter().zip(wanted) {
            loop {
                let status = host.status().await;
                let is_up = |status| !ike_sas(&status).is_empty() && installed(&status) == wanted;
                if status.is_ok_and(is_up) {
                    break;
                }
                assert!(host.runs() && Instant::now() < deadline, "{}", log(host));
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.program);
        let _ = fs::remove_file(&self.names);
    }
}

/// The files of a pair, on the host with this number; `nets` are theirs, if it is about networks.
fn write_pair(directory: &Path, number: usize, nets: Option<[&str; 2]>) {
    let (own, far) = (NAMES[number], NAMES[1 - number]);
    let nets_of = |side: &str, number: usize| {
        nets.map_or(String::new(), |nets| {
            format!("  {side}subnets={{{}}}\n", nets[number])
        })
    };
    let conn = format!(
        "conn {own}-to-{far}\n  left={own}\n  leftid=@{own}\n{}  right={far}\n  rightid=@{far}\n{}  \
         ikev2=insist\n  auto=start\n  authby=secret\n",
        nets_of("left", number),
        nets_of("right", 1 - number)
    );
    let files = directory.join("ipsec.d");
    write(&files.join(format!("{own}-to-{far}.conf")), &conn, 0o644);
    let secret = format!("@{own} @{far} : PSK 0sb25lIHNlY3JldCBvZiBhIHJvbGUgZm9yIHR3bw==\n");
    write(
        &files.join(format!("{own}-to-{far}.secrets")),
        &secret,
        0o600,
    );
}

async fn pinged(host: &Host, from: std::net::Ipv4Addr, to: std::net::Ipv4Addr) {
    let deadline = Instant::now() + LIMIT;
    let done = ping(&host.netns, from, to, PATIENCE, deadline).await;
    done.unwrap_or_else(|error| panic!("{error}\n{}", log(host)));
}

#[tokio::test]
async fn ansibles_hosts_by_name_come_up_and_get_networks_by_a_restart() {
    if !is_root() {
        return;
    }
    let mut named = Named::new("hosts");
    named.write(None);
    named.start();
    named.up(HOSTS).await;
    let (a, b) = (&named.lab.a, &named.lab.b);
    pinged(a, a.side.address, b.side.address).await;
    let (code, text) = ipsec(a, "status");
    assert_eq!(code, 0, "{text}");
    let line = "\"host01.local-to-host02.local\": 192.168.0.1[@host01.local]...192.168.0.2[@host02.local]; routed-tunnel; ";
    assert!(text.lines().any(|of| of.starts_with(line)), "{text}");

    // The role runs again, with networks: it writes the files anew, and restarts the service.
    named.write(Some(["172.16.1.0/24,10.9.1.0/24", "172.16.2.0/24"]));
    for host in [&mut named.lab.a, &mut named.lab.b] {
        host.stop(LIMIT).await.unwrap();
    }
    named.start();
    let of_a = [
        "host01.local-to-host02.local-1x1",
        "host01.local-to-host02.local-2x1",
    ];
    let of_b = [
        "host02.local-to-host01.local-1x1",
        "host02.local-to-host01.local-1x2",
    ];
    named.up([&of_a, &of_b]).await;
    let (a, b) = (&named.lab.a, &named.lab.b);
    pinged(a, a.side.pod, b.side.pod).await;
    pinged(b, b.side.pod, a.side.pod).await;
}

/// The names of the conns between the hosts themselves.
const HOSTS: [&[&str]; 2] = [
    &["host01.local-to-host02.local"],
    &["host02.local-to-host01.local"],
];

/// The role's opportunistic mesh, which obol does not have: each conn is refused with its line, and the
/// pair beside it comes up.
#[tokio::test]
async fn ansibles_mesh_is_refused_conn_by_conn() {
    if !is_root() {
        return;
    }
    let mut named = Named::new("mesh");
    let mesh = "\
conn private
      type=tunnel
      left=%defaultroute
      leftid=%fromcert
      rightid=%fromcert
      rightrsasigkey=%cert
      rightca=%same
      leftcert=host01
      auto=ondemand
      right=%opportunisticgroup
      negotiationshunt=hold
      failureshunt=drop
      ikev2=insist
      keyingtries=1
      retransmit-timeout=2s

conn clear
      type=passthrough
      left=%defaultroute
      right=%group
      auto=route
      authby=never
";
    named.write(None);
    for directory in &named.directories {
        write(&directory.join("ipsec.d/mesh.conf"), mesh, 0o644);
    }
    named.start();
    named.up(HOSTS).await;
    let said = log(&named.lab.a);
    let refused = |line: &&str| line.contains("private is refused") && line.contains("mesh.conf:");
    let lines: Vec<&str> = said.lines().filter(refused).collect();
    assert!(
        lines.iter().any(|line| line.contains("leftcert=")),
        "{said}"
    );
    // Nobody is its peer here.
    assert!(said.contains("clear is not this host's"), "{said}");
}
