//! Connections and children that do not go together.

use super::HOSTS;
use super::bad::errors;
use crate::config::files::NoFiles;
use crate::config::parse_str;

/// The documented file, and its connection again under another name and with another peer.
fn two_connections(remote_ts: &str) -> String {
    let (connection, secrets) = HOSTS.split_at(HOSTS.find("[secrets").unwrap());
    let second = "
[connections.other]
local_addrs = [\"192.168.0.1\"]
remote_addrs = [\"192.168.0.3\"]
local = { auth = \"psk\", id = \"@hostA.example.com\" }
remote = { auth = \"psk\", id = \"@hostB.example.com\" }
[connections.other.children.nets]
local_ts = [\"172.16.0.0/16\"]
";
    format!("{connection}{second}remote_ts = [\"{remote_ts}\"]\n{secrets}")
}

#[test]
fn packets_must_have_one_peer() {
    for apart in ["172.16.3.0/24", "172.16.1.0/24"] {
        assert!(
            parse_str("a.toml", &two_connections(apart), &NoFiles).is_ok(),
            "{apart}"
        );
    }
    let errors = errors(&two_connections("172.16.2.128/25"));
    let [error] = errors.0.as_slice() else {
        panic!("{errors}");
    };
    assert_eq!(error.location, "a.toml:35:14");
    assert_eq!(error.also.as_deref(), Some("a.toml:12:14"));
    assert!(
        error.message.contains("hosts/pods and other/nets"),
        "{errors}"
    );
    assert!(
        error
            .message
            .contains("172.16.2.0/24 meets 172.16.2.128/25"),
        "{errors}"
    );
}

#[test]
fn connections_must_differ() {
    let text = two_connections("10.0.0.0/8").replace("192.168.0.3", "192.168.0.2");
    let errors = errors(&text);
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(
        errors.0[0]
            .message
            .contains("same addresses and identities"),
        "{errors}"
    );
}

#[test]
fn children_must_differ() {
    let again = "[connections.hosts.children.again]
local_ts = [\"172.16.1.0/24\"]
remote_ts = [\"172.16.2.0/24\"]
[secrets.hosts]";
    let errors = errors(&HOSTS.replace("[secrets.hosts]", again));
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(
        errors.0[0]
            .message
            .contains("pods and again protect the same"),
        "{errors}"
    );
}
