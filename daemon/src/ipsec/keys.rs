//! `ipsec showhostkey`: public keys of this host, whose private halves are in the NSS database or among
//! obol's own.

use std::path::PathBuf;

use base64ct::{Base64, Encoding as _};
use obol_ike::crypto::signature::PublicKey;

use super::options::Options;
use super::{Ended, code};
use crate::cli::{complain_line, print_text};
use crate::pluto::keystore::{blob, keyid};
use crate::pluto::{self, HostKey};

/// In which form a key is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// All keys, a line each.
    List,
    /// `leftrsasigkey=` or `rightrsasigkey=`, or what the kind of key asks for; with `true` `leftpubkey=`
    /// or `rightpubkey=`.
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
        let mut options = Options::new(arguments);
        while let Some(option) = options.next() {
            let mut value = || options.value().map_err(|what| usage(&what));
            match option {
                "--list" | "--dump" => form = Some(Form::List),
                "--left" => form = Some(Form::Side("left", false)),
                "--right" => form = Some(Form::Side("right", false)),
                "--ipseckey" => form = Some(Form::Ipseckey),
                "--pem" => form = Some(Form::Pem),
                "--pubkey" => pubkey = true,
                "--verbose" => {}
                "--ckaid" => wanted.ckaid = Some(value()?.to_lowercase()),
                "--rsaid" => wanted.rsaid = Some(value()?.to_owned()),
                "--nssdir" | "-d" | "--configdir" => {
                    wanted.nssdir = Some(options.directory().map_err(|what| usage(&what))?);
                }
                "--precedence" => {
                    let precedence = value()?;
                    wanted.precedence = precedence
                        .parse()
                        .map_err(|_| Ended::new(BAD_FORMAT, "--precedence is 0 to 255"))?;
                }
                "--gateway" => wanted.gateway = value()?.to_owned(),
                _ => return Err(usage(&format!("unrecognized option \"{option}\""))),
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
            "showhostkey: {what}\nUsage: ipsec showhostkey {{--list | --left [--pubkey] | --right [--pubkey] | --ipseckey [--precedence N] [--gateway G] | --pem}} {{--ckaid CKAID | --rsaid RSAID}} [--nssdir DIR]\nExamples:\n  ipsec showhostkey --list\n  ipsec showhostkey --left --ckaid 0d3e5a7c9b1f2e4d6c8a0b2d4f6e8a0c2e4f6a8b"
        ),
    )
}

/// Prints what is asked for.
pub(super) fn show(arguments: &[String]) -> Result<u8, Ended> {
    let wanted = Wanted::read(arguments)?;
    let (keys, errors) = pluto::host_keys(wanted.nssdir.clone());
    if keys.is_empty() && !errors.is_empty() {
        return Err(Ended::new(code::FAILED, errors.join("\n")));
    }
    if wanted.form == Form::List {
        print_text(&listed(&keys))?;
        return Ok(0);
    }
    let key = chosen(&keys, &wanted)?;
    print_text(&shown(key, &wanted))?;
    Ok(0)
}

/// `< 1> RSA keyid: AwEAAbcde ckaid: …`.
fn listed(keys: &[HostKey]) -> String {
    let lines = keys.iter().zip(1..).map(|(key, number)| {
        let (kind, keyid, ckaid) = (kind(&key.public).0, keyid(&key.public), &key.ckaid);
        format!("<{number:2}> {kind} keyid: {keyid} ckaid: {ckaid}\n")
    });
    lines.collect()
}

/// pluto's name of the kind of a key, its keyword behind `left`, how a comment calls it, and its number in
/// a record of DNS (RFC 4025, RFC 9373).
fn kind(key: &PublicKey) -> (&'static str, &'static str, &'static str, u8) {
    match key {
        PublicKey::Rsa(_) => ("RSA", "rsasigkey", "rsakey", 2),
        PublicKey::Ecdsa(_) => ("ECDSA", "ecdsakey", "ecdsakey", 3),
        PublicKey::Ed25519(_) => ("EdDSA", "eddsakey", "eddsakey", 4),
    }
}

/// The key that is named, or the only one there is.
fn chosen<'k>(keys: &'k [HostKey], wanted: &Wanted) -> Result<&'k PublicKey, Ended> {
    let fits = |key: &&HostKey| match (&wanted.ckaid, &wanted.rsaid) {
        (Some(own), _) => *own == key.ckaid,
        (None, Some(own)) => keyid(&key.public) == *own,
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
    Ok(&key.public)
}

fn shown(key: &PublicKey, wanted: &Wanted) -> String {
    let (_, keyword, comment, algorithm) = kind(key);
    let (blob, keyid) = (blob(key), keyid(key));
    let spki = Base64::encode_string(&key.to_spki_der());
    match wanted.form {
        Form::Side(side, true) => format!("\t# {comment} {keyid}\n\t{side}pubkey={spki}\n"),
        Form::Side(side, false) => format!("\t# {comment} {keyid}\n\t{side}{keyword}=0s{blob}\n"),
        Form::Ipseckey => {
            let kind = match wanted.gateway.parse() {
                Ok(std::net::IpAddr::V4(_)) => 1,
                Ok(std::net::IpAddr::V6(_)) => 2,
                Err(_) if wanted.gateway == "." => 0,
                Err(_) => 3,
            };
            let host = rustix::system::uname();
            format!(
                "{}.    IN    IPSECKEY  {} {kind} {algorithm} {} {blob}\n",
                host.nodename().to_string_lossy(),
                wanted.precedence,
                wanted.gateway
            )
        }
        Form::Pem => key.to_pem(),
        Form::List => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use obol_ike::crypto::ecdsa::Curve;
    use obol_ike::crypto::private_key::PrivateKey;

    use super::*;

    fn read(line: &str) -> Result<Wanted, Ended> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Wanted::read(&arguments)
    }

    fn key_of(database: &str) -> HostKey {
        let directory = format!("{}/testdata/nss/{database}", env!("CARGO_MANIFEST_DIR"));
        pluto::host_keys(Some(directory.into())).0.remove(0)
    }

    fn key() -> HostKey {
        key_of("libreswan-5.2")
    }

    /// The lines that Libreswan printed of the same database.
    #[test]
    fn the_key_of_an_end_is_as_libreswan_shows_it() {
        for database in ["libreswan-5.2", "libreswan-4.10"] {
            let path = format!(
                "{}/testdata/nss/{database}/leftrsasigkey",
                env!("CARGO_MANIFEST_DIR")
            );
            let theirs = std::fs::read_to_string(path).unwrap();
            let theirs = theirs.trim().trim_start_matches("0s");
            let key = key_of(database).public;
            let ours = shown(&key, &read("--left").unwrap());
            let keyid = &theirs[..9];
            assert_eq!(
                ours,
                format!("\t# rsakey {keyid}\n\tleftrsasigkey=0s{theirs}\n")
            );
            let line = shown(&key, &read("--ipseckey").unwrap());
            assert!(
                line.ends_with(&format!(".    IN    IPSECKEY  10 0 2 . {theirs}\n")),
                "{line}"
            );
        }
    }

    #[test]
    fn keys_on_curves_have_the_same_forms() {
        let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
        let table = [
            (PrivateKey::generate_ed25519(rng), "EdDSA", "eddsakey", 4),
            (
                PrivateKey::generate_ecdsa(Curve::P384, rng),
                "ECDSA",
                "ecdsakey",
                3,
            ),
        ];
        for (private, kind, keyword, number) in table {
            let key = private.public();
            let line = shown(&key, &read("--right").unwrap());
            let (comment, line) = line.split_once('\n').unwrap();
            assert_eq!(comment, format!("\t# {keyword} {}", keyid(&key)));
            assert_eq!(line, format!("\tright{keyword}=0s{}\n", blob(&key)));
            let record = shown(&key, &read("--ipseckey").unwrap());
            let expected = format!("IPSECKEY  10 0 {number} . ");
            assert!(record.contains(&expected), "{record}");
            let keys = [HostKey {
                ckaid: pluto::keystore::ckaid(&key),
                public: key,
            }];
            let line = listed(&keys);
            let start = format!("< 1> {kind} keyid: ");
            assert!(line.starts_with(&start), "{line}");
            assert!(line.ends_with(&format!("ckaid: {}\n", keys[0].ckaid)));
        }
    }

    #[test]
    fn public_keys_are_read_back() {
        let HostKey { ckaid, public: key } = key();
        let pem = shown(&key, &read("--pem").unwrap());
        assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nMII"), "{pem}");
        let line = shown(&key, &read("--right --pubkey").unwrap());
        let spki = line.trim().rsplit('=').find(|part| part.len() > 100);
        assert!(
            line.contains("\trightpubkey=MII") && spki.is_some(),
            "{line}"
        );
        let keys = [ckaid.clone(), "0".repeat(40)].map(|ckaid| HostKey {
            ckaid,
            public: key.clone(),
        });
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
