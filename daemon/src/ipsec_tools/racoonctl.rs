//! `racoonctl`: what racoon is told and asked while it runs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::sad::Detail;
use super::when::Clock;
use super::{Ended, Here, usage};
use crate::cli::{ask, complain_line, print_line, print_text};
use crate::control::protocol::{
    ChildReport, DownReport, DownTarget, IkeSaReport, ReloadReport, Request, SOCKET_NAME,
};
use crate::error::{ExitClass, Failure};

const USAGE: &str = "\
Usage:
  racoonctl [opts] reload-config
  racoonctl [opts] show-schedule
  racoonctl [opts] show-sa [protocol]
  racoonctl [opts] flush-sa [protocol]
  racoonctl [opts] delete-sa <saopts>
  racoonctl [opts] establish-sa [-w] <saopts>
  racoonctl [opts] show-event

General options:
  -d           no effect
  -l           longer lines of show-sa isakmp; twice: with the source as well
  -s <socket>  obol's control socket, or any socket of racoon's for the daemon of this host

 <protocol>: \"isakmp\", \"esp\", \"ah\" or \"ipsec\"
 <saopts>: \"isakmp\" <family> <src> <dst>
         : \"esp\" <family> <src/prefixlen/port> <dst/prefixlen/port> <ul_proto>
";

/// How long `establish-sa -w` waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long peers have to confirm that SAs are closed.
const FAREWELL: u64 = 5_000;

/// What stands before the command.
#[derive(Debug, Default, PartialEq)]
struct Options {
    detail: Detail,
    socket: Option<PathBuf>,
}

/// Which SA is meant.
#[derive(Debug, PartialEq)]
struct SaOptions {
    source: IpAddr,
    destination: IpAddr,
    /// Protocol and ports; `None`: the IKE SA.
    flow: Option<(u8, u16, u16)>,
}

pub(super) fn run(here: &Here, arguments: &[String]) -> Result<u8, Ended> {
    let Some((options, words)) = Options::read(arguments) else {
        return usage(USAGE, 1);
    };
    let Some((command, words)) = words.split_first() else {
        return usage(USAGE, 0);
    };
    let client = Client::new(here, &options);
    match *command {
        "reload-config" | "rc" => client.reload(),
        "show-schedule" | "sc" => client.schedule(),
        "show-sa" | "ss" => client.show(words, options.detail),
        "flush-sa" | "fs" => client.flush(words),
        "delete-sa" | "ds" => client.delete(words),
        "establish-sa" | "es" => client.establish(words),
        "show-event" | "se" => client.events(),
        "get-sa-cert" | "get-cert" | "gc" => Err(Ended::new(
            "racoonctl: no peer has shown a certificate: obol proves identities by secrets and raw keys",
        )),
        "vpn-connect" | "vc" | "vpn-disconnect" | "vd" => Err(Ended::new(
            "racoonctl: connecting to a gateway by Mode-Config and XAUTH is IKEv1, which has no equivalent here: establish-sa and delete-sa name SAs by addresses",
        )),
        "logout-user" | "lu" => Err(Ended::new(
            "racoonctl: users of XAUTH are IKEv1, which has no equivalent here",
        )),
        other => Err(Ended::new(format!(
            "Invalid command [{other}]\nracoonctl: kmpstat: Invalid argument"
        ))),
    }
}

impl Options {
    /// What stands before the command, and what follows. `None`: an option that there is not.
    fn read(arguments: &[String]) -> Option<(Self, Vec<&str>)> {
        let mut options = Self::default();
        let mut words = arguments.iter().map(String::as_str).peekable();
        while let Some(word) = words.next_if(|word| word.starts_with('-')) {
            let mut letters = word.get(1..).unwrap_or_default().chars();
            while let Some(letter) = letters.next() {
                match letter {
                    'l' if options.detail == Detail::Short => options.detail = Detail::Long,
                    'l' => options.detail = Detail::Longest,
                    'd' => {}
                    's' => {
                        let rest = letters.as_str();
                        let path = if rest.is_empty() { words.next()? } else { rest };
                        options.socket = Some(path.into());
                        break;
                    }
                    _ => return None,
                }
            }
        }
        Some((options, words.collect()))
    }
}

impl SaOptions {
    /// `isakmp inet SRC DST` or `esp inet SRC[/LEN][/PORT] DST[/LEN][/PORT] PROTO`.
    fn read(words: &[&str]) -> Result<Self, Ended> {
        let [kind, family, source, destination, rest @ ..] = words else {
            return Err(insufficient());
        };
        let (own, own_port) = side(family, source)?;
        let (other, other_port) = side(family, destination)?;
        let flow = match (*kind, rest) {
            ("isakmp", []) => None,
            ("esp", [protocol]) => Some((ul_proto(protocol)?, own_port, other_port)),
            ("esp", []) => return Err(insufficient()),
            ("ah", _) => return Err(Ended::new("racoonctl: obol has no AH: write esp")),
            ("isakmp" | "esp", _) => return Err(Ended::new("racoonctl: too many arguments")),
            (other, _) => return Err(unknown_protocol(other)),
        };
        Ok(Self {
            source: own,
            destination: other,
            flow,
        })
    }
}

fn insufficient() -> Ended {
    Ended::new("insufficient arguments\nracoonctl: kmpstat: Invalid argument")
}

fn unknown_protocol(word: &str) -> Ended {
    Ended::new(format!(
        "unknown protocol {word}\nracoonctl: kmpstat: Invalid argument"
    ))
}

fn side(family: &str, text: &str) -> Result<(IpAddr, u16), Ended> {
    let mut parts = text.split('/');
    let addr: Option<IpAddr> = parts.next().and_then(|addr| addr.parse().ok());
    let wrong = || {
        Ended::new(format!(
            "racoonctl: {text} is no address of family {family}"
        ))
    };
    let addr = addr.ok_or_else(wrong)?;
    match family {
        "inet" if addr.is_ipv4() => {}
        "inet6" if addr.is_ipv6() => {}
        _ => return Err(wrong()),
    }
    // `/LEN/PORT`; a length alone is one.
    let port = match (parts.next(), parts.next()) {
        (_, Some("any")) | (_, None) => 0,
        (_, Some(port)) => port.parse().map_err(|_| wrong())?,
    };
    Ok((addr, port))
}

fn ul_proto(word: &str) -> Result<u8, Ended> {
    match word {
        "any" => Ok(0),
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmp6" => Ok(58),
        "gre" => Ok(47),
        number => number.parse().map_err(|_| unknown_protocol(word)),
    }
}

/// A client of the daemon.
struct Client {
    here: Here,
    /// As it was named.
    socket: PathBuf,
}

impl Client {
    /// A socket of obol's says which daemon; racoon's own place means that of this host.
    fn new(here: &Here, options: &Options) -> Self {
        let named = options.socket.clone();
        let own = named
            .as_deref()
            .filter(|path| path.file_name() == Some(SOCKET_NAME.as_ref()))
            .and_then(|path| path.parent());
        let mut here = here.clone();
        if let Some(directory) = own {
            here.runtime_dir = directory.to_owned();
        }
        let socket = named.unwrap_or_else(|| here.runtime_dir.join(SOCKET_NAME));
        Self { here, socket }
    }

    fn ended(&self, failure: Failure) -> Ended {
        if failure.code != ExitClass::NotRunning {
            return Ended::new(format!("racoonctl: {}", failure.message));
        }
        Ended::new(format!(
            "racoonctl: cannot reach racoon at {}: {}",
            self.socket.display(),
            failure.message
        ))
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Ended> {
        self.here
            .ask(request)
            .map_err(|failure| self.ended(failure))
    }

    fn view(&self) -> Result<super::View, Ended> {
        self.here.view().map_err(|failure| self.ended(failure))
    }

    fn reload(&self) -> Result<u8, Ended> {
        let report: ReloadReport = self.ask(&Request::Reload)?;
        for warning in &report.warnings {
            complain_line(warning);
        }
        Ok(0)
    }

    /// What the daemon will do later: the rekeys that stand before it.
    fn schedule(&self) -> Result<u8, Ended> {
        let view = self.view()?;
        let clock = Clock::here();
        let mut text = "index    tick     xtime    created\n".to_owned();
        let ages = view.status.ike_sas.iter().flat_map(|sa| {
            let children = sa.children.iter();
            let children = children.map(|child| (child.rekey_in_s, child.age_s));
            std::iter::once((sa.rekey_in_s, sa.age_s)).chain(children)
        });
        let due = ages.filter_map(|(due, age)| Some((due?, age)));
        for (at, (due, age)) in due.enumerate() {
            let created = clock.short(clock.ago(age));
            text.push_str(&format!("{at:<8} {due:<8} {due:<8} {created}\n"));
        }
        print_text(&text)?;
        Ok(0)
    }

    fn show(&self, words: &[&str], detail: Detail) -> Result<u8, Ended> {
        let clock = Clock::here();
        let text = match protocol(words)? {
            Protocol::Isakmp => self.view()?.isakmp(detail, &clock),
            Protocol::Esp => self.view()?.esp(false, &clock),
            Protocol::Ah => {
                self.view()?;
                "No SAD entries.\n".to_owned()
            }
        };
        print_text(&text)?;
        Ok(0)
    }

    /// Closes all SAs; the next packet asks for others. ESP goes with its IKE SA: the peer has to
    /// know.
    fn flush(&self, words: &[&str]) -> Result<u8, Ended> {
        let kind = protocol(words)?;
        let view = self.view()?;
        if kind == Protocol::Ah {
            return Ok(0);
        }
        let mut names: Vec<String> = view
            .status
            .ike_sas
            .iter()
            .map(|sa| sa.name.clone())
            .collect();
        names.retain(|name| !name.is_empty());
        names.sort();
        names.dedup();
        for name in names {
            self.close(name)?;
        }
        Ok(0)
    }

    fn close(&self, connection: String) -> Result<(), Ended> {
        let request = Request::Down {
            target: DownTarget::Connection(connection),
            timeout_ms: FAREWELL,
        };
        match self.here.ask::<DownReport>(&request) {
            // A peer that is gone does not confirm.
            Err(failure) if failure.code != ExitClass::NoAnswer => Err(self.ended(failure)),
            _ => Ok(()),
        }
    }

    fn delete(&self, words: &[&str]) -> Result<u8, Ended> {
        let wanted = SaOptions::read(words)?;
        let view = self.view()?;
        let peer = wanted.destination.to_string();
        let sas = &view.status.ike_sas;
        let Some(found) = sas.iter().find(|sa| sa.remote.addr == peer) else {
            return Err(Ended::new(format!("racoonctl: there is no SA with {peer}")));
        };
        let shares = |sa: &&IkeSaReport| sa.name == found.name && sa.remote.addr != peer;
        if let Some(other) = sas.iter().find(shares) {
            return Err(Ended::new(format!(
                "racoonctl: {peer} shares its remote block with others that are up, {} among them: give it one of its own, or flush-sa closes all",
                other.remote.addr
            )));
        }
        self.close(found.name.clone())?;
        Ok(0)
    }

    fn establish(&self, words: &[&str]) -> Result<u8, Ended> {
        let mut words = words.iter().copied().peekable();
        let mut waits = false;
        while let Some(word) = words.next_if(|word| word.starts_with('-')) {
            match word {
                "-w" => waits = true,
                "-n" | "-u" => {
                    let fix = "the remote block is that of the peer's address, and XAUTH is IKEv1";
                    return Err(Ended::new(format!(
                        "racoonctl: {word} has no effect: {fix}"
                    )));
                }
                other => return Err(Ended::new(format!("racoonctl: no option {other}"))),
            }
        }
        let wanted = SaOptions::read(&words.collect::<Vec<_>>())?;
        let request = Request::Establish {
            source: wanted.source,
            destination: wanted.destination,
            flow: wanted.flow,
        };
        let child: ChildReport = self.ask(&request)?;
        let until = Instant::now() + PATIENCE;
        while waits && !self.is_up(&wanted, &child.name)? {
            if Instant::now() > until {
                let text = format!("racoonctl: {} does not answer", wanted.destination);
                return Err(Ended::new(text));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(0)
    }

    fn is_up(&self, wanted: &SaOptions, child: &str) -> Result<bool, Ended> {
        let peer = wanted.destination.to_string();
        let view = self.view()?;
        let mut children = view
            .status
            .ike_sas
            .iter()
            .filter(|sa| sa.remote.addr == peer)
            .flat_map(|sa| &sa.children);
        Ok(children.any(|up| up.name == child && up.state == "installed"))
    }

    /// Events as they come, until the daemon ends or somebody interrupts.
    fn events(&self) -> Result<u8, Ended> {
        let tell = |line: &str| {
            // A reader that went away ends us with its next line.
            let _ = print_line(line);
        };
        match ask(&self.here.runtime_dir, &Request::Watch, tell) {
            Ok(_) => Ok(0),
            Err(failure) => Err(self.ended(failure)),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    Isakmp,
    Esp,
    Ah,
}

fn protocol(words: &[&str]) -> Result<Protocol, Ended> {
    match words {
        [] => Err(insufficient()),
        ["isakmp"] => Ok(Protocol::Isakmp),
        ["esp" | "ipsec"] => Ok(Protocol::Esp),
        ["ah"] => Ok(Protocol::Ah),
        [other, ..] => Err(unknown_protocol(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            runtime_dir: "/nonexistent/obol".into(),
            config: "/nonexistent/obol.toml".into(),
        }
    }

    fn ends(line: &str) -> Result<u8, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        run(&here(), &words).map_err(|Ended(text)| text)
    }

    #[test]
    fn r_a16_exit_codes_and_words() {
        assert_eq!(ends(""), Ok(0));
        assert_eq!(ends("-q show-sa isakmp"), Ok(1));
        for (line, text) in [
            ("show-sa", "insufficient arguments"),
            ("ss x", "unknown protocol x"),
            (
                "frob",
                "Invalid command [frob]\nracoonctl: kmpstat: Invalid argument",
            ),
            (
                "ss ipsec",
                "racoonctl: cannot reach racoon at /nonexistent/obol/obol.sock: ",
            ),
            (
                "-s /var/run/racoon/racoon.sock rc",
                "racoonctl: cannot reach racoon at /var/run/racoon/racoon.sock: ",
            ),
            ("ds isakmp inet 10.0.0.1", "insufficient arguments"),
            ("es esp inet 10.0.0.1 10.0.0.2", "insufficient arguments"),
            (
                "es esp inet6 10.0.0.1 10.0.0.2 tcp",
                "racoonctl: 10.0.0.1 is no address of family inet6",
            ),
            ("es esp inet 10.0.0.1 10.0.0.2 xyz", "unknown protocol xyz"),
            (
                "es -n x esp inet 10.0.0.1 10.0.0.2 tcp",
                "racoonctl: -n has no effect",
            ),
            ("vc 10.0.0.1", "racoonctl: connecting to a gateway"),
            ("lu somebody", "racoonctl: users of XAUTH"),
            ("gc inet a b", "racoonctl: no peer has shown a certificate"),
        ] {
            let said = ends(line).unwrap_err();
            assert!(said.starts_with(text), "{line}: {said}");
        }
    }

    #[test]
    fn saopts() {
        let read = |line: &str| SaOptions::read(&line.split(' ').collect::<Vec<_>>());
        let found = read("esp inet 10.0.0.1/32/any 10.0.0.2/32/27017 tcp").unwrap();
        assert_eq!(found.flow, Some((6, 0, 27017)));
        assert_eq!(read("isakmp inet6 ::1 ::2").unwrap().flow, None);
        assert!(read("ah inet 10.0.0.1 10.0.0.2 tcp").is_err());
    }
}
