//! Whether this kernel can carry ESP: by trying.

use std::net::IpAddr;

use obol_ike::config::{Config, Mode};
use obol_ike::crypto::secret::Secret;
use obol_ike::event::{EspKeys, Limits};
use obol_ike::wire::{EncrId, IntegId};

use super::suite::{algorithm, words};
use super::{open, reqids};
use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;
use crate::host::xfrm::{NewState, StateId, Xfrm};

/// Adds and removes a state of each kind that the configuration may ask for. That also loads the
/// modules, so that no handshake waits for them.
///
/// # Errors
/// What this kernel lacks, in words.
pub(crate) fn probe(
    settings: &HostSettings,
    config: &Config,
    with_v6: bool,
) -> Result<(), DataPlaneError> {
    let kernel = open()?;
    for (encr, key_bits, integ) in suites(config) {
        try_one(&kernel, settings, (encr, key_bits, integ), true)?;
    }
    if with_v6 {
        try_one(
            &kernel,
            settings,
            (EncrId::AES_GCM_16, 128, IntegId::NONE),
            false,
        )?;
    }
    Ok(())
}

type Suite = (EncrId, u16, IntegId);

/// What peers may agree on; AES-GCM at least.
fn suites(config: &Config) -> Vec<Suite> {
    let mut suites = vec![(EncrId::AES_GCM_16, 128, IntegId::NONE)];
    let children = config.connections.iter().flat_map(|c| &c.children);
    for proposal in children.flat_map(|child| &child.esp_proposals) {
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
