//! Boxes of packets: what is left of one where others come first.

use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

/// All packets between two sides, with a protocol that both name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Region {
    /// This host's side.
    pub(crate) local: TrafficSelector,
    /// The other side.
    pub(crate) remote: TrafficSelector,
}

/// What is left cannot be written down: all protocols but one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoWords;

/// One of the ranges that make a box.
#[derive(Clone, Copy)]
enum Edge {
    LocalAddrs,
    RemoteAddrs,
    LocalPorts,
    RemotePorts,
    /// Type and code of ICMP, which both sides name.
    Types,
}

impl Region {
    /// The packets that are in both.
    pub(crate) fn overlap(&self, other: &Self) -> Option<Self> {
        Some(Self {
            local: self.local.intersect(&other.local)?,
            remote: self.remote.intersect(&other.remote)?,
        })
    }

    /// The packets that are in this one and not in the other, as boxes that have nothing in common.
    ///
    /// # Errors
    /// They cannot be written down.
    pub(crate) fn without(&self, other: &Self) -> Result<Vec<Self>, NoWords> {
        let Some(common) = self.overlap(other) else {
            return Ok(vec![*self]);
        };
        if common.local.protocol != self.local.protocol {
            return Err(NoWords);
        }
        let icmp = [1, 58].contains(&self.local.protocol);
        let edges: &[Edge] = match icmp {
            true => &[Edge::LocalAddrs, Edge::RemoteAddrs, Edge::Types],
            false => &[
                Edge::LocalAddrs,
                Edge::RemoteAddrs,
                Edge::LocalPorts,
                Edge::RemotePorts,
            ],
        };
        let mut left = Vec::new();
        let mut rest = *self;
        for edge in edges {
            let (from, to) = edge.range(&rest);
            let (cut_from, cut_to) = edge.range(&common);
            if let Some(end) = cut_from.checked_sub(1).filter(|end| *end >= from) {
                left.push(edge.set(&rest, from, end));
            }
            if let Some(start) = cut_to.checked_add(1).filter(|start| *start <= to) {
                left.push(edge.set(&rest, start, to));
            }
            rest = edge.set(&rest, cut_from, cut_to);
        }
        Ok(left)
    }
}

impl Edge {
    fn range(self, region: &Region) -> (u128, u128) {
        let addrs = |ts: &TrafficSelector| (number(ts.start), number(ts.end));
        let ports = |ts: &TrafficSelector| (u128::from(ts.start_port), u128::from(ts.end_port));
        match self {
            Self::LocalAddrs => addrs(&region.local),
            Self::RemoteAddrs => addrs(&region.remote),
            Self::LocalPorts | Self::Types => ports(&region.local),
            Self::RemotePorts => ports(&region.remote),
        }
    }

    fn set(self, region: &Region, from: u128, to: u128) -> Region {
        let mut region = *region;
        let addrs = |ts: &mut TrafficSelector| {
            let ipv4 = ts.start.is_ipv4();
            (ts.start, ts.end) = (address(ipv4, from), address(ipv4, to));
        };
        let port = |value| u16::try_from(value).unwrap_or(u16::MAX);
        let ports =
            |ts: &mut TrafficSelector| (ts.start_port, ts.end_port) = (port(from), port(to));
        match self {
            Self::LocalAddrs => addrs(&mut region.local),
            Self::RemoteAddrs => addrs(&mut region.remote),
            Self::LocalPorts => ports(&mut region.local),
            Self::RemotePorts => ports(&mut region.remote),
            Self::Types => {
                ports(&mut region.local);
                ports(&mut region.remote);
            }
        }
        region
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(u32::from(addr)),
        IpAddr::V6(addr) => u128::from(addr),
    }
}

fn address(ipv4: bool, number: u128) -> IpAddr {
    match ipv4 {
        true => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        false => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(local: &str, remote: &str) -> Region {
        Region {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn left(a: (&str, &str), b: (&str, &str)) -> Vec<String> {
        let regions = region(a.0, a.1).without(&region(b.0, b.1)).unwrap();
        regions
            .iter()
            .map(|r| format!("{}={}", r.local, r.remote))
            .collect()
    }

    #[test]
    fn what_is_left_of_a_box() {
        let all = ("10.0.0.0/16[tcp]", "10.0.0.0/16[tcp/27017]");
        assert_eq!(
            left(all, ("10.0.0.0/16", "10.0.1.241")),
            [
                "10.0.0.0/16[tcp]=10.0.0.0-10.0.1.240[tcp/27017]",
                "10.0.0.0/16[tcp]=10.0.1.242-10.0.255.255[tcp/27017]",
            ]
        );
        assert_eq!(
            left(all, ("10.1.0.0/16", "0.0.0.0/0")),
            ["10.0.0.0/16[tcp]=10.0.0.0/16[tcp/27017]"]
        );
        assert!(left(all, ("0.0.0.0/0", "0.0.0.0/0")).is_empty());
        assert_eq!(
            left(
                ("::1[icmpv6]", "::2[icmpv6]"),
                ("::/0[icmpv6/135(0)]", "::/0[icmpv6/135(0)]")
            )
            .len(),
            2
        );
        let any = region("10.0.0.1", "10.0.0.2");
        assert_eq!(
            any.without(&region("10.0.0.1[tcp]", "10.0.0.2[tcp]")),
            Err(NoWords)
        );
    }

    fn small() -> impl Strategy<Value = TrafficSelector> {
        let range = |most: u16| (0..=most, 0..=most).prop_map(|(a, b)| (a.min(b), a.max(b)));
        (range(3), range(3)).prop_map(|((from, to), (start_port, end_port))| {
            let addr = |n: u16| IpAddr::from([10, 0, 0, n.to_be_bytes()[1]]);
            TrafficSelector {
                protocol: 6,
                start_port,
                end_port,
                start: addr(from),
                end: addr(to),
            }
        })
    }

    fn holds(region: &Region, at: [u16; 4]) -> bool {
        let [la, ra, lp, rp] = at;
        let addr = |n: u16| IpAddr::from([10, 0, 0, n.to_be_bytes()[1]]);
        let inside = |ts: &TrafficSelector, a, p| {
            ts.contains_address(addr(a)) && (ts.start_port..=ts.end_port).contains(&p)
        };
        inside(&region.local, la, lp) && inside(&region.remote, ra, rp)
    }

    proptest! {
        /// Each packet is in exactly one box that is left, or in none if it was taken away.
        #[test]
        fn boxes_that_are_left_are_exact(a in small(), b in small(), c in small(), d in small()) {
            let (whole, cut) = (Region { local: a, remote: b }, Region { local: c, remote: d });
            let left = whole.without(&cut).unwrap();
            for n in 0..256_u16 {
                let at = [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3];
                let count = left.iter().filter(|region| holds(region, at)).count();
                let expected = usize::from(holds(&whole, at) && !holds(&cut, at));
                prop_assert_eq!(count, expected, "{:?}", at);
            }
        }
    }
}
