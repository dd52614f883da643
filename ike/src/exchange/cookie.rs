//! Cookies, RFC 7296 section 2.6: a host under load keeps no state for who did not show that it
//! receives at the address it sends from.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use crate::crypto::prf::Prf;
use crate::crypto::secret::Secret;
use crate::event::IkeSpi;
use crate::exchange::puzzle::Puzzle;
use crate::wire::PrfId;

/// A secret makes cookies for this long, and its cookies are good for as long again.
const ROTATION: Duration = Duration::from_secs(60);

/// Octets that a puzzle takes in a cookie.
const INFO_LEN: usize = 3;

/// Octets of a secret.
const SECRET_LEN: usize = 32;

/// Solutions of puzzles that are remembered, so that none serves twice. More make a new secret.
const MAX_SPENT: usize = 65_536;

/// Makes and checks cookies: `version | puzzle | prf(secret, Ni | IPi | SPIi | puzzle)`, where the
/// puzzle is the one that went with the cookie, or zeros (RFC 8019 section 7.1.1.3).
pub(crate) struct Cookies {
    current: Option<Generation>,
    previous: Option<Generation>,
}

struct Generation {
    version: u8,
    secret: Secret,
    since: Instant,
    /// Cookies whose puzzle was solved.
    spent: HashSet<Vec<u8>>,
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
        puzzle: Option<Puzzle>,
    ) -> Vec<u8> {
        self.rotate(now, rng);
        match &self.current {
            Some(generation) => generation.cookie(ni, ip, spi_i, info(puzzle)),
            None => Vec::new(),
        }
    }

    //= security S-12
    /// If we made this cookie for this initiator, not long ago: the puzzle that went with it.
    pub(crate) fn check(
        &self,
        now: Instant,
        cookie: &[u8],
        ni: &[u8],
        ip: IpAddr,
        spi_i: IkeSpi,
    ) -> Option<Option<Puzzle>> {
        let (&version, rest) = cookie.split_first()?;
        let info: [u8; INFO_LEN] = *rest.first_chunk()?;
        let good = [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .filter(|g| now.saturating_duration_since(g.since) < 2 * ROTATION)
            .filter(|g| version == g.version)
            .any(|g| bool::from(g.cookie(ni, ip, spi_i, info).ct_eq(cookie)));
        good.then(|| puzzle(info))
    }

    /// The puzzle of this cookie was solved. Says whether for the first time: one solution is for
    /// one request (RFC 8019 section 10).
    pub(crate) fn spend(&mut self, cookie: &[u8]) -> bool {
        let version = cookie.first();
        [&mut self.current, &mut self.previous]
            .into_iter()
            .flatten()
            .find(|g| Some(&g.version) == version)
            .is_some_and(|g| g.spent.insert(cookie.to_vec()))
    }

    fn rotate(&mut self, now: Instant, rng: &mut dyn CryptoRng) {
        let version = match &self.current {
            Some(g)
                if now.saturating_duration_since(g.since) < ROTATION
                    && g.spent.len() < MAX_SPENT =>
            {
                return;
            }
            Some(g) => g.version.wrapping_add(1),
            None => 0,
        };
        let mut secret = vec![0; SECRET_LEN];
        rng.fill_bytes(&mut secret);
        let fresh = Generation {
            version,
            secret: Secret::new(secret),
            since: now,
            spent: HashSet::new(),
        };
        self.previous = self.current.replace(fresh);
    }
}

impl Generation {
    fn cookie(&self, ni: &[u8], ip: IpAddr, spi_i: IkeSpi, info: [u8; INFO_LEN]) -> Vec<u8> {
        let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("SHA-256 is always there");
        let ip = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mac = prf.compute(
            self.secret.expose(),
            &[ni, &ip, &spi_i.0.to_be_bytes(), &info],
        );
        [&[self.version], &info[..], mac.expose()].concat()
    }
}

/// A puzzle as a part of a cookie; zeros are none.
fn info(puzzle: Option<Puzzle>) -> [u8; INFO_LEN] {
    let Some(puzzle) = puzzle else {
        return [0; INFO_LEN];
    };
    let [high, low] = puzzle.prf.0.to_be_bytes();
    [high, low, puzzle.difficulty]
}

fn puzzle([high, low, difficulty]: [u8; INFO_LEN]) -> Option<Puzzle> {
    let prf = PrfId(u16::from_be_bytes([high, low]));
    (prf.0 != 0).then_some(Puzzle { prf, difficulty })
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
        let cookie = cookies.make(start, &mut rng, b"nonce", IP, spi, None);
        assert!(cookie.len() <= 64, "RFC 7296 section 2.6");
        assert_eq!(cookies.check(start, &cookie, b"nonce", IP, spi), Some(None));
        assert_eq!(cookies.check(start, &cookie, b"other", IP, spi), None);
        assert_eq!(
            cookies.check(start, &cookie, b"nonce", [1, 2, 3, 4].into(), spi),
            None
        );
        assert_eq!(cookies.check(start, &cookie, b"nonce", IP, IkeSpi(8)), None);
        assert_eq!(cookies.check(start, &[], b"nonce", IP, spi), None);
        assert_eq!(cookies.check(start, &cookie[..32], b"nonce", IP, spi), None);

        let later = start + ROTATION;
        let fresh = cookies.make(later, &mut rng, b"nonce", IP, spi, None);
        assert_ne!(fresh, cookie);
        assert_eq!(cookies.check(later, &cookie, b"nonce", IP, spi), Some(None));
        assert_eq!(
            cookies.check(start + 2 * ROTATION, &cookie, b"nonce", IP, spi),
            None
        );
        cookies.make(start + 3 * ROTATION, &mut rng, b"nonce", IP, spi, None);
        assert_eq!(
            cookies.check(start + 3 * ROTATION, &cookie, b"nonce", IP, spi),
            None
        );
    }

    #[test]
    fn a_cookie_says_which_puzzle_went_with_it_and_its_solution_serves_once() {
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
        let start = Instant::now();
        let mut cookies = Cookies::new();
        let spi = IkeSpi(7);
        let easy = Puzzle {
            prf: PrfId::HMAC_SHA2_256,
            difficulty: 9,
        };
        let cookie = cookies.make(start, &mut rng, b"nonce", IP, spi, Some(easy));
        assert!(cookie.len() <= 64, "RFC 7296 section 2.6");
        assert_eq!(
            cookies.check(start, &cookie, b"nonce", IP, spi),
            Some(Some(easy))
        );
        for bit in 0..cookie.len() * 8 {
            let mut altered = cookie.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                cookies.check(start, &altered, b"nonce", IP, spi),
                None,
                "bit {bit}"
            );
        }
        assert!(cookies.spend(&cookie));
        assert!(!cookies.spend(&cookie));
        for n in 0..MAX_SPENT {
            cookies.spend(&[&[0][..], &n.to_be_bytes()].concat());
        }
        cookies.make(start, &mut rng, b"nonce", IP, spi, None);
        let spent = |g: &Option<Generation>| g.as_ref().map_or(0, |g| g.spent.len());
        assert_eq!(spent(&cookies.current), 0, "a new secret");
    }
}
