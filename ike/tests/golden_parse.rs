//! Golden packets of a real strongSwan: obol reads them, writes them the same way, derives the
//! same keys, and is convinced by the same proofs.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod golden;

use golden::{IkeSa, Session, ciphers, session, sessions};
use obol_ike::auth::{
    AuthError, InitiatorSignedOctets, Proof, ResponderSignedOctets, SignatureOptions, verify_psk,
    verify_signature,
};
use obol_ike::crypto::secret::Secret;
use obol_ike::crypto::signature::PublicKey;
use obol_ike::wire::{
    ExchangeType, KeMethod, Message, NotifyType, Payload, PayloadType, RawPayload, emit_chain,
    emit_message, parse_chain, protected_prefix,
};
use rsa::pkcs8::DecodePublicKey;
use rsa::traits::PublicKeyParts;

//= test rfc7296 3.3.5-1 3.3.5-3
#[test]
fn messages_are_written_as_they_were_read() {
    for session in sessions() {
        for (index, datagram) in session.datagrams.iter().enumerate() {
            let message = Message::parse(datagram).unwrap();
            let again = match message.protected().unwrap() {
                Some(sk) => {
                    let mut out =
                        protected_prefix(&message.header, sk.fragment, sk.first, sk.body.len())
                            .unwrap();
                    assert_eq!(out, sk.aad, "{} datagram {index}", session.name);
                    out.extend_from_slice(sk.body);
                    out
                }
                None => emit_message(&message.header, &decode(&message.payloads)).unwrap(),
            };
            assert_eq!(
                hex::encode(again),
                hex::encode(datagram),
                "{} datagram {index}",
                session.name
            );
        }
    }
}

#[test]
fn protected_payloads_open_and_are_written_as_they_were_read() {
    let mut opened = 0;
    for session in sessions() {
        let sas = session.ike_sas();
        for datagram in &session.datagrams {
            let message = Message::parse(datagram).unwrap();
            let Some(plain) = open(&sas, &message) else {
                continue;
            };
            let first = message.payloads.last().unwrap().next;
            let payloads = decode(&parse_chain(first, &plain).unwrap());
            let mut again = Vec::new();
            assert_eq!(emit_chain(&payloads, &mut again).unwrap(), first);
            assert_eq!(
                hex::encode(again),
                hex::encode(&plain),
                "{} message {:?}",
                session.name,
                message.header
            );
            opened += 1;
        }
    }
    assert!(opened >= 80, "only {opened} messages were opened");
}

#[test]
fn a_changed_octet_does_not_open() {
    let session = session("psk-gcm-x25519");
    let sas = session.ike_sas();
    let datagram = &session.datagrams[2];
    let ciphers = sas[0].keys.ciphers().unwrap();
    let message = Message::parse(datagram).unwrap();
    let from = message.protected().unwrap().unwrap().aad.len();
    let open = |octets: &[u8]| ciphers.from_initiator.open(octets, from..octets.len());
    assert!(open(datagram).is_ok());
    for at in 0..datagram.len() {
        let mut changed = datagram.clone();
        changed[at] ^= 1;
        assert!(open(&changed).is_err(), "octet {at}");
    }
}

//= test rfc7296 2.13-3
//= test security S-25
#[test]
fn ike_keys_are_those_that_the_peer_derived() {
    for session in sessions() {
        for (index, sa) in session.ike_sas().iter().enumerate() {
            let keys = &sa.keys;
            let derived = [
                ("sk_d", keys.sk_d.expose()),
                ("sk_ai", keys.sk_ai.expose()),
                ("sk_ar", keys.sk_ar.expose()),
                ("sk_ei", keys.sk_ei.expose()),
                ("sk_er", keys.sk_er.expose()),
                ("sk_pi", keys.sk_pi.expose()),
                ("sk_pr", keys.sk_pr.expose()),
            ];
            for (name, key) in derived {
                let recorded = session.hex(&format!("ike.{index}.{name}"));
                assert_eq!(
                    hex::encode(key),
                    hex::encode(recorded),
                    "{} {name}",
                    session.name
                );
            }
        }
    }
}

//= test rfc7296 2.17-1 2.17-2
//= test security S-25
#[test]
fn child_keys_are_those_that_the_peer_derived() {
    let mut seen = 0;
    for session in sessions() {
        let sas = session.ike_sas();
        for index in 0.. {
            let name = |part: &str| format!("child.{index}.{part}");
            let Some(algorithms) = session.values.get(&name("algorithms")) else {
                break;
            };
            let mut names = algorithms.split('/');
            let (encr, integ) = ciphers(names.next().unwrap(), names.next().unwrap());
            let shared = session.values.contains_key(&name("shared"));
            let shared = shared.then(|| Secret::new(session.hex(&name("shared"))));
            let (ni, nr) = session.nonces(&name("nonces"));
            let sa: usize = session.values[&name("ike")].parse().unwrap();
            let keys = sas[sa]
                .keys
                .child(shared.as_ref(), &ni, &nr, encr, integ)
                .unwrap();
            for (half, part) in [
                (&keys.initiator_to_responder, "i"),
                (&keys.responder_to_initiator, "r"),
            ] {
                let recorded = |kind: &str| session.hex(&name(&format!("{kind}_{part}")));
                assert_eq!(half.encr.expose(), recorded("encr"), "{}", session.name);
                assert_eq!(half.integ.expose(), recorded("integ"), "{}", session.name);
            }
            seen += 1;
        }
    }
    assert!(seen >= 16, "only {seen} Child SAs");
}

//= test security S-27
#[test]
fn shared_secret_proofs_verify() {
    let mut verified = 0;
    for session in sessions() {
        let (Some(_), [first, ..]) = (session.values.get("psk_i"), &session.ike_sas()[..]) else {
            continue;
        };
        let handshake = Handshake::of(&session, first);
        let secret = Secret::new(session.hex("psk_i"));
        let other = Secret::new(b"not that secret".to_vec());
        let prf = first.keys.prf();
        let (octets, data) = handshake.initiator(first);
        assert!(verify_psk(prf, &secret, &octets, proof(&data)).is_ok());
        let refused = verify_psk(prf, &other, &octets, proof(&data)).map(|_| ());
        assert_eq!(refused, Err(AuthError::WrongSecret));
        if let Some((octets, data)) = handshake.responder(first) {
            assert!(verify_psk(prf, &secret, &octets, proof(&data)).is_ok());
            verified += 1;
        }
    }
    assert!(verified >= 12, "only {verified} handshakes");
}

#[test]
fn signatures_verify() {
    for kind in ["rsa", "ed25519"] {
        let session = session(kind);
        let first = &session.ike_sas()[0];
        let handshake = Handshake::of(&session, first);
        let key_i = public_key(kind, &session.hex("public_i"));
        let key_r = public_key(kind, &session.hex("public_r"));
        let options = SignatureOptions::default();

        let (octets, data) = handshake.initiator(first);
        let keys = std::slice::from_ref(&key_i);
        assert!(verify_signature(keys, &octets, proof(&data), options).is_ok());
        let wrong = verify_signature(std::slice::from_ref(&key_r), &octets, proof(&data), options);
        assert!(matches!(wrong, Err(AuthError::WrongKey { tried: 1, .. })));

        let (octets, data) = handshake.responder(first).unwrap();
        let keys = [key_i, key_r];
        assert!(verify_signature(&keys, &octets, proof(&data), options).is_ok());
    }
}

#[test]
fn refusals_say_what_they_are_about() {
    let notifies = |name: &str| -> Vec<NotifyType> {
        let session = session(name);
        let sas = session.ike_sas();
        let types = |payloads: &[RawPayload<'_>]| -> Vec<_> {
            let notify = |payload| match payload {
                Payload::Notify(notify) => Some(notify.ty),
                _ => None,
            };
            decode(payloads).into_iter().filter_map(notify).collect()
        };
        let mut all = Vec::new();
        for datagram in &session.datagrams {
            let message = Message::parse(datagram).unwrap();
            match open(&sas, &message) {
                Some(plain) => {
                    let first = message.payloads.last().unwrap().next;
                    all.extend(types(&parse_chain(first, &plain).unwrap()));
                }
                None => all.extend(types(&message.payloads)),
            }
        }
        all
    };
    assert!(notifies("wrong-psk").contains(&NotifyType::AUTHENTICATION_FAILED));
    assert!(notifies("no-proposal").contains(&NotifyType::NO_PROPOSAL_CHOSEN));
    assert!(notifies("rekey-by-initiator").contains(&NotifyType::REKEY_SA));

    let session = session("cookie-invalid-ke");
    let parse = |index: usize| Message::parse(&session.datagrams[index]).unwrap();
    let (asked, repeated, refused) = (parse(1), parse(2), parse(3));
    let cookie = first_notify(&asked);
    assert!(cookie.as_cookie().is_some());
    assert_eq!(
        first_notify(&repeated),
        cookie,
        "the cookie comes first in the repeated request"
    );
    assert_eq!(
        first_notify(&refused).as_invalid_ke(),
        Some(KeMethod::ECP_256)
    );
}

/// Payloads out of raw ones.
fn decode<'a>(payloads: &[RawPayload<'a>]) -> Vec<Payload<'a>> {
    payloads.iter().map(|raw| raw.decode().unwrap()).collect()
}

fn first_notify<'a>(message: &Message<'a>) -> obol_ike::wire::Notify<'a> {
    match message.payloads[0].decode().unwrap() {
        Payload::Notify(notify) => notify,
        other => panic!("{other:?}"),
    }
}

fn proof((method, data): &(obol_ike::wire::AuthMethod, Vec<u8>)) -> Proof<'_> {
    Proof {
        method: *method,
        data,
    }
}

/// What is inside the Encrypted payload, if there is one.
fn open(sas: &[IkeSa], message: &Message<'_>) -> Option<Vec<u8>> {
    let sk = message.protected().unwrap()?;
    let header = &message.header;
    let sa = sas
        .iter()
        .find(|sa| (sa.spi_i, sa.spi_r) == (header.spi_i, header.spi_r))?;
    let ciphers = sa.keys.ciphers().unwrap();
    let cipher = if header.flags.initiator {
        &ciphers.from_initiator
    } else {
        &ciphers.from_responder
    };
    let from = sk.aad.len();
    Some(
        cipher
            .open(message.octets, from..message.octets.len())
            .unwrap(),
    )
}

type AuthData = (obol_ike::wire::AuthMethod, Vec<u8>);

/// The four messages of a session that authentication is about.
struct Handshake<'a> {
    init_request: &'a [u8],
    init_reply: &'a [u8],
    auth_request: Vec<u8>,
    auth_request_first: PayloadType,
    auth_reply: Vec<u8>,
    auth_reply_first: PayloadType,
    ni: Vec<u8>,
    nr: Vec<u8>,
}

impl<'a> Handshake<'a> {
    fn of(session: &'a Session, sa: &IkeSa) -> Self {
        let sas = session.ike_sas();
        let find = |exchange, response| {
            let wanted = |datagram: &&Vec<u8>| {
                let header = Message::parse(datagram).unwrap().header;
                header.exchange == exchange
                    && header.flags.response == response
                    && header.spi_i == sa.spi_i
            };
            // The last one: those before it were answered by COOKIE or INVALID_KE_PAYLOAD.
            session.datagrams.iter().rfind(wanted).unwrap().as_slice()
        };
        let inside = |response| {
            let message = Message::parse(find(ExchangeType::IKE_AUTH, response)).unwrap();
            let first = message.payloads[0].next;
            (open(&sas, &message).unwrap(), first)
        };
        let (auth_request, auth_request_first) = inside(false);
        let (auth_reply, auth_reply_first) = inside(true);
        let (ni, nr) = session.nonces("ike.0.nonces");
        Self {
            init_request: find(ExchangeType::IKE_SA_INIT, false),
            init_reply: find(ExchangeType::IKE_SA_INIT, true),
            auth_request,
            auth_request_first,
            auth_reply,
            auth_reply_first,
            ni,
            nr,
        }
    }

    fn initiator(&self, sa: &IkeSa) -> (InitiatorSignedOctets, AuthData) {
        let payloads = parse_chain(self.auth_request_first, &self.auth_request).unwrap();
        let (id, data) = id_and_auth(&payloads, PayloadType::ID_I).unwrap();
        let octets = InitiatorSignedOctets::new(self.init_request, &self.nr, &sa.keys, id);
        (octets, data)
    }

    /// `None` if the responder refused.
    fn responder(&self, sa: &IkeSa) -> Option<(ResponderSignedOctets, AuthData)> {
        let payloads = parse_chain(self.auth_reply_first, &self.auth_reply).unwrap();
        let (id, data) = id_and_auth(&payloads, PayloadType::ID_R)?;
        let octets = ResponderSignedOctets::new(self.init_reply, &self.ni, &sa.keys, id);
        Some((octets, data))
    }
}

fn id_and_auth<'a>(payloads: &[RawPayload<'a>], id: PayloadType) -> Option<(&'a [u8], AuthData)> {
    let id = payloads.iter().find(|payload| payload.ty == id)?.body;
    let auth = decode(payloads)
        .into_iter()
        .find_map(|payload| match payload {
            Payload::Auth(auth) => Some((auth.method, auth.data.to_vec())),
            _ => None,
        })?;
    Some((id, auth))
}

fn public_key(kind: &str, spki: &[u8]) -> PublicKey {
    if kind == "ed25519" {
        // RFC 8410: the key is the end of the structure.
        return PublicKey::ed25519(&spki[spki.len() - 32..]).unwrap();
    }
    let key = rsa::RsaPublicKey::from_public_key_der(spki).unwrap();
    PublicKey::rsa(&key.n().to_be_bytes(), &key.e().to_be_bytes()).unwrap()
}
