//! A queue of the TUN, and its worker, between two turns.

use std::net::UdpSocket;
use std::sync::mpsc;

use super::*;
use crate::dataplane::user::count::{Clock, Drops};
use crate::dataplane::user::wake;
use crate::host::netns::Netns;
use crate::host::{self, HostSettings};
use crate::ports::Ports;

/// More than one turn takes.
const FRAMES: u64 = 200;

#[test]
fn a_queue_that_is_turned_off_is_emptied_before() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a TUN device needs root");
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let seen = netns.block_on(async || {
        let settings = HostSettings::for_tests();
        let ports = Ports::open(&settings).unwrap();
        let raw = RawEsp::open(&settings, 1).unwrap().remove(0);
        let mut queues = Tun::open(&settings.tun, 2).unwrap();
        host::bring_up(&settings.tun).await.unwrap();
        netns
            .configure(async |links| {
                let network = ("10.9.0.0".parse().unwrap(), 24);
                links.route(network, &settings.tun, None).await
            })
            .unwrap();
        let tun = Arc::new(queues.remove(1));
        let (events, _events) = tokio::sync::mpsc::unbounded_channel();
        let (ike, _ike) = tokio::sync::mpsc::channel(1);
        let shared = Arc::new(Shared {
            flows: Default::default(),
            drops: Drops::default(),
            clock: Clock::start(),
            events,
            ike,
        });
        let (give, take) = mpsc::channel();
        let _commander = wake::start("test", move |orders| give.send(orders).unwrap()).unwrap();
        let place = Place::new(1, 2);
        let orders = take.recv().unwrap();
        let clear = RawIp::open(&settings).unwrap();
        let sockets = (ports.encapsulation(), raw, clear);
        let mut worker = Worker::new(orders, place, sockets, tun, shared.clone());
        // Everything comes to this queue.
        worker.tun.turn(true).unwrap();
        worker.tun_lives = true;
        queues[0].turn(false).unwrap();
        let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..FRAMES {
            sender.send_to(b"frame", "10.9.0.1:9").unwrap();
        }
        // No SA is this worker's.
        worker.turn();
        assert!(!worker.tun_lives);
        shared.drops.read()
    });
    // Each frame was read, and found to have no policy.
    assert_eq!(seen.unwrap()["no-policy"], FRAMES);
}
