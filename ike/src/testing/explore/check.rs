//! What must hold in every state, and what in those at rest.

use super::local::View;
use super::state::{State, World};
use super::{OTHER, Op, Scenario};
use crate::testing::setup::PODS;

/// In every state: nobody panicked; and where nothing is deleted, packets get through, both ways.
pub(super) fn always(world: &World, state: &State) -> Result<(), String> {
    for end in 0..2 {
        if let Some(panic) = &world.view(state, end).broken {
            return Err(format!("panic: {panic}"));
        }
    }
    let (a, b) = (world.view(state, 0), world.view(state, 1));
    let gap = [Op::DeleteChild, Op::DeleteIke, Op::FirstContact];
    if !gap.into_iter().any(|op| world.scenario.has(op)) {
        passes(a, b, PODS).map_err(|why| format!("no way from A to B: {why}"))?;
        passes(b, a, PODS).map_err(|why| format!("no way from B to A: {why}"))?;
    }
    Ok(())
}

/// Whether a packet that one end sends is accepted by the other.
fn passes(from: &View, to: &View, child: &str) -> Result<(), String> {
    let out = from.current.get(child).ok_or("no SA to send with")?;
    if to.inbound.iter().any(|(_, into)| into == out) {
        return Ok(());
    }
    Err(format!("packets with SPI {:08x} are not accepted", out.spi))
}

/// When nothing happens any more: both ends have the same, nothing is under way, and what is to
/// be up is up and nothing else.
pub(super) fn at_rest(world: &World, state: &State) -> Result<(), String> {
    let (a, b) = (world.view(state, 0), world.view(state, 1));
    for (name, view) in [("A", a), ("B", b)] {
        if !view.unrest.is_empty() {
            return Err(format!("at rest, {name} {}", view.unrest.join("; ")));
        }
    }
    if a.ikes != b.ikes {
        return Err(format!(
            "different IKE SAs: A has {:x?}, B has {:x?}",
            a.ikes, b.ikes
        ));
    }
    if a.ikes.len() > 1 {
        return Err(format!("{} IKE SAs", a.ikes.len()));
    }
    for (from, to) in [(a, b), (b, a)] {
        let accepted = |out| to.inbound.iter().any(|(_, into)| into == out);
        if let Some(out) = from.outbound.iter().find(|out| !accepted(*out)) {
            return Err(format!("SPI {:08x} is not known at the other end", out.spi));
        }
    }
    expected(&world.scenario, a)
}

fn expected(scenario: &Scenario, view: &View) -> Result<(), String> {
    let ike = !view.ikes.is_empty();
    let pods = view.current.contains_key(PODS);
    let other = view.current.contains_key(OTHER);
    let creates = scenario.has(Op::CreateChild);
    let begins = scenario.has(Op::FirstContact);
    let want = match (scenario.has(Op::DeleteIke), scenario.has(Op::DeleteChild)) {
        // Which of the two came last decides; and who has not heard of the delete when a new IKE
        // SA is there makes its children there, too.
        (true, _) | (_, true) if begins => return Ok(()),
        (true, _) if creates => return Ok(()),
        (true, _) => [false, false, false],
        (_, true) => [true, false, creates],
        // What was asked for on the IKE SA that the restarted host forgot is lost with it.
        _ if begins => [true, true, other],
        _ => [true, true, creates],
    };
    let have = [ike, pods, other];
    let names = ["the IKE SA", PODS, OTHER];
    for ((want, have), name) in want.into_iter().zip(have).zip(names) {
        need(want || !have, &format!("{name} is up and should not be"))?;
        need(have || !want, &format!("{name} is down and should not be"))?;
    }
    Ok(())
}

fn need(holds: bool, else_what: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| else_what.to_owned())
}
