//! `RANGE RANGE UPPER`: which packets are meant.

use std::net::IpAddr;

use obol_ike::ts::TrafficSelector;

use super::statement::{Rest, host};
use super::text::{Word, Wrong};
use crate::racoon::names::Names;

const ICMP: u8 = 1;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// `-4`, `-6`, `-n` in any combination.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Flags {
    ipv4: bool,
    ipv6: bool,
    /// Names are not looked up.
    pub(crate) numeric: bool,
}

/// `ADDR/LEN[PORT]` before the protocol is known.
pub(crate) struct Side<'w> {
    word: &'w Word,
    addr: IpAddr,
    prefix_len: u8,
    port: Option<&'w str>,
}

/// The protocol, and what is to be known of it.
pub(crate) struct Upper<'w> {
    word: &'w Word,
    /// 0: any.
    number: u8,
    /// With ICMP.
    type_and_code: Option<(u8, Option<u8>)>,
    /// Why it cannot be had.
    pub(crate) refused: Option<Wrong>,
}

impl Flags {
    /// Whatever flags come.
    pub(crate) fn read(rest: &mut Rest<'_>) -> Self {
        let mut flags = Self::default();
        loop {
            let Some(word) = rest.peek() else {
                return flags;
            };
            let letters = word.text.strip_prefix('-').unwrap_or_default();
            if letters.is_empty() || !letters.chars().all(|c| "46n".contains(c)) {
                return flags;
            }
            flags.ipv4 |= letters.contains('4');
            flags.ipv6 |= letters.contains('6');
            flags.numeric |= letters.contains('n');
            rest.take_if(&word.text);
        }
    }

    /// Whether an address is of a family that is meant.
    pub(crate) fn allows(self, addr: IpAddr) -> bool {
        self.ipv4 == self.ipv6 || self.ipv4 == addr.is_ipv4()
    }
}

impl<'w> Side<'w> {
    /// `ADDR`, `ADDR/LEN`, each with or without `[PORT]`.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(names: &Names, rest: &mut Rest<'w>, flags: Flags) -> Result<Self, Wrong> {
        let word = rest.next("write source and destination: ADDRESS/LENGTH[PORT]")?;
        let (range, mut port) = brackets(word)?;
        // setkey allows a blank before the port.
        if port.is_none()
            && let Some(more) = rest.take_if_begins("[")
        {
            port = brackets(more)?.1;
        }
        let (addr, length) = match range.split_once('/') {
            None => (range, None),
            Some((addr, length)) => (addr, Some(length)),
        };
        let addr = host(names, word, addr, flags)?;
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let prefix_len = match length {
            None => width,
            Some(text) => decimal(text)
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n <= width)
                .ok_or_else(|| {
                    let message = format!(
                        "syntax error at [{}]: /{text} is no prefix length",
                        word.text
                    );
                    Wrong::new(&word.span, message, format!("write a number up to {width}"))
                })?,
        };
        Ok(Self {
            word,
            addr,
            prefix_len,
            port,
        })
    }

    fn selector(
        &self,
        names: &Names,
        upper: &Upper<'_>,
        notices: &mut Vec<Wrong>,
    ) -> Result<TrafficSelector, Wrong> {
        let port = match self.port {
            None => 0,
            Some(text) => self.port(names, upper, text)?,
        };
        let syntax = || Wrong::syntax(self.word, "write an address like 10.0.0.0/16");
        let mut selector =
            TrafficSelector::subnet(self.addr, self.prefix_len).ok_or_else(syntax)?;
        if selector.start != self.addr {
            let message = format!(
                "{}/{} has bits behind its prefix",
                self.addr, self.prefix_len
            );
            let fix = format!("it is read as {}/{}", selector.start, self.prefix_len);
            notices.push(Wrong::new(&self.word.span, message, fix));
        }
        selector.protocol = upper.number;
        if port != 0 {
            (selector.start_port, selector.end_port) = (port, port);
        }
        if let Some((ty, code)) = upper.type_and_code {
            let all = u16::from(ty) << 8;
            let last = code.map_or(u16::from(u8::MAX), u16::from);
            (selector.start_port, selector.end_port) =
                (all | code.map_or(0, u16::from), all | last);
        }
        Ok(selector)
    }

    /// A port of this protocol; 0 is any.
    fn port(&self, names: &Names, upper: &Upper<'_>, text: &str) -> Result<u16, Wrong> {
        if text == "any" || text == "0" {
            return Ok(0);
        }
        if !WITH_PORTS.contains(&upper.number) {
            let message = match upper.number {
                0 => format!("port {text} without a protocol"),
                _ => format!(
                    "{} has no ports, so [{text}] means nothing",
                    upper.word.text
                ),
            };
            let fix = "write tcp or udp as the protocol, or remove the port";
            return Err(Wrong::new(&self.word.span, message, fix));
        }
        if let Some(port) = decimal(text) {
            return u16::try_from(port).map_err(|_| {
                let message = format!("syntax error at [{}]: {text} is no port", self.word.text);
                Wrong::new(&self.word.span, message, "write a number up to 65535")
            });
        }
        names.service(text, upper.number).ok_or_else(|| {
            let message = format!(
                "{text} is no service of {} in /etc/services",
                upper.word.text
            );
            Wrong::new(&self.word.span, message, "write the number of the port")
        })
    }
}

/// What stands before `[`, and what is in the brackets.
fn brackets(word: &Word) -> Result<(&str, Option<&str>), Wrong> {
    let Some((before, inner)) = word.text.split_once('[') else {
        return match word.text.contains(']') {
            true => Err(Wrong::syntax(word, "write [ before the port")),
            false => Ok((&word.text, None)),
        };
    };
    match inner.split_once(']') {
        Some((port, "")) if !port.is_empty() => Ok((before, Some(port))),
        Some(_) => Err(Wrong::syntax(
            word,
            "write one port in brackets behind the address, and nothing behind it",
        )),
        None => Err(Wrong::syntax(word, "close the port with ]")),
    }
}

impl<'w> Upper<'w> {
    /// A protocol, with what may follow it.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(names: &Names, rest: &mut Rest<'w>) -> Result<Self, Wrong> {
        let word =
            rest.next("write a protocol behind the addresses: tcp, udp, any, icmp6 or a number")?;
        let number = match (word.text.as_str(), decimal(&word.text)) {
            ("any", _) => Some(0),
            // The kernel's own number for any.
            (_, Some(255)) => Some(0),
            (_, Some(number)) => u8::try_from(number).ok(),
            (name, None) => names.protocol(name),
        };
        let Some(number) = number else {
            return Err(Wrong::syntax(
                word,
                "write a protocol: tcp, udp, any, icmp6 or a number up to 254",
            ));
        };
        let mut upper = Self {
            word,
            number,
            type_and_code: None,
            refused: None,
        };
        upper.more(rest)?;
        Ok(upper)
    }

    /// ICMP's type and code, or the key of GRE.
    fn more(&mut self, rest: &mut Rest<'_>) -> Result<(), Wrong> {
        let Some(word) = rest.peek() else {
            return Ok(());
        };
        if word.text.starts_with('-') {
            return Ok(());
        }
        match self.number {
            ICMP | ICMPV6 => {
                let word = rest.next("")?;
                self.type_and_code = Some(type_and_code(word)?);
                Ok(())
            }
            GRE => {
                let word = rest.next("")?;
                let fix = "remove the key: all GRE packets between the two are then meant";
                let message = "keys of GRE cannot be told to a peer by IKEv2";
                self.refused = Some(Wrong::new(&word.span, message, fix));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn type_and_code(word: &Word) -> Result<(u8, Option<u8>), Wrong> {
    let octet = |text: &str| {
        decimal(text)
            .and_then(|n| u8::try_from(n).ok())
            .ok_or_else(|| Wrong::syntax(word, "write TYPE or TYPE,CODE of ICMP: 135,0"))
    };
    match word.text.split_once(',') {
        None => Ok((octet(&word.text)?, None)),
        Some((ty, code)) => Ok((octet(ty)?, Some(octet(code)?))),
    }
}

/// Both sides as selectors, of one address family.
///
/// # Errors
/// They are not, or a port makes no sense.
pub(crate) fn pair(
    names: &Names,
    src: &Side<'_>,
    dst: &Side<'_>,
    upper: &Upper<'_>,
    notices: &mut Vec<Wrong>,
) -> Result<(TrafficSelector, TrafficSelector), Wrong> {
    if src.addr.is_ipv4() != dst.addr.is_ipv4() {
        let message = format!(
            "{} and {} are of different address families",
            src.addr, dst.addr
        );
        let fix = "write two IPv4 addresses, or two IPv6 addresses";
        return Err(Wrong::new(&dst.word.span, message, fix));
    }
    let family = |icmp| match icmp {
        ICMP => Some(true),
        ICMPV6 => Some(false),
        _ => None,
    };
    if family(upper.number).is_some_and(|ipv4| ipv4 != src.addr.is_ipv4()) {
        let message = format!(
            "{} is not of the address family of {}",
            upper.word.text, src.addr
        );
        let fix = "write icmp with IPv4 addresses, icmp6 with IPv6 addresses";
        return Err(Wrong::new(&upper.word.span, message, fix));
    }
    Ok((
        src.selector(names, upper, notices)?,
        dst.selector(names, upper, notices)?,
    ))
}

/// A number in decimal digits alone.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
