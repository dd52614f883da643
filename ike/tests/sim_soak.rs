//! Anything at any time, on a hostile network: when it is calm again, all is in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use obol_ike::event::{ChildSaId, Command};
use obol_ike::testing::net::Net;
use obol_ike::testing::pair::{End, Pair};
use obol_ike::testing::setup::{HOSTS, PODS, Setup};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

fn any_command(rng: &mut ChaCha20Rng, pair: &mut Pair, end: End) -> Command {
    let connection = HOSTS.to_owned();
    let child = PODS.to_owned();
    let installed: Vec<ChildSaId> = pair.node(end).plane.inbound.keys().copied().collect();
    let count = installed.len().max(1);
    let id = installed.get(rng.next_u32() as usize % count).copied();
    let id = id.unwrap_or(ChildSaId(1));
    match rng.next_u32() % 10 {
        0 | 1 => Command::RekeyChild { connection, child },
        2 | 3 => Command::RekeyIke { connection },
        4 => Command::Terminate {
            connection,
            child: rng.next_u32().is_multiple_of(2).then_some(child),
        },
        5 => Command::SoftExpired(id),
        6 => Command::HardExpired(id),
        7 => Command::InboundUsed(used(pair, end).unwrap_or(ChildSaId(0))),
        _ => Command::Initiate {
            connection,
            child: None,
            local: None,
        },
    }
}

/// An SA whose packets may have come, since the other end sends with it.
fn used(pair: &mut Pair, end: End) -> Option<ChildSaId> {
    let other = if end == End::A { End::B } else { End::A };
    let spi = pair.node(other).plane.spi_out(HOSTS, PODS)?;
    let inbound = &pair.node(end).plane.inbound;
    let (id, _) = inbound.iter().find(|(_, sa)| sa.info.spi_in == spi)?;
    Some(*id)
}

fn soak(seed: u64) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut setup = Setup::started(seed);
    setup.connection.dpd_delay = Some(Duration::from_secs(20));
    setup.net = Net::seeded(seed).hostile(rng.next_u32() % 500, rng.next_u32() % 300);
    let mut pair = setup.pair(seed);
    pair.start();
    for _ in 0..rng.next_u32() % 30 {
        let end = if rng.next_u32() % 2 == 0 {
            End::A
        } else {
            End::B
        };
        let command = any_command(&mut rng, &mut pair, end);
        // Not up, perhaps.
        let _ = pair.command(end, command);
        if rng.next_u32() % 10 == 0 {
            pair.node(end).plane.fail_inbound = 1;
        }
        pair.run_for(Duration::from_millis(u64::from(rng.next_u32() % 3000)));
    }
    let (a, b) = (&mut pair.a.plane, &mut pair.b.plane);
    (a.fail_inbound, b.fail_inbound) = (0, 0);
    (pair.net.loss, pair.net.duplicated) = (0, 0);
    pair.run_for(Duration::from_secs(600));
    pair.run_until_idle();
    pair.initiate(End::A, HOSTS);
    pair.run_for(Duration::from_secs(100));
    pair.run_until_idle();
    pair.assert_up(1);
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long a soak lasts is for who runs it to say"
)]
fn whatever_happens_order_returns() {
    let seeds = std::env::var("OBOL_SEEDS").ok();
    let seeds = seeds.and_then(|text| text.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        let result = catch_unwind(AssertUnwindSafe(|| soak(seed)));
        assert!(result.is_ok(), "seed {seed}");
    }
}
