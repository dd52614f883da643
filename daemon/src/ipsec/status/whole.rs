//! The daemon as a whole: `ipsec status`, and what it says in short, in numbers, and of shunts.

use super::View;
use super::words::client;
use crate::config::shunt::{DROP, PASS};
use crate::control::protocol::{ChildSaReport, PolicyState};
use crate::ipsec::out::{Out, Style};

impl View {
    /// The lines of `ipsec status`.
    pub(in crate::ipsec) fn print_all(&self, out: &Out) {
        let kernel = match self.status.daemon.data_plane.as_str() {
            "kernel" => "xfrm",
            other => other,
        };
        out.line("000", &format!("using kernel interface: {kernel}"));
        out.blank();
        let mut addresses: Vec<&String> = self
            .list
            .connections
            .iter()
            .flat_map(|connection| &connection.local_addrs)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        for address in addresses {
            match out.style {
                Style::Five => {
                    out.line("000", &format!("interface * {address}:UDP/500"));
                    out.line("000", &format!("interface * {address}:UDP/4500 (NAT)"));
                }
                Style::Four => {
                    out.line("000", &format!("interface * UDP {address}:500"));
                    out.line("000", &format!("interface * UDP {address}:4500"));
                }
            }
        }
        out.blank();
        out.line("000", "fips mode=disabled;");
        out.blank();
        out.line("000", "config setup options:");
        out.blank();
        out.line("000", &format!("configfile={}", self.status.daemon.config));
        out.blank();
        out.line("000", "Connection list:");
        out.blank();
        let loaded = self.print_connections(out, None, false);
        let active = self.children();
        let active = active.filter(|(_, child)| child.state == Some(PolicyState::Up));
        out.blank();
        out.line(
            "000",
            &format!(
                "Total IPsec connections: loaded {loaded}, active {}",
                active.count()
            ),
        );
        out.blank();
        self.print_brief(out);
        out.blank();
        self.print_states(out);
        out.blank();
        self.print_shunts(out);
    }

    pub(in crate::ipsec) fn print_brief(&self, out: &Out) {
        let sas = &self.status.ike_sas;
        let half = sas.iter().filter(|sa| sa.state == "connecting").count();
        let children: usize = sas.iter().map(|sa| sa.children.len()).sum();
        let cookies = match self.status.daemon.asks_for_cookies {
            true => "required",
            false => "not required",
        };
        let text =
            format!("State Information: DDoS cookies {cookies}, Accepting new IKE connections");
        out.line("000", &text);
        out.line(
            "000",
            &format!(
                "IKE SAs: total({}), half-open({half}), open(0), authenticated({}), anonymous(0)",
                sas.len(),
                sas.len() - half
            ),
        );
        out.line(
            "000",
            &format!("IPsec SAs: total({children}), authenticated({children}), anonymous(0)"),
        );
    }

    pub(in crate::ipsec) fn print_shunts(&self, out: &Out) {
        out.line("000", "Bare Shunt list:");
        out.blank();
        for policy in &self.status.policies {
            let what = match policy.connection.as_str() {
                PASS => "%pass",
                DROP => "%drop",
                _ => continue,
            };
            for (local, remote) in policy
                .local_ts
                .iter()
                .flat_map(|local| policy.remote_ts.iter().map(move |remote| (local, remote)))
            {
                let [(ours, protocol), (theirs, other)] = [local, remote].map(|ts| shunt_end(ts));
                let protocol = if protocol == 0 { other } else { protocol };
                out.line(
                    "000",
                    &format!(
                        "{ours} -{protocol}-> {theirs} => {what}    {}",
                        policy.child
                    ),
                );
            }
        }
    }

    pub(in crate::ipsec) fn print_global(&self, out: &Out) {
        let sas = &self.status.ike_sas;
        let children: Vec<&ChildSaReport> = sas.iter().flat_map(|sa| &sa.children).collect();
        let sum = |of: fn(&ChildSaReport) -> u64| children.iter().map(|child| of(child)).sum();
        let (inwards, outwards): (u64, u64) = (sum(|c| c.bytes_in), sum(|c| c.bytes_out));
        let half = sas.iter().filter(|sa| sa.state == "connecting").count();
        let shunts = self.status.policies.iter();
        let shunts = shunts.filter(|policy| [PASS, DROP].contains(&policy.connection.as_str()));
        for (key, value) in [
            ("current.states.all", (sas.len() + children.len()) as u64),
            ("current.states.ipsec", children.len() as u64),
            ("current.states.ike", sas.len() as u64),
            ("current.states.shunts", shunts.count() as u64),
            ("current.states.iketype.anonymous", 0),
            (
                "current.states.iketype.authenticated",
                (sas.len() - half) as u64,
            ),
            ("current.states.iketype.halfopen", half as u64),
            ("current.states.iketype.open", 0),
            ("total.ipsec.type.esp", children.len() as u64),
            ("total.ipsec.traffic.in", inwards),
            ("total.ipsec.traffic.out", outwards),
        ] {
            out.plain(format_args!("{key}={value}"));
        }
        for (reason, count) in &self.status.drops {
            out.plain(format_args!("total.obol.dropped.{reason}={count}"));
        }
    }
}

/// One end of a shunt as pluto writes it, with its protocol: `10.1.0.0/24`, `10.1.0.0/24:443`.
fn shunt_end(selector: &str) -> (String, u8) {
    let addresses = selector.split('[').next().unwrap_or(selector);
    let network = client(&[addresses.to_owned()]);
    match selector.parse::<obol_ike::ts::TrafficSelector>() {
        Ok(ts) if ts.start_port == ts.end_port => {
            (format!("{network}:{}", ts.start_port), ts.protocol)
        }
        Ok(ts) => (network, ts.protocol),
        Err(_) => (network, 0),
    }
}
