//! An endpoint that gets arbitrary octets from the network, as responder and as initiator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::config::{
    Child, Config, Connection, LocalAuth, LocalAuthMethod, Mode, Path, RemoteAuth,
    RemoteAuthMethod, Settings, StartAction,
};
use crate::crypto::secret::Secret;
use crate::endpoint::Endpoint;
use crate::event::{Answer, Ask, Command, Output};
use crate::identity::Identity;
use crate::proposal::{EspProposal, IkeProposal};
use crate::ts::TrafficSelector;

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CONNECTION: &str = "peer";

/// Outputs after which one datagram is taken to cause them without end.
const MAX_OUTPUTS: usize = 1000;

/// Gives the datagram to a responder, and to an initiator that waits for the answer to its
/// first request (its SPI and the response flag are put into the datagram). `now` is any time.
pub fn fuzz_endpoint(now: Instant, datagram: &[u8]) {
    let mut responder = endpoint();
    let _ = responder.handle_datagram(now, path(), datagram);
    settle(&mut responder, now);

    let mut initiator = endpoint();
    let command = Command::Initiate {
        connection: CONNECTION.to_owned(),
        child: None,
        local: Some(LOCAL.into()),
    };
    initiator
        .handle_command(now, command)
        .expect("the connection is configured");
    let request = settle(&mut initiator, now)
        .pop()
        .expect("an initiator begins with a request");
    let mut answer = datagram.to_vec();
    if let (Some(spi), Some(flags)) = (request.get(..8), answer.get(19)) {
        let flags = flags & !0x08 | 0x20;
        answer[..8].copy_from_slice(spi);
        answer[19] = flags;
    }
    let _ = initiator.handle_datagram(now, path(), &answer);
    settle(&mut initiator, now);
    let _ = initiator.status(now);

    let later = now + Duration::from_secs(100_000);
    for endpoint in [&mut responder, &mut initiator] {
        endpoint.handle_timeout(later);
        settle(endpoint, later);
    }
}

/// Answers what the endpoint asks and returns the datagrams that it sends.
fn settle(endpoint: &mut Endpoint, now: Instant) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for _ in 0..MAX_OUTPUTS {
        match endpoint.poll_output() {
            None => return sent,
            Some(Output::Transmit(transmit)) => sent.push(transmit.datagram),
            Some(Output::Ask(id, ask)) => endpoint.handle_answer(now, id, answer(&ask)),
            Some(Output::Event(_)) => {}
        }
    }
    panic!("more than {MAX_OUTPUTS} outputs without end");
}

fn answer(ask: &Ask) -> Answer {
    match ask {
        Ask::Psk { .. } => Answer::Psk(Some(Secret::new(vec![7; 32]))),
        Ask::Sign { .. } => Answer::Signature(Err("there is no key".to_owned())),
        Ask::AddInbound(_) | Ask::UseOutbound(_) | Ask::Remove(_) => Answer::Done(Ok(())),
        Ask::LastInbound(_) => Answer::LastInbound(None),
    }
}

fn path() -> Path {
    Path {
        local: SocketAddr::new(LOCAL.into(), 500),
        remote: SocketAddr::new(REMOTE.into(), 500),
    }
}

fn endpoint() -> Endpoint {
    let config = Config {
        connections: vec![Arc::new(connection())],
        settings: Settings::default(),
    };
    Endpoint::new(Arc::new(config), Box::new(ChaCha20Rng::from_seed([1; 32])))
}

fn connection() -> Connection {
    let day = Duration::from_secs(86_400);
    Connection {
        name: CONNECTION.to_owned(),
        local_addrs: vec![LOCAL.into()],
        source: None,
        remote_addrs: vec![REMOTE.into()],
        ike_proposals: IkeProposal::defaults(),
        local: LocalAuth {
            id: Some(Identity::Ipv4(LOCAL)),
            method: LocalAuthMethod::Psk,
        },
        remote: RemoteAuth {
            id: Some(Identity::Ipv4(REMOTE)),
            method: RemoteAuthMethod::Psk,
        },
        children: vec![Arc::new(child(LOCAL.into(), REMOTE.into()))],
        rekey_time: day,
        over_time: day * 2,
        dpd_delay: Some(Duration::from_secs(30)),
        force_encap: false,
        initial_contact: true,
        allow_sha1_rsa: false,
    }
}

fn child(local: IpAddr, remote: IpAddr) -> Child {
    let hour = Duration::from_secs(3600);
    Child {
        name: "net".to_owned(),
        mode: Mode::Tunnel,
        local_ts: vec![TrafficSelector::host(local)],
        remote_ts: vec![TrafficSelector::host(remote)],
        esp_proposals: EspProposal::defaults(),
        start_action: StartAction::None,
        rekey_time: hour,
        life_time: hour * 2,
        rekey_bytes: None,
        life_bytes: None,
        rekey_packets: None,
        life_packets: None,
    }
}
