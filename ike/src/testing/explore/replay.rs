//! Schedules as text: written when something is wrong, and followed by whoever looks for it.
//!
//! `A3` is the third message that A sent that was not one before. Moves: `1` and `2` begin an
//! operation, `A3` arrives, `A3-` is lost, `A3+` will arrive twice, `t` is the next timer, `a!`
//! is the data plane of A that answers, `a*7` its first packet on Child SA 7; a `~` at the end
//! says that the data plane takes its time.

use super::local::Mail;
use super::state::{Move, State, World};
use super::{Limits, check, seconds};
use crate::event::ChildSaId;
use crate::wire::Header;

const ANYTHING: Limits = Limits {
    lost: u32::MAX,
    repeated: u32::MAX,
    late: u32::MAX,
    early: u32::MAX,
    mishaps: u32::MAX,
    states: 0,
};

/// The text of a schedule.
pub(super) fn write(world: &mut World, moves: &[Move]) -> String {
    let mut state = world.first();
    let mut words = Vec::new();
    for choice in moves {
        words.push(word(world, &state, *choice));
        state = world.after(&state, *choice);
    }
    words.join(" ")
}

/// What happens in a schedule, and in what order would be well if it ended there.
pub(super) fn narrate(world: &mut World, schedule: &str) -> Result<Vec<String>, String> {
    let mut state = world.first();
    let mut lines = Vec::new();
    for wanted in schedule.split_whitespace() {
        let moves = world.moves(&state, &ANYTHING);
        let choice = moves
            .iter()
            .find(|choice| word(world, &state, **choice) == wanted);
        let Some(choice) = choice else {
            let possible = moves.iter().map(|choice| word(world, &state, *choice));
            let possible: Vec<String> = possible.collect();
            return Err(format!("no {wanted}; there is {}", possible.join(" ")));
        };
        let next = world.after(&state, *choice);
        lines.push(told(world, &state, *choice, &next));
        if let Err(wrong) = check::always(world, &next) {
            lines.push(format!("  WRONG: {wrong}"));
        }
        state = next;
    }
    let limits = Limits {
        mishaps: 0,
        ..ANYTHING
    };
    if world.moves(&state, &limits).is_empty() {
        lines.push(match check::at_rest(world, &state) {
            Ok(()) => "at rest, and all is well".to_owned(),
            Err(wrong) => format!("  WRONG: {wrong}"),
        });
    }
    Ok(lines)
}

fn end_name(end: u8) -> char {
    if end == 0 { 'A' } else { 'B' }
}

fn mail_name(world: &World, state: &State, from: u8, mail: Mail) -> String {
    let mut distinct = Vec::new();
    for sent in world.sent(state, from.into()) {
        if !distinct.contains(&sent) {
            distinct.push(sent);
        }
    }
    let number = distinct.iter().position(|sent| *sent == mail);
    format!("{}{}", end_name(from), number.map_or(0, |n| n + 1))
}

fn word(world: &World, state: &State, choice: Move) -> String {
    let mark = |late: bool| if late { "~" } else { "" };
    let small = |end: u8| end_name(end).to_ascii_lowercase();
    match choice {
        Move::Begin { op, late } => format!("{}{}", op + 1, mark(late)),
        Move::Deliver { from, mail, late } => {
            format!("{}{}", mail_name(world, state, from, mail), mark(late))
        }
        Move::Lose { from, mail } => format!("{}-", mail_name(world, state, from, mail)),
        Move::Repeat { from, mail } => format!("{}+", mail_name(world, state, from, mail)),
        Move::Answer { end } => format!("{}!", small(end)),
        Move::Use {
            end,
            id: ChildSaId(id),
        } => format!("{}*{id}", small(end)),
        Move::Timer => "t".to_owned(),
    }
}

fn told(world: &World, state: &State, choice: Move, next: &State) -> String {
    let mut text = format!(
        "{:>10}  {:<5}",
        seconds(next.clock),
        word(world, state, choice)
    );
    if let Move::Begin { op, .. } = choice {
        let (end, op) = world.scenario.ops[usize::from(op)];
        text += &format!(" {op:?} at {end:?}");
    }
    if let Move::Deliver { mail, .. } = choice {
        text += &format!(" {}", summary(world.mails.octets(mail)));
    }
    for end in 0..2u8 {
        let which = usize::from(end);
        if state.ends[which] == next.ends[which] {
            continue;
        }
        let view = world.view(next, which);
        for mail in &view.sent {
            let name = mail_name(world, next, end, *mail);
            text += &format!(
                "\n{:>20} sends {name} {}",
                "",
                summary(world.mails.octets(*mail))
            );
        }
        for event in &view.events {
            text += &format!("\n{:>20} {} tells {event}", "", end_name(end));
        }
    }
    text
}

fn summary(octets: &[u8]) -> String {
    let Ok(header) = Header::parse(octets) else {
        return "no IKE message".to_owned();
    };
    format!(
        "{:?} {} {} of {:?}, {} octets",
        header.exchange,
        if header.flags.response {
            "reply"
        } else {
            "request"
        },
        header.message_id,
        header.spi_i,
        octets.len()
    )
}
