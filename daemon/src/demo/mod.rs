//! `obol demo`: two hosts in two network namespaces of this machine, with real daemons and real
//! traffic between them, and a capture of the wire that says what could be read there.
//!
//! ```text
//!   lab        namespaces, configurations, daemons      scenario, outage   what happens
//!   traffic    what the hosts send                      story              what is told
//!   capture    what is on the wire, by classify
//! ```

pub mod capture;
pub mod classify;
pub mod lab;
pub mod outage;
mod scenario;
mod story;
pub mod traffic;

use crate::cli::DemoArgs;
use crate::error::{ExitClass, Failure};
use crate::host::netns::Netns;
use capture::Capture;
use classify::Protected;
use lab::{A, B, Lab, OVERLAY_PORT, SERVICE, WIRE};
use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use story::Story;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the demo.
///
/// # Errors
/// [`ExitClass::NotPermitted`] without the rights, and [`ExitClass::Failed`] if anything was not
/// as it should be, or on a signal.
pub(crate) fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let _lock = prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system("cannot make a runtime", &error))?;
    runtime.block_on(run(args))
}

/// The flows of the [`Lab`] that may be on the wire inside ESP only.
#[must_use]
pub fn protected() -> Protected {
    Protected {
        networks: vec![
            (Ipv4Addr::new(172, 16, 0, 0), 16),
            (Ipv4Addr::new(10, 200, 0, 0), 24),
        ],
        tcp: vec![SERVICE],
        udp: vec![OVERLAY_PORT],
    }
}

/// Namespaces are called so, with `-a` and `-b`.
const PREFIX: &str = "obol-demo";

async fn run(args: &DemoArgs) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|e| Failure::system("cannot catch signals", &e))?;
    let binary = std::env::current_exe().map_err(|e| Failure::system("cannot find myself", &e))?;
    let mut story = Story::new(args.output.json);
    let begin = Instant::now();
    introduce(&story);
    let mut lab = Lab::new(&binary, Some(PREFIX))
        .map_err(|error| Failure::system("cannot make the two hosts", &error))?;
    let capture = Capture::start(&lab.a.netns, WIRE, protected())
        .map_err(|error| Failure::system("cannot watch the wire", &error))?;
    let play = async {
        match scenario::play(&mut lab, &capture, &mut story).await {
            Err(failure) => {
                story.check(
                    "played",
                    false,
                    &failure.message,
                    "the demo comes to its end",
                );
            }
            Ok(()) if args.hold => {}
            Ok(()) => scenario::stop(&mut lab, &mut story).await,
        }
        scenario::wire(&capture, &mut story).await;
    };
    tokio::select! {
        () = play => {}
        () = signals.next() => {
            return Err(Failure::new(ExitClass::Failed, "interrupted; everything is removed"));
        }
    }
    finish(args, &mut lab, &mut story, begin, &binary, &mut signals).await
}

async fn finish(
    args: &DemoArgs,
    lab: &mut Lab,
    story: &mut Story,
    begin: Instant,
    binary: &Path,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let held = story.findings.checks.iter().all(|check| check.held);
    if !held {
        lab.keep_directory();
    }
    let directory = lab.directory().display().to_string();
    story.findings.logs = (args.hold || !held).then(|| directory.clone());
    story.end(begin.elapsed());
    if args.hold {
        explain(story, lab, binary);
        signals.next().await;
    }
    if held {
        return Ok(());
    }
    let message = format!("not everything held; configurations and logs are in {directory}");
    Err(Failure::new(ExitClass::Failed, message))
}

fn introduce(story: &Story) {
    let row = |left: &str, line: &str, right: &str| format!("   {left:<18}{line:^16}{right}");
    story.line("obol demo: two hosts, one wire, in two network namespaces of this machine");
    story.line("");
    story.line(&row(&format!("{PREFIX}-a"), "", &format!("{PREFIX}-b")));
    story.line(&row(
        &A.address.to_string(),
        "---- wire ----",
        &B.address.to_string(),
    ));
    story.line(&row(A.network, "", B.network));
}

fn explain(story: &Story, lab: &Lab, binary: &Path) {
    let binary = binary.display();
    let lines = [
        format!(
            "Both hosts stay up until Ctrl-C. Their files are in {}. To look around:",
            lab.directory().display()
        ),
        String::new(),
        format!(
            "  {binary} --runtime-dir {} status",
            lab.a.runtime.display()
        ),
        format!("  cat {}", lab.a.config.display()),
        format!("  ip netns exec {PREFIX}-a ping -I {} {}", A.pod, B.pod),
        format!("  ip netns exec {PREFIX}-a tcpdump -ni {WIRE}"),
        format!("  ip netns exec {PREFIX}-a ip rule"),
    ];
    story.line("");
    for line in lines {
        story.line(&line);
    }
}

/// What ends the demo before its time, and a held one.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let Self([interrupt, terminate, hangup]) = self;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Checks that the demo can be run here; what it returns keeps others from running it as well.
fn prepare() -> Result<File, Failure> {
    if !rustix::process::geteuid().is_root() {
        let message = "the demo makes network namespaces and devices: run it as root (sudo)";
        return Err(Failure::new(ExitClass::NotPermitted, message));
    }
    check_tun(&PathBuf::from("/dev/net/tun"))?;
    Netns::anonymous().map_err(|error| {
        let hint = "in a container, add --cap-add SYS_ADMIN --cap-add NET_ADMIN";
        let message = format!("cannot make a network namespace: {error}; {hint}");
        Failure::new(ExitClass::NotPermitted, message)
    })?;
    lab::lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Failure::new(
            ExitClass::Failed,
            "another demo runs on this machine; end it first",
        ),
        _ => Failure::system("cannot take the lock of the demo", &error),
    })
}

fn check_tun(path: &Path) -> Result<(), Failure> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(path) else {
        return Ok(());
    };
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "load the module (modprobe tun), or give the container the device"
        }
        _ => "give the container the device (--device /dev/net/tun)",
    };
    let message = format!("cannot open {}: {error}; {hint}", path.display());
    Err(Failure::new(ExitClass::NotPermitted, message))
}

#[cfg(test)]
mod tests {
    use super::outage::Traffic;
    use super::traffic::Service;
    use super::*;
    use std::net::SocketAddrV4;
    use std::time::Duration;

    /// The control of the whole demo: what it looks for is there when nothing protects.
    #[tokio::test]
    async fn without_daemons_the_traffic_is_seen_in_clear() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: namespaces need root");
            return;
        }
        let lab = Lab::new(Path::new("/nonexistent"), None).unwrap();
        let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
        lab.overlay().unwrap();
        let _service = Service::start(&lab.b.netns, SocketAddrV4::new(B.address, SERVICE));
        let mut traffic = Traffic::start(&lab).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let kinds = || {
            capture
                .seen()
                .clear_kinds
                .into_keys()
                .collect::<Vec<_>>()
                .join(", ")
        };
        while !(kinds().contains("TCP") && kinds().contains("to 8472")) {
            assert!(Instant::now() < deadline, "{:?}", capture.seen());
            traffic.run_for(Duration::from_millis(10)).await;
        }
        let outcome = traffic.run_for(Duration::from_millis(50)).await;
        assert!(outcome.answered > 0, "{outcome:?}");
    }

    #[test]
    fn a_missing_tun_device_is_a_missing_right_with_a_hint() {
        let failure = check_tun(Path::new("/nonexistent/tun")).unwrap_err();
        assert_eq!(failure.code, ExitClass::NotPermitted);
        assert!(failure.message.contains("modprobe tun"), "{failure}");
    }
}
