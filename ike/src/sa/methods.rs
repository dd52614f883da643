//! SUPPORTED_AUTH_METHODS, RFC 9593: each end tells how the other may prove itself, so that who
//! has a choice makes the one that is accepted.

use crate::config::Connection;
use crate::crypto::signature::{PublicKey, SignatureScheme, Signatures};
use crate::sa::payloads::Payloads;
use crate::wire::{AuthMethod, HashId, Notify, NotifyType};

/// Announcements looked at in one list.
const MAX_ANNOUNCEMENTS: usize = 32;

/// One way to prove oneself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    Psk,
    Signature(SignatureScheme),
}

/// What a peer announces that it accepts, or what we do. Ways that obol does not know are left
/// out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct AuthMethods(Vec<Method>);

impl AuthMethods {
    /// What one of these connections accepts of a peer, the best first.
    pub(crate) fn accepted_by<'a>(connections: impl Iterator<Item = &'a Connection>) -> Self {
        let mut methods = Vec::new();
        for connection in connections {
            let remote = &connection.remote;
            let keys = remote.method.keys();
            let schemes = keys.iter().flat_map(|key| key.schemes()).copied();
            let old = |key: &PublicKey| key.old_scheme(connection.allow_sha1_rsa);
            let schemes = schemes.chain(keys.iter().filter_map(old));
            let schemes = schemes.filter(|scheme| remote.signatures.contains(*scheme));
            methods.extend(schemes.map(Method::Signature));
            methods.extend(remote.method.takes_psk().then_some(Method::Psk));
        }
        let mut known = Vec::new();
        for method in methods {
            if !known.contains(&method) {
                known.push(method);
            }
        }
        Self(known)
    }

    /// What the peer announces; `None` if it does not, or nothing in particular (RFC 9593
    /// section 3.1: an empty list asks for an exchange that obol does not have).
    pub(crate) fn announced(payloads: &Payloads<'_>) -> Option<Self> {
        let mut rest = &*payloads.notify(NotifyType::SUPPORTED_AUTH_METHODS)?.data;
        let (mut methods, mut count) = (Vec::new(), 0);
        while let Some((&len, _)) = rest.split_first() {
            let (announcement, others) = rest.split_at_checked(usize::from(len))?;
            let (&method, data) = announcement.get(1..)?.split_first()?;
            methods.extend(Method::read(AuthMethod(method), data));
            (rest, count) = (others, count + 1);
            if count == MAX_ANNOUNCEMENTS {
                break;
            }
        }
        (count > 0).then_some(Self(methods))
    }

    /// The list as a notify, RFC 9593 section 3.2.
    pub(crate) fn notify(&self) -> Notify<'static> {
        let data: Vec<u8> = self.0.iter().flat_map(|method| method.write()).collect();
        Notify::with_data(NotifyType::SUPPORTED_AUTH_METHODS, data)
    }

    /// Whether a shared secret is accepted.
    pub(crate) fn takes_psk(&self) -> bool {
        self.0.contains(&Method::Psk)
    }

    /// The best scheme of these for a key that is accepted, with a hash that the peer knows (RFC 7427).
    pub(crate) fn choose(
        &self,
        key: &PublicKey,
        hashes: Option<&[HashId]>,
        allow_sha1: bool,
        among: Signatures,
    ) -> Option<SignatureScheme> {
        let accepted = |scheme: &SignatureScheme| {
            among.contains(*scheme) && self.0.contains(&Method::Signature(*scheme))
        };
        let hash_fits = |scheme: &SignatureScheme| match hashes {
            Some(hashes) => hashes.contains(&scheme.hash()),
            None => false,
        };
        let mut schemes = key.schemes().iter().copied();
        let best = schemes.find(|scheme| accepted(scheme) && hash_fits(scheme));
        best.or_else(|| key.old_scheme(allow_sha1).filter(accepted))
    }
}

/// For people: `psk, RSA PSS with SHA-256`.
impl std::fmt::Display for AuthMethods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |method: &Method| match method {
            Method::Psk => "psk".to_owned(),
            Method::Signature(scheme) => scheme.to_string(),
        };
        let words: Vec<String> = self.0.iter().map(words).collect();
        match words.is_empty() {
            true => f.write_str("nothing that obol knows"),
            false => f.write_str(&words.join(", ")),
        }
    }
}

impl Method {
    /// Reads what follows Length and Auth Method: nothing, a link to a CA, or such a link and an
    /// AlgorithmIdentifier (RFC 9593 sections 3.2.1 to 3.2.3).
    fn read(method: AuthMethod, data: &[u8]) -> Option<Self> {
        match (method, data) {
            (AuthMethod::SHARED_KEY, []) => Some(Self::Psk),
            (old, [_]) if old != AuthMethod::DIGITAL_SIGNATURE => {
                SignatureScheme::of_method(old).map(Self::Signature)
            }
            (AuthMethod::DIGITAL_SIGNATURE, [_, algorithm @ ..]) => {
                let len = u8::try_from(algorithm.len()).ok()?;
                let data = [&[len], algorithm].concat();
                let (scheme, _) = SignatureScheme::from_auth_data(&data).ok()?;
                Some(Self::Signature(scheme))
            }
            _ => None,
        }
    }

    /// The whole announcement. Its link to a CA is 0: none in particular.
    fn write(self) -> Vec<u8> {
        let (method, data) = match self {
            Self::Psk => (AuthMethod::SHARED_KEY, Vec::new()),
            Self::Signature(scheme) if scheme.method() != AuthMethod::DIGITAL_SIGNATURE => {
                (scheme.method(), vec![0])
            }
            Self::Signature(scheme) => {
                // In AUTH, the length of the AlgorithmIdentifier stands where the link is here.
                let mut data = scheme.to_auth_data(&[]);
                if let Some(link) = data.first_mut() {
                    *link = 0;
                }
                (AuthMethod::DIGITAL_SIGNATURE, data)
            }
        };
        let len = u8::try_from(2 + data.len()).expect("the longest is 75 octets");
        [&[len, method.0], data.as_slice()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(data: &[u8]) -> Option<AuthMethods> {
        let mut payloads = Payloads::default();
        let ty = NotifyType::SUPPORTED_AUTH_METHODS;
        payloads.notifies.push(Notify::with_data(ty, data.to_vec()));
        AuthMethods::announced(&payloads)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut all = vec![Method::Psk, Method::Signature(SignatureScheme::Ed25519)];
        all.push(Method::Signature(SignatureScheme::RsaPkcs1Sha1));
        all.push(Method::Signature(SignatureScheme::EcdsaP384));
        all.push(Method::Signature(SignatureScheme::EcdsaSha512));
        all.extend(SignatureScheme::RSA.map(Method::Signature));
        let all = AuthMethods(all);
        let data = all.notify().data.into_owned();
        assert_eq!(announced(&data), Some(all));
        // The forms of RFC 9593 sections 3.2.1 and 3.2.2.
        assert_eq!(Method::Psk.write(), [2, 2]);
        let sha1 = Method::Signature(SignatureScheme::RsaPkcs1Sha1);
        assert_eq!(sha1.write(), [3, 1, 0]);
        let ed25519 = Method::Signature(SignatureScheme::Ed25519).write();
        assert_eq!(ed25519, [10, 14, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70]);
    }

    #[test]
    fn a_broken_list_is_none_and_unknown_ways_are_skipped() {
        for broken in [&[0][..], &[1], &[2], &[3, 2], &[2, 2, 9], &[2, 2, 0, 2]] {
            assert_eq!(announced(broken), None, "{broken:?}");
        }
        assert_eq!(announced(&[]), None, "an empty list says nothing");
        let list = [2, 77, 5, 14, 0, 1, 2, 3, 3, 0, 2, 14, 3, 2, 0, 2, 2];
        assert_eq!(announced(&list), Some(AuthMethods(vec![Method::Psk])));
        assert_eq!(announced(&[2, 77]), Some(AuthMethods(Vec::new())));
        let long = [2, 2].repeat(1000);
        assert_eq!(
            announced(&long).map(|list| list.0.len()),
            Some(MAX_ANNOUNCEMENTS)
        );
    }

    #[test]
    fn the_best_that_is_accepted_is_chosen() {
        use SignatureScheme as S;
        let key = PublicKey::rsa(&[0xff; 256], &[1, 0, 1]).expect("of a legal size");
        let list =
            |schemes: &[S]| AuthMethods(schemes.iter().copied().map(Method::Signature).collect());
        let all = [HashId::SHA2_256, HashId::SHA2_384, HashId::SHA2_512];
        let cases = [
            (
                &[S::RsaPkcs1Sha384, S::RsaPssSha512][..],
                &all[..],
                Some(S::RsaPssSha512),
            ),
            (&[S::RsaPkcs1Sha384], &all, Some(S::RsaPkcs1Sha384)),
            (&[S::RsaPkcs1Sha384], &all[..1], None),
            (&[S::Ed25519], &all, None),
            (&[S::RsaPkcs1Sha1], &all, None),
            (&[], &all, None),
        ];
        for (accepted, hashes, chosen) in cases {
            let list = list(accepted);
            let among = Signatures::ALL;
            assert_eq!(
                list.choose(&key, Some(hashes), false, among),
                chosen,
                "{list}"
            );
            assert!(!list.takes_psk());
        }
        let sha1 = list(&[S::RsaPkcs1Sha1]);
        let among = Signatures::ALL;
        assert_eq!(sha1.choose(&key, None, true, among), Some(S::RsaPkcs1Sha1));
        assert_eq!(
            list(&[S::RsaPssSha256]).choose(&key, None, true, among),
            None,
            "RFC 7427"
        );
        let pss = "rsa-pss".parse().expect("a word");
        assert_eq!(sha1.choose(&key, None, true, pss), None);
        let both = list(&[S::RsaPkcs1Sha256, S::RsaPssSha512]);
        assert_eq!(
            both.choose(&key, Some(&all), false, pss),
            Some(S::RsaPssSha512)
        );
        let pkcs1 = "rsa-pkcs1".parse().expect("a word");
        assert_eq!(
            both.choose(&key, Some(&all), false, pkcs1),
            Some(S::RsaPkcs1Sha256)
        );
    }
}
