//! The table `[connections.NAME.generate]`: what a peer may ask for that no child is about.

use std::collections::BTreeMap;

use obol_ike::config::{Child, Generate, Mode, SpiHalf, StartAction, Upkeep};
use obol_ike::ts::TrafficSelector;

use super::child;
use super::connection::ReadConnection;
use super::finding::{Located, Place, Report};
use super::proposals::Proposals;
use super::reader::{Section, shorten};
use super::values;
use crate::dataplane::{Cleartext, Policy};

/// How strict policies are that are made for a peer: setkey's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// Packets pass in clear without SA, and those to this host always.
    Use,
    /// They are dropped.
    Require,
    /// The same, as each has SAs of its own.
    Unique,
}

impl Level {
    const ALL: [Self; 3] = [Self::Use, Self::Require, Self::Unique];

    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Require => "require",
            Self::Unique => "unique",
        }
    }

    /// Which packets pass in clear.
    pub(crate) fn cleartext(self) -> Cleartext {
        match self {
            Self::Use => Cleartext::Opportunistic,
            Self::Require | Self::Unique => Cleartext::Never,
        }
    }
}

/// What was written, and where.
pub(super) struct ReadGenerate {
    level: Level,
    pub(super) like: Child,
    /// Packets that nobody gets so, beside those that policies are about.
    except: Vec<Sides>,
    place: Place,
}

/// This host's side of packets, and the other one.
type Sides = (Vec<TrafficSelector>, Vec<TrafficSelector>);

/// Reads the table: `None` if it is wrong, `Some(None)` if it is not there.
pub(super) fn read(
    report: &Report<'_>,
    proposals: &Proposals,
    connection: &Located<&str>,
    outer: &Section<'_>,
) -> Option<Option<ReadGenerate>> {
    let Some(section) = outer.section("generate") else {
        return (!outer.has("generate")).then_some(None);
    };
    let level = read_level(report, &section);
    let esp_proposals = proposals.of_esp(report, &section);
    let inactivity = section.quantity("inactivity", values::duration);
    let lifetimes = child::read_lifetimes(report, connection, &section);
    let except = read_except(report, &section);
    let place = section.place.clone();
    section.finish();
    let lifetimes = lifetimes?;
    let like = Child {
        name: Generate::MARK.to_owned(),
        mode: Mode::Transport,
        local_ts: Vec::new(),
        remote_ts: Vec::new(),
        esp_proposals: esp_proposals?,
        start_action: StartAction::None,
        upkeep: Upkeep {
            inactivity: inactivity
                .map(|time| time.value)
                .filter(|time| !time.is_zero()),
            ..Upkeep::default()
        },
        rekey_time: lifetimes.time.0,
        life_time: lifetimes.time.1,
        rekey_bytes: lifetimes.bytes.0,
        life_bytes: lifetimes.bytes.1,
        rekey_packets: lifetimes.packets.0,
        life_packets: lifetimes.packets.1,
        queues: 1,
        spi_half: SpiHalf::default(),
    };
    Some(Some(ReadGenerate {
        level: level?,
        like,
        except: except?,
        place,
    }))
}

/// Pairs `LOCAL=REMOTE`; `None`: one of them is wrong.
fn read_except(report: &Report<'_>, section: &Section<'_>) -> Option<Vec<Sides>> {
    let mut pairs = Vec::new();
    for text in section.strings("except").unwrap_or_default() {
        let sides = text.value.split_once('=').and_then(|(local, remote)| {
            let parse = |text: &str| text.trim().parse::<TrafficSelector>().ok();
            Some((vec![parse(local)?], vec![parse(remote)?]))
        });
        let Some(sides) = sides else {
            let message = format!("\"{}\" is no pair of selectors", shorten(text.value));
            let fix =
                "write this host's side and the other one: \"10.0.0.0/16[tcp/22]=0.0.0.0/0[tcp]\"";
            report.error(&text.place, message, fix);
            return None;
        };
        pairs.push(sides);
    }
    Some(pairs)
}

fn read_level(report: &Report<'_>, section: &Section<'_>) -> Option<Level> {
    let Some(text) = section.string("level") else {
        return (!section.has("level")).then_some(Level::Require);
    };
    let found = Level::ALL
        .into_iter()
        .find(|level| level.word() == text.value);
    if found.is_none() {
        let message = format!(
            "level = \"{}\" is none that obol knows",
            shorten(text.value)
        );
        let fix = "write \"require\" (through ESP or not at all), \"unique\" (the same) or \"use\" (in clear where there is no SA)";
        report.error(&text.place, message, fix);
    }
    found
}

/// What does not go with it, and which packets pass in clear; nothing is said of those from the source
/// `foreign`, of which that was said where they were written.
pub(super) fn check(report: &Report<'_>, connections: &[ReadConnection], foreign: Option<usize>) {
    for connection in connections {
        let Some(generate) = &connection.generate else {
            continue;
        };
        let name = &connection.config.name;
        if connection.config.mobike.enabled {
            report.error(
                &generate.place,
                format!("connection {name}: with generate, packets are those of the peer's address, and mobike lets it change"),
                "add mobike = false to the connection",
            );
        }
        if generate.level == Level::Use && foreign != Some(generate.place.source) {
            report.warn(
                &generate.place,
                format!("{name}: opportunistic, cleartext allowed: what a peer asks for is protected while there is an SA, and passes in clear else"),
                "write level = \"require\"",
            );
        }
    }
}

/// How strict it is in each connection that has it.
pub(super) fn levels(connections: &[ReadConnection]) -> BTreeMap<String, Level> {
    let levels = connections.iter().filter_map(|connection| {
        let generate = connection.generate.as_ref()?;
        Some((connection.config.name.clone(), generate.level))
    });
    levels.collect()
}

/// Says in each connection that has it what peers cannot have: packets of these policies.
pub(super) fn settle(connections: &mut [ReadConnection], policies: &[Policy]) {
    // Most have none, or one.
    for connection in connections {
        let Some(generate) = &connection.generate else {
            continue;
        };
        let sides = policies.iter();
        let sides = sides.map(|policy| (policy.local_ts.clone(), policy.remote_ts.clone()));
        connection.config.generate = Some(Generate {
            like: generate.like.clone(),
            except: sides.chain(generate.except.iter().cloned()).collect(),
        });
    }
}
