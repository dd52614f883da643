//! Configurations that are right, and what they mean.

use std::time::Duration;

use obol_ike::config::{LocalAuthMethod, Mode, RemoteAuthMethod, StartAction};
use obol_ike::proposal::{EspProposal, IkeProposal};

use super::{HOSTS, Table};
use crate::config::files::NoFiles;
use crate::config::{DataPlaneChoice, Loaded, check_addresses, parse_str};

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
        ["192.168.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(
        connection.remote_addrs,
        ["192.168.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
    let id = |text: &str| Some(text.parse().unwrap());
    assert_eq!(connection.local.id, id("@hostA.example.com"));
    assert_eq!(connection.remote.id, id("@hostB.example.com"));
    assert_eq!(connection.local.method, LocalAuthMethod::Psk);
    assert_eq!(connection.remote.method, RemoteAuthMethod::Psk);
    assert_eq!(connection.ike_proposals, IkeProposal::defaults());
    assert_eq!(connection.rekey_time, Duration::from_secs(14_400));
    assert_eq!(connection.over_time, Duration::from_secs(15_840));
    assert_eq!(connection.dpd_delay, Some(Duration::from_secs(30)));
    assert!(!connection.force_encap);
    assert!(connection.initial_contact);
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
    assert_eq!(pods.esp_proposals, EspProposal::defaults());
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
