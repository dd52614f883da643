//! Configurations that are wrong: where the error is, and what it says.

use super::HOSTS;
use crate::config::files::NoFiles;
use crate::config::{ConfigErrors, parse_str};

pub(super) fn errors(text: &str) -> ConfigErrors {
    parse_str("a.toml", text, &NoFiles).expect_err("the configuration is wrong")
}

/// A change to the documented file, where its one error is, and parts of what is said.
struct Row {
    old: &'static str,
    new: &'static str,
    at: &'static str,
    says: &'static [&'static str],
}

const fn row(
    old: &'static str,
    new: &'static str,
    at: &'static str,
    says: &'static [&'static str],
) -> Row {
    Row { old, new, at, says }
}

const ROWS: &[Row] = &[
    // Keys.
    row(
        "remote_addrs =",
        "reauth_time = \"2s\"\nremote_addrs =",
        "5:15",
        &[
            "reauth_time = \"2s\" is no value for it",
            "10s is the shortest",
        ],
    ),
    row(
        "remote_addrs =",
        "unique = \"yes\"\nremote_addrs =",
        "5:10",
        &["unique = \"yes\" is none that obol knows", "\"replace\""],
    ),
    row(
        "remote_addrs =",
        "remote_adrs =",
        "5:1",
        &[
            "unknown key `remote_adrs` in [connections.hosts]",
            "did you mean `remote_addrs`?",
        ],
    ),
    row(
        "local_ts  = [\"172",
        "lokal_ts = [\"172",
        "11:1",
        &["did you mean `local_ts`?"],
    ),
    row(
        "start_action = \"start\"",
        "zzz = 1",
        "13:1",
        &["unknown key `zzz`", "known here:", "esp_proposals"],
    ),
    row(
        "start_action = \"start\"",
        "dpd_action = \"reboot\"",
        "13:14",
        &["dpd_action = \"reboot\" is none", "\"trap\""],
    ),
    row(
        "local  = {",
        "childless = \"maybe\"\nlocal  = {",
        "7:13",
        &["childless = \"maybe\" is none", "\"prefer\""],
    ),
    row(
        "start_action = \"start\"",
        "queues = 0",
        "13:10",
        &["queues = \"0\" is no value", "from 1 to 64", "\"auto\""],
    ),
    row(
        "start_action = \"start\"",
        "queues = 65",
        "13:10",
        &["queues = \"65\" is no value", "from 1 to 64"],
    ),
    row(
        "start_action = \"start\"",
        "queues = \"some\"",
        "13:10",
        &["queues = \"some\" is no value"],
    ),
    row(
        "start_action = \"start\"",
        "inactivity = \"10m\"\nqueues = 2",
        "14:10",
        &["cannot be closed for inactivity", "13:14", "remove one"],
    ),
    row(
        "start_action = \"start\"",
        "inactivity = \"2h\"",
        "13:14",
        &["inactivity is not shorter than rekey_time"],
    ),
    row(
        "start_action = \"start\"",
        "close_action = 1",
        "13:16",
        &["close_action"],
    ),
    row(
        "local  = {",
        "redirect_to = \"gateway.example.com\"\nlocal  = {",
        "7:15",
        &[
            "redirect_to = \"gateway.example.com\" is no gateway",
            "not looked up",
        ],
    ),
    row(
        "local  = {",
        "redirect_limit = 3\nlocal  = {",
        "7:18",
        &["limits of redirects have no use", "redirect = true"],
    ),
    row(
        "local  = {",
        "ticket_lifetime = \"2h\"\nlocal  = {",
        "7:19",
        &["ticket_lifetime has no use", "resumption = true"],
    ),
    row(
        "local  = {",
        "resumption = true\nticket_lifetime = \"2d\"\nlocal  = {",
        "8:19",
        &["ticket_lifetime", "1d the longest"],
    ),
    row(
        "local  = {",
        "redirect = true\nlocal  = {",
        "3:14",
        &["a child in transport mode", "remove redirect"],
    ),
    row(
        "local  = {",
        "version = 2\nlocal  = {",
        "7:1",
        &["unknown key `version`", "speaks IKEv2 only"],
    ),
    row(
        "[secrets.hosts]",
        "[sekrets.hosts]",
        "27:2",
        &["at the top level", "did you mean `secrets`?"],
    ),
    row(
        "auth = \"psk\", id = \"@hostA",
        "auth = \"psk\", idd = \"@hostA",
        "7:26",
        &[
            "unknown key `idd` in [connections.hosts.local]",
            "did you mean `id`?",
        ],
    ),
    row(
        "remote_addrs =",
        "return_routability = \"never\"\nremote_addrs =",
        "5:22",
        &["neither", "before", "after"],
    ),
    row("ids  =", "idz  =", "29:1", &["did you mean `ids`?"]),
    // Types.
    row(
        "[\"172.16.1.0/24\"]",
        "\"172.16.1.0/24\"",
        "11:13",
        &[
            "local_ts must be a list of strings, not a string",
            "write local_ts = [\"172.16.1.0/24\"]",
        ],
    ),
    row(
        "[\"172.16.1.0/24\"]",
        "[172]",
        "11:14",
        &["local_ts must be a string, not a number"],
    ),
    row(
        "[\"172.16.1.0/24\"]",
        "[]",
        "11:13",
        &["local_ts is an empty list"],
    ),
    row(
        "local  = {",
        "encap = \"yes\"\nlocal  = {",
        "7:9",
        &["encap must be true or false, not a string"],
    ),
    row(
        "local  = {",
        "fragmentation = \"always\"\nlocal  = {",
        "7:17",
        &[
            "fragmentation = \"always\" is none that obol knows",
            "or \"force\"",
        ],
    ),
    row(
        "local  = {",
        "fragment_size = 100\nlocal  = {",
        "7:17",
        &["fragment_size", "256"],
    ),
    row(
        "local  = {",
        "fragmentation = \"no\"\nfragment_size = 576\nlocal  = {",
        "8:17",
        &["fragment_size has no use", "remove one"],
    ),
    row(
        "{ auth = \"psk\", id = \"@hostA.example.com\" }",
        "\"psk\"",
        "7:10",
        &["local must be a table, not a string"],
    ),
    // Addresses.
    row(
        "[\"192.168.0.1\"]",
        "[\"192.168.0.256\"]",
        "4:17",
        &[
            "\"192.168.0.256\" is no address for local_addrs",
            "names are not looked up",
        ],
    ),
    row(
        "[\"192.168.0.2\"]",
        "[\"hostB\"]",
        "5:17",
        &["\"hostB\" is no address for remote_addrs"],
    ),
    row(
        "[\"192.168.0.2\"]",
        "[\"192.168.0.0/24\"]",
        "5:17",
        &["write single addresses"],
    ),
    row(
        "[\"192.168.0.2\"]",
        "[\"%any\", \"192.168.0.2\"]",
        "5:17",
        &["lists %any beside addresses"],
    ),
    row(
        "[\"192.168.0.1\"]",
        "[\"192.168.0.1\", \"192.168.0.1\"]",
        "4:32",
        &["192.168.0.1 is listed twice", "a.toml:4:17"],
    ),
    // Who is who.
    row(
        "auth = \"psk\", id = \"@hostA",
        "auth = \"eap-md5\", id = \"@hostA",
        "7:19",
        &["auth = \"eap-md5\" is none", "does not do EAP"],
    ),
    row(
        "auth = \"psk\", id = \"@hostA",
        "id = \"@hostA",
        "7:10",
        &["[connections.hosts.local] has no auth"],
    ),
    row(
        "remote = { auth = \"psk\", id = \"@hostB.example.com\" }",
        "",
        "3:14",
        &["connection hosts has no remote"],
    ),
    row(
        "id = \"@hostB.example.com\"",
        "id = \"\"",
        "8:31",
        &["an identity must not be empty"],
    ),
    row(
        "id = \"@hostB.example.com\"",
        "id = \"CN=hostB\"",
        "8:31",
        &["distinguished names are not supported"],
    ),
    row(
        "remote = { auth = \"psk\"",
        "remote = { auth = \"pubkey\"",
        "8:10",
        &["no pubkeys of the peer", "pubkeys = ["],
    ),
    row(
        "local  = { auth = \"psk\"",
        "local  = { auth = \"pubkey\"",
        "7:10",
        &["there is no private key", "type = \"private-key\""],
    ),
    row(
        "local  = { auth = \"psk\"",
        "local  = { key = \"k\", auth = \"pubkey\"",
        "7:18",
        &["no private key is called \"k\"", "[secrets.k]"],
    ),
    row(
        "remote = { auth = \"psk\"",
        "remote = { pubkeys = [\"peer.pub\"], auth = \"pubkey\"",
        "8:23",
        &["cannot read peer.pub"],
    ),
    row(
        "remote = { auth = \"psk\"",
        "remote = { pubkeys = [\"0sAA==\"], auth = \"pubkey\"",
        "8:23",
        &["ssh-ed25519"],
    ),
    // Selectors.
    row(
        "172.16.1.0/24",
        "172.16.1.0/33",
        "11:14",
        &["local_ts: `/33` is no prefix length"],
    ),
    row(
        "32[tcp/27017]\"]\nremote",
        "32[tcp/hi]\"]\nremote",
        "17:14",
        &["`hi` is no port"],
    ),
    row(
        "\"172.16.2.0/24\"",
        "\"fd00::/64\"",
        "12:14",
        &["different address families"],
    ),
    row(
        "start_action = \"start\"",
        "mode = \"transport\"",
        "11:14",
        &["172.16.1.0/24 holds none of local_addrs"],
    ),
    row(
        "start_action = \"start\"",
        "mode = \"tunel\"",
        "13:8",
        &["mode = \"tunel\" is none", "\"tunnel\" or \"transport\""],
    ),
    row(
        "\"start\"",
        "\"stat\"",
        "13:16",
        &["start_action = \"stat\" is none"],
    ),
    row(
        "[\"172.16.1.0/24\"]",
        "[\"172.16.1.0/24\", \"172.16.1.0/24\"]",
        "11:31",
        &["172.16.1.0/24 is listed twice"],
    ),
    // Times and sizes.
    row(
        "start_action = \"start\"",
        "rekey_time = \"4 hours\"",
        "13:14",
        &["rekey_time = \"4 hours\" is no value", "\"4h\""],
    ),
    row(
        "start_action = \"start\"",
        "rekey_time = \"999ms\"",
        "13:14",
        &["1s is the shortest"],
    ),
    row(
        "start_action = \"start\"",
        "life_time = 0",
        "13:13",
        &["1s is the shortest"],
    ),
    row(
        "start_action = \"start\"",
        "rekey_time = \"2h\"\nlife_time = \"1h\"",
        "14:13",
        &["life_time is not beyond rekey_time", "a.toml:13:14"],
    ),
    row(
        "start_action = \"start\"",
        "life_time = \"1h\"",
        "10:29",
        &["life_time is not longer than rekey_time, which is 1h"],
    ),
    row(
        "start_action = \"start\"",
        "rekey_bytes = \"1gb\"",
        "13:15",
        &["\"1GB\""],
    ),
    row(
        "local  = {",
        "over_time = \"0s\"\nlocal  = {",
        "7:13",
        &["over_time leaves no time"],
    ),
    // Algorithms.
    row(
        "local  = {",
        "proposals = [\"3des-sha256-modp2048\"]\nlocal  = {",
        "7:14",
        &["`3des`", "write `"],
    ),
    row(
        "local  = {",
        "proposals = [\"aes256gcm16-prfsha384-x25520\"]\nlocal  = {",
        "7:14",
        &["`x25520`", "x25519"],
    ),
    row(
        "start_action = \"start\"",
        "esp_proposals = [\"aes128-md5\"]",
        "13:18",
        &["`md5`"],
    ),
    // Secrets.
    row(
        "type = \"psk\"",
        "type = \"password\"",
        "28:8",
        &["type is none that obol knows"],
    ),
    row("type = \"psk\"", "", "27:10", &["secret hosts has no type"]),
    row(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "secret = \"0s***\"",
        "30:10",
        &["not base64"],
    ),
    row(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "secret = \"0x123\"",
        "30:10",
        &["not hex"],
    ),
    row(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "secret = \"\"",
        "30:10",
        &["the secret is empty"],
    ),
    row(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "file = \"no.psk\"",
        "30:8",
        &["cannot read no.psk"],
    ),
    row(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "",
        "27:10",
        &["neither secret nor file"],
    ),
    row(
        "secret = \"0s",
        "file = \"x\"\nsecret = \"0s",
        "31:10",
        &["both secret and file", "a.toml:30:8"],
    ),
    row(
        "[\"@hostA.example.com\", \"@hostB.example.com\"]",
        "[\"@hostA.example.com\", \"@HOSTA.example.com\"]",
        "29:31",
        &["listed twice"],
    ),
    row(
        "[\"@hostA.example.com\", \"@hostB.example.com\"]",
        "[\"@hostA.example.com\", \"@hostC.example.com\"]",
        "7:10",
        &[
            "no secret for connection hosts between \"hostA.example.com\" and \"hostB.example.com\"",
            "ids = [",
        ],
    ),
    // Names.
    row(
        "[connections.hosts.children.pods]",
        "[connections.hosts.children.\"a/b\"]",
        "10:29",
        &["\"a/b\" cannot be a name"],
    ),
    row(
        "[connections.hosts.children.pods]",
        "[connections.hosts.children.mongodb-server]",
        "15:29",
        &["duplicate key"],
    ),
    // The daemon.
    row(
        "[secrets.hosts]",
        "daemon.tun = \"a/b\"\n[secrets.hosts]",
        "27:1",
        &["unknown key `daemon`"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\ntun = \"a/b\"\n[secrets.hosts]",
        "28:7",
        &["tun is no name for a network device"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\ntable = 254\n[secrets.hosts]",
        "28:9",
        &["routing table 254 is the system's own"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\nmtu = 500\n[secrets.hosts]",
        "28:7",
        &["mtu = 500 is out of range", "from 1280 to 65535"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\nport = 4500\n[secrets.hosts]",
        "27:1",
        &["port and natt_port are both 4500"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\ndataplane = \"karnel\"\n[secrets.hosts]",
        "28:13",
        &["dataplane is none that obol knows", "\"kernel\""],
    ),
    row(
        "local_addrs",
        "dataplane = \"karnel\"\nlocal_addrs",
        "4:13",
        &["dataplane is none that obol knows", "\"kernel\""],
    ),
    row(
        "[connections.hosts.children.pods]\n",
        "dataplane = \"kernel\"\n[connections.hosts.children.pods]\nqueues = 4\n",
        "11:29",
        &[
            "child pods has several queues",
            "the kernel's data plane has one SA for a child",
        ],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\nretransmit_base = 0.5\n[secrets.hosts]",
        "28:19",
        &["from 1 to 5"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\nretransmit_timeout = \"1ms\"\n[secrets.hosts]",
        "28:22",
        &["100ms is the shortest"],
    ),
    row(
        "[secrets.hosts]",
        "[daemon]\nfwmark = -1\n[secrets.hosts]",
        "28:10",
        &["fwmark = -1 is out of range"],
    ),
];

#[test]
fn every_mistake_is_found_where_it_is() {
    let mut wrong = Vec::new();
    for Row { old, new, at, says } in ROWS {
        assert!(HOSTS.contains(old), "{old}");
        let errors = errors(&HOSTS.replacen(old, new, 1));
        let text = errors.to_string();
        let found = errors.0.iter().any(|finding| {
            let shown = finding.to_string();
            finding.location == format!("a.toml:{at}")
                && says.iter().all(|part| shown.contains(part))
        });
        if !found || errors.0.len() > 2 {
            wrong.push(format!("{new}: wanted {at} {says:?}, got:\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
