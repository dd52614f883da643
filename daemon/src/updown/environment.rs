//! The environment of a script, with pluto's names.
//!
//! Values that a peer chose are in it and nowhere else, and characters that mean something to a
//! shell are written as `\ooo`, since scripts are known that evaluate them.

use std::net::IpAddr;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use crate::host::pairs;
use crate::host::prefix::{Prefix, cover};

/// What a script is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    /// Name of the connection, as its operator knows it.
    pub(crate) name: String,
    /// Transport or tunnel.
    pub(crate) mode: Mode,
    /// Our address, if it is known.
    pub(crate) local: Option<IpAddr>,
    /// The peer's.
    pub(crate) remote: Option<IpAddr>,
    /// Who we are.
    pub(crate) local_id: String,
    /// Who the peer is.
    pub(crate) remote_id: String,
    /// Our side.
    pub(crate) local_ts: Vec<TrafficSelector>,
    /// The peer's side.
    pub(crate) remote_ts: Vec<TrafficSelector>,
    /// Whether the ends have a shared secret.
    pub(crate) secret: bool,
    /// Whether it is for whoever comes.
    pub(crate) template: bool,
    /// The device that has our address.
    pub(crate) device: Option<String>,
    /// `xfrm` or `userspace`.
    pub(crate) stack: &'static str,
    /// The SPIs of the first SA, in and out, and when it came up, in seconds since 1970.
    pub(crate) sa: Option<(u32, u32, u64)>,
}

/// Names and values, the verb first.
pub(super) type Environment = Vec<(&'static str, String)>;

impl Facts {
    /// For each pair of selectors one.
    pub(super) fn environments(&self, verb: &str) -> Vec<Environment> {
        let pairs = pairs(&self.local_ts, &self.remote_ts);
        pairs
            .iter()
            .map(|(local, remote)| self.environment(verb, local, remote))
            .collect()
    }

    fn environment(
        &self,
        verb: &str,
        local: &TrafficSelector,
        remote: &TrafficSelector,
    ) -> Environment {
        let address = |addr: Option<IpAddr>| addr.map(|a| a.to_string()).unwrap_or_default();
        let family = |addr: IpAddr| if addr.is_ipv4() { "ipv4" } else { "ipv6" };
        let host_only = self.local == Some(local.start) && local.start == local.end;
        let suffix = match (host_only, local.start.is_ipv4()) {
            (true, true) => "-host",
            (true, false) => "-host-v6",
            (false, true) => "-client",
            (false, false) => "-client-v6",
        };
        let (spi_in, spi_out, since) = self.sa.unwrap_or_default();
        let (ours, theirs) = (Client::of(local), Client::of(remote));
        let transport = self.mode == Mode::Transport;
        let kind = match (self.template, self.sa) {
            (false, _) => "CK_PERMANENT",
            (true, None) => "CK_TEMPLATE",
            (true, Some(_)) => "CK_INSTANCE",
        };
        let policy = format!(
            "IKEv2+{}+ENCRYPT+{}",
            if self.secret { "PSK" } else { "RSASIG" },
            if transport { "TRANSPORT" } else { "TUNNEL" }
        );
        let host_family = self.local.or(self.remote).unwrap_or(local.start);
        let text = |text: &str| text.to_owned();
        vec![
            ("PLUTO_VERB", format!("{verb}{suffix}")),
            ("PLUTO_VERSION", text("2.0")),
            ("PLUTO_CONNECTION", harmless(&self.name)),
            (
                "PLUTO_CONNECTION_TYPE",
                text(if transport { "transport" } else { "tunnel" }),
            ),
            ("PLUTO_VIRT_INTERFACE", text("NULL")),
            (
                "PLUTO_INTERFACE",
                self.device.clone().unwrap_or_else(|| text("NULL")),
            ),
            ("PLUTO_XFRMI_ROUTE", text("")),
            ("PLUTO_ME", address(self.local)),
            ("PLUTO_MY_ID", harmless(&self.local_id)),
            ("PLUTO_CLIENT_FAMILY", text(family(local.start))),
            ("PLUTO_MY_CLIENT", ours.range),
            ("PLUTO_MY_CLIENT_NET", ours.net),
            ("PLUTO_MY_CLIENT_MASK", ours.mask),
            ("PLUTO_MY_PORT", port(local)),
            ("PLUTO_MY_PROTOCOL", local.protocol.to_string()),
            ("PLUTO_SA_REQID", text("0")),
            (
                "PLUTO_SA_TYPE",
                text(if self.sa.is_some() { "ESP" } else { "none" }),
            ),
            ("PLUTO_PEER", address(self.remote)),
            ("PLUTO_PEER_ID", harmless(&self.remote_id)),
            ("PLUTO_PEER_CLIENT", theirs.range),
            ("PLUTO_PEER_CLIENT_NET", theirs.net),
            ("PLUTO_PEER_CLIENT_MASK", theirs.mask),
            ("PLUTO_PEER_PORT", port(remote)),
            ("PLUTO_PEER_PROTOCOL", remote.protocol.to_string()),
            ("PLUTO_PEER_CA", text("")),
            ("PLUTO_STACK", text(self.stack)),
            ("PLUTO_ADDTIME", since.to_string()),
            ("PLUTO_CONN_POLICY", policy),
            ("PLUTO_CONN_KIND", text(kind)),
            ("PLUTO_CONN_ADDRFAMILY", text(family(host_family))),
            ("XAUTH_FAILED", text("0")),
            ("PLUTO_IS_PEER_CISCO", text("0")),
            ("PLUTO_PEER_DNS_INFO", text("")),
            ("PLUTO_PEER_DOMAIN_INFO", text("")),
            ("PLUTO_PEER_BANNER", text("")),
            ("PLUTO_CFG_SERVER", text("0")),
            ("PLUTO_CFG_CLIENT", text("0")),
            ("PLUTO_NM_CONFIGURED", text("0")),
            ("VTI_IFACE", text("")),
            ("VTI_ROUTING", text("no")),
            ("VTI_SHARED", text("no")),
            ("SPI_IN", format!("0x{spi_in:x}")),
            ("SPI_OUT", format!("0x{spi_out:x}")),
        ]
    }
}

/// The addresses of a selector, as scripts want them.
struct Client {
    range: String,
    net: String,
    mask: String,
}

impl Client {
    fn of(ts: &TrafficSelector) -> Self {
        let all = cover(ts.start, ts.end);
        let first = all.first().copied().unwrap_or(Prefix::host(ts.start));
        let range = match all.len() {
            1 => format!("{}/{}", first.address, first.len),
            _ => format!("{}-{}", ts.start, ts.end),
        };
        Self {
            range,
            net: first.address.to_string(),
            mask: mask(first),
        }
    }
}

fn mask(prefix: Prefix) -> String {
    let bits = if prefix.is_v4() { 32 } else { 128 };
    let ones = u128::MAX
        .checked_shl(u32::from(bits - prefix.len))
        .unwrap_or(0);
    match prefix.is_v4() {
        true => std::net::Ipv4Addr::from_bits(ones as u32).to_string(),
        false => std::net::Ipv6Addr::from_bits(ones).to_string(),
    }
}

/// The only port, or 0.
fn port(ts: &TrafficSelector) -> String {
    match ts.start_port == ts.end_port {
        true => ts.start_port.to_string(),
        false => "0".to_owned(),
    }
}

/// A text with nothing in it that a shell would act on, wherever it is written into. Blanks are left, since names of
/// certificates have them: at worst there are more words.
fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b' ' | b'@' | b'.' | b'_' | b':' | b'/' | b'=' | b',' | b'+' | b'%' | b'#' | b'-' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("\\{other:03o}")),
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn facts() -> Facts {
        Facts {
            name: "net".into(),
            mode: Mode::Tunnel,
            local: Some(IpAddr::from([192, 0, 2, 1])),
            remote: Some(IpAddr::from([192, 0, 2, 2])),
            local_id: "@a".into(),
            remote_id: "@b".into(),
            local_ts: vec!["10.1.0.0/16".parse().unwrap()],
            remote_ts: vec!["10.2.0.0/24[tcp/443]".parse().unwrap()],
            secret: true,
            template: false,
            device: Some("eth0".into()),
            stack: "userspace",
            sa: None,
        }
    }

    fn value(facts: &Facts, key: &str) -> String {
        let environment = facts.environments("up").remove(0);
        let found = environment.into_iter().find(|(name, _)| *name == key);
        found.unwrap().1
    }

    #[test]
    fn networks_are_told_as_pluto_does() {
        let facts = facts();
        for (key, expected) in [
            ("PLUTO_VERB", "up-client"),
            ("PLUTO_MY_CLIENT", "10.1.0.0/16"),
            ("PLUTO_MY_CLIENT_NET", "10.1.0.0"),
            ("PLUTO_MY_CLIENT_MASK", "255.255.0.0"),
            ("PLUTO_MY_PORT", "0"),
            ("PLUTO_MY_PROTOCOL", "6"),
            ("PLUTO_PEER_CLIENT", "10.2.0.0/24"),
            ("PLUTO_PEER_CLIENT_MASK", "255.255.255.0"),
            ("PLUTO_PEER_PORT", "443"),
            ("PLUTO_CONN_POLICY", "IKEv2+PSK+ENCRYPT+TUNNEL"),
            ("PLUTO_CONN_KIND", "CK_PERMANENT"),
            ("PLUTO_SA_TYPE", "none"),
            ("SPI_IN", "0x0"),
        ] {
            assert_eq!(value(&facts, key), expected, "{key}");
        }
    }

    #[test]
    fn a_host_is_no_client_and_each_pair_of_one_family_is_told() {
        let mut facts = facts();
        facts.local_ts = vec![
            "192.0.2.1".parse().unwrap(),
            "fd01::/64".parse().unwrap(),
            "10.0.0.1-10.0.0.4".parse().unwrap(),
        ];
        facts.remote_ts = vec!["10.2.0.0/24".parse().unwrap(), "fd02::1".parse().unwrap()];
        let all = facts.environments("down");
        let verbs: Vec<&str> = all.iter().map(|one| one[0].1.as_str()).collect();
        assert_eq!(verbs, ["down-host", "down-client-v6", "down-client"]);
        let of = |at: usize, key| {
            let found = all[at]
                .iter()
                .find(|(name, _): &&(&str, String)| *name == key);
            found.unwrap().1.as_str()
        };
        assert_eq!(of(1, "PLUTO_MY_CLIENT_MASK"), "ffff:ffff:ffff:ffff::");
        assert_eq!(of(1, "PLUTO_PEER_CLIENT"), "fd02::1/128");
        assert_eq!(of(2, "PLUTO_MY_CLIENT"), "10.0.0.1-10.0.0.4");
    }

    #[test]
    fn what_a_peer_calls_itself_does_nothing_in_a_shell() {
        let mut facts = facts();
        let cases = [
            (
                "a'; rm -rf $HOME `id` \"\\\n\u{e9}",
                "a\\047\\073 rm -rf \\044HOME \\140id\\140 \\042\\134\\012\\303\\251",
            ),
            ("x;reboot", "x\\073reboot"),
            ("a|b&c<d>e", "a\\174b\\046c\\074d\\076e"),
            (
                "(*)!{~}[?]",
                "\\050\\052\\051\\041\\173\\176\\175\\133\\077\\135",
            ),
            (
                "C=US, O=Ex Inc, CN=a+b@host_1.example/2%3#4:5-6",
                "C=US, O=Ex Inc, CN=a+b@host_1.example/2%3#4:5-6",
            ),
        ];
        for (id, expected) in cases {
            facts.remote_id = id.into();
            assert_eq!(value(&facts, "PLUTO_PEER_ID"), expected);
        }
    }
}
