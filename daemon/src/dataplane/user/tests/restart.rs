//! What stays when the data plane goes, and what the next one makes of it.

use super::super::upkeep::{Task, Upkeep};
use super::*;
use crate::host::Carrier;
use std::time::Instant;

impl Host {
    /// The process is killed: nothing is cleaned up. What is left of the host.
    fn kill(self) -> (Netns, [IpAddr; 2]) {
        drop(self.plane);
        (self.netns, [self.address, self.subnet])
    }

    fn again((netns, [address, subnet]): (Netns, [IpAddr; 2])) -> Self {
        Self::new(netns, &address.to_string(), &subnet.to_string(), 1)
    }
}

/// Whether a datagram gets through.
fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    to.set_read_timeout(Some(SECOND / 5)).unwrap();
    let arrived = passes(from, to);
    to.set_read_timeout(Some(5 * SECOND)).unwrap();
    arrived
}

#[test]
fn a_killed_data_plane_leaves_no_gap_and_the_next_one_takes_over() {
    if skipped() {
        return;
    }
    for child in [TUNNEL, TRANSPORT] {
        let (mut a, mut b) = hosts(true);
        child.protect(&mut a, &mut b);
        child.install(&mut a, &mut b);
        let at_a = a.socket(child.selector(&a, true).start, 8472);
        let at_b = b.socket(child.selector(&b, false).start, 40_000);
        exchange(&at_a, &at_b, b"before");
        let left = a.kill();
        assert!(
            !arrives(&at_a, &at_b),
            "nothing leaves without a data plane"
        );
        let mut a = Host::again(left);
        assert!(!arrives(&at_a, &at_b), "nor with one that has no policies");
        a.policies(vec![child.policy(&a, &b, true)]).unwrap();
        assert!(!arrives(&at_a, &at_b), "nor without an SA");
        let again = Child { id: 2, ..child };
        again.install(&mut a, &mut b);
        let mut kept = [0; 64];
        let (len, _) = at_b
            .recv_from(&mut kept)
            .expect("the last of them was kept");
        assert_eq!(&kept[..len], b"in clear");
        exchange(&at_a, &at_b, b"after");
        exchange(&at_b, &at_a, b"and back");
    }
}

#[test]
fn a_tun_device_that_was_deleted_comes_back() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    TUNNEL.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
    exchange(&at_a, &at_b, b"before");
    let tun = HostSettings::for_tests().tun;
    let deleted = a.netns.configure(async |links| links.delete(&tun).await);
    deleted.unwrap();
    assert!(!arrives(&at_a, &at_b), "nothing leaves without the device");
    eventually("packets pass again", || {
        let (netns, plane) = (&a.netns, &mut a.plane);
        // Whoever waits for events also has the device made anew.
        let wait = async || {
            let event = tokio::time::timeout(SECOND / 5, plane.next_event()).await;
            if let Ok(DataPlaneEvent::Maintain) = event {
                plane.maintain().await;
            }
        };
        netns.block_on(wait).unwrap();
        arrives(&at_a, &at_b).then_some(())
    });
    exchange(&at_b, &at_a, b"after");
}

#[test]
fn a_tun_device_that_was_set_down_and_routes_that_were_flushed_come_back() {
    if skipped() {
        return;
    }
    let settings = HostSettings::for_tests();
    for v4 in [true, false] {
        let (mut a, mut b) = hosts(v4);
        TUNNEL.protect(&mut a, &mut b);
        TUNNEL.install(&mut a, &mut b);
        let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
        exchange(&at_a, &at_b, b"before");
        for taken in ["down", "down, and up again", "routes"] {
            let (netns, plane) = (&a.netns, &mut a.plane);
            let take = async |links: &crate::host::links::Links| {
                if taken == "routes" {
                    let removed = crate::host::remove_routes(&settings).await;
                    assert!(removed.unwrap() > 0);
                    return Ok(());
                }
                links.down(&settings.tun).await?;
                match taken {
                    "down" => Ok(()),
                    _ => links.up(&settings.tun).await,
                }
            };
            let lose_and_heal = async || {
                // It watches as long as the runtime lives that it was made in.
                plane.upkeep = Upkeep::new(&settings).unwrap();
                netns.configure(take).unwrap();
                assert!(!arrives(&at_a, &at_b), "{taken}: nothing leaves");
                let noticed = async { while plane.upkeep.due().await != Task::Apply {} };
                let noticed = tokio::time::timeout(5 * SECOND, noticed).await;
                noticed.expect("it is noticed");
                plane.see_to(Task::Apply).await;
            };
            netns.block_on(lose_and_heal).unwrap();
            exchange(&at_a, &at_b, b"after");
            exchange(&at_b, &at_a, b"and back");
        }
    }
}

#[test]
fn rules_and_addresses_that_others_change_are_put_right() {
    if skipped() {
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let own = ip("172.16.1.1");
    let lab = async |links: &crate::host::links::Links| links.address("lo", own, 32).await;
    netns.configure(lab).unwrap();
    let all = async || {
        let settings = HostSettings::for_tests();
        let ports = Ports::open(&settings).unwrap();
        let mut plane = UserDataPlane::new(settings.clone(), &ports, 1, false)
            .await
            .unwrap();
        let policy = Policy {
            connection: "hosts".into(),
            child: "child".into(),
            mode: Mode::Tunnel,
            local_ts: vec![ts(own, 0, ANY)],
            remote_ts: vec![ts(ip("172.16.2.1"), 0, ANY)],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        };
        plane.set_policies(vec![policy]).await.unwrap();
        let source = || crate::host::source_for(ip("172.16.2.1"), 0);
        assert_eq!(source().unwrap(), own);

        crate::host::remove_rules(&settings).await.unwrap();
        assert!(source().is_err());
        let mut heal = async |healed: &dyn Fn() -> bool| {
            let deadline = Instant::now() + 5 * SECOND;
            while !healed() {
                assert!(Instant::now() < deadline, "nobody sees to it");
                let task = plane.upkeep.due().await;
                plane.see_to(task).await;
            }
        };
        heal(&|| source().is_ok()).await;
        assert_eq!(source().unwrap(), own);

        crate::host::remove_guard(&settings, Carrier::Tun).unwrap();
        let blocked = || crate::host::blocked(&settings, Carrier::Tun).unwrap();
        assert_eq!(blocked(), None);
        heal(&|| blocked().is_some()).await;
    };
    netns.block_on(all).unwrap();
}

#[test]
fn teardown_lifts_protection_only_if_told_to() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    let (at_a, at_b) = (a.socket(a.address, 8472), b.socket(b.address, 40_000));
    TRANSPORT.protect(&mut a, &mut b);
    let Host { netns, plane, .. } = a;
    netns
        .block_on(async || plane.teardown(true).await.unwrap())
        .unwrap();
    assert!(!arrives(&at_a, &at_b), "protection is kept");
    let mut a = Host::again((netns, [ip("192.0.2.1"), ip("172.16.1.1")]));
    TRANSPORT.protect(&mut a, &mut b);
    for Host { netns, plane, .. } in [a, b] {
        netns
            .block_on(async || plane.teardown(false).await.unwrap())
            .unwrap();
    }
    assert!(arrives(&at_a, &at_b), "protection is lifted");
}

#[test]
fn a_second_data_plane_of_the_same_name_is_refused() {
    if skipped() {
        return;
    }
    let (a, _b) = hosts(true);
    let second = a.netns.block_on(async || {
        let settings = HostSettings {
            port: 1500,
            natt_port: 14500,
            ..HostSettings::for_tests()
        };
        let ports = Ports::open(&settings).unwrap();
        UserDataPlane::new(settings, &ports, 1, false)
            .await
            .map(|_| ())
    });
    let error = second.unwrap().unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn policies_that_cannot_be_set_leave_those_before_in_force() {
    if skipped() {
        return;
    }
    let (mut a, mut b) = hosts(true);
    TUNNEL.protect(&mut a, &mut b);
    TUNNEL.install(&mut a, &mut b);
    let (at_a, at_b) = (a.socket(a.subnet, 7000), b.socket(b.subnet, 7000));
    exchange(&at_a, &at_b, b"before");
    let wide = |last: &str| TrafficSelector {
        end: ip(last),
        ..ts(ip("0.0.0.1"), 6, (1, 1))
    };
    let mut too_much = TUNNEL.policy(&a, &b, true);
    too_much.child = "too-much".to_owned();
    too_much.local_ts = ["254", "253", "252", "251", "250"]
        .map(|last| wide(&format!("255.255.255.{last}")))
        .to_vec();
    too_much.remote_ts = too_much.local_ts.clone();
    // One destination more, so that no rule stands for several.
    too_much.local_ts.push(ts(ip("0.0.0.1"), 17, ANY));
    too_much.remote_ts.push(ts(ip("0.0.0.0"), 17, ANY));
    a.policies(vec![too_much]).unwrap_err();
    exchange(&at_a, &at_b, b"after");
}

#[test]
fn who_waits_for_something_else_does_not_interrupt_repairs() {
    if skipped() {
        return;
    }
    let netns = Netns::anonymous().unwrap();
    let all = async || {
        let settings = HostSettings::for_tests();
        let ports = Ports::open(&settings).unwrap();
        let mut plane = UserDataPlane::new(settings.clone(), &ports, 1, false)
            .await
            .unwrap();
        let policy = Policy {
            connection: "hosts".into(),
            child: "child".into(),
            mode: Mode::Tunnel,
            local_ts: vec![ts(ip("172.16.1.1"), 0, ANY)],
            remote_ts: vec![ts(ip("172.16.2.1"), 0, ANY)],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: crate::dataplane::KernelOptions::default(),
        };
        plane.set_policies(vec![policy]).await.unwrap();
        crate::host::remove_rules(&settings).await.unwrap();
        let deadline = Instant::now() + 5 * SECOND;
        // Something comes in every millisecond.
        loop {
            assert!(Instant::now() < deadline, "never said");
            let event = tokio::time::timeout(SECOND / 1000, plane.next_event()).await;
            if let Ok(DataPlaneEvent::Maintain) = event {
                break plane.maintain().await;
            }
        }
        assert!(crate::host::remove_rules(&settings).await.unwrap() > 0);
    };
    netns.block_on(all).unwrap();
}
