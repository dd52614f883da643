//! Of the acceptance list of what pluto's files mean, what no other test is about. `docs/pluto.md` says which tests hold
//! obol to the whole.

use std::os::unix::fs::symlink;

use base64ct::{Base64, Base64Unpadded, Encoding as _};
use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;

use super::keystore;
use super::keyword::Side;
use super::tests::{Files, host, rsa_key, story_files};
use super::values::Id;
use super::*;

const ENDS: &str = "\tleft=10.0.0.1\n\tright=10.0.0.2\n\tauthby=secret\n\tauto=add\n";

fn read(text: &str) -> Understood {
    Files::new(&[("ipsec.conf", text)]).load().unwrap()
}

/// The one error of the connection `bad`; another one, `good`, is there all the same.
fn alone(lines: &str) -> String {
    let text = format!("conn good\n{ENDS}conn bad\n{lines}\n\talso=good\n");
    let understood = read(&text);
    let names: Vec<&str> = understood.conns.iter().map(|c| &*c.name.value).collect();
    assert_eq!(names, ["good"], "{lines}");
    let [(name, errors)] = understood.refused.as_slice() else {
        panic!("{lines}: {:?}", understood.refused);
    };
    assert_eq!((&**name, errors.len()), ("bad", 1), "{lines}: {errors:?}");
    assert!(!errors[0].fix.is_empty(), "{lines}: no remedy");
    errors[0].to_string()
}

#[test]
fn a8_lines_that_count_and_lines_that_do_not() {
    for text in [
        "\tleft = 10.0.0.1   # here\n\tright=10.0.0.2\n",
        "\tleft=10.0.0.1\n# in between\n\n   # and here\n\tright=10.0.0.2\n",
        "\tleft=10.0.0.1\n\tright=10.0.0.2",
    ] {
        let understood = read(&format!("conn a\n\tauthby=secret\n\tauto=add\n{text}"));
        assert!(understood.notices.is_empty(), "{:?}", understood.notices);
        let [conn] = understood.conns.as_slice() else {
            panic!("{text}: {:?}", understood.refused);
        };
        let hosts = conn
            .ends
            .each_ref()
            .map(|end| orient::host_text(&end.host.value));
        assert_eq!(hosts, ["10.0.0.1", "10.0.0.2"], "{text}");
    }
    for (line, at) in [
        ("left=10.0.0.1", "5:1"),
        ("\tleft=10.0.0.1 10.0.0.2", "5:2"),
    ] {
        let text = format!("conn a\n\tauthby=secret\n\tright=10.0.0.2\n\n{line}\n");
        let error = Files::new(&[("ipsec.conf", &text)]).load().unwrap_err();
        let expected = format!("ipsec.conf:{at}: syntax error");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a8_carriage_returns_are_told_once_and_no_part_of_values() {
    let understood = read(&format!("conn a\n{ENDS}").replace('\n', "\r\n"));
    assert_eq!(understood.conns.len(), 1, "{:?}", understood.refused);
    let hosts = understood.conns[0].ends.each_ref();
    assert_eq!(orient::host_text(&hosts[0].host.value), "10.0.0.1");
    assert_eq!(understood.notices.len(), 1, "{:?}", understood.notices);
}

#[test]
fn a8_identities() {
    let text = format!("conn a\n\tleftid=@#0a0b\n\trightid=@b.example\n{ENDS}");
    let id = &read(&text).conns[0].end(Side::Left).id.clone();
    assert_eq!(*id, Id::Is("@#0a0b".parse().unwrap()));
    // A name in a directory takes a certificate to prove, which obol does not have.
    let error = alone("\tleftid=\"C=US, O=Ex Inc, CN=a\"");
    assert!(error.contains("leftid="), "{error}");
}

#[test]
fn a8_a_file_that_breaks_off_is_an_error_where_it_does() {
    for (text, at) in [
        ("conn a\n\tleftid=\"@a", "2:9"),
        ("conn a\n\tleftsubnets={10.0.0.0/24", "2:14"),
        ("conn a\n\tlef", "2:2"),
        ("conn", "1:1"),
        ("conf", "1:1"),
    ] {
        let error = Files::new(&[("ipsec.conf", text)]).load().unwrap_err();
        let expected = format!("ipsec.conf:{at}: syntax error");
        assert!(error.starts_with(&expected), "{text}: {error}");
        assert_eq!(error.matches("syntax error").count(), 1, "{error}");
    }
    // A line that is whole by chance is one.
    assert_eq!(read(&format!("conn a\n{}", ENDS.trim_end())).conns.len(), 1);
}

#[test]
fn a8_files_that_include_each_other_are_read_and_told() {
    let loop_of_two = Files::new(&[
        ("ipsec.conf", "include a.conf\n"),
        ("a.conf", "include b.conf\n"),
        ("b.conf", "include a.conf\n"),
    ]);
    let understood = loop_of_two.load().unwrap();
    let told = understood.notices.iter();
    let told: Vec<&str> = told.map(|notice| &*notice.message).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("too many includes"), "{told:?}");
    // A file that cannot be read is one that somebody meant to load.
    let dangling = Files::new(&[("ipsec.conf", "include d/*.conf\n"), ("d/a.conf", "")]);
    symlink("/nonexistent", dangling.0.join("d/b.conf")).unwrap();
    let error = dangling.load().unwrap_err();
    assert!(error.contains("d/b.conf"), "{error}");
}

#[test]
fn a12_forms_of_one_key_have_one_ckaid() {
    let text = rsa_key(9);
    let octets = Base64::decode_vec(&text[2..]).unwrap();
    let public = keyfile::parse_public(text.as_bytes()).unwrap();
    let spki = Base64::encode_string(&public.to_spki_der());
    let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    let unpadded = Base64Unpadded::encode_string(&octets);
    for line in [
        format!("\tleftrsasigkey={text}"),
        format!("\tleftrsasigkey=0s{unpadded}"),
        format!("\tleftrsasigkey=0x{hex}"),
        format!("\tleftpubkey={spki}"),
        format!("\tleftpubkey={}", spki.trim_end_matches('=')),
    ] {
        let understood = read(&format!("conn a\n{line}\n{ENDS}"));
        assert!(
            understood.refused.is_empty(),
            "{line}: {:?}",
            understood.refused
        );
        let key = understood.conns[0].end(Side::Left).key.clone().unwrap();
        assert_eq!(
            keystore::ckaid(&key.value),
            keystore::ckaid(&public),
            "{line}"
        );
    }
}

#[test]
fn a12_keys_on_curves_are_their_octets() {
    let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
    let mut keys = vec![("eddsakey", PrivateKey::generate_ed25519(rng).public())];
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        keys.push(("ecdsakey", PrivateKey::generate_ecdsa(curve, rng).public()));
    }
    for (keyword, public) in keys {
        let blob = keystore::blob(&public);
        let octets = Base64::decode_vec(&blob).unwrap();
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let mut lines = vec![
            format!("\tleft{keyword}=0s{blob}"),
            format!("\tleft{keyword}=0x{hex}"),
            format!(
                "\tleftpubkey={}",
                Base64::encode_string(&public.to_spki_der())
            ),
        ];
        if keyword == "ecdsakey" {
            lines.push(format!("\tleftecdsakey=0x04{hex}"));
        }
        for line in lines {
            let understood = read(&format!("conn a\n{line}\n{ENDS}"));
            assert!(
                understood.refused.is_empty(),
                "{line}: {:?}",
                understood.refused
            );
            let key = understood.conns[0].end(Side::Left).key.clone().unwrap();
            assert_eq!(key.value, public, "{line}");
        }
    }
}

#[test]
fn a12_keys_of_wrong_forms_refuse_their_connection() {
    let blob = |exponent: &[u8], modulus: &[u8]| {
        let octets = [&[exponent.len() as u8], exponent, modulus].concat();
        format!("0s{}", Base64::encode_string(&octets))
    };
    let modulus = |octets: usize| [&[0xc1], &vec![7; octets - 1][..]].concat();
    let whole = rsa_key(3);
    for (key, expected) in [
        ("leftrsasigkey=[...]".to_owned(), "expected 0s"),
        (format!("leftrsasigkey={}", &whole[2..]), "expected 0s"),
        (
            format!("leftrsasigkey={}", &whole[..whole.len() - 3]),
            "damaged or cut off",
        ),
        ("leftrsasigkey=0s".to_owned(), "damaged or cut off"),
        ("leftrsasigkey=0xfoo".to_owned(), "damaged or cut off"),
        ("leftrsasigkey=0sf////w==".to_owned(), "damaged or cut off"),
        (
            format!("leftrsasigkey={}", blob(&[1, 0, 1], &modulus(64))),
            "512 bits",
        ),
        // An exponent of 3 is what forged signatures begin with, so the peer has to make a new key.
        (
            format!("leftrsasigkey={}", blob(&[3], &modulus(256))),
            "exponent",
        ),
        (
            "leftpubkey=MIIBIj".to_owned(),
            "expected the base64 of a public key",
        ),
        ("lefteddsakey=0sAAAA".to_owned(), "32 octets"),
        ("leftecdsakey=0sAAAA".to_owned(), "64, 96 or 132 octets"),
        ("leftckaid=12".to_owned(), "40 hexadecimal digits"),
    ] {
        let error = alone(&format!("\t{key}"));
        assert!(error.contains(expected), "{key}: {error}");
        assert!(error.contains("ipsec.conf:7:"), "{key}: {error}");
    }
}

/// What `obol convert` writes of the proofs of both ends: the one line of each, if there is one.
fn signatures(authby: &str, key: &str) -> Vec<String> {
    let text = format!(
        "conn a\n\tleft=10.0.0.1\n\tright=10.0.0.2\n\tleft{key}\n\tright{key}\n\t{authby}\n\tauto=add\n"
    );
    let understood = read(&text);
    assert!(understood.refused.is_empty(), "{:?}", understood.refused);
    let ours = orient(&understood.conns[0], &host(&["10.0.0.1"])).unwrap();
    let toml = convert(&understood.setup, &[ours], &[]);
    let lines = toml
        .lines()
        .filter_map(|line| line.strip_prefix("signatures = "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a13_authby_says_which_signatures_are_made_and_taken() {
    let rng = &mut rand_core::UnwrapErr(getrandom::SysRng);
    let rsa = format!("rsasigkey={}", rsa_key(3));
    let curve = |curve| {
        let key = PrivateKey::generate_ecdsa(curve, rng).public();
        format!("ecdsakey=0s{}", keystore::blob(&key))
    };
    let [p256, p384] = [Curve::P256, Curve::P384].map(curve);
    for (authby, key, written) in [
        // Both forms of RSA.
        ("", &rsa, None),
        ("authby=rsasig", &rsa, None),
        ("authby=rsa", &rsa, None),
        ("authby=rsasig,ecdsa", &rsa, None),
        ("authby=rsa-sha2,rsasig", &rsa, None),
        // RSASSA-PSS alone.
        ("authby=rsa-sha2", &rsa, Some("[\"rsa-pss\"]")),
        ("authby=RSA-SHA2", &rsa, Some("[\"rsa-pss\"]")),
        ("authby=rsa-sha2_256", &rsa, Some("[\"rsa-pss-sha256\"]")),
        ("authby=rsa-sha2_384", &rsa, Some("[\"rsa-pss-sha384\"]")),
        ("authby=rsa-sha2_512", &rsa, Some("[\"rsa-pss-sha512\"]")),
        (
            "authby=rsa-sha2_512,rsa-sha2_384",
            &rsa,
            Some("[\"rsa-pss-sha384\", \"rsa-pss-sha512\"]"),
        ),
        ("leftauth=rsasig\n\trightauth=rsasig", &rsa, None),
        ("", &p256, None),
        ("authby=ecdsa", &p256, None),
        ("authby=ecdsa-sha2", &p384, None),
        ("authby=ecdsa-sha2_384", &p384, Some("[\"ecdsa-sha384\"]")),
        ("authby=ecdsa-sha2_512", &p256, Some("[\"ecdsa-sha512\"]")),
    ] {
        let both = vec![written.unwrap_or_default().to_owned(); 2];
        let expected = if written.is_some() { both } else { Vec::new() };
        assert_eq!(signatures(authby, key), expected, "{authby}");
    }
}

#[test]
fn a13_authby_that_keys_do_not_go_with_refuses_the_conn() {
    let rsa = format!("\tleftrsasigkey={}\n", rsa_key(3));
    for (lines, expected) in [
        (
            format!("{rsa}\tauthby=ecdsa"),
            "the key is RSA 2048, and authby is for ecdsa",
        ),
        (
            format!("{rsa}\tauthby=eddsa,ecdsa-sha2_256"),
            "the key is RSA 2048",
        ),
        ("\tauthby=rsa-sha1".to_owned(), "SHA-1"),
        ("\tauthby=rsa-sha2,rsa-sha1".to_owned(), "SHA-1"),
        ("\tauthby=ecdsa-sha1".to_owned(), "write ecdsa"),
        ("\tauthby=rsa-sha3".to_owned(), "authby=rsa-sha3 is unknown"),
        ("\tauthby=x".to_owned(), "write secret, rsasig, rsa-sha2"),
    ] {
        let error = alone(&lines);
        assert!(error.contains(expected), "{lines}: {error}");
    }
}

#[test]
fn both_ends_or_neither_are_this_hosts() {
    let text = format!("conn a\n{ENDS}");
    let understood = read(&text);
    let why = |addrs: &[&str]| match orient(&understood.conns[0], &host(addrs)) {
        Ok(_) => String::new(),
        Err(why) => why.to_string(),
    };
    assert_eq!(why(&["10.0.0.2"]), "");
    assert_eq!(
        why(&["10.0.0.1", "10.0.0.2"]),
        "connection matches both left 10.0.0.1 and right 10.0.0.2"
    );
    assert_eq!(
        why(&["10.0.0.3"]),
        "neither left=10.0.0.1 nor right=10.0.0.2 match an interface"
    );
}

#[test]
fn secrets_that_cannot_be_read_are_one_error() {
    let files = Files::new(&[("ipsec.secrets/nothing", "")]);
    let path = files.0.join("ipsec.secrets");
    let error = secrets::read(&path).unwrap_err();
    assert_eq!(error.0.len(), 1, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("ipsec.secrets") && text.contains("no regular file"),
        "{text}"
    );
}

/// What `obol convert` prints is a configuration that means the same.
#[test]
fn the_story_as_toml() {
    let understood = story_files().load().unwrap();
    let view = host(&["192.168.0.1"]);
    let ours: Vec<Oriented<'_>> = understood
        .conns
        .iter()
        .filter_map(|c| orient(c, &view).ok())
        .collect();
    let toml = convert(&understood.setup, &ours, &[]);
    let error = crate::config::parse_str("a.toml", &toml, &crate::config::files::NoFiles)
        .unwrap_err()
        .to_string();
    // All but the private key, which is not in these files, is right.
    assert!(
        error.contains("own.key") && !error.contains("a.toml:1:"),
        "{error}\n{toml}"
    );
    assert!(!error.contains("errors"), "{error}\n{toml}");
    assert_eq!(
        toml.matches("[connections.hostA-hostB]").count(),
        1,
        "{toml}"
    );
    assert_eq!(toml.matches(".children.").count(), 4, "{toml}");
}
