//! The acceptance list of what pluto's files mean, as far as it is about files.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use base64ct::{Base64, Encoding};

use super::keyword::Side;
use super::values::Id;
use super::*;

/// A directory with files that goes when it is dropped.
pub(super) struct Files(pub(super) PathBuf);

impl Files {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("obol-pluto-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(directory)
    }

    pub(super) fn load(&self) -> Result<Understood, String> {
        load(&self.0.join("ipsec.conf")).map_err(|errors| self.without_path(&errors.to_string()))
    }

    pub(super) fn without_path(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(text: &str) -> Understood {
    Files::new(&[("ipsec.conf", text)]).load().unwrap()
}

fn refusal(text: &str) -> String {
    Files::new(&[("ipsec.conf", text)]).load().unwrap_err()
}

/// A public key, as `ipsec showhostkey` prints it; another one for each `seed`.
pub(super) fn rsa_key(seed: u8) -> String {
    let modulus = [&[0xc0 | seed], &[seed; 254][..], &[0x01]].concat();
    let blob = [&[3, 1, 0, 1], modulus.as_slice()].concat();
    format!("0s{}", Base64::encode_string(&blob))
}

pub(super) fn host(addrs: &[&str]) -> HostView {
    HostView {
        addrs: addrs
            .iter()
            .map(|addr| ("eth0".to_owned(), addr.parse().unwrap()))
            .collect(),
        source: |_| None,
        names: Vec::new(),
    }
}

fn story(a: &str, b: &str, n: [u8; 2]) -> String {
    let [i, j] = n;
    format!(
        "conn {a}-{b}-subnet\n  also={a}-{b}\n  leftsubnet=172.16.{i}.0/24\n  rightsubnet=172.16.{j}.0/24\n\n\
         conn {a}-{b}\n  type=tunnel\n  leftid=@{a}.example.com\n  left=192.168.0.{i}\n  leftrsasigkey={}\n  \
         rightid=@{b}.example.com\n  right=192.168.0.{j}\n  rightrsasigkey={}\n  authby=rsasig\n  auto=start\n",
        rsa_key(i),
        rsa_key(j)
    )
}

pub(super) fn story_files() -> Files {
    let files = [
        ("hostA", "hostB", [1, 2]),
        ("hostA", "hostC", [1, 3]),
        ("hostB", "hostC", [2, 3]),
    ];
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|(a, b, n)| (format!("ipsec.d/{a}-{b}.conf"), story(a, b, *n)))
        .collect();
    let mut all = vec![("ipsec.conf", "config setup\n\ninclude ipsec.d/*.conf\n")];
    all.extend(
        texts
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str())),
    );
    Files::new(&all)
}

/// Each Child SA as `NAME: LOCAL===REMOTE`, and the connections that are not ours by name.
fn seen(understood: &Understood, host: &HostView) -> (Vec<String>, Vec<String>) {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for conn in &understood.conns {
        match orient(conn, host) {
            Ok(oriented) => ours.extend(oriented.children().iter().map(|child| {
                let list = |ts: &[obol_ike::ts::TrafficSelector]| {
                    ts.iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(",")
                };
                format!(
                    "{}: {}==={}",
                    child.name,
                    list(&child.local_ts),
                    list(&child.remote_ts)
                )
            })),
            Err(_) => others.push(conn.name.value.clone()),
        }
    }
    (ours, others)
}

#[test]
fn a_conn_that_is_only_a_part_of_others_is_no_error() {
    let read = |base: &str, user: &str| {
        read(&format!(
            "conn base\n left=192.0.2.1\n authby=secret\n{base}conn user\n{user} right=192.0.2.2\n auto=add\n"
        ))
    };
    let understood = read("", " also=base\n");
    assert!(understood.refused.is_empty(), "{:?}", understood.refused);
    let why = "auto=ignore, and right= is not set: it is for the also= of others";
    assert_eq!(understood.parts, [("base".to_owned(), why.to_owned())]);
    let flipped = read("", " alsoflip=base\n left=192.0.2.3\n");
    assert_eq!(flipped.parts.len(), 1);
    // To be loaded by itself it would have to be whole, and so it has where nobody inherits from it.
    for (base, user) in [
        (" auto=add\n", " also=base\n"),
        ("", " left=192.0.2.1\n authby=secret\n"),
    ] {
        let understood = read(base, user);
        assert!(understood.parts.is_empty());
        assert_eq!(understood.refused[0].0, "base");
        let error = understood.refused[0].1[0].to_string();
        assert!(error.contains("right= is not set"), "{error}");
    }
}

#[test]
fn the_story_on_its_hosts() {
    let understood = story_files().load().unwrap();
    assert!(understood.refused.is_empty(), "{:?}", understood.refused);
    assert!(understood.notices.is_empty(), "{:?}", understood.notices);
    let (ours, others) = seen(&understood, &host(&["192.168.0.1"]));
    assert_eq!(
        ours,
        [
            "hostA-hostB-subnet: 172.16.1.0/24===172.16.2.0/24",
            "hostA-hostB: 192.168.0.1===192.168.0.2",
            "hostA-hostC-subnet: 172.16.1.0/24===172.16.3.0/24",
            "hostA-hostC: 192.168.0.1===192.168.0.3",
        ]
    );
    assert_eq!(others, ["hostB-hostC-subnet", "hostB-hostC"]);
    assert!(understood.conns.iter().all(|conn| conn.auto == Auto::Up));
    let (ours, _) = seen(&understood, &host(&["192.168.0.3"]));
    assert_eq!(ours[0], "hostA-hostC-subnet: 172.16.3.0/24===172.16.1.0/24");
    // An address that comes later makes more of them ours, and one too many makes it doubtful.
    let (ours, others) = seen(&understood, &host(&["192.168.0.3", "192.168.0.1"]));
    assert_eq!(ours.len(), 4);
    assert_eq!(others, ["hostA-hostC-subnet", "hostA-hostC"]);
    let both = orient(&understood.conns[3], &host(&["192.168.0.3", "192.168.0.1"])).unwrap_err();
    assert_eq!(
        both.to_string(),
        "connection matches both left 192.168.0.1 and right 192.168.0.3"
    );
}

#[test]
fn placeholders_for_keys_are_no_keys() {
    let text = story("hostA", "hostB", [1, 2]).replace(&rsa_key(1), "[...]");
    let understood = read(&text);
    assert!(understood.conns.is_empty());
    let names: Vec<&str> = understood
        .refused
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["hostA-hostB-subnet", "hostA-hostB"]);
    let error = understood.refused[1].1[0].to_string();
    assert!(
        error.contains("ipsec.conf:10:17: leftrsasigkey=[...] is invalid"),
        "{error}"
    );
    assert!(
        error.contains("expected 0s… (base64) or 0x… (hex)"),
        "{error}"
    );
}

#[test]
fn left_and_right_may_be_exchanged() {
    let text = story("hostA", "hostB", [1, 2]);
    let swapped = text
        .replace("left", "XX")
        .replace("right", "left")
        .replace("XX", "right");
    assert_ne!(text, swapped);
    for text in [text, swapped] {
        let (ours, _) = seen(&read(&text), &host(&["192.168.0.2"]));
        assert_eq!(
            ours,
            [
                "hostA-hostB-subnet: 172.16.2.0/24===172.16.1.0/24",
                "hostA-hostB: 192.168.0.2===192.168.0.1",
            ]
        );
    }
}

#[test]
fn an_unknown_keyword_refuses_all() {
    let error = refusal("conn a\n  left=192.0.2.1\n  right=192.0.2.2\n  lefsubnet=10.0.0.0/8\n");
    assert!(
        error.starts_with("ipsec.conf:4:3: unrecognized 'conn' keyword 'lefsubnet'"),
        "{error}"
    );
    assert!(error.contains("did you mean leftsubnet?"), "{error}");
    let error = refusal("conn a\n  subnet=10.0.0.0/8\n");
    assert!(
        error.contains("requires \"left\" or \"right\" prefix"),
        "{error}"
    );
    let error = refusal("config setup\n  leftid=@a\n");
    assert!(error.contains("move it into a conn"), "{error}");
}

#[test]
fn an_old_file() {
    let setup = "config setup\n  protostack=netkey\n  nat_traversal=yes\n  virtual_private=%v4:10.0.0.0/8\n  \
                 oe=off\n  plutostderrlog=/var/log/pluto.log\n  interfaces=%defaultroute\n\n";
    let old = "  ikev2=insist\n  dpdaction=restart\n  dpddelay=10\n  dpdtimeout=60\n  keyingtries=%forever\n  \
               forceencaps=no\n  sha2-truncbug=no\n  salifetime=8h\n";
    let understood = read(&format!("{setup}{}{old}", story("hostA", "hostB", [1, 2])));
    assert!(understood.refused.is_empty(), "{:?}", understood.refused);
    let [_, conn] = understood.conns.as_slice() else {
        panic!("{understood:?}");
    };
    assert_eq!(conn.policy.dpd_delay.as_secs(), 10);
    assert_eq!(conn.policy.dpd_action, Some(policy::DpdAction::Restart));
    assert_eq!(conn.policy.encapsulation, policy::Encapsulation::Auto);
    let notices: Vec<&str> = understood
        .notices
        .iter()
        .map(|n| n.message.as_str())
        .collect();
    for word in [
        "dpdtimeout",
        "protostack",
        "virtual-private",
        "oe",
        "interfaces",
        "plutostderrlog",
    ] {
        let found = notices
            .iter()
            .filter(|notice| notice.starts_with(&format!("{word} ")))
            .count();
        // Once, although the connection of the subnets inherits it.
        assert_eq!(found, 1, "{word}: {notices:?}");
    }
}

const ENDS: &str = "  left=192.0.2.1\n  right=192.0.2.2\n  authby=secret\n  auto=add\n";

#[test]
fn also_and_default() {
    let (base, local) = (format!("conn base\n{ENDS}"), host(&["192.0.2.1"]));
    let ours = |text: &str| {
        let understood = read(text);
        assert!(understood.refused.is_empty(), "{:?}", understood.refused);
        (seen(&understood, &local).0, understood)
    };
    // Defined later; and the value of the connection itself counts wherever also= stands.
    let (seen, understood) = ours(&format!(
        "conn a\n  leftsubnet=10.1.0.0/24\n  also=base\n{base}  leftsubnet=10.9.0.0/24\n"
    ));
    assert_eq!(seen[0], "a: 10.1.0.0/24===192.0.2.2");
    assert_eq!(understood.notices.len(), 1, "{:?}", understood.notices);
    assert!(
        understood.notices[0]
            .message
            .contains("leftsubnet of conn base is not used")
    );
    // A cycle does no harm.
    let (seen, _) = ours(&format!(
        "conn a\n  also=b\n{ENDS}conn b\n  also=a\n  rightsubnet=10.2.0.0/24\n"
    ));
    assert_eq!(
        seen,
        ["a: 192.0.2.1===10.2.0.0/24", "b: 192.0.2.1===10.2.0.0/24"]
    );
    // A target that is nowhere refuses the connection alone.
    let understood = read(&format!("{base}conn a\n  also=nope\n{ENDS}"));
    assert_eq!(understood.conns.len(), 1);
    let error = &understood.refused[0].1[0];
    assert_eq!(error.message, "cannot find conn 'nope' needed by conn 'a'");
    // Defaults are the last to count.
    let (_, understood) = ours(&format!(
        "conn %default\n  ikelifetime=1h\n  dpddelay=7\nconn a\n  also=base\n{base}  ikelifetime=2h\n"
    ));
    assert_eq!(understood.conns[0].policy.ike_life.as_secs(), 7200);
    assert_eq!(understood.conns[0].policy.dpd_delay.as_secs(), 7);
    // Both ends exchanged: the same connection under other names.
    let (seen, understood) = ours(&format!(
        "{base}  leftsubnet=10.1.0.0/24\nconn a\n  alsoflip=base\n"
    ));
    let hosts = |conn: &Conn| {
        conn.ends
            .clone()
            .map(|end| orient::host_text(&end.host.value))
    };
    assert_eq!(hosts(&understood.conns[0]), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(hosts(&understood.conns[1]), ["192.0.2.2", "192.0.2.1"]);
    assert_eq!(
        seen,
        [
            "base: 10.1.0.0/24===192.0.2.2",
            "a: 10.1.0.0/24===192.0.2.2"
        ]
    );
}

#[test]
fn a_key_of_the_connection_replaces_one_of_another_form() {
    let text = format!(
        "conn %default\n  leftpubkey=nonsense\nconn a\n  left=192.0.2.1\n  right=192.0.2.2\n  auto=add\n  leftrsasigkey={}\n",
        rsa_key(5)
    );
    let understood = read(&text);
    assert!(understood.refused.is_empty(), "{:?}", understood.refused);
    assert!(understood.conns[0].end(Side::Left).key.is_some());
}

#[test]
fn words_that_are_there_twice() {
    let understood = read(&format!("conn a\n  left=192.0.2.9\n{ENDS}  auto=start\n"));
    let conn = &understood.conns[0];
    assert_eq!(
        orient::host_text(&conn.end(Side::Left).host.value),
        "192.0.2.9"
    );
    assert_eq!(conn.auto, Auto::Up);
    assert_eq!(understood.notices.len(), 1, "{:?}", understood.notices);
    assert!(
        understood.notices[0]
            .message
            .contains("duplicate conn keyword: left=192.0.2.1")
    );

    let understood = read(&format!("conn a\n{ENDS}conn a\n{ENDS}conn b\n{ENDS}"));
    let names: Vec<&str> = understood
        .conns
        .iter()
        .map(|conn| conn.name.value.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let error = understood.refused[0].1[0].to_string();
    assert!(
        error.contains("conn a is there twice") && error.contains("ipsec.conf:1:1"),
        "{error}"
    );
}

#[test]
fn includes() {
    let conn = format!("conn a\n{ENDS}");
    let understood = Files::new(&[
        (
            "ipsec.conf",
            "include d/none-*.conf\ninclude d/none.conf\ninclude d/*.conf\n",
        ),
        ("d/a.conf", &conn),
    ])
    .load()
    .unwrap();
    assert_eq!(understood.conns.len(), 1);
    assert_eq!(understood.notices.len(), 1, "{:?}", understood.notices);
    assert!(
        understood.notices[0]
            .message
            .contains("could not open include filename")
    );
    // A loop ends.
    let understood = Files::new(&[("ipsec.conf", "include ipsec.conf\n")])
        .load()
        .unwrap();
    assert!(
        understood.notices[0].message.contains("too many includes"),
        "{:?}",
        understood.notices
    );
    // What is included begins outside of any section, and so does what follows.
    let error = Files::new(&[
        (
            "ipsec.conf",
            "conn a\n  left=1.2.3.4\ninclude d.conf\n  right=1.2.3.5\n",
        ),
        ("d.conf", "\n"),
    ])
    .load()
    .unwrap_err();
    assert!(error.starts_with("ipsec.conf:4:3: syntax error"), "{error}");
}

#[test]
fn subnets() {
    let local = host(&["192.0.2.1"]);
    let text = format!(
        "conn n\n{ENDS}  leftsubnets={{10.1.0.0/24 10.2.0.0/24}}\n  rightsubnets=\"10.3.0.0/24, 10.4.0.0/24\"\n"
    );
    assert_eq!(
        seen(&read(&text), &local).0,
        [
            "n/1x1: 10.1.0.0/24===10.3.0.0/24",
            "n/1x2: 10.1.0.0/24===10.4.0.0/24",
            "n/2x1: 10.2.0.0/24===10.3.0.0/24",
            "n/2x2: 10.2.0.0/24===10.4.0.0/24",
        ]
    );
    let text =
        format!("conn n\n{ENDS}  leftsubnet=10.1.0.0/24,10.2.0.0/24\n  rightsubnet=10.3.0.0/24\n");
    assert_eq!(
        seen(&read(&text), &local).0,
        ["n: 10.1.0.0/24,10.2.0.0/24===10.3.0.0/24"]
    );
    let text =
        format!("conn n\n{ENDS}  type=transport\n  leftprotoport=udp\n  rightprotoport=17/8472\n");
    let understood = read(&text);
    assert_eq!(understood.conns[0].kind, Kind::Transport);
    assert_eq!(
        seen(&understood, &local).0,
        ["n: 192.0.2.1[udp]===192.0.2.2[udp/8472]"]
    );
}

#[test]
fn refusals_are_alone_and_say_why() {
    let table = [
        ("keyexchange=ikev1", "IKEv2 only"),
        ("ikev2=never", "IKEv2 only"),
        ("phase2=ah", "no AH"),
        ("aggressive=yes", "IKEv1"),
        ("leftxauthclient=yes", "IKEv1"),
        ("sec-label=x", "labels"),
        ("enable-tcp=yes", "TCP"),
        ("authby=pks", "authby=pks is unknown"),
        (
            "auto=begin",
            "valid options are ignore, add, ondemand, up, keep",
        ),
        ("rightsubnet=", "rightsubnet= invalid, empty field"),
        ("rightsubnet=10.0.0.1/8", "write 10.0.0.0/8"),
        ("leftcert=me", "no certificates yet"),
        ("ike=aes_gcm-modp2048", "PRF 'modp2048'"),
        ("failureshunt=open", "write drop, or passthrough"),
        ("negotiationshunt=none", "write drop, or passthrough"),
        ("mark=5", "no marks"),
        (
            "type=transport\n  leftsubnet=10.0.0.0/8",
            "between the two hosts",
        ),
        (
            "leftsubnet=10.0.0.0/8\n  rightsubnet=fd00::/64",
            "address family",
        ),
    ];
    for (line, expected) in table {
        let text = format!("conn good\n{ENDS}conn bad\n  {line}\n  also=good\n");
        let understood = read(&text);
        let names: Vec<&str> = understood
            .conns
            .iter()
            .map(|conn| conn.name.value.as_str())
            .collect();
        assert_eq!(names, ["good"], "{line}");
        let [(_, errors)] = understood.refused.as_slice() else {
            panic!("{line}: {:?}", understood.refused);
        };
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        let error = errors[0].to_string();
        assert!(
            error.contains(expected) && error.contains("ipsec.conf:"),
            "{line}: {error}"
        );
    }
    let understood = read("conn a\n  left=%any\n  right=%any\n  auto=add\n");
    assert!(understood.refused[0].1[0].message.contains("both are %any"));
    let understood = read("conn a\n  right=192.0.2.1\n  auto=add\n");
    assert_eq!(understood.refused[0].1[0].message, "left= is not set");
}

/// Each word lets packets pass at its own time, and says so with its place.
#[test]
fn cleartext_only_as_written_and_with_a_warning() {
    for (lines, expected, said) in [
        ("failureshunt=drop\n  negotiationshunt=hold", None, 0),
        ("failureshunt=none", None, 0),
        ("failureshunt=passthrough", Some("after-failure"), 1),
        ("negotiationshunt=pass", Some("while-negotiating"), 1),
        (
            "failureshunt=pass\n  negotiationshunt=passthrough",
            Some("without-sa"),
            2,
        ),
    ] {
        let text = format!("conn a\n  {lines}\n  authby=secret\n  auto=ondemand\n{ENDS}");
        let understood = read(&text);
        let notices = understood.notices.iter().map(ToString::to_string);
        let notices: Vec<_> = notices
            .filter(|text| text.contains("pass in clear"))
            .collect();
        assert_eq!(notices.len(), said, "{lines}: {notices:?}");
        assert!(
            notices.iter().all(|text| text.contains("ipsec.conf:")),
            "{notices:?}"
        );
        if lines.starts_with("failureshunt=pass") {
            assert!(
                notices[0].contains("cleartext on failure")
                    || notices[1].contains("cleartext on failure")
            );
        }
        let view = host(&["192.0.2.1"]);
        let conns: Vec<_> = understood
            .conns
            .iter()
            .filter_map(|c| orient(c, &view).ok())
            .collect();
        assert_eq!(conns.len(), 1, "{lines}");
        let toml = convert(&understood.setup, &conns, &[]);
        let line = expected.map(|word| format!("cleartext = \"{word}\"\n"));
        assert_eq!(toml.contains("cleartext"), line.is_some(), "{toml}");
        assert!(line.is_none_or(|line| toml.contains(&line)), "{toml}");
    }
}

#[test]
fn the_setup() {
    let understood = read(
        "config setup\n  uniqueids=no\n  ddos-mode=busy\n  nssdir=/a\nconfig setup\n  nssdir=/b\n",
    );
    assert!(!understood.setup.unique && understood.setup.busy);
    assert_eq!(understood.setup.nss, Some("/b".into()));
    assert_eq!(understood.notices.len(), 1, "{:?}", understood.notices);
    for line in [
        "listen-tcp=yes",
        "listen-udp=no",
        "crl-strict=yes",
        "global-redirect=yes",
        "uniqueids=maybe",
    ] {
        let error = refusal(&format!("config setup\n  {line}\n"));
        assert!(error.starts_with("ipsec.conf:2:"), "{line}: {error}");
    }
}

#[test]
fn identities_are_what_they_look_like() {
    let text = format!("conn a\n  leftid=@#0a0b\n  rightid=user@example.com\n{ENDS}");
    let understood = read(&text);
    let id = |side| understood.conns[0].end(side).id.clone();
    assert_eq!(id(Side::Left), Id::Is("@#0a0b".parse().unwrap()));
    assert_eq!(id(Side::Right), Id::Is("user@example.com".parse().unwrap()));
}

/// A word with another value than its default changes what becomes of the connection, or is noticed.
#[test]
fn no_word_is_without_effect_silently() {
    let read = |line: &str| {
        let text = format!(
            "conn one\n{line} left=192.0.2.1\n right=192.0.2.2\n authby=secret\n auto=start\n"
        );
        let mut understood = read(&text);
        // No name has an address here.
        running::resolve_ids(&mut understood, &Vec::new());
        let conns = understood.conns.iter();
        let ours: Vec<Oriented<'_>> = conns
            .filter_map(|conn| orient(conn, &host(&["192.0.2.1"])).ok())
            .collect();
        let toml = convert(&understood.setup, &ours, &[]);
        let said = (understood.notices.len(), understood.refused.len());
        (toml, said)
    };
    let plain = read("");
    for line in [
        "encapsulation=no",
        "encapsulation=yes",
        "rekey=no",
        "keyingtries=1",
        "replay-window=0",
        "mtu=1400",
        "metric=5",
        "leftid=host.example.com",
        "rightid=host.example.com",
        "leftid=@a",
        "reauth=yes",
        "pfs=no",
        "esn=no",
        "dpddelay=10",
        "dpdaction=hold",
        "mobike=yes",
        "narrowing=yes",
        "fragmentation=no",
        "initial-contact=yes",
        "ikelifetime=2h",
        "ipsec-lifetime=2h",
        "rekeymargin=5m",
        "ipsec-max-bytes=1G",
        "ipsec-max-packets=1M",
        "priority=5",
        "reqid=5",
        "nopmtudisc=yes",
        "retransmit-interval=1s",
        "retransmit-timeout=10",
        "failureshunt=passthrough",
        "negotiationshunt=passthrough",
        "ike=aes256-sha2",
        "esp=aes256-sha2",
        "type=transport",
        "leftsubnet=10.1.0.0/16",
        "leftprotoport=tcp/22",
        "leftupdown=/x",
        "leftsourceip=10.1.0.1",
        "leftnexthop=192.0.2.9",
    ] {
        assert_ne!(read(&format!(" {line}\n")), plain, "{line}");
    }
}
