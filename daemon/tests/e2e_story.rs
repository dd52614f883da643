//! The story of those who secure flannel's network with IPsec, on three hosts: the same files of
//! Libreswan's on all of them, pods behind Docker's MASQUERADE, flannel's VXLAN, and a firewall that
//! lets in UDP 500 and ESP. As root; in namespaces; by our own data plane.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]
#![expect(dead_code, reason = "what tests share, they do not all use")]

#[path = "support/daemons.rs"]
mod daemons;
#[path = "support/pluto.rs"]
mod pluto;
mod support;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use daemons::{LIMIT, PATIENCE, assert_only_protected, ike_sas, installed, run};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{A, B, Directory, Host, Side, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::ping;
use obol_daemon::host::netns::Netns;
use pluto::{DATABASES, nss, public_key};
use support::{is_root, obol};

/// The third host.
const C: Side = Side {
    name: "c",
    address: Ipv4Addr::new(192, 168, 0, 3),
    pod: Ipv4Addr::new(172, 16, 3, 1),
    network: "172.16.3.0/24",
    overlay: Ipv4Addr::new(10, 200, 0, 3),
    id: "@hostC.example.com",
};

/// Somebody on the same network who is in no file.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 254);

/// A file of the story, for each two hosts X and Y with the numbers x and y. The keys go where the
/// dots are.
const STORY: &str = "\
conn hostX-hostY-subnet
  also=hostX-hostY
  leftsubnet=172.16.x.0/24
  rightsubnet=172.16.y.0/24

conn hostX-hostY
  type=tunnel
  leftid=@hostX.example.com
  left=192.168.0.x
  leftrsasigkey=[...]
  rightid=@hostY.example.com
  right=192.168.0.y
  rightrsasigkey=[...]
  authby=rsasig
  auto=start
";

/// What is the same on each host: its number is n.
const NETWORK: &str = "\
ip addr add 192.168.0.n/24 dev wire0
ip link set wire0 up
ip addr add 172.16.n.1/24 dev docker0
ip link set docker0 up
";

/// flannel's device, and what flannel tells it about each other host p.
const FLANNEL: &str = "\
ip link add flannel.1 address 02:00:00:00:00:0n type vxlan id 1 dev wire0 local 192.168.0.n dstport 8472 nolearning
ip link set flannel.1 up mtu 1300
ip addr add 10.200.0.n/32 dev flannel.1
";
const FLANNEL_PEER: &str = "\
bridge fdb append 02:00:00:00:00:0p dev flannel.1 dst 192.168.0.p
ip neigh replace 10.200.0.p lladdr 02:00:00:00:00:0p dev flannel.1 nud permanent
ip route add 10.200.0.p/32 dev flannel.1
ip route add 172.16.p.0/24 via 10.200.0.p dev flannel.1 onlink
";

/// The firewall of the story. The rules without target count what must not be there.
const FIREWALL: &str = "\
iptables -N ipsec_allow
iptables -A ipsec_allow -p udp -m udp --dport 500 -j ACCEPT
iptables -A ipsec_allow -p ah -j ACCEPT
iptables -A ipsec_allow -p esp -j ACCEPT
iptables -N vxlan_allow
iptables -A vxlan_allow -p udp -m udp --dport 8472 -j ACCEPT
iptables -N IPSEC_SECURED
iptables -A IPSEC_SECURED -j vxlan_allow
iptables -A IPSEC_SECURED -p icmp -j ACCEPT
iptables -A INPUT -p udp --dport 4500
iptables -A OUTPUT -p udp --dport 4500
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -i flannel.1 -j ACCEPT
iptables -A INPUT -m policy --pol ipsec --dir in -j IPSEC_SECURED
iptables -A INPUT -j ipsec_allow
iptables -P INPUT DROP
iptables -A FORWARD -i docker0 -j ACCEPT
iptables -A FORWARD -m policy --pol ipsec --dir in -j ACCEPT
iptables -P FORWARD DROP
";

/// What has to be added where ESP is not the kernel's: what came out of the TUN came out of ESP, and
/// for `-m policy` the kernel knows of its own ESP only.
const FIREWALL_OF_OUR_OWN_ESP: &str = "\
iptables -A INPUT -i obol0 -j IPSEC_SECURED
iptables -A FORWARD -i obol0 -j ACCEPT
";

/// Docker's rule, and what the story makes of it.
const MASQUERADE: &str =
    "iptables -t nat -A POSTROUTING -s 172.16.n.0/24 ! -o docker0 -j MASQUERADE";
const MENDED: &str = "iptables -t nat -I POSTROUTING -m policy --dir out --pol none -s 172.16.n.0/24 ! -o docker0 -j MASQUERADE";

/// Runs commands of an administrator on a host; what they printed.
fn shell(netns: &Netns, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    let output = netns.run(|| command.output()).unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace in which nobody speaks IPv6, which would be noise on the wire.
fn quiet() -> Netns {
    let netns = Netns::anonymous().unwrap();
    for scope in ["all", "default"] {
        let key = format!("net/ipv6/conf/{scope}/disable_ipv6");
        netns.sysctl(&key, "1").unwrap();
    }
    netns
}

fn there_is(program: &str) -> bool {
    let found = Command::new(program).arg("-V").output().is_ok();
    if !found {
        println!("skipped: {program} is not there");
    }
    found
}

/// Three hosts on a switch, each with a pod.
struct Bed {
    hosts: Vec<Host>,
    pods: Vec<Netns>,
    switch: Netns,
    directory: Directory,
}

impl Bed {
    fn new() -> Self {
        let directory = Directory::new().unwrap();
        let switch = quiet();
        shell(
            &switch,
            "ip link add switch type bridge mcast_snooping 0; ip link set switch up; ip addr add 192.168.0.254/24 dev switch",
        );
        let mut bed = Self {
            hosts: Vec::new(),
            pods: Vec::new(),
            switch,
            directory,
        };
        for (side, n) in [A, B, C].into_iter().zip(1..) {
            bed.add(side, n);
        }
        bed
    }

    fn add(&mut self, side: Side, n: usize) {
        let (netns, pod) = (Netns::anonymous().unwrap(), quiet());
        let mut host = Host::bare(obol(), netns, self.directory.path(), side).unwrap();
        let port = format!("port{n}");
        host.netns
            .configure(async |links| {
                links.veth_to(WIRE, &self.switch, &port).await?;
                links.veth_to("docker0", &pod, "eth0").await
            })
            .unwrap();
        shell(
            &self.switch,
            &format!("ip link set {port} up master switch"),
        );
        shell(
            &pod,
            &"ip addr add 172.16.n.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.16.n.1"
                .replace(".n.", &format!(".{n}.")),
        );
        host.netns.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let numbered = |text: &str| {
            text.replace(".n", &format!(".{n}"))
                .replace(":0n", &format!(":0{n}"))
        };
        shell(&host.netns, &numbered(NETWORK));
        shell(&host.netns, &numbered(FLANNEL));
        for p in (1..=3).filter(|p| *p != n) {
            let peer = FLANNEL_PEER
                .replace(".p", &format!(".{p}"))
                .replace(":0p", &format!(":0{p}"));
            shell(&host.netns, &peer);
        }
        shell(&host.netns, FIREWALL);
        // Docker's own rule, the story's in its place, or both.
        shell(
            &host.netns,
            &numbered([MASQUERADE, MENDED][usize::from(n == 2)]),
        );
        host.arguments = self.files(side, DATABASES[n - 1]);
        fs::write(&host.config, "").unwrap();
        self.hosts.push(host);
        self.pods.push(pod);
    }

    /// The same files on all hosts, but for the private keys.
    fn files(&self, side: Side, database: &str) -> Vec<String> {
        let own = self.directory.path().join(format!("{}-etc", side.name));
        fs::create_dir_all(own.join("ipsec.d")).unwrap();
        let main = "config setup\n\ninclude ipsec.d/*.conf\n";
        fs::write(own.join("ipsec.conf"), main).unwrap();
        for (x, y) in [(0, 1), (0, 2), (1, 2)] {
            let mut text = STORY.to_owned();
            for (letter, number, host) in [("X", ".x", x), ("Y", ".y", y)] {
                text = text
                    .replace(
                        &format!("host{letter}"),
                        &format!("host{}", ["A", "B", "C"][host]),
                    )
                    .replace(number, &format!(".{}", host + 1))
                    .replacen("[...]", &public_key(DATABASES[host]), 1);
            }
            let name = format!("host{}-host{}.conf", ["A", "B"][x], ["A", "B", "C"][y]);
            fs::write(own.join("ipsec.d").join(name), text).unwrap();
        }
        let secrets = own.join("ipsec.secrets");
        fs::write(&secrets, "").unwrap();
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
        let nssdir = own.join("nss");
        fs::create_dir_all(&nssdir).unwrap();
        fs::copy(
            Path::new(&nss(database)).join("key4.db"),
            nssdir.join("key4.db"),
        )
        .unwrap();
        fs::write(nssdir.join("nsspassword"), "NSS Certificate DB:test-only\n").unwrap();
        let path = |name: &str| own.join(name).display().to_string();
        let options = ["--ipsec-conf", "--ipsec-secrets", "--nssdir"];
        let paths = ["ipsec.conf", "ipsec.secrets", "nss"].map(path);
        let pairs = options.map(str::to_owned).into_iter().zip(paths);
        pairs.flat_map(<[String; 2]>::from).collect()
    }

    /// Starts all daemons, and waits until each host has what it shares with each other one.
    async fn start(&mut self) {
        for host in &mut self.hosts {
            host.start().unwrap();
        }
        let wanted = [
            [
                "hostA-hostB",
                "hostA-hostB-subnet",
                "hostA-hostC",
                "hostA-hostC-subnet",
            ],
            [
                "hostA-hostB",
                "hostA-hostB-subnet",
                "hostB-hostC",
                "hostB-hostC-subnet",
            ],
            [
                "hostA-hostC",
                "hostA-hostC-subnet",
                "hostB-hostC",
                "hostB-hostC-subnet",
            ],
        ];
        let deadline = Instant::now() + 3 * LIMIT;
        for (at, wanted) in wanted.iter().enumerate() {
            loop {
                let host = &mut self.hosts[at];
                let status = host.status().await;
                if status.is_ok_and(|s| ike_sas(&s).len() == 2 && installed(&s) == wanted) {
                    break;
                }
                let log = fs::read_to_string(&host.log).unwrap_or_default();
                assert!(host.runs() && Instant::now() < deadline, "{log}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Each host with each other one.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let all = (0..3).flat_map(|from| (0..3).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to)
    }

    async fn overlay(&self, from: usize, to: usize, limit: Duration) -> bool {
        let (host, peer) = (&self.hosts[from], &self.hosts[to].side);
        let deadline = Instant::now() + limit;
        let (own, peer) = (host.side.overlay, peer.overlay);
        ping(&host.netns, own, peer, PATIENCE, deadline)
            .await
            .is_ok()
    }

    /// From whom a pod's datagrams come to a pod of another host.
    fn pod_to_pod(&self, from: usize, to: usize) -> IpAddr {
        let to_address = pod_address(to);
        source_seen(
            (&self.pods[from], pod_address(from)),
            (&self.pods[to], to_address),
        )
    }
}

fn pod_address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, host as u8 + 1, 2)
}

/// Sends datagrams until one has come; from whom it is.
fn source_seen(from: (&Netns, Ipv4Addr), to: (&Netns, Ipv4Addr)) -> IpAddr {
    let bind = |(netns, address): (&Netns, Ipv4Addr), port| {
        let bound = netns.run(|| UdpSocket::bind((address, port)));
        bound.unwrap().unwrap()
    };
    let (sender, receiver) = (bind(from, 0), bind(to, 7000));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        // Where nobody lets it pass, the system may say so.
        let _ = sender.send_to(b"from a pod", SocketAddrV4::new(to.1, 7000));
        if let Ok((_, source)) = receiver.recv_from(&mut [0; 16]) {
            return source.ip();
        }
        assert!(
            Instant::now() < deadline,
            "nothing comes from {} to {}",
            from.1,
            to.1
        );
    }
}

/// Packets to port 4500 that a host has seen, in either direction.
fn to_port_4500(host: &Host) -> u64 {
    let listed = shell(&host.netns, "iptables -nvxL INPUT; iptables -nvxL OUTPUT");
    let counts = listed.lines().filter(|line| line.contains("dpt:4500"));
    let counts: Vec<u64> = counts
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(counts.len(), 2, "{listed}");
    counts.iter().sum()
}

#[tokio::test]
async fn pods_and_vxlan_of_three_hosts_behind_the_firewall_of_the_story() {
    if !is_root() || !there_is("iptables") || !there_is("ip") || !there_is("bridge") {
        return;
    }
    let mut bed = Bed::new();
    let captures: Vec<Capture> = bed
        .hosts
        .iter()
        .map(|host| Capture::start(&host.netns, WIRE, protected()).unwrap())
        .collect();
    bed.start().await;
    // The firewall is in force: to the kernel nothing of this is IPsec, so `--pol ipsec` lets none in.
    assert!(
        !bed.overlay(0, 1, 2 * PATIENCE).await,
        "the firewall lets all in"
    );
    for host in &bed.hosts {
        shell(&host.netns, FIREWALL_OF_OUR_OWN_ESP);
    }
    for (from, to) in bed.pairs() {
        assert_eq!(bed.pod_to_pod(from, to), pod_address(from));
        assert!(bed.overlay(from, to, LIMIT).await, "{from} to {to}");
        let (own, peer) = (&bed.hosts[from], bed.hosts[to].side.address);
        let deadline = Instant::now() + LIMIT;
        let done = ping(&own.netns, own.side.address, peer, PATIENCE, deadline).await;
        done.unwrap();
    }
    // The conns of the others are there, and nobody's trouble.
    let host_c = &bed.hosts[2];
    let rundir = host_c.runtime.display().to_string();
    let up = run(host_c, &["ipsec", "up", "--rundir", &rundir, "hostA-hostB"]);
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert_eq!(up.status.code(), Some(22), "{said}");
    assert!(
        said.contains("192.168.0.1") && said.contains("192.168.0.2"),
        "{said}"
    );
    for (host, capture) in bed.hosts.iter().zip(&captures) {
        assert_only_protected(capture).await;
        assert_eq!(capture.seen().esp_in_udp, 0, "{:?}", capture.seen());
        assert_eq!(to_port_4500(host), 0);
        let log = fs::read_to_string(&host.log).unwrap();
        assert!(!log.contains("WARN"), "{log}");
    }
    // Without its daemon, a host gets nothing and sends nothing.
    bed.hosts[1].kill().unwrap();
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(!bed.overlay(from, to, 2 * PATIENCE).await, "{from} to {to}");
        let own = (&bed.pods[from], pod_address(from));
        let sender = own.0.run(|| UdpSocket::bind((own.1, 0))).unwrap().unwrap();
        for _ in 0..10 {
            let _ = sender.send_to(b"from a pod", SocketAddrV4::new(pod_address(to), 7000));
        }
    }
    assert!(bed.overlay(0, 2, LIMIT).await, "the others go on");
    for capture in &captures {
        assert_only_protected(capture).await;
    }
    // And Docker's rule is in force: who is no peer sees the host, not the pod.
    for at in 0..3 {
        let seen = source_seen((&bed.pods[at], pod_address(at)), (&bed.switch, OUTSIDE));
        assert_eq!(seen, IpAddr::V4(bed.hosts[at].side.address));
    }
}
