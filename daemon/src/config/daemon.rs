//! The table `[daemon]`: what belongs to the daemon as a whole.

use std::path::PathBuf;

use obol_ike::config::Settings;
use obol_ike::proposal::Allowed;
use tracing_subscriber::EnvFilter;

use super::finding::Report;
use super::planes::{self, DataPlaneChoice};
use super::reader::{Section, shorten};
use super::values;
use crate::host::{HostSettings, MTU_OF_IPV6};

/// Settings of the daemon as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DaemonSettings {
    /// Name of the TUN device, and of what goes with it.
    pub(crate) tun: String,
    /// Longest packet in octets that passes between the hosts, ESP included; `None`: the MTU of
    /// the device that the default route leads to.
    pub(crate) mtu: Option<u32>,
    /// Number of the routing table that is obol's own.
    pub(crate) table: u32,
    /// Priority of the first of obol's routing rules; they take up to 1000 from it.
    pub(crate) rule_priority: u32,
    /// Mark of the daemon's own packets.
    pub(crate) fwmark: u32,
    /// UDP port of IKE.
    pub(crate) port: u16,
    /// UDP port of IKE and ESP behind a NAT, RFC 3948.
    pub(crate) natt_port: u16,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub(crate) log: String,
    /// What carries ESP, unless a connection says otherwise.
    pub(crate) data_plane: DataPlaneChoice,
    /// Where the daemon keeps what outlives it; `None`: see `run::state_dir`.
    pub(crate) state_dir: Option<PathBuf>,
    /// Tickets of session resumption (RFC 5723) are good after a restart of the daemon.
    pub(crate) keep_tickets: bool,
    /// Keys of Child SAs are kept, and told to root by the control socket.
    pub(crate) show_keys: bool,
    /// Weak algorithms that may be used.
    pub(crate) allow: Allowed,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        Self {
            tun: "obol0".into(),
            mtu: None,
            table: 26250,
            rule_priority: 5200,
            fwmark: 0x0b01,
            port: 500,
            natt_port: 4500,
            log: "info".into(),
            data_plane: DataPlaneChoice::Userspace,
            state_dir: None,
            keep_tickets: false,
            show_keys: false,
            allow: Allowed::default(),
        }
    }
}

impl DaemonSettings {
    /// The part of it that says what obol may use of the host.
    pub(crate) fn host(&self) -> HostSettings {
        HostSettings {
            tun: self.tun.clone(),
            mtu: self.mtu,
            table: self.table,
            rule_priority: self.rule_priority,
            fwmark: self.fwmark,
            port: self.port,
            natt_port: self.natt_port,
        }
    }
}

/// Reads the table; what it does not say is as `before`.
pub(crate) fn read(
    report: &Report<'_>,
    section: Section<'_>,
    before: (DaemonSettings, Settings),
) -> (DaemonSettings, Settings) {
    let (mut daemon, settings) = before;
    if let Some(tun) = section.string("tun") {
        if is_device_name(tun.value) {
            daemon.tun = tun.value.into();
        } else {
            report.error(
                &tun.place,
                "tun is no name for a network device",
                "use 1 to 15 letters, digits, '-', '_' and '.'",
            );
        }
    }
    // Routing tables 253 to 255 are default, main and local.
    if let Some(table) = section.integer("table", 1..=u64::from(u32::MAX)) {
        if (253..=255).contains(&table.value) {
            report.error(
                &table.place,
                format!("routing table {} is the system's own", table.value),
                "use a number that nothing else uses, like 26250",
            );
        }
        daemon.table = number(table.value);
    }
    // Rules must come before the main table's, which is 32766.
    let set = |key, range, field: &mut u32| {
        if let Some(value) = section.integer(key, range) {
            *field = number(value.value);
        }
    };
    set("rule_priority", 1..=31_766, &mut daemon.rule_priority);
    set("fwmark", 1..=u64::from(u32::MAX), &mut daemon.fwmark);
    if let Some(mtu) = section.integer("mtu", 1280..=65_535) {
        daemon.mtu = Some(number(mtu.value));
        if mtu.value < u64::from(MTU_OF_IPV6) {
            report.warn(
                &mtu.place,
                format!(
                    "mtu = {} has no room for all of IPv6 within a tunnel: what is longer is lost where the path drops it and does not say so",
                    mtu.value
                ),
                format!("write {MTU_OF_IPV6} or more, if that passes; IPv4 is not concerned"),
            );
        }
    }
    read_ports(report, &section, &mut daemon);
    if let Some(log) = section.string("log") {
        match EnvFilter::try_new(log.value) {
            Ok(_) => daemon.log = log.value.into(),
            Err(e) => report.error(
                &log.place,
                format!("log is no filter: {e}"),
                "write error, warn, info, debug or trace, or a list like \"info,obol_ike=debug\"",
            ),
        }
    }
    if let Some(choice) = planes::read(report, &section) {
        daemon.data_plane = choice.value;
    }
    if let Some(dir) = section.string("state_dir") {
        if dir.value.starts_with('/') {
            daemon.state_dir = Some(dir.value.into());
        } else {
            let fix = "write a directory with all of its path, like \"/var/lib/obol\"";
            report.error(&dir.place, "state_dir does not begin with /", fix);
        }
    }
    let switch = |key, field: &mut bool| *field = section.boolean(key).unwrap_or(*field);
    switch("keep_tickets", &mut daemon.keep_tickets);
    switch("show_keys", &mut daemon.show_keys);
    read_allow(report, &section, &mut daemon.allow);
    let settings = read_settings(&section, settings);
    section.finish();
    (daemon, settings)
}

/// Weak algorithms, each of which has to be named.
fn read_allow(report: &Report<'_>, section: &Section<'_>, allowed: &mut Allowed) {
    for word in section.strings("allow").unwrap_or_default() {
        let known = Allowed::WORDS.join("\", \"");
        if !allowed.allow(word.value) {
            report.error(
                &word.place,
                format!(
                    "\"{}\" is no weak algorithm that can be allowed",
                    shorten(word.value)
                ),
                format!("write allow = [\"{known}\"], or remove the line"),
            );
            continue;
        }
        report.warn(
            &word.place,
            format!(
                "{} is allowed: proposals that name it may use it, though it is weak",
                word.value
            ),
            "remove it once all peers have AES",
        );
    }
}

/// `value` was checked against a range within 32 bits.
fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn read_ports(report: &Report<'_>, section: &Section<'_>, daemon: &mut DaemonSettings) {
    let range = 1..=u64::from(u16::MAX);
    let port = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    if let Some(value) = section.integer("port", range.clone()) {
        daemon.port = port(value.value);
    }
    let natt_port = section.integer("natt_port", range);
    if let Some(value) = &natt_port {
        daemon.natt_port = port(value.value);
    }
    if daemon.port == daemon.natt_port {
        let place = natt_port.map_or(section.place.clone(), |value| value.place);
        report.error(
            &place,
            format!("port and natt_port are both {}", daemon.port),
            "use two ports: 500 and 4500 unless the peers use others",
        );
    }
}

fn read_settings(section: &Section<'_>, mut settings: Settings) -> Settings {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    if let Some(value) = section.integer("cookie_threshold", 0..=1_000_000) {
        settings.cookie_threshold = size(value.value);
    }
    if let Some(value) = section.integer("half_open_limit", 1..=1_000_000) {
        settings.half_open_limit = size(value.value);
    }
    let quota = |key, field: &mut usize| {
        if let Some(value) = section.integer(key, 1..=1_000_000) {
            *field = size(value.value);
        }
    };
    quota("peer_ike_sas", &mut settings.quotas.ike_sas);
    quota("peer_child_sas", &mut settings.quotas.child_sas);
    quota("peer_selectors", &mut settings.quotas.selectors);
    quota("open_ike_sas", &mut settings.quotas.open_ike_sas);
    if let Some(time) = section.quantity("half_open_timeout", at_least_100ms) {
        settings.half_open_timeout = time.value;
    }
    if let Some(time) = section.quantity("retransmit_timeout", at_least_100ms) {
        settings.retransmit_timeout = time.value;
    }
    if let Some(base) = section.float("retransmit_base", 1.0..=5.0) {
        settings.retransmit_base = base;
    }
    if let Some(tries) = section.integer("retransmit_tries", 1..=20) {
        settings.retransmit_tries = number(tries.value);
    }
    let bits = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    if let Some(value) = section.integer("puzzle_threshold", 1..=1_000_000) {
        settings.puzzles.threshold = size(value.value);
    }
    if let Some(value) = section.integer("puzzle_difficulty", 0..=24) {
        settings.puzzles.difficulty = bits(value.value);
    }
    if let Some(value) = section.integer("puzzle_most", 0..=24) {
        settings.puzzles.most = bits(value.value);
    }
    if let Some(announce) = section.boolean("announce_auth_methods") {
        settings.announce_auth_methods = announce;
    }
    if let Some(crash_detection) = section.boolean("crash_detection") {
        settings.crash_detection = crash_detection;
    }
    settings
}

/// Less would flood the peer with repeats before any answer can be here.
pub(super) fn at_least_100ms(text: &str) -> Result<std::time::Duration, String> {
    let time = values::duration(text)?;
    if time.as_millis() < 100 {
        return Err("100ms is the shortest".into());
    }
    Ok(time)
}

/// Names that the kernel takes (`dev_valid_name`) and that need no quoting anywhere.
/// Whether a network device can have this name.
pub(super) fn is_device_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(fits) && name != "." && name != ".."
}
