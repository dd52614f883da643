//! `-P DIRECTION [PRIORITY] ACTION`: what happens to packets.

use std::net::IpAddr;

use super::selector::decimal;
use super::statement::Rest;
use super::text::{Word, Wrong};

/// Which way packets go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    /// To this host.
    In,
    /// From this host.
    Out,
    /// Through this host.
    Fwd,
}

/// Smaller comes first, as in the kernel.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Priority(pub(crate) u32);

/// What happens to packets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// They are dropped.
    Discard,
    /// They pass as they are: `none`, `bypass`.
    Pass,
    /// They are what it says, inner first.
    Ipsec(Vec<Rule>),
    /// As the policy of the socket says, which there is not for a table.
    Entrust,
}

/// One transform.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rule {
    /// Which.
    pub(crate) protocol: Transform,
    /// Between which hosts; `None`: those of the packet, in transport mode.
    pub(crate) tunnel: Option<(IpAddr, IpAddr)>,
    /// Whether it must be.
    pub(crate) level: Level,
}

/// A protocol of IPsec.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transform {
    /// Encapsulating Security Payload.
    Esp,
    /// Authentication Header.
    Ah,
    /// Compression.
    Ipcomp,
}

/// What is to be without an SA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// Packets pass in clear.
    Use,
    /// They do not.
    Require,
    /// As before, and the SA belongs to this policy alone, perhaps with a number.
    Unique(Option<u16>),
}

/// All that stands behind `-P`.
pub(crate) struct Said {
    /// Which way.
    pub(crate) direction: Direction,
    /// When.
    pub(crate) priority: Priority,
    /// What.
    pub(crate) action: Action,
    /// What has no effect.
    pub(crate) notices: Vec<Wrong>,
    /// The word that the action begins with.
    place: Word,
    /// An end of a tunnel that is none.
    no_address: Option<Word>,
}

const RULE: &str = "write esp/transport//require or esp/tunnel/OWN-PEER/require";

impl Direction {
    /// `in`, `out` or `fwd`.
    ///
    /// # Errors
    /// Another word comes.
    pub(crate) fn read(rest: &mut Rest<'_>) -> Result<Self, Wrong> {
        const FIX: &str = "write in, out or fwd behind -P";
        let word = rest.next(FIX)?;
        match word.text.as_str() {
            "in" => Ok(Self::In),
            "out" => Ok(Self::Out),
            "fwd" => Ok(Self::Fwd),
            _ => Err(Wrong::syntax(word, FIX)),
        }
    }
}

impl Priority {
    /// Where nothing is said.
    pub(crate) const DEFAULT: Self = Self(0x8000_0000);

    /// `prio NUMBER`, `prio high + 10`, or nothing at all.
    fn read(rest: &mut Rest<'_>) -> Result<Self, Wrong> {
        const FIX: &str = "write prio NUMBER, or prio low, def or high with + NUMBER or - NUMBER";
        if rest.take_if("prio").is_none() && rest.take_if("priority").is_none() {
            return Ok(Self::DEFAULT);
        }
        let word = rest.next(FIX)?;
        let wrong = || Wrong::syntax(word, FIX);
        let mut text = word.text.clone();
        // The offset may stand alone, and so may its sign.
        while text.ends_with(['+', '-'])
            || rest.peek().is_some_and(|w| w.text.starts_with(['+', '-']))
        {
            text.push_str(&rest.next(FIX)?.text);
        }
        let (base, offset) = match text.find(['+', '-']) {
            None | Some(0) => (text.as_str(), ""),
            Some(at) => text.split_at(at),
        };
        let base = match base {
            "low" => 0xc000_0000,
            "def" => 0x8000_0000,
            "high" => 0x4000_0000,
            number => {
                let number: i64 = number.parse().map_err(|_| wrong())?;
                let given = 0x8000_0000_i64.checked_sub(number);
                return match given.and_then(|n| u32::try_from(n).ok()) {
                    Some(number) if offset.is_empty() => Ok(Self(number)),
                    _ => Err(wrong()),
                };
            }
        };
        let offset: i64 = match offset {
            "" => 0,
            text => text.parse().map_err(|_| wrong())?,
        };
        if !(-0x3fff_ffff..=0x4000_0000).contains(&offset) {
            return Err(wrong());
        }
        u32::try_from(base - offset).map(Self).map_err(|_| wrong())
    }
}

/// Reads `-P` and all behind it.
///
/// # Errors
/// It is none of the grammar's.
pub(crate) fn read(rest: &mut Rest<'_>) -> Result<Said, Wrong> {
    const FIX: &str = "write discard, none or ipsec with what is to be done";
    rest.expect("-P", "write -P in, -P out or -P fwd behind the selectors")?;
    let direction = Direction::read(rest)?;
    let priority = Priority::read(rest)?;
    let word = rest.next(FIX)?;
    let mut said = Said {
        direction,
        priority,
        action: Action::Discard,
        notices: Vec::new(),
        place: word.clone(),
        no_address: None,
    };
    said.action = match word.text.as_str() {
        "discard" => Action::Discard,
        "none" | "bypass" => Action::Pass,
        "entrust" => Action::Entrust,
        "ipsec" => Action::Ipsec(said.rules(rest)?),
        _ => return Err(Wrong::syntax(word, FIX)),
    };
    Ok(said)
}

impl Said {
    fn rules(&mut self, rest: &mut Rest<'_>) -> Result<Vec<Rule>, Wrong> {
        let mut rules = vec![self.rule(rest.next(RULE)?)?];
        while rest.peek().is_some_and(|word| word.text.contains('/')) {
            rules.push(self.rule(rest.next(RULE)?)?);
        }
        Ok(rules)
    }

    /// `PROTOCOL/MODE/[END-END]/[LEVEL]`.
    fn rule(&mut self, word: &Word) -> Result<Rule, Wrong> {
        let wrong = |fix: &str| Wrong::syntax(word, fix);
        let mut parts = word.text.split('/');
        let protocol = match parts.next() {
            Some("esp") => Transform::Esp,
            Some("ah") => Transform::Ah,
            Some("ipcomp") => Transform::Ipcomp,
            _ => return Err(wrong(RULE)),
        };
        let mode = parts.next().unwrap_or_default();
        let ends = parts.next().filter(|ends| !ends.is_empty());
        let level = Level::read(parts.next().unwrap_or_default()).ok_or_else(|| {
            wrong("write use, require, unique or unique:NUMBER (1 to 32767) behind the last /")
        })?;
        if parts.next().is_some() {
            return Err(wrong(RULE));
        }
        let tunnel = match (mode, ends) {
            ("transport", None) => None,
            ("transport", Some(_)) => {
                let message = "ends of a tunnel have no effect in transport mode";
                let fix = "write esp/transport//require";
                self.notices.push(Wrong::new(&word.span, message, fix));
                None
            }
            ("tunnel", None) => {
                return Err(wrong(
                    "write both ends of the tunnel: esp/tunnel/OWN-PEER/require",
                ));
            }
            ("tunnel", Some(ends)) => Some(self.ends(word, ends)?),
            _ => return Err(wrong("write transport or tunnel behind the first /")),
        };
        Ok(Rule {
            protocol,
            tunnel,
            level,
        })
    }

    /// Two addresses, each with or without a port.
    fn ends(&mut self, word: &Word, text: &str) -> Result<(IpAddr, IpAddr), Wrong> {
        const FIX: &str =
            "write two addresses with - between them: esp/tunnel/10.0.1.13-10.0.1.241/require";
        let mut end = |text: &str| -> Result<IpAddr, Wrong> {
            if ["me", "any"].contains(&text) {
                self.no_address.get_or_insert_with(|| word.clone());
                return Ok(IpAddr::from([0, 0, 0, 0]));
            }
            let addr = match text.split_once('[') {
                None => text,
                Some((addr, port)) => match port.strip_suffix(']').and_then(decimal) {
                    Some(port) if port <= u32::from(u16::MAX) => addr,
                    _ => return Err(Wrong::syntax(word, FIX)),
                },
            };
            addr.parse().map_err(|_| Wrong::syntax(word, FIX))
        };
        let (left, right) = text
            .split_once('-')
            .ok_or_else(|| Wrong::syntax(word, FIX))?;
        let (left, right) = (end(left)?, end(right)?);
        match self.no_address.is_some() || left.is_ipv4() == right.is_ipv4() {
            true => Ok((left, right)),
            false => Err(Wrong::new(
                &word.span,
                "the two ends of the tunnel are of different address families",
                "write two IPv4 addresses, or two IPv6 addresses",
            )),
        }
    }

    /// Why obol cannot do it.
    pub(crate) fn refused(&self) -> Option<Wrong> {
        let Action::Ipsec(rules) = &self.action else {
            let entrust = self.action == Action::Entrust;
            let message = "entrust is about sockets, not about packets";
            return entrust
                .then(|| Wrong::new(&self.place.span, message, "write none or ipsec ..."));
        };
        let of = |protocol| rules.iter().filter(move |rule| rule.protocol == protocol);
        let wrong = |message: &str, fix: &str| Some(Wrong::new(&self.place.span, message, fix));
        if of(Transform::Ah).next().is_some() {
            return wrong(
                "obol has no AH",
                "write esp in its place: ESP protects integrity as well",
            );
        }
        match of(Transform::Esp).count() {
            0 => return wrong("this encrypts nothing", RULE),
            1 => {}
            _ => return wrong("obol puts no ESP into ESP", "write one esp rule"),
        }
        if let Some(word) = &self.no_address {
            let message = format!("the ends in {} are no addresses", word.text);
            return wrong(&message, "write the address of this host, and the peer's");
        }
        None
    }
}

impl Level {
    fn read(text: &str) -> Option<Self> {
        match text {
            "use" => Some(Self::Use),
            "" | "default" | "require" => Some(Self::Require),
            "unique" => Some(Self::Unique(None)),
            other => {
                let number = other.strip_prefix("unique:").and_then(decimal)?;
                let number = u16::try_from(number).ok()?;
                (1..=32767)
                    .contains(&number)
                    .then_some(Self::Unique(Some(number)))
            }
        }
    }
}
