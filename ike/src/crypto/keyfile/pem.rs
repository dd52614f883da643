//! PEM as it is found in the wild: text before the block, headers in it, lines of any length.

use zeroize::Zeroizing;

use super::{KeyFileError, decode_base64};

/// One block, decoded.
pub(super) struct Block<'a> {
    /// `PRIVATE KEY` of `-----BEGIN PRIVATE KEY-----`.
    pub(super) label: &'a str,
    /// It has the header of a block that is encrypted as a whole (RFC 1421).
    pub(super) encrypted: bool,
    /// What the base64 says; empty if it is encrypted.
    pub(super) content: Zeroizing<Vec<u8>>,
}

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// OpenSSL writes a block with the curve before an EC PRIVATE KEY, which names it too.
const PARAMETERS: &str = "-----END EC PARAMETERS-----";

/// The first block; `None` if there is none at all.
pub(super) fn first_block(text: &str) -> Result<Option<Block<'_>>, KeyFileError> {
    let text = text.split_once(PARAMETERS).map_or(text, |(_, rest)| rest);
    let Some(start) = text.find(BEGIN) else {
        return Ok(None);
    };
    let damaged = KeyFileError::Damaged("a PEM file");
    let rest = &text[start + BEGIN.len()..];
    let (label, rest) = rest.split_once(DASHES).ok_or(damaged.clone())?;
    let (body, _) = rest
        .split_once(&format!("-----END {label}{DASHES}"))
        .ok_or(damaged.clone())?;
    let (headers, base64): (Vec<&str>, Vec<&str>) =
        body.lines().partition(|line| line.contains(':'));
    let encrypted = headers.iter().any(|line| line.contains("ENCRYPTED"));
    let content = if encrypted {
        Vec::new()
    } else {
        decode_base64(&Zeroizing::new(base64.concat())).ok_or(damaged)?
    };
    Ok(Some(Block {
        label,
        encrypted,
        content: Zeroizing::new(content),
    }))
}
