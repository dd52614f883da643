//! The plan: what becomes of the policies, which nodes move, and what is done on each in which order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::{Files, running};
use crate::cli::{print_text, racoon as shown};
use crate::config::{self, DataPlaneChoice};
use crate::error::Failure;
use crate::racoon::{Native, Understood};

/// What `racoon.service` of obol runs.
const CONF: &str = "/etc/racoon/racoon.conf";

/// Prints it.
///
/// # Errors
/// Standard output is closed.
pub(super) fn print(
    files: &Files,
    own: &Path,
    read: &Understood,
    native: &Native,
) -> Result<(), Failure> {
    let by_kernel = own.exists() && config::load_daemon(own)?.data_plane == DataPlaneChoice::Kernel;
    let mut text = String::new();
    let [first, changes @ ..] = read.notices.as_slice() else {
        return Ok(());
    };
    let _ = writeln!(text, "{}", first.message);
    let _ = writeln!(text, "\nPolicies as obol has them:\n");
    text.push_str(&shown::flows(&read.flows));
    let _ = writeln!(text, "\nNodes that move together:");
    for (node, whence) in nodes(native) {
        let _ = writeln!(text, "  {node} ({})", whence.join(", "));
    }
    if !changes.is_empty() {
        let _ = writeln!(text, "\nWhat means something else with obol, or nothing:");
    }
    for change in changes {
        let _ = writeln!(text, "  {}: {}", change.location, change.message);
    }
    let _ = writeln!(
        text,
        "\nOn each of these nodes, in this order. They need not keep step: until both have moved, what the
policies protect is dropped between two nodes, and never in clear."
    );
    for (at, (command, what)) in steps(files, by_kernel).iter().enumerate() {
        let _ = writeln!(text, "  {}. {command}\n       {what}", at + 1);
    }
    if let Some(pid) = running() {
        let _ = writeln!(
            text,
            "\nOn this node racoon runs (pid {pid}): nothing was changed."
        );
    }
    print_text(&text)
}

/// Whom the files name, and where.
fn nodes(native: &Native) -> BTreeMap<String, Vec<String>> {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |node: String, whence: String| {
        let all = nodes.entry(node).or_default();
        if !all.contains(&whence) {
            all.push(whence);
        }
    };
    for connection in &native.loaded.ike.connections {
        let addresses: Vec<IpAddr> = connection.remote_addrs.clone();
        let named = |addr: &IpAddr| !addr.is_unspecified();
        for addr in addresses.iter().filter(|addr| named(addr)) {
            add(addr.to_string(), format!("peer of {}", connection.name));
        }
        if addresses.iter().any(named) {
            continue;
        }
        for child in &connection.children {
            for ts in &child.remote_ts {
                let node = match ts.start == ts.end {
                    true => ts.start.to_string(),
                    false => format!("every host of {} that ran racoon", range(ts)),
                };
                add(node, format!("policy {}", child.name));
            }
        }
    }
    for file in &native.loaded.credentials.psk_files {
        for (name, line) in file.names() {
            add(name, format!("line {line} of psk.txt"));
        }
    }
    nodes
}

/// The addresses of a selector, without protocol and ports.
fn range(ts: &obol_ike::ts::TrafficSelector) -> String {
    let addresses = obol_ike::ts::TrafficSelector {
        protocol: 0,
        start_port: 0,
        end_port: u16::MAX,
        ..*ts
    };
    addresses.to_string()
}

/// Commands, and what each is for. The kernel cannot have the policies of obol beside the same ones of
/// setkey, so with `by_kernel` nftables are to hold in between.
fn steps(files: &Files, by_kernel: bool) -> Vec<(String, &'static str)> {
    let conf = files.conf.display();
    let scripts: Vec<String> = files
        .scripts
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let by_unit = files.usual && files.conf == Path::new(CONF);
    let mut steps = vec![
        (
            format!("obol check {conf} {}", scripts.join(" ")),
            "obol is installed there, and takes the files of that node",
        ),
        (
            "systemctl disable --now racoon.service".to_owned(),
            "or service racoon stop: the policies of setkey stay in the kernel, and drop what has no SA",
        ),
    ];
    let obol = match by_kernel {
        true => "obol --config /dev/null",
        false => "obol",
    };
    let stands =
        "what the policies protect is dropped by obol too, from here on and without a daemon";
    match files.usual {
        true => steps.push((format!("{obol} setkey --service start"), stands)),
        false => steps.extend(
            scripts
                .iter()
                .map(|script| (format!("{obol} setkey -f {script}"), stands)),
        ),
    }
    steps.push((
        "ip xfrm state flush && ip xfrm policy flush".to_owned(),
        "the kernel's own copies go: they would drop what obol has opened",
    ));
    match by_unit {
        true => steps.push((
            "systemctl daemon-reload && systemctl enable --now setkey.service racoon.service"
                .to_owned(),
            "those of obol, from daemon/systemd, which are in /etc/systemd/system by now",
        )),
        false => steps.push((
            format!("obol racoon -f {conf}"),
            "or a unit that runs it with -F",
        )),
    }
    let named: String = scripts
        .iter()
        .filter(|_| !files.usual)
        .fold(String::new(), |all, script| {
            format!("{all} --setkey {script}")
        });
    steps.push((
        format!("obol migrate --racoon-conf {conf}{named} --verify --peer ADDRESS"),
        "once the others have come so far: an SA for each policy with each peer that is named",
    ));
    steps
}
