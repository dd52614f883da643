//! The few things about IP that both modes need: lengths, protocol numbers, checksums.

use std::net::IpAddr;

/// Octets of an IPv4 header without options.
pub(crate) const V4_HEADER: usize = 20;
/// Octets of an IPv6 header without extension headers.
pub(crate) const V6_HEADER: usize = 40;
/// Octets of a UDP header.
pub(crate) const UDP_HEADER: usize = 8;

/// Protocol numbers, as IANA assigned them.
pub(crate) mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NO_NEXT_HEADER: u8 = 59;
    pub(crate) const DESTINATION_OPTIONS: u8 = 60;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const UDP_LITE: u8 = 136;
}

/// Octets that are summed up at a time: as wide as vectors are.
const STRIDE: usize = 32;

/// Sum of 16-bit words in ones' complement, RFC 1071; not yet folded or inverted. The words are
/// taken in the order of octets that the machine has, which makes no difference but to the last
/// step (section 2 (B)).
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds octets; an odd last one counts as the high half of a word, so only the last call
    /// may have one.
    pub(crate) fn add(self, octets: &[u8]) -> Self {
        let (strides, rest) = octets.as_chunks::<STRIDE>();
        let sum = strides.iter().fold(self, |sum, stride| sum.stride(stride));
        sum.rest(rest)
    }

    /// Copies octets and adds them on the way: `to` is as long as `from`.
    pub(crate) fn add_copy(self, from: &[u8], to: &mut [u8]) -> Self {
        let (strides, rest) = from.as_chunks::<STRIDE>();
        let (places, rest_place) = to.as_chunks_mut::<STRIDE>();
        let mut sum = self;
        for (stride, place) in strides.iter().zip(places) {
            *place = *stride;
            sum = sum.stride(stride);
        }
        rest_place.copy_from_slice(rest);
        sum.rest(rest)
    }

    /// A packet has fewer than 2^14 words of 32 bits: no overflow in 64.
    #[inline(always)]
    fn stride(self, octets: &[u8; STRIDE]) -> Self {
        let (words, _) = octets.as_chunks::<4>();
        let words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        Self(self.0 + words.sum::<u64>())
    }

    fn rest(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<4>();
        let words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(self.0 + words.sum::<u64>() + u64::from(u32::from_ne_bytes(last)))
    }

    /// Adds the pseudo-header of TCP and UDP, RFC 9293 section 3.1 and RFC 8200 section 8.1.
    pub(crate) fn add_pseudo_header(
        self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        len: usize,
    ) -> Self {
        let sum = self
            .add(&(len as u32).to_be_bytes())
            .add(&[0, 0, 0, protocol]);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                sum.add(&source.octets()).add(&destination.octets())
            }
            (source, destination) => sum.add(&v6(source)).add(&v6(destination)),
        }
    }

    /// The checksum.
    pub(crate) fn finish(self) -> u16 {
        !self.fold()
    }

    /// The sum in 16 bits, not inverted: what a checksum field holds that is still to be added to.
    pub(crate) fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::from_be_bytes((sum as u16).to_ne_bytes())
    }
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The checksum `old` after one word that it covers changed, RFC 1624 section 3.
pub(crate) fn checksum_after(old: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!old) + u32::from(!before) + u32::from(after);
    // Three words carry at most 2, and 0xfffd and 2 do not carry again.
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The IPv4 header of RFC 7634 appendix A carries its checksum.
    #[test]
    fn a_header_with_its_checksum_sums_to_zero() {
        let header = [
            0x45, 0x00, 0x00, 0x54, 0xa6, 0xf2, 0x00, 0x00, 0x40, 0x01, 0xe7, 0x78, 0xc6, 0x33,
            0x64, 0x05, 0xc0, 0x00, 0x02, 0x05,
        ];
        assert_eq!(Sum::default().add(&header).finish(), 0);
        let mut without = header;
        without[10..12].copy_from_slice(&[0, 0]);
        assert_eq!(Sum::default().add(&without).finish(), 0xe778);
    }

    #[test]
    fn an_odd_last_octet_is_the_high_half_of_a_word() {
        assert_eq!(
            Sum::default().add(&[0x12, 0x34, 0x56]).finish(),
            !(0x1234 + 0x5600)
        );
    }

    #[test]
    fn copied_octets_count_like_others() {
        let octets: Vec<u8> = (0..=255).cycle().map(|n: u8| n ^ 0x5a).take(700).collect();
        for len in [0, 1, 3, 4, 31, 32, 33, 63, 64, 699, 700] {
            let mut copy = vec![0; len];
            let copied = Sum::default().add_copy(&octets[..len], &mut copy);
            assert_eq!(copy, octets[..len]);
            assert_eq!(copied.finish(), Sum::default().add(&octets[..len]).finish());
            let words = octets[..len]
                .chunks(2)
                .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)));
            let mut simple = words.sum::<u64>();
            while simple > 0xffff {
                simple = (simple & 0xffff) + (simple >> 16);
            }
            assert_eq!(copied.fold(), simple as u16, "{len}");
        }
    }

    #[test]
    fn a_changed_word_gives_the_checksum_of_the_changed_header() {
        for (before, after) in [(0u16, 0xffffu16), (0xffff, 0), (0x4500, 0x4503), (7, 7)] {
            let checksum = |word: u16| {
                let [high, low] = word.to_be_bytes();
                Sum::default().add(&[high, low, 0x12, 0x34]).finish()
            };
            assert_eq!(
                checksum_after(checksum(before), before, after),
                checksum(after)
            );
        }
    }
}
