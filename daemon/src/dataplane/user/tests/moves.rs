//! Packets that come before their SA, and SAs whose ends change their addresses.

use obol_ike::event::MovedSa;

use super::*;

const NATTED: Child = Child {
    encap: true,
    ..TUNNEL
};

impl Host {
    fn moved(&mut self, info: &ChildSaInfo, path: Path, encap: bool) {
        let moved = MovedSa {
            id: info.id,
            path,
            encap,
            nat: encap,
        };
        let plane = &mut self.plane;
        self.netns
            .block_on(async || plane.move_path(moved).await)
            .unwrap()
            .unwrap();
    }

    /// The next event that tells of another path.
    fn peer_moved(&mut self) -> Path {
        loop {
            if let DataPlaneEvent::PeerMoved { path, .. } = self.event() {
                return path;
            }
        }
    }
}

fn port(path: Path, local: &str, remote: &str) -> Path {
    Path {
        local: SocketAddr::new(ip(local), path.local.port()),
        remote: SocketAddr::new(ip(remote), path.remote.port()),
    }
}

#[test]
fn a_packet_just_before_its_sa_is_not_lost() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
    at_b.set_read_timeout(Some(SECOND / 2)).unwrap();
    // A machine may be too slow once: packets are held for a while.
    let arrived = (1..20).any(|id| {
        let child = Child { id, ..TUNNEL };
        let (of_a, of_b) = (child.info(&a, &b, true), child.info(&b, &a, false));
        a.outbound(outbound(&of_a, 1)).unwrap();
        at_a.send_to(b"early", at_b.local_addr().unwrap()).unwrap();
        b.inbound(inbound(&of_b, 1)).unwrap();
        at_b.recv_from(&mut [0; 64]).is_ok()
    });
    assert!(arrived);
}

#[test]
fn what_nobody_waits_for_is_dropped_and_counted() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
    a.outbound(outbound(&TUNNEL.info(&a, &b, true), 1)).unwrap();
    for _ in 0..100 {
        at_a.send_to(b"early", at_b.local_addr().unwrap()).unwrap();
    }
    eventually("all are dropped", || {
        (b.drops("unknown-spi") == 100).then_some(())
    });
}

#[test]
fn a_move_loses_nothing_and_replays_nothing() {
    if skipped() {
        return;
    }
    for encap in [true, false] {
        let child = Child { encap, ..TUNNEL };
        let (mut a, mut b) = hosts(true);
        child.protect(&mut a, &mut b);
        child.install(&mut a, &mut b);
        let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
        exchange(&at_a, &at_b, b"before");
        let elsewhere = "192.0.2.9";
        a.netns
            .configure(async |links| links.address("left", ip(elsewhere), 24).await)
            .unwrap();
        let (of_a, of_b) = (child.info(&a, &b, true), child.info(&b, &a, false));
        let path = port(of_a.path, elsewhere, "192.0.2.2");
        a.moved(&of_a, path, encap);
        exchange(&at_a, &at_b, b"from elsewhere");
        let seen_by_b = port(of_b.path, "192.0.2.2", elsewhere);
        if encap {
            assert_eq!(b.peer_moved(), seen_by_b);
        }
        exchange(&at_b, &at_a, b"to where it was");
        b.moved(&of_b, seen_by_b, encap);
        exchange(&at_b, &at_a, b"to where it is");
        let usage = b.plane.usage(ChildSaId(1)).unwrap();
        assert_eq!((usage.packets_in, usage.packets_out), (2, 2));
        assert_eq!((a.drops("replay"), b.drops("replay")), (0, 0));
    }
}

#[test]
fn a_nat_that_comes_and_goes_changes_the_encapsulation() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    NATTED.protect(&mut a, &mut b);
    NATTED.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
    let (of_a, of_b) = (NATTED.info(&a, &b, true), NATTED.info(&b, &a, false));
    for encap in [false, true, false] {
        // Whoever is first has no need to wait for the other.
        a.moved(&of_a, of_a.path, encap);
        exchange(&at_a, &at_b, b"there");
        exchange(&at_b, &at_a, b"and back");
        b.moved(&of_b, of_b.path, encap);
        exchange(&at_a, &at_b, b"there");
        exchange(&at_b, &at_a, b"and back");
    }
}
