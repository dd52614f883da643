//! The window against a set that remembers everything, and the edges of 32 and 64 bits.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What the window must be, said slowly.
#[derive(Default)]
struct Oracle {
    seen: BTreeSet<u64>,
}

impl Oracle {
    fn commit(&mut self, sequence: u64, size: u64) -> bool {
        let top = self.seen.last().copied().unwrap_or(0);
        let too_old = u128::from(sequence) + u128::from(size) <= u128::from(top);
        sequence != 0 && !too_old && self.seen.insert(sequence)
    }
}

/// Where a run of packets starts: nowhere special, and around each edge.
fn any_start() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(1u64),
        (1u64 << 32) - 3000..(1u64 << 32) + 3000,
        (5u64 << 32) - 3000..(5u64 << 32) + 3000,
        u64::MAX - 6000..u64::MAX - 3000,
        any::<u64>(),
    ]
}

/// Steps from one packet to the next: mostly near, sometimes a window away, seldom far.
fn any_steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![6 => -5i64..8, 3 => -1300i64..1300, 1 => -5000i64..200_000];
    prop::collection::vec(step, 1..400)
}

proptest! {
    //= test rfc4303 3.4.3-1 3.4.3-5
    //= test security S-59
    #[test]
    fn the_window_agrees_with_a_set(
        size in prop::sample::select(vec![1024u32, 1025, 1087, 4096]),
        start in any_start(),
        steps in any_steps(),
    ) {
        let mut window = Window::new(size);
        let mut oracle = Oracle::default();
        let mut sequence = start;
        for step in steps {
            let expected = oracle.commit(sequence, u64::from(size));
            prop_assert_eq!(window.is_fresh(sequence), expected, "{}", sequence);
            prop_assert_eq!(window.commit(sequence), expected, "{}", sequence);
            sequence = sequence.saturating_add_signed(step);
        }
    }

    //= test rfc4303 A-1
    /// Appendix A2: any number in the window, or less than 2^32 minus the window ahead of the
    /// top, is found again from its low half.
    #[test]
    fn the_high_half_is_found_for_all_numbers_within_reach(
        size in prop::sample::select(vec![1024u32, 4096]),
        top in any_start(),
        behind in 0u64..4096,
        ahead in prop_oneof![0u64..10_000, 0u64..(1 << 32)],
    ) {
        let mut window = Window::new(size);
        prop_assume!(top != 0);
        window.commit(top);
        let size = u64::from(size);
        if behind < size && behind < top {
            prop_assert_eq!(window.extend((top - behind) as u32), Some(top - behind));
        }
        if ahead <= (1 << 32) - size && let Some(next) = top.checked_add(ahead) {
            prop_assert_eq!(window.extend(next as u32), Some(next));
        }
    }
}

//= test rfc4303 3.4.3-4
#[test]
fn the_first_window_has_nothing_before_zero() {
    let mut window = Window::new(1024);
    assert_eq!(window.extend(1), Some(1));
    assert_eq!(
        window.extend(u32::MAX - 1023),
        Some(u64::from(u32::MAX - 1023))
    );
    assert_eq!(window.extend(u32::MAX), None);
    window.commit(10);
    assert_eq!(window.extend(u32::MAX), None);
    assert!(!window.is_fresh(0));
}

#[test]
fn the_last_numbers_have_nothing_after_them() {
    let mut window = Window::new(1024);
    window.commit(u64::MAX - 1);
    assert_eq!(window.extend(u32::MAX), Some(u64::MAX));
    assert_eq!(window.extend(5), None);
    assert!(window.commit(u64::MAX));
    assert!(!window.commit(u64::MAX));
}

#[test]
fn the_oldest_number_in_the_window_passes_once_and_the_one_before_never() {
    let mut window = Window::new(1024);
    window.commit(5000);
    assert!(!window.is_fresh(5000 - 1024));
    assert!(window.commit(5000 - 1023));
    assert!(!window.commit(5000 - 1023));
}

#[test]
fn late_numbers_are_fresh_for_many_turns_of_the_ring() {
    for size in [1024, 1087, 4096] {
        for late in [1, 3, 63, 64, 65, 1000] {
            let mut window = Window::new(size);
            for first in (1..30_000).step_by(late + 1) {
                let last = first + late as u64;
                assert!(window.commit(last), "window {size}, {last}");
                for sequence in first..last {
                    assert!(
                        window.commit(sequence),
                        "window {size}, {sequence} after {last}"
                    );
                }
            }
        }
    }
}
