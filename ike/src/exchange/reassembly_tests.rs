use super::*;

const KEY: MessageKey = MessageKey {
    message_id: 1,
    exchange: ExchangeType::IKE_AUTH,
};

#[expect(clippy::disallowed_methods, reason = "an instant to begin at")]
fn start() -> Instant {
    Instant::now()
}

fn fragment(number: u16, total: u16) -> Fragment {
    Fragment { number, total }
}

/// The part of a message that is the octets 1, 1, 2, 2, 2, 3, 3, 3, 3, and so on.
fn chunk(number: u16, total: u16) -> Chunk {
    Chunk {
        fragment: fragment(number, total),
        first: PayloadType(if number == 1 { 35 } else { 0 }),
        octets: vec![number as u8; usize::from(number) + 1],
    }
}

/// Takes fragments in this order as a receiver does; the whole message, if it got complete, and
/// how many fragments were refused.
fn receive(order: &[(u16, u16)]) -> (Option<(PayloadType, Vec<u8>)>, usize) {
    let (mut set, mut refused): (Option<Reassembly>, usize) = (None, 0);
    for (number, total) in order {
        let part = chunk(*number, *total);
        match set.as_mut() {
            Some(old) if old.check(KEY, part.fragment).is_err() => refused += 1,
            Some(old) if old.takes(KEY, part.fragment) => old.put(start(), part),
            _ => set = Some(Reassembly::begin(KEY, start(), part)),
        }
        if set.as_ref().is_some_and(Reassembly::is_complete) {
            return (set.take().map(Reassembly::merge), refused);
        }
    }
    (None, refused)
}

fn whole(total: u16) -> (PayloadType, Vec<u8>) {
    let parts = (1..=total).flat_map(|number| chunk(number, total).octets);
    (PayloadType(35), parts.collect())
}

/// Calls `see` with every order of `rest` after `done`.
fn orders(done: &mut Vec<u16>, rest: &mut Vec<u16>, see: &mut impl FnMut(&[u16])) {
    if rest.is_empty() {
        see(done);
    }
    for at in 0..rest.len() {
        let next = rest.remove(at);
        done.push(next);
        orders(done, rest, see);
        done.pop();
        rest.insert(at, next);
    }
}

//= test rfc7383 2.6.1-1 2.6-2
//= test security S-41
#[test]
fn every_order_up_to_six_with_each_one_repeated_gives_the_message() {
    let mut seen = 0;
    for total in 1..=6 {
        orders(&mut Vec::new(), &mut (1..=total).collect(), &mut |order| {
            let plain: Vec<_> = order.iter().map(|n| (*n, total)).collect();
            assert_eq!(receive(&plain), (Some(whole(total)), 0), "{order:?}");
            // Each comes again after each other one.
            let mut again = Vec::new();
            for (at, number) in order.iter().enumerate() {
                again.push((*number, total));
                again.extend(order[..at].iter().map(|n| (*n, total)));
            }
            let (message, _) = receive(&again);
            assert_eq!(message, Some(whole(total)), "{order:?}");
            seen += 1;
        });
    }
    assert_eq!(seen, 1 + 2 + 6 + 24 + 120 + 720);
}

//= test rfc7383 2.6-4
#[test]
fn a_larger_total_begins_anew_and_a_smaller_one_is_refused() {
    let old = [
        (1, 3),
        (2, 3),
        (3, 4),
        (3, 3),
        (1, 3),
        (1, 4),
        (2, 4),
        (4, 4),
    ];
    assert_eq!(receive(&old), (Some(whole(4)), 2));
    // What was there of the old set does not count for the new one.
    assert_eq!(receive(&[(1, 2), (2, 3), (3, 3)]).0, None);
    assert_eq!(receive(&[(1, 2), (2, 3), (3, 3), (1, 3)]).0, Some(whole(3)));
}

#[test]
fn a_set_of_another_message_is_replaced() {
    let set = Reassembly::begin(KEY, start(), chunk(1, 9));
    let other = MessageKey {
        message_id: 2,
        ..KEY
    };
    assert_eq!(set.check(other, fragment(1, 2)), Ok(()));
    assert!(!set.takes(other, fragment(2, 9)));
    let other = MessageKey {
        exchange: ExchangeType::INFORMATIONAL,
        ..KEY
    };
    assert!(!set.takes(other, fragment(2, 9)));
}

#[test]
fn what_is_held_is_counted_with_its_overhead() {
    let empty = Chunk {
        octets: Vec::new(),
        ..chunk(1, 200)
    };
    let mut set = Reassembly::begin(KEY, start(), empty);
    assert_eq!(set.held(), OVERHEAD);
    set.put(start(), chunk(2, 200));
    assert_eq!(set.held(), 2 * OVERHEAD + 3);
}
