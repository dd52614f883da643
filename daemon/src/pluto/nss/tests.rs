use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use obol_ike::crypto::signature::SignatureScheme;

use super::*;

/// A directory with a copy of one of the databases of `testdata`, that goes when it is dropped.
struct Copied(PathBuf);

impl Copied {
    fn of(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("obol-nss-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::copy(database(name).join(FILE), directory.join(FILE)).unwrap();
        Self(directory)
    }

    fn password(&self, text: &str) {
        fs::write(self.0.join(PASSWORD_FILE), text).unwrap();
    }

    /// Changes the database as SQL says.
    fn change(&self, sql: &str) {
        let connection = Connection::open(self.0.join(FILE)).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    fn error(&self) -> String {
        let error = read(&self.0).expect_err("must not be read").to_string();
        error.replace(&self.0.display().to_string(), "DIR")
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn database(name: &str) -> PathBuf {
    let testdata = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/nss");
    PathBuf::from(testdata).join(name)
}

/// What `ipsec showhostkey --left` printed for the key of a database.
fn shown(name: &str) -> String {
    let text = fs::read_to_string(database(name).join("leftrsasigkey")).unwrap();
    text.trim().to_owned()
}

/// The key is the one that pluto shows, and its private half is the one of its public half.
fn check_key(key: &NssKey, shown: &str, ckaid: &str) {
    assert_eq!(key.ckaid, ckaid);
    let public = key.key.public();
    assert_eq!(public.to_rfc3110().as_deref(), Some(shown));
    assert_eq!(crate::pluto::keystore::ckaid(&public), ckaid);
    let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
    let scheme = SignatureScheme::RsaPssSha256;
    let signature = key.key.sign(scheme, b"octets", &mut rng).unwrap();
    public.verify(scheme, b"octets", &signature).unwrap();
}

#[test]
fn keys_that_two_versions_of_pluto_made() {
    let table = [
        ("libreswan-4.10", "6a4d0d1efb18011de7a576b0280149650d924852"),
        ("libreswan-5.2", "ceb7b8a131615097ffb7edf7330253e41d416c05"),
    ];
    for (name, ckaid) in table {
        let found = read(&database(name)).unwrap();
        assert!(found.others.is_empty(), "{:?}", found.others);
        let [key] = found.keys.as_slice() else {
            panic!("{name}: {:?}", found.keys)
        };
        check_key(key, &shown(name), ckaid);
    }
}

#[test]
fn a_password_opens_the_database_and_another_one_does_not() {
    let copied = Copied::of("password");
    for text in [
        "test-only\n",
        "\n NSS Certificate DB:test-only\n",
        "other:x\nNSS FIPS 140-2 Certificate DB:test-only",
    ] {
        copied.password(text);
        let found = read(&copied.0).unwrap();
        let [key, ecdsa] = found.keys.as_slice() else {
            panic!("{:?}", found.keys)
        };
        check_key(
            key,
            &shown("password"),
            "2de67f9e49599cf9f48d7b1dedf2cd040e2f7716",
        );
        // One that pluto made.
        assert_eq!(ecdsa.ckaid, "1f82121ce43a8afe101f648d43ebb9ac52aea865");
        let public = ecdsa.key.public();
        assert_eq!(crate::pluto::keystore::ckaid(&public), ecdsa.ckaid);
    }
    for text in ["", "wrong", "other:test-only\n"] {
        copied.password(text);
        let error = copied.error();
        assert_eq!(
            error,
            "the password of DIR/key4.db is neither in DIR/nsspassword nor in /etc/ipsec.d/nsspassword, and is not empty",
        );
    }
}

#[test]
fn no_database_or_an_old_one() {
    let copied = Copied::of("libreswan-5.2");
    fs::remove_file(copied.0.join(FILE)).unwrap();
    assert_eq!(copied.error(), "there is no key4.db in DIR");
    fs::write(copied.0.join(BERKELEY), "").unwrap();
    assert_eq!(
        copied.error(),
        "DIR has the old Berkeley database; convert it with `certutil -K -d sql:DIR`"
    );
}

#[test]
fn a_damaged_database_is_one_error() {
    let copied = Copied::of("libreswan-5.2");
    let good = fs::read(copied.0.join(FILE)).unwrap();
    for octets in [&b"no database at all"[..], &good[..4096], &[]] {
        fs::write(copied.0.join(FILE), octets).unwrap();
        let error = copied.error();
        assert!(error.starts_with("DIR/key4.db: "), "{error}");
    }
    // Every page may be damaged: the keys are found, or not, or there is an error.
    for page in 0..good.len() / 1024 {
        let mut octets = good.clone();
        octets[page * 1024 + 100..][..64].fill(0xa5);
        fs::write(copied.0.join(FILE), octets).unwrap();
        let _ = read(&copied.0);
    }
}

#[test]
fn a_damaged_key_is_named_with_the_reason() {
    let table = [
        ("a123 = x'3000'", "an attribute of it is damaged"),
        ("a123 = x'a5005a'", "an attribute of it is damaged"),
        ("a123 = NULL", "an attribute of it is damaged"),
        ("a124 = a125", "its numbers are no RSA key that obol takes"),
        ("a120 = x''", "its numbers are no RSA key that obol takes"),
        (
            "a100 = x'00000001'",
            "it is of a kind that obol does not have",
        ),
        ("a100 = x''", "it is of a kind that obol does not have"),
    ];
    for (change, expected) in table {
        let copied = Copied::of("libreswan-5.2");
        copied.change(&format!("UPDATE nssPrivate SET {change}"));
        let found = read(&copied.0).unwrap();
        assert!(found.keys.is_empty(), "{change}: {:?}", found.keys);
        let [(ckaid, why)] = found.others.as_slice() else {
            panic!("{change}: {:?}", found.others)
        };
        assert_eq!(ckaid, "ceb7b8a131615097ffb7edf7330253e41d416c05");
        assert_eq!(*why, expected, "{change}");
    }
    let copied = Copied::of("libreswan-5.2");
    copied.change("DELETE FROM metaData WHERE id = 'password'");
    let error = copied.error();
    assert!(error.starts_with("DIR/key4.db: "), "{error}");
    let copied = Copied::of("libreswan-5.2");
    copied.change("UPDATE nssPrivate SET a123 = 'text'");
    assert!(copied.error().starts_with("DIR/key4.db: "));
}

/// Keys of NSS itself, with the public halves that its certificates show.
#[test]
fn keys_on_curves() {
    let directory = database("ecdsa");
    let found = read(&directory).unwrap();
    assert_eq!(found.others, []);
    let ckaids: Vec<&str> = found.keys.iter().map(|own| &*own.ckaid).collect();
    let expected = [
        "0ca61efa94b5a1ed771ecff62c515ab4ef180f3a",
        "9d41a871a4fa0a049391ba7c0e4f8ff063eb96f4",
    ];
    assert_eq!(ckaids, expected);
    for (own, name) in found.keys.iter().zip(["nistp256", "nistp384"]) {
        let pem = fs::read(directory.join(format!("{name}.pem"))).unwrap();
        let public = keyfile::parse_public(&pem).unwrap();
        assert_eq!(own.key.public(), public, "{name}");
        assert_eq!(crate::pluto::keystore::ckaid(&public), own.ckaid, "{name}");
    }
}
