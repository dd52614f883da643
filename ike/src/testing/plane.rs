//! A data plane that only remembers what it was told, and insists on the order.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{ChildSaId, DataPlaneRefusal, EspSpi, InboundSa, OutboundSa};

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
        let key = (connection.to_owned(), child.to_owned());
        let id = self.current.get(&key)?;
        Some(self.outbound.get(id)?.info.spi_out)
    }
}
