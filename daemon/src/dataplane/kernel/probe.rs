//! Whether this kernel can carry ESP: by trying.

use std::net::IpAddr;
use std::sync::Arc;

use obol_ike::config::{Child, Mode};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::{EspKeys, Limits};
use obol_ike::wire::{EncrId, IntegId};

use super::suite::{algorithm, words};
use super::{open, reqids};
use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;
use crate::host::xfrm::{NewState, StateId, Xfrm};

/// What was tried with this kernel, and came of it.
pub(crate) struct Probe {
    settings: HostSettings,
    with_v6: bool,
    tried: Vec<(Suite, Result<(), String>)>,
}

type Suite = (EncrId, u16, IntegId);

/// What every kernel with ESP can do.
const LEAST: Suite = (EncrId::AES_GCM_16, 128, IntegId::NONE);

impl Probe {
    /// Nothing is tried yet. `with_v6`: this host has IPv6.
    pub(crate) fn new(settings: HostSettings, with_v6: bool) -> Self {
        Self {
            settings,
            with_v6,
            tried: Vec::new(),
        }
    }

    /// Whether this kernel can carry the children of a connection. Adds and removes a state of each
    /// kind that they may ask for, if that was not done before: that also loads the modules, so that
    /// no handshake waits for them.
    ///
    /// # Errors
    /// What this kernel lacks, in words.
    pub(crate) fn carries(&mut self, children: &[Arc<Child>]) -> Result<(), DataPlaneError> {
        for suite in suites(children) {
            let known = self.tried.iter().find(|(other, _)| *other == suite);
            let answer = match known {
                Some((_, answer)) => answer.clone(),
                None => {
                    let answer = self.try_suite(suite).map_err(|error| error.to_string());
                    self.tried.push((suite, answer.clone()));
                    answer
                }
            };
            answer.map_err(DataPlaneError::Refused)?;
        }
        Ok(())
    }

    /// Forgets what the kernel could not do: a module may be there now.
    pub(crate) fn forget_failures(&mut self) {
        self.tried.retain(|(_, answer)| answer.is_ok());
    }

    fn try_suite(&self, suite: Suite) -> Result<(), DataPlaneError> {
        let kernel = open()?;
        try_one(&kernel, &self.settings, suite, true)?;
        if self.with_v6 && suite == LEAST {
            try_one(&kernel, &self.settings, suite, false)?;
        }
        Ok(())
    }
}

/// What peers may agree on; AES-GCM at least.
fn suites(children: &[Arc<Child>]) -> Vec<Suite> {
    let mut suites = vec![LEAST];
    for proposal in children.iter().flat_map(|child| &*child.esp_proposals) {
        for encr in &proposal.encr {
            let mut integs = proposal.integ.clone();
            if integs.is_empty() {
                integs.push(IntegId::NONE);
            }
            for integ in integs {
                let suite = (encr.id, encr.key_bits, integ);
                if !suites.contains(&suite) {
                    suites.push(suite);
                }
            }
        }
    }
    suites
}

fn try_one(
    kernel: &impl Xfrm,
    settings: &HostSettings,
    (encr, key_bits, integ): Suite,
    v4: bool,
) -> Result<(), DataPlaneError> {
    let salt = match encr {
        EncrId::AES_GCM_16 | EncrId::CHACHA20_POLY1305 => 4,
        _ => 0,
    };
    let integ_len = match integ {
        IntegId::HMAC_SHA2_256_128 => 32,
        IntegId::HMAC_SHA2_384_192 => 48,
        IntegId::HMAC_SHA2_512_256 => 64,
        _ => 0,
    };
    let random = |len: usize| -> Result<Secret, DataPlaneError> {
        let mut octets = vec![0; len];
        getrandom::fill(&mut octets)
            .map_err(|error| DataPlaneError::Refused(format!("no randomness: {error}")))?;
        Ok(Secret::new(octets))
    };
    let keys = EspKeys {
        encr: random(usize::from(key_bits) / 8 + salt)?,
        integ: random(integ_len)?,
    };
    let spi = random(4)?;
    let spi = spi
        .expose()
        .iter()
        .fold(0, |spi, octet| spi << 8 | u32::from(*octet));
    let here = match v4 {
        true => IpAddr::from([127, 0, 0, 1]),
        false => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    let id = StateId {
        destination: here,
        spi: spi | 0x100,
    };
    let state = NewState {
        id,
        source: here,
        reqid: *reqids::range(settings).end(),
        mode: Mode::Tunnel,
        selector: None,
        algorithm: algorithm(encr, integ, &keys)?,
        esn: true,
        window: 4096,
        encap: None,
        limits: Limits::default(),
        mark: None,
        if_id: 0,
        offload: None,
    };
    let name = match integ {
        IntegId::NONE => encr.to_string(),
        integ => format!("{encr} with {integ}"),
    };
    kernel
        .carry_out(state.add())
        .map_err(|refusal| words(&refusal, &name, v4))?;
    kernel.carry_out(id.delete()).map_err(|refusal| {
        DataPlaneError::system("cannot remove an SA from the kernel", refusal.source)
    })
}
