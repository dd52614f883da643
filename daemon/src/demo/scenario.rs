//! What the two hosts go through, one chapter after the other.

use super::capture::{Capture, Scope};
use super::lab::{A, B, Host, Lab, SERVICE, Side};
use super::outage;
use super::story::{Negotiated, Story, Throughput, milliseconds, rounded};
use super::traffic::{Service, converse, flood, ping};
use crate::control::protocol::{ChildSaReport, IkeSaReport, StatusReport};
use crate::error::{ExitClass, Failure};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Plays everything up to the last look at the wire.
///
/// # Errors
/// What keeps the rest from making sense: a daemon does not start, no Child SA comes up. All else
/// is a check that did not hold.
pub(crate) async fn play(
    lab: &mut Lab,
    capture: &Capture,
    story: &mut Story,
) -> Result<(), Failure> {
    start(lab, capture, story).await?;
    subnets(lab, story).await;
    let _services = service(lab, story).await?;
    overlay(lab, story).await;
    throughput(lab, capture, story).await;
    outage::play(lab, capture, story).await
}

/// Ends both daemons in good order.
pub(crate) async fn stop(lab: &mut Lab, story: &mut Story) {
    let mut seen = Vec::new();
    for host in [&mut lab.a, &mut lab.b] {
        seen.push(match host.stop(STOP_LIMIT).await {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("{}: {status}", host.side.name)),
            Err(error) => Some(format!("{}: {error}", host.side.name)),
        });
    }
    let wrong: Vec<String> = seen.into_iter().flatten().collect();
    let words = if wrong.is_empty() {
        "both daemons closed their SAs and ended".to_owned()
    } else {
        wrong.join(", ")
    };
    story.check(
        "ended",
        wrong.is_empty(),
        &words,
        "both end with exit code 0 after SIGTERM",
    );
}

/// Judges the whole capture.
pub(crate) async fn wire(capture: &Capture, story: &mut Story) {
    story.chapter("What was on the wire, from before the daemons started until now");
    let missed = settle(capture).await;
    let seen = capture.seen();
    for (class, count) in [
        ("IKE", seen.ike),
        ("ESP", seen.esp),
        ("ESP in UDP", seen.esp_in_udp),
    ] {
        story.note(&format!("{count:>6}  {class}"));
    }
    story.note(&format!("{:>6}  ARP", seen.arp));
    let kinds = |kinds: &std::collections::BTreeMap<String, u64>| {
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(kind, count)| format!("{kind} ({count})"))
            .collect();
        if kinds.is_empty() {
            String::new()
        } else {
            format!(": {}", kinds.join(", "))
        }
    };
    let protected = seen.esp + seen.esp_in_udp;
    story.check(
        "esp",
        protected > 0,
        &format!("{protected} packets in ESP"),
        "some",
    );
    let words = format!(
        "{} packets in clear{}",
        seen.clear,
        kinds(&seen.clear_kinds)
    );
    story.check(
        "clear",
        seen.clear == 0,
        &words,
        "0: no protected flow, no demo payload",
    );
    let words = format!("{} other packets{}", seen.other, kinds(&seen.other_kinds));
    story.check(
        "other",
        seen.other == 0,
        &words,
        "0: nothing but IKE, ESP and ARP",
    );
    let words = format!("the capture missed {missed} packets of those that the device counted");
    story.check("complete", missed == 0, &words, "0");
    story.findings.wire.seen = seen;
    story.findings.wire.missed = missed;
}

/// How long a flow may take until it works, negotiation and retransmissions included.
pub(super) const FLOW_LIMIT: Duration = Duration::from_secs(5);
/// After this time without reply an echo request is repeated.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const FLOOD_TIME: Duration = Duration::from_secs(3);

async fn start(lab: &mut Lab, capture: &Capture, story: &mut Story) -> Result<(), Failure> {
    story.chapter("Two daemons start and negotiate");
    let begin = Instant::now();
    for host in [&mut lab.a, &mut lab.b] {
        host.start()
            .map_err(|error| Failure::system("cannot start a daemon", &error))?;
    }
    let what = "its daemon has the child pods up";
    let up = |report: &StatusReport| Host::has_child(report, "pods");
    let report = lab.a.wait_for(what, START_LIMIT, up).await?;
    lab.b.wait_for(what, START_LIMIT, up).await?;
    let took = begin.elapsed();
    let (ike, child) = pods(&report)
        .ok_or_else(|| Failure::new(ExitClass::Failed, "the child pods vanished again"))?;
    let first = capture.seen().first_negotiation;
    let negotiated = negotiated(ike, child, took, first);
    story.check("ike", true, &describe_ike(ike, &negotiated), "an IKE SA");
    story.check(
        "pods",
        true,
        &describe_child(child),
        "a Child SA for the two subnets",
    );
    let on_wire = first.map_or_else(String::new, |time| {
        format!(
            "IKE_SA_INIT to IKE_AUTH took {:.1} ms on the wire; ",
            milliseconds(time)
        )
    });
    story.note(&format!(
        "{on_wire}up {:.0} ms after the daemons were started",
        milliseconds(took)
    ));
    story.findings.negotiated = Some(negotiated);
    Ok(())
}

fn pods(report: &StatusReport) -> Option<(&IkeSaReport, &ChildSaReport)> {
    let mut pairs = report
        .ike_sas
        .iter()
        .flat_map(|ike| ike.children.iter().map(move |c| (ike, c)));
    pairs.find(|(_, child)| child.name == "pods")
}

fn negotiated(
    ike: &IkeSaReport,
    child: &ChildSaReport,
    took: Duration,
    first: Option<Duration>,
) -> Negotiated {
    let id = |id: &Option<String>| id.clone().unwrap_or_default();
    Negotiated {
        first_negotiation_ms: first.map(milliseconds),
        start_to_child_ms: milliseconds(took),
        identities: [id(&ike.local.id), id(&ike.remote.id)],
        ike: ike.algorithms.clone(),
        esp: child.encr.clone(),
        encapsulation: child.encapsulation.clone(),
    }
}

fn describe_ike(ike: &IkeSaReport, negotiated: &Negotiated) -> String {
    let algorithms = ike.algorithms.as_ref().map_or_else(String::new, |a| {
        let parts = [Some(&a.encr), a.integ.as_ref(), Some(&a.prf), Some(&a.ke)];
        parts
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(", ")
    });
    let [ours, theirs] = &negotiated.identities;
    format!("IKE SA {}: {ours} and {theirs}, {algorithms}", ike.name)
}

fn describe_child(child: &ChildSaReport) -> String {
    let carrier = match child.encapsulation.as_str() {
        "udp" => "in UDP",
        _ => "IP protocol 50",
    };
    format!(
        "child {}: {} and {}, {} mode, {}, {carrier}",
        child.name,
        child.local_ts.join(" "),
        child.remote_ts.join(" "),
        child.mode,
        child.encr,
    )
}

async fn subnets(lab: &Lab, story: &mut Story) {
    story.chapter("The networks behind the hosts, through the tunnel");
    for (from, to) in [(&lab.a, B), (&lab.b, A)] {
        check_ping(from, from.side.pod, to.pod, story).await;
    }
}

async fn check_ping(host: &Host, from: Ipv4Addr, to: Ipv4Addr, story: &mut Story) {
    let path = format!("{from} -> {to}");
    let deadline = Instant::now() + FLOW_LIMIT;
    let pinged = ping(&host.netns, from, to, PATIENCE, deadline).await;
    let words = match &pinged {
        Ok(took) => format!("ping {path}: {:.2} ms", milliseconds(*took)),
        Err(error) => format!("ping {path}: {error}"),
    };
    story.check(
        &format!("ping {path}"),
        pinged.is_ok(),
        &words,
        "an echo reply",
    );
    if let Ok(took) = pinged {
        story
            .findings
            .latency
            .ping_ms
            .insert(path, milliseconds(took));
    }
}

/// The services stay for the chapters after this one.
async fn service(lab: &Lab, story: &mut Story) -> Result<[Service; 2], Failure> {
    story.chapter(&format!(
        "A TCP service on port {SERVICE}, on demand, in transport mode"
    ));
    let start = |host: &Host| {
        Service::start(&host.netns, SocketAddrV4::new(host.side.address, SERVICE))
            .map_err(|error| Failure::system("cannot listen", &error))
    };
    let services = [start(&lab.a)?, start(&lab.b)?];
    for (client, server) in [(&lab.a, B), (&lab.b, A)] {
        let address = SocketAddrV4::new(server.address, SERVICE);
        check_connections(client, address, (client.side.name, server.name), story).await;
    }
    Ok(services)
}

/// The first connection makes the Child SA, the second finds it.
async fn check_connections(
    client: &Host,
    address: SocketAddrV4,
    (from, to): (&str, &str),
    story: &mut Story,
) {
    let mut times = Vec::new();
    for _ in 0..2 {
        match converse(&client.netns, client.side.address, address, FLOW_LIMIT).await {
            Ok(conversation) => times.push(milliseconds(conversation.connect)),
            Err(error) => {
                let words = format!("{from} to {to}: {error}");
                story.check(
                    &format!("tcp {from} to {to}"),
                    false,
                    &words,
                    "a connection",
                );
                return;
            }
        }
    }
    // A lost SYN is sent again after a second, RFC 6298 section 2.
    let kept = times[0] < 1000.0;
    let words = format!(
        "{from} to {to}: connected in {:.1} ms with the negotiation, then in {:.2} ms",
        times[0], times[1]
    );
    let expected = "the first packet is kept, so that it need not be sent again after 1 s";
    story.check(&format!("tcp {from} to {to}"), kept, &words, expected);
    story
        .findings
        .latency
        .first_connect_ms
        .get_or_insert(times[0]);
    story
        .findings
        .latency
        .second_connect_ms
        .get_or_insert(times[1]);
}

async fn overlay(lab: &Lab, story: &mut Story) {
    story.chapter("A VXLAN overlay, UDP port 8472 in transport mode");
    if let Err(error) = lab.overlay() {
        let expected = "a VXLAN device on each host (kernel module vxlan)";
        story.check("vxlan", false, &error.to_string(), expected);
        return;
    }
    for (from, Side { overlay: to, .. }) in [(&lab.a, B), (&lab.b, A)] {
        check_ping(from, from.side.overlay, to, story).await;
    }
}

async fn throughput(lab: &Lab, capture: &Capture, story: &mut Story) {
    story.chapter("As much TCP as goes through");
    // What the capture has not counted by then is missed; only from here on does it look away.
    settle(capture).await;
    let measured = measure(lab, capture).await;
    let words = match &measured {
        Ok(measured) => format!(
            "{:.2} Gbit/s of TCP payload, {} packets, both hosts on this one machine",
            measured.gbit_per_s, measured.packets
        ),
        Err(error) => error.to_string(),
    };
    let some = measured.as_ref().is_ok_and(|measured| measured.bytes > 0);
    story.check(
        "throughput",
        some,
        &words,
        "everything that was sent arrives",
    );
    if cfg!(debug_assertions) {
        story.note("this is an unoptimised build: cargo run --release -p obol -- demo");
    }
    story.findings.throughput = measured.ok();
}

async fn measure(lab: &Lab, capture: &Capture) -> std::io::Result<Throughput> {
    let address = SocketAddrV4::new(B.address, SERVICE);
    let before = capture.on_device()?;
    capture.set_scope(Scope::Unprotected)?;
    let flooded = flood(&lab.a.netns, A.address, address, FLOOD_TIME, FLOW_LIMIT).await;
    quiet(capture).await?;
    let packets = capture.on_device()? - before;
    capture.set_scope(Scope::All)?;
    let (bytes, time) = flooded?;
    let seconds = time.as_secs_f64();
    Ok(Throughput {
        bytes,
        seconds: rounded(seconds),
        gbit_per_s: rounded(bytes as f64 * 8.0 / seconds / 1e9),
        packets,
    })
}

/// Waits until nothing more goes over the device.
async fn quiet(capture: &Capture) -> std::io::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut last = u64::MAX;
    for _ in 0..QUIET_TICKS {
        ticks.tick().await;
        let count = capture.on_device()?;
        if std::mem::replace(&mut last, count) == count {
            break;
        }
    }
    Ok(())
}

/// Ticks of 20 ms after which it is not waited for quiet any longer.
const QUIET_TICKS: usize = 25;

/// Waits until the capture has counted what the device has, if it comes to that; what it missed.
async fn settle(capture: &Capture) -> u64 {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut missed = 0;
    for _ in 0..QUIET_TICKS {
        ticks.tick().await;
        missed = capture.missed().unwrap_or(u64::MAX);
        if missed == 0 {
            break;
        }
    }
    missed
}
