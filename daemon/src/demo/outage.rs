//! A daemon is killed under traffic: nothing may leave in clear, nothing may get through, and
//! everything works again when the daemon does.

use super::capture::Capture;
use super::lab::{A, B, Host, Lab, SERVICE};
use super::scenario::{FLOW_LIMIT, PATIENCE};
use super::story::{Outage, Story, rounded};
use super::traffic::{Pinger, converse, datagram, ping};
use crate::error::Failure;
use crate::host::netns::Netns;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Kills B's daemon with SIGKILL, keeps sending for a while, and starts it again. The TCP services
/// of both hosts run.
///
/// # Errors
/// If the daemon cannot be killed or started again.
pub(crate) async fn play(
    lab: &mut Lab,
    capture: &Capture,
    story: &mut Story,
) -> Result<(), Failure> {
    story.chapter("kill -9 of one daemon, with the traffic going on");
    let mut traffic = Traffic::start(lab).map_err(|e| Failure::system("cannot send", &e))?;
    let before = traffic.run_for(WARM_UP).await;
    let words = format!(
        "{} of {} tries answered before it",
        before.answered, before.tries
    );
    story.check(
        "before",
        before.answered > 0,
        &words,
        "the traffic is protected and answered",
    );

    let clear_before = capture.seen().clear;
    lab.b
        .kill()
        .map_err(|error| Failure::system("cannot kill the daemon of b", &error))?;
    // What was on its way when the daemon died may still be answered.
    traffic.run_for(LAST_REPLIES).await;
    let begin = Instant::now();
    let during = traffic.run_for(DEAD).await;
    let mut outage = Outage {
        seconds: rounded(begin.elapsed().as_secs_f64()),
        tries: during.tries,
        answered: during.answered,
        clear: capture.seen().clear - clear_before,
        recovery_s: None,
    };
    judge(&outage, story);

    let begin = Instant::now();
    lab.b
        .start()
        .map_err(|error| Failure::system("cannot start the daemon of b", &error))?;
    let recovered = recovery(lab).await;
    outage.recovery_s = recovered
        .is_ok()
        .then(|| rounded(begin.elapsed().as_secs_f64()));
    let words = match (&recovered, outage.recovery_s) {
        (Ok(()), Some(seconds)) => format!("every flow works {seconds:.2} s after its new start"),
        (Err(error), _) => error.to_string(),
        (Ok(()), None) => String::new(),
    };
    story.check(
        "recovery",
        recovered.is_ok(),
        &words,
        "every flow works again",
    );
    story.findings.outage = Some(outage);
    drop(traffic);
    Ok(())
}

fn judge(outage: &Outage, story: &mut Story) {
    let Outage {
        seconds,
        tries,
        answered,
        clear,
        ..
    } = *outage;
    let words = format!("{clear} packets in clear in {seconds:.1} s without the daemon");
    story.check("outage-clear", clear == 0, &words, "0");
    let words = format!("{answered} of {tries} tries answered meanwhile");
    let expected = "0: an answer would have come by another way than ESP";
    story.check(
        "outage-answered",
        answered == 0 && tries > 0,
        &words,
        expected,
    );
}

/// Waits until every flow of the demo works in both directions.
async fn recovery(lab: &Lab) -> io::Result<()> {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    for (host, peer) in [(&lab.a, B), (&lab.b, A)] {
        let Host { netns, side, .. } = host;
        ping(netns, side.pod, peer.pod, PATIENCE, deadline).await?;
        ping(netns, side.overlay, peer.overlay, PATIENCE, deadline).await?;
        let service = SocketAddrV4::new(peer.address, SERVICE);
        converse(netns, side.address, service, FLOW_LIMIT).await?;
    }
    Ok(())
}

const WARM_UP: Duration = Duration::from_millis(300);
const LAST_REPLIES: Duration = Duration::from_millis(100);
const DEAD: Duration = Duration::from_secs(2);
const RECOVERY_LIMIT: Duration = Duration::from_secs(10);
/// How long one try waits for its answer.
const TRY: Duration = Duration::from_millis(200);
/// Between one try and the next of the same kind.
const PAUSE: Duration = Duration::from_millis(10);

/// Tries of every kind, in both directions, until dropped.
#[derive(Debug)]
pub struct Traffic {
    // Dropping it ends the tasks.
    _tasks: JoinSet<()>,
    counts: Arc<Counts>,
}

/// What came of a while of traffic.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// Packets and connections tried.
    pub tries: u64,
    /// Those that were answered.
    pub answered: u64,
}

impl Traffic {
    /// Begins: connections to the TCP service, echo requests over the overlay and between the
    /// networks behind the hosts, and datagrams between the latter.
    ///
    /// # Errors
    /// If a socket cannot be made.
    pub fn start(lab: &Lab) -> io::Result<Self> {
        let mut tasks = JoinSet::new();
        let counts = Arc::new(Counts::default());
        for (host, peer) in [(&lab.a, B), (&lab.b, A)] {
            let (netns, side) = (&host.netns, host.side);
            for (from, to) in [(side.pod, peer.pod), (side.overlay, peer.overlay)] {
                // Without an overlay there is nothing to send over it.
                if let Ok(pinger) = Pinger::new(netns, from, to) {
                    tasks.spawn(pings(pinger, Arc::clone(&counts)));
                }
            }
            let service = SocketAddrV4::new(peer.address, SERVICE);
            tasks.spawn(talks(
                netns.clone(),
                side.address,
                service,
                Arc::clone(&counts),
            ));
            let nobody = SocketAddrV4::new(peer.pod, DISCARD);
            tasks.spawn(datagrams(netns.clone(), side.pod, nobody));
        }
        Ok(Self {
            _tasks: tasks,
            counts,
        })
    }

    /// Lets it run for a while, and says what came of that.
    pub async fn run_for(&mut self, time: Duration) -> Outcome {
        let before = self.counts.now();
        tokio::time::sleep(time).await;
        let after = self.counts.now();
        Outcome {
            tries: after.tries - before.tries,
            answered: after.answered - before.answered,
        }
    }
}

/// The discard service of RFC 863, which nobody runs here.
const DISCARD: u16 = 9;

#[derive(Debug, Default)]
struct Counts {
    tries: AtomicU64,
    answered: AtomicU64,
}

impl Counts {
    fn now(&self) -> Outcome {
        Outcome {
            tries: self.tries.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
        }
    }

    fn add(&self, answered: bool) {
        self.tries.fetch_add(1, Ordering::Relaxed);
        self.answered
            .fetch_add(u64::from(answered), Ordering::Relaxed);
    }
}

async fn pings(pinger: Pinger, counts: Arc<Counts>) {
    for sequence in (0..=u16::MAX).cycle() {
        let replied = tokio::time::timeout(TRY, pinger.once(sequence)).await;
        counts.add(matches!(replied, Ok(Ok(_))));
        tokio::time::sleep(PAUSE).await;
    }
}

async fn talks(netns: Netns, from: Ipv4Addr, to: SocketAddrV4, counts: Arc<Counts>) {
    loop {
        counts.add(converse(&netns, from, to, TRY).await.is_ok());
        tokio::time::sleep(PAUSE).await;
    }
}

async fn datagrams(netns: Netns, from: Ipv4Addr, to: SocketAddrV4) {
    loop {
        // What the host refuses to send does not leave in clear.
        let _ = datagram(&netns, from, to).await;
        tokio::time::sleep(PAUSE).await;
    }
}
