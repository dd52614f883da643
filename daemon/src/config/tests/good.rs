//! Configurations that are right, and what they mean.

use std::net::IpAddr;
use std::time::Duration;

use obol_ike::config::{
    Childless, FragmentationMode, LocalAuthMethod, Mobike, Mode, PeerPolicy, Redirect,
    RemoteAuthMethod, Resumption, Settings, StartAction, Unique, Upkeep,
};
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::signature::Signatures;
use obol_ike::proposal::{EspProposal, IkeProposal};

use super::{HOSTS, Table};
use crate::config::files::NoFiles;
use crate::config::{DaemonSettings, DataPlaneChoice, Loaded, check_addresses, parse_str};

fn parse(text: &str) -> Loaded {
    match parse_str("test.toml", text, &NoFiles) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

fn selectors(ts: &[obol_ike::ts::TrafficSelector]) -> Vec<String> {
    ts.iter().map(ToString::to_string).collect()
}

#[test]
fn the_documented_file_means_what_it_says() {
    let loaded = parse(HOSTS);
    assert_eq!(loaded.warnings, []);
    let [connection] = loaded.ike.connections.as_slice() else {
        panic!("one connection");
    };
    assert_eq!(connection.name, "hosts");
    assert_eq!(
        connection.local_addrs,
        ["192.168.0.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        connection.remote_addrs,
        ["192.168.0.2".parse::<IpAddr>().unwrap()]
    );
    let id = |text: &str| Some(text.parse().unwrap());
    assert_eq!(connection.local.id, id("@hostA.example.com"));
    assert_eq!(connection.remote.id, id("@hostB.example.com"));
    assert_eq!(connection.local.method, LocalAuthMethod::Psk);
    assert_eq!(connection.remote.method, RemoteAuthMethod::Psk);
    assert_eq!(*connection.ike_proposals, IkeProposal::defaults());
    assert_eq!(connection.rekey_time, Duration::from_secs(14_400));
    assert_eq!(connection.over_time, Duration::from_secs(15_840));
    assert_eq!(connection.dpd_delay, Some(Duration::from_secs(30)));
    assert!(!connection.force_encap && connection.nat_traversal);
    assert!(connection.initial_contact);
    assert_eq!(connection.mobike, Mobike::default());
    assert!(connection.mobike.enabled && connection.mobike.check_first);
    assert!(!connection.allow_sha1_rsa);

    let names: Vec<&str> = connection
        .children
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    assert_eq!(names, ["pods", "mongodb-server", "mongodb-client"]);
    let [pods, server, client] = connection.children.as_slice() else {
        panic!("three children");
    };
    assert_eq!(pods.mode, Mode::Tunnel);
    assert_eq!(pods.start_action, StartAction::Start);
    assert_eq!(selectors(&pods.local_ts), ["172.16.1.0/24"]);
    assert_eq!(selectors(&pods.remote_ts), ["172.16.2.0/24"]);
    assert_eq!(*pods.esp_proposals, EspProposal::defaults());
    assert_eq!(pods.rekey_time, Duration::from_secs(3600));
    assert_eq!(pods.life_time, Duration::from_secs(3960));
    assert_eq!((pods.rekey_bytes, pods.life_packets), (None, None));
    assert_eq!(server.mode, Mode::Transport);
    assert_eq!(server.start_action, StartAction::Trap);
    assert_eq!(selectors(&server.local_ts), ["192.168.0.1[tcp/27017]"]);
    assert_eq!(selectors(&server.remote_ts), ["192.168.0.2[tcp]"]);
    assert_eq!(selectors(&client.local_ts), ["192.168.0.1[tcp]"]);
    assert_eq!(selectors(&client.remote_ts), ["192.168.0.2[tcp/27017]"]);

    let local = connection.local.id.clone().unwrap();
    let remote = connection.remote.id.clone().unwrap();
    let secret = loaded.credentials.psk(&local, &remote).unwrap();
    assert_eq!(secret.expose(), b"demo-secret-demo-secret");
}

#[test]
fn every_child_is_a_policy() {
    let loaded = parse(&HOSTS.replace("start_action = \"start\"", "start_action = \"none\""));
    let policies: Vec<(&str, bool)> = loaded
        .policies
        .iter()
        .map(|policy| (policy.child.as_str(), policy.trap))
        .collect();
    assert_eq!(
        policies,
        [
            ("pods", false),
            ("mongodb-server", true),
            ("mongodb-client", true)
        ]
    );
}

#[test]
fn own_addresses_are_compared_with_the_hosts() {
    let loaded = parse(HOSTS);
    let host = |text: &str| vec![text.parse().unwrap()];
    assert_eq!(check_addresses(&loaded, &host("192.168.0.1")).0, []);
    let errors = check_addresses(&loaded, &host("192.168.0.2")).to_string();
    assert!(
        errors.starts_with("test.toml:4:17: 192.168.0.1 is not an address of this host"),
        "{errors}"
    );
}

const REFERENCE: &str = include_str!("../../../examples/reference.toml");

/// The files that the reference names.
fn reference_files() -> Table {
    let key = PrivateKey::generate_ed25519(&mut rand_core::UnwrapErr(getrandom::SysRng));
    let mut files = Table::default();
    let pem = key.to_pkcs8_pem();
    files.0.insert("own.key", pem.as_bytes().to_vec());
    files
        .0
        .insert("shared.psk", b"0x000102030405060708090a0b0c0d0e0f".to_vec());
    files
        .0
        .insert("racoon.psk", b"* a secret of everybody's\n".to_vec());
    files
}

fn parse_reference(text: &str) -> Loaded {
    match parse_str("reference.toml", text, &reference_files()) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let loaded = parse_reference(REFERENCE);
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.daemon, DaemonSettings::default());
    let (ours, default) = (format!("{:?}", loaded.ike.settings), Settings::default());
    assert_eq!(ours, format!("{default:?}"));

    let is_default = |line: &&str| line.contains("# default;") || line.contains("# default:");
    let has_value =
        |line: &&str| !line.contains("_addrs") && !line.contains("_ts ") && !line.contains("id =");
    let kept: Vec<&str> = REFERENCE
        .lines()
        .filter(|line| !(is_default(line) && has_value(line) && !line.contains("ids ")))
        .collect();
    assert!(kept.len() + 12 < REFERENCE.lines().count());
    let without = parse_reference(&kept.join("\n"));
    let (mut all, mut few) = (
        (*loaded.ike.connections[0]).clone(),
        (*without.ike.connections[0]).clone(),
    );
    // The keys are drawn anew each time.
    all.local.method = LocalAuthMethod::Psk;
    few.local.method = LocalAuthMethod::Psk;
    assert_eq!(all, few);
}

/// The reference with its commented-out keys.
#[test]
fn the_reference_with_everything_in_it_loads() {
    let keys = [
        "mtu",
        "proposals",
        "esp_proposals",
        "rekey_bytes",
        "life_bytes",
        "rekey_packets",
        "life_packets",
        "if_id",
        "interface",
        "mark_out",
        "mark_in",
        "hw_offload",
    ];
    let mut text = REFERENCE.replace("dataplane = \"userspace\"", "dataplane = \"kernel\"");
    for key in keys {
        let comment = format!("# {key} =");
        assert!(text.contains(&comment), "{key}");
        text = text.replace(&comment, &format!("{key} ="));
    }
    let loaded = parse_reference(&text);
    assert_eq!(loaded.daemon.mtu, Some(1500));
    let connection = &loaded.ike.connections[0];
    assert_eq!(
        connection.ike_proposals.len(),
        1 + IkeProposal::defaults().len()
    );
    let child = &connection.children[0];
    assert_eq!(
        (child.rekey_bytes, child.life_bytes),
        (Some(1_000_000_000), Some(1_100_000_000))
    );
    assert_eq!(
        (child.rekey_packets, child.life_packets),
        (Some(1_000_000), Some(1_100_000))
    );
    assert_eq!(child.esp_proposals.len(), 1);
    assert!(loaded.policies[0].kernel.any());
}

#[test]
fn what_follows_a_loss_is_as_at_the_start_unless_it_is_said() {
    let loaded = parse(HOSTS);
    let pods = &loaded.ike.connections[0].children[0];
    assert_eq!(pods.upkeep, Upkeep::default());
    let text = HOSTS.replacen(
        "start_action = \"start\"",
        "close_action = \"none\"\ndpd_action = \"restart\"\ninactivity = \"10m\"",
        1,
    );
    let loaded = parse(&text);
    let pods = &loaded.ike.connections[0].children[0];
    assert_eq!(pods.start_action, StartAction::None);
    assert_eq!(pods.upkeep.close_action, Some(StartAction::None));
    assert_eq!(pods.upkeep.dpd_action, Some(StartAction::Start));
    assert_eq!(pods.upkeep.inactivity, Some(Duration::from_secs(600)));
    assert!(loaded.policies[0].trap, "packets may ask for it later");
}

#[test]
fn a_child_has_one_queue_unless_it_is_said() {
    let queues = |line: &str| {
        let text = HOSTS.replacen("start_action = \"start\"", line, 1);
        parse(&text).ike.connections[0].children[0].queues
    };
    assert_eq!(queues(""), 1);
    assert_eq!(queues("queues = 1\ninactivity = \"10m\""), 1);
    assert_eq!(queues("queues = 64\ninactivity = 0"), 64);
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(usize::from(queues("queues = \"auto\"")), processors.min(64));
}

#[test]
fn limits_that_are_given_are_kept() {
    let child = "start_action = \"start\"
rekey_time = 600
life_time = \"11m\"
rekey_bytes = \"1GiB\"
rekey_packets = 1000";
    let connection = "rekey_time = \"1h\"
over_time = \"5m\"
dpd_delay = 0
encap = true
initial_contact = false
childless = \"prefer\"
fragmentation = \"force\"
fragment_size = 576
reauth_time = \"1d\"
unique = \"replace\"
redirect_to = \"192.0.2.7\"
redirect_patience = \"10s\"
resumption = true
ticket_lifetime = \"2h\"
allow_sha1_rsa = true
mobike = false
return_routability = \"after\"
local  = {";
    let text = HOSTS
        .replacen("start_action = \"start\"", child, 1)
        .replacen("local  = {", connection, 1);
    let loaded = parse(&text);
    let connection = &loaded.ike.connections[0];
    assert_eq!(connection.rekey_time, Duration::from_secs(3600));
    assert_eq!(
        connection.over_time,
        Duration::from_secs(3900),
        "on top of it"
    );
    assert_eq!(connection.dpd_delay, None);
    assert!(connection.force_encap && connection.allow_sha1_rsa);
    assert!(!connection.initial_contact);
    assert_eq!(connection.childless, Childless::Prefer);
    assert_eq!(connection.fragmentation.mode, FragmentationMode::Force);
    assert_eq!(connection.fragmentation.size, 576);
    let policy = PeerPolicy {
        reauth_time: Some(Duration::from_secs(86_400)),
        unique: Unique::Replace,
    };
    assert_eq!(connection.peer, policy);
    assert!(!connection.mobike.enabled && !connection.mobike.check_first);
    let redirect = Redirect {
        to: Some(IpAddr::from([192, 0, 2, 7])),
        patience: Duration::from_secs(10),
        ..Redirect::default()
    };
    assert_eq!(connection.redirect, redirect);
    let resumption = Resumption {
        enabled: true,
        lifetime: Duration::from_secs(7200),
    };
    assert_eq!(connection.resumption, resumption);
    let child = &connection.children[0];
    assert_eq!(child.rekey_time, Duration::from_secs(600));
    assert_eq!(child.life_time, Duration::from_secs(660));
    assert_eq!(child.rekey_bytes, Some(1 << 30));
    assert_eq!(child.life_bytes, Some((1 << 30) + (1 << 30) / 10));
    assert_eq!(
        (child.rekey_packets, child.life_packets),
        (Some(1000), Some(1100))
    );
}

#[test]
fn zero_leaves_rekeys_to_the_peer_and_tries_have_no_end_unless_it_is_said() {
    let with = |child: &str, connection: &str| {
        let text = HOSTS
            .replacen("start_action = \"start\"", child, 1)
            .replacen("local  = {", &format!("{connection}\nlocal  = {{"), 1);
        parse(&text).ike.connections[0].clone()
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let never = with("rekey_time = 0", "rekey_time = 0");
    assert_eq!(never.rekey_time, Duration::MAX);
    assert_eq!(never.over_time, hours(4) + hours(4) / 10);
    assert_eq!(never.children[0].rekey_time, Duration::MAX);
    assert_eq!(never.children[0].life_time, hours(1) + hours(1) / 10);
    assert_eq!(never.keying_tries, 0);
    let said = with(
        "rekey_time = 0\nlife_time = \"8h\"",
        "rekey_time = 0\nover_time = \"9h\"\nkeyingtries = 3",
    );
    assert_eq!(
        (said.over_time, said.children[0].life_time),
        (hours(9), hours(8))
    );
    assert_eq!(said.keying_tries, 3);
}

#[test]
fn selectors_default_to_the_connections_addresses() {
    let (connections, secrets) = HOSTS.split_at(HOSTS.find("[secrets").unwrap());
    let head = &connections[..connections.find("[connections.hosts.children").unwrap()];
    let head = head.replace("[\"192.168.0.1\"]", "[\"192.168.0.1\", \"fd00::1\"]");
    let children = "[connections.hosts.children.all]
remote_ts = [\"10.0.0.0/8\", \"fd01::/64\"]
[connections.hosts.children.web]
mode = \"transport\"
local_ts = [\"dynamic[tcp/80]\"]
remote_ts = [\"dynamic\"]
";
    let text = format!("{head}{children}{secrets}").replace(
        "remote_addrs = [\"192.168.0.2\"]",
        "remote_addrs = [\"192.168.0.2\", \"fd00::2\"]",
    );
    let loaded = parse(&text);
    let [all, web] = loaded.ike.connections[0].children.as_slice() else {
        panic!("two children");
    };
    assert_eq!(selectors(&all.local_ts), ["192.168.0.1", "fd00::1"]);
    assert_eq!(
        selectors(&web.local_ts),
        ["192.168.0.1[tcp/80]", "fd00::1[tcp/80]"]
    );
    assert_eq!(selectors(&web.remote_ts), ["192.168.0.2", "fd00::2"]);
}

#[test]
fn each_side_has_its_own_way_to_authenticate() {
    let key = PrivateKey::generate_ed25519(&mut rand_core::UnwrapErr(getrandom::SysRng));
    let mut files = Table::default();
    files
        .0
        .insert("peer.pub", key.public().to_pem().into_bytes());
    let text = HOSTS.replace(
        "remote = { auth = \"psk\"",
        "remote = { pubkeys = [\"peer.pub\"], auth = \"pubkey\"",
    );
    let loaded = parse_str("test.toml", &text, &files).unwrap();
    let connection = &loaded.ike.connections[0];
    assert_eq!(connection.local.method, LocalAuthMethod::Psk);
    assert_eq!(
        connection.remote.method,
        RemoteAuthMethod::Keys(vec![key.public()])
    );
}

#[test]
fn signatures_are_those_that_are_listed() {
    let key = PrivateKey::generate_ed25519(&mut rand_core::UnwrapErr(getrandom::SysRng));
    let mut files = Table::default();
    let pem = key.public().to_pem().into_bytes();
    files.0.insert("peer.pub", pem);
    let with = |list: &str| {
        let remote = format!("remote = {{ pubkeys = [\"peer.pub\"], auth = \"pubkey\"{list}");
        HOSTS.replace("remote = { auth = \"psk\"", &remote)
    };
    let signatures = |list: &str| {
        let loaded = parse_str("test.toml", &with(list), &files).unwrap();
        let connection = &loaded.ike.connections[0];
        assert_eq!(connection.local.signatures, Signatures::ALL);
        connection.remote.signatures.to_string()
    };
    assert_eq!(signatures(""), Signatures::ALL.to_string());
    let list = ", signatures = [\"ed25519\", \"rsa-pss-sha512\", \"rsa-pss-sha256\"]";
    assert_eq!(signatures(list), "ed25519, rsa-pss-sha256, rsa-pss-sha512");
    for (list, says) in [
        ("\"rsa-pss\"", "no Ed25519 key signs with rsa-pss"),
        ("\"ed25519\", \"rsa-psss\"", "did you mean \"rsa-pss\"?"),
        (
            "\"ed25519\", \"sha1\"",
            "known are rsa-pss, rsa-pkcs1, ecdsa",
        ),
        ("", "signatures is an empty list"),
    ] {
        let text = with(&format!(", signatures = [{list}]"));
        let errors = parse_str("test.toml", &text, &files).unwrap_err();
        assert!(errors.to_string().contains(says), "{errors}");
        assert_eq!(errors.0.len(), 1, "{errors}");
    }
    let text = with(", signatures = [\"ed25519\"]");
    let text = text.replace(
        "[connections.hosts]",
        "[connections.hosts]\nallow_sha1_rsa = true",
    );
    let errors = parse_str("test.toml", &text, &files).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("allow_sha1_rsa = true, and signatures leave it out")
    );
}

#[test]
fn of_several_private_keys_one_is_named() {
    let files = reference_files();
    let (head, tail) = REFERENCE.split_at(REFERENCE.find("[secrets.shared]").unwrap());
    let second = "[secrets.other]\ntype = \"private-key\"\nfile = \"own.key\"\n";
    let text = format!("{head}{second}{tail}");
    assert!(parse_str("a.toml", &text, &files).is_ok());
    let unnamed = text.replace("key = \"own\"", "");
    let errors = parse_str("a.toml", &unnamed, &files)
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("there are several private keys"),
        "{errors}"
    );
    assert!(errors.contains("one of own, other"), "{errors}");
    let wrong = text.replace("key = \"own\"", "key = \"orther\"");
    let errors = parse_str("a.toml", &wrong, &files).unwrap_err().to_string();
    assert!(errors.contains("did you mean \"other\"?"), "{errors}");
}

#[test]
fn the_data_plane_can_be_chosen() {
    for (word, choice) in [
        ("userspace", DataPlaneChoice::Userspace),
        ("kernel", DataPlaneChoice::Kernel),
        ("auto", DataPlaneChoice::Auto),
    ] {
        let text = format!("{HOSTS}\n[daemon]\ndataplane = \"{word}\"\n");
        let loaded = parse(&text);
        assert_eq!(loaded.daemon.data_plane, choice);
        assert_eq!(loaded.data_planes[0].choice, choice);
        for (own, expected) in [
            ("userspace", DataPlaneChoice::Userspace),
            ("kernel", DataPlaneChoice::Kernel),
            ("auto", DataPlaneChoice::Auto),
        ] {
            let key = format!("[connections.hosts]\ndataplane = \"{own}\"\n");
            let loaded = parse(&text.replace("[connections.hosts]\n", &key));
            assert_eq!(loaded.daemon.data_plane, choice);
            assert_eq!(loaded.data_planes[0].choice, expected);
        }
    }
}

#[test]
fn nothing_at_all_is_a_configuration_too() {
    let loaded = parse("");
    assert!(loaded.ike.connections.is_empty() && loaded.policies.is_empty());
}

#[test]
fn a_peer_may_be_anybody_if_the_file_says_so() {
    const ANYBODY: &str = include_str!("../../../examples/mongodb.toml");
    let loaded = parse(ANYBODY);
    assert_eq!(loaded.warnings, []);
    let connection = &loaded.ike.connections[0];
    assert!(connection.remote_addrs.is_empty());
    assert_eq!(connection.remote.id, None);
    let unsaid = ANYBODY.replace(", id = \"%any\"", "");
    let errors = parse_str("test.toml", &unsaid, &NoFiles).unwrap_err();
    assert!(errors.to_string().contains("says who the peer is"));
}

/// A secret does not say whose it is, so the address does; a key says so itself.
#[test]
fn a_peer_with_a_secret_and_one_address_is_that_address_unless_the_file_says_otherwise() {
    let id = ", id = \"@hostB.example.com\"";
    let remote = |change: &str, addrs: &str| {
        let text = HOSTS.replace(&format!("auth = \"psk\"{id} }}"), change);
        let text = text.replace("remote_addrs = [\"192.168.0.2\"]", addrs);
        let text = text.replace("\"@hostB.example.com\"]", "\"192.168.0.2\"]");
        let loaded = parse(&text);
        let said = loaded.warnings.iter().map(ToString::to_string);
        let said: Vec<String> = said.filter(|w| w.contains("may claim to be")).collect();
        (loaded.ike.connections[0].remote.id.clone(), said.len())
    };
    let one = "remote_addrs = [\"192.168.0.2\"]";
    let two = "remote_addrs = [\"192.168.0.2\", \"192.168.0.3\"]";
    let address = "192.168.0.2".parse().ok();
    assert_eq!(remote("auth = \"psk\" }", one), (address, 0));
    assert_eq!(remote("auth = \"psk\", id = \"%any\" }", one), (None, 0));
    assert_eq!(remote("auth = \"psk\" }", two), (None, 1));
    assert_eq!(remote("auth = \"psk\", id = \"%any\" }", two), (None, 0));
    let key = "auth = \"pubkey\", pubkeys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF/dJYfJgCaSkXHw/W1BRZ8/4ZB3f3RxpqZBVzMxSNCa\"] }";
    assert_eq!(remote(key, one), (None, 0));
}

/// Tunnels of whoever comes, to networks that several may ask for.
#[test]
fn networks_that_peers_can_take_from_each_other_are_told() {
    const ANYBODY: &str = include_str!("../../../examples/mongodb.toml");
    let told = |text: &str| {
        let loaded = parse(text);
        let said = loaded.warnings.iter().map(ToString::to_string);
        said.filter(|w| w.contains("keeps it from the peers that it belongs to"))
            .count()
    };
    assert_eq!(
        told(ANYBODY),
        0,
        "in transport mode it is a peer's own address"
    );
    let tunnels = ANYBODY.replace("mode = \"transport\"", "mode = \"tunnel\"");
    assert_ne!(tunnels, ANYBODY);
    assert!(told(&tunnels) > 0);
    let named = tunnels.replace("id = \"%any\"", "id = \"@b.example.com\"");
    assert_eq!(told(&named), 0);
}
