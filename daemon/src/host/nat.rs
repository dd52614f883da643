//! A NAT as routers and Docker have it, for the labs of the demo and the tests.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::nft::{Batch, Hook, HookNumber, Rule};

/// Loads a table that gives packets from these addresses the one of the device by which they
/// leave, in the network namespace of the calling thread; in place of an earlier one.
///
/// # Errors
/// The kernel refuses.
pub fn masquerade(first: IpAddr, last: IpAddr) -> io::Result<()> {
    let mut batch = Batch::replacing("docker");
    let hook = Hook {
        kind: "nat",
        hook: HookNumber::Postrouting,
        priority: 100,
    };
    batch.chain("masquerade", Some(hook));
    let rule = Rule::default().family(first.is_ipv4());
    batch.rule("masquerade", &rule.address(true, first, last).masquerade());
    batch.commit()
}

/// Loads a table that has what comes to this address go to another one, as a published port of Docker does, in
/// the network namespace of the calling thread; in place of an earlier one.
///
/// # Errors
/// The kernel refuses.
pub fn publish(own: Ipv4Addr, inside: Ipv4Addr) -> io::Result<()> {
    let mut batch = Batch::replacing("docker");
    let hook = Hook {
        kind: "nat",
        hook: HookNumber::Prerouting,
        priority: -100,
    };
    batch.chain("publish", Some(hook));
    let rule = Rule::default().family(true);
    let to_us = rule.address(false, own.into(), own.into());
    batch.rule("publish", &to_us.redirect(inside));
    batch.commit()
}
