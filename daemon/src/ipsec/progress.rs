//! How far an `up` is, in pluto's lines.

use std::net::SocketAddr;
use std::time::Duration;

use super::out::{Out, Style};
use super::status::{View, client, key_exchange, numbered};
use crate::control::protocol::{ChildReport, IkeAlgorithmsReport, StepKind, StepReport};

/// A connection that is brought up.
pub(super) struct Progress<'a> {
    out: &'a Out,
    name: &'a str,
    /// As it is configured.
    configured: Option<&'a ChildReport>,
    /// The number of the IKE SA that is being made.
    ike: Option<u64>,
    /// Where its first request went: the next one may go to another port.
    first: Option<SocketAddr>,
    /// What was asked last.
    stage: Stage,
}

/// What the peer is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Init,
    Auth,
    /// For a Child SA of this number.
    Child(u64),
}

impl<'a> Progress<'a> {
    /// Of a child that is not up yet, or is.
    pub(super) fn of(view: &'a View, out: &'a Out, connection: &str, name: &'a str) -> Self {
        let connection = view.connection(connection);
        let mut children = connection
            .into_iter()
            .flat_map(|connection| &connection.children);
        Self {
            out,
            name,
            configured: children.find(|child| child.name == name),
            ike: None,
            first: None,
            stage: Stage::Init,
        }
    }

    /// Says what is known since.
    pub(super) fn tell(&mut self, step: &StepReport) {
        let peer = endpoint(self.out.style, step.peer);
        match &step.kind {
            StepKind::Begun => self.begun(step),
            StepKind::Proving { algorithms } => self.proving(step, &peer, algorithms),
            StepKind::Asked {
                child,
                name,
                spi_in,
            } => self.asked(step, (*child, name), spi_in),
            StepKind::Repeated { exchange, after_ms } => self.repeated(step, exchange, *after_ms),
            StepKind::Silent { tries, after_ms } => self.silent(*tries, *after_ms),
            StepKind::Refused { notify } => self.refused(notify),
            StepKind::ChildRefused { notify } => {
                let (number, exchange) = match self.stage {
                    Stage::Child(number) => (2 * number, "CREATE_CHILD_SA"),
                    _ => (numbered(step.ike), "IKE_AUTH"),
                };
                let what = format!("{exchange} response rejected Child SA with {notify}");
                self.line("003", number, &what);
            }
        }
    }

    /// There is nothing more to come.
    pub(super) fn failed(&self, why: &str) {
        self.out.line("036", &format!("\"{}\": {why}", self.name));
    }

    fn line(&self, code: &str, number: u64, text: &str) {
        let text = match number {
            0 => format!("\"{}\": {text}", self.name),
            number => format!("\"{}\" #{number}: {text}", self.name),
        };
        self.out.line(code, &text);
    }

    fn begun(&mut self, step: &StepReport) {
        let number = numbered(step.ike);
        if self.ike.replace(step.ike) != Some(step.ike) {
            let text = match self.out.style {
                Style::Five => {
                    let peer = step.peer.ip();
                    format!("initiating IKEv2 connection to {peer} using UDP")
                }
                Style::Four => "initiating IKEv2 connection".to_owned(),
            };
            self.line("1v2", number, &text);
        }
        self.stage = Stage::Init;
        self.first = Some(step.peer);
        let peer = endpoint(self.out.style, step.peer);
        let text = format!("sent IKE_SA_INIT request to {peer}");
        self.line("1v2", number, &text);
    }

    fn proving(&mut self, step: &StepReport, peer: &str, algorithms: &IkeAlgorithmsReport) {
        self.stage = Stage::Auth;
        self.ike = Some(step.ike);
        let number = numbered(step.ike);
        let chosen = chosen(algorithms);
        match self.out.style {
            Style::Five => {
                let first = self.first.unwrap_or(step.peer);
                let first = endpoint(self.out.style, first);
                let text = format!(
                    "processed IKE_SA_INIT response from {first} {chosen}, initiating IKE_AUTH"
                );
                self.line("1v2", number, &text);
                let text = format!("sent IKE_AUTH request to {peer}");
                self.line("1v2", number, &text);
            }
            Style::Four => {
                let text = format!("sent IKE_AUTH request {chosen}");
                self.line("1v2", number, &text);
            }
        }
    }

    fn asked(&mut self, step: &StepReport, (child, name): (u64, &str), spi_in: &str) {
        if name != self.name {
            return;
        }
        self.stage = Stage::Child(child);
        let (number, ike) = (2 * child, numbered(step.ike));
        let text = format!("initiating Child SA using IKE SA #{ike}");
        self.line("002", number, &text);
        let text = match self.out.style {
            Style::Five => {
                let selectors = self.configured.map_or(String::new(), |child| {
                    let (ours, theirs) = (client(&child.local_ts), client(&child.remote_ts));
                    format!(" [{ours}==={theirs}]")
                });
                format!(
                    "sent CREATE_CHILD_SA request to create Child SA using IKE SA #{ike} {{ESP <0x{spi_in}}}{selectors}"
                )
            }
            Style::Four => "sent CREATE_CHILD_SA request for new IPsec SA".to_owned(),
        };
        self.line("189", number, &text);
    }

    fn repeated(&self, step: &StepReport, exchange: &str, after_ms: u64) {
        let state = match (self.out.style, exchange) {
            (Style::Five, "CREATE_CHILD_SA") => "ESTABLISHED_IKE_SA".to_owned(),
            (Style::Five, exchange) => format!("{exchange}_I"),
            (Style::Four, "CREATE_CHILD_SA") => "STATE_V2_ESTABLISHED_IKE_SA".to_owned(),
            (Style::Four, "IKE_AUTH") => "STATE_V2_PARENT_I2".to_owned(),
            (Style::Four, _) => "STATE_V2_PARENT_I1".to_owned(),
        };
        let tenths = after_ms / 100;
        let seconds = match tenths % 10 {
            0 => (tenths / 10).to_string(),
            tenth => format!("{}.{tenth}", tenths / 10),
        };
        let text = format!("{state}: retransmission; will wait {seconds} seconds for response");
        self.line("010", numbered(step.ike), &text);
    }

    fn silent(&self, tries: u32, after_ms: u64) {
        let Some(ike) = self.ike else {
            return;
        };
        let state = self.state();
        let seconds = Duration::from_millis(after_ms).as_secs();
        let repeated = tries.saturating_sub(1);
        let text = format!(
            "{state}: {seconds} second timeout exceeded after {repeated} retransmits.  No response (or no acceptable response) to our {} IKEv2 message",
            if self.stage == Stage::Init {
                "first"
            } else {
                "last"
            }
        );
        self.line("031", numbered(ike), &text);
    }

    fn refused(&self, notify: &str) {
        let (Some(ike), Stage::Auth) = (self.ike, self.stage) else {
            return;
        };
        let number = numbered(ike);
        let text = format!("IKE SA authentication request rejected by peer: {notify}");
        self.line("003", number, &text);
        let text = format!("encountered fatal error in state {}", self.state());
        self.line("036", number, &text);
    }

    /// pluto's name for what is waited for.
    fn state(&self) -> &'static str {
        match (self.out.style, self.stage) {
            (Style::Five, Stage::Init) => "IKE_SA_INIT_I",
            (Style::Five, Stage::Auth) => "IKE_AUTH_I",
            (Style::Five, Stage::Child(_)) => "ESTABLISHED_IKE_SA",
            (Style::Four, Stage::Init) => "STATE_V2_PARENT_I1",
            (Style::Four, Stage::Auth) => "STATE_V2_PARENT_I2",
            (Style::Four, Stage::Child(_)) => "STATE_V2_ESTABLISHED_IKE_SA",
        }
    }
}

/// `192.0.2.1:UDP/500`; with 4.x `192.0.2.1:500`.
fn endpoint(style: Style, peer: SocketAddr) -> String {
    let address = match peer {
        SocketAddr::V4(v4) => v4.ip().to_string(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
    };
    match style {
        Style::Five => format!("{address}:UDP/{}", peer.port()),
        Style::Four => format!("{address}:{}", peer.port()),
    }
}

/// `{cipher=AES_GCM_16_256 integ=n/a prf=HMAC_SHA2_512 group=DH19}`
fn chosen(algorithms: &IkeAlgorithmsReport) -> String {
    let integ = algorithms.integ.as_deref().unwrap_or("n/a");
    format!(
        "{{cipher={} integ={} prf={} group={}}}",
        algorithms.encr.replace('-', "_"),
        integ.trim_start_matches("AUTH_"),
        algorithms.prf.trim_start_matches("PRF_"),
        key_exchange(&algorithms.ke)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_either_generation_does() {
        let v4 = "192.0.2.1:4500".parse().unwrap();
        let v6 = "[2001:db8::1]:500".parse().unwrap();
        assert_eq!(endpoint(Style::Five, v4), "192.0.2.1:UDP/4500");
        assert_eq!(endpoint(Style::Four, v4), "192.0.2.1:4500");
        assert_eq!(endpoint(Style::Five, v6), "[2001:db8::1]:UDP/500");
    }
}
