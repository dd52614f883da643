//! A data plane that only remembers what it was told, and insists on the order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::Path;
use crate::event::{ChildSaId, Command, DataPlaneRefusal, EspSpi, InboundSa, MovedSa, OutboundSa};

/// No SA tells more often than this that its peer has moved.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Begins what stands for an ESP packet in the simulated network; no IKE message does.
const ESP_MARK: [u8; 8] = [0; 8];

/// The SAs of one host.
#[derive(Debug, Default)]
pub struct FakePlane {
    /// SAs whose packets are accepted.
    pub inbound: BTreeMap<ChildSaId, InboundSa>,
    /// SAs that new packets were given to, at least once.
    pub outbound: BTreeMap<ChildSaId, OutboundSa>,
    /// The SA that new packets of a child use: by connection and child.
    pub current: BTreeMap<(String, String), ChildSaId>,
    /// In the order in which they were put to use.
    pub order: Vec<ChildSaId>,
    /// SAs that are gone.
    pub removed: BTreeSet<ChildSaId>,
    /// Refuse this many inbound SAs with [`DataPlaneRefusal::SpiTaken`].
    pub take_spis: u32,
    /// Refuse this many inbound SAs for another reason.
    pub fail_inbound: u32,
    /// Packets sealed, by SA: the last sequence number.
    pub sealed: BTreeMap<ChildSaId, u64>,
    /// Packets opened, by SA: the highest sequence number, and how many.
    pub opened: BTreeMap<ChildSaId, (u64, usize)>,
    told: BTreeMap<ChildSaId, Instant>,
}

impl FakePlane {
    /// As [`Ask::AddInbound`](crate::event::Ask::AddInbound) tells.
    ///
    /// # Errors
    /// As [`take_spis`](Self::take_spis) and [`fail_inbound`](Self::fail_inbound) say.
    ///
    /// # Panics
    /// If the endpoint breaks its side of the contract.
    pub fn add_inbound(&mut self, sa: InboundSa) -> Result<(), DataPlaneRefusal> {
        assert!(
            !self.removed.contains(&sa.info.id),
            "added after its removal"
        );
        assert!(sa.info.spi_in.0 >= 256, "a reserved SPI");
        if self.take_spis > 0 {
            self.take_spis -= 1;
            return Err(DataPlaneRefusal::SpiTaken);
        }
        if self.fail_inbound > 0 {
            self.fail_inbound -= 1;
            return Err(DataPlaneRefusal::Failed("told to fail".to_owned()));
        }
        let twice = self.inbound.insert(sa.info.id, sa);
        assert!(twice.is_none(), "added twice");
        Ok(())
    }

    /// As [`Ask::UseOutbound`](crate::event::Ask::UseOutbound) tells.
    ///
    /// # Errors
    /// Never.
    ///
    /// # Panics
    /// If the endpoint breaks its side of the contract.
    pub fn use_outbound(&mut self, sa: OutboundSa) -> Result<(), DataPlaneRefusal> {
        let id = sa.info.id;
        assert!(self.inbound.contains_key(&id), "outbound before inbound");
        let key = (sa.info.connection.clone(), sa.info.child.clone());
        self.current.insert(key, id);
        self.order.push(id);
        let twice = self.outbound.insert(id, sa);
        assert!(twice.is_none(), "used twice");
        Ok(())
    }

    /// As [`Ask::MovePath`](crate::event::Ask::MovePath) tells.
    ///
    /// # Panics
    /// If the SA is gone.
    pub fn move_path(&mut self, moved: MovedSa) {
        assert!(!self.removed.contains(&moved.id), "moved after its removal");
        let inbound = self.inbound.get_mut(&moved.id).map(|sa| &mut sa.info);
        let outbound = self.outbound.get_mut(&moved.id).map(|sa| &mut sa.info);
        for info in inbound.into_iter().chain(outbound) {
            (info.path, info.encap, info.nat) = (moved.path, moved.encap, moved.nat);
        }
        self.told.remove(&moved.id);
    }

    /// A packet of the first child that is up: where it goes, and what is in it. `None`: nothing
    /// is up.
    pub fn seal(&mut self) -> Option<(Path, Vec<u8>)> {
        let id = *self.current.values().next()?;
        let info = &self.outbound.get(&id)?.info;
        let number = self.sealed.entry(id).or_default();
        *number += 1;
        let mut packet = ESP_MARK.to_vec();
        packet.extend(info.spi_out.0.to_be_bytes());
        packet.extend(number.to_be_bytes());
        Some((info.path, packet))
    }

    /// Takes a packet that [`seal`](Self::seal) made at the other end; gives what is to be told
    /// about it. `None`: it is none.
    pub fn open(&mut self, now: Instant, path: Path, packet: &[u8]) -> Option<Option<Command>> {
        let (mark, rest) = packet.split_at_checked(ESP_MARK.len())?;
        let (spi, number) = rest.split_first_chunk::<4>()?;
        let number = <[u8; 8]>::try_from(number).ok()?;
        if mark != ESP_MARK {
            return None;
        }
        let (spi, number) = (EspSpi(u32::from_be_bytes(*spi)), u64::from_be_bytes(number));
        let Some(sa) = self.inbound.values().find(|sa| sa.info.spi_in == spi) else {
            return Some(None);
        };
        let id = sa.info.id;
        let (highest, count) = self.opened.entry(id).or_default();
        // Good enough for a window: what is sent here comes in order, or is a replay.
        if number <= *highest {
            return Some(None);
        }
        *highest = number;
        *count += 1;
        let told = self.told.get(&id).is_some_and(|at| now < *at + TELL_AGAIN);
        if sa.info.path == path || told {
            return Some(None);
        }
        self.told.insert(id, now);
        Some(Some(Command::PeerMoved { child: id, path }))
    }

    /// How many packets were opened.
    pub fn opened_packets(&self) -> usize {
        self.opened.values().map(|(_, count)| count).sum()
    }

    /// As [`Ask::Remove`](crate::event::Ask::Remove) tells.
    ///
    /// # Panics
    /// If the SA was never there.
    pub fn remove(&mut self, id: ChildSaId) {
        assert!(self.removed.insert(id), "{id:?} removed twice");
        assert!(
            self.inbound.remove(&id).is_some(),
            "{id:?} removed, never added"
        );
        self.order.retain(|used| *used != id);
        let Some(sa) = self.outbound.remove(&id) else {
            return;
        };
        let key = (sa.info.connection, sa.info.child);
        if self.current.get(&key) == Some(&id) {
            self.current.remove(&key);
            let same = |used: &&ChildSaId| {
                let info = self.outbound.get(used).map(|sa| &sa.info);
                info.is_some_and(|info| (&info.connection, &info.child) == (&key.0, &key.1))
            };
            if let Some(last) = self.order.iter().rev().find(same).copied() {
                self.current.insert(key, last);
            }
        }
    }

    /// The SPI that new packets of a child go out with.
    pub fn spi_out(&self, connection: &str, child: &str) -> Option<EspSpi> {
        let mut current = self.current.iter();
        let (_, id) = current.find(|((c, name), _)| c == connection && name == child)?;
        Some(self.outbound.get(id)?.info.spi_out)
    }
}
