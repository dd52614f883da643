//! Cookies, RFC 7296 section 2.6: a host under load keeps no state for who did not show that it
//! receives at the address it sends from.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::event::IkeSpi;
use crate::wire::PrfId;

/// A secret makes cookies for this long, and its cookies are good for as long again.
const ROTATION: Duration = Duration::from_secs(60);

/// Octets of a secret.
const SECRET_LEN: usize = 32;

/// Makes and checks cookies: `version | prf(secret, Ni | IPi | SPIi)`.
pub(crate) struct Cookies {
    current: Option<Generation>,
    previous: Option<Generation>,
}

struct Generation {
    version: u8,
    secret: Secret,
    since: Instant,
}

impl Cookies {
    /// Draws its first secret when the first cookie is asked for.
    pub(crate) fn new() -> Self {
        Self {
            current: None,
            previous: None,
        }
    }

    //= security S-12
    /// The cookie for this initiator.
    pub(crate) fn make(
        &mut self,
        now: Instant,
        rng: &mut dyn CryptoRng,
        ni: &[u8],
        ip: IpAddr,
        spi_i: IkeSpi,
    ) -> Vec<u8> {
        self.rotate(now, rng);
        match &self.current {
            Some(generation) => generation.cookie(ni, ip, spi_i),
            None => Vec::new(),
        }
    }

    //= security S-12
    /// Whether we made this cookie for this initiator, not long ago.
    pub(crate) fn check(
        &self,
        now: Instant,
        cookie: &[u8],
        ni: &[u8],
        ip: IpAddr,
        spi_i: IkeSpi,
    ) -> bool {
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(|g| now.saturating_duration_since(g.since) < 2 * ROTATION)
            .filter(|g| cookie.first() == Some(&g.version))
            .any(|g| bool::from(g.cookie(ni, ip, spi_i).ct_eq(cookie)))
    }

    fn rotate(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let version = match &self.current {
            Some(g) if now.saturating_duration_since(g.since) < ROTATION => return,
            Some(g) => g.version.wrapping_add(1),
            None => 0,
        };
        let mut secret = vec![0; SECRET_LEN];
        rng.fill_bytes(&mut secret);
        let fresh = Generation {
            version,
            secret: Secret::new(secret),
            since: now,
        };
        self.previous = self.current.replace(fresh);
    }
}

impl Generation {
    fn cookie(&self, ni: &[u8], ip: IpAddr, spi_i: IkeSpi) -> Vec<u8> {
        let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("SHA-256 is always there");
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mac = prf.compute(self.secret.expose(), &[ni, &ip, &spi_i.0.to_be_bytes()]);
        [&[self.version], mac.expose()].concat()
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    //= test rfc7296 2.6-3
    //= test security S-12
    #[test]
    fn a_cookie_is_good_for_its_initiator_and_its_time_only() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let start = Instant::now();
        let mut cookies = Cookies::new();
        let spi = IkeSpi(7);
        let cookie = cookies.make(start, &mut rng, b"nonce", IP, spi);
        assert!(cookie.len() <= 64, "RFC 7296 section 2.6");
        assert!(cookies.check(start, &cookie, b"nonce", IP, spi));
        assert!(!cookies.check(start, &cookie, b"other", IP, spi));
        assert!(!cookies.check(start, &cookie, b"nonce", [1, 2, 3, 4].into(), spi));
        assert!(!cookies.check(start, &cookie, b"nonce", IP, IkeSpi(8)));
        assert!(!cookies.check(start, &[], b"nonce", IP, spi));
        assert!(!cookies.check(start, &cookie[..32], b"nonce", IP, spi));

        let later = start + ROTATION;
        let fresh = cookies.make(later, &mut rng, b"nonce", IP, spi);
        assert_ne!(fresh, cookie);
        assert!(cookies.check(later, &cookie, b"nonce", IP, spi));
        assert!(!cookies.check(start + 2 * ROTATION, &cookie, b"nonce", IP, spi));
        cookies.make(start + 3 * ROTATION, &mut rng, b"nonce", IP, spi);
        assert!(!cookies.check(start + 3 * ROTATION, &cookie, b"nonce", IP, spi));
    }
}
