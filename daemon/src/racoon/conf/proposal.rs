//! `proposal` in a `remote`, and identifiers.

use std::time::Duration;

use obol_ike::identity::Identity;
use obol_ike::proposal::{Encr, IkeProposal};
use obol_ike::wire::{IntegId, KeMethod, PrfId};

use super::algorithms;
use super::args::{Args, Read, Reported};
use super::remote::{Proposal, lifetime, unknown};
use super::text::TokenKind;
use crate::config::{Located, Place, nearest};

#[derive(Default)]
struct Parts {
    encr: Option<Vec<Encr>>,
    hash: Option<Vec<(PrfId, IntegId)>>,
    method: bool,
    ke: Option<KeMethod>,
    lifetime: Option<Duration>,
}

const STATEMENTS: [&str; 6] = [
    "encryption_algorithm",
    "hash_algorithm",
    "authentication_method",
    "dh_group",
    "lifetime",
    "gss_id",
];

/// A method, and whether obol has it.
const METHODS: [(&str, bool); 18] = [
    ("pre_shared_key", true),
    ("rsasig", false),
    ("dsssig", false),
    ("gssapi_krb", false),
    ("hybrid_rsa_server", false),
    ("hybrid_rsa_client", false),
    ("hybrid_dss_server", false),
    ("hybrid_dss_client", false),
    ("xauth_psk_server", false),
    ("xauth_psk_client", false),
    ("xauth_rsa_server", false),
    ("xauth_rsa_client", false),
    ("xauth_dss_server", false),
    ("xauth_dss_client", false),
    ("rsaenc", false),
    ("rsarev", false),
    ("rsaencrev", false),
    ("pre_shared_keys", false),
];

/// Reads a block.
///
/// # Errors
/// Something in it is wrong or missing.
pub(crate) fn read(args: &mut Args<'_, '_>, place: &Place) -> Read<Proposal> {
    if let Some(token) = args.peek() {
        return args.syntax(token, "write { behind proposal");
    }
    let mut parts = Parts::default();
    let mut right = true;
    for node in args.block()? {
        let mut args = args.of(node);
        right &= parts.statement(&mut args).is_ok();
    }
    // What is wrong is not missing.
    if !right {
        return Err(Reported);
    }
    let missing = |what: &str, line: &str| {
        args.report.error(
            place,
            format!("{what} required."),
            format!("add {line} to the proposal"),
        );
        Reported
    };
    let encr = parts
        .encr
        .ok_or_else(|| missing("encryption algorithm", "encryption_algorithm aes;"))?;
    let hash = parts
        .hash
        .ok_or_else(|| missing("hash algorithm", "hash_algorithm sha256;"))?;
    if !parts.method {
        return Err(missing(
            "authentication method",
            "authentication_method pre_shared_key;",
        ));
    }
    let ke = parts
        .ke
        .ok_or_else(|| missing("DH group", "dh_group modp2048;"))?;
    let (prf, integ) = hash.into_iter().unzip();
    Ok(Proposal {
        ike: IkeProposal {
            encr,
            integ,
            prf,
            ke: vec![ke],
        },
        lifetime: parts.lifetime,
    })
}

impl Parts {
    fn statement(&mut self, args: &mut Args<'_, '_>) -> Read<()> {
        match args.keyword() {
            "encryption_algorithm" => self.encr = Some(algorithms::ciphers(args)?),
            "hash_algorithm" => self.hash = Some(algorithms::hashes(args, "")?),
            "dh_group" => self.ke = Some(algorithms::group(args)?),
            "lifetime" => self.lifetime = Some(lifetime(args)?),
            "authentication_method" => {
                let method = args.one_of(&METHODS)?;
                if !method.value {
                    let fix = "write authentication_method pre_shared_key, and keys into psk.txt";
                    args.report.error(
                        &method.place,
                        "obol has no certificates, GSSAPI or XAUTH yet",
                        fix,
                    );
                    return Err(Reported);
                }
                self.method = true;
            }
            "gss_id" => {
                args.refuse("obol has no GSSAPI", "remove the line");
                return Err(Reported);
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

/// `TYPE ["VALUE"]`; `None` is the address.
///
/// # Errors
/// It is none, or obol has no such kind.
pub(crate) fn identifier(args: &mut Args<'_, '_>) -> Read<Option<Located<Identity>>> {
    #[derive(Clone, Copy)]
    enum Type {
        Address,
        Fqdn,
        Mail,
        KeyId,
        Name,
    }
    let ty = args.one_of(&[
        ("address", Type::Address),
        ("fqdn", Type::Fqdn),
        ("user_fqdn", Type::Mail),
        ("keyid", Type::KeyId),
        ("asn1dn", Type::Name),
    ])?;
    if matches!(ty.value, Type::Name) {
        args.report.error(
            &ty.place,
            "obol has no certificates yet, so nobody can prove to be a distinguished name",
            "write fqdn or address",
        );
        return Err(Reported);
    }
    if matches!(ty.value, Type::KeyId) {
        if args.take_if("file") {
            args.report.error(
                &ty.place,
                "key IDs in files are not read",
                "write keyid tag \"...\"",
            );
            return Err(Reported);
        }
        args.take_if("tag");
    }
    let value = match args.peek() {
        None if matches!(ty.value, Type::Address) => return Ok(None),
        Some(token) if token.kind == TokenKind::Word && matches!(ty.value, Type::Address) => {
            args.next("")?
        }
        _ => args.quoted("write the identity in quotes")?,
    };
    let text = match ty.value {
        Type::KeyId => {
            let octets = value.text.as_bytes().to_vec();
            return Ok(Some(args.located(value, Identity::KeyId(octets))));
        }
        Type::Fqdn => format!("@{}", value.text),
        Type::Mail => format!("@@{}", value.text),
        Type::Address | Type::Name => value.text.clone(),
    };
    match text.parse::<Identity>() {
        Ok(id) => Ok(Some(args.located(value, id))),
        Err(e) => {
            args.report.error(&args.place_of(value), e.to_string(), "write fqdn \"host.example.com\", user_fqdn \"user@example.com\" or address 10.0.1.13");
            Err(Reported)
        }
    }
}
