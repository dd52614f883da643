//! Configurations of two hosts that fit each other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::net::Net;
use super::pair::{Node, Pair};
use crate::config::{
    Child, Childless, Config, Connection, Fragmentation, LocalAuth, LocalAuthMethod, Mobike, Mode,
    PeerPolicy, Redirect, RemoteAuth, RemoteAuthMethod, Resumption, Settings, SpiHalf, StartAction,
    Upkeep,
};
use crate::crypto::signature::Signatures;
use crate::proposal::{EspProposal, IkeProposal};

/// Address of the first host.
pub const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1));
/// Address of the second host.
pub const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2));
/// Identity of the first host.
pub const ID_A: &str = "@hosta.example.com";
/// Identity of the second host.
pub const ID_B: &str = "@hostb.example.com";
/// Name of the connection.
pub const HOSTS: &str = "hosts";
/// Name of the tunnel between the subnets.
pub const PODS: &str = "pods";

/// What the configurations of both hosts are made from; each test changes what matters to it.
#[derive(Clone)]
pub struct Setup {
    /// As the first host has it; the second has the mirror image.
    pub connection: Connection,
    /// Of both.
    pub settings: Settings,
    /// What the second host does by itself.
    pub b_starts: StartAction,
    /// What the network does.
    pub net: Net,
    /// What the first host takes for the shared secret.
    pub secret_a: &'static [u8],
    /// What the second host takes for it.
    pub secret_b: &'static [u8],
}

impl Setup {
    /// One tunnel between two subnets, by a shared secret, that nobody starts.
    pub fn new(seed: u64) -> Self {
        Self {
            connection: connection(vec![pods(StartAction::None)]),
            settings: Settings::default(),
            b_starts: StartAction::None,
            net: Net::seeded(seed),
            secret_a: b"a secret for tests",
            secret_b: b"a secret for tests",
        }
    }

    /// The same, begun by the first host.
    pub fn started(seed: u64) -> Self {
        Self {
            connection: connection(vec![pods(StartAction::Start)]),
            ..Self::new(seed)
        }
    }

    /// With these children, as the first host has them.
    #[must_use]
    pub fn children(mut self, children: Vec<Child>) -> Self {
        self.connection.children = children.into_iter().map(Arc::new).collect();
        self
    }

    /// On this network.
    #[must_use]
    pub fn net(mut self, net: Net) -> Self {
        self.net = net;
        self
    }

    /// The two hosts at rest.
    pub fn pair(self, seed: u64) -> Pair {
        let theirs = mirror(&self.connection, self.b_starts);
        let config = |connection| Config {
            connections: vec![Arc::new(connection)],
            settings: self.settings.clone(),
        };
        let a = Node::new(A, config(self.connection), seed * 2 + 1);
        let b = Node::new(B, config(theirs), seed * 2 + 2);
        Pair::new(
            a.with_secret(ID_A, ID_B, self.secret_a),
            b.with_secret(ID_A, ID_B, self.secret_b),
            self.net,
        )
    }

    /// The two hosts when all is up that starts by itself.
    pub fn up(self, seed: u64) -> Pair {
        let mut pair = self.pair(seed);
        pair.start();
        pair.run_until_idle();
        pair
    }
}

/// A connection from the first host to the second.
pub fn connection(children: Vec<Child>) -> Connection {
    Connection {
        name: HOSTS.to_owned(),
        local_addrs: vec![A],
        source: None,
        remote_addrs: vec![B],
        ike_proposals: IkeProposal::defaults().into(),
        local: LocalAuth {
            id: ID_A.parse().ok(),
            method: LocalAuthMethod::Psk,
            signatures: Signatures::ALL,
        },
        remote: RemoteAuth {
            id: ID_B.parse().ok(),
            method: RemoteAuthMethod::Psk,
            signatures: Signatures::ALL,
        },
        children: children.into_iter().map(Arc::new).collect(),
        rekey_time: Duration::from_secs(4 * 3600),
        keying_tries: 0,
        over_time: Duration::from_secs(5 * 3600),
        dpd_delay: None,
        dpd_retry: None,
        force_encap: false,
        nat_traversal: true,
        childless: Childless::default(),
        initial_contact: true,
        fragmentation: Fragmentation::default(),
        mobike: Mobike {
            enabled: false,
            ..Mobike::default()
        },
        allow_sha1_rsa: false,
        peer: PeerPolicy::default(),
        redirect: Redirect::default(),
        resumption: Resumption::default(),
        generate: None,
    }
}

/// A child.
///
/// # Panics
/// If a selector is none.
pub fn child(name: &str, mode: Mode, local: &str, remote: &str, start: StartAction) -> Child {
    let parse = |text: &str| {
        text.split_whitespace()
            .map(|word| word.parse().expect("a selector of a test"))
            .collect()
    };
    Child {
        name: name.to_owned(),
        mode,
        local_ts: parse(local),
        remote_ts: parse(remote),
        esp_proposals: EspProposal::defaults().into(),
        start_action: start,
        upkeep: Upkeep::default(),
        rekey_time: Duration::from_secs(3600),
        life_time: Duration::from_secs(4000),
        rekey_bytes: None,
        life_bytes: None,
        rekey_packets: None,
        life_packets: None,
        queues: 1,
        spi_half: SpiHalf::default(),
    }
}

/// The tunnel between the two subnets.
pub fn pods(start: StartAction) -> Child {
    child(PODS, Mode::Tunnel, "172.16.1.0/24", "172.16.2.0/24", start)
}

/// The same connection as the other host has it.
pub fn mirror(connection: &Connection, start: StartAction) -> Connection {
    let children = connection.children.iter().map(|child| {
        Arc::new(Child {
            local_ts: child.remote_ts.clone(),
            remote_ts: child.local_ts.clone(),
            start_action: start,
            ..Child::clone(child)
        })
    });
    let turn = connection.clone();
    Connection {
        local_addrs: turn.remote_addrs,
        source: None,
        remote_addrs: turn.local_addrs,
        local: LocalAuth {
            id: turn.remote.id,
            ..turn.local
        },
        remote: RemoteAuth {
            id: connection.local.id.clone(),
            ..turn.remote
        },
        children: children.collect(),
        ..connection.clone()
    }
}
