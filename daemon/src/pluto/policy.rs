//! Lifetimes, and what else is negotiated or kept up: the keywords of a connection as a whole.

use std::time::Duration;

use super::conn::{Reader, clamp};
use super::merge::Problem;
use super::values;
use crate::dataplane::Cleartext;

/// What a connection says beside its ends and algorithms.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// Hard life of the IKE SA.
    pub(crate) ike_life: Duration,
    /// Hard life of a Child SA.
    pub(crate) child_life: Duration,
    /// How long before the end a rekey begins, at the latest.
    pub(crate) margin: Duration,
    /// How much earlier it may begin, in percent of the margin.
    pub(crate) fuzz: u32,
    /// Whether this host rekeys at all.
    pub(crate) rekey: bool,
    /// Prove identities anew in place of a rekey of the IKE SA.
    pub(crate) reauth: bool,
    /// Soft limits of a Child SA.
    pub(crate) bytes: Option<u64>,
    /// See `bytes`.
    pub(crate) packets: Option<u64>,
    /// Key exchange for Child SAs of their own.
    pub(crate) pfs: bool,
    /// Extended sequence numbers: `true` and `false` in order of preference.
    pub(crate) esn: Vec<bool>,
    /// How long a peer may be silent before it is asked; zero: for ever.
    pub(crate) dpd_delay: Duration,
    /// What is done about a dead peer, if it is said.
    pub(crate) dpd_action: Option<DpdAction>,
    /// Attempts; zero: without end.
    pub(crate) keying_tries: u32,
    /// ESP in UDP: always, never, or where there is a NAT.
    pub(crate) encapsulation: Encapsulation,
    /// Say INITIAL_CONTACT.
    pub(crate) initial_contact: bool,
    /// Take fragments, and send them.
    pub(crate) fragmentation: bool,
    /// Move to other addresses.
    pub(crate) mobike: bool,
    /// Accept less than the selectors of the connection.
    pub(crate) narrowing: bool,
    /// MTU of what goes into the tunnel; 0: found out.
    pub(crate) mtu: u32,
    /// Replay window in packets; 0: off.
    pub(crate) replay_window: u32,
    /// When packets pass in clear while there is no SA.
    pub(crate) cleartext: Cleartext,
}

/// What is done about a dead peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DpdAction {
    /// Its SAs go.
    Clear,
    /// The next packet begins anew.
    Hold,
    /// It is tried again at once.
    Restart,
}

/// When ESP goes in UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encapsulation {
    /// Where there is a NAT.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// pluto's own limits.
const DEFAULT_LIFE: Duration = Duration::from_secs(8 * 3600);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_MARGIN: Duration = Duration::from_secs(9 * 60);

/// Reads all of them.
pub(crate) fn read(reader: &mut Reader<'_>) -> Policy {
    let margin = time(reader, "rekeymargin").unwrap_or(DEFAULT_MARGIN);
    let fuzz = reader.value("rekeyfuzz", values::percent);
    let fuzz = fuzz.map_or(100, |fuzz| fuzz.value);
    Policy {
        ike_life: life(reader, "ikelifetime", margin, fuzz),
        child_life: life(reader, "ipsec-lifetime", margin, fuzz),
        margin,
        fuzz,
        rekey: reader.flag("rekey").unwrap_or(true),
        reauth: reader.flag("reauth").unwrap_or(false),
        bytes: limit(reader, "ipsec-max-bytes", "B"),
        packets: limit(reader, "ipsec-max-packets", ""),
        pfs: reader.flag("pfs").unwrap_or(true),
        esn: esn(reader),
        dpd_delay: time(reader, "dpddelay").unwrap_or_default(),
        dpd_action: dpd_action(reader),
        keying_tries: keying_tries(reader),
        encapsulation: encapsulation(reader),
        initial_contact: reader.flag("initial-contact").unwrap_or(false),
        fragmentation: fragmentation(reader),
        mobike: reader.flag("mobike").unwrap_or(false),
        narrowing: reader.flag("narrowing").unwrap_or(false),
        mtu: number(reader, "mtu").unwrap_or(0),
        replay_window: number(reader, "replay-window").unwrap_or(128),
        cleartext: cleartext(reader),
    }
}

fn time(reader: &mut Reader<'_>, word: &'static str) -> Option<Duration> {
    let found = reader.value(word, |text| values::duration(text, 1.0));
    found.map(|time| time.value)
}

fn number(reader: &mut Reader<'_>, word: &'static str) -> Option<u32> {
    let found = reader.value(word, |text| {
        text.parse().map_err(|_| "write a number".to_owned())
    });
    found.map(|number| number.value)
}

/// A life is a day at most, and leaves time for a rekey.
fn life(reader: &mut Reader<'_>, word: &'static str, margin: Duration, fuzz: u32) -> Duration {
    let Some(found) = reader.value(word, |text| values::duration(text, 1.0)) else {
        return DEFAULT_LIFE;
    };
    let least = margin + margin * fuzz / 100;
    let (time, clamped) = clamp(found.value, LONGEST_LIFE);
    let time = match time.is_zero() {
        true => DEFAULT_LIFE,
        false => time,
    };
    let result = time.max(least + Duration::from_secs(1));
    if clamped || result != time {
        let message = format!("{word} is taken as {} s, as pluto does", result.as_secs());
        let fix = "a day is the longest, and it must be beyond rekeymargin with its rekeyfuzz";
        reader
            .notices
            .push(Problem::new(&found.place, message, fix));
    }
    result
}

fn limit(reader: &mut Reader<'_>, word: &'static str, unit: &str) -> Option<u64> {
    let found = reader.value(word, |text| values::amount(text, unit))?;
    // pluto's default, which is no limit.
    (found.value > 0 && found.value < 1 << 63).then_some(found.value)
}

fn esn(reader: &mut Reader<'_>) -> Vec<bool> {
    const WORDS: &[(&str, &[bool])] = &[
        ("either", &[true, false]),
        ("yes", &[true]),
        ("no", &[false]),
    ];
    let found = reader.word("esn", WORDS);
    found.map_or(&[true, false][..], |esn| esn.value).to_vec()
}

fn dpd_action(reader: &mut Reader<'_>) -> Option<DpdAction> {
    const WORDS: &[(&str, DpdAction)] = &[
        ("hold", DpdAction::Hold),
        ("clear", DpdAction::Clear),
        ("restart", DpdAction::Restart),
        ("restart_by_peer", DpdAction::Restart),
    ];
    reader.word("dpdaction", WORDS).map(|action| action.value)
}

/// What packets do before a negotiation has failed, and after that.
fn cleartext(reader: &mut Reader<'_>) -> Cleartext {
    let negotiating = shunt(
        reader,
        "negotiationshunt",
        "while there is no SA, until a negotiation fails",
        &[],
    );
    let failed = shunt(
        reader,
        "failureshunt",
        "after a negotiation failed, until there is an SA",
        &["none"],
    );
    match (negotiating, failed) {
        (true, true) => Cleartext::WithoutSa,
        (true, false) => Cleartext::WhileNegotiating,
        (false, true) => Cleartext::AfterFailure,
        (false, false) => Cleartext::Never,
    }
}

/// Whether packets pass in clear at such a time, which is said.
fn shunt(
    reader: &mut Reader<'_>,
    word: &'static str,
    when: &str,
    more: &'static [&'static str],
) -> bool {
    let found = reader.value(word, |text| match text.to_ascii_lowercase().as_str() {
        "passthrough" | "pass" => Ok(true),
        "drop" | "hold" | "reject" => Ok(false),
        other if more.contains(&other) => Ok(false),
        _ => Err("write drop, or passthrough for packets in clear".to_owned()),
    });
    let Some(found) = found.filter(|found| found.value) else {
        return false;
    };
    let message = match word {
        "failureshunt" => "cleartext on failure",
        _ => "cleartext while negotiating",
    };
    let message = format!(
        "{message}: packets of this connection pass in clear, {when}; whoever keeps the hosts from negotiating can read and forge them"
    );
    let fix = format!("write {word}=drop, or remove the line, and they are dropped");
    reader
        .notices
        .push(Problem::new(&found.place, message, fix));
    true
}

fn keying_tries(reader: &mut Reader<'_>) -> u32 {
    let found = reader.value("keyingtries", |text| match text {
        "%forever" => Ok(0),
        text => text
            .parse()
            .map_err(|_| "write a number or %forever".to_owned()),
    });
    found.map_or(0, |tries| tries.value)
}

fn encapsulation(reader: &mut Reader<'_>) -> Encapsulation {
    let found = reader.value("encapsulation", |text| {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Encapsulation::Auto);
        }
        let former = match values::boolean(text) {
            Ok(true) => Encapsulation::Yes,
            Ok(false) => Encapsulation::No,
            Err(_) => return Err("write auto, yes or no".into()),
        };
        Ok(former)
    });
    let is_former = reader.flat.get(None, "encapsulation").is_some_and(|entry| {
        entry
            .written
            .value
            .to_ascii_lowercase()
            .starts_with("force")
    });
    match found.map(|found| found.value) {
        // forceencaps=no is what it always did without it.
        Some(Encapsulation::No) if is_former => Encapsulation::Auto,
        Some(found) => found,
        None => Encapsulation::Auto,
    }
}

fn fragmentation(reader: &mut Reader<'_>) -> bool {
    let found = reader.value("fragmentation", |text| match text {
        "force" => Ok(true),
        text => values::boolean(text).map_err(|_| "write yes, no or force".to_owned()),
    });
    found.is_none_or(|found| found.value)
}
