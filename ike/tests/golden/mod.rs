//! Reads the golden files; see README.md beside this file.

use std::collections::BTreeMap;
use std::path::Path;

use obol_ike::crypto::secret::Secret;
use obol_ike::event::IkeSpi;
use obol_ike::keys::IkeKeys;
use obol_ike::proposal::Encr;
use obol_ike::status::IkeAlgorithms;
use obol_ike::wire::{IntegId, KeMethod, PrfId};

/// One recorded session.
pub(crate) struct Session {
    /// Name of the file.
    pub(crate) name: String,
    /// The lines before the datagrams.
    pub(crate) values: BTreeMap<String, String>,
    /// Every IKE datagram in order.
    pub(crate) datagrams: Vec<Vec<u8>>,
}

/// One IKE SA of a session: obol's keys for it.
pub(crate) struct IkeSa {
    pub(crate) spi_i: IkeSpi,
    pub(crate) spi_r: IkeSpi,
    pub(crate) keys: IkeKeys,
}

/// All sessions.
pub(crate) fn sessions() -> Vec<Session> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut sessions: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .map(|path| Session::parse(&std::fs::read_to_string(path).unwrap()))
        .collect();
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(sessions.len() >= 16, "golden files are missing");
    sessions
}

/// The session of that name.
pub(crate) fn session(name: &str) -> Session {
    sessions()
        .into_iter()
        .find(|session| session.name == name)
        .unwrap()
}

impl Session {
    fn parse(text: &str) -> Self {
        let (head, packets) = text.split_once("\n\n").unwrap();
        let values: BTreeMap<_, _> = head
            .lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self {
            name: values["name"].clone(),
            values,
            datagrams: packets
                .lines()
                .map(|line| hex::decode(line.split(' ').nth(2).unwrap()).unwrap())
                .collect(),
        }
    }

    /// A value in hex, empty if it is not there (the integrity keys with an AEAD).
    pub(crate) fn hex(&self, name: &str) -> Vec<u8> {
        hex::decode(self.values.get(name).map_or("", String::as_str)).unwrap()
    }

    /// Ni and Nr of an exchange; all peers here make nonces of equal length.
    pub(crate) fn nonces(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let mut ni = self.hex(name);
        let nr = ni.split_off(ni.len() / 2);
        (ni, nr)
    }

    /// The IKE SAs, with keys derived by obol from the recorded secrets.
    pub(crate) fn ike_sas(&self) -> Vec<IkeSa> {
        let mut sas: Vec<IkeSa> = Vec::new();
        while let Some(algorithms) = self.values.get(&format!("ike.{}.algorithms", sas.len())) {
            let name = |part: &str| format!("ike.{}.{part}", sas.len());
            let spi = |part| IkeSpi(u64::from_str_radix(&self.values[&name(part)], 16).unwrap());
            let (spi_i, spi_r) = (spi("spi_i"), spi("spi_r"));
            let (ni, nr) = self.nonces(&name("nonces"));
            let shared = Secret::new(self.hex(&name("shared")));
            let alg = ike_algorithms(algorithms);
            let keys = match sas.last() {
                None => IkeKeys::derive(&alg, &ni, &nr, &shared, spi_i, spi_r),
                Some(old) => IkeKeys::rekey(&old.keys, &alg, &ni, &nr, &shared, spi_i, spi_r),
            };
            let keys = keys.unwrap();
            sas.push(IkeSa { spi_i, spi_r, keys });
        }
        sas
    }
}

fn ike_algorithms(names: &str) -> IkeAlgorithms {
    let names: Vec<_> = names.split('/').collect();
    let (encr, integ) = ciphers(names[0], names[1]);
    let prf = match names[names.len() - 2] {
        "PRF_HMAC_SHA2_256" => PrfId::HMAC_SHA2_256,
        "PRF_HMAC_SHA2_384" => PrfId::HMAC_SHA2_384,
        "PRF_HMAC_SHA2_512" => PrfId::HMAC_SHA2_512,
        other => panic!("no PRF: {other}"),
    };
    let ke = match names[names.len() - 1] {
        "CURVE_25519" => KeMethod::CURVE25519,
        "ECP_256" => KeMethod::ECP_256,
        "ECP_384" => KeMethod::ECP_384,
        "ECP_521" => KeMethod::ECP_521,
        "MODP_2048" => KeMethod::MODP_2048,
        "MODP_3072" => KeMethod::MODP_3072,
        "MODP_4096" => KeMethod::MODP_4096,
        other => panic!("no key exchange: {other}"),
    };
    IkeAlgorithms {
        encr,
        integ,
        prf,
        ke,
    }
}

/// Encryption and integrity from the peer's names; the second name may be of something else.
pub(crate) fn ciphers(encr: &str, integ: &str) -> (Encr, IntegId) {
    let encr = match encr {
        "AES_GCM_16_128" => Encr::AES128_GCM16,
        "AES_GCM_16_256" => Encr::AES256_GCM16,
        "CHACHA20_POLY1305" => Encr::CHACHA20_POLY1305,
        "AES_CBC_128" => Encr::AES128_CBC,
        "AES_CBC_192" => Encr::AES192_CBC,
        "AES_CBC_256" => Encr::AES256_CBC,
        other => panic!("no cipher: {other}"),
    };
    let integ = match integ {
        "HMAC_SHA2_256_128" => IntegId::HMAC_SHA2_256_128,
        "HMAC_SHA2_384_192" => IntegId::HMAC_SHA2_384_192,
        "HMAC_SHA2_512_256" => IntegId::HMAC_SHA2_512_256,
        _ => IntegId::NONE,
    };
    (encr, integ)
}
