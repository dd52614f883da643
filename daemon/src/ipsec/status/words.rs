//! pluto's words for what obol calls otherwise.

use obol_ike::identity::Identity;

use crate::control::protocol::{AuthReport, ChildSaReport, ConnectionReport, IkeSaReport};

/// pluto counts all SAs by one number; obol counts IKE SAs and Child SAs apart.
pub(in crate::ipsec) fn ike_number(sa: &IkeSaReport) -> u64 {
    numbered(sa.id)
}

/// The same of an IKE SA with obol's number.
pub(in crate::ipsec) fn numbered(id: u64) -> u64 {
    (2 * id).saturating_sub(1)
}

/// The same of a Child SA.
pub(in crate::ipsec) fn child_number(child: &ChildSaReport) -> u64 {
    2 * child.id
}

/// Selectors as pluto writes them: `10.1.0.0/24`, `192.0.2.1/32/TCP/27017`.
pub(in crate::ipsec) fn client(selectors: &[String]) -> String {
    let one = |selector: &String| {
        let (address, rest) = selector.split_once('[').unwrap_or((selector, ""));
        let whole = match address {
            range if range.contains('-') || range.contains('/') => range.to_owned(),
            v6 if v6.contains(':') => format!("{v6}/128"),
            v4 => format!("{v4}/32"),
        };
        match rest.trim_end_matches(']') {
            "" => whole,
            protocol => format!("{whole}/{}", protocol.to_uppercase()),
        }
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The same in the way of 4.x: `10.1.0.0-10.1.0.255:0-65535 0`.
pub(super) fn range(selectors: &[String]) -> String {
    let one = |selector: &String| {
        let Ok(ts) = selector.parse::<obol_ike::ts::TrafficSelector>() else {
            return selector.clone();
        };
        format!(
            "{}-{}:{}-{} {}",
            ts.start, ts.end, ts.start_port, ts.end_port, ts.protocol
        )
    };
    selectors.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(in crate::ipsec) fn local_id(connection: &ConnectionReport) -> String {
    let address = connection
        .local_addrs
        .first()
        .map_or("%any", String::as_str);
    connection
        .local
        .id
        .as_deref()
        .map_or(address.to_owned(), written)
}

pub(in crate::ipsec) fn remote_id(connection: &ConnectionReport) -> String {
    connection
        .remote
        .id
        .as_deref()
        .map_or("%any".to_owned(), written)
}

/// An identity as pluto writes it: with `@` before a name.
pub(in crate::ipsec) fn written(id: &str) -> String {
    match id.parse() {
        Ok(Identity::Fqdn(_)) if !id.starts_with('@') => format!("@{id}"),
        _ => id.to_owned(),
    }
}

/// pluto's word for the kind of an identity.
pub(in crate::ipsec) fn id_type(id: &str) -> &'static str {
    match id.parse() {
        Ok(Identity::Ipv4(_)) => "ID_IPV4_ADDR",
        Ok(Identity::Ipv6(_)) => "ID_IPV6_ADDR",
        Ok(Identity::Fqdn(_)) => "ID_FQDN",
        Ok(Identity::Rfc822(_)) => "ID_USER_FQDN",
        Ok(Identity::KeyId(_)) => "ID_KEY_ID",
        _ => "%none",
    }
}

/// `AES_GCM_16_256-HMAC_SHA2_512-DH19`.
pub(super) fn ike_algorithms(sa: &IkeSaReport) -> Option<String> {
    let algorithms = sa.algorithms.as_ref()?;
    Some(format!(
        "{}-{}-{}",
        algorithms.encr.replace('-', "_"),
        algorithms.prf.trim_start_matches("PRF_"),
        key_exchange(&algorithms.ke)
    ))
}

pub(super) fn esp_algorithms(child: &ChildSaReport) -> String {
    let integ = child.integ.as_deref().unwrap_or("NONE");
    format!(
        "{}-{}",
        child.encr.replace('-', "_"),
        integ.trim_start_matches("AUTH_")
    )
}

/// pluto names the elliptic curves by number.
pub(in crate::ipsec) fn key_exchange(ke: &str) -> String {
    match ke {
        "ECP_256" => "DH19".to_owned(),
        "ECP_384" => "DH20".to_owned(),
        "ECP_521" => "DH21".to_owned(),
        "CURVE25519" => "DH31".to_owned(),
        modp => modp.replacen("MODP_", "MODP", 1),
    }
}

/// `RSASIG`, `ECDSA`, `EDDSA`, `RSASIG_v1_5`: the signatures of one side; none, where it has a shared secret.
pub(super) fn signatures(side: &AuthReport) -> Vec<&'static str> {
    // What the words of obol begin with, and keys as they are reported.
    let kinds = [
        ("RSASIG", "rsa-pss", "0s"),
        ("ECDSA", "ecdsa", "ecdsa-"),
        ("EDDSA", "ed25519", "ssh-ed25519"),
        ("RSASIG_v1_5", "rsa-pkcs1", "0s"),
    ];
    let begins = |list: &[String], with: &str| list.iter().any(|text| text.starts_with(with));
    let made = kinds.into_iter().filter(|(_, word, key)| {
        let is_let = side.signatures.is_empty() || begins(&side.signatures, word);
        is_let && begins(&side.keys, key)
    });
    made.map(|(name, ..)| name).collect()
}

/// `SHA2_256`, `SHA2_384`, `SHA2_512`: the hashes of these signatures.
pub(super) fn hashes(side: &AuthReport) -> Vec<&'static str> {
    let all = [
        ("SHA2_256", "-sha256"),
        ("SHA2_384", "-sha384"),
        ("SHA2_512", "-sha512"),
    ];
    let uses = |ending: &str| {
        let mut words = side.signatures.iter();
        side.signatures.is_empty()
            || words.any(|word| word.ends_with(ending) || !word.contains("-sha"))
    };
    let used = all.into_iter().filter(|(_, ending)| uses(ending));
    used.map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_have_plutos_names() {
        let side = |key: &str, words: &[&str]| AuthReport {
            auth: "pubkey".to_owned(),
            id: None,
            keys: vec![key.to_owned()],
            signatures: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let rsa = "0sAwEAAb";
        for (key, words, expected, of) in [
            (
                rsa,
                &[][..],
                "RSASIG+RSASIG_v1_5",
                "SHA2_256+SHA2_384+SHA2_512",
            ),
            (rsa, &["rsa-pss"], "RSASIG", "SHA2_256+SHA2_384+SHA2_512"),
            (rsa, &["rsa-pss-sha512"], "RSASIG", "SHA2_512"),
            (
                rsa,
                &["ecdsa", "rsa-pkcs1-sha256"],
                "RSASIG_v1_5",
                "SHA2_256+SHA2_384+SHA2_512",
            ),
            (
                "ecdsa-sha2-nistp384 AAAA",
                &["ecdsa-sha384"],
                "ECDSA",
                "SHA2_384",
            ),
            (
                "ssh-ed25519 AAAA",
                &[],
                "EDDSA",
                "SHA2_256+SHA2_384+SHA2_512",
            ),
        ] {
            let side = side(key, words);
            assert_eq!(signatures(&side).join("+"), expected, "{words:?}");
            assert_eq!(hashes(&side).join("+"), of, "{words:?}");
        }
        let psk = AuthReport {
            keys: Vec::new(),
            ..side(rsa, &[])
        };
        assert!(signatures(&psk).is_empty());
    }
}
