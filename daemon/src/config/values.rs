//! Small values: times, sizes, secrets as text, addresses.

use std::net::IpAddr;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

const TIME_FIX: &str = "write seconds, or a string like \"90s\", \"30m\", \"4h\" or \"1d\"";
const SIZE_FIX: &str = "write bytes, or a string like \"500MB\", \"1GB\" or \"1GiB\"";

/// Longest time that any setting takes. A year keeps every deadline far from overflow.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A time: seconds, or a number with `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What to write.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text).ok_or(TIME_FIX)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(TIME_FIX.into()),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| "a year is the longest time".into())
}

/// A size: bytes, or a number with `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`, `MiB`,
/// `GiB`, `TiB` (powers of 1024).
///
/// # Errors
/// What to write.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text).ok_or(SIZE_FIX)?;
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(SIZE_FIX.into()),
    };
    number
        .checked_mul(bytes)
        .ok_or_else(|| "that is more than 64 bits can count".into())
}

/// A count, written as a plain number.
///
/// # Errors
/// What to write.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    match number_and_unit(text) {
        Some((number, "")) => Ok(number),
        _ => Err("write a plain number".into()),
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim_start()))
}

//= rfc7296 2.15-1 2.15-2
//= security S-27
/// The octets of a secret: `0x` and hex, `0s` and base64, or the text itself.
///
/// # Errors
/// What is wrong, without any part of the secret.
pub(crate) fn secret(text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let octets = if let Some(hex) = text.strip_prefix("0x") {
        from_hex(hex).ok_or("what follows 0x is not hex: two digits for each octet")?
    } else if let Some(base64) = text.strip_prefix("0s") {
        let octets = Base64::decode_vec(base64);
        Zeroizing::new(octets.map_err(|_| "what follows 0s is not base64, or lacks its padding")?)
    } else {
        Zeroizing::new(text.as_bytes().to_vec())
    };
    if octets.is_empty() {
        return Err("the secret is empty");
    }
    Ok(octets)
}

fn from_hex(hex: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let (pairs, []) = hex.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut octets = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        let octet = digit(*high)? << 4 | digit(*low)?;
        octets.push(u8::try_from(octet).ok()?);
    }
    Some(octets)
}

/// An address of an IKE peer; `None` is `%any`.
///
/// # Errors
/// What to write.
pub(crate) fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if text == "%any" {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(addr) if addr.is_unspecified() => Err("write \"%any\" for any address".into()),
        Ok(addr) if addr.is_multicast() => Err("a multicast address cannot be a peer".into()),
        Ok(addr) => Ok(Some(addr)),
        Err(_) if text.contains('/') => {
            Err("write single addresses; networks go into local_ts and remote_ts".into())
        }
        Err(_) => Err("write an IP address or \"%any\"; names are not looked up".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("0", Some(0)),
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            ("250ms", Some(250)),
            ("30m", Some(1_800_000)),
            ("4h", Some(14_400_000)),
            (" 4 h ", Some(14_400_000)),
            ("366d", Some(366 * 86_400_000)),
            ("367d", None),
            ("18446744073709551615d", None),
            ("99999999999999999999", None),
            ("", None),
            ("h", None),
            ("4H", None),
            ("-4h", None),
            ("1h30m", None),
        ];
        for (text, milliseconds) in table {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_and_counts() {
        let table = [
            ("7", Some(7)),
            ("1GB", Some(1_000_000_000)),
            ("2 GiB", Some(2 << 30)),
            ("16777216TiB", None),
            ("1gb", None),
            ("1.5GB", None),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
        assert_eq!(count("12"), Ok(12));
        assert!(count("12k").is_err());
    }

    //= test rfc7296 2.15-1 2.15-2
    //= test security S-27
    #[test]
    fn secrets_in_their_three_forms() {
        assert_eq!(*secret("abc").unwrap(), b"abc");
        // Of any length, and to the last character.
        let long = "secret \\0".repeat(30);
        assert_eq!(*secret(&long).unwrap(), long.as_bytes());
        assert_eq!(*secret("0x00fF10").unwrap(), [0, 0xff, 0x10]);
        assert_eq!(*secret("0sAAEC").unwrap(), [0, 1, 2]);
        for bad in ["", "0x", "0s", "0x1", "0xzz", "0x+1", "0s!", "0sAA"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(address("%any"), Ok(None));
        assert_eq!(address("fd00::1"), Ok(Some("fd00::1".parse().unwrap())));
        for bad in ["", "host", "0.0.0.0", "::", "224.0.0.1", "10.0.0.0/8"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
