//! SAs whose ends get other addresses or ports: MOBIKE, and peers behind a NAT that has changed its mind.
//!
//! The kernel has a request for it (`XFRM_MSG_MIGRATE`), which is not used: ARCHITECTURE.md says why.

use obol_ike::event::{ChildSaId, Limits, MovedSa};

use super::core::Core;
use super::sas::{outbound_limits, to_peer, to_us};
use crate::dataplane::DataPlaneError;
use crate::host::xfrm::{Copied, HEADWAY, Move, Refusal, State, StateId, Xfrm};

impl<K: Xfrm> Core<K> {
    /// Sends and expects packets of an SA elsewhere.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn move_path(&mut self, moved: MovedSa) -> Result<(), DataPlaneError> {
        let sa = self.sas.get(&moved.id).ok_or(DataPlaneError::Unknown)?;
        let (inbound, outbound) = (sa.inbound, sa.outbound);
        let refused =
            |refusal: Refusal| DataPlaneError::Refused(format!("an SA cannot be moved: {refusal}"));
        if let Some(id) = inbound {
            self.move_inbound(moved, id).map_err(refused)?;
        }
        let made = outbound.map(|id| (id, self.move_outbound(moved, id)));
        let Some(sa) = self.sas.get_mut(&moved.id) else {
            return Err(DataPlaneError::Unknown);
        };
        (sa.info.path, sa.info.encap, sa.info.nat) = (moved.path, moved.encap, moved.nat);
        let Some((id, new)) = made else {
            return Ok(());
        };
        let new = new.map_err(refused)?;
        sa.outbound = Some(new);
        let (info, reqid, options) = (sa.info.clone(), sa.reqid, sa.options.clone());
        self.renamed(moved.id, id, new);
        self.lead_to(&info, reqid, &options)?;
        if new != id {
            self.delete_state(id);
        }
        Ok(())
    }

    /// Where packets come to, and whether in UDP, is part of a state; where they come from can be
    /// changed.
    fn move_inbound(&mut self, moved: MovedSa, id: StateId) -> Result<(), Refusal> {
        let Some(sa) = self.sas.get(&moved.id) else {
            return Ok(());
        };
        let to = to_us(moved.path, moved.encap);
        let stays = sa.info.path.local.ip() == to.destination && sa.info.encap == moved.encap;
        if stays && moved.encap {
            let body = self.kernel.state(id)?;
            if let Some(copied) = Copied::new(&body) {
                self.kernel.carry_out(copied.update(&to, None))?;
            }
        } else if !stays {
            let new = self.recreate(moved, id, &to, None)?;
            self.renamed(moved.id, id, new);
            self.sas
                .entry(moved.id)
                .and_modify(|sa| sa.inbound = Some(new));
            if new != id {
                // It has a replay window of its own: what the new one has seen would pass again.
                self.delete_state(id);
            }
        }
        Ok(())
    }

    /// Both states send for a moment, with one key. So that they do not use one sequence number,
    /// and with it one nonce, twice, the old one is stopped after as many packets as the new one
    /// passes over: a limit that the kernel checks for each packet, however long we take.
    fn move_outbound(&self, moved: MovedSa, id: StateId) -> Result<StateId, Refusal> {
        let sa = self.sas.get(&moved.id).ok_or_else(nonsense)?;
        let limits = outbound_limits(&sa.info, sa.options.hw_offload);
        let body = self.kernel.state(id)?;
        let (copied, state) = read(&body)?;
        // What a device is to cut counts as one packet and has many numbers: it sends no more.
        let more = if state.offloaded { 0 } else { HEADWAY };
        let last = state.packets.saturating_add(more.into());
        let until = Limits {
            hard_packets: Some(limits.hard_packets.map_or(last, |own| own.min(last))),
            ..limits
        };
        let as_is = to_peer(sa.info.path, sa.info.encap);
        self.kernel.carry_out(copied.update(&as_is, Some(&until)))?;
        self.recreate(moved, id, &to_peer(moved.path, moved.encap), Some(&limits))
    }

    /// Makes a state anew with other addresses. If it gets another name, the old one is still
    /// there.
    fn recreate(
        &self,
        moved: MovedSa,
        id: StateId,
        to: &Move,
        limits: Option<&Limits>,
    ) -> Result<StateId, Refusal> {
        let new = StateId {
            destination: to.destination,
            spi: id.spi,
        };
        let body = self.kernel.state(id)?;
        let (copied, _) = read(&body)?;
        if new == id {
            self.kernel.carry_out(id.delete())?;
        }
        self.add_moved(&copied, to, limits, moved)?;
        Ok(new)
    }

    fn renamed(&mut self, child: ChildSaId, old: StateId, new: StateId) {
        self.states.remove(&old);
        self.states.insert(new, child);
    }
}

/// A state that the kernel has told.
fn read(body: &[u8]) -> Result<(Copied<'_>, State), Refusal> {
    Copied::new(body)
        .zip(State::read(body))
        .ok_or_else(nonsense)
}

fn nonsense() -> Refusal {
    std::io::Error::from(std::io::ErrorKind::InvalidData).into()
}
