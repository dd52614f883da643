mod again;
mod single;

use std::fs;
use std::time::Duration;

use obol_ike::config::{LocalAuthMethod, RemoteAuthMethod, StartAction};
use obol_ike::crypto::signature::SignatureScheme;

use super::*;
use crate::config::Misfit;
use crate::pluto::tests::{Files as Written, host as this_host, rsa_key};

const CKAID: &str = "6a4d0d1efb18011de7a576b0280149650d924852";

fn database() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/nss/libreswan-4.10").into()
}

/// The key in the database, as pluto shows it.
fn own_key() -> String {
    let text = fs::read_to_string(database().join("leftrsasigkey")).unwrap();
    text.trim().to_owned()
}

fn paths(written: &Written) -> (Files, PathBuf) {
    let files = Files {
        conf: written.0.join("ipsec.conf"),
        secrets: Some(written.0.join("ipsec.secrets")).filter(|path| path.exists()),
        nss: Some(database()),
        wanted: Default::default(),
        routed: Default::default(),
        deleted: Default::default(),
    };
    (files, written.0.join("obol.toml"))
}

/// Loads files on a host that has 127.0.0.1, beside `obol.toml`.
async fn load(files: &[(&str, &str)]) -> Result<Loaded, String> {
    let written = Written::new(files);
    let (files, own) = paths(&written);
    let loaded = load_to_run(&files, &own, Occasion::Start).await;
    loaded.map_err(|errors| written.without_path(&errors.to_string()))
}

async fn loaded(conf: &str) -> Loaded {
    load(&[("ipsec.conf", conf), ("obol.toml", "")])
        .await
        .unwrap()
}

fn children(loaded: &Loaded) -> Vec<String> {
    let policies = loaded.policies.iter();
    policies
        .map(|policy| format!("{}/{}", policy.connection, policy.child))
        .collect()
}

fn warnings(loaded: &Loaded) -> String {
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    warnings.collect::<Vec<_>>().join("\n")
}

/// A connection with this host's key, and lines of its own.
fn conn(name: &str, peer: u8, lines: &str) -> String {
    format!(
        "conn {name}\n left=127.0.0.1\n leftrsasigkey={}\n right=198.18.77.{peer}\n rightrsasigkey={}\n{lines}\n",
        own_key(),
        rsa_key(peer)
    )
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_alone() {
    let table = [
        (
            " type=passthrough\n right=%any\n auto=route",
            "which packets it is about",
        ),
        (
            " leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=add",
            "conn good is in its way: ",
        ),
        (
            " leftsubnet=10.1.4.0/24\n rightsubnet=10.0.0.0/8\n auto=add",
            "neither is the narrower one",
        ),
        (
            " type=drop\n leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=route",
            "conn good is in its way: ",
        ),
        (
            " rightrsasigkey=%none\n auto=add",
            "there is no rightrsasigkey",
        ),
        (
            " leftrsasigkey=%none\n auto=add",
            "neither leftrsasigkey nor leftckaid",
        ),
        (
            " right=%any\n rightid=@x\n auto=add",
            "dynamic is the address",
        ),
        (
            " right=%opportunistic\n auto=add",
            "is no peer that obol can have",
        ),
        (" type=tunel\n auto=add", "type=tunel is invalid"),
    ];
    let good = conn(
        "good",
        1,
        " leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=start",
    );
    for (lines, expected) in table {
        // A word that is there twice counts the first time.
        let bad = conn("bad", 2, "");
        let bad = bad.replacen('\n', &format!("\n{lines}\n"), 1);
        let loaded = loaded(&format!("{good}{bad}")).await;
        assert_eq!(
            children(&loaded),
            ["good/good"],
            "{lines}: {}",
            warnings(&loaded)
        );
        let said = warnings(&loaded);
        assert!(said.contains(expected), "{lines}: {said}");
        assert!(said.contains("bad is refused: "), "{lines}: {said}");
    }
}

#[tokio::test]
async fn connections_of_other_hosts_are_none_and_it_is_known_why() {
    let other = conn("other", 1, " auto=start").replace("127.0.0.1", "198.18.78.1");
    let idle = conn("idle", 2, "");
    let loaded = loaded(&format!("{other}{idle}")).await;
    assert_eq!(children(&loaded), [""; 0]);
    assert_eq!(warnings(&loaded), "");
    let why_not = |name: &str| {
        let not = loaded.pluto.why_not(name).unwrap();
        let hosts: Vec<&str> = not.ends.iter().map(|end| &*end.host).collect();
        (not.kind, not.why.as_str(), hosts)
    };
    assert_eq!(
        why_not("other"),
        (
            Absence::Unoriented,
            "neither left=198.18.78.1 nor right=198.18.77.1 match an interface",
            vec!["198.18.78.1", "198.18.77.1"]
        )
    );
    assert_eq!(
        why_not("idle"),
        (
            Absence::Ignored,
            "auto=ignore",
            vec!["127.0.0.1", "198.18.77.2"]
        )
    );
}

#[tokio::test]
async fn names_are_those_of_the_connections() {
    let more = " leftsubnets={10.1.0.0/24 10.2.0.0/24}\n rightsubnet=10.9.0.0/16\n connalias=both\n auto=ondemand";
    let text = format!(
        "{}{}",
        conn("a.b", 1, more),
        conn("c", 1, " connalias=both\n auto=start")
    );
    let loaded = loaded(&text).await;
    let place = |child: &str| ("c".to_owned(), child.to_owned());
    assert_eq!(
        children(&loaded),
        ["c/a.b-1x1", "c/a.b-2x1", "c/c"],
        "{}",
        warnings(&loaded)
    );
    let names = &loaded.pluto.names;
    assert_eq!(names["a.b"], [place("a.b-1x1"), place("a.b-2x1")]);
    assert_eq!(names["a.b/2x1"], [place("a.b-2x1")]);
    assert_eq!(names["c"], [place("c")]);
    assert_eq!(names["both"].len(), 3);
    let start: Vec<_> = loaded.ike.connections[0]
        .children
        .iter()
        .map(|child| child.start_action)
        .collect();
    let expected = [StartAction::Trap, StartAction::Trap, StartAction::Start];
    assert_eq!(start, expected);
}

#[tokio::test]
async fn the_private_key_is_the_one_of_the_public_key_or_of_its_ckaid() {
    let by_key = conn("a", 1, " auto=start");
    let by_ckaid = by_key.replace(
        &format!("leftrsasigkey={}", own_key()),
        &format!("leftckaid={}", CKAID.to_uppercase()),
    );
    for text in [by_key, by_ckaid] {
        let loaded = loaded(&text).await;
        assert_eq!(warnings(&loaded), "");
        let LocalAuthMethod::Key(key) = &loaded.ike.connections[0].local.method else {
            panic!("{:?}", loaded.ike.connections[0])
        };
        let scheme = SignatureScheme::RsaPssSha256;
        let signature = loaded.credentials.sign(key, scheme, b"octets").unwrap();
        key.verify(scheme, b"octets", &signature).unwrap();
    }
    let other = conn("a", 1, " auto=start").replace(&own_key(), &rsa_key(7));
    let loaded = loaded(&other).await;
    let LocalAuthMethod::Key(key) = &loaded.ike.connections[0].local.method else {
        panic!("{:?}", loaded.ike.connections[0])
    };
    let why = loaded
        .credentials
        .sign(key, SignatureScheme::RsaPssSha256, b"");
    let why = why.unwrap_err();
    assert!(why.contains("private key matching CKAID"), "{why}");
    let said = warnings(&loaded);
    assert!(said.contains(&format!("a cannot come up: {why}")), "{said}");
}

#[tokio::test]
async fn obols_own_file_counts_beside() {
    let own = "[daemon]\nport = 5500\ncookie_threshold = 7\n\n[connections.mine]\n\
               remote_addrs = [\"198.18.77.9\"]\nlocal = { auth = \"psk\" }\nremote = { auth = \"psk\" }\n\
               [connections.mine.children.net]\nremote_ts = [\"10.8.0.0/16\"]\nlocal_ts = [\"10.7.0.0/16\"]\n\
               [secrets.mine]\ntype = \"psk\"\nids = [\"198.18.77.9\"]\nsecret = \"one of sixteen octets\"\n";
    let conf = format!(
        "config setup\n ddos-ike-threshold=9\n{}",
        conn("theirs", 1, " auto=add")
    );
    let written = Written::new(&[("ipsec.conf", &conf), ("obol.toml", own)]);
    let own = written.0.join("obol.toml");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&own, private).unwrap();
    let files = Files {
        conf: written.0.join("ipsec.conf"),
        secrets: None,
        nss: Some(database()),
        wanted: Default::default(),
        routed: Default::default(),
        deleted: Default::default(),
    };
    let loaded = load_to_run(&files, &own, Occasion::Start).await.unwrap();
    assert_eq!(children(&loaded), ["mine/net", "theirs/theirs"]);
    assert_eq!(loaded.daemon.port, 5500);
    assert_eq!(loaded.ike.settings.cookie_threshold, 7);
    let told = "cookie_threshold here goes before what was translated";
    assert!(warnings(&loaded).contains(told));
    // A mistake in it is one of all, as without files of pluto's.
    fs::write(&own, "[connections.mine]\nremote_adrs = []\n").unwrap();
    let error = load_to_run(&files, &own, Occasion::Start)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("remote_adrs"), "{error}");
}

#[tokio::test]
async fn secrets_files_must_be_there_if_they_are_named() {
    let conf = "config setup\n secretsfile=/nowhere/ipsec.secrets\n";
    let error = load(&[("ipsec.conf", conf), ("obol.toml", "")])
        .await
        .unwrap_err();
    assert!(error.contains("/nowhere/ipsec.secrets"), "{error}");
}

#[test]
fn what_cannot_run_is_refused_before_it_is_tried() {
    let bad = conn("bad", 2, "");
    let bad = bad.replacen('\n', "\n right=%opportunistic\n auto=route\n", 1);
    let good = conn("good", 1, " auto=start");
    let other = bad
        .replace("127.0.0.1", "198.18.78.1")
        .replace("bad", "other");
    let text = format!("{good}{bad}{other}");
    let mut understood = Written::new(&[("ipsec.conf", &text)]).load().unwrap();
    refuse(&mut understood, &this_host(&["127.0.0.1"]));
    let conns = understood.conns.iter();
    let names: Vec<&str> = conns.map(|conn| conn.name.value.as_str()).collect();
    assert_eq!(names, ["good", "other"]);
    let [(name, errors)] = understood.refused.as_slice() else {
        panic!("{:?}", understood.refused)
    };
    assert_eq!(name, "bad");
    assert!(errors[0].location.ends_with("ipsec.conf:7:6"), "{errors:?}");
}

/// What names stand for, as a daemon has it looked up.
async fn heard(files: &Files, only: Option<&str>) -> NamesFound {
    let names = names_asked(files, only);
    look_up(names.iter().map(String::as_str)).await
}

/// The connection `more` alone, if it can be had beside those that are loaded.
async fn addition(before: &Loaded, conf: &str) -> Option<Loaded> {
    let written = Written::new(&[("ipsec.conf", conf), ("obol.toml", "")]);
    let (files, own) = paths(&written);
    let heard = heard(&files, Some("more")).await;
    let occasion = Occasion::Heard(&before.pluto, &heard);
    let Single::Conn(mut one) = load_single(&files, &own, "more", occasion).await.unwrap() else {
        return None;
    };
    let is_one = before.single_out(&mut one, "more") && before.has_nothing_of(&one, "more");
    is_one.then_some(*one)
}

#[tokio::test]
async fn a_connection_is_added_alone_only_where_it_has_nothing_to_do_with_others() {
    let nets = " leftsubnet=10.1.0.0/16\n rightsubnet=10.3.0.0/16\n auto=start";
    let good = conn("good", 1, nets);
    let apart = " leftsubnet=10.1.0.0/16\n rightsubnet=10.4.0.0/16\n auto=add";
    let table = [
        (conn("more", 2, apart), true),
        // Another name is no other peer: the two share an IKE SA.
        (conn("more", 1, apart), false),
        (conn("more", 1, &format!(" rightid=@other\n{apart}")), true),
        (
            conn("more", 2, &apart.replace("10.4.0.0/16", "10.3.1.0/24")),
            false,
        ),
        (
            conn("more", 2, &apart.replace("10.4.0.0/16", "10.0.0.0/8")),
            false,
        ),
        (
            conn("more", 2, &format!(" type=passthrough\n{apart}")),
            false,
        ),
        (conn("more", 2, &apart.replace("add", "ignore")), false),
        (
            conn("more", 2, &format!(" rightsubnet=10.5.0.0/16/\n{apart}")),
            false,
        ),
        (
            conn("more", 2, apart).replace("127.0.0.1", "198.18.77.9"),
            false,
        ),
        (conn("other", 2, apart), false),
    ];
    for (more, expected) in table {
        let mut before = loaded(&good).await;
        let conf = format!("{good}{more}");
        let found = addition(&before, &conf).await;
        assert_eq!(found.is_some(), expected, "{more}");
        let Some(found) = found else {
            continue;
        };
        assert_eq!(children(&found), ["more/more"]);
        before.add(found);
        let all = loaded(&conf).await;
        assert_eq!(before.policies, all.policies);
        assert_eq!(before.ike.connections, all.ike.connections);
        assert_eq!(before.pluto.names, all.pluto.names);
        assert_eq!(before.data_planes.len(), all.data_planes.len());
        assert_eq!(
            before.credentials.keys().len(),
            all.credentials.keys().len()
        );
        assert!(addition(&before, &conf).await.is_none(), "it is there");
    }
}

#[tokio::test]
async fn connections_are_taken_out_child_by_child() {
    let nets = |n: u8| format!(" leftsubnet=10.1.0.0/16\n rightsubnet=10.{n}.0.0/16\n auto=start");
    let conf = [("a", 1, 3), ("b", 1, 4), ("c", 2, 5)]
        .map(|(name, peer, net)| conn(name, peer, &nets(net)))
        .concat();
    let mut loaded = loaded(&conf).await;
    let names = |loaded: &Loaded| -> Vec<String> { loaded.pluto.names.keys().cloned().collect() };
    assert_eq!(children(&loaded), ["a/a", "a/b", "c/c"]);
    loaded.remove(&[("a".into(), "a".into())]);
    assert_eq!(children(&loaded), ["a/b", "c/c"]);
    assert_eq!(names(&loaded), ["b", "c"]);
    assert_eq!(
        (loaded.ike.connections.len(), loaded.data_planes.len()),
        (2, 2)
    );
    // Its last child: the connection goes with it.
    loaded.remove(&[("a".into(), "b".into())]);
    assert_eq!(children(&loaded), ["c/c"]);
    assert_eq!(loaded.ike.connections[0].name, "c");
    assert_eq!(
        (loaded.ike.connections.len(), loaded.data_planes.len()),
        (1, 1)
    );
    assert_eq!(names(&loaded), ["c"]);
}

/// Files that change while a daemon runs from them.
struct Run {
    written: Written,
    loaded: Loaded,
}

impl Run {
    async fn begin(conf: &str) -> Self {
        let written = Written::new(&[("ipsec.conf", conf), ("obol.toml", "")]);
        let (files, own) = paths(&written);
        let loaded = load_to_run(&files, &own, Occasion::Start).await.unwrap();
        Self { written, loaded }
    }

    fn write(&self, conf: &str) {
        fs::write(self.written.0.join("ipsec.conf"), conf).unwrap();
    }

    async fn again(&mut self, is_event: bool) {
        let (files, own) = paths(&self.written);
        let heard = heard(&files, None).await;
        let occasion = match is_event {
            true => Occasion::Event(&self.loaded.pluto),
            false => Occasion::Heard(&self.loaded.pluto, &heard),
        };
        self.loaded = load_to_run(&files, &own, occasion).await.unwrap();
    }
}

/// Each policy with its packets, and whether they go in clear.
fn in_force(loaded: &Loaded) -> Vec<String> {
    let policies = loaded.policies.iter();
    let mut all: Vec<String> = policies
        .map(|policy| {
            let (connection, child, pass) = (&policy.connection, &policy.child, policy.pass);
            let (local, remote) = (&policy.local_ts, &policy.remote_ts);
            format!("{connection}/{child} {local:?} {remote:?} pass={pass}")
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_is_converted_is_what_is_loaded() {
    let ike = "type=tunnel\n rightsubnet=10.3.0.0/16\n authby=secret";
    let shunt = |kind: &str| format!("type={kind}\n rightsubnet=10.3.0.0/16\n authby=never");
    let transport = "type=transport\n authby=secret".to_owned();
    for kind in [
        ike.to_owned(),
        transport,
        shunt("passthrough"),
        shunt("drop"),
        shunt("reject"),
    ] {
        for auto in ["ignore", "add", "ondemand", "start", "keep"] {
            let text =
                format!("conn one\n left=127.0.0.1\n right=198.18.77.1\n auto={auto}\n {kind}\n");
            let run = Run::begin(&text).await;
            let understood = crate::pluto::load(&run.written.0.join("ipsec.conf")).unwrap();
            let (mut conns, mut others) = (Vec::new(), Vec::new());
            for conn in &understood.conns {
                let oriented = orient(conn, &this_host(&["127.0.0.1"])).unwrap();
                match why_not(conn, false, false) {
                    None => conns.push(oriented),
                    Some((_, why)) => others.push((oriented, why)),
                }
            }
            let toml = crate::pluto::convert(&understood.setup, &conns, &others);
            let translated = Translated::of_text("converted", toml.clone(), true);
            let converted = config::load_with(&run.written.0.join("obol.toml"), translated);
            let converted = converted.unwrap();
            assert_eq!(in_force(&converted), in_force(&run.loaded), "{text}{toml}");
            let comments = toml.contains("# one is not in force: ");
            assert_eq!(comments, run.loaded.policies.is_empty(), "{text}{toml}");
        }
    }
}

#[tokio::test]
async fn without_rekey_it_is_the_peers_and_tries_are_counted() {
    let text = |more: &str| format!("{}\n{more}", conn("c", 1, " auto=start"));
    let plain = loaded(&text("")).await.ike.connections[0].clone();
    assert_eq!(plain.keying_tries, 0);
    assert_eq!(plain.over_time, Duration::from_secs(8 * 3600));
    assert_eq!(plain.rekey_time, Duration::from_secs(8 * 3600 - 540));
    let more = " rekey=no\n keyingtries=3\n ikelifetime=2h\n ipsec-lifetime=1h\n ipsec-max-bytes=1G\n reauth=yes";
    let running = loaded(&text(more)).await;
    let told = warnings(&running);
    assert!(
        !told.contains("rekey") && !told.contains("keyingtries"),
        "{told}"
    );
    let connection = &running.ike.connections[0];
    assert_eq!(connection.keying_tries, 3);
    assert_eq!(connection.rekey_time, Duration::MAX);
    assert_eq!(connection.over_time, Duration::from_secs(2 * 3600));
    assert_eq!(connection.peer.reauth_time, None);
    let child = &connection.children[0];
    assert_eq!(
        (child.rekey_time, child.life_time),
        (Duration::MAX, Duration::from_secs(3600))
    );
    assert_eq!((child.rekey_bytes, child.life_bytes), (None, Some(1 << 30)));
    for (written, tries) in [("%forever", 0), ("0", 0), ("1", 1)] {
        let running = loaded(&text(&format!(" keyingtries={written}"))).await;
        assert_eq!(running.ike.connections[0].keying_tries, tries, "{written}");
    }
}

#[test]
fn a_name_as_identity_is_its_address_and_without_one_that_of_the_end() {
    let ends = "conn c\n left=192.0.2.1\n leftid=own.example.org\n right=2001:db8::2\n rightid=peer.example.org\n authby=secret\n auto=add\n";
    let written = Written::new(&[("ipsec.conf", ends)]);
    let (files, _) = paths(&written);
    let asked: Vec<String> = names_asked(&files, None).into_iter().collect();
    assert_eq!(asked, ["own.example.org", "peer.example.org"]);
    assert_eq!(names_asked(&files, Some("c")).len(), 2);
    let mut understood = crate::pluto::load(&files.conf).unwrap();
    let (v4, v6) = ("198.51.100.7", "2001:db8::7");
    let both: Vec<IpAddr> = [v6, v4].map(|ip| ip.parse().unwrap()).to_vec();
    resolve_ids(&mut understood, &vec![("own.example.org".to_owned(), both)]);
    let [left, right] = &understood.conns[0].ends;
    assert_eq!(
        left.id,
        Id::Is(Identity::from(v4.parse::<IpAddr>().unwrap())),
        "of its family"
    );
    assert_eq!(right.id, Id::Resolve("peer.example.org".to_owned()));
    let told: Vec<&str> = understood
        .notices
        .iter()
        .map(|notice| &*notice.message)
        .collect();
    let expected =
        "rightid=peer.example.org of c has no address now, and is taken as the address of that end";
    assert_eq!(told, [expected]);
}

#[tokio::test]
async fn a_list_with_secret_and_signatures_takes_either_of_the_peer() {
    let either = |conn: &str| conn.replace("\n auto", "\n authby=secret,rsa-sha2\n auto");
    let with_keys = either(&conn("c", 1, " auto=add"));
    let loaded_here = loaded(&with_keys).await;
    let connection = &loaded_here.ike.connections[0];
    let RemoteAuthMethod::KeysOrPsk(keys) = &connection.remote.method else {
        panic!("{connection:?}")
    };
    assert_eq!(keys.len(), 1);
    assert_eq!(connection.remote.signatures.to_words(), ["rsa-pss"]);
    assert!(
        matches!(connection.local.method, LocalAuthMethod::Key(_)),
        "we sign"
    );
    // Where there are no keys, it is the secret.
    let plain = "conn c\n left=127.0.0.1\n right=198.18.77.1\n authby=rsasig,secret\n auto=add\n";
    let loaded_here = loaded(plain).await;
    let connection = &loaded_here.ike.connections[0];
    assert_eq!(connection.remote.method, RemoteAuthMethod::Psk);
    assert_eq!(connection.local.method, LocalAuthMethod::Psk);
}
