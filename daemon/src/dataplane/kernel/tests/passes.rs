//! Policies whose packets pass in clear, within wider ones.

use super::*;
use crate::dataplane::kernel::leftovers::ours;

fn direct() -> Policy {
    Policy {
        connection: "[pass]".into(),
        trap: false,
        pass: true,
        ..policy("direct", "10.1.1.0/24", "10.2.0.0/16 10.3.0.0/16")
    }
}

/// The rules of what passes, by direction.
fn passing(kernel: &Fake) -> Vec<(Direction, Rule)> {
    let policies = kernel.policies().into_iter();
    let passing = policies.filter(|(_, rule)| rule.pass.is_some());
    passing.map(|(key, rule)| (key.direction, rule)).collect()
}

#[test]
fn what_passes_goes_before_what_is_wider_and_is_known_again() {
    let kernel = Fake::default();
    let now = Instant::now();
    drop(ready(&kernel, &[net(), direct()], now));
    let pass = passing(&kernel);
    assert_eq!(pass.len(), 2 * 3);
    let priority = |direction| {
        let mut all = kernel.policies().into_iter();
        let found = all.find(|(key, rule)| key.direction == direction && rule.template.is_some());
        found.unwrap().1.priority
    };
    for (direction, rule) in &pass {
        assert!(!rule.block && rule.template.is_none());
        assert!(rule.priority < priority(*direction));
    }
    let numbers = |direction| {
        let own = pass.iter().filter(move |(of, _)| *of == direction);
        own.map(|(_, rule)| rule.pass.unwrap()).collect::<Vec<_>>()
    };
    for direction in [Direction::In, Direction::Out, Direction::Forward] {
        let [one, other] = numbers(direction)[..] else {
            panic!("two of each")
        };
        assert_ne!(one, other);
    }
    // The next run has the same, without what it does not know.
    let mut second = ready(&kernel, &[net(), direct()], now);
    assert_eq!(passing(&kernel).len(), 6);
    assert_eq!(kernel.policies().len(), 9);
    // The same packets, to be protected now.
    let protect = Policy {
        pass: false,
        trap: true,
        ..direct()
    };
    second.set_policies(vec![net(), protect], now).unwrap();
    assert_eq!(passing(&kernel), []);
    second.set_policies(vec![net(), direct()], now).unwrap();
    assert_eq!(passing(&kernel).len(), 6);
    second.set_policies(vec![net()], now).unwrap();
    assert_eq!(kernel.policies().len(), 3);
    second.set_policies(vec![direct()], now).unwrap();
    let removed = remove_all(&kernel, &HostSettings::for_tests()).unwrap();
    assert_eq!(removed.policies, 6);
    assert!(kernel.policies().is_empty());
}

/// The kernel keeps what we write into the index, and finds it again.
#[test]
fn the_kernel_itself_tells_what_passes_from_what_is_of_others() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let netns = Netns::anonymous().unwrap();
    netns
        .run(|| {
            let kernel = match Socket::open() {
                Ok(kernel) => kernel,
                Err(error) => {
                    println!("skipped: this kernel has no XFRM: {error}");
                    return;
                }
            };
            let settings = HostSettings::for_tests();
            let now = Instant::now();
            let mut core = Core::new(kernel, settings.clone()).unwrap();
            core.set_policies(vec![net(), direct()], now).unwrap();
            let is_ours = |reqid| core.reqids.is_ours(reqid);
            let all = core.kernel.policies().unwrap();
            let (own, _) = ours(all.clone(), Vec::new(), is_ours);
            assert_eq!((own.len(), all.len()), (9, 9));
            assert_eq!(own.iter().filter(|p| p.rule.pass.is_some()).count(), 6);
            // To and fro, as by reloads.
            let protect = Policy {
                pass: false,
                trap: true,
                ..direct()
            };
            core.set_policies(vec![net(), protect], now).unwrap();
            core.set_policies(vec![net(), direct()], now).unwrap();
            drop(core);
            let kernel = Socket::open().unwrap();
            assert_eq!(remove_all(&kernel, &settings).unwrap().policies, 9);
            assert!(kernel.policies().unwrap().is_empty());
        })
        .unwrap();
}
