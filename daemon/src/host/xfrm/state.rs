//! `struct xfrm_usersa_info` and its attributes: the SAs of the kernel.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::Mode;
use obol_ike::event::Limits;

use super::ESP;
use super::scope::{self, INTERFACE, Mark};
use super::selector::Selector;
use super::wire::{Message, address, address_at, be32_at, family, u8_at, u16_at, u32_at, u64_at};
use crate::host::nft::attr::{attributes, find};

/// Octets of `struct xfrm_usersa_info` and `xfrm_usersa_id`.
pub(super) const LEN: usize = 224;
pub(super) const ID_LEN: usize = 24;

const NEW: u16 = 0x10;
const DELETE: u16 = 0x11;
const GET: u16 = 0x12;
const UPDATE: u16 = 0x1a;
const DUMP: u16 = 0x300;

const CRYPT: u16 = 2;
const ENCAP: u16 = 4;
const LIFETIME: u16 = 9;
/// What the kernel tells of a state that was made without [`REPLAY`].
const OLD_REPLAY: u16 = 10;
const LAST_USED: u16 = 15;
const AEAD: u16 = 18;
const AUTH_TRUNC: u16 = 20;
const MARK: u16 = 21;
const REPLAY: u16 = 23;
const EXTRA_FLAGS: u16 = 24;
const OFFLOAD: u16 = 28;
const SET_MARK: u16 = 29;
const SET_MARK_MASK: u16 = 30;
const MAPPING_PAUSE: u16 = 32;

/// The selector counts for both families.
const ANY_FAMILY: u8 = 32;
const ESN: u8 = 128;
/// ESP in UDP, RFC 3948.
const ESP_IN_UDP: u16 = 2;
/// Seconds between two notices that packets come from elsewhere.
const PAUSE: u32 = 1;
/// Sequence numbers that are passed over when a state is made anew. The old one may send so many
/// packets meanwhile, and no more. Fewer than any replay window has, so that nothing of before is
/// too old.
pub(crate) const HEADWAY: u32 = 1024;
/// Octets before the bitmap of `struct xfrm_replay_state_esn`.
const REPLAY_HEAD: usize = 24;

/// What names a state of ESP.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct StateId {
    /// Where its packets go.
    pub(crate) destination: IpAddr,
    /// Their SPI.
    pub(crate) spi: u32,
}

/// Ports of ESP in UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Encap {
    /// Of the sender.
    pub(crate) source: u16,
    /// Of the receiver.
    pub(crate) destination: u16,
}

/// The device that is to seal or open beside the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Offload {
    /// Its number.
    pub(crate) index: u32,
    /// Whether it is to open.
    pub(crate) inbound: bool,
}

/// An algorithm with its key.
pub(crate) enum Algorithm<'a> {
    /// Encryption and integrity in one.
    Aead {
        /// As the kernel names it.
        name: &'static str,
        /// Key and salt.
        key: &'a [u8],
        /// Bits of the ICV.
        icv_bits: u32,
    },
    /// One after the other.
    Pair {
        /// As the kernel names the cipher.
        encr: &'static str,
        /// Its key.
        encr_key: &'a [u8],
        /// As the kernel names the integrity algorithm.
        integ: &'static str,
        /// Its key.
        integ_key: &'a [u8],
        /// Bits of the ICV.
        icv_bits: u32,
    },
}

/// A state to be made.
pub(crate) struct NewState<'a> {
    /// Its name.
    pub(crate) id: StateId,
    /// Where its packets come from.
    pub(crate) source: IpAddr,
    /// What ties it to policies.
    pub(crate) reqid: u32,
    /// Its mode.
    pub(crate) mode: Mode,
    /// What it carries; `None`: anything, of either family.
    pub(crate) selector: Option<Selector>,
    /// How it protects.
    pub(crate) algorithm: Algorithm<'a>,
    /// Extended sequence numbers.
    pub(crate) esn: bool,
    /// Packets of the replay window, in multiples of 32. 0 where none come in.
    pub(crate) window: u32,
    /// ESP in UDP.
    pub(crate) encap: Option<Encap>,
    /// How much it may carry.
    pub(crate) limits: Limits,
    /// The mark of the packets that it makes: of those that it seals, or has opened.
    pub(crate) mark: Option<Mark>,
    /// The xfrm interface whose packets it carries. 0: none.
    pub(crate) if_id: u32,
    /// By a device.
    pub(crate) offload: Option<Offload>,
}

impl NewState<'_> {
    /// The message that adds it.
    pub(crate) fn add(&self) -> Message {
        let mut message = Message::new(NEW, 0);
        message.put(&self.info());
        match &self.algorithm {
            Algorithm::Aead {
                name,
                key,
                icv_bits,
            } => algorithm(&mut message, AEAD, name, Some(*icv_bits), key),
            Algorithm::Pair {
                encr,
                encr_key,
                integ,
                integ_key,
                icv_bits,
            } => {
                algorithm(&mut message, CRYPT, encr, None, encr_key);
                algorithm(&mut message, AUTH_TRUNC, integ, Some(*icv_bits), integ_key);
            }
        }
        // The kernel wants a window for extended numbers, also where none come in.
        let window = self.window.max(32);
        let words = window / 32;
        let mut replay = vec![0; REPLAY_HEAD + words as usize * 4];
        replay[..4].copy_from_slice(&words.to_ne_bytes());
        replay[20..24].copy_from_slice(&window.to_ne_bytes());
        message.attribute(REPLAY, &replay);
        if let Some(encap) = self.encap {
            message.attribute(ENCAP, &encap.octets());
            if self.window > 0 {
                message.attribute(MAPPING_PAUSE, &PAUSE.to_ne_bytes());
            }
        }
        if let Some(mark) = self.mark {
            message.attribute(SET_MARK, &mark.value.to_ne_bytes());
            message.attribute(SET_MARK_MASK, &mark.mask.to_ne_bytes());
        }
        scope::put_interface(&mut message, self.if_id);
        if let Some(offload) = self.offload {
            message.attribute(OFFLOAD, &offload.octets());
        }
        message
    }

    fn info(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        let mut put = |at: usize, field: &[u8]| {
            octets[at..at + field.len()].copy_from_slice(field);
        };
        if let Some(selector) = &self.selector {
            put(0, &selector.octets());
        }
        put(56, &address(self.id.destination));
        put(72, &self.id.spi.to_be_bytes());
        put(76, &[ESP]);
        put(80, &address(self.source));
        put(96, &limits(&self.limits));
        put(208, &self.reqid.to_ne_bytes());
        put(212, &family(self.source.is_ipv4()).to_ne_bytes());
        let any = if self.selector.is_none() {
            ANY_FAMILY
        } else {
            0
        };
        let esn = if self.esn { ESN } else { 0 };
        put(214, &[mode(self.mode), 0, any | esn]);
        octets
    }
}

/// The number of a mode.
pub(super) fn mode(mode: Mode) -> u8 {
    match mode {
        Mode::Transport => 0,
        Mode::Tunnel => 1,
    }
}

/// `struct xfrm_lifetime_cfg` without limits.
pub(super) fn no_limits() -> [u8; 64] {
    limits(&Limits::default())
}

fn limits(limits: &Limits) -> [u8; 64] {
    let mut octets = [0; 64];
    let fields = [
        limits.soft_bytes,
        limits.hard_bytes,
        limits.soft_packets,
        limits.hard_packets,
    ];
    for (place, limit) in octets.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&limit.unwrap_or(u64::MAX).to_ne_bytes());
    }
    // No limit by time: 0. The IKE side keeps time.
    octets
}

/// `struct xfrm_algo`, `xfrm_algo_auth` or `xfrm_algo_aead`: the latter two have an ICV.
fn algorithm(message: &mut Message, kind: u16, name: &str, icv_bits: Option<u32>, key: &[u8]) {
    const NAME: usize = 64;
    let mut octets = zeroize::Zeroizing::new(Vec::with_capacity(NAME + 8 + key.len()));
    octets.extend(name.as_bytes());
    octets.resize(NAME, 0);
    octets.extend((key.len() as u32 * 8).to_ne_bytes());
    if let Some(bits) = icv_bits {
        octets.extend(bits.to_ne_bytes());
    }
    octets.extend(key);
    message.attribute(kind, &octets);
}

impl Offload {
    /// `struct xfrm_user_offload`.
    fn octets(self) -> [u8; 8] {
        let mut octets = [0; 8];
        octets[..4].copy_from_slice(&self.index.to_ne_bytes());
        octets[4] = if self.inbound { 2 } else { 0 };
        octets
    }
}

impl Encap {
    fn octets(self) -> [u8; 24] {
        let mut octets = [0; 24];
        octets[..2].copy_from_slice(&ESP_IN_UDP.to_ne_bytes());
        octets[2..4].copy_from_slice(&self.source.to_be_bytes());
        octets[4..6].copy_from_slice(&self.destination.to_be_bytes());
        octets
    }
}

impl StateId {
    /// The message that asks for it.
    pub(crate) fn get(&self) -> Message {
        let mut message = Message::new(GET, 0);
        message.put(&self.octets());
        message
    }

    /// The message that removes it.
    pub(crate) fn delete(&self) -> Message {
        let mut message = Message::new(DELETE, 0);
        message.put(&self.octets());
        message
    }

    /// `struct xfrm_usersa_id`.
    fn octets(&self) -> [u8; ID_LEN] {
        let mut octets = [0; ID_LEN];
        octets[..16].copy_from_slice(&address(self.destination));
        octets[16..20].copy_from_slice(&self.spi.to_be_bytes());
        octets[20..22].copy_from_slice(&family(self.destination.is_ipv4()).to_ne_bytes());
        octets[22] = ESP;
        octets
    }

    /// Reads `struct xfrm_usersa_id`; `None`: it is not of ESP.
    pub(crate) fn read(octets: &[u8]) -> Option<Self> {
        let family = u16_at(octets, 20)?;
        (u8_at(octets, 22)? == ESP).then_some(())?;
        Some(Self {
            destination: address_at(octets, 0, family)?,
            spi: be32_at(octets, 16)?,
        })
    }
}

/// The message that asks for all states.
pub(super) fn dump() -> Message {
    let mut message = Message::new(GET, DUMP);
    message.put(&[0; ID_LEN]);
    message
}

/// A state of the kernel, without its keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// Its name.
    pub(crate) id: StateId,
    /// Where its packets come from.
    pub(crate) source: IpAddr,
    /// What ties it to policies.
    pub(crate) reqid: u32,
    /// Octets that it carried.
    pub(crate) bytes: u64,
    /// Packets that it carried.
    pub(crate) packets: u64,
    /// When it did last, since 1970. `None`: never, or the kernel does not say.
    pub(crate) last_used: Option<Duration>,
    /// A device seals or opens.
    pub(crate) offloaded: bool,
}

impl State {
    /// Reads `struct xfrm_usersa_info` and what follows it; `None`: it is not of ESP.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        (u8_at(body, 76)? == ESP).then_some(())?;
        let family = u16_at(body, 212)?;
        let attributes = body.get(LEN..).unwrap_or_default();
        let device = find(attributes, OFFLOAD).and_then(|octets| u32_at(octets, 0));
        let last = find(attributes, LAST_USED).and_then(|octets| u64_at(octets, 0));
        Some(Self {
            id: StateId {
                destination: address_at(body, 56, family)?,
                spi: be32_at(body, 72)?,
            },
            source: address_at(body, 80, family)?,
            reqid: u32_at(body, 208)?,
            bytes: u64_at(body, 160)?,
            packets: u64_at(body, 168)?,
            last_used: last.map(Duration::from_secs),
            offloaded: device.is_some_and(|index| index != 0),
        })
    }
}

/// Where the packets of a state are to go from and to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Move {
    /// From where.
    pub(crate) source: IpAddr,
    /// Where to.
    pub(crate) destination: IpAddr,
    /// In UDP.
    pub(crate) encap: Option<Encap>,
}

/// A state as the kernel tells it, with its keys, replay window and counters, to be made anew
/// elsewhere.
pub(crate) struct Copied<'a>(&'a [u8]);

impl<'a> Copied<'a> {
    /// Takes the answer to [`StateId::get`]. `None`: it is none.
    pub(crate) fn new(body: &'a [u8]) -> Option<Self> {
        State::read(body).map(|_| Self(body))
    }

    /// The message that adds it with other addresses, and with these limits if there are any. Its
    /// next sequence number is further on by [`HEADWAY`].
    pub(crate) fn add(
        &self,
        to: &Move,
        limits: Option<&Limits>,
        offload: Option<Offload>,
    ) -> Message {
        let mut message = self.message(NEW, to, HEADWAY, limits);
        if let Some(offload) = offload {
            message.attribute(OFFLOAD, &offload.octets());
        }
        message
    }

    /// The message that changes the ports of UDP, or the limits, where it is.
    pub(crate) fn update(&self, to: &Move, limits: Option<&Limits>) -> Message {
        self.message(UPDATE, to, 0, limits)
    }

    fn message(&self, kind: u16, to: &Move, headway: u32, limit: Option<&Limits>) -> Message {
        let (info, list) = self.0.split_at(LEN);
        let mut message = Message::new(kind, 0);
        message
            .put(&info[..56])
            .put(&address(to.destination))
            .put(&info[72..80])
            .put(&address(to.source))
            .put(&limit.map_or_else(|| info[96..160].to_vec(), |limit| limits(limit).to_vec()))
            // Counters go by an attribute.
            .put(&[0; 48])
            .put(&info[208..212])
            .put(&family(to.source.is_ipv4()).to_ne_bytes())
            .put(&info[214..LEN]);
        message.attribute(LIFETIME, &info[160..192]);
        let kept = [
            CRYPT,
            AEAD,
            AUTH_TRUNC,
            MARK,
            EXTRA_FLAGS,
            SET_MARK,
            SET_MARK_MASK,
            INTERFACE,
        ];
        for (kind, value) in attributes(list) {
            if kept.contains(&kind) {
                message.attribute(kind, value);
            } else if kind == REPLAY {
                message.attribute(REPLAY, &advanced(value, headway, info[216] & ESN != 0));
            } else if kind == OLD_REPLAY {
                message.attribute(OLD_REPLAY, &old_advanced(value, headway));
            } else if kind == MAPPING_PAUSE && to.encap.is_some() {
                message.attribute(kind, value);
            }
        }
        if let Some(encap) = to.encap {
            message.attribute(ENCAP, &encap.octets());
        }
        message
    }
}

/// `struct xfrm_replay_state_esn` with a later number to send next.
fn advanced(replay: &[u8], headway: u32, esn: bool) -> Vec<u8> {
    let mut replay = replay.to_vec();
    let (Some(low), Some(high)) = (u32_at(&replay, 4), u32_at(&replay, 12)) else {
        return replay;
    };
    let (low, carried) = match esn {
        true => low.overflowing_add(headway),
        false => (low.saturating_add(headway), false),
    };
    let high = high.saturating_add(u32::from(carried));
    replay[4..8].copy_from_slice(&low.to_ne_bytes());
    replay[12..16].copy_from_slice(&high.to_ne_bytes());
    replay
}

/// `struct xfrm_replay_state` with a later number to send next.
fn old_advanced(replay: &[u8], headway: u32) -> Vec<u8> {
    let mut replay = replay.to_vec();
    if let Some(number) = u32_at(&replay, 0) {
        replay[..4].copy_from_slice(&number.saturating_add(headway).to_ne_bytes());
    }
    replay
}

#[cfg(test)]
mod tests;
