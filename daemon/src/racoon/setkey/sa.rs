//! `add` and its like: SAs whose keys are written down.

use super::selector::{Flags, decimal};
use super::statement::{Rest, host};
use super::text::{Word, Wrong};
use crate::racoon::names::Names;

/// What an SA is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protocol {
    /// ESP.
    Esp,
    /// AH, IPComp, TCP-MD5: none of obol's.
    Other,
}

/// An SA with keys of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manual {
    /// Why obol cannot have it.
    pub(crate) refused: Wrong,
}

/// How long a key may be, in octets.
#[derive(Clone, Copy)]
enum KeyLen {
    OneOf(&'static [usize]),
    From(usize, usize),
}

const CIPHERS: [(&str, KeyLen); 10] = [
    ("des-cbc", KeyLen::OneOf(&[8])),
    ("3des-cbc", KeyLen::OneOf(&[24])),
    ("null", KeyLen::From(0, 256)),
    ("blowfish-cbc", KeyLen::From(5, 56)),
    ("cast128-cbc", KeyLen::From(5, 16)),
    ("aes-cbc", KeyLen::OneOf(&[16, 24, 32])),
    ("rijndael-cbc", KeyLen::OneOf(&[16, 24, 32])),
    ("aes-ctr", KeyLen::OneOf(&[20, 28, 36])),
    ("camellia-cbc", KeyLen::OneOf(&[16, 24, 32])),
    ("twofish-cbc", KeyLen::From(1, 32)),
];

const HASHES: [(&str, KeyLen); 9] = [
    ("hmac-md5", KeyLen::OneOf(&[16])),
    ("hmac-sha1", KeyLen::OneOf(&[20])),
    ("hmac-sha256", KeyLen::OneOf(&[32])),
    ("hmac-sha384", KeyLen::OneOf(&[48])),
    ("hmac-sha512", KeyLen::OneOf(&[64])),
    ("hmac-ripemd160", KeyLen::OneOf(&[20])),
    ("aes-xcbc-mac", KeyLen::OneOf(&[16])),
    ("tcp-md5", KeyLen::From(1, 80)),
    ("null", KeyLen::From(0, 256)),
];

impl Protocol {
    /// A word for one.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(rest: &mut Rest<'_>) -> Result<Self, Wrong> {
        const FIX: &str = "write esp, ah, ipcomp or tcp";
        let word = rest.next(FIX)?;
        match word.text.as_str() {
            "esp" | "esp-udp" => Ok(Self::Esp),
            "esp-old" | "ah" | "ah-old" | "ipcomp" | "tcp" => Ok(Self::Other),
            _ => Err(Wrong::syntax(word, FIX)),
        }
    }
}

/// `HOST HOST PROTOCOL`, and the SPI where it belongs there.
///
/// # Errors
/// It is none of the grammar's.
pub(crate) fn name(names: &Names, rest: &mut Rest<'_>, with_spi: bool) -> Result<(), Wrong> {
    ends(names, rest)?;
    if with_spi {
        spi(rest)?;
    }
    Ok(())
}

fn ends(names: &Names, rest: &mut Rest<'_>) -> Result<Protocol, Wrong> {
    let flags = Flags::read(rest);
    let end = |rest: &mut Rest<'_>| {
        let word = rest.next("write the addresses of both hosts")?;
        let addr = word.text.split('[').next().unwrap_or_default();
        host(names, word, addr, flags).map(|addr| (word.clone(), addr))
    };
    let (_, src) = end(rest)?;
    let (word, dst) = end(rest)?;
    if src.is_ipv4() != dst.is_ipv4() {
        let message = format!("{src} and {dst} are of different address families");
        let fix = "write two IPv4 addresses, or two IPv6 addresses";
        return Err(Wrong::new(&word.span, message, fix));
    }
    Protocol::read(rest)
}

fn spi(rest: &mut Rest<'_>) -> Result<(), Wrong> {
    const FIX: &str = "write an SPI: a number from 256, or 0x and hex digits";
    let word = rest.next(FIX)?;
    match number(&word.text) {
        Some(spi) if spi >= 256 => Ok(()),
        _ => Err(Wrong::syntax(word, FIX)),
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(hex, 16).ok()
        }
        Some(_) => None,
        None => decimal(text),
    }
}

/// What follows `add`.
///
/// # Errors
/// It is none of the grammar's, or a key has the wrong length.
pub(crate) fn add(names: &Names, rest: &mut Rest<'_>) -> Result<Manual, Wrong> {
    let place = rest
        .peek()
        .map(|word| word.span.clone())
        .unwrap_or_default();
    let protocol = ends(names, rest)?;
    spi(rest)?;
    let (mut cipher, mut compressed) = (false, false);
    while let Some(word) = rest.peek() {
        rest.take_if(&word.text);
        match word.text.as_str() {
            "-m" => one_of(
                rest,
                &["transport", "tunnel", "any", "ro", "in_trigger", "beet"],
            )?,
            "-f" => one_of(rest, &["zero-pad", "random-pad", "seq-pad", "nocyclic-seq"])?,
            "-u" | "-r" | "-lh" | "-ls" | "-bh" | "-bs" => {
                let value = rest.next("write a number")?;
                number(&value.text).ok_or_else(|| Wrong::syntax(value, "write a number"))?;
            }
            "-E" => {
                keyed(rest, &CIPHERS)?;
                cipher = true;
            }
            "-A" => keyed(rest, &HASHES)?,
            "-C" => {
                one_of(rest, &["deflate", "lzs"])?;
                compressed = true;
            }
            "-R" if compressed => {}
            _ => {
                return Err(Wrong::syntax(
                    word,
                    "write -m, -u, -r, -lh, -ls, -E or -A here",
                ));
            }
        }
    }
    if protocol == Protocol::Esp && !cipher {
        return Err(Wrong::new(
            &place,
            "ESP without a cipher",
            "add -E aes-cbc KEY",
        ));
    }
    Ok(Manual {
        refused: Wrong::new(
            &place,
            "obol has no SAs with keys that are written down",
            "remove the line: keys are negotiated for the policy that it belongs to",
        ),
    })
}

fn one_of(rest: &mut Rest<'_>, words: &[&str]) -> Result<(), Wrong> {
    let fix = format!("write {}", words.join(", "));
    let word = rest.next(&fix)?;
    match words.contains(&word.text.as_str()) {
        true => Ok(()),
        false => Err(Wrong::syntax(word, fix)),
    }
}

/// An algorithm with its key.
fn keyed(rest: &mut Rest<'_>, table: &[(&str, KeyLen)]) -> Result<(), Wrong> {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    let fix = format!("write one of {}", names.join(", "));
    let word = rest.next(&fix)?;
    let found = table.iter().find(|(name, _)| *name == word.text);
    let Some((name, lengths)) = found else {
        return Err(Wrong::syntax(word, fix));
    };
    if let KeyLen::From(0, _) = lengths
        && rest.peek().is_none_or(|next| next.text.starts_with('-'))
    {
        return Ok(());
    }
    let key =
        rest.next("write the key behind its algorithm: 0x and hex digits, or text in quotes")?;
    let length = key_length(key).ok_or_else(|| {
        Wrong::new(
            &key.span,
            "this is no key",
            "write 0x and hex digits, or text in quotes",
        )
    })?;
    let (fits, wanted) = match lengths {
        KeyLen::OneOf(all) => (
            all.contains(&length),
            all.iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        ),
        KeyLen::From(least, most) => (
            (*least..=*most).contains(&length),
            format!("{least} to {most}"),
        ),
    };
    match fits {
        true => Ok(()),
        false => Err(Wrong::new(
            &key.span,
            format!("a key of {length} octets does not fit {name}"),
            format!("write one of {wanted} octets"),
        )),
    }
}

fn key_length(word: &Word) -> Option<usize> {
    if word.quoted {
        return Some(word.text.len());
    }
    let digits = word.text.strip_prefix("0x")?;
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && digits.len().is_multiple_of(2) && !digits.is_empty()).then_some(digits.len() / 2)
}
