//! What the tests of whole daemons share.

use futures_util::TryStreamExt as _;
use obol_daemon::host::netns::Netns;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rtnetlink::{IpVersion, RouteMessageBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// The program under test.
pub(crate) fn obol() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_obol"))
}

/// Whether namespaces can be made; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: network namespaces need root");
    }
    root
}

/// What a daemon may change in a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Snapshot {
    links: Vec<String>,
    rules: Vec<String>,
    routes: Vec<String>,
    tables: Vec<String>,
    sockets: Vec<String>,
}

impl Snapshot {
    /// What is there.
    pub(crate) fn of(netns: &Netns) -> Self {
        let [links, rules, routes] = netns
            .configure(async |links| {
                let rule = |family| {
                    links
                        .handle()
                        .rule()
                        .get(family)
                        .execute()
                        .try_collect::<Vec<_>>()
                };
                let mut rules = rule(IpVersion::V4).await.map_err(io::Error::other)?;
                rules.extend(rule(IpVersion::V6).await.map_err(io::Error::other)?);
                let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
                let routes = links.handle().route().get(all).execute();
                let routes: Vec<RouteMessage> =
                    routes.try_collect().await.map_err(io::Error::other)?;
                let rules = rules.iter().map(|rule| format!("{rule:?}")).collect();
                let routes = routes
                    .iter()
                    .map(|route| format!("{:?}", timeless(route)))
                    .collect();
                Ok([links.names().await?, rules, routes].map(sorted))
            })
            .unwrap();
        let sockets = netns.run(sockets).unwrap().unwrap();
        let tables = netns.run(nft_tables).unwrap().unwrap();
        Self {
            links,
            rules,
            routes,
            tables,
            sockets,
        }
    }
}

/// Routes carry counters of their use.
fn timeless(route: &RouteMessage) -> Vec<&RouteAttribute> {
    let timeless = |a: &&RouteAttribute| !matches!(a, RouteAttribute::CacheInfo(_));
    route.attributes.iter().filter(timeless).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Local addresses of UDP and raw sockets.
fn sockets() -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for kind in ["udp", "udp6", "raw", "raw6"] {
        let Ok(table) = std::fs::read_to_string(format!("/proc/thread-self/net/{kind}")) else {
            continue;
        };
        let local = |line: &str| {
            line.split_whitespace()
                .nth(1)
                .map(|at| format!("{kind} {at}"))
        };
        found.extend(table.lines().skip(1).filter_map(local));
    }
    Ok(sorted(found))
}

/// The names of all nftables tables: a dump of NFT_MSG_GETTABLE, linux/netfilter/nf_tables.h.
fn nft_tables() -> io::Result<Vec<String>> {
    const SUBSYSTEM: u16 = 10 << 8;
    const GET_TABLE: u16 = 1;
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    let mut request = 20_u32.to_ne_bytes().to_vec();
    request.extend((SUBSYSTEM | GET_TABLE).to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 12]);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    let mut tables = Vec::new();
    loop {
        let (reply, _) = socket.recv_from_full()?;
        let mut rest = &reply[..];
        while let (Some(length), Some(kind)) = (rest.first_chunk::<4>(), rest.get(4..6)) {
            if kind == DONE.to_ne_bytes() {
                return Ok(sorted(tables));
            }
            let length = u32::from_ne_bytes(*length) as usize;
            let (message, more) = rest.split_at(length);
            // The name is the first attribute after the two headers.
            let name = message.get(24..).unwrap_or_default();
            let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
            tables.push(String::from_utf8_lossy(name).into_owned());
            rest = &more[(length.next_multiple_of(4) - length).min(more.len())..];
        }
    }
}
