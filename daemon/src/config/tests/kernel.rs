//! Keys of a child that only the kernel's data plane knows.

use super::HOSTS;
use super::bad::errors;
use crate::config::files::NoFiles;
use crate::config::{Loaded, parse_str};
use crate::dataplane::HwOffload;

/// The documented file with this data plane, and these lines in its first child.
fn text(data_plane: &str, lines: &str) -> String {
    let action = "start_action = \"start\"";
    let with = HOSTS.replacen(action, &format!("{action}\n{lines}"), 1);
    format!("{with}\n[daemon]\ndataplane = \"{data_plane}\"\n")
}

fn parse(data_plane: &str, lines: &str) -> Loaded {
    match parse_str("test.toml", &text(data_plane, lines), &NoFiles) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

const ALL: &str = "if_id = 42\ninterface = \"ipsec1\"\nmark_in = \"0x10/0xff\"\nmark_out = 7";

#[test]
fn they_are_kept_for_the_data_plane() {
    let loaded = parse("kernel", ALL);
    let options = &loaded.policies[0].kernel;
    assert_eq!(options.if_id, 42);
    assert_eq!(options.interface.as_deref(), Some("ipsec1"));
    let (mark_in, mark_out) = (options.mark_in, options.mark_out);
    assert_eq!((mark_in.value, mark_in.mask), (16, 255));
    assert_eq!((mark_out.value, mark_out.mask), (7, u32::MAX));
    assert!(!parse("kernel", "").policies[0].kernel.any());
    let offload = |data_plane, wish| {
        let loaded = parse(data_plane, &format!("hw_offload = \"{wish}\""));
        loaded.policies[0].kernel.hw_offload
    };
    assert_eq!(offload("userspace", "no"), HwOffload::No);
    assert_eq!(offload("kernel", "crypto"), HwOffload::Crypto);
    assert_eq!(offload("kernel", "auto"), HwOffload::Auto);
}

#[test]
fn they_leave_auto_no_choice() {
    let by_kernel = |data_plane, lines| {
        let chosen = &parse(data_plane, lines).data_planes[0];
        (chosen.needs_kernel, chosen.is_kernel())
    };
    assert_eq!(by_kernel("auto", "if_id = 42"), (true, true));
    assert_eq!(by_kernel("auto", ""), (false, false));
    assert_eq!(by_kernel("kernel", ""), (false, true));
    assert_eq!(by_kernel("userspace", ""), (false, false));
}

#[test]
fn what_is_wrong_with_them_is_told() {
    let rows = [
        (
            "userspace",
            "mark_out = 7",
            "a.toml:14:12: ",
            "mark_out needs the kernel's data plane, and dataplane is \"userspace\"",
        ),
        ("kernel", "if_id = 0", "a.toml:14:9: ", "out of range"),
        (
            "kernel",
            "interface = \"ipsec1\"",
            "a.toml:14:13: ",
            "without if_id",
        ),
        (
            "kernel",
            "if_id = 1\ninterface = \"a/b\"",
            "a.toml:15:13: ",
            "is no name for a network device",
        ),
        (
            "kernel",
            "mark_in = \"0x1ff/0xff\"",
            "a.toml:14:11: ",
            "all of the mark must be among them",
        ),
        ("kernel", "mark_in = \"7/x\"", "a.toml:14:11: ", "0x10/0xff"),
        (
            "kernel",
            "hw_offload = \"packet\"",
            "a.toml:14:14: ",
            "whole packets are never left to a device",
        ),
        (
            "userspace",
            "hw_offload = \"auto\"",
            "a.toml:14:14: ",
            "hw_offload needs the kernel's data plane",
        ),
    ];
    for (data_plane, lines, place, says) in rows {
        let told = errors(&text(data_plane, lines)).to_string();
        assert!(told.contains(place), "{told}");
        assert!(told.contains(says), "{told}");
        assert_eq!(told.matches("a.toml:").count(), 1, "{told}");
    }
}

/// Two connections with one child each, for the same packets.
fn two(first: &str, second: &str) -> String {
    let connection = |name: &str, remote: &str, lines: &str| {
        format!(
            "[connections.{name}]\nlocal_addrs = [\"192.0.2.1\"]\nremote_addrs = [\"{remote}\"]\nlocal = {{ auth = \"psk\", id = \"@a\" }}\nremote = {{ auth = \"psk\", id = \"@{name}\" }}\n[connections.{name}.children.all]\nlocal_ts = [\"0.0.0.0/0\"]\nremote_ts = [\"0.0.0.0/0\"]\n{lines}\n"
        )
    };
    [
        &connection("b", "192.0.2.2", first),
        &connection("c", "192.0.2.3", second),
        "[secrets.all]\ntype = \"psk\"\nsecret = \"0x000102030405060708090a0b0c0d0e0f\"\n",
        "[daemon]\ndataplane = \"kernel\"\n",
    ]
    .concat()
}

#[test]
fn they_tell_packets_of_two_connections_apart() {
    let told = |first: &str, second: &str| match parse_str("a.toml", &two(first, second), &NoFiles)
    {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    };
    assert_eq!(told("if_id = 1", "if_id = 2"), "");
    assert_eq!(told("mark_out = \"1/3\"", "mark_out = \"2/3\""), "");
    assert!(told("if_id = 1", "if_id = 1").contains("claim the same packets"));
    assert!(told("mark_out = \"1/1\"", "mark_out = \"2/2\"").contains("claim the same packets"));
    assert!(told("mark_out = 1", "").contains("claim the same packets"));
    // Perhaps one is the kernel's, and the other is not.
    let auto = two("if_id = 1", "").replace("\"kernel\"", "\"auto\"");
    let auto = parse_str("a.toml", &auto, &NoFiles).unwrap_err();
    assert!(auto.to_string().contains("claim the same packets"));
    let interface = |name, id| format!("if_id = {id}\ninterface = \"{name}\"");
    assert_eq!(told(&interface("one", 1), &interface("two", 2)), "");
    for (name, id) in [("one", 2), ("two", 1)] {
        let told = told(&interface("one", 1), &interface(name, id));
        assert!(told.contains("one interface with two numbers"), "{told}");
    }
}
