//! Whether any of many selectors holds another one, without asking each of them.

use std::collections::{BTreeSet, HashMap};

use crate::host::prefix::Prefix;
use crate::host::xfrm::{Direction, Key, Scope, Selector};

/// Which packets, as far as it takes no search: where, and between which networks.
type Place = (Direction, Scope, Prefix, Prefix);

/// Selectors by their networks. There are many of these, but few lengths of their prefixes.
#[derive(Debug, Default)]
pub(super) struct Cover {
    places: HashMap<Place, Vec<Selector>>,
    lengths: BTreeSet<(u8, u8)>,
}

impl Cover {
    /// Of all of these.
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut cover = Self::default();
        for key in keys {
            let Selector {
                source,
                destination,
                ..
            } = key.selector;
            cover.lengths.insert((source.len, destination.len));
            let place = (key.direction, key.scope, source, destination);
            cover.places.entry(place).or_default().push(key.selector);
        }
        cover
    }

    /// Whether one of them is about all packets of this one.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let Selector {
            source,
            destination,
            ..
        } = key.selector;
        self.lengths.iter().any(|(from, to)| {
            let networks = source.shortened(*from).zip(destination.shortened(*to));
            networks.is_some_and(|(source, destination)| {
                let place = (key.direction, key.scope, source, destination);
                let here = self.places.get(&place);
                here.is_some_and(|here| here.iter().any(|own| own.contains(&key.selector)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::selectors::pieces;
    use super::*;
    use proptest::prelude::*;

    fn key(direction: Direction, from: &str, to: &str) -> Key {
        let pieces = pieces(&[from.parse().unwrap()], &[to.parse().unwrap()]).unwrap();
        Key {
            direction,
            selector: pieces[0].selector,
            scope: Scope::default(),
        }
    }

    fn any_key() -> impl Strategy<Value = Key> {
        let address = |len: u32| match len {
            0 => "0.0.0.0/0".to_owned(),
            8 => "10.0.0.0/8".to_owned(),
            16 => "10.1.0.0/16".to_owned(),
            31 => "fd01::/64".to_owned(),
            _ => "10.1.0.1".to_owned(),
        };
        let network = || prop::sample::select(vec![0_u32, 8, 16, 31, 32]).prop_map(address);
        let ports = [
            ("", ""),
            ("[tcp]", "[tcp]"),
            ("[tcp]", "[tcp/80]"),
            ("[udp]", "[udp/80]"),
        ];
        let port = prop::sample::select(ports.to_vec());
        (any::<bool>(), network(), network(), port, 0..2_u32).prop_filter_map(
            "of one family",
            |(out, from, to, port, if_id)| {
                (from.contains(':') == to.contains(':')).then(|| {
                    let direction = if out { Direction::Out } else { Direction::In };
                    let (from, to) = (format!("{from}{}", port.0), format!("{to}{}", port.1));
                    let mut key = key(direction, &from, &to);
                    key.scope.if_id = if_id;
                    key
                })
            },
        )
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_asking_each(
            keys in prop::collection::vec(any_key(), 0..6),
            asked in any_key(),
        ) {
            let held = |own: &Key| {
                (own.direction, own.scope) == (asked.direction, asked.scope)
                    && own.selector.contains(&asked.selector)
            };
            prop_assert_eq!(Cover::of(keys.iter()).holds(&asked), keys.iter().any(held));
        }
    }
}
