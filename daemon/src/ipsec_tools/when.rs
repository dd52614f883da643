//! Times as the programs of ipsec-tools print them: local, in two forms.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The zone of this host, or of a test.
pub(super) struct Clock {
    zone: TimeZone,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Clock {
    /// This host's.
    pub(super) fn here() -> Self {
        Self {
            zone: TimeZone::system(),
            now: u64::try_from(Timestamp::now().as_second()).unwrap_or_default(),
        }
    }

    /// So many seconds ago, in seconds since 1970.
    pub(super) fn ago(&self, seconds: u64) -> u64 {
        self.now.saturating_sub(seconds)
    }

    /// `2026-03-01 12:00:06`.
    pub(super) fn short(&self, at: u64) -> String {
        self.write("%Y-%m-%d %H:%M:%S", at)
    }

    /// `Mar  1 12:00:07 2026`, or as many blanks where it never was.
    pub(super) fn long(&self, at: Option<u64>) -> String {
        at.map_or_else(|| " ".repeat(20), |at| self.write("%b %e %H:%M:%S %Y", at))
    }

    fn write(&self, format: &str, at: u64) -> String {
        let at = i64::try_from(at).unwrap_or_default();
        let at = Timestamp::from_second(at).unwrap_or_default();
        at.to_zoned(self.zone.clone()).strftime(format).to_string()
    }

    /// 1 March 2026, 12:00:17, in UTC.
    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            zone: TimeZone::UTC,
            now: 1_772_366_417,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let mut clock = Clock::for_tests();
        assert_eq!(clock.short(clock.ago(11)), "2026-03-01 12:00:06");
        assert_eq!(clock.long(Some(clock.ago(10))), "Mar  1 12:00:07 2026");
        assert_eq!(clock.long(None).len(), "Mar  1 12:00:07 2026".len());
        clock.zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(clock.short(clock.now), "2026-03-01 07:00:17");
    }
}
