//! The SAs: two states of the kernel each, with the policies that lead to them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use obol_ike::config::{Mode, Path};
use obol_ike::event::{ChildSaId, ChildSaInfo, InboundSa, Limits, OutboundSa};
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::EncrId;

use super::bases::{inwards, outwards};
use super::core::{Core, no_reqid};
use super::selectors::pieces;
use super::suite::{algorithm, state_refused};
use crate::dataplane::flow::{Ended, Flow};
use crate::dataplane::{DRAIN, DataPlaneError, DataPlaneEvent, HwOffload, KernelOptions, Usage};
use crate::host::xfrm::{
    Encap, Key, Mark, Move, NewState, Refusal, Rule, Selector, State, StateId, Template, Xfrm,
};

/// Packets that may overtake each other: as `obol_esp` has it.
const WINDOW: u32 = 4096;

/// Without extended numbers there are 2^32 of them: from here on a new SA is asked for.
const NUMBERS_SOFT: u64 = 1 << 31;
const NUMBERS_HARD: u64 = (1 << 32) - 1;
/// Packets that are one until a device cuts them: 512 KiB in segments of 1 KiB.
const MOST_SEGMENTS: u64 = 512;
/// AES blocks, and so packets of one at least, after which a key has done enough.
const AES_SOFT: u64 = 1 << 44;
/// Octets after which a key of 3DES has done enough, as `obol_esp` has it.
const DES_SOFT: u64 = 64 << 20;

/// An SA.
#[derive(Debug)]
pub(super) struct Sa {
    pub(super) info: ChildSaInfo,
    pub(super) options: KernelOptions,
    pub(super) reqid: u32,
    pub(super) inbound: Option<StateId>,
    pub(super) outbound: Option<StateId>,
    /// A packet came in, which was told.
    pub(super) used: bool,
}

impl<K: Xfrm> Core<K> {
    /// Begins to accept packets of an SA.
    ///
    /// # Errors
    /// The kernel refuses it; then nothing of it is there.
    pub(super) fn add_inbound(&mut self, sa: &InboundSa) -> Result<(), DataPlaneError> {
        let info = &sa.info;
        let algorithm = algorithm(info.encr, info.integ, &sa.keys)?;
        let goes = to_us(info.path, info.encap);
        let id = StateId {
            destination: goes.destination,
            spi: info.spi_in.0,
        };
        let options = self.bases.options(&info.connection, &info.child);
        let options = options.cloned().unwrap_or_default();
        let reqid = self.reqid_for(info, &options)?;
        let mut new = NewState {
            id,
            source: goes.source,
            reqid,
            mode: info.mode,
            selector: carried(info.mode, &info.remote_ts, &info.local_ts)?,
            algorithm,
            esn: info.esn,
            window: WINDOW,
            encap: goes.encap,
            limits: first_packet(info.limits),
            mark: Some(options.mark_in).filter(|mark| mark.mask != 0),
            if_id: options.if_id,
            offload: None,
        };
        let policy = self.bases.policy(&info.connection, &info.child);
        let beside = policy.is_some_and(|policy| policy.clear.beside_sa());
        self.flows.begin(Flow::of(info), info.id);
        let done = self.add_state(&mut new, info.path, options.hw_offload);
        if let Err(refusal) = done {
            self.end_flow(info, reqid);
            return Err(match refusal.is(libc::EEXIST) {
                true => DataPlaneError::SpiTaken,
                false => state_refused(info, &refusal),
            });
        }
        let rules = inwards(
            &info.local_ts,
            &info.remote_ts,
            info.mode,
            &options,
            // From wherever: the peer may move.
            |_, priority| rule(priority, reqid, info.mode, None, beside),
        );
        let sa = Sa {
            info: info.clone(),
            options,
            reqid,
            inbound: Some(id),
            outbound: None,
            used: false,
        };
        self.states.insert(id, info.id);
        self.sas.insert(info.id, sa);
        let done = rules.and_then(|rules| {
            let keys = self.spd.add_sa(info.id, &rules);
            self.sync(&keys)
        });
        done.inspect_err(|_| self.undo(info.id))
    }

    /// Sends new packets by an SA.
    ///
    /// # Errors
    /// The kernel refuses it; then nothing of it is there.
    pub(super) fn use_outbound(
        &mut self,
        sa: &OutboundSa,
        now: Instant,
    ) -> Result<(), DataPlaneError> {
        let id = sa.info.id;
        let own = self.sas.get(&id).ok_or(DataPlaneError::Unknown)?;
        let (reqid, options) = (own.reqid, own.options.clone());
        self.try_outbound(sa, reqid, &options)
            .inspect_err(|_| self.undo(id))?;
        self.succeed(reqid, now).inspect_err(|_| self.undo(id))
    }

    fn try_outbound(
        &mut self,
        sa: &OutboundSa,
        reqid: u32,
        options: &KernelOptions,
    ) -> Result<(), DataPlaneError> {
        let info = &sa.info;
        let algorithm = algorithm(info.encr, info.integ, &sa.keys)?;
        let goes = to_peer(info.path, info.encap);
        let id = StateId {
            destination: goes.destination,
            spi: info.spi_out.0,
        };
        let mut new = NewState {
            id,
            source: goes.source,
            reqid,
            mode: info.mode,
            selector: carried(info.mode, &info.local_ts, &info.remote_ts)?,
            algorithm,
            esn: info.esn,
            window: 0,
            encap: goes.encap,
            limits: outbound_limits(info, options.hw_offload),
            mark: Some(Mark::exactly(self.settings.fwmark)),
            if_id: options.if_id,
            offload: None,
        };
        let mut done = self.add_state(&mut new, info.path, options.hw_offload);
        // A peer that has forgotten an SA of before may choose its SPI again.
        let taken = |refusal: &Refusal| refusal.is(libc::EEXIST);
        if done.as_ref().is_err_and(taken) && self.end_leftover(id) {
            done = self.add_state(&mut new, info.path, options.hw_offload);
        }
        done.map_err(|refusal| state_refused(info, &refusal))?;
        if let Some(sa) = self.sas.get_mut(&info.id) {
            sa.outbound = Some(id);
        }
        self.states.insert(id, info.id);
        self.lead_to(info, reqid, options)
    }

    /// Has the outbound policies lead to an SA. They are written again if they do already, so that
    /// the kernel looks for the newest state.
    pub(super) fn lead_to(
        &mut self,
        info: &ChildSaInfo,
        reqid: u32,
        options: &KernelOptions,
    ) -> Result<(), DataPlaneError> {
        let ends = (info.mode == Mode::Tunnel).then_some(ends(info.path));
        let rules = outwards(&info.local_ts, &info.remote_ts, options, |_, priority| {
            rule(priority, reqid, info.mode, ends, false)
        })?;
        let keys = self.spd.add_sa(info.id, &rules);
        let same: BTreeSet<Key> = self.spd.in_place(&keys);
        self.sync(&keys)?;
        for key in &same {
            if let Err(refusal) = self.spd.refresh(&self.kernel, key) {
                return Err(DataPlaneError::Refused(format!(
                    "a policy is not renewed: {refusal}"
                )));
            }
        }
        Ok(())
    }

    /// Forgets an SA.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn remove(&mut self, id: ChildSaId, now: Instant) -> Result<Usage, DataPlaneError> {
        let usage = self.usage(id);
        let sa = self.sas.remove(&id).ok_or(DataPlaneError::Unknown)?;
        // The policies first: they lead to another SA, or to none.
        let keys = self.spd.drop_sa(id);
        let synced = self.sync(&keys);
        let succeeded = self.end_flow(&sa.info, sa.reqid) == Some(Ended::Succeeded);
        if let Some(outbound) = sa.outbound {
            self.states.remove(&outbound);
            self.delete_state(outbound);
        }
        if let Some(inbound) = sa.inbound {
            self.states.remove(&inbound);
            if succeeded {
                self.waning.push_back((now + DRAIN, inbound));
            } else {
                self.delete_state(inbound);
            }
        }
        synced.map(|()| usage.unwrap_or_default())
    }

    /// Has SAs made anew whose child has other options now.
    pub(super) fn end_changed(&mut self) {
        for (id, sa) in &self.sas {
            let info = &sa.info;
            let options = self.bases.options(&info.connection, &info.child);
            if options.is_some_and(|options| *options != sa.options) {
                self.events.push_back(DataPlaneEvent::HardExpired(*id));
            }
        }
    }

    /// Takes back what was done for an SA.
    fn undo(&mut self, id: ChildSaId) {
        let keys = self.spd.drop_sa(id);
        if let Err(error) = self.sync(&keys) {
            tracing::error!(%error, "policies are not as they were");
        }
        let Some(sa) = self.sas.remove(&id) else {
            return;
        };
        self.end_flow(&sa.info, sa.reqid);
        for state in [sa.inbound, sa.outbound].into_iter().flatten() {
            self.states.remove(&state);
            self.delete_state(state);
        }
    }

    pub(super) fn read_state(&self, id: StateId) -> Option<State> {
        let body = self.kernel.state(id).ok()?;
        State::read(&body)
    }

    /// Removes a state; that it is gone already is as good.
    pub(super) fn delete_state(&self, id: StateId) {
        match self.kernel.carry_out(id.delete()) {
            Err(refusal) if !refusal.gone() => {
                tracing::error!(?id, %refusal, "an SA stays in the kernel");
            }
            _ => {}
        }
    }

    fn reqid_for(
        &mut self,
        info: &ChildSaInfo,
        options: &KernelOptions,
    ) -> Result<u32, DataPlaneError> {
        let before = self.flows.newest(&Flow::of(info));
        if let Some(sa) = before.and_then(|id| self.sas.get(&id)) {
            return Ok(sa.reqid);
        }
        let any = |_, priority| rule(priority, 0, info.mode, None, false);
        let keys = inwards(&info.local_ts, &info.remote_ts, info.mode, options, any)?;
        let left = self.left_reqid(keys.iter().map(|(key, _)| *key));
        left.or_else(|| self.reqids.take()).ok_or_else(no_reqid)
    }

    /// An SA does not carry its flow any more. SAs of one flow share a request ID, so that the
    /// policies of the old one are those of the new one; with the last, it is given back.
    fn end_flow(&mut self, info: &ChildSaInfo, reqid: u32) -> Option<Ended> {
        let ended = self.flows.end(&Flow::of(info), info.id);
        if ended == Some(Ended::Closed) {
            self.give_back(reqid);
        }
        ended
    }
}

/// Between which addresses packets to the peer go, and between which ports in UDP.
pub(super) fn to_peer(path: Path, encap: bool) -> Move {
    Move {
        source: path.local.ip(),
        destination: path.remote.ip(),
        encap: encap.then(|| Encap {
            source: path.local.port(),
            destination: path.remote.port(),
        }),
    }
}

/// The same of packets to us.
pub(super) fn to_us(path: Path, encap: bool) -> Move {
    let back = Path {
        local: path.remote,
        remote: path.local,
    };
    to_peer(back, encap)
}

fn rule(
    priority: u32,
    reqid: u32,
    mode: Mode,
    ends: Option<(IpAddr, IpAddr)>,
    optional: bool,
) -> Rule {
    let template = Template {
        reqid,
        mode,
        ends,
        optional,
    };
    Rule {
        priority,
        block: false,
        pass: None,
        template: Some(template),
    }
}

fn ends(path: Path) -> (IpAddr, IpAddr) {
    (path.local.ip(), path.remote.ip())
}

/// What a state in transport mode carries. One that carries several selectors is not asked for
/// ports: policies are.
fn carried(
    mode: Mode,
    from: &[TrafficSelector],
    to: &[TrafficSelector],
) -> Result<Option<Selector>, DataPlaneError> {
    if mode == Mode::Tunnel {
        return Ok(None);
    }
    let pieces = pieces(from, to)?;
    let Some((first, rest)) = pieces.split_first() else {
        return Err(DataPlaneError::Refused("the SA carries nothing".to_owned()));
    };
    let same = |a: &Selector, b: &Selector| (a.source, a.destination) == (b.source, b.destination);
    if rest.is_empty() {
        return Ok(Some(first.selector));
    }
    let hosts = rest
        .iter()
        .all(|piece| same(&piece.selector, &first.selector));
    Ok(hosts.then(|| Selector {
        protocol: 0,
        source_port: Default::default(),
        destination_port: Default::default(),
        ..first.selector
    }))
}

/// The kernel says that a soft limit is met, and so that the first packet has come.
fn first_packet(limits: Limits) -> Limits {
    Limits {
        soft_packets: Some(1),
        soft_bytes: None,
        ..limits
    }
}

/// No key lasts for ever.
pub(super) fn outbound_limits(info: &ChildSaInfo, offload: HwOffload) -> Limits {
    let lower = |limit: Option<u64>, other: u64| Some(limit.map_or(other, |own| own.min(other)));
    let mut limits = info.limits;
    if !info.esn {
        // For a device the kernel counts what it will cut into many as one.
        let soft = match offload {
            HwOffload::No => NUMBERS_SOFT,
            HwOffload::Auto | HwOffload::Crypto => NUMBERS_SOFT / MOST_SEGMENTS,
        };
        limits.soft_packets = lower(limits.soft_packets, soft);
        limits.hard_packets = lower(limits.hard_packets, NUMBERS_HARD);
    }
    let soft = match info.encr {
        EncrId::CHACHA20_POLY1305 => None,
        EncrId::DES3 => Some((DES_SOFT, DES_SOFT << 2)),
        _ => Some((AES_SOFT, AES_SOFT << 4)),
    };
    if let Some((soft, hard)) = soft {
        limits.soft_bytes = lower(limits.soft_bytes, soft);
        limits.hard_bytes = lower(limits.hard_bytes, hard);
    }
    limits
}
