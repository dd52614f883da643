//! What is up: `ipsec showstates` and `ipsec trafficstatus`.

use super::words::{client, esp_algorithms, key_exchange, range, written};
use super::{View, child_number, ike_number};
use crate::control::protocol::{ChildSaReport, ConnectionReport, IkeSaReport};
use crate::ipsec::out::{Out, Style};

impl View {
    pub(in crate::ipsec) fn print_states(&self, out: &Out) {
        for sa in &self.status.ike_sas {
            let number = ike_number(sa);
            let name = self.instance(sa, &sa.name);
            let port = sa.remote.port;
            let v2 = if out.style == Style::Four {
                "STATE_V2_"
            } else {
                ""
            };
            if sa.state == "connecting" {
                let text = format!(
                    "#{number}: {name}:{port} {v2}IKE_SA_INIT_I (sent IKE_SA_INIT request); idle;"
                );
                out.line("000", &text);
                continue;
            }
            let life = life(
                self.connection(&sa.name),
                |c| c.ike_life_s,
                (sa.rekey_in_s, sa.age_s),
            );
            let newer = self
                .sas_of(&sa.name)
                .filter(|other| other.remote.addr == sa.remote.addr)
                .any(|other| other.state != "connecting" && other.id > sa.id);
            let newest = if newer { "" } else { "newest; " };
            let text = format!(
                "#{number}: {name}:{port} {v2}ESTABLISHED_IKE_SA (established IKE SA); {life}{newest}idle;"
            );
            out.line("000", &text);
            for child in &sa.children {
                self.print_child(out, sa, child, v2);
            }
        }
    }

    fn print_child(&self, out: &Out, sa: &IkeSaReport, child: &ChildSaReport, v2: &str) {
        let number = child_number(child);
        let name = self.instance(sa, &child.name);
        let of = format!("IKE SA #{}", ike_number(sa));
        let most = |connection: &ConnectionReport| {
            let mut configured = connection.children.iter();
            let known = configured.find(|known| known.name == child.name);
            known.map_or(0, |known| known.life_s)
        };
        let times = (child.rekey_in_s, child.age_s);
        let up = self.up(&sa.name, &child.name);
        let mut same = up
            .iter()
            .filter(|(ike, _)| ike.remote.addr == sa.remote.addr);
        let newest = match same.next() {
            Some((_, newest)) if newest.id == child.id => "newest; eroute owner; ",
            _ => "",
        };
        let text = format!(
            "#{number}: {name}:{} {v2}ESTABLISHED_CHILD_SA (established Child SA); {}{newest}{of}; idle;",
            sa.remote.port,
            life(self.connection(&sa.name), most, times)
        );
        out.line("000", &text);
        let (local, remote) = (&sa.local.addr, &sa.remote.addr);
        let tunnel = match child.mode.as_str() {
            "tunnel" => format!(" tun.0@{remote} tun.0@{local}"),
            _ => String::new(),
        };
        let text = format!(
            "#{number}: {name} esp.{}@{remote} esp.{}@{local}{tunnel} Traffic: ESPin={}B ESPout={}B ESPmax=2^63B ",
            child.spi_out, child.spi_in, child.bytes_in, child.bytes_out
        );
        out.line("000", &text);
    }

    /// What `trafficstatus` says; `now` in seconds since 1970.
    pub(in crate::ipsec) fn print_traffic(&self, out: &Out, name: Option<&str>, now: u64) {
        for sa in &self.status.ike_sas {
            let children = sa.children.iter();
            for child in children.filter(|child| self.means(name, &sa.name, &child.name)) {
                let id = sa.remote.id.as_deref().map(written).unwrap_or_default();
                let text = format!(
                    "#{}: {}, type=ESP, add_time={}, inBytes={}, outBytes={}, maxBytes=2^63B, id='{id}'",
                    child_number(child),
                    self.instance(sa, &child.name),
                    now.saturating_sub(child.age_s),
                    child.bytes_in,
                    child.bytes_out
                );
                out.line("006", &text);
            }
        }
    }
}

/// `tunnel [OURS===THEIRS] {ESP...}` of a Child SA.
pub(in crate::ipsec) fn child_words(style: Style, child: &ChildSaReport, active: bool) -> String {
    let selectors = match style {
        Style::Five => format!(
            "[{}==={}]",
            client(&child.local_ts),
            client(&child.remote_ts)
        ),
        Style::Four => format!(
            "[{}] -> [{}]",
            range(&child.local_ts),
            range(&child.remote_ts)
        ),
    };
    let mut esp = match child.encapsulation.as_str() {
        "udp" => "ESPinUDP".to_owned(),
        _ => "ESP".to_owned(),
    };
    if child.esn {
        esp.push_str("/ESN");
    }
    let ke = child.ke.as_deref().map(key_exchange);
    let ke = ke.map(|ke| format!("-{ke}")).unwrap_or_default();
    format!(
        "IPsec {} {selectors} {{{esp}=>0x{} <0x{} xfrm={}{ke} DPD={}}}",
        child.mode,
        child.spi_out,
        child.spi_in,
        esp_algorithms(child),
        if active { "active" } else { "passive" }
    )
}

/// `REKEY in 5s; REPLACE in 9s; ` or, of what this end never rekeys, `EXPIRE in 9s; `.
fn life(
    connection: Option<&ConnectionReport>,
    most: impl Fn(&ConnectionReport) -> u64,
    (rekey_in, age): (Option<u64>, u64),
) -> String {
    let rekey = rekey_in.map_or(String::new(), |seconds| format!("REKEY in {seconds}s; "));
    let end = match connection {
        Some(connection) if connection.never_rekeyed => "EXPIRE",
        _ => "REPLACE",
    };
    match connection.map_or(0, most).saturating_sub(age) {
        0 => rekey,
        seconds => format!("{rekey}{end} in {seconds}s; "),
    }
}
