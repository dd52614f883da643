//! Which of two is about fewer packets: it goes first.

use obol_ike::ts::TrafficSelector;

use super::finding::Located;
use crate::host::pairs;

/// Selectors of our side and of the peer's.
pub(super) type Sides<'t> = (
    &'t [Located<TrafficSelector>],
    &'t [Located<TrafficSelector>],
);

/// What the packets of one are to those of another.
pub(super) enum Relation<'t> {
    /// None is in both.
    Apart,
    /// Where they meet, the former are part of the latter.
    Narrower,
    /// The other way round.
    Wider,
    /// They are the same, or each has some that the other one has not; where they meet on the
    /// peer's side.
    Unclear(&'t Located<TrafficSelector>, &'t Located<TrafficSelector>),
}

/// How the packets of one are related to those of another.
pub(super) fn relation<'t>(one: Sides<'t>, other: Sides<'t>) -> Relation<'t> {
    let met = |one: &'t [Located<TrafficSelector>], other: &'t [Located<TrafficSelector>]| {
        one.iter().find_map(|ts| {
            let mut others = other.iter();
            let met = others.find(|other| ts.value.intersect(&other.value).is_some())?;
            Some((ts, met))
        })
    };
    let (Some(_), Some((ts, other_ts))) = (met(one.0, other.0), met(one.1, other.1)) else {
        return Relation::Apart;
    };
    let flat = |sides: Sides<'_>| -> Vec<(TrafficSelector, TrafficSelector)> {
        let (local, remote): (Vec<_>, Vec<_>) = (
            values(sides.0).copied().collect(),
            values(sides.1).copied().collect(),
        );
        pairs(&local, &remote)
    };
    match order(&flat(one), &flat(other)) {
        Order::Apart => Relation::Apart,
        Order::Narrower => Relation::Narrower,
        Order::Wider => Relation::Wider,
        Order::Unclear => Relation::Unclear(ts, other_ts),
    }
}

/// [`Relation`] without places.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// None is in both.
    Apart,
    /// Where they meet, the former are part of the latter.
    Narrower,
    /// The other way round.
    Wider,
    /// Neither.
    Unclear,
}

/// How the packets of these pairs are related to those of others.
pub(super) fn order(one: &[Pair], other: &[Pair]) -> Order {
    let (mut apart, mut narrower, mut wider) = (true, true, true);
    for a in one {
        let mut meeting = other.iter().filter(|b| meets(a, b)).peekable();
        apart &= meeting.peek().is_none();
        for b in meeting {
            narrower &= is_narrower(a, b);
            wider &= is_narrower(b, a);
        }
    }
    match (apart, narrower, wider) {
        (true, ..) => Order::Apart,
        (_, true, _) => Order::Narrower,
        (_, _, true) => Order::Wider,
        _ => Order::Unclear,
    }
}

/// Selectors without their places.
pub(super) fn values(
    all: &[Located<TrafficSelector>],
) -> impl Iterator<Item = &TrafficSelector> + Clone {
    all.iter().map(|ts| &ts.value)
}

/// Packets from one side to the other.
pub(super) type Pair = (TrafficSelector, TrafficSelector);

fn meets(a: &Pair, b: &Pair) -> bool {
    a.0.intersect(&b.0).is_some() && a.1.intersect(&b.1).is_some()
}

/// Whether all packets of a pair are of the other one too, which has more.
pub(crate) fn is_narrower(a: &Pair, b: &Pair) -> bool {
    a != b && a.0.is_subset_of(&b.0) && a.1.is_subset_of(&b.1)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Place;
    use super::*;

    fn located(texts: &[&str]) -> Vec<Located<TrafficSelector>> {
        let place = Place {
            source: 0,
            span: 0..0,
        };
        let parse = |text: &&str| Located {
            value: text.parse().unwrap(),
            place: place.clone(),
        };
        texts.iter().map(parse).collect()
    }

    /// Selectors of our side and of the peer's.
    type Texts<'t> = [&'t [&'t str]; 2];

    fn relate(one: Texts<'_>, other: Texts<'_>) -> &'static str {
        let [a, b] = one.map(located);
        let [c, d] = other.map(located);
        match relation((&a, &b), (&c, &d)) {
            Relation::Apart => "apart",
            Relation::Narrower => "narrower",
            Relation::Wider => "wider",
            Relation::Unclear(..) => "unclear",
        }
    }

    #[test]
    fn the_narrower_one_is_told_where_there_is_one() {
        let net = ["10.1.0.0/16"];
        let table: [(Texts<'_>, Texts<'_>, &str); 9] = [
            ([&net, &["10.2.0.0/16"]], [&net, &["10.3.0.0/16"]], "apart"),
            (
                [&net, &["10.2.1.0/24"]],
                [&net, &["10.2.0.0/16"]],
                "narrower",
            ),
            ([&net, &["0.0.0.0/0"]], [&net, &["10.2.0.0/16"]], "wider"),
            (
                [&net, &["10.2.0.0/16"]],
                [&net, &["10.2.0.0/16"]],
                "unclear",
            ),
            (
                [&net, &["10.2.0.0/16"]],
                [&["10.1.1.0/24"], &["10.0.0.0/8"]],
                "unclear",
            ),
            (
                [&net, &["10.2.0.0/16[tcp/443]"]],
                [&net, &["10.2.0.0/16[tcp]"]],
                "narrower",
            ),
            (
                [&["10.1.0.0/16[tcp]"], &["10.2.0.0/16"]],
                [&net, &["10.2.0.0/16[udp]"]],
                "apart",
            ),
            // One pair is narrower, and the other one meets nothing.
            (
                [&net, &["10.2.1.0/24", "10.9.0.0/16"]],
                [&net, &["10.2.0.0/16"]],
                "narrower",
            ),
            (
                [&net, &["10.2.1.0/24", "10.9.0.0/16"]],
                [&net, &["10.2.0.0/16", "10.9.1.0/24"]],
                "unclear",
            ),
        ];
        for (one, other, expected) in table {
            assert_eq!(relate(one, other), expected, "{one:?} {other:?}");
        }
    }
}
