//! Address ranges as the prefixes that routes and rules know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address and the number of its leading bits that count.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Prefix {
    /// First address.
    pub(crate) address: IpAddr,
    /// Leading bits: at most 32 or 128.
    pub(crate) len: u8,
}

impl Prefix {
    /// The unspecified address alone.
    pub(crate) fn unspecified(v4: bool) -> Self {
        Self {
            address: from_number(0, v4),
            len: if v4 { 32 } else { 128 },
        }
    }

    /// One address.
    pub(crate) fn host(address: IpAddr) -> Self {
        Self {
            address,
            len: if address.is_ipv4() { 32 } else { 128 },
        }
    }

    /// Whether every address of `other` is one of this prefix.
    pub(crate) fn contains(self, other: Self) -> bool {
        let bits = if self.is_v4() { 32 } else { 128 };
        let beyond = u32::from(bits - self.len.min(bits));
        let head = |prefix: Self| number(prefix.address).checked_shr(beyond).unwrap_or(0);
        self.is_v4() == other.is_v4() && self.len <= other.len && head(self) == head(other)
    }

    /// The prefix with so many leading bits that contains this one; `None`: this one is shorter.
    pub(crate) fn shortened(self, len: u8) -> Option<Self> {
        let v4 = self.is_v4();
        let bits: u32 = if v4 { 32 } else { 128 };
        let beyond = bits.checked_sub(u32::from(len))?;
        let head = number(self.address).checked_shr(beyond).unwrap_or(0);
        let address = from_number(head.checked_shl(beyond).unwrap_or(0), v4);
        (len <= self.len).then_some(Self { address, len })
    }

    /// Whether it is of IPv4.
    pub(crate) fn is_v4(self) -> bool {
        self.address.is_ipv4()
    }
}

/// The fewest prefixes that cover the range and nothing else: at most 62 with IPv4, 254 with
/// IPv6. Empty if the ends are of two families.
pub(crate) fn cover(start: IpAddr, end: IpAddr) -> Vec<Prefix> {
    let v4 = start.is_ipv4();
    if end.is_ipv4() != v4 {
        return Vec::new();
    }
    let bits = if v4 { 32 } else { 128 };
    let (mut first, last) = (number(start), number(end));
    let mut prefixes = Vec::new();
    while first <= last {
        // The largest block that is aligned at `first` and ends at or before `last`.
        let aligned = first.trailing_zeros().min(bits);
        let rest = match (last - first).checked_add(1) {
            Some(count) => count.ilog2(),
            None => bits,
        };
        let block = aligned.min(rest);
        prefixes.push(Prefix {
            address: from_number(first, v4),
            len: (bits - block) as u8,
        });
        let Some(next) = 1_u128
            .checked_shl(block)
            .and_then(|size| first.checked_add(size))
        else {
            break;
        };
        first = next;
    }
    prefixes
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn from_number(number: u128, v4: bool) -> IpAddr {
    if v4 {
        Ipv4Addr::from(number as u32).into()
    } else {
        Ipv6Addr::from(number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(start: &str, end: &str) -> String {
        let prefixes = cover(start.parse().unwrap(), end.parse().unwrap());
        let texts: Vec<_> = prefixes
            .iter()
            .map(|prefix| format!("{}/{}", prefix.address, prefix.len))
            .collect();
        texts.join(" ")
    }

    #[test]
    fn ranges_become_prefixes() {
        let table = [
            ("10.0.0.0", "10.0.0.255", "10.0.0.0/24"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.1/32"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            (
                "10.0.0.1",
                "10.0.0.4",
                "10.0.0.1/32 10.0.0.2/31 10.0.0.4/32",
            ),
            ("255.255.255.254", "255.255.255.255", "255.255.255.254/31"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            ("fd00::", "fd00::ffff", "fd00::/112"),
            ("10.0.0.2", "10.0.0.1", ""),
            ("10.0.0.2", "fd00::", ""),
        ];
        for (start, end, prefixes) in table {
            assert_eq!(text(start, end), prefixes, "{start}-{end}");
        }
        let worst = cover([0, 0, 0, 1].into(), [255, 255, 255, 254].into());
        assert_eq!(worst.len(), 62);
    }
}
