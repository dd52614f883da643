//! From traffic selectors to those of the kernel, which knows prefixes of addresses and of ports
//! where IKE knows ranges.

use obol_ike::ts::TrafficSelector;

use crate::dataplane::DataPlaneError;
use crate::host::pairs;
use crate::host::prefix::cover;
use crate::host::xfrm::{Ports, Selector};

/// Selectors of the kernel that one child may need in a direction: each is a policy. More is a
/// configuration that needs other selectors.
const MOST: usize = 4096;

/// What a policy's priority begins with: others may come before.
const FIRST_PRIORITY: u32 = 1000;

/// Packets that a pair of traffic selectors is about, or a part of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Piece {
    /// Which packets.
    pub(super) selector: Selector,
    /// Lower comes first: a pair that lies within another comes before it. Even.
    pub(super) priority: u32,
}

/// The packets from `from` to `to`.
///
/// # Errors
/// They are more selectors of the kernel than is sane.
pub(super) fn pieces(
    from: &[TrafficSelector],
    to: &[TrafficSelector],
) -> Result<Vec<Piece>, DataPlaneError> {
    let mut pieces = Vec::new();
    for (from, to) in pairs(from, to) {
        let priority = FIRST_PRIORITY + 2 * width(&from, &to);
        let ports = ports(&from, &to);
        let destinations = cover(to.start, to.end);
        for source in cover(from.start, from.end) {
            for destination in &destinations {
                let selectors = ports.iter().map(|(source_port, destination_port)| Piece {
                    selector: Selector {
                        source,
                        destination: *destination,
                        protocol: from.protocol,
                        source_port: *source_port,
                        destination_port: *destination_port,
                    },
                    priority,
                });
                pieces.extend(selectors);
                if pieces.len() > MOST {
                    return Err(DataPlaneError::Refused(format!(
                        "these selectors need more than {MOST} policies of the kernel: write networks for ranges of addresses"
                    )));
                }
            }
        }
    }
    Ok(pieces)
}

/// How much a pair of selectors spans, the more the higher: by the logarithms of both, so that one which
/// lies within another is lower even if one side is the same.
fn width(from: &TrafficSelector, to: &TrafficSelector) -> u32 {
    let span = |ts: &TrafficSelector| number(ts.end).saturating_sub(number(ts.start));
    let addresses = log(span(from), 6) + log(span(to), 6);
    let any = u32::from(from.protocol == 0);
    let count = |ts: &TrafficSelector| u128::from(ts.end_port.saturating_sub(ts.start_port)) + 1;
    (addresses * 2 + any) * 136 + log(count(from) * count(to), 2)
}

/// The logarithm to the base 2 with so many bits behind the point: at most 128 << bits.
fn log(number: u128, bits: u32) -> u32 {
    let Some(whole) = number.checked_ilog2() else {
        return 0;
    };
    let rest = number ^ 1 << whole;
    let part = if whole >= bits {
        rest >> (whole - bits)
    } else {
        rest << (bits - whole)
    };
    // Below 1 << bits.
    (whole << bits) + part as u32 + 1
}

fn number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(v4) => u128::from(v4.to_bits()),
        std::net::IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Pairs of source and destination ports.
fn ports(from: &TrafficSelector, to: &TrafficSelector) -> Vec<(Ports, Ports)> {
    match from.protocol {
        // ICMP: both selectors have type and code.
        1 | 58 => types(if is_any(from) { to } else { from }),
        // What has ports where the kernel looks for them.
        6 | 17 | 33 | 132 | 136 => {
            let destinations = blocks(to);
            let each = |source| destinations.iter().map(move |port| (source, *port));
            blocks(from).into_iter().flat_map(each).collect()
        }
        _ => vec![(Ports::default(), Ports::default())],
    }
}

/// Any port, or OPAQUE: the kernel cannot tell packets without ports from others, so all are
/// meant.
fn is_any(ts: &TrafficSelector) -> bool {
    (ts.start_port, ts.end_port) == (0, u16::MAX) || ts.start_port > ts.end_port
}

fn blocks(ts: &TrafficSelector) -> Vec<Ports> {
    if is_any(ts) {
        return vec![Ports::default()];
    }
    aligned(ts.start_port, ts.end_port)
}

/// Types and codes, RFC 7296 section 3.13.1. Codes of a range of types are any: more is protected
/// then than was asked for.
fn types(ts: &TrafficSelector) -> Vec<(Ports, Ports)> {
    if is_any(ts) {
        return vec![(Ports::default(), Ports::default())];
    }
    let [first, first_code] = ts.start_port.to_be_bytes();
    let [last, last_code] = ts.end_port.to_be_bytes();
    if first == last && (first_code, last_code) != (0, u8::MAX) {
        let codes = aligned(first_code.into(), last_code.into());
        let kind = Ports::one(first.into());
        return codes.into_iter().map(|code| (kind, code)).collect();
    }
    let types = aligned(first.into(), last.into());
    let any = Ports::default();
    types.into_iter().map(|kind| (kind, any)).collect()
}

/// The fewest aligned blocks that cover a range and nothing else.
fn aligned(first: u16, last: u16) -> Vec<Ports> {
    let mut blocks = Vec::new();
    let mut next = u32::from(first);
    while next <= u32::from(last) {
        let rest = u32::from(last) - next + 1;
        let bits = next.trailing_zeros().min(rest.ilog2()).min(16);
        blocks.push(Ports {
            value: next as u16,
            mask: (u32::from(u16::MAX) << bits) as u16,
        });
        next += 1 << bits;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ts(text: &str) -> TrafficSelector {
        text.parse().unwrap()
    }

    fn one(from: &str, to: &str) -> Piece {
        let pieces = pieces(&[ts(from)], &[ts(to)]).unwrap();
        assert_eq!(pieces.len(), 1, "{from} {to}");
        pieces[0]
    }

    #[test]
    fn a_service_is_one_selector() {
        let piece = one("192.168.0.1[tcp]", "192.168.0.2[tcp/27017]").selector;
        assert_eq!(piece.source.len, 32);
        assert_eq!(piece.protocol, 6);
        assert_eq!(piece.source_port, Ports::default());
        assert_eq!(piece.destination_port, Ports::one(27017));
    }

    #[test]
    fn what_lies_within_comes_first() {
        let rows = [
            ("10.0.0.1[tcp]", "10.0.0.2[tcp/27017]"),
            ("10.0.0.1[tcp]", "10.0.0.2[tcp]"),
            ("10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "10.0.0.0/25"),
            ("10.0.0.1", "10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.0.0/16"),
            ("10.0.0.0/23", "10.0.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ];
        let priorities: Vec<u32> = rows.iter().map(|(a, b)| one(a, b).priority).collect();
        assert!(priorities.is_sorted_by(|a, b| a < b), "{priorities:?}");
        assert!(one("::/0", "::/0").priority < 1 << 24);
    }

    #[test]
    fn types_and_codes_are_where_the_kernel_looks_for_them() {
        let ping = TrafficSelector {
            protocol: 1,
            start_port: 0x0800,
            end_port: 0x0800,
            ..ts("10.0.0.1")
        };
        let pieces = pieces(&[ping], &[ts("10.0.0.2")]).unwrap();
        let ports = (
            pieces[0].selector.source_port,
            pieces[0].selector.destination_port,
        );
        assert_eq!((pieces.len(), ports), (1, (Ports::one(8), Ports::one(0))));
    }

    #[test]
    fn ranges_that_are_no_networks_are_cut_and_too_many_refused() {
        let range = TrafficSelector::range([10, 0, 0, 1].into(), [10, 0, 0, 6].into()).unwrap();
        let cut = pieces(&[range], &[ts("10.1.0.0/16")]).unwrap();
        assert_eq!(cut.len(), 4);
        assert!(cut.iter().all(|piece| piece.priority == cut[0].priority));
        let odd = TrafficSelector::range([0, 0, 0, 1].into(), [255, 255, 255, 254].into());
        let odd = TrafficSelector {
            protocol: 6,
            start_port: 1,
            end_port: 65534,
            ..odd.unwrap()
        };
        assert!(pieces(&[odd], &[odd]).is_err());
    }

    proptest! {
        #[test]
        fn blocks_cover_the_range_and_nothing_else(a in any::<u16>(), b in any::<u16>(), port in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            for port in [port, first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                let hits = aligned(first, last).iter().filter(|p| port & p.mask == p.value).count();
                prop_assert_eq!(hits, usize::from((first..=last).contains(&port)));
            }
        }
    }
}
