//! Devices that seal and open.

use super::fake::Taken;
use super::*;
use crate::dataplane::HwOffload;
use crate::host::xfrm::find_attribute;

fn wishing(hw_offload: HwOffload) -> Policy {
    Policy {
        kernel: KernelOptions {
            hw_offload,
            ..KernelOptions::default()
        },
        ..net()
    }
}

fn offloaded(kernel: &Fake) -> Vec<bool> {
    let states = kernel.states();
    states.iter().map(|state| state.offloaded).collect()
}

#[test]
fn a_device_gets_states_where_it_is_wished_for() {
    for (wish, taken, expected) in [
        (HwOffload::No, Taken::Yes, false),
        (HwOffload::Auto, Taken::Yes, true),
        (HwOffload::Auto, Taken::No, false),
        (HwOffload::Auto, Taken::Silent, false),
        (HwOffload::Crypto, Taken::Yes, true),
    ] {
        let kernel = Fake::default();
        kernel.device_takes(taken);
        let now = Instant::now();
        let mut core = ready(&kernel, &[wishing(wish)], now);
        up(&mut core, &info(1, &net()), now);
        assert_eq!(offloaded(&kernel), [expected; 2], "{wish:?} {taken:?}");
        if !expected {
            continue;
        }
        // In which direction the device works.
        let flags = |spi| {
            let states = kernel.contents().0;
            let (_, body) = states.iter().find(|(id, _)| id.spi == spi).unwrap();
            find_attribute(&body[224..], 28).unwrap()[..5].to_vec()
        };
        assert_eq!(flags(0x1001), [7, 0, 0, 0, 2]);
        assert_eq!(flags(0x2001), [7, 0, 0, 0, 0]);
    }
}

#[test]
fn a_device_that_must_take_an_sa_and_does_not_is_named() {
    for taken in [Taken::No, Taken::Silent] {
        let kernel = Fake::default();
        kernel.device_takes(taken);
        let now = Instant::now();
        let mut core = ready(&kernel, &[wishing(HwOffload::Crypto)], now);
        let before = kernel.contents();
        let sa = InboundSa {
            info: info(1, &net()),
            keys: keys(),
        };
        let error = core.add_inbound(&sa).unwrap_err().to_string();
        assert!(
            error.contains("the device eth7 does not take it"),
            "{error}"
        );
        assert_eq!(kernel.contents(), before);
    }
}

#[test]
fn what_moves_stays_with_a_device_if_the_new_one_takes_it() {
    for taken in [Taken::Yes, Taken::No] {
        let kernel = Fake::default();
        let now = Instant::now();
        let mut core = ready(&kernel, &[wishing(HwOffload::Crypto)], now);
        let sa = info(1, &net());
        up(&mut core, &sa, now);
        let outbound = StateId {
            destination: sa.path.remote.ip(),
            spi: 0x2001,
        };
        kernel.carry(outbound, 5000);
        kernel.device_takes(taken);
        let moved = MovedSa {
            id: sa.id,
            path: Path {
                local: SocketAddr::from(([192, 0, 2, 9], 500)),
                ..path("198.51.100.7:500")
            },
            encap: false,
            nat: false,
        };
        core.move_path(moved).unwrap();
        assert_eq!(offloaded(&kernel), [taken == Taken::Yes; 2]);
        // One packet could have many numbers: the old one sends none any more.
        assert!(kernel.limits_of_removed().contains(&5000));
    }
}
