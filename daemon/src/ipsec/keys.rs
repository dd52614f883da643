//! `ipsec showhostkey`: public keys of this host, whose private halves are in the NSS database.

use std::path::PathBuf;

use base64ct::{Base64, Encoding as _};
use obol_ike::crypto::signature::PublicKey;

use super::{Ended, code};
use crate::cli::{complain_line, print_text};
use crate::pluto;

/// How many characters of a key in base64 name it.
const KEYID: usize = 9;

/// In which form a key is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// All keys, a line each.
    List,
    /// `leftrsasigkey=` or `rightrsasigkey=`, or with `true` `leftpubkey=` or `rightpubkey=`.
    Side(&'static str, bool),
    /// A record of DNS (RFC 4025).
    Ipseckey,
    Pem,
}

/// What may be written after `ipsec showhostkey`.
#[derive(Debug, PartialEq)]
struct Wanted {
    form: Form,
    ckaid: Option<String>,
    rsaid: Option<String>,
    nssdir: Option<PathBuf>,
    precedence: u8,
    gateway: String,
}

impl Wanted {
    fn read(arguments: &[String]) -> Result<Self, Ended> {
        let mut wanted = Self {
            form: Form::List,
            ckaid: None,
            rsaid: None,
            nssdir: None,
            precedence: 10,
            gateway: ".".to_owned(),
        };
        let (mut form, mut pubkey) = (None, false);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (option, given) = match argument.split_once('=') {
                Some((option, value)) => (option, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            let mut value = || {
                let value = given.clone().or_else(|| arguments.next().cloned());
                value.ok_or_else(|| usage(&format!("{option} needs a value")))
            };
            match option {
                "--list" | "--dump" => form = Some(Form::List),
                "--left" => form = Some(Form::Side("left", false)),
                "--right" => form = Some(Form::Side("right", false)),
                "--ipseckey" => form = Some(Form::Ipseckey),
                "--pem" => form = Some(Form::Pem),
                "--pubkey" => pubkey = true,
                "--verbose" => {}
                "--ckaid" => wanted.ckaid = Some(value()?.to_lowercase()),
                "--rsaid" => wanted.rsaid = Some(value()?),
                "--nssdir" | "-d" | "--configdir" => {
                    let directory = value()?;
                    let directory = directory.strip_prefix("sql:").unwrap_or(&directory);
                    wanted.nssdir = Some(directory.into());
                }
                "--precedence" => {
                    let precedence = value()?;
                    wanted.precedence = precedence
                        .parse()
                        .map_err(|_| Ended::new(BAD_FORMAT, "--precedence is 0 to 255"))?;
                }
                "--gateway" => wanted.gateway = value()?,
                _ => return Err(usage(&format!("unrecognized option \"{argument}\""))),
            }
        }
        wanted.form = match form.ok_or_else(|| usage("what is to be shown?"))? {
            Form::Side(side, _) => Form::Side(side, pubkey),
            other => other,
        };
        Ok(wanted)
    }
}

/// A precedence that is no number.
const BAD_FORMAT: u8 = 5;
const NO_SUCH_KEY: u8 = 20;

fn usage(what: &str) -> Ended {
    Ended::new(
        code::FAILED,
        format!(
            "showhostkey: {what}\nUsage: ipsec showhostkey {{--list | --left [--pubkey] | --right [--pubkey] | --ipseckey [--precedence N] [--gateway G] | --pem}} {{--ckaid CKAID | --rsaid RSAID}} [--nssdir DIR]"
        ),
    )
}

/// Prints what is asked for.
pub(super) fn show(arguments: &[String]) -> Result<u8, Ended> {
    let wanted = Wanted::read(arguments)?;
    let mut keys = Vec::new();
    let mut errors = Vec::new();
    for place in pluto::nss_places(wanted.nssdir.clone()) {
        match pluto::public_keys(&place) {
            Ok(found) => keys.extend(found),
            Err(error) => errors.push(error),
        }
    }
    if keys.is_empty() && !errors.is_empty() {
        return Err(Ended::new(code::FAILED, errors.join("\n")));
    }
    if wanted.form == Form::List {
        let lines = keys.iter().zip(1..).map(|((ckaid, key), number)| {
            let keyid = blob(key).map(|blob| keyid(&blob).to_owned());
            format!(
                "<{number:2}> RSA keyid: {} ckaid: {ckaid}\n",
                keyid.unwrap_or_default()
            )
        });
        print_text(&lines.collect::<String>())?;
        return Ok(0);
    }
    let key = chosen(&keys, &wanted)?;
    print_text(&shown(key, &wanted)?)?;
    Ok(0)
}

/// The key that is named, or the only one there is.
fn chosen<'k>(keys: &'k [(String, PublicKey)], wanted: &Wanted) -> Result<&'k PublicKey, Ended> {
    let fits = |(ckaid, key): &&(String, PublicKey)| match (&wanted.ckaid, &wanted.rsaid) {
        (Some(own), _) => own == ckaid,
        (None, Some(own)) => blob(key).is_some_and(|blob| keyid(&blob) == own),
        (None, None) => true,
    };
    let mut found = keys.iter().filter(fits);
    let key = found.next().ok_or_else(|| {
        let name = wanted.ckaid.as_ref().or(wanted.rsaid.as_ref());
        let name = name.map_or("", String::as_str);
        Ended::new(NO_SUCH_KEY, format!("No keys found: {name}"))
    })?;
    if found.next().is_some() {
        complain_line("there are several keys: --ckaid or --rsaid chooses one, --list shows all");
        return Err(usage("which key?"));
    }
    Ok(&key.1)
}

fn shown(key: &PublicKey, wanted: &Wanted) -> Result<String, Ended> {
    let blob =
        blob(key).ok_or_else(|| Ended::new(code::FAILED, "this key has no form of RFC 3110"))?;
    let spki = Base64::encode_string(&key.to_spki_der());
    Ok(match wanted.form {
        Form::Side(side, true) => {
            format!(
                "\t# {side} keyid: {}\n\t{side}pubkey={spki}\n",
                keyid(&blob)
            )
        }
        Form::Side(side, false) => {
            format!(
                "\t# {side} keyid: {}\n\t{side}rsasigkey=0s{blob}\n",
                keyid(&blob)
            )
        }
        Form::Ipseckey => {
            let kind = match wanted.gateway.parse() {
                Ok(std::net::IpAddr::V4(_)) => 1,
                Ok(std::net::IpAddr::V6(_)) => 2,
                Err(_) if wanted.gateway == "." => 0,
                Err(_) => 3,
            };
            let host = rustix::system::uname();
            format!(
                "{}.    IN    IPSECKEY  {} {kind} 2 {} {blob}\n",
                host.nodename().to_string_lossy(),
                wanted.precedence,
                wanted.gateway
            )
        }
        Form::Pem => {
            let lines = spki.as_bytes().chunks(64).map(String::from_utf8_lossy);
            let lines: Vec<_> = lines.collect();
            format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                lines.join("\n")
            )
        }
        Form::List => String::new(),
    })
}

/// A key in the form of RFC 3110, in base64.
fn blob(key: &PublicKey) -> Option<String> {
    let text = key.to_rfc3110()?;
    text.strip_prefix("0s").map(str::to_owned)
}

/// What names a key.
fn keyid(blob: &str) -> &str {
    blob.get(..KEYID).unwrap_or(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Wanted, Ended> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::read(&arguments)
    }

    fn key() -> (String, PublicKey) {
        let directory = format!("{}/testdata/nss/libreswan-5.2", env!("CARGO_MANIFEST_DIR"));
        pluto::public_keys(directory.as_ref()).unwrap().remove(0)
    }

    /// The line that Libreswan printed of the same database.
    #[test]
    fn the_key_of_an_end_is_as_libreswan_shows_it() {
        let path = format!(
            "{}/testdata/nss/libreswan-5.2/leftrsasigkey",
            env!("CARGO_MANIFEST_DIR")
        );
        let theirs = std::fs::read_to_string(path).unwrap();
        let theirs = theirs.trim().trim_start_matches("0s");
        let ours = shown(&key().1, &read("--left").unwrap()).unwrap();
        let keyid = &theirs[..9];
        assert_eq!(
            ours,
            format!("\t# left keyid: {keyid}\n\tleftrsasigkey=0s{theirs}\n")
        );
        let line = shown(&key().1, &read("--ipseckey").unwrap()).unwrap();
        assert!(
            line.ends_with(&format!(".    IN    IPSECKEY  10 0 2 . {theirs}\n")),
            "{line}"
        );
    }

    #[test]
    fn public_keys_are_read_back() {
        let (ckaid, key) = key();
        let pem = shown(&key, &read("--pem").unwrap()).unwrap();
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nMII"), "{pem}");
        let line = shown(&key, &read("--right --pubkey").unwrap()).unwrap();
        let spki = line.trim().rsplit('=').find(|part| part.len() > 100);
        assert!(
            line.contains("\trightpubkey=MII") && spki.is_some(),
            "{line}"
        );
        let keys = [(ckaid.clone(), key.clone()), ("0".repeat(40), key)];
        assert!(chosen(&keys, &read(&format!("--left --ckaid {ckaid}")).unwrap()).is_ok());
        for (line, code) in [
            ("--left", 1),
            ("--left --ckaid 12", NO_SUCH_KEY),
            ("--left --rsaid AwEAAxxxx", NO_SUCH_KEY),
        ] {
            let ended = chosen(&keys, &read(line).unwrap()).unwrap_err();
            assert_eq!(ended.code, code, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, code) in [
            ("", 1),
            ("--frob", 1),
            ("--ckaid", 1),
            ("--ipseckey --precedence x", BAD_FORMAT),
        ] {
            assert_eq!(read(line).unwrap_err().code, code, "{line}");
        }
    }
}
