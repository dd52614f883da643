//! racoon's words for algorithms, and what is to be in the place of weak ones.
//!
//! A weak member of a list goes; a cipher or hash that is weak and alone refuses the file, since the
//! user must know. 3DES stays where obol's own configuration allows it. SHA-1 and short groups are raised: both ends have the same rule, so they still agree,
//! on something stronger than was asked for.

use obol_ike::proposal::Encr;
use obol_ike::wire::{EncrId, IntegId, KeMethod, PrfId};

use super::args::{Args, Read, Reported};
use super::text::{Token, TokenKind};
use crate::config::{Located, nearest};
use crate::racoon::setkey::decimal;

/// What a word for a cipher means.
#[derive(Clone, Copy)]
enum Cipher {
    /// AES-CBC, with a length behind it or without.
    Aes,
    /// 3DES-CBC, used where it is allowed.
    TripleDes,
    /// Why it is not used.
    Weak(&'static str),
}

const CIPHERS: [(&str, Cipher); 17] = [
    ("aes", Cipher::Aes),
    ("rijndael", Cipher::Aes),
    ("3des", Cipher::TripleDes),
    ("des", Cipher::Weak("has 56-bit keys")),
    ("des_iv64", Cipher::Weak("has 56-bit keys")),
    ("des_iv32", Cipher::Weak("has 56-bit keys")),
    ("blowfish", Cipher::Weak(BLOCK)),
    ("cast128", Cipher::Weak(BLOCK)),
    ("idea", Cipher::Weak(BLOCK)),
    ("3idea", Cipher::Weak(BLOCK)),
    ("rc4", Cipher::Weak("is broken")),
    ("rc5", Cipher::Weak(BLOCK)),
    ("twofish", Cipher::Weak("is unknown in IKEv2")),
    ("camellia", Cipher::Weak("is not in obol")),
    ("null_enc", Cipher::Weak("does not encrypt")),
    ("null", Cipher::Weak("does not encrypt")),
    ("kpdk", Cipher::Weak("is unknown in IKEv2")),
];
const BLOCK: &str = "has 64-bit blocks";

/// A word for a hash.
#[derive(Clone, Copy)]
enum Hash {
    Strong(PrfId, IntegId),
    /// Raised to SHA-256 where it stands alone.
    Sha1,
    Weak(&'static str),
}

const SHA256: Hash = Hash::Strong(PrfId::HMAC_SHA2_256, IntegId::HMAC_SHA2_256_128);
const SHA384: Hash = Hash::Strong(PrfId::HMAC_SHA2_384, IntegId::HMAC_SHA2_384_192);
const SHA512: Hash = Hash::Strong(PrfId::HMAC_SHA2_512, IntegId::HMAC_SHA2_512_256);
const MD5: Hash = Hash::Weak("is broken");

/// Without `hmac_`, which `sainfo` writes before them.
const HASHES: [(&str, Hash); 13] = [
    ("sha1", Hash::Sha1),
    ("sha256", SHA256),
    ("sha2_256", SHA256),
    ("sha384", SHA384),
    ("sha2_384", SHA384),
    ("sha512", SHA512),
    ("sha2_512", SHA512),
    ("md5", MD5),
    ("des_mac", Hash::Weak("has 56-bit keys")),
    ("kpdk", Hash::Weak("is unknown in IKEv2")),
    ("non_auth", Hash::Weak("protects no integrity")),
    ("ripemd160", Hash::Weak("is unknown in IKEv2")),
    ("tiger", Hash::Weak("is unknown in IKEv2")),
];

/// A word for a group.
#[derive(Clone, Copy)]
enum Group {
    Strong(KeMethod),
    /// Raised.
    Short,
    /// Refused, and why.
    Absent(&'static str),
}

const GROUPS: [(&str, &str, Group); 10] = [
    ("modp768", "1", Group::Short),
    ("modp1024", "2", Group::Short),
    ("ec2n155", "3", Group::Absent(EC2N)),
    ("ec2n185", "4", Group::Absent(EC2N)),
    ("modp1536", "5", Group::Short),
    ("modp2048", "14", Group::Strong(KeMethod::MODP_2048)),
    ("modp3072", "15", Group::Strong(KeMethod::MODP_3072)),
    ("modp4096", "16", Group::Strong(KeMethod::MODP_4096)),
    ("modp6144", "17", Group::Absent(LONG)),
    ("modp8192", "18", Group::Absent(LONG)),
];
const EC2N: &str = "is unknown in IKEv2";
const LONG: &str = "is not in obol; modp4096 is the longest";

/// What is to be changed where a list has nothing left.
const WRITE_AES: &str = "write aes, or aes 256, on all hosts";
/// The same where there is another way.
const WRITE_AES_OR_ALLOW: &str = "write aes, or aes 256, on all hosts; allow = [\"3des\"] in the [daemon] table of obol.toml lets it be used all the same";
const WRITE_SHA: &str = "write sha256 on all hosts";

/// One cipher or several; those that are weak go.
///
/// # Errors
/// A word is unknown, or nothing is left.
pub(crate) fn ciphers(args: &mut Args<'_, '_>) -> Read<Vec<Encr>> {
    let mut found = Vec::new();
    let mut weak: Vec<(&Token, &str)> = Vec::new();
    loop {
        let token = args.next("write a cipher: aes")?;
        let Some((_, cipher)) = CIPHERS.iter().find(|(name, _)| *name == token.text) else {
            let near = nearest(&token.text, CIPHERS.iter().map(|(name, _)| *name));
            return args.syntax(
                token,
                near.map_or(WRITE_AES.into(), |near| format!("did you mean {near}?")),
            );
        };
        let bits = length(args)?;
        match cipher {
            Cipher::TripleDes if args.allowed.triple_des => {
                let message = "3des has 64-bit blocks: it may be used, since obol.toml allows it";
                let fix = "remove it once all hosts have aes";
                args.report.warn(&args.place_of(token), message, fix);
                push(&mut found, Encr::TRIPLE_DES_CBC);
            }
            Cipher::TripleDes => weak.push((token, BLOCK)),
            Cipher::Weak(why) => weak.push((token, why)),
            Cipher::Aes => {
                let encr = Encr::new(
                    EncrId::AES_CBC,
                    bits.as_ref().map_or(128, |bits| bits.value),
                );
                if let Some(bits) = bits
                    && ![128, 192, 256].contains(&bits.value)
                {
                    let message = format!("aes has no keys of {} bits", bits.value);
                    args.report
                        .error(&bits.place, message, "write aes 128, aes 192 or aes 256");
                    return Err(Reported);
                }
                push(&mut found, encr);
            }
        }
        if args.peek().is_none() {
            break;
        }
    }
    let fix = match weak.iter().any(|(token, _)| token.text == "3des") {
        true => WRITE_AES_OR_ALLOW,
        false => WRITE_AES,
    };
    without_weak(args, &weak, found.is_empty(), fix)?;
    Ok(found)
}

/// The number of bits behind a cipher.
fn length(args: &mut Args<'_, '_>) -> Read<Option<Located<u16>>> {
    let Some(token) = args.peek().filter(|token| token.kind == TokenKind::Word) else {
        return Ok(None);
    };
    if !token.text.starts_with(|c: char| c.is_ascii_digit()) || decimal(&token.text).is_none() {
        return Ok(None);
    }
    let bits = args.number(1024)?;
    Ok(Some(
        args.located(token, u16::try_from(bits).unwrap_or(u16::MAX)),
    ))
}

/// One hash or several; those that are weak go.
///
/// # Errors
/// A word is unknown, or nothing is left.
pub(crate) fn hashes(args: &mut Args<'_, '_>, prefix: &str) -> Read<Vec<(PrfId, IntegId)>> {
    let mut found = Vec::new();
    let mut weak: Vec<(&Token, &str)> = Vec::new();
    let mut sha1 = None;
    loop {
        let token = args.next("write a hash: sha256")?;
        let name = match token.text.as_str() {
            "non_auth" => "non_auth",
            text => text.strip_prefix(prefix).unwrap_or_default(),
        };
        match HASHES.iter().find(|(known, _)| *known == name) {
            Some((_, Hash::Strong(prf, integ))) => push(&mut found, (*prf, *integ)),
            Some((_, Hash::Sha1)) => sha1 = Some(token),
            Some((_, Hash::Weak(why))) => weak.push((token, why)),
            None => {
                let known: Vec<String> = HASHES
                    .iter()
                    .map(|(name, _)| format!("{prefix}{name}"))
                    .collect();
                let near = nearest(&token.text, known.iter().map(String::as_str));
                let fix = near.map_or(format!("write {prefix}sha256"), |near| {
                    format!("did you mean {near}?")
                });
                return args.syntax(token, fix);
            }
        }
        if args.peek().is_none() {
            break;
        }
    }
    match sha1 {
        Some(token) if found.is_empty() => {
            let message = format!(
                "{} is raised to {prefix}sha256, here and by obol on all hosts",
                token.text
            );
            args.report
                .warn(&args.place_of(token), message, "write sha256 on all hosts");
            found.push((PrfId::HMAC_SHA2_256, IntegId::HMAC_SHA2_256_128));
        }
        Some(token) => weak.push((token, "is phased out")),
        None => {}
    }
    without_weak(args, &weak, found.is_empty(), WRITE_SHA)?;
    Ok(found)
}

/// Says what becomes of weak members of a list.
fn without_weak(args: &Args<'_, '_>, weak: &[(&Token, &str)], alone: bool, fix: &str) -> Read<()> {
    for (token, why) in weak {
        let place = args.place_of(token);
        if alone {
            args.report.error(
                &place,
                format!("{} {why}, and nothing else is listed", token.text),
                fix,
            );
        } else {
            args.report.warn(
                &place,
                format!("{} {why}: it is never offered", token.text),
                "remove it",
            );
        }
    }
    match alone {
        true => Err(Reported),
        false => Ok(()),
    }
}

/// A group, by name or number.
///
/// # Errors
/// It is unknown, or cannot be had.
pub(crate) fn group(args: &mut Args<'_, '_>) -> Read<KeMethod> {
    const FIX: &str = "write modp2048, modp3072 or modp4096";
    let token = args.next(FIX)?;
    let found = GROUPS
        .iter()
        .find(|(name, number, _)| [*name, *number].contains(&&*token.text));
    match found {
        None => args.syntax(token, FIX),
        Some((_, _, Group::Strong(ke))) => Ok(*ke),
        Some((name, _, Group::Short)) => {
            let message =
                format!("{name} is too short: raised to modp2048, here and by obol on all hosts");
            args.report.warn(
                &args.place_of(token),
                message,
                "write modp2048 on all hosts",
            );
            Ok(KeMethod::MODP_2048)
        }
        Some((name, _, Group::Absent(why))) => {
            args.report
                .error(&args.place_of(token), format!("{name} {why}"), FIX);
            Err(Reported)
        }
    }
}

fn push<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}
