//! Diffie-Hellman in the MODP groups of RFC 3526: safe primes, generator 2.

use crypto_bigint::BoxedUint;
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{Odd, Resize};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use super::ke::InvalidKe;
use super::secret::Secret;
use crate::wire::KeMethod;

/// Private exponents are this long: more than twice the strength that RFC 3526 section 8
/// sees in the largest of these groups.
const EXPONENT_BITS: u32 = 512;

/// One of the groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Group {
    bits: u32,
    prime: &'static str,
}

impl Group {
    pub(super) fn of(method: KeMethod) -> Option<Self> {
        let (bits, prime) = match method {
            KeMethod::MODP_2048 => (2048, PRIME_2048),
            KeMethod::MODP_3072 => (3072, PRIME_3072),
            KeMethod::MODP_4096 => (4096, PRIME_4096),
            _ => return None,
        };
        Some(Self { bits, prime })
    }

    /// Length of the prime, and of everything that is sent.
    pub(super) fn octets(self) -> usize {
        self.bits as usize / 8
    }

    fn prime(self) -> BoxedUint {
        BoxedUint::from_be_hex(self.prime, self.bits)
            .into_option()
            .expect("the constants below are hexadecimal of this length")
    }

    #[cfg(test)]
    pub(super) fn prime_octets(self) -> Vec<u8> {
        self.prime().to_be_bytes().into_vec()
    }

    fn params(self) -> BoxedMontyParams {
        let odd = Odd::new(self.prime())
            .into_option()
            .expect("a large prime is odd");
        BoxedMontyParams::new_vartime(odd) // the prime is public
    }
}

/// A private exponent.
pub(super) struct ModpSecret {
    group: Group,
    params: BoxedMontyParams,
    exponent: Zeroizing<BoxedUint>,
}

impl ModpSecret {
    pub(super) fn generate(group: Group, rng: &mut dyn CryptoRng) -> Self {
        let mut octets = Zeroizing::new([0; EXPONENT_BITS as usize / 8]);
        rng.fill_bytes(octets.as_mut_slice());
        Self::from_octets(group, octets.as_slice()).expect("exactly so many octets")
    }

    /// `None` with more than 64 octets.
    pub(super) fn from_octets(group: Group, octets: &[u8]) -> Option<Self> {
        let exponent = BoxedUint::from_be_slice(octets, EXPONENT_BITS).ok()?;
        Some(Self {
            group,
            params: group.params(),
            exponent: Zeroizing::new(exponent),
        })
    }

    //= rfc7296 3.4-1
    pub(super) fn public(&self) -> Vec<u8> {
        let two = BoxedUint::from(2u8).resize(self.group.bits);
        self.power(two).to_vec()
    }

    //= rfc7296 3.4-1
    //= security S-37
    /// The shared secret, with leading zeros up to the length of the prime
    /// (RFC 7296 section 2.14).
    pub(super) fn agree(&self, peer_public: &[u8]) -> Result<Secret, InvalidKe> {
        if peer_public.len() != self.group.octets() {
            return Err(InvalidKe);
        }
        let peer = BoxedUint::from_be_slice(peer_public, self.group.bits).map_err(|_| InvalidKe)?;
        let one = BoxedUint::one_with_precision(self.group.bits);
        let p_minus_1 = self.params.modulus().as_ref().wrapping_sub(&one);
        if peer <= one || peer >= p_minus_1 {
            return Err(InvalidKe);
        }
        Ok(Secret::new(self.power(peer)))
    }

    /// `base ^ exponent mod p` in time that does not depend on the exponent.
    fn power(&self, base: BoxedUint) -> Vec<u8> {
        let base = BoxedMontyForm::new(base, &self.params);
        let mut power = base.pow_bounded_exp(&self.exponent, EXPONENT_BITS);
        let mut number = power.retrieve();
        let octets = number.to_be_bytes().into_vec();
        number.zeroize();
        power.as_montgomery_mut().zeroize();
        octets
    }
}

/// RFC 3526 section 3.
const PRIME_2048: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22",
    "514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6",
    "F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D",
    "C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603",
    "9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
    "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

/// RFC 3526 section 4.
const PRIME_3072: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22",
    "514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6",
    "F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D",
    "C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603",
    "9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
    "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D",
    "B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864",
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31",
    "43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
);

/// RFC 3526 section 5.
const PRIME_4096: &str = concat!(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22",
    "514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6",
    "F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D",
    "C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
    "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603",
    "9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
    "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D",
    "B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864",
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31",
    "43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C",
    "1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D",
    "99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9",
    "93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
);
