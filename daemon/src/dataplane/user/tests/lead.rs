//! Which thread does what: one is enough for both directions, two do not mix up a flow, and what
//! comes in does not hold back what goes out.

use std::fs;
use std::io::IoSlice;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::sys::msg::{self, Header};

/// How often the thread that sleeps as a rule was woken.
fn wake_ups(host: &Host) -> u64 {
    let net = |path: &str| fs::metadata(path).map(|net| net.ino());
    let own = host.netns.run(|| net("/proc/thread-self/ns/net")).unwrap();
    let own = own.unwrap();
    let mut found = None;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path().display().to_string();
        // Threads of other tests end meanwhile.
        let Ok(status) = fs::read_to_string(format!("{path}/status")) else {
            continue;
        };
        if status.starts_with("Name:\tobol-outbound\n")
            && net(&format!("{path}/ns/net")).is_ok_and(|net| net == own)
        {
            let line = |line: &str| {
                line.strip_prefix("voluntary_ctxt_switches:")?
                    .trim()
                    .parse()
                    .ok()
            };
            found = status.lines().find_map(line);
        }
    }
    found.expect("the thread is there")
}

#[test]
fn one_thread_seals_the_answers_to_what_it_has_opened() {
    if skipped() {
        return;
    }
    let child = Child {
        encap: true,
        ..TUNNEL
    };
    let (mut a, mut b) = hosts(true);
    child.protect(&mut a, &mut b);
    child.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7), b.socket(b.subnet, 7));
    exchange(&at_a, &at_b, b"first");
    let before = [wake_ups(&a), wake_ups(&b)];
    for _ in 0..100 {
        exchange(&at_a, &at_b, b"question");
        exchange(&at_b, &at_a, b"answer");
    }
    assert_eq!([wake_ups(&a), wake_ups(&b)], before);
}

/// Numbered packets, while a flood comes in that makes it worth it to have two threads, and while it
/// stops and begins again, which makes what goes out change hands.
#[test]
fn what_goes_out_keeps_its_order_and_pace_while_a_flood_comes_in() {
    const PORT: u16 = 4501;
    const DATAGRAMS: usize = 40;
    if skipped() {
        return;
    }
    let child = Child {
        encap: true,
        ..TUNNEL
    };
    let (mut a, b) = hosts(true);
    let mut info = child.info(&a, &b, true);
    info.path.remote.set_port(PORT);
    a.policies(vec![child.policy(&a, &b, true)]).unwrap();
    a.inbound(inbound(&info, 2)).unwrap();
    a.outbound(outbound(&info, 1)).unwrap();
    let peer = b.socket(b.address, PORT);
    let (flow, flood) = (a.socket(a.subnet, 0), b.socket(b.address, 0));
    let rows = |to: SocketAddr| Header {
        to,
        from: None,
        tos: 0,
        ttl: None,
        segment: Some(1000),
    };
    let floods = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let before = wake_ups(&a);
    thread::scope(|scope| {
        scope.spawn(|| {
            let header = rows(SocketAddr::new(a.address, 4500));
            while !done.load(Ordering::Relaxed) {
                if floods.load(Ordering::Relaxed) {
                    // What does not fit is lost, which is what floods are for.
                    let _ = msg::send(&flood, &[IoSlice::new(&[7; 60_000])], &header);
                } else {
                    thread::yield_now();
                }
            }
        });
        let header = rows(SocketAddr::new(b.subnet, 9));
        let mut last = 0;
        let mut round = 0;
        let mut buffer = [0; 2000];
        // Until it has changed hands some times.
        while round < 200 || wake_ups(&a) < before + 20 {
            assert!(round < 20_000, "the second thread never has anything to do");
            floods.store(round / 50 % 2 == 1, Ordering::Relaxed);
            msg::send(&flow, &[IoSlice::new(&[7; 1000 * DATAGRAMS])], &header).unwrap();
            for _ in 0..DATAGRAMS {
                if peer.recv(&mut buffer).is_err() {
                    done.store(true, Ordering::Relaxed);
                    panic!("what goes out is held back");
                }
                let number = u32::from_be_bytes(buffer[4..8].try_into().unwrap());
                assert_eq!(number, last + 1);
                last = number;
            }
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
}
