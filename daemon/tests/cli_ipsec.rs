//! `ipsec` from outside where no daemon is needed: keys of this host, and the check of a configuration.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("obol-ipsec-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Exit code, standard output and standard error of `ipsec` with these words.
    fn ipsec(&self, line: &str) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_obol"))
            .arg("ipsec")
            .args(line.split_whitespace())
            .current_dir(&self.0)
            .output()
            .unwrap();
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        let code = output.status.code().unwrap();
        (code, text(output.stdout), text(output.stderr))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes a key, and returns its CKAID.
fn new_key(directory: &Directory, options: &str, kind: &str) -> String {
    let (code, out, said) = directory.ipsec(&format!("newhostkey --nssdir nss {options}"));
    assert_eq!((code, out.as_str()), (0, ""), "{said}");
    let ckaid = said.split("with CKAID ").nth(1).unwrap();
    let ckaid = ckaid.split_whitespace().next().unwrap().to_owned();
    let expected = format!(
        "Generated {kind} key pair with CKAID {ckaid} was stored in nss/obol-keys\n\
         The public key can be displayed using: ipsec showhostkey --left --ckaid {ckaid}\n"
    );
    assert_eq!(said, expected);
    ckaid
}

#[test]
fn keys_of_obols_own_are_made_and_shown_in_all_forms() {
    let directory = Directory::new("keys");
    let rsa = new_key(&directory, "--rsa --bits 2192", "RSA");
    let file = directory.0.join(format!("nss/obol-keys/{rsa}.pem"));
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&directory.0.join("nss/obol-keys")), 0o700);
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .starts_with("-----BEGIN PRIVATE KEY-----")
    );
    assert!(
        !directory.0.join("nss/key4.db").exists(),
        "NSS is not written"
    );
    let eddsa = new_key(&directory, "--keytype eddsa", "EdDSA");
    let ecdsa = new_key(&directory, "--keytype ecdsa", "ECDSA");

    let (code, list, _) = directory.ipsec("showhostkey --list --nssdir nss");
    assert_eq!(code, 0);
    assert_eq!(list.lines().count(), 3, "{list}");
    for (kind, ckaid) in [("RSA", &rsa), ("ECDSA", &ecdsa), ("EdDSA", &eddsa)] {
        let line = list.lines().find(|line| line.contains(ckaid)).unwrap();
        assert!(line.contains(&format!("> {kind} keyid: ")), "{line}");
        for (form, parts) in [
            (
                "--left",
                vec!["\t# ", "key ", "\tleft", "sigkey=0s", "dsakey=0s"],
            ),
            ("--right --pubkey", vec!["\trightpubkey=M"]),
            ("--ipseckey", vec![".    IN    IPSECKEY  10 0 "]),
            ("--pem", vec!["-----BEGIN PUBLIC KEY-----\n"]),
        ] {
            let line = format!("showhostkey {form} --ckaid {ckaid} --nssdir nss");
            let (code, shown, said) = directory.ipsec(&line);
            assert_eq!(code, 0, "{line}: {said}");
            assert!(
                parts.iter().any(|part| shown.contains(part)),
                "{line}: {shown}"
            );
        }
    }
    let (_, dump, _) = directory.ipsec("showhostkey --dump --nssdir nss");
    assert_eq!(dump, list);
    let (code, _, said) = directory.ipsec("showhostkey --left --nssdir nss");
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        directory
            .ipsec("showhostkey --left --ckaid 00 --nssdir nss")
            .0,
        20
    );
    assert_eq!(directory.ipsec("newhostkey --keytype dsa").0, 2);
}

#[test]
fn a_key_that_others_may_read_is_none() {
    let directory = Directory::new("open");
    let ckaid = new_key(&directory, "--eddsa", "EdDSA");
    let file = directory.0.join(format!("nss/obol-keys/{ckaid}.pem"));
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let (code, _, said) = directory.ipsec("showhostkey --list --nssdir nss");
    assert_eq!(code, 1);
    assert!(
        said.contains("is open to others") && said.contains("chmod 600"),
        "{said}"
    );
}

const CONNS: &str = "config setup\n\nconn a-b\n\tleft=192.0.2.1\n\tleftid=@a\n\tright=192.0.2.2\n\
                     \trightid=@b\n\tauthby=rsasig\n\tauto=start\n";

#[test]
fn a1_checkconfig_is_silent_or_says_why() {
    let directory = Directory::new("check");
    new_key(&directory, "--rsa --bits 2192", "RSA");
    let (_, key, _) = directory.ipsec("showhostkey --left --nssdir nss");
    let text = format!("{CONNS}{key}{}", key.replace("left", "right"));
    fs::write(directory.0.join("ipsec.conf"), &text).unwrap();
    let checked = directory.ipsec("checkconfig --config ipsec.conf");
    assert_eq!(checked, (0, String::new(), String::new()));
    assert_eq!(
        directory
            .ipsec("addconn --checkconfig --config ipsec.conf")
            .0,
        0
    );

    let text = format!("{CONNS}\tleftrsasigkey=[...]\n\trightrsasigkey=[...]\n");
    fs::write(directory.0.join("ipsec.conf"), &text).unwrap();
    let (code, _, said) = directory.ipsec("checkconfig --config ipsec.conf");
    assert_eq!(code, 3);
    for line in [10, 11] {
        let place = format!("ERROR: conn a-b: ipsec.conf:{line}:");
        assert!(said.contains(&place), "{said}");
    }
    assert!(
        said.contains("expected 0s… (base64) or 0x… (hex)"),
        "{said}"
    );

    fs::write(
        directory.0.join("ipsec.conf"),
        format!("{CONNS}\tlefsubnet=10.0.0.0/8\n"),
    )
    .unwrap();
    let (code, _, said) = directory.ipsec("checkconfig --config ipsec.conf");
    assert_eq!(code, 3);
    let line = "ERROR: ipsec.conf:10:2: unrecognized 'conn' keyword 'lefsubnet'";
    assert!(said.starts_with(line), "{said}");
}

#[test]
fn check_says_what_passes_and_what_is_dropped_by_auto() {
    let directory = Directory::new("auto");
    let path = directory.0.join("ipsec.conf");
    let first = "until the peer has built an SA, its packets are dropped";
    let hole = "lets packets pass in clear";
    for (kind, auto, more, says, says_not) in [
        ("tunnel", "add", "", first, hole),
        ("transport", "add", "", first, hole),
        ("tunnel", "start", "", "comes up at start", first),
        ("tunnel", "ignore", "", "is not loaded", first),
        (
            "tunnel",
            "add",
            " negotiationshunt=passthrough\n",
            "waits for the peer",
            first,
        ),
        ("passthrough", "route", "", hole, "once it is routed"),
        ("passthrough", "add", "", "once it is routed", first),
        ("passthrough", "ignore", "", "is not loaded", hole),
        ("drop", "add", "", "once it is routed", first),
    ] {
        let auth = match kind {
            "tunnel" | "transport" => "secret",
            _ => "never",
        };
        let text = format!(
            "conn one\n left=127.0.0.1\n right=198.18.77.1\n type={kind}\n authby={auth}\n auto={auto}\n{more}"
        );
        fs::write(&path, &text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_obol"))
            .arg("check")
            .arg(&path)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{text}{output:?}");
        assert!(said.contains(says), "{text}{said}");
        assert!(!said.contains(says_not), "{text}{said}");
    }
}
