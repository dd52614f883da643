//! What an auditor wants to know of dropped packets, RFC 4303 section 4: a line in the log with what
//! the packet said, under the target `audit`, which the log filter can switch off. The flow label
//! of IPv6 is not in it: sockets do not tell it. Anybody can send such packets, so only a few are
//! told; the counters have all.

use std::net::IpAddr;

/// Lines at most at once.
const BURST: u32 = 10;

/// Milliseconds after which there may be one more.
const REFILL: u64 = 10_000;

/// Tells of dropped packets.
pub(super) struct Audit {
    tokens: u32,
    since: u64,
}

/// A dropped packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drop<'a> {
    /// As the counters name it.
    pub(super) reason: &'a str,
    pub(super) spi: u32,
    /// As the packet has it, without the upper half of an extended one; of packets to us.
    pub(super) sequence: Option<u32>,
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
}

impl Audit {
    pub(super) fn new() -> Self {
        Self {
            tokens: BURST,
            since: 0,
        }
    }

    //= rfc4303 3.3.3-2 3.4.2-2 3.4.3-8 4-1 4-2
    //= security S-61
    /// Tells of a drop, if there were not many lately.
    pub(super) fn tell(&mut self, now: u64, drop: Drop<'_>) {
        let added = now.saturating_sub(self.since) / REFILL;
        if added > 0 {
            let added = u32::try_from(added).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(added).min(BURST);
            self.since = now;
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return;
        };
        self.tokens = left;
        let address = |ip: Option<IpAddr>| ip.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
        tracing::info!(
            target: "audit",
            reason = drop.reason,
            spi = format_args!("{:08x}", drop.spi),
            sequence = drop.sequence,
            source = address(drop.source),
            destination = address(drop.destination),
            "an ESP packet was dropped",
        );
    }
}

/// The sequence number that an ESP packet carries, unless it is too short for one.
pub(super) fn sequence_of(esp: &[u8]) -> Option<u32> {
    let field = esp.get(4..8)?.try_into().ok()?;
    Some(u32::from_be_bytes(field))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that come of drops at these times, with this log filter.
    fn lines(filter: &str, times: impl Iterator<Item = u64>) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut audit = Audit::new();
            for now in times {
                let drop = Drop {
                    reason: "replay",
                    spi: 0xc0ff_ee01,
                    sequence: sequence_of(&[0xc0, 0xff, 0xee, 1, 0, 0, 1, 2, 9]),
                    source: "192.0.2.1".parse().ok(),
                    destination: "192.0.2.2".parse().ok(),
                };
                audit.tell(now, drop);
            }
        });
        let octets = sink.0.lock().unwrap().clone();
        let text = String::from_utf8(octets).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    //= test rfc4303 3.3.3-2 3.4.2-2 3.4.3-8 4-1 4-2
    //= test security S-61
    #[test]
    fn a_drop_is_told_with_its_fields_unless_the_filter_says_no() {
        let told = lines("info", [1].into_iter());
        assert_eq!(told.len(), 1);
        for part in [
            "reason=\"replay\"",
            "spi=c0ffee01",
            "sequence=258",
            "source=\"192.0.2.1\"",
            "destination=\"192.0.2.2\"",
        ] {
            assert!(told[0].contains(part), "{part} in {}", told[0]);
        }
        // And the time, in front.
        assert!(told[0].starts_with("20"), "{}", told[0]);
        assert!(lines("info,audit=off", [1].into_iter()).is_empty());
    }

    //= test security S-58
    #[test]
    fn a_flood_is_not_told_packet_by_packet() {
        assert_eq!(lines("info", 0..1_000_000).len(), 10 + 99);
        assert_eq!(sequence_of(&[1; 7]), None);
    }
}
