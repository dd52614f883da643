//! What an earlier run left.

use super::*;

#[test]
fn the_next_run_keeps_the_sas_until_new_ones_stand() {
    let kernel = Fake::default();
    let mut now = Instant::now();
    let gone = policy("gone", "10.1.0.0/16", "10.9.0.0/16");
    let mut first = ready(&kernel, &[net(), gone.clone()], now);
    up(&mut first, &info(1, &net()), now);
    up(&mut first, &info(2, &gone), now);
    drop(first);

    let reqid = kernel
        .states()
        .iter()
        .find(|s| s.id.spi == 0x1001)
        .unwrap()
        .reqid;
    let mut second = ready(&kernel, &[net()], now);
    second.due(now);
    assert_eq!(
        kernel.states().len(),
        2,
        "what is not configured any more goes"
    );
    assert_eq!(leads_to(&kernel, Direction::Out), reqid);
    let new = ChildSaInfo {
        spi_in: EspSpi(0x3001),
        spi_out: EspSpi(0x4001),
        ..info(1, &net())
    };
    up(&mut second, &new, now);
    assert_eq!(
        leads_to(&kernel, Direction::Out),
        reqid,
        "old packets fit new policies"
    );
    assert_eq!(kernel.states().len(), 4);
    now += DRAIN;
    second.due(now);
    assert_eq!(kernel.states().len(), 2);
    second.remove(new.id, now).unwrap();
    assert_ne!(leads_to(&kernel, Direction::Out), reqid);
    second.due(now + 60 * SECOND);
    assert_eq!(kernel.states().len(), 0);
}

#[test]
fn sas_of_an_earlier_run_that_nobody_renews_end() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut first = ready(&kernel, &[net()], now);
    up(&mut first, &info(1, &net()), now);
    let mut second = ready(&kernel, &[net()], now);
    let until = second.next_due().unwrap();
    assert!(until > now + 10 * SECOND);
    second.due(until);
    assert!(kernel.states().is_empty());
    assert_eq!(kernel.policies().len(), 3);
    assert_eq!(second.next_due(), None);
}

/// A new SA in the place of the one that an earlier run has left.
fn successor() -> ChildSaInfo {
    ChildSaInfo {
        spi_in: EspSpi(0x3001),
        spi_out: EspSpi(0x4001),
        ..info(1, &net())
    }
}

#[test]
fn an_sa_of_an_earlier_run_wanes_whatever_policies_are_set_meanwhile() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut first = ready(&kernel, &[net()], now);
    up(&mut first, &info(1, &net()), now);
    drop(first);
    let mut second = ready(&kernel, &[net()], now);
    up(&mut second, &successor(), now);
    let later = now + SECOND;
    let other = policy("other", "10.1.0.0/16", "10.9.0.0/16");
    second.set_policies(vec![net(), other], later).unwrap();
    second.due(later);
    let has = |spi| kernel.states().iter().any(|state| state.id.spi == spi);
    assert!(has(0x1001), "packets that are on their way still come in");
    second.due(now + DRAIN);
    assert!(!has(0x1001));
    assert!(has(0x3001));
}

#[test]
fn who_fails_to_take_an_sa_over_leaves_it_to_the_next() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut first = ready(&kernel, &[net()], now);
    up(&mut first, &info(1, &net()), now);
    drop(first);
    let reqid = leads_to(&kernel, Direction::Out);
    let other = policy("other", "10.1.0.0/16", "10.9.0.0/16");
    let mut second = ready(&kernel, &[net(), other.clone()], now);
    kernel.refuse(kernel.requests() + 1, libc::ENOBUFS);
    let (sa, keys) = (successor(), keys());
    let failed = second.add_inbound(&InboundSa { info: sa, keys });
    failed.unwrap_err();
    let of = |spi| {
        let states = kernel.states();
        let found = states.iter().find(|state| state.id.spi == spi);
        found.map(|state| state.reqid)
    };
    up(&mut second, &info(2, &other), now);
    assert_ne!(of(0x1002), Some(reqid), "it is of other packets");
    up(&mut second, &successor(), now);
    assert_eq!((of(0x1001), of(0x3001)), (Some(reqid), Some(reqid)));
    // The ID is in use as long as one of the states is there.
    second.remove(ChildSaId(1), now).unwrap();
    assert_eq!((of(0x1001), of(0x3001)), (Some(reqid), None));
    assert!(!second.reqids.claim(reqid));
    second.due(now + DRAIN);
    assert_eq!(of(0x1001), None);
    assert!(second.reqids.claim(reqid), "then it is free");
}

#[test]
fn what_a_new_sa_does_not_carry_any_more_asks_for_one_of_its_own() {
    let kernel = Fake::default();
    let now = Instant::now();
    let both = policy("net", "10.1.0.0/16 10.3.0.0/16", "10.2.0.0/16");
    let mut first = ready(&kernel, std::slice::from_ref(&both), now);
    up(&mut first, &info(1, &both), now);
    drop(first);
    let reqid = leads_to(&kernel, Direction::Out);
    let with = |reqid| {
        let policies = kernel.policies();
        let templates = policies.values().filter_map(|rule| rule.template);
        templates.filter(|template| template.reqid == reqid).count()
    };
    assert_eq!(with(reqid), 6);
    let other = policy("other", "10.3.0.0/16", "10.2.0.0/16");
    let mut second = ready(&kernel, &[net(), other], now);
    assert_eq!(with(reqid), 6);
    up(&mut second, &successor(), now);
    assert_eq!(with(reqid), 3, "10.3.0.0/16 is nothing of that SA's");
    assert_eq!(kernel.policies().len(), 6);
}
