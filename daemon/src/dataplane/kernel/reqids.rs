//! Request IDs: what ties states to policies, and what says of both that they are ours.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::host::HostSettings;

/// The highest octet of all of ours.
const OURS: u32 = 0x6f << 24;

/// The request IDs of this instance. The low octet of the firewall mark tells instances on one host
/// apart.
pub(crate) fn range(settings: &HostSettings) -> RangeInclusive<u32> {
    let instance = (settings.fwmark & 0xff) << 16;
    (OURS | instance | 1)..=(OURS | instance | 0xffff)
}

/// Which are in use.
#[derive(Debug)]
pub(super) struct Reqids {
    range: RangeInclusive<u32>,
    next: u32,
    used: HashSet<u32>,
}

impl Reqids {
    pub(super) fn new(settings: &HostSettings) -> Self {
        let range = range(settings);
        Self {
            next: *range.start(),
            range,
            used: HashSet::new(),
        }
    }

    pub(super) fn is_ours(&self, reqid: u32) -> bool {
        self.range.contains(&reqid)
    }

    /// One that is free, and was not used for as long as possible. `None`: there are none.
    pub(super) fn take(&mut self) -> Option<u32> {
        for _ in self.range.clone() {
            let reqid = self.next;
            self.next = match reqid {
                last if last == *self.range.end() => *self.range.start(),
                other => other + 1,
            };
            if self.used.insert(reqid) {
                return Some(reqid);
            }
        }
        None
    }

    /// This one is in use; whether it was free.
    pub(super) fn claim(&mut self, reqid: u32) -> bool {
        self.is_ours(reqid) && self.used.insert(reqid)
    }

    /// It is free again.
    pub(super) fn free(&mut self, reqid: u32) {
        self.used.remove(&reqid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_instance_and_come_back_late() {
        let settings = HostSettings::for_tests();
        let mut reqids = Reqids::new(&settings);
        assert!(reqids.claim(0x6f62_0001));
        assert_eq!(reqids.take(), Some(0x6f62_0002));
        reqids.free(0x6f62_0002);
        assert_eq!(reqids.take(), Some(0x6f62_0003));
        while reqids.take().is_some() {}
        reqids.free(0x6f62_0010);
        assert_eq!((reqids.take(), reqids.take()), (Some(0x6f62_0010), None));
        let other = HostSettings {
            fwmark: 0x6f63,
            ..settings
        };
        assert!(!Reqids::new(&other).claim(0x6f62_0001));
    }
}
