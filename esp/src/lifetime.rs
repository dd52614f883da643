//! How much an SA has carried, and when that is enough.

use crate::params::{Limits, Suite};

/// AES blocks under one key after which to ask for another: with 2^44, an observer tells the
/// packets from noise with a probability below 2^-40.
const AES_SOFT_BLOCKS: u64 = 1 << 44;
/// AES blocks under one key after which to stop: 2^48, for a probability of about 2^-32 (the
/// birthday bound of a 128-bit block). ChaCha20 has no such bound below its counter.
const AES_HARD_BLOCKS: u64 = 1 << 48;
/// The same of 3DES: with 2^23 blocks (64 MiB), two of them are alike with a probability of 2^-19, and
/// then tell the XOR of what they hold.
const DES_SOFT_BLOCKS: u64 = 1 << 23;
/// 2^25 blocks (256 MiB), for a probability of 2^-15.
const DES_HARD_BLOCKS: u64 = 1 << 25;

/// What an SA has carried.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Octets of inner packets.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

/// Counts against the limits.
pub(crate) struct Lifetime {
    limits: Limits,
    used: Usage,
    /// The cipher's own limits, in blocks: soft, hard.
    cipher: (u64, u64),
    /// Octets of its block, as a power of two: this is counted for each packet.
    block_bits: u32,
    blocks: u64,
    soft_passed: bool,
}

/// The SA has reached a hard limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Expired;

impl Lifetime {
    pub(crate) fn new(limits: Limits, suite: Suite) -> Self {
        let (block_bits, cipher) = match suite {
            Suite::ChaCha20Poly1305 => (4, (u64::MAX, u64::MAX)),
            Suite::AesGcm16 { .. } | Suite::AesCbcHmac { .. } => {
                (4, (AES_SOFT_BLOCKS, AES_HARD_BLOCKS))
            }
            Suite::TripleDesCbcHmac { .. } => (3, (DES_SOFT_BLOCKS, DES_HARD_BLOCKS)),
        };
        Self {
            limits,
            used: Usage::default(),
            cipher,
            block_bits,
            blocks: 0,
            soft_passed: false,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.used
    }

    //= rfc7296 2.8-1
    //= security S-64
    /// Whether one more packet of `bytes` octets may pass.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn admit(&self, bytes: usize) -> Result<(), Expired> {
        let bytes = self.used.bytes.saturating_add(bytes as u64);
        let packets = self.used.packets.saturating_add(1);
        let over = |count: u64, limit: Option<u64>| limit.is_some_and(|limit| count > limit);
        if over(bytes, self.limits.hard_bytes)
            || over(packets, self.limits.hard_packets)
            || self.blocks >= self.cipher.1
        {
            return Err(Expired);
        }
        Ok(())
    }

    /// Counts a packet of `bytes` octets. Returns whether a soft limit was met by it, once in
    /// the life of the SA.
    pub(crate) fn record(&mut self, bytes: usize) -> bool {
        self.used.bytes = self.used.bytes.saturating_add(bytes as u64);
        self.used.packets = self.used.packets.saturating_add(1);
        // Headers, padding and the block that makes the ICV are at most four blocks of AES more.
        let blocks = (bytes as u64 >> self.block_bits) + (64 >> self.block_bits);
        self.blocks = self.blocks.saturating_add(blocks);
        let met = |count: u64, limit: Option<u64>| limit.is_some_and(|limit| count >= limit);
        let soft = met(self.used.bytes, self.limits.soft_bytes)
            || met(self.used.packets, self.limits.soft_packets)
            || self.blocks >= self.cipher.0;
        soft && !std::mem::replace(&mut self.soft_passed, soft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Hash;

    const GCM: Suite = Suite::AesGcm16 { key_bits: 128 };

    #[test]
    fn the_soft_limit_is_reported_once_by_the_packet_that_meets_it() {
        let limits = Limits {
            soft_bytes: Some(300),
            ..Limits::default()
        };
        let mut lifetime = Lifetime::new(limits, GCM);
        let reports: Vec<bool> = (0..5).map(|_| lifetime.record(100)).collect();
        assert_eq!(reports, [false, false, true, false, false]);
        assert_eq!(
            lifetime.usage(),
            Usage {
                bytes: 500,
                packets: 5
            }
        );
    }

    #[test]
    fn the_last_byte_below_the_hard_limit_passes_and_the_next_does_not() {
        let limits = Limits {
            hard_bytes: Some(200),
            ..Limits::default()
        };
        let mut lifetime = Lifetime::new(limits, GCM);
        lifetime.record(100);
        assert_eq!(lifetime.admit(101), Err(Expired));
        assert_eq!(lifetime.admit(100), Ok(()));
        lifetime.record(100);
        assert_eq!(lifetime.admit(1), Err(Expired));
    }

    #[test]
    fn the_last_packet_below_the_hard_limit_passes_and_the_next_does_not() {
        let limits = Limits {
            soft_packets: Some(1),
            hard_packets: Some(2),
            ..Limits::default()
        };
        let mut lifetime = Lifetime::new(limits, GCM);
        assert!(lifetime.record(1));
        assert_eq!(lifetime.admit(1), Ok(()));
        assert!(!lifetime.record(1));
        assert_eq!(lifetime.admit(1), Err(Expired));
    }

    //= test security S-64
    #[test]
    fn aes_asks_and_stops_at_its_birthday_bound_and_chacha_does_not() {
        let mut aes = Lifetime::new(Limits::default(), GCM);
        aes.blocks = AES_SOFT_BLOCKS - 4;
        assert!(aes.record(0));
        aes.blocks = AES_HARD_BLOCKS - 1;
        assert_eq!(aes.admit(1), Ok(()));
        aes.record(1);
        assert_eq!(aes.admit(1), Err(Expired));
        let mut chacha = Lifetime::new(Limits::default(), Suite::ChaCha20Poly1305);
        chacha.blocks = AES_HARD_BLOCKS;
        assert!(!chacha.record(1));
        assert_eq!(chacha.admit(1), Ok(()));
    }

    //= test security S-64
    #[test]
    fn a_key_of_3des_is_good_for_64_mib_and_never_for_more_than_256() {
        let suite = Suite::TripleDesCbcHmac { hash: Hash::Sha256 };
        let mut des = Lifetime::new(Limits::default(), suite);
        let mib = |blocks: u64| (blocks * 8) >> 20;
        assert_eq!((mib(DES_SOFT_BLOCKS), mib(DES_HARD_BLOCKS)), (64, 256));
        // 1024 octets and their headers are 136 blocks.
        let soft = DES_SOFT_BLOCKS.div_ceil(136);
        assert!((1..soft).all(|_| !des.record(1024)));
        assert!(des.record(1024));
        des.blocks = DES_HARD_BLOCKS - 1;
        assert_eq!(des.admit(1), Ok(()));
        des.record(1);
        assert_eq!(des.admit(1), Err(Expired));
    }
}
