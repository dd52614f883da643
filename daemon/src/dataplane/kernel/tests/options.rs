//! Children with marks and xfrm interfaces.

use super::*;
use crate::host::xfrm::{Mark, Scope, find_attribute};

fn number(kernel: &Fake, spi: u32, attribute: u16) -> Option<u32> {
    let (states, _) = kernel.contents();
    let (_, body) = states.iter().find(|(id, _)| id.spi == spi)?;
    let octets = find_attribute(&body[224..], attribute)?;
    Some(u32::from_ne_bytes(octets[..4].try_into().unwrap()))
}

const SET_MARK: u16 = 29;
const IF_ID: u16 = 31;

fn marked(mark_out: u32) -> Policy {
    let mask = 0xff;
    Policy {
        child: format!("net{mark_out}"),
        kernel: KernelOptions {
            mark_in: Mark { value: 9, mask },
            mark_out: Mark {
                value: mark_out,
                mask,
            },
            ..KernelOptions::default()
        },
        ..net()
    }
}

fn tied(if_id: u32) -> Policy {
    Policy {
        kernel: KernelOptions {
            if_id,
            ..KernelOptions::default()
        },
        ..policy("tied", "0.0.0.0/0 ::/0", "0.0.0.0/0 ::/0")
    }
}

#[test]
fn what_is_led_into_an_interface_has_policies_and_states_of_its_own() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[tied(42), net()], now);
    let of_it = |key: &Key| key.scope.if_id == 42;
    let tied_keys = kernel.policies().into_keys().filter(of_it).count();
    // And no neighbour discovery, which an xfrm interface has not.
    assert_eq!((tied_keys, kernel.policies().len()), (6, 9));
    let sa = info(1, &tied(42));
    up(&mut core, &sa, now);
    assert_eq!(number(&kernel, 0x1001, IF_ID), Some(42));
    assert_eq!(number(&kernel, 0x2001, IF_ID), Some(42));
    up(&mut core, &info(2, &net()), now);
    assert_eq!(number(&kernel, 0x1002, IF_ID), None);
    assert_eq!(number(&kernel, 0x2002, IF_ID), None);
    assert_eq!(kernel.policies().into_keys().filter(of_it).count(), 6);
    core.remove(sa.id, now).unwrap();
    core.set_policies(vec![net()], now).unwrap();
    assert_eq!(kernel.policies().into_keys().filter(of_it).count(), 0);
}

#[test]
fn marks_tell_children_with_the_same_selectors_apart() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[marked(1), marked(2)], now);
    let out = |value: u32| {
        let policies = kernel.policies();
        let mut keys = policies.iter().filter(|(key, _)| {
            key.direction == Direction::Out && key.scope.mark == Mark { value, mask: 0xff }
        });
        keys.next().unwrap().1.template.unwrap().reqid
    };
    assert_ne!(out(1), out(2));
    up(&mut core, &info(1, &marked(1)), now);
    up(&mut core, &info(2, &marked(2)), now);
    let reqid = |spi| {
        let states = kernel.states();
        states.iter().find(|s| s.id.spi == spi).unwrap().reqid
    };
    assert_eq!((out(1), out(2)), (reqid(0x2001), reqid(0x2002)));
    // What came in gets the mark by which it passes; what is sealed has obol's own.
    assert_eq!(number(&kernel, 0x1001, SET_MARK), Some(9));
    let own = HostSettings::for_tests().fwmark;
    assert_eq!(number(&kernel, 0x2001, SET_MARK), Some(own));
    let scopes = kernel.policies().into_keys().map(|key| key.scope.mark);
    assert!(scopes.into_iter().all(|mark| mark.mask == 0xff));
}

#[test]
fn an_sa_is_made_anew_when_its_child_gets_other_options() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut core = ready(&kernel, &[tied(42), net()], now);
    let sa = info(1, &tied(42));
    up(&mut core, &sa, now);
    up(&mut core, &info(2, &net()), now);
    core.set_policies(vec![tied(42), net()], now).unwrap();
    assert!(core.events.is_empty());
    core.set_policies(vec![tied(43), net()], now).unwrap();
    let ended: Vec<_> = core.events.drain(..).collect();
    assert!(
        matches!(ended[..], [DataPlaneEvent::HardExpired(id)] if id == sa.id),
        "{ended:?}"
    );
    core.remove(sa.id, now).unwrap();
    up(&mut core, &info(3, &tied(43)), now);
    assert_eq!(number(&kernel, 0x1003, IF_ID), Some(43));
    let stale = |key: &Key| key.scope.if_id == 42;
    assert!(!kernel.policies().into_keys().any(|key| stale(&key)));
}

#[test]
fn the_next_run_takes_over_what_is_tied_to_the_same_interface() {
    for (next, states) in [(42, 2), (43, 0)] {
        let kernel = Fake::default();
        let now = Instant::now();
        let mut first = ready(&kernel, &[tied(42)], now);
        up(&mut first, &info(1, &tied(42)), now);
        let mut second = ready(&kernel, &[tied(next)], now);
        second.due(now);
        assert_eq!(kernel.states().len(), states);
        let removed = remove_all(&kernel, &HostSettings::for_tests()).unwrap();
        assert_eq!((removed.states, removed.policies), (states, 6));
        assert!(kernel.policies().is_empty());
    }
}

#[test]
fn policies_of_others_count_where_they_meet_the_same_packets() {
    let scope = |if_id, value| Scope {
        if_id,
        mark: Mark {
            value,
            mask: if value == 0 { 0 } else { 0xff },
        },
    };
    let rows = [
        (tied(42), scope(42, 0), true),
        (tied(42), scope(0, 0), false),
        (net(), scope(42, 0), false),
        (net(), scope(0, 1), false),
        (marked(1), scope(0, 0), true),
        (marked(1), scope(0, 1), true),
        (marked(1), scope(0, 2), false),
    ];
    for (ours, theirs, told) in rows {
        let kernel = Fake::default();
        let now = Instant::now();
        let mut core = ready(&kernel, std::slice::from_ref(&ours), now);
        let found = kernel.policies();
        let out = |key: &&Key| key.direction == Direction::Out && key.selector.source.is_v4();
        let mut key = *found.keys().find(out).unwrap();
        key.selector.destination.len = 32;
        key.scope = theirs;
        let rule = Rule {
            pass: None,
            priority: 5,
            block: true,
            template: None,
        };
        let message = xfrm::Policy { key, rule }.install(true);
        kernel.carry_out(message).unwrap();
        core.look_for_foreign();
        assert_eq!(core.foreign.len(), usize::from(told), "{ours:?} {theirs:?}");
    }
}
