//! What obol refuses, since to leave it out would protect less than was asked for, or something
//! else; and words whose value decides whether they matter.

use super::conn::Reader;
use super::keyword::Side;
use super::merge::Problem;
use super::values;
use crate::config::shorten;

/// Values with which a keyword asks for nothing.
#[derive(Clone, Copy)]
enum Harmless {
    /// `no` and its synonyms.
    No,
    /// These words.
    Words(&'static [&'static str]),
    /// None: it always asks for something.
    None,
}

struct Refusal {
    word: &'static str,
    of_end: bool,
    harmless: Harmless,
    why: &'static str,
}

const fn refusal(word: &'static str, harmless: Harmless, why: &'static str) -> Refusal {
    Refusal {
        word,
        of_end: false,
        harmless,
        why,
    }
}

const fn of_end(word: &'static str, harmless: Harmless, why: &'static str) -> Refusal {
    Refusal {
        word,
        of_end: true,
        harmless,
        why,
    }
}

use Harmless::{No, None as Always, Words};

const VTI: &str = "obol makes no VTI device";
const CP: &str = "obol assigns no inner addresses yet";
const MARK: &str = "obol has no marks here: all packets of the selectors would be meant";

const REFUSALS: &[Refusal] = &[
    refusal(
        "keyexchange",
        Words(&["ikev2", "ike"]),
        "obol speaks IKEv2 only; set keyexchange=ikev2 on both ends",
    ),
    refusal(
        "ikev2",
        Words(&["yes", "insist", "always", "propose", "permit"]),
        "obol speaks IKEv2 only; set ikev2=insist on both ends",
    ),
    refusal(
        "phase2",
        Words(&["esp"]),
        "obol has no AH, and ESP is not what was asked for",
    ),
    refusal("ah", Always, "obol has no AH; write esp="),
    refusal(
        "aggressive",
        No,
        "it was for IKEv1, and obol speaks IKEv2 only",
    ),
    refusal(
        "sha2-truncbug",
        No,
        "it changes what is on the wire, for peers that are long mended",
    ),
    refusal(
        "enable-tcp",
        Words(&["no", "fallback"]),
        "obol does not carry IKE over TCP",
    ),
    refusal(
        "send-redirect",
        No,
        "obol redirects as redirect_to in obol.toml says",
    ),
    refusal(
        "sec-label",
        Always,
        "obol has no labels: all packets of the selectors would be meant",
    ),
    refusal("iptfs", No, "obol has no IP-TFS"),
    refusal(
        "clones",
        Words(&["0"]),
        "obol makes several SAs as queues in obol.toml says",
    ),
    refusal("mark", Always, MARK),
    refusal("mark-in", Always, MARK),
    refusal("mark-out", Always, MARK),
    refusal(
        "ipsec-interface",
        No,
        "obol makes no interface for single connections yet",
    ),
    refusal("vti-interface", Always, VTI),
    refusal("vti-routing", No, VTI),
    refusal("vti-shared", No, VTI),
    refusal(
        "ppk",
        Words(&["no", "never", "permit", "propose", "yes"]),
        "obol has no post-quantum preshared keys yet",
    ),
    refusal("pam-authorize", No, "obol asks no PAM"),
    of_end(
        "cert",
        Always,
        "obol has no certificates yet; use leftrsasigkey and rightrsasigkey",
    ),
    of_end("ca", Always, "obol has no certificates yet"),
    of_end("autheap", Words(&["none"]), "obol has no EAP"),
    of_end("addresspool", Always, CP),
    of_end("modecfgclient", No, CP),
    of_end("modecfgserver", No, CP),
    of_end("cat", No, "obol translates no addresses"),
    of_end(
        "xauthserver",
        No,
        "it was for IKEv1, and obol speaks IKEv2 only",
    ),
    of_end(
        "xauthclient",
        No,
        "it was for IKEv1, and obol speaks IKEv2 only",
    ),
    of_end("vti", Always, VTI),
    of_end(
        "interface-ip",
        Always,
        "it goes with ipsec-interface, which obol does not make yet",
    ),
    of_end(
        "ikeport",
        Words(&["500"]),
        "obol's ports are port and natt_port in obol.toml, for all",
    ),
];

/// What obol does by itself, or in one way only: a line for each.
const NOTED: &[(&str, bool, &str)] = &[
    ("ikev2", false, "it has been replaced by keyexchange=ikev2"),
    (
        "require-id-on-certificate",
        false,
        "obol has no certificates yet",
    ),
    ("sendca", false, "obol has no certificates yet"),
    (
        "retransmit-interval",
        false,
        "retransmit_timeout in obol.toml is for all connections",
    ),
    (
        "retransmit-timeout",
        false,
        "retransmit_tries in obol.toml is for all connections",
    ),
    (
        "narrowing",
        false,
        "of what a peer asks for, obol always takes what its own selectors have too",
    ),
    ("priority", false, "the narrower selector goes first"),
    ("reqid", false, "obol gives numbers by itself"),
    ("decap-dscp", false, "obol leaves the inner DSCP as it is"),
    ("encap-dscp", false, "obol copies the DSCP"),
    ("nopmtudisc", false, "obol finds out the MTU of the path"),
    ("metric", false, "obol's routes are in a table of its own"),
    ("modecfgdns", false, "obol assigns no inner addresses"),
    ("modecfgdomains", false, "obol assigns no inner addresses"),
    (
        "nat-keepalive",
        false,
        "obol keeps mappings of a NAT by itself",
    ),
    ("hostaddrfamily", false, "the addresses say it"),
    (
        "replay-window",
        false,
        "obol chooses the window, and it is never off",
    ),
    ("mtu", false, "mtu in obol.toml is for all connections"),
    ("nexthop", true, "the routes of the host decide"),
    (
        "sourceip",
        true,
        "the source address is the one that the host's routes give",
    ),
];

/// Refuses the connection, or notes what has no effect.
pub(crate) fn check(reader: &mut Reader<'_>) {
    for refusal in REFUSALS {
        for side in sides(refusal.of_end) {
            let Some(entry) = reader.flat.get(side, refusal.word) else {
                continue;
            };
            let text = &entry.value.value;
            let is_harmless = match refusal.harmless {
                No => matches!(values::boolean(text), Ok(false)),
                Words(words) => words.iter().any(|word| word.eq_ignore_ascii_case(text)),
                Always => false,
            };
            if !is_harmless {
                let message = format!(
                    "{}={} cannot be honoured: {}",
                    entry.key,
                    shorten(text),
                    refusal.why
                );
                let fix = "change it, or remove the line if it is not needed";
                let problem = Problem::new(&entry.written.place, message, fix);
                reader.errors.push(problem);
            }
        }
    }
    for (word, of_end, why) in NOTED {
        for side in sides(*of_end) {
            if let Some(entry) = reader.flat.get(side, word) {
                let message = format!("{} has no effect: {why}", entry.key);
                let problem = Problem::new(&entry.written.place, message, "");
                reader.notices.push(problem);
            }
        }
    }
}

fn sides(of_end: bool) -> Vec<Option<Side>> {
    match of_end {
        true => Side::BOTH.map(Some).to_vec(),
        false => vec![None],
    }
}
