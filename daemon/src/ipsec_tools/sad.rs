//! SAs as `setkey -D` and `racoonctl show-sa` list them. Keys are there only where the daemon's
//! `show_keys` says so.

use std::fmt::Write as _;

use obol_esp::SaParams;
use obol_ike::ts::TrafficSelector;

use super::spd;
use super::when::Clock;
use crate::control::protocol::{
    ChildReport, ChildSaReport, EndReport, IkeSaReport, KeysReport, ListReport, OneWay,
    StatusReport,
};
use crate::racoon::{Action, Direction, Level, Stored};

/// What there is, as the daemon tells it.
pub(super) struct View {
    pub(super) status: StatusReport,
    pub(super) list: ListReport,
    pub(super) keys: KeysReport,
    /// Those that setkey was told, the first that fits first, and then those that were made for peers.
    pub(super) policies: Vec<Stored>,
}

/// How much of an IKE SA `racoonctl` tells: `-l`, `-ll`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Detail {
    #[default]
    Short,
    Long,
    Longest,
}

impl View {
    /// IKE SAs. An attempt beside one that is up is none of the operator's: its peer gave it up for
    /// that one, and nobody is there to say so.
    pub(super) fn ike_sas(&self) -> impl Iterator<Item = &IkeSaReport> {
        let sas = &self.status.ike_sas;
        let stands = |sa: &IkeSaReport| sa.state != "connecting";
        sas.iter().filter(move |sa| {
            let better =
                |other: &&IkeSaReport| stands(other) && other.remote.addr == sa.remote.addr;
            stands(sa) || !sas.iter().any(|other| better(&other))
        })
    }

    /// `racoonctl show-sa isakmp`.
    pub(super) fn isakmp(&self, detail: Detail, clock: &Clock) -> String {
        const SHORT: &str = "Destination            Cookies                           Created\n";
        const LONG: &str = "Destination            Cookies                           ST S  V E Created             Phase2\n";
        let mut text = match detail {
            Detail::Short => SHORT.to_owned(),
            Detail::Long => LONG.to_owned(),
            Detail::Longest => format!("{:<45} {LONG}", "Source"),
        };
        for sa in self.ike_sas() {
            if detail == Detail::Longest {
                let _ = write!(text, "{:<45} ", end(&sa.local));
            }
            let _ = write!(text, "{:<22} {}:{} ", end(&sa.remote), sa.spi_i, sa.spi_r);
            let created = clock.short(clock.ago(sa.age_s));
            let _ = match detail {
                Detail::Short => writeln!(text, "{created} "),
                _ => {
                    let status = if sa.state == "connecting" { 3 } else { 9 };
                    let side = if sa.role == "initiator" { 'I' } else { 'R' };
                    let count = sa.children.iter().filter(|child| is_there(child)).count();
                    // IKEv2 has one way of beginning; B, base, is the one that is most like it.
                    writeln!(text, "{status:>2} {side} 20 B {created} {count:>6} ")
                }
            };
        }
        text
    }

    /// `setkey -D`; with `all`, dead ones too.
    pub(super) fn esp(&self, all: bool, clock: &Clock) -> String {
        let entries = self.entries(all);
        if entries.is_empty() {
            return "No SAD entries.\n".to_owned();
        }
        let count = entries.len();
        let entries = entries.iter().enumerate();
        entries
            .map(|(at, entry)| entry.text(count - 1 - at, self.status.daemon.pid, clock))
            .collect()
    }

    fn entries(&self, all: bool) -> Vec<Entry<'_>> {
        let mut entries = Vec::new();
        for sa in self.ike_sas() {
            let (here, there) = (&sa.local, &sa.remote);
            if sa.state == "connecting" {
                entries.push(Entry {
                    from: here,
                    to: there,
                    sa: None,
                    reqid: 0,
                    keys: None,
                });
            }
            for child in sa.children.iter().filter(|child| all || is_there(child)) {
                let lives = self.lifetime(&sa.name, &child.name);
                for (from, to, outbound) in [(here, there, true), (there, here, false)] {
                    entries.push(Entry {
                        from,
                        to,
                        sa: Some((child, outbound, lives)),
                        reqid: self.reqid(child, outbound),
                        keys: self.keys.of(child.id, outbound),
                    });
                }
            }
        }
        entries
    }

    /// The number that the policy of an SA gives it: `unique:7`.
    fn reqid(&self, child: &ChildSaReport, outbound: bool) -> u32 {
        let side = |texts: &[String]| texts.first()?.parse::<TrafficSelector>().ok();
        let (Some(here), Some(there)) = (side(&child.local_ts), side(&child.remote_ts)) else {
            return 0;
        };
        let (direction, src, dst) = match outbound {
            true => (Direction::Out, here, there),
            false => (Direction::In, there, here),
        };
        let fits = |policy: &&Stored| {
            let key = &policy.key;
            key.direction == direction && key.src.contains(&src) && key.dst.contains(&dst)
        };
        let Some(policy) = self.policies.iter().find(fits) else {
            return 0;
        };
        let Action::Ipsec(rules) = &policy.action else {
            return 0;
        };
        let number = |level: Level| match level {
            Level::Unique(Some(number)) => Some(u32::from(number)),
            Level::Unique(None) => Some(spd::automatic(policy)),
            Level::Use | Level::Require => None,
        };
        let mut numbers = rules.iter().filter_map(|rule| number(rule.level));
        numbers.next().unwrap_or_default()
    }

    fn lifetime(&self, connection: &str, child: &str) -> (u64, u64) {
        let mut connections = self.list.connections.iter();
        let known = connections
            .find(|known| known.name == connection)
            .and_then(|known| known.children.iter().find(|own| own.name == child));
        known.map_or((0, 0), |known: &ChildReport| (known.rekey_s, known.life_s))
    }
}

fn is_there(child: &ChildSaReport) -> bool {
    child.state != "deleting"
}

/// `10.0.1.241.500`.
fn end(end: &EndReport) -> String {
    format!("{}.{}", end.addr, end.port)
}

/// An SA of one direction, or the wish for one.
struct Entry<'a> {
    from: &'a EndReport,
    to: &'a EndReport,
    /// With the direction, and when it is rekeyed and ends, in seconds.
    sa: Option<(&'a ChildSaReport, bool, (u64, u64))>,
    /// The number that its policy gives it.
    reqid: u32,
    /// If they are to be shown.
    keys: Option<&'a OneWay>,
}

impl Entry<'_> {
    fn text(&self, seq: usize, pid: u32, clock: &Clock) -> String {
        let udp = self
            .sa
            .is_some_and(|(child, ..)| child.encapsulation == "udp");
        let host = |end: &EndReport| match udp {
            true => format!("{}[{}]", end.addr, end.port),
            false => end.addr.clone(),
        };
        let protocol = if udp { "esp-udp" } else { "esp" };
        let (spi, mode, state) = match self.sa {
            Some((child, outbound, _)) => {
                let spi = if outbound {
                    &child.spi_out
                } else {
                    &child.spi_in
                };
                let spi = u32::from_str_radix(spi, 16).unwrap_or_default();
                (spi, child.mode.as_str(), state(child))
            }
            None => (0, "transport", "larval"),
        };
        let reqid = self.reqid;
        let mut text = format!(
            "{} {} \n\t{protocol} mode={mode} spi={spi}(0x{spi:08x}) reqid={reqid}(0x{reqid:08x})\n",
            host(self.from),
            host(self.to)
        );
        if let Some((child, ..)) = self.sa {
            text.push_str(&algorithms(child, self.keys));
        }
        // Both data planes have a window of this size.
        let replay = self.sa.map_or(0, |_| SaParams::REPLAY_WINDOW);
        let _ = writeln!(
            text,
            "\tseq=0x00000000 replay={replay} flags=0x00000000 state={state} "
        );
        if let Some((child, outbound, lives)) = self.sa {
            text.push_str(&times(child, outbound, lives, clock));
        }
        let _ = writeln!(text, "\tsadb_seq={seq} pid={pid} refcnt=0");
        text
    }
}

fn state(child: &ChildSaReport) -> &'static str {
    match child.state.as_str() {
        "installing" => "larval",
        "rekeyed" => "dying",
        "deleting" => "dead",
        _ => "mature",
    }
}

fn times(child: &ChildSaReport, outbound: bool, lives: (u64, u64), clock: &Clock) -> String {
    let (soft, hard) = lives;
    let (last, octets, packets) = match outbound {
        true => (child.last_out_s, child.bytes_out, child.packets_out),
        false => (child.last_in_s, child.bytes_in, child.packets_in),
    };
    let created = clock.long(Some(clock.ago(child.age_s)));
    let last = clock.long(last.map(|seconds| clock.ago(seconds)));
    format!(
        "\tcreated: {created}\tcurrent: {}\n\
         \tdiff: {}(s)\thard: {hard}(s)\tsoft: {soft}(s)\n\
         \tlast: {last}\thard: 0(s)\tsoft: 0(s)\n\
         \tcurrent: {octets}(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n\
         \tallocated: {packets}\thard: 0\tsoft: 0\n",
        clock.long(Some(clock.now)),
        child.age_s
    )
}

/// The lines `E:` and `A:`, with the keys, or as much in the place of a key as it is long.
fn algorithms(child: &ChildSaReport, keys: Option<&OneWay>) -> String {
    let (name, bits) = child.encr.split_once('-').unwrap_or((&child.encr, "0"));
    let octets = bits.parse::<usize>().unwrap_or_default() / 8;
    let (name, octets) = match name {
        "AES_CBC" => ("aes-cbc", octets),
        "AES_CTR" => ("aes-ctr", octets + 4),
        "AES_GCM_16" => ("aes-gcm-16", octets + 4),
        "CHACHA20_POLY1305" => ("chacha20-poly1305", 36),
        "3DES" => ("3des-cbc", 24),
        other => (other, octets),
    };
    let encr = keys.map(|keys| keys.encr.as_str());
    let mut text = format!("\tE: {name}  {}\n", groups(encr, octets));
    let integ = child.integ.as_deref().map(|integ| match integ {
        "HMAC_SHA1_96" => ("hmac-sha1", 20),
        "HMAC_SHA2_256_128" => ("hmac-sha256", 32),
        "HMAC_SHA2_384_192" => ("hmac-sha384", 48),
        "HMAC_SHA2_512_256" => ("hmac-sha512", 64),
        other => (other, 0),
    });
    if let Some((name, octets)) = integ {
        let integ = keys.map(|keys| keys.integ.as_str());
        let _ = writeln!(text, "\tA: {name}  {}", groups(integ, octets));
    }
    text
}

/// Groups of four octets, eight on a line: of a key in hexadecimal digits, or of one that is hidden.
fn groups(key: Option<&str>, octets: usize) -> String {
    let hidden = "x".repeat(octets.div_ceil(4) * 8);
    let digits = key.unwrap_or(&hidden).as_bytes().chunks(8);
    let groups: Vec<_> = digits.map(String::from_utf8_lossy).collect();
    let lines: Vec<String> = groups.chunks(8).map(|line| line.join(" ")).collect();
    lines.join("\n ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::racoon::{Names, Store, script};

    /// What the host 10.0.1.13 of the story has.
    pub(in super::super) fn story(encapsulation: &str) -> View {
        let child = serde_json::json!({
            "name": "client-27017", "state": "installed", "mode": "transport", "queue": 0,
            "spi_in": "0b31b6d4", "spi_out": "09b7a173",
            "local_ts": ["10.0.1.13[tcp]"], "remote_ts": ["10.0.1.241[tcp/27017]"],
            "encr": "AES_CBC-128", "integ": "HMAC_SHA2_512_256", "ke": null, "esn": false,
            "encapsulation": encapsulation, "bytes_in": 20, "bytes_out": 40, "packets_in": 0,
            "packets_out": 1, "last_in_s": null, "last_out_s": 8, "data_plane": "userspace",
            "age_s": 10, "rekey_in_s": 34000,
        });
        let sa = serde_json::json!({
            "name": "anonymous", "state": "established", "role": "initiator",
            "local": {"addr": "10.0.1.13", "port": 500, "id": null},
            "remote": {"addr": "10.0.1.241", "port": 500, "id": null},
            "spi_i": "6cfa102c16746d63", "spi_r": "34488f0a554ed72f", "algorithms": null,
            "nat": {"local": false, "remote": false}, "fragmentation": true, "age_s": 11,
            "rekey_in_s": 60000, "children": [child],
        });
        let mut attempt = sa.clone();
        attempt["state"] = "connecting".into();
        attempt["spi_r"] = "0000000000000000".into();
        attempt["children"] = serde_json::json!([]);
        let daemon = serde_json::json!({
            "pid": 20603, "version": "0", "uptime_s": 60, "data_plane": "userspace", "config": "",
        });
        let status = serde_json::json!({
            "schema_version": 1, "daemon": daemon, "ike_sas": [sa, attempt], "policies": [], "drops": {},
        });
        let list = serde_json::json!({"schema_version": 1, "connections": [{
            "name": "anonymous", "local_addrs": [], "remote_addrs": [],
            "local": {"auth": "psk", "id": null}, "remote": {"auth": "psk", "id": null},
            "proposals": [], "children": [{
                "name": "client-27017", "mode": "transport", "start_action": "trap",
                "local_ts": [], "remote_ts": [], "proposals": [], "rekey_s": 34560, "life_s": 43200,
            }],
        }]});
        View {
            status: serde_json::from_value(status).unwrap(),
            list: serde_json::from_value(list).unwrap(),
            keys: KeysReport::default(),
            policies: Vec::new(),
        }
    }

    /// A blank before the end of a line is as it was.
    const ESP: &str = concat!(
        "10.0.1.13 10.0.1.241 \n",
        "\tesp mode=transport spi=163029363(0x09b7a173) reqid=0(0x00000000)\n",
        "\tE: aes-cbc  xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx\n",
        "\tA: hmac-sha512  xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx\n",
        " xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx\n",
        "\tseq=0x00000000 replay=4096 flags=0x00000000 state=mature \n",
        "\tcreated: Mar  1 12:00:07 2026\tcurrent: Mar  1 12:00:17 2026\n",
        "\tdiff: 10(s)\thard: 43200(s)\tsoft: 34560(s)\n",
        "\tlast: Mar  1 12:00:09 2026\thard: 0(s)\tsoft: 0(s)\n",
        "\tcurrent: 40(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n",
        "\tallocated: 1\thard: 0\tsoft: 0\n",
        "\tsadb_seq=1 pid=20603 refcnt=0\n",
        "10.0.1.241 10.0.1.13 \n",
        "\tesp mode=transport spi=187807444(0x0b31b6d4) reqid=0(0x00000000)\n",
    );

    #[test]
    fn r_a16_sas_as_setkey_lists_them() {
        let clock = Clock::for_tests();
        let text = story("none").esp(false, &clock);
        assert!(text.starts_with(ESP), "{text}");
        assert!(
            text.ends_with("\tsadb_seq=0 pid=20603 refcnt=0\n"),
            "{text}"
        );
        assert!(text.contains("\tlast:                     \t"), "{text}");
        let text = story("udp").esp(false, &clock);
        assert!(text.starts_with("10.0.1.13[500] 10.0.1.241[500] \n\tesp-udp mode=transport "));
        let mut none = story("none");
        none.status.ike_sas.clear();
        assert_eq!(none.esp(false, &clock), "No SAD entries.\n");
    }

    #[test]
    fn r_a9_a_number_of_its_policy_is_the_reqid() {
        let clock = Clock::for_tests();
        let mut view = story("none");
        let text = "spdadd 10.0.0.0/16 10.0.0.0/16[27017] tcp -P out ipsec esp/transport//unique:7;
            spdadd 10.0.0.0/16[27017] 10.0.0.0/16 tcp -P in ipsec esp/transport//unique;";
        let outcome = script::run(&Store::default(), &Names::none(), "x", text, 0);
        view.policies = outcome.store.policies;
        let text = view.esp(false, &clock);
        let reqids = text.split(" reqid=").skip(1);
        let reqids: Vec<_> = reqids.filter_map(|rest| rest.lines().next()).collect();
        assert_eq!(reqids, ["7(0x00000007)", "16386(0x00004002)"]);
    }

    #[test]
    fn the_reqid_of_what_was_made_for_a_peer_is_that_of_its_policy() {
        let clock = Clock::for_tests();
        for (level, reqids) in [
            ("unique", ["1064960(0x00104000)", "1064961(0x00104001)"]),
            ("require", ["0(0x00000000)"; 2]),
        ] {
            let made = serde_json::json!([{
                "connection": "anonymous", "child": "generated:x", "mode": "transport",
                "local_ts": ["10.0.1.13[tcp]"], "remote_ts": ["10.0.1.241[tcp/27017]"],
                "state": "up", "next_try_in_s": null, "last_in_s": null, "last_out_s": null,
                "generated": {"level": level, "ends": ["10.0.1.13", "10.0.1.241"], "age_s": 10, "life_s": 43200},
            }]);
            let mut view = story("none");
            view.status.policies = serde_json::from_value(made).unwrap();
            let store = Store::default();
            let policies = spd::made_policies(&store, &view.status.policies, &clock);
            view.policies = policies.collect();
            let text = view.esp(false, &clock);
            let found = text.split(" reqid=").skip(1);
            let found: Vec<_> = found.filter_map(|rest| rest.lines().next()).collect();
            assert_eq!(found, reqids);
            // The same numbers stand in the list of policies.
            let listed = spd::list(&store, &view.status.policies, 1, &clock);
            for number in reqids.iter().filter_map(|text| text.split('(').next()) {
                let shown = listed.contains(&format!("//unique#{number}\n"));
                assert_eq!(shown, level == "unique", "{number}: {listed}");
            }
        }
    }

    #[test]
    fn keys_are_shown_where_the_daemon_tells_them() {
        let clock = Clock::for_tests();
        let mut view = story("none");
        let keys = serde_json::json!({"children": [{
            "id": 0,
            "outbound": {"encr": "00112233445566778899aabbccddeeff", "integ": "ab".repeat(64)},
        }]});
        view.keys = serde_json::from_value(keys).unwrap();
        let text = view.esp(false, &clock);
        let line = ["abababab"; 8].join(" ");
        let shown = format!(
            "\tE: aes-cbc  00112233 44556677 8899aabb ccddeeff\n\tA: hmac-sha512  {line}\n {line}\n"
        );
        assert_eq!(text.matches(&shown).count(), 1, "{text}");
        // Those of the other direction were not told.
        assert_eq!(
            text.matches("\tE: aes-cbc  xxxxxxxx xxxxxxxx").count(),
            1,
            "{text}"
        );
    }

    #[test]
    fn r_a16_an_attempt_is_larval_until_an_sa_stands() {
        let clock = Clock::for_tests();
        let mut view = story("none");
        view.status.ike_sas.remove(0);
        let text = view.esp(false, &clock);
        assert!(text.contains("spi=0(0x00000000)") && text.contains("state=larval \n"));
        assert!(!text.contains("E:") && text.ends_with("sadb_seq=0 pid=20603 refcnt=0\n"));
    }

    #[test]
    fn r_a16_ike_sas_column_by_column() {
        let clock = Clock::for_tests();
        let view = story("none");
        assert_eq!(
            view.isakmp(Detail::Short, &clock),
            "Destination            Cookies                           Created\n\
             10.0.1.241.500         6cfa102c16746d63:34488f0a554ed72f 2026-03-01 12:00:06 \n"
        );
        let long = "Destination            Cookies                           ST S  V E Created             Phase2\n\
             10.0.1.241.500         6cfa102c16746d63:34488f0a554ed72f  9 I 20 B 2026-03-01 12:00:06      1 \n";
        assert_eq!(view.isakmp(Detail::Long, &clock), long);
        let longest = view.isakmp(Detail::Longest, &clock);
        let row = longest.lines().nth(1).unwrap();
        assert_eq!(&row[..46], format!("{:<46}", "10.0.1.13.500"));
        assert_eq!(&row[46..], long.lines().nth(1).unwrap());
    }
}
