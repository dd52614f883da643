//! What Open vSwitch's monitor for IPsec does with pluto: it writes `ipsec.conf` and `ipsec.secrets`, loads,
//! starts and deletes conns one by one, and reads `ipsec status`. As root; in namespaces.
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

use std::collections::BTreeSet;
use std::net::{SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::time::Instant;

use daemons::{LIMIT, PATIENCE};
use obol_daemon::demo::lab::{Host, Lab};
use pluto::{ipsec, log, run_from, write};
use support::{is_root, obol};

/// The port of VXLAN as Open vSwitch uses it.
const VXLAN: u16 = 4789;

/// What it writes at the beginning of the file: versions before 5 get `keyingtries` too.
const HEAD: &str = "\
# Generated, do not modify by hand

config setup
    uniqueids=yes

conn %default
    type=transport
    auto=route
    keyingtries=%forever
    ike=aes_gcm256-sha2_256
    esp=aes_gcm256
    ikev2=insist

";

/// A host with its monitor.
struct Monitor<'l> {
    host: &'l Host,
    peer: &'l Host,
    directory: PathBuf,
    /// What comes between `ipsec` and options: `auto`, or nothing for version 5.
    program: &'static str,
}

impl Monitor<'_> {
    /// Writes both files, with one VXLAN tunnel of this version, or none.
    fn write(&self, version: Option<u32>, secret: &str) {
        let (own, far) = (self.host.side.address, self.peer.side.address);
        let conn = |way: &str, ports: [&str; 2]| {
            let [left, right] = ports;
            format!(
                "conn tun-{way}-{}\n    left={own}\n    right={far}\n    authby=secret\n    \
                 leftprotoport={left}\n    rightprotoport={right}\n\n",
                version.unwrap_or_default()
            )
        };
        let conns = conn("in", ["udp/4789", "udp"]) + &conn("out", ["udp", "udp/4789"]);
        let conns = version.map_or(String::new(), |_| conns);
        let secrets = version.map_or(String::new(), |_| {
            format!("%any {far} : PSK \"{secret}\"\n")
        });
        write(
            &self.directory.join("ipsec.conf"),
            &(HEAD.to_owned() + &conns),
            0o644,
        );
        write(&self.directory.join("ipsec.secrets"), &secrets, 0o600);
    }

    /// A command as it is written there; it must go well.
    fn does(&self, words: &str) -> String {
        let (code, text) = self.tries(words);
        assert_eq!(code, 0, "{words}: {text}\n{}", log(self.host));
        text
    }

    fn tries(&self, words: &str) -> (i32, String) {
        let socket = self.host.runtime.join("pluto.ctl");
        let conf = self.directory.join("ipsec.conf");
        let line = format!(
            "{} --ctlsocket {} --config {} {words}",
            self.program,
            socket.display(),
            conf.display()
        );
        ipsec(self.host, &line)
    }

    /// The names in those lines of the status that `name` finds one in.
    fn names(&self, name: impl Fn(&str) -> Option<&str>) -> BTreeSet<String> {
        let socket = self.host.runtime.join("pluto.ctl");
        let (code, text) = ipsec(
            self.host,
            &format!("status --ctlsocket {}", socket.display()),
        );
        assert_eq!(code, 0, "{text}");
        text.lines().filter_map(name).map(str::to_owned).collect()
    }

    /// The conns of tunnels that are loaded.
    fn loaded(&self) -> BTreeSet<String> {
        self.names(loaded)
    }

    /// Those that have an SA.
    fn active(&self) -> BTreeSet<String> {
        self.names(active)
    }

    /// What it does to have these conns and no others.
    fn refresh(&self, wanted: &BTreeSet<String>) {
        self.does("--rereadsecrets");
        let (loaded, active) = (self.loaded(), self.active());
        for conn in (&loaded | &active).difference(wanted) {
            self.does(&format!("--delete {conn}"));
        }
        for conn in &(&loaded & wanted) - &active {
            self.does(&format!("--up --asynchronous {conn}"));
        }
        for conn in wanted - &loaded {
            self.begin(&conn);
        }
    }

    /// What it does some time later about conns that did not come up: those that it has started are begun
    /// anew, and the others brought up.
    fn reconcile(&self) {
        for conn in &self.loaded() - &self.active() {
            if conn.contains("-in-") {
                self.does(&format!("--up --asynchronous {conn}"));
            } else {
                self.does(&format!("--delete {conn}"));
                self.begin(&conn);
            }
        }
    }

    /// Of a new tunnel, one conn is added and one started.
    fn begin(&self, conn: &str) {
        match conn.contains("-in-") {
            true => self.does(&format!("--add {conn}")),
            false => self.does(&format!("--start --asynchronous {conn}")),
        };
    }
}

/// The name in a line like `"tun-in-1": 192.0.2.1...192.0.2.2; ...`.
fn loaded(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once('"')?.1.rsplit_once("\": ")?;
    let is_address = rest.starts_with(|c: char| c.is_ascii_hexdigit() && !c.is_uppercase());
    (is_address && (rest.contains("===") || rest.contains("..."))).then_some(name)
}

/// The name in a line like `#2: "tun-in-1" esp.5d1c0a01@192.0.2.2 ...`.
fn active(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix('#')?.split_once(": ")?;
    let (name, rest) = rest.split_once('"')?.1.rsplit_once('"')?;
    let spi = rest.split("esp.").nth(1)?.split_once('@')?.0;
    let is_spi = !spi.is_empty() && spi.bytes().all(|octet| octet.is_ascii_hexdigit());
    is_spi.then_some(name)
}

/// The conns of a version of the tunnel.
fn conns(version: u32) -> BTreeSet<String> {
    BTreeSet::from(["in", "out"].map(|way| format!("tun-{way}-{version}")))
}

/// A lab whose daemons run from files without tunnels.
async fn begun() -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    for host in [&mut lab.a, &mut lab.b] {
        let own = directory.join(format!("{}-etc", host.side.name));
        std::fs::create_dir_all(&own).unwrap();
        write(&own.join("ipsec.conf"), HEAD, 0o644);
        write(&own.join("ipsec.secrets"), "", 0o600);
        run_from(host, &own);
        host.start().unwrap();
        let deadline = Instant::now() + LIMIT;
        while host.status().await.is_err() {
            assert!(host.runs() && Instant::now() < deadline, "{}", log(host));
            tokio::task::yield_now().await;
        }
    }
    lab
}

fn monitors<'l>(lab: &'l Lab, program: &'static str) -> [Monitor<'l>; 2] {
    [(&lab.a, &lab.b), (&lab.b, &lab.a)].map(|(host, peer)| Monitor {
        host,
        peer,
        directory: lab.directory().join(format!("{}-etc", host.side.name)),
        program,
    })
}

/// Waits until both ends have these conns up and no others. The end that changed first may have asked a
/// peer that did not know yet.
fn until_active(monitors: &[Monitor<'_>], wanted: &BTreeSet<String>) {
    for monitor in monitors {
        let begun = Instant::now();
        let mut reconciled = false;
        while monitor.active() != *wanted {
            if begun.elapsed() > LIMIT / 5 && !reconciled {
                monitor.reconcile();
                reconciled = true;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "{:?} and not {wanted:?}: {}",
                monitor.active(),
                log(monitor.host)
            );
            std::thread::sleep(PATIENCE / 10);
        }
        assert_eq!(monitor.loaded(), *wanted);
    }
}

/// Datagrams of the overlay arrive, from each to the other.
fn overlay(monitors: &[Monitor<'_>]) {
    for monitor in monitors {
        let bind = |host: &Host, port| {
            let address = SocketAddrV4::new(host.side.address, port);
            let socket = host.netns.run(|| UdpSocket::bind(address));
            socket.unwrap().unwrap()
        };
        let (sender, receiver) = (bind(monitor.host, 0), bind(monitor.peer, VXLAN));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = SocketAddrV4::new(monitor.peer.side.address, VXLAN);
        let deadline = Instant::now() + LIMIT;
        let mut octets = [0; 16];
        while {
            sender.send_to(b"frame", to).unwrap();
            receiver.recv_from(&mut octets).is_err()
        } {
            assert!(Instant::now() < deadline, "nothing comes");
        }
        assert_eq!(&octets[..5], b"frame");
    }
}

async fn a_tunnel_comes_changes_and_goes(program: &'static str) {
    if !is_root() {
        return;
    }
    let lab = begun().await;
    let monitors = monitors(&lab, program);
    for monitor in &monitors {
        assert_eq!(monitor.loaded(), BTreeSet::new());
        monitor.write(Some(1), "a secret of version 1");
        monitor.refresh(&conns(1));
    }
    until_active(&monitors, &conns(1));
    overlay(&monitors);
    // Another secret is another version: the conns have other names, and the old ones go.
    for monitor in &monitors {
        monitor.write(Some(2), "a secret of version 2");
        monitor.refresh(&conns(2));
    }
    until_active(&monitors, &conns(2));
    overlay(&monitors);
    for monitor in &monitors {
        monitor.write(None, "");
        monitor.refresh(&BTreeSet::new());
    }
    until_active(&monitors, &BTreeSet::new());
}

#[tokio::test]
async fn open_vswitchs_tunnel_comes_changes_and_goes_by_ipsec_auto() {
    a_tunnel_comes_changes_and_goes("auto").await;
}

#[tokio::test]
async fn open_vswitchs_tunnel_comes_changes_and_goes_by_options_alone() {
    a_tunnel_comes_changes_and_goes("").await;
}

/// Without secrets read again before: each conn is added or started by itself.
#[tokio::test]
async fn conns_that_are_new_in_the_file_are_added_and_started_one_by_one() {
    if !is_root() {
        return;
    }
    let lab = begun().await;
    let monitors = monitors(&lab, "auto");
    for monitor in &monitors {
        let (code, text) = monitor.tries("--start --asynchronous tun-out-1");
        assert_eq!(code, 21, "{text}");
        assert!(text.contains("conn tun-out-1: not found"), "{text}");
        monitor.write(Some(1), "a secret of version 1");
        conns(1).iter().for_each(|conn| monitor.begin(conn));
    }
    until_active(&monitors, &conns(1));
    overlay(&monitors);
    // What went down is brought up again.
    let [a, _] = &monitors;
    a.does("--down tun-out-1");
    assert_eq!(a.loaded(), conns(1));
    a.refresh(&conns(1));
    until_active(&monitors, &conns(1));
}

/// It asks for the version first, and takes what it cannot read for one before 5.
#[test]
fn the_version_is_printed_on_one_line() {
    let output = std::process::Command::new(obol())
        .args(["ipsec", "--version"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("Libreswan 5."), "{text}");
}
