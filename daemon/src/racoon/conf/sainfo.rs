//! `sainfo`: how Child SAs are made.

use std::time::Duration;

use obol_ike::proposal::EspProposal;
use obol_ike::ts::TrafficSelector;
use obol_ike::wire::KeMethod;

use super::algorithms;
use super::args::{Args, Read, Reported};
use super::remote::{lifetime, unknown};
use super::text::TokenKind;
use crate::config::{Place, nearest};
use crate::racoon::names::Names;
use crate::racoon::setkey::decimal;

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Sainfo {
    /// Our side; `None`: any.
    pub(crate) local: Option<TrafficSelector>,
    /// The peer's side; `None`: any.
    pub(crate) remote: Option<TrafficSelector>,
    /// Where it begins.
    pub(crate) place: Place,
    /// Algorithms.
    pub(crate) esp: EspProposal,
    /// Life of a Child SA.
    pub(crate) lifetime: Duration,
}

#[derive(Default)]
struct Parts {
    encr: Option<Vec<obol_ike::proposal::Encr>>,
    integ: Option<Vec<obol_ike::wire::IntegId>>,
    ke: Option<KeMethod>,
    lifetime: Option<Duration>,
}

const STATEMENTS: [&str; 6] = [
    "encryption_algorithm",
    "authentication_algorithm",
    "compression_algorithm",
    "pfs_group",
    "lifetime",
    "remoteid",
];

/// What may stand behind the sides, to choose among peers.
const FILTERS: [&str; 2] = ["from", "group"];

/// Reads a block.
///
/// # Errors
/// Something in it is wrong or missing.
pub(crate) fn read(args: &mut Args<'_, '_>, names: &Names, before: &[Sainfo]) -> Read<Sainfo> {
    let place = args.place();
    let (local, remote) = sides(args, names)?;
    let mut parts = Parts::default();
    let mut right = true;
    for node in args.block()? {
        let mut args = args.of(node);
        right &= parts.statement(&mut args).is_ok();
    }
    if !right {
        return Err(Reported);
    }
    let missing = |what: &str, fix: &str| {
        args.report.error(
            &place,
            format!("no {what} in this sainfo"),
            format!("add {fix}"),
        );
        Reported
    };
    let encr = parts
        .encr
        .ok_or_else(|| missing("encryption algorithm", "encryption_algorithm aes;"))?;
    let integ = parts.integ.ok_or_else(|| {
        missing(
            "authentication algorithm",
            "authentication_algorithm hmac_sha256;",
        )
    })?;
    if let Some(twin) = before
        .iter()
        .find(|other| (other.local, other.remote) == (local, remote))
    {
        args.report.clash(
            &place,
            &twin.place,
            "duplicated sainfo",
            "remove one of them",
        );
        return Err(Reported);
    }
    Ok(Sainfo {
        local,
        remote,
        place,
        esp: EspProposal {
            encr,
            integ,
            ke: parts.ke.into_iter().collect(),
            esn: vec![false],
        },
        lifetime: parts.lifetime.unwrap_or(Duration::from_secs(8 * 3600)),
    })
}

fn sides(
    args: &mut Args<'_, '_>,
    names: &Names,
) -> Read<(Option<TrafficSelector>, Option<TrafficSelector>)> {
    let local = side(args, names)?;
    let remote = match args.peek() {
        Some(token) if !FILTERS.contains(&token.text.as_str()) => side(args, names)?,
        Some(_) | None => None,
    };
    match args.peek() {
        None => Ok((local, remote)),
        Some(token) if FILTERS.contains(&token.text.as_str()) => {
            let message = format!(
                "sainfo with {} is refused: obol cannot tell peers apart here",
                token.text
            );
            args.report.error(
                &args.place_of(token),
                message,
                "remove it, or write a remote for the peer",
            );
            Err(Reported)
        }
        Some(token) => args.syntax(token, "write { ... } here"),
    }
}

/// `anonymous`, or an address or network with a protocol behind it.
fn side(args: &mut Args<'_, '_>, names: &Names) -> Read<Option<TrafficSelector>> {
    const FIX: &str = "write anonymous, or address 10.0.0.0/16[any] tcp";
    if args.take_if("anonymous") {
        return Ok(None);
    }
    let word = args.next(FIX)?;
    match word.text.as_str() {
        "address" | "subnet" => {}
        "clientaddr" | "fqdn" | "user_fqdn" | "keyid" | "asn1dn" => {
            let message = format!(
                "sainfo with {} is refused: obol cannot tell peers apart here",
                word.text
            );
            args.report.error(&args.place_of(word), message, FIX);
            return Err(Reported);
        }
        _ => return args.syntax(word, FIX),
    }
    let token = args.next(FIX)?;
    let (addr, length) = match token.text.split_once('/') {
        None => (token.text.as_str(), None),
        Some((addr, length)) => (addr, Some(length)),
    };
    let Ok(addr) = addr.parse::<std::net::IpAddr>() else {
        return args.syntax(token, FIX);
    };
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => Some(width),
        Some(text) => decimal(text).and_then(|n| u8::try_from(n).ok()),
    };
    let Some(mut selector) = length.and_then(|length| TrafficSelector::subnet(addr, length)) else {
        return args.syntax(token, "write a prefix length that fits the address");
    };
    let port = args.take_kind(TokenKind::Port);
    let protocol = args.next("write a protocol behind the address: any or tcp")?;
    let number = match (protocol.text.as_str(), decimal(&protocol.text)) {
        ("any", _) => Some(0),
        (_, Some(number)) => u8::try_from(number).ok(),
        (name, None) => names.protocol(name),
    };
    let Some(number) = number else {
        return args.syntax(protocol, "write a protocol: any, tcp, udp or a number");
    };
    selector.protocol = number;
    if let Some(port) = port
        && port.text != "any"
        && port.text != "0"
    {
        match port.text.parse::<u16>() {
            Ok(port) if number != 0 => (selector.start_port, selector.end_port) = (port, port),
            Ok(_) => return args.syntax(port, "write tcp or udp behind a port"),
            Err(_) => {
                return args.syntax(port, "write any, or a port up to 65535, in the brackets");
            }
        }
    }
    Ok(Some(selector))
}

impl Parts {
    fn statement(&mut self, args: &mut Args<'_, '_>) -> Read<()> {
        match args.keyword() {
            "encryption_algorithm" => self.encr = Some(algorithms::ciphers(args)?),
            "authentication_algorithm" => {
                let hashes = algorithms::hashes(args, "hmac_")?;
                self.integ = Some(hashes.into_iter().map(|(_, integ)| integ).collect());
            }
            "pfs_group" => self.ke = Some(algorithms::group(args)?),
            "lifetime" => self.lifetime = Some(lifetime(args)?),
            // It counts only where a policy has an ipcomp rule, and gets its line there.
            "compression_algorithm" => {
                args.one_of(&[("deflate", ()), ("lzs", ()), ("oui", ())])?;
            }
            "remoteid" => {
                args.number(u64::from(u32::MAX))?;
                args.idle("it goes with ph1id, which has none");
            }
            other => {
                let near = nearest(other, STATEMENTS.iter().copied());
                let fix = near.map_or("remove the line".to_owned(), |near| {
                    format!("did you mean {near}?")
                });
                return unknown(args, &fix);
            }
        }
        args.end()
    }
}
