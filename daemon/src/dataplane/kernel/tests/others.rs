//! What others did, or do, in the same kernel.

use super::*;

#[test]
fn what_others_remove_is_noticed() {
    let kernel = Fake::default();
    let mut now = Instant::now();
    let mut core = ready(&kernel, &[net()], now);
    let sa = info(1, &net());
    up(&mut core, &sa, now);
    let installed = kernel.policies();
    kernel.flush_policies();
    core.notice(Notice::PoliciesChanged, now);
    now = core.next_due().unwrap();
    core.due(now);
    assert_eq!(kernel.policies(), installed);
    kernel.flush_states();
    core.notice(Notice::StatesGone, now);
    now = core.next_due().unwrap();
    core.due(now);
    assert!(
        core.events
            .iter()
            .all(|event| matches!(event, DataPlaneEvent::HardExpired(id) if *id == sa.id))
    );
    assert_eq!(core.events.len(), 2);
    core.remove(sa.id, now).unwrap();
    assert_eq!(core.next_due(), None);
    // A packet of now asks for another one.
    assert_ne!(kernel.policies(), installed);
}

#[test]
fn what_others_installed_is_not_touched() {
    let kernel = Fake::default();
    let now = Instant::now();
    let mut other = Core::new(
        kernel.clone(),
        HostSettings {
            fwmark: 1,
            ..HostSettings::for_tests()
        },
    )
    .unwrap();
    other.set_policies(vec![net()], now).unwrap();
    up(&mut other, &info(1, &net()), now);
    let theirs = kernel.contents();

    let mut core = core(&kernel);
    let error = core.set_policies(vec![net()], now).unwrap_err().to_string();
    assert!(
        error.contains("another program has an IPsec policy"),
        "{error}"
    );
    assert!(error.contains("10.1.0.0/16"), "{error}");
    assert_eq!(kernel.contents(), theirs);
    let own = policy("own", "10.1.0.0/16", "10.4.0.0/16");
    core.set_policies(vec![own], now).unwrap();
    let removed = remove_all(&kernel, &HostSettings::for_tests()).unwrap();
    assert_eq!((removed.policies, removed.states), (3, 0));
    assert_eq!(kernel.contents(), theirs);
}

#[test]
fn policies_of_others_that_overlap_are_told_and_not_touched() {
    let kernel = Fake::default();
    let now = Instant::now();
    let ours = net();
    let mut core = ready(&kernel, std::slice::from_ref(&ours), now);
    assert!(core.foreign.is_empty());
    let key = |destination: [u8; 4], len| {
        let found = kernel.policies();
        let mut key = *found
            .keys()
            .find(|key| key.direction == Direction::Out)
            .unwrap();
        key.selector.destination = Prefix {
            address: destination.into(),
            len,
        };
        key
    };
    let add = |key: Key, priority| {
        let rule = Rule {
            pass: None,
            priority,
            block: false,
            template: None,
        };
        let message = xfrm::Policy { key, rule }.install(true);
        kernel.carry_out(message).unwrap();
    };
    add(key([10, 2, 3, 0], 24), 5);
    add(key([10, 0, 0, 0], 8), 1 << 30);
    add(key([10, 3, 0, 0], 16), 5);
    let contents = kernel.contents();
    core.notice(Notice::PoliciesChanged, now);
    core.due(core.next_due().unwrap());
    let first: Vec<bool> = core.foreign.iter().map(|foreign| foreign.first).collect();
    assert_eq!(first, [false, true], "10.3.0.0/16 is not ours");
    assert!(core.foreign.iter().all(|foreign| foreign.clear));
    assert_eq!(kernel.contents(), contents);
    // What is there at the start is told too, and what goes is forgotten.
    let again = ready(&kernel, &[ours], now);
    assert_eq!(again.foreign, core.foreign);
    kernel.carry_out(key([10, 2, 3, 0], 24).delete()).unwrap();
    core.look_for_foreign();
    assert_eq!(core.foreign.len(), 1);
}

/// On the kernel of this machine, which needs XFRM for it, but no ESP.
#[test]
fn a_real_kernel_keeps_policies_as_they_were_set() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces need root");
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let told = netns.run(|| {
        let kernel = match Socket::open() {
            Ok(kernel) => kernel,
            Err(error) => {
                println!("skipped: this kernel has no XFRM: {error}");
                return;
            }
        };
        let settings = HostSettings::for_tests();
        let six = Policy {
            mode: Mode::Transport,
            ..policy("six", "fd09::1[tcp/27017]", "fd09::2[tcp]")
        };
        let blocked = Policy {
            trap: false,
            ..policy("blocked", "10.1.0.0/16", "10.3.0.0/16")
        };
        let all = vec![net(), six, blocked];
        let fake = Fake::default();
        ready(&fake, &all, Instant::now());
        let mut core = Core::new(kernel, settings.clone()).unwrap();
        // One of them later, which is no other than the rest.
        core.set_policies(all[..2].to_vec(), Instant::now())
            .unwrap();
        assert!(core.add_policies(&all[2..]).unwrap());
        let listed = core.kernel.policies().unwrap();
        let listed: BTreeMap<_, _> = listed.iter().map(|p| (p.key, p.rule)).collect();
        assert_eq!(listed, fake.policies());
        assert!(protects(&settings).unwrap());
        assert_eq!(core.kernel.states().unwrap(), []);
        let nobody = StateId {
            destination: IpAddr::from([192, 0, 2, 1]),
            spi: 0x1000,
        };
        let refusal = core.kernel.state(nobody).unwrap_err();
        assert!(refusal.gone(), "{refusal}");
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let removed = runtime.block_on(purge(&settings)).unwrap();
        assert_eq!((removed.policies, removed.states), (listed.len(), 0));
        assert!(!protects(&settings).unwrap());
    });
    told.unwrap();
}
