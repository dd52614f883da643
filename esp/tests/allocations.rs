//! Sealing and opening allocate nothing.

mod common;

use common::*;
use obol_esp::{Mode, SaParams};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Allocations of this thread; the test harness has threads of its own.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; the counter is a `Cell` that
// needs neither allocation nor destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: our caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above, hence from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

#[test]
fn sealing_and_opening_allocate_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    for suite in SUITES {
        for mode in [Mode::Tunnel, Mode::Transport] {
            let make = || SaParams {
                esn: true,
                repair_checksums: true,
                ..params(suite, mode)
            };
            let mut outbound = obol_esp::Outbound::new(make()).unwrap();
            let mut inbound = obol_esp::Inbound::new(make()).unwrap();
            let mut room = Room::new(&ip(6, 2, 17, &udp(1, 2, &[7; 1200])));
            let count = allocations(|| {
                for _ in 0..10 {
                    let sealed = outbound.seal(&mut room.buffer, room.range.clone()).unwrap();
                    let datagram = sealed.range.clone();
                    let outer = outer(6, sealed.tos);
                    let opened = inbound.open(&mut room.buffer, datagram, outer).unwrap();
                    // The same datagram again is a replay; garbage fails to verify.
                    assert!(inbound.open(&mut room.buffer, sealed.range, outer).is_err());
                    room.range = opened.range;
                }
            });
            assert_eq!(count, 0, "{suite:?} {mode:?}");
        }
    }
}
