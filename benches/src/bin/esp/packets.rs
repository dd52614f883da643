//! Packets of one SA, all at once.

use obol_esp::{
    HEADROOM, Inbound, Limits, Mode, Outbound, Outer, SaParams, Selector, Selectors, Suite,
    TAILROOM,
};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use zeroize::Zeroizing;

use crate::NamedSuite;
use crate::raw::Work;

/// Both ends of an SA, and packets between them.
pub(crate) struct Packets {
    outbound: Outbound,
    inbound: Inbound,
    packets: Vec<Vec<u8>>,
    plain: Range<usize>,
    sealed: Range<usize>,
}

impl Packets {
    /// So many packets of `size` octets, not sealed.
    pub(crate) fn new(&(_, suite, encr, integ): &NamedSuite, size: usize, count: usize) -> Self {
        let params = || params(suite, encr, integ);
        Self {
            outbound: Outbound::new(params()).expect("fixed parameters"),
            inbound: Inbound::new(params()).expect("fixed parameters"),
            packets: vec![buffer(size); count],
            plain: HEADROOM..HEADROOM + size,
            sealed: 0..0,
        }
    }

    pub(crate) fn seal(&mut self) {
        for packet in &mut self.packets {
            let sealed = self.outbound.seal(packet, self.plain.clone());
            self.sealed = sealed.expect("within limits").range;
            black_box(packet);
        }
    }

    /// Puts the packets back to where they were.
    pub(crate) fn open(&mut self) {
        let outer = Outer {
            source: HOST,
            destination: HOST,
            tos: 0,
            ttl: 64,
        };
        for packet in &mut self.packets {
            let opened = self.inbound.open(packet, self.sealed.clone(), outer);
            opened.expect("sealed just before");
            black_box(packet);
        }
    }

    /// Something else with the octets that were sealed. They must have been once.
    pub(crate) fn work(&mut self, work: &Work) {
        for packet in &mut self.packets {
            work(&mut packet[self.sealed.clone()]);
        }
    }
}

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// An IPv4 packet with room around it.
fn buffer(size: usize) -> Vec<u8> {
    let mut buffer = vec![0x5a; HEADROOM + size + TAILROOM];
    let [high, low] = (size as u16).to_be_bytes();
    let header = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 1,
    ];
    buffer[HEADROOM..HEADROOM + 20].copy_from_slice(&header);
    buffer
}

fn params(suite: Suite, encr: usize, integ: usize) -> SaParams {
    let only = (HOST, HOST);
    let selector = Selector::new(0, only, Selector::ANY_PORT, only, Selector::ANY_PORT);
    SaParams {
        spi: 0x1234_5678,
        suite,
        encr_key: Zeroizing::new(vec![7; encr]),
        integ_key: Zeroizing::new(vec![8; integ]),
        mode: Mode::Tunnel,
        esn: true,
        selectors: Selectors::new(vec![selector.expect("one address")]),
        limits: Limits::default(),
        replay_window: SaParams::REPLAY_WINDOW,
        repair_checksums: false,
        transport_addresses: None,
    }
}
