//! The tables `[connections.NAME.children.NAME]`: what is protected, and how long its keys live.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::{Child, Mode, SpiHalf, StartAction, Upkeep};
use obol_ike::ts::TrafficSelector;

use super::finding::{Located, Place, Report};
use super::proposals::Proposals;
use super::reader::{Section, shorten};
use super::{cleartext, kernel, queues, values};

const REKEY_TIME: Duration = Duration::from_secs(3600);

/// Most selectors per side of a child. The TS payload counts them in one octet (RFC 7296
/// section 3.13), and the one of a triggering packet comes before them.
const MOST_SELECTORS: usize = 254;

/// A child, and where its parts were written.
pub(crate) struct ReadChild {
    /// What it means.
    pub(crate) config: Child,
    /// Where its name is.
    pub(crate) place: Place,
    /// Where each selector of our side is.
    pub(crate) local_ts: Vec<Located<TrafficSelector>>,
    /// Where each selector of the peer's side is.
    pub(crate) remote_ts: Vec<Located<TrafficSelector>>,
    /// What only the kernel's data plane does for it.
    pub(super) kernel: kernel::ReadOptions,
    /// When its packets pass in clear.
    pub(super) cleartext: cleartext::ReadCleartext,
    /// The script that is told what becomes of it.
    pub(super) updown: Option<String>,
}

/// Reads all children of a connection that make sense; what does not is reported. One that comes
/// up `alone` needs none.
pub(crate) fn read_all(
    report: &Report<'_>,
    proposals: &Proposals,
    connection: &Located<&str>,
    section: &Section<'_>,
    addrs: (&[Located<IpAddr>], &[Located<IpAddr>]),
    alone: bool,
) -> Vec<ReadChild> {
    let children = section.named("children");
    if children.is_empty() && !alone && !section.has("children") {
        report.error(
            &connection.place,
            format!(
                "connection {} has no children, so it protects nothing",
                connection.value
            ),
            format!(
                "add [connections.{}.children.NAME] with local_ts and remote_ts",
                connection.value
            ),
        );
    }
    children
        .into_iter()
        .filter_map(|(name, section)| read(report, proposals, &name, section, addrs))
        .collect()
}

fn read(
    report: &Report<'_>,
    proposals: &Proposals,
    name: &Located<&str>,
    section: Section<'_>,
    (local_addrs, remote_addrs): (&[Located<IpAddr>], &[Located<IpAddr>]),
) -> Option<ReadChild> {
    let mode = read_mode(report, &section);
    let local_ts = read_selectors(report, name, &section, "local", local_addrs);
    let remote_ts = read_selectors(report, name, &section, "remote", remote_addrs);
    let esp_proposals = proposals.of_esp(report, &section);
    let start_action = read_action(report, &section, "start_action");
    let upkeep = read_upkeep(report, &section);
    let inactivity = section.quantity("inactivity", values::duration);
    let lifetimes = read_lifetimes(report, name, &section);
    let queues = queues::read(report, &section, inactivity.as_ref());
    let kernel = kernel::read(report, &section);
    let updown = read_updown(report, &section);
    let cleartext = cleartext::read(report, &section);
    section.finish();

    let (mode, local_ts, remote_ts) = (mode?, local_ts?, remote_ts?);
    check_families(report, &local_ts, &remote_ts);
    if mode == Mode::Transport {
        check_transport(report, "local_addrs", &local_ts, local_addrs);
        check_transport(report, "remote_addrs", &remote_ts, remote_addrs);
    }
    let lifetimes = lifetimes?;
    let inactivity = inactivity.filter(|time| !time.value.is_zero());
    if let Some(time) = &inactivity
        && time.value >= lifetimes.time.0
    {
        report.error(
            &time.place,
            "inactivity is not shorter than rekey_time, so it never comes to pass",
            "shorten it, or raise rekey_time",
        );
        return None;
    }
    let config = Child {
        name: name.value.into(),
        mode,
        local_ts: local_ts.iter().map(|ts| ts.value).collect(),
        remote_ts: remote_ts.iter().map(|ts| ts.value).collect(),
        esp_proposals: esp_proposals?,
        start_action: start_action?.unwrap_or(StartAction::None),
        upkeep: Upkeep {
            inactivity: inactivity.map(|time| time.value),
            ..upkeep?
        },
        rekey_time: lifetimes.time.0,
        life_time: lifetimes.time.1,
        rekey_bytes: lifetimes.bytes.0,
        life_bytes: lifetimes.bytes.1,
        rekey_packets: lifetimes.packets.0,
        life_packets: lifetimes.packets.1,
        queues: queues?,
        spi_half: SpiHalf::default(),
    };
    Some(ReadChild {
        config,
        place: name.place.clone(),
        local_ts,
        remote_ts,
        kernel: kernel?,
        cleartext: cleartext?,
        updown: updown?,
    })
}

/// The script: `None` if it is wrong, `Some(None)` if it is not there.
fn read_updown(report: &Report<'_>, section: &Section<'_>) -> Option<Option<String>> {
    let Some(command) = section.string("updown") else {
        return (!section.has("updown")).then_some(None);
    };
    if command.value.trim().is_empty() || command.value.contains(['\0', '\n']) {
        let fix = "write a program with its arguments on one line, or remove the line for none";
        report.error(&command.place, "updown names no program", fix);
        return None;
    }
    Some(Some(command.value.to_owned()))
}

/// How long an SA lives: soft and hard limits.
pub(super) struct Lifetimes {
    pub(super) time: (Duration, Duration),
    pub(super) bytes: (Option<u64>, Option<u64>),
    pub(super) packets: (Option<u64>, Option<u64>),
}

/// Reads them; `None`: something is wrong with them.
pub(super) fn read_lifetimes(
    report: &Report<'_>,
    name: &Located<&str>,
    section: &Section<'_>,
) -> Option<Lifetimes> {
    let number = |soft_key, hard_key, parse: &dyn Fn(&str) -> Result<u64, String>| {
        let tenth_more = |soft: u64| soft.saturating_add(soft / 10);
        let keys = (soft_key, hard_key);
        read_limits(report, section, keys, (parse, parse), None, tenth_more)
    };
    let tenth_more = |soft: Duration| soft + soft / 10;
    let time = read_limits(
        report,
        section,
        ("rekey_time", "life_time"),
        (&rekey_time, &life_time),
        Some(Duration::MAX),
        tenth_more,
    );
    let size = at_least(values::size, 100_000);
    let bytes = number("rekey_bytes", "life_bytes", &size);
    let count = at_least(values::count, 100);
    let packets = number("rekey_packets", "life_packets", &count);
    let (soft, hard) = time?;
    let rekey = soft.unwrap_or(REKEY_TIME);
    let life = hard.unwrap_or(tenth_more(REKEY_TIME));
    if soft.is_none() && life <= rekey {
        report.error(
            &name.place,
            "life_time is not longer than rekey_time, which is 1h",
            "add a shorter rekey_time",
        );
        return None;
    }
    Some(Lifetimes {
        time: (rekey, life),
        bytes: bytes?,
        packets: packets?,
    })
}

fn read_mode(report: &Report<'_>, section: &Section<'_>) -> Option<Mode> {
    let Some(mode) = section.string("mode") else {
        return (!section.has("mode")).then_some(Mode::Tunnel);
    };
    match mode.value {
        "tunnel" => Some(Mode::Tunnel),
        "transport" => Some(Mode::Transport),
        other => {
            report.error(
                &mode.place,
                format!("mode = \"{}\" is none that obol knows", shorten(other)),
                "write \"tunnel\" or \"transport\"",
            );
            None
        }
    }
}

/// One of the actions: `None` if it is wrong, `Some(None)` if it is not there.
fn read_action(
    report: &Report<'_>,
    section: &Section<'_>,
    key: &'static str,
) -> Option<Option<StartAction>> {
    let Some(action) = section.string(key) else {
        return (!section.has(key)).then_some(None);
    };
    match action.value {
        "none" | "clear" => Some(Some(StartAction::None)),
        "trap" => Some(Some(StartAction::Trap)),
        "start" | "trap|start" | "restart" => Some(Some(StartAction::Start)),
        other => {
            report.error(
                &action.place,
                format!("{key} = \"{}\" is none that obol knows", shorten(other)),
                "write \"none\" (wait), \"trap\" (on the first packet) or \"start\" (at once)",
            );
            None
        }
    }
}

fn read_upkeep(report: &Report<'_>, section: &Section<'_>) -> Option<Upkeep> {
    let close_action = read_action(report, section, "close_action");
    let dpd_action = read_action(report, section, "dpd_action");
    Some(Upkeep {
        close_action: close_action?,
        dpd_action: dpd_action?,
        inactivity: None,
    })
}

/// The selectors of one side, `local` or `remote`; by default the connection's own addresses.
pub(super) fn read_selectors(
    report: &Report<'_>,
    name: &Located<&str>,
    section: &Section<'_>,
    side: &str,
    addrs: &[Located<IpAddr>],
) -> Option<Vec<Located<TrafficSelector>>> {
    let key = if side == "local" {
        "local_ts"
    } else {
        "remote_ts"
    };
    let texts = match section.strings(key) {
        Some(texts) => texts,
        None if section.has(key) => return None,
        None => vec![name.with("dynamic")],
    };
    let mut selectors: Vec<Located<TrafficSelector>> = Vec::new();
    let mut complete = true;
    for text in &texts {
        match selectors_of(text.value, addrs) {
            Ok(new) => selectors.extend(new.into_iter().map(|ts| text.with(ts))),
            Err((message, fix)) => {
                report.error(&text.place, format!("{key}: {message}"), fix);
                complete = false;
            }
        }
    }
    if !complete {
        return None;
    }
    for (i, ts) in selectors.iter().enumerate() {
        if let Some(first) = selectors[..i].iter().find(|first| first.value == ts.value) {
            let message = format!("{} is listed twice in {key}", ts.value);
            report.clash(&ts.place, &first.place, message, "remove one of them");
        }
    }
    if selectors.len() > MOST_SELECTORS {
        report.error(
            &selectors[MOST_SELECTORS].place,
            format!("{key} has more than {MOST_SELECTORS} selectors, which IKEv2 cannot carry"),
            "split the child into several",
        );
    }
    Some(selectors)
}

/// One text as selectors: one, or with `dynamic` one for each of the connection's addresses.
fn selectors_of(
    text: &str,
    addrs: &[Located<IpAddr>],
) -> Result<Vec<TrafficSelector>, (String, String)> {
    const FIX: &str =
        "write 10.0.0.0/16, 192.168.0.1[tcp/27017], 10.0.0.1-10.0.0.9[udp] or \"dynamic\"";
    let parse = |text: &str| {
        text.parse::<TrafficSelector>()
            .map_err(|e| (e.to_string(), FIX.to_owned()))
    };
    let Some(suffix) = text.strip_prefix("dynamic") else {
        return Ok(vec![parse(text)?]);
    };
    if addrs.is_empty() {
        return Err((
            "dynamic is the address of this end, which the connection does not name".into(),
            "write the selector out, or add local_addrs and remote_addrs to the connection".into(),
        ));
    }
    addrs
        .iter()
        .map(|addr| parse(&format!("{}{suffix}", addr.value)))
        .collect()
}

/// Packets have one address family, so the two sides must share one.
pub(super) fn check_families(
    report: &Report<'_>,
    local: &[Located<TrafficSelector>],
    remote: &[Located<TrafficSelector>],
) {
    let lonely = |ts: &&Located<TrafficSelector>, others: &[Located<TrafficSelector>]| {
        others
            .iter()
            .all(|other| other.value.start.is_ipv4() != ts.value.start.is_ipv4())
    };
    let local_lonely: Vec<_> = local.iter().filter(|ts| lonely(ts, remote)).collect();
    let remote_lonely: Vec<_> = remote.iter().filter(|ts| lonely(ts, local)).collect();
    if local_lonely.len() == local.len() {
        report.error(
            &remote[0].place,
            "local_ts and remote_ts are of different address families",
            "give both sides IPv4 selectors, or both IPv6 selectors",
        );
        return;
    }
    for ts in local_lonely.into_iter().chain(remote_lonely) {
        report.warn(
            &ts.place,
            format!("{} has no counterpart of its address family", ts.value),
            "remove it, or add one to the other side",
        );
    }
}

/// Transport mode is between the two hosts, so their addresses must be in the selectors.
fn check_transport(
    report: &Report<'_>,
    key: &str,
    selectors: &[Located<TrafficSelector>],
    addrs: &[Located<IpAddr>],
) {
    if addrs.is_empty() {
        return;
    }
    for ts in selectors {
        if !addrs
            .iter()
            .any(|addr| ts.value.contains_address(addr.value))
        {
            report.error(
                &ts.place,
                format!(
                    "{} holds none of {key}, but transport mode is between the two hosts alone",
                    ts.value
                ),
                "write an address of the host, or a network that it is in; for networks behind it remove mode = \"transport\"",
            );
        }
    }
}

/// A rekey time; 0, which is `Duration::MAX` from then on: never. Less than a second would have the two ends
/// do little else.
///
/// # Errors
/// What to write.
pub(crate) fn rekey_time(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        Duration::ZERO => Ok(Duration::MAX),
        time if time < Duration::from_secs(1) => {
            Err("1s is the shortest; 4h is usual, and 0 leaves it to the peer".into())
        }
        time => Ok(time),
    }
}

fn life_time(text: &str) -> Result<Duration, String> {
    match rekey_time(text)? {
        Duration::MAX => Err("1s is the shortest".into()),
        time => Ok(time),
    }
}

/// `parse` with a lower limit, below which an SA would be rekeyed all the time.
fn at_least(
    parse: impl Fn(&str) -> Result<u64, String>,
    least: u64,
) -> impl Fn(&str) -> Result<u64, String> {
    move |text| match parse(text)? {
        number if number < least => Err(format!("{least} is the least")),
        number => Ok(number),
    }
}

/// Reads a value, or says what to write.
type Parse<'p, T> = &'p dyn Fn(&str) -> Result<T, String>;

/// A soft and a hard limit. The hard one defaults to a tenth more than the soft one, and must be
/// beyond it: the time between them is what the rekey has. A soft one that is `never` has nothing to do with
/// the hard one. `None` if something is wrong.
fn read_limits<T: Copy + PartialOrd>(
    report: &Report<'_>,
    section: &Section<'_>,
    (soft_key, hard_key): (&'static str, &'static str),
    (soft, hard): (Parse<'_, T>, Parse<'_, T>),
    never: Option<T>,
    tenth_more: impl Fn(T) -> T,
) -> Option<(Option<T>, Option<T>)> {
    let soft = section.quantity(soft_key, soft);
    let hard = section.quantity(hard_key, hard);
    if (soft.is_none() && section.has(soft_key)) || (hard.is_none() && section.has(hard_key)) {
        return None;
    }
    let comes = |soft: &T| never.is_none_or(|never| *soft != never);
    if let (Some(soft), Some(hard)) = (&soft, &hard)
        && comes(&soft.value)
        && hard.value <= soft.value
    {
        report.clash(
            &hard.place,
            &soft.place,
            format!("{hard_key} is not beyond {soft_key}"),
            format!("raise it, or remove it for a tenth more than {soft_key}"),
        );
        return None;
    }
    let soft = soft.map(|soft| soft.value);
    let hard = hard.map(|hard| hard.value);
    Some((soft, hard.or(soft.filter(comes).map(tenth_more))))
}
