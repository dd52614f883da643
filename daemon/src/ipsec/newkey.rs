//! `ipsec newhostkey`: a new key of this host, kept among obol's own. The NSS database is not written.

use std::path::PathBuf;

use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::private_key::PrivateKey;
use rand_core::{Rng as _, UnwrapErr};

use super::options::Options;
use super::{Ended, code};
use crate::cli::complain_line;
use crate::pluto;

/// Bits of an RSA key that pluto makes at least.
const FEWEST: u32 = 2192;
/// More than this helps nobody, and obol takes no longer ones.
const MOST: u32 = 8192;
/// Lengths are multiples of this.
const STEP: u32 = 16;
/// Without a wish, keys are of any length between these, as pluto's are.
const USUAL: (u32, u32) = (3072, 3824);

/// pluto's exit code where there is no database to write to.
const NOT_KEPT: u8 = 255;

/// What may be written after `ipsec newhostkey`.
#[derive(Debug, PartialEq)]
struct Wanted {
    kind: Kind,
    nssdir: Option<PathBuf>,
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// With so many bits, if somebody wishes so.
    Rsa(Option<u32>),
    Ecdsa(Curve),
    Ed25519,
}

impl Wanted {
    fn read(arguments: &[String]) -> Result<Self, Ended> {
        let mut wanted = Self {
            kind: Kind::Rsa(None),
            nssdir: None,
            quiet: false,
        };
        let (mut bits, mut curve) = (None, None);
        let mut options = Options::new(arguments);
        while let Some(option) = options.next() {
            let mut value = || options.value().map_err(|what| usage(&what));
            match option {
                "--keytype" => wanted.kind = kind(value()?)?,
                "--rsa" | "--ecdsa" | "--eddsa" => wanted.kind = kind(&option[2..])?,
                "--bits" => bits = Some(length(value()?)?),
                "--curve" => curve = Some(value()?),
                "--nssdir" | "-d" | "--configdir" => {
                    wanted.nssdir = Some(options.directory().map_err(|what| usage(&what))?);
                }
                // What obol does not need for a key: the system's randomness, no password, no file.
                "--seeddev" | "--seedbits" | "--password" | "--output" | "--random"
                | "--hostname" => _ = value()?,
                "--quiet" => wanted.quiet = true,
                "--verbose" => {}
                _ => return Err(usage(&format!("unrecognized option \"{option}\""))),
            }
        }
        match (&mut wanted.kind, bits) {
            (_, None) => {}
            (Kind::Rsa(wish), bits) => *wish = bits,
            (_, Some(_)) => return Err(usage("--bits is for RSA keys")),
        }
        if let Some(curve) = curve {
            wanted.kind = on_curve(wanted.kind, curve)?;
        }
        Ok(wanted)
    }
}

fn kind(text: &str) -> Result<Kind, Ended> {
    match text {
        "rsa" => Ok(Kind::Rsa(None)),
        "eddsa" | "ed25519" => Ok(Kind::Ed25519),
        "ecdsa" => Ok(Kind::Ecdsa(Curve::P256)),
        other => Err(usage(&format!(
            "unknown key type \"{other}\": rsa, ecdsa or eddsa"
        ))),
    }
}

fn on_curve(kind: Kind, curve: &str) -> Result<Kind, Ended> {
    let curve = curve.to_ascii_lowercase();
    match (kind, curve.as_str()) {
        (Kind::Ed25519, "ed25519" | "curve25519") => Ok(kind),
        (Kind::Ecdsa(_), "secp256r1" | "nistp256" | "p256") => Ok(Kind::Ecdsa(Curve::P256)),
        (Kind::Ecdsa(_), "secp384r1" | "nistp384" | "p384") => Ok(Kind::Ecdsa(Curve::P384)),
        (Kind::Ecdsa(_), "secp521r1" | "nistp521" | "p521") => Ok(Kind::Ecdsa(Curve::P521)),
        _ => Err(usage(
            "--curve is secp256r1, secp384r1 or secp521r1 with --keytype ecdsa, ed25519 with eddsa",
        )),
    }
}

fn length(text: &str) -> Result<u32, Ended> {
    let bits = text.parse().ok();
    let fits = |bits: &u32| (FEWEST..=MOST).contains(bits) && bits.is_multiple_of(STEP);
    bits.filter(fits).ok_or_else(|| {
        usage(&format!(
            "--bits is a multiple of {STEP} from {FEWEST} to {MOST}"
        ))
    })
}

fn usage(what: &str) -> Ended {
    Ended::new(
        code::USAGE,
        format!(
            "newhostkey: {what}\nUsage: ipsec newhostkey [--keytype {{rsa|ecdsa|eddsa}}] [--bits N] [--curve CURVE] [--nssdir DIR] [--quiet]\nExamples:\n  ipsec newhostkey\n  ipsec newhostkey --keytype rsa --bits 4096\n  ipsec newhostkey --keytype ecdsa --curve secp384r1\n  ipsec newhostkey --keytype eddsa"
        ),
    )
}

/// Makes the key, and says how it is shown.
pub(super) fn make(arguments: &[String]) -> Result<u8, Ended> {
    let wanted = Wanted::read(arguments)?;
    let mut rng = UnwrapErr(getrandom::SysRng);
    let (name, key) = match wanted.kind {
        Kind::Ecdsa(curve) => ("ECDSA", PrivateKey::generate_ecdsa(curve, &mut rng)),
        Kind::Ed25519 => ("EdDSA", PrivateKey::generate_ed25519(&mut rng)),
        Kind::Rsa(bits) => {
            let choices = (USUAL.1 - USUAL.0) / STEP + 1;
            let bits = bits.unwrap_or_else(|| USUAL.0 + STEP * (rng.next_u32() % choices));
            let key = PrivateKey::generate_rsa(bits, &mut rng);
            let key = key.map_err(|error| Ended::new(code::FAILED, error.to_string()))?;
            ("RSA", key)
        }
    };
    let kept = pluto::keep_new(wanted.nssdir.as_deref(), &key);
    let (ckaid, directory) = kept.map_err(|error| Ended::new(NOT_KEPT, error))?;
    if !wanted.quiet {
        let directory = directory.display();
        complain_line(&format!(
            "Generated {name} key pair with CKAID {ckaid} was stored in {directory}"
        ));
        complain_line(&format!(
            "The public key can be displayed using: ipsec showhostkey --left --ckaid {ckaid}"
        ));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wanted, Ended> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::read(&arguments)
    }

    #[test]
    fn kinds_of_keys() {
        for (line, kind) in [
            ("", Kind::Rsa(None)),
            ("--rsa --bits 4096", Kind::Rsa(Some(4096))),
            ("--bits=2192 --keytype rsa", Kind::Rsa(Some(2192))),
            ("--keytype eddsa --curve Ed25519", Kind::Ed25519),
            ("--curve secp384r1 --ecdsa", Kind::Ecdsa(Curve::P384)),
            ("--keytype ecdsa", Kind::Ecdsa(Curve::P256)),
            (
                "--output /etc/ipsec.secrets --seeddev /dev/random",
                Kind::Rsa(None),
            ),
        ] {
            assert_eq!(read(line).unwrap().kind, kind, "{line}");
        }
        let wanted = read("--nssdir sql:/x --quiet").unwrap();
        assert_eq!((wanted.nssdir, wanted.quiet), (Some("/x".into()), true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, word) in [
            ("--ecdsa --curve ed25519", "secp256r1"),
            ("--keytype dsa", "\"dsa\""),
            ("--bits 2048", "2192"),
            ("--bits 3073", "multiple of 16"),
            ("--bits", "needs a value"),
            ("--eddsa --bits 4096", "for RSA"),
            ("--curve secp384r1", "ed25519"),
            ("--frob", "--frob"),
        ] {
            let ended = read(line).unwrap_err();
            assert_eq!(ended.code, code::USAGE, "{line}");
            assert!(ended.text.contains(word), "{line}: {}", ended.text);
        }
    }
}
