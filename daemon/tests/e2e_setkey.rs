//! racoon's and setkey's programs on two hosts: policies that hold without a daemon, change under a
//! running one, and are listed. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[path = "support/racoon.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod racoon;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::fs;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::time::{Duration, Instant};

use daemons::{LIMIT, assert_only_protected};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, SERVICE, WIRE};
use obol_daemon::demo::protected;
use racoon::{Bed, IN_VAIN, POLICIES, service, services, talks, talks_at};
use support::{Snapshot, is_root};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

#[tokio::test]
async fn r_a4_policies_hold_without_a_daemon_and_after_its_death() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    let _other = service(b, 2222);
    let before = Snapshot::of(&a.netns);
    assert!(talks(a, b, LIMIT).await, "in clear");
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    let said = bed.does(a, "setkey --service start ETC");
    assert!(
        said.starts_with("Loading IPsec SA/SP database: \n - "),
        "{said}"
    );
    for (host, peer) in [(a, b), (b, a)] {
        assert!(!talks(host, peer, IN_VAIN).await);
    }
    // What B sends to the service of A, nobody on B stops; A takes none of it.
    let from_a = capture.seen();
    assert!(talks_at(a, b, 2222, LIMIT).await, "another port");
    assert!(talks(a, a, LIMIT).await, "its own address");
    drop(capture);
    assert_eq!(from_a.esp, 0);

    bed.does(b, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    assert!(!talks(a, b, IN_VAIN).await);
    assert_eq!(capture.seen().clear, 0);
    {
        let racoons = [bed.start(a), bed.start(b)];
        assert!(talks(a, b, LIMIT).await && talks(b, a, LIMIT).await);
        assert_only_protected(&capture).await;
        racoons[0].signal(rustix::process::Signal::KILL);
        assert!(!talks(a, b, IN_VAIN).await, "A is dead");
        // Those of setkey still change, and still hold.
        bed.does(a, "setkey --service restart ETC");
        assert!(!talks(a, b, IN_VAIN).await);
        let again = bed.start(a);
        assert!(talks(a, b, LIMIT).await, "A is back");
        again.signal(rustix::process::Signal::TERM);
        assert!(!talks(a, b, IN_VAIN).await, "policies stay");
        let seen = capture.seen();
        assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
    }
    for line in ["setkey --service stop ETC", "setkey -FP"] {
        bed.does(b, line);
    }
    // What lifts all protection lifts that of setkey.
    let mut purge = a.command(&["purge"]);
    assert!(a.netns.run(|| purge.status()).unwrap().unwrap().success());
    for host in [a, b] {
        assert_eq!(bed.does(host, "setkey -DP"), "No SPD entries.\n");
    }
    assert!(talks(a, b, LIMIT).await, "in clear again");
    assert_eq!(Snapshot::of(&a.netns), before);
}

#[tokio::test]
async fn what_setkey_removes_after_a_daemons_death_passes_again() {
    const OTHER: u16 = 2222;
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    let _others = [service(a, OTHER), service(b, OTHER)];
    let other = POLICIES
        .replace("10.0.0.0/16", "192.168.0.0/16")
        .replace("27017", &OTHER.to_string());
    let gone = other
        .replace("spdadd", "spddelete")
        .replace(" ipsec esp/transport//require", "");
    for host in [a, b] {
        bed.does(host, "setkey --service start ETC");
        fs::write(bed.etc(host).join("other.conf"), &other).unwrap();
        fs::write(bed.etc(host).join("gone.conf"), &gone).unwrap();
        bed.does(host, "setkey -f ETC/other.conf");
    }
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    {
        let racoons = [bed.start(a), bed.start(b)];
        assert!(talks(a, b, LIMIT).await && talks_at(b, a, OTHER, LIMIT).await);
        for racoon in racoons {
            racoon.signal(rustix::process::Signal::KILL);
        }
    }
    for (host, peer) in [(a, b), (b, a)] {
        assert!(!talks_at(host, peer, OTHER, IN_VAIN).await, "both are dead");
    }
    let seen = capture.seen();
    assert_eq!((seen.clear, seen.other), (0, 0), "{seen:?}");
    for host in [a, b] {
        bed.does(host, "setkey -f ETC/gone.conf");
    }
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks_at(host, peer, OTHER, LIMIT).await, "in clear");
        assert!(!talks(host, peer, IN_VAIN).await, "its policies stay");
    }
    let _racoons = [bed.start(a), bed.start(b)];
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks(host, peer, LIMIT).await, "protected again");
        assert!(talks_at(host, peer, OTHER, LIMIT).await, "in clear");
    }
}

#[tokio::test]
async fn r_a11_and_r_a12_scripts_change_policies_under_a_running_daemon() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    // racoon may come first: without policies nothing is protected.
    let _racoons = [bed.start(a), bed.start(b)];
    assert!(talks(a, b, LIMIT).await, "in clear");
    for host in [a, b] {
        bed.does(host, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    }
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    assert!(talks(a, b, LIMIT).await && talks(b, a, LIMIT).await);
    let sas = bed.sas(a);
    assert_eq!(sas, 4, "two Child SAs");
    // R-A2: the mirror is on the same IKE SA.
    for host in [a, b] {
        let rows = bed.does(host, "racoonctl show-sa isakmp");
        assert_eq!(rows.lines().count(), 2, "{rows}");
        assert!(bed.does(host, "setkey -D").contains("\tsadb_seq=0 "));
    }
    // R-A12: traffic goes on meanwhile.
    for host in [a, b].repeat(50) {
        let mut command = bed.command(host, "setkey --service restart ETC");
        command.stdout(Stdio::piped());
        let mut restart = host.netns.run(|| command.spawn()).unwrap().unwrap();
        while restart.try_wait().unwrap().is_none() {
            assert!(talks(a, b, LIMIT).await);
        }
        let said = restart.wait_with_output().unwrap();
        assert!(
            said.status.success() && said.stdout.ends_with(b"done.\n"),
            "{said:?}"
        );
    }
    assert_eq!(bed.sas(a), sas, "SAs of policies that are the same stay");

    let listed = bed.does(a, "setkey -DP");
    let twice = bed.fails(a, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    assert_eq!(twice.matches("File exists.").count(), 4, "{twice}");
    let script = bed.etc(a).join("broken.conf");
    fs::write(&script, "flush; spdflush;\nspdadd 192.168.0.1 192.168.0.2[80] tcp -P out none;\nspdadd 10.0.0.0/16 10.0.0.0/16[27017 tcp -P out discard;\n").unwrap();
    let said = bed.fails(a, "setkey -f ETC/broken.conf");
    assert!(
        said.contains("line 3: syntax error at [10.0.0.0/16[27017]"),
        "{said}"
    );
    fs::write(&script, "spdadd 192.168.0.1 192.168.0.2 tcp -P in discard;\nspdadd 192.168.0.2 192.168.0.1 tcp -P out none;\n").unwrap();
    let said = bed.fails(a, "setkey -f ETC/broken.conf");
    assert!(said.contains("contradict"), "{said}");
    // Where they come from is told by file and line.
    assert!(said.contains("broken.conf:1:"), "{said}");
    assert_eq!(
        without_times(&bed.does(a, "setkey -DP")),
        without_times(&listed)
    );
    assert!(talks(a, b, LIMIT).await);
    assert_only_protected(&capture).await;
    for host in [a, b] {
        bed.does(host, "setkey -FP");
    }
    assert!(talks(a, b, LIMIT).await, "in clear again");
    let deadline = Instant::now() + LIMIT;
    while capture.seen().clear == 0 {
        assert!(Instant::now() < deadline, "{:?}", capture.seen());
        tokio::task::yield_now().await;
    }
}

/// The process of each listing is another one, and packets go on.
fn without_times(listed: &str) -> Vec<&str> {
    let kept = |line: &&str| !line.contains("pid=");
    let but_use = |line| str::split(line, "lastused:").next().unwrap_or_default();
    listed.lines().filter(kept).map(but_use).collect()
}

#[tokio::test]
async fn r_a16_commands_on_running_daemons() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let gone = bed.fails(a, "racoonctl show-sa isakmp");
    assert!(
        gone.starts_with("racoonctl: cannot reach racoon at "),
        "{gone}"
    );
    assert_eq!(bed.does(a, "setkey -D"), "No SAD entries.\n");
    for host in [a, b] {
        bed.does(host, "setkey --service start ETC");
    }
    let _racoons = [bed.start(a), bed.start(b)];
    let _services = services(&bed);
    let header = "Destination            Cookies                           Created\n";
    assert_eq!(bed.does(a, "racoonctl show-sa isakmp"), header);
    assert_eq!(bed.does(a, "racoonctl show-sa ipsec"), "No SAD entries.\n");
    assert_eq!(bed.does(a, "setkey -DP").matches("spid=").count(), 6);

    let mut events = bed.command(a, "racoonctl show-event");
    events.stdout(Stdio::piped());
    let mut events = a.netns.run(|| events.spawn()).unwrap().unwrap();
    let (own, peer) = (a.side.address, b.side.address);
    bed.does(
        a,
        &format!("racoonctl establish-sa -w esp inet {own} {peer}/32/27017 tcp"),
    );
    let rows = bed.does(a, "racoonctl show-sa isakmp");
    let row = rows.lines().nth(1).unwrap();
    assert!(row.starts_with(&format!("{peer}.500 ")), "{rows}");
    let cookies = row.split_whitespace().nth(1).unwrap();
    assert!(bed.does(b, "racoonctl ss isakmp").contains(cookies));
    let listed = bed.does(a, "racoonctl show-sa esp");
    for part in [
        "\tesp mode=transport spi=",
        "\tE: aes-cbc  xxxxxxxx xxxxxxxx xxxxxxxx xxxxxxxx\n",
        "\tA: hmac-sha512  xxxxxxxx",
        "hard: 43200(s)\tsoft: 34560(s)",
    ] {
        assert_eq!(listed.matches(part).count(), 2, "{part}: {listed}");
    }
    assert!(bed.does(a, "racoonctl show-schedule").lines().count() > 1);
    bed.does(a, "racoonctl reload-config");
    bed.does(a, "racoonctl flush-sa isakmp");
    for host in [a, b] {
        let deadline = Instant::now() + LIMIT;
        while bed.does(host, "racoonctl show-sa isakmp") != header {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(talks(a, b, LIMIT).await, "the next packet asks again");
    events.kill().unwrap();
    let events = events.wait_with_output().unwrap();
    let events = String::from_utf8(events.stdout).unwrap();
    let lines: Vec<&str> = events.lines().collect();
    let end = format!(" : {own}[500] -> {peer}[500]");
    for text in [
        "Phase 1 established",
        "Phase 2 established",
        "Phase 1 deleted",
    ] {
        assert!(
            lines.contains(&&*format!("{text}{end}")),
            "{text}: {events}"
        );
    }
}

#[test]
fn r_a7_errors_end_racoon_before_it_goes_on_by_itself() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let a = &bed.lab.a;
    let path = bed.etc(a).join("racoon.conf");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("passive off;", "passive off")).unwrap();
    for line in ["racoon -f ETC/racoon.conf", "racoon -F -f ETC/racoon.conf"] {
        let said = bed.fails(a, line);
        let error = format!("racoon: ERROR: {}:", path.display());
        assert!(said.starts_with(&error), "{said}");
        assert!(
            said.contains("\nracoon: ERROR: fatal parse failure (1 errors)\n"),
            "{said}"
        );
        assert!(
            said.ends_with("racoon: failed to parse configuration file.\n"),
            "{said}"
        );
    }
    fs::write(&path, &good).unwrap();
    let _racoon = bed.start(a);
    fs::write(&path, good.replace("passive off;", "pasive off;")).unwrap();
    let said = bed.fails(a, "racoonctl reload-config");
    assert!(said.contains("pasive"), "{said}");
    bed.does(a, "racoonctl show-sa isakmp");
    assert!(bed.fails(a, "racoon -f ETC/racoon.conf").contains("racoon"));
}

#[tokio::test]
async fn r_a3_the_server_begins_where_it_lost_its_sas() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    for host in [a, b] {
        bed.does(host, "setkey --service start ETC");
    }
    let _a = bed.start(a);
    let first = bed.start(b);
    let (own, peer) = (a.side.address, b.side.address);
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    let listener = b.netns.run(|| std::net::TcpListener::bind((peer, SERVICE)));
    let listener = listener.unwrap().unwrap();
    let client = a
        .netns
        .run(|| std::net::TcpStream::connect_timeout(&(peer, SERVICE).into(), LIMIT));
    let mut client = client.unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    first.signal(rustix::process::Signal::KILL);
    drop(first);
    let _b = bed.start(b);
    std::io::Write::write_all(&mut server, b"server first").unwrap();
    client.set_read_timeout(Some(2 * LIMIT)).unwrap();
    let mut got = [0; 12];
    std::io::Read::read_exact(&mut client, &mut got).unwrap();
    assert_eq!(&got, b"server first");
    let row = bed.does(b, "racoonctl -l show-sa isakmp");
    assert!(
        row.contains(&format!("{own}.500 ")) && row.contains(" I 20 "),
        "{row}"
    );
    assert_only_protected(&capture).await;
}

#[tokio::test]
async fn r_a5_a_host_without_obol_and_the_log_says_why() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let path = bed.etc(a).join("racoon.conf");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        format!("{good}\ntimer {{ counter 1; interval 1 sec; }}\n"),
    )
    .unwrap();
    bed.does(a, "setkey --service start ETC");
    let _racoon = bed.start(a);
    let _services = services(&bed);
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    assert!(!talks(a, b, IN_VAIN).await);
    assert_eq!(capture.seen().clear, 0, "nothing leaves");
    assert!(
        !talks(b, a, IN_VAIN).await,
        "what comes in clear is dropped"
    );
    let log = a.runtime.join("racoon.log");
    let deadline = Instant::now() + 3 * LIMIT;
    let said = || fs::read_to_string(&log).unwrap();
    while !said().contains("phase1 negotiation failed due to time up") {
        assert!(Instant::now() < deadline, "{}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In a namespace the kernel has policies, whether or not it has ESP.
#[tokio::test]
async fn r_a4_policies_hold_by_the_kernels_own() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    fs::write(&a.config, "[daemon]\ndataplane = \"kernel\"\n").unwrap();
    let xfrm = bed.run(a, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    let error = String::from_utf8_lossy(&xfrm.stderr);
    if error.contains("has no XFRM") {
        println!("skipped: {error}");
        return;
    }
    assert!(xfrm.status.success(), "{error}");
    let _services = services(&bed);
    assert!(!talks(a, b, IN_VAIN).await && !talks(b, a, IN_VAIN).await);
    // The same again is no mistake, and another set takes the place of the first.
    bed.does(a, "setkey --service restart ETC");
    assert!(!talks(a, b, IN_VAIN).await);
    let script = bed.etc(a).join("other.conf");
    fs::write(&script, "spdflush; spdadd 192.168.0.1 192.168.0.2 udp -P out discard; spdadd 192.168.0.2 192.168.0.1 udp -P in discard;").unwrap();
    bed.does(a, "setkey -f ETC/other.conf");
    assert!(talks(a, b, LIMIT).await, "not among them any more");
    bed.does(a, "setkey --service restart ETC");
    assert!(!talks(a, b, IN_VAIN).await);
    bed.does(a, "setkey -FP");
    assert!(talks(a, b, LIMIT).await && talks(b, a, LIMIT).await);
}

/// For each SPI, the lines with its keys.
fn keys(listed: &str) -> std::collections::BTreeMap<&str, Vec<&str>> {
    let entries = listed.split("\tesp ").skip(1);
    let entry = |entry| {
        let entry: &str = entry;
        let spi = entry.split(' ').find(|word| word.starts_with("spi="));
        let from = entry.find("\tE: ").unwrap();
        let until = entry.find("\tseq=").unwrap();
        (spi.unwrap(), entry[from..until].lines().collect())
    };
    entries.map(entry).collect()
}

#[tokio::test]
async fn keys_are_hidden_unless_the_daemon_shows_them() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    for host in [a, b] {
        let shows = "[daemon]\nshow_keys = true\nlog = \"trace\"\n";
        fs::write(&host.config, shows).unwrap();
        bed.does(host, "setkey -f ETC/ipsec-tools.d/mongodb.conf");
    }
    let mut racoons = vec![bed.start(a), bed.start(b)];
    assert!(talks(a, b, LIMIT).await);
    let (at_a, at_b) = (
        bed.does(a, "setkey -D"),
        bed.does(b, "racoonctl show-sa ipsec"),
    );
    assert_eq!(keys(&at_a), keys(&at_b), "both ends have the same");
    assert_eq!(keys(&at_a).len(), 2, "{at_a}");
    assert!(!at_a.contains("xxxxxxxx"), "{at_a}");
    for (_, lines) in keys(&at_a) {
        let key: String = lines[0].split("  ").nth(1).unwrap().split(' ').collect();
        assert_eq!(key.len(), 32, "{at_a}");
        for host in [a, b] {
            let log = fs::read_to_string(host.runtime.join("racoon.log")).unwrap();
            assert!(log.contains("show_keys") && !log.contains(&key));
            let status = daemons::succeeds(host, &["status", "--json"]);
            assert!(!status.contains(&key));
        }
    }
    // B does not say any more.
    racoons.pop();
    fs::write(&b.config, "").unwrap();
    racoons.push(bed.start(b));
    assert!(talks(b, a, LIMIT).await);
    let listed = bed.does(b, "setkey -D");
    assert!(listed.contains("xxxxxxxx"), "{listed}");
    let lines = keys(&listed).into_values().flatten();
    assert!(lines.into_iter().all(|line| line.ends_with("xxxxxxxx")));
}

/// A connection that stays.
struct Talk(TcpStream);

impl Talk {
    async fn begin(host: &Host, peer: &Host) -> Self {
        let service = SocketAddrV4::new(peer.side.address, SERVICE);
        let socket = host.netns.run(TcpSocket::new_v4).unwrap().unwrap();
        let mut stream = socket.connect(service.into()).await.unwrap();
        // To be answered with the same.
        stream.write_all(b"e").await.unwrap();
        Self(stream)
    }

    /// Both ways, not more at a time than the ends hold.
    async fn exchange(&mut self, octets: usize, bed: &Bed) {
        for _ in 0..octets / 20_000 {
            let sent = [7; 20_000];
            self.0.write_all(&sent).await.unwrap();
            let mut received = [0; 20_000];
            let answer = timeout(LIMIT, self.0.read_exact(&mut received)).await;
            assert!(answer.is_ok_and(|read| read.is_ok()), "{:#?}", words(bed));
            assert_eq!(received, sent);
        }
    }
}

/// What the daemons of both say.
fn words(bed: &Bed) -> [String; 2] {
    [&bed.lab.a, &bed.lab.b].map(|host| {
        let log = fs::read_to_string(host.runtime.join("racoon.log"));
        let status = daemons::run(host, &["status"]);
        format!(
            "{} {}",
            log.unwrap_or_default(),
            String::from_utf8_lossy(&status.stdout)
        )
    })
}

/// What passed in clear so far, once all was looked at.
fn in_clear(capture: &Capture) -> u64 {
    let deadline = Instant::now() + LIMIT;
    while capture.missed().unwrap() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    capture.seen().clear
}

#[tokio::test]
async fn r_a10_use_is_esp_where_there_is_an_sa_and_else_clear() {
    if !is_root() {
        return;
    }
    let bed = Bed::new();
    let (a, b) = (&bed.lab.a, &bed.lab.b);
    let _services = services(&bed);
    let as_it_was = Snapshot::of(&a.netns);
    let policies = POLICIES.replace("10.0.0.0/16", "192.168.0.0/16");
    let policies = policies.replace("require", "use");
    for host in [a, b] {
        let text = format!("spdflush;\n{policies}");
        fs::write(bed.etc(host).join("use.conf"), text).unwrap();
    }
    let capture = Capture::start(&a.netns, WIRE, protected()).unwrap();
    let output = bed.run(a, "setkey -f ETC/use.conf");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let told = said
        .lines()
        .filter(|line| line.contains("opportunistic, cleartext allowed"));
    assert_eq!(
        told.filter(|line| line.contains("use.conf:")).count(),
        4,
        "{said}"
    );
    let listed = bed.does(a, "setkey -DP");
    assert_eq!(
        listed.matches("\tesp/transport//use\n").count(),
        6,
        "{listed}"
    );
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks(host, peer, LIMIT).await, "no daemon at all");
    }
    let racoons = [bed.start(a)];
    let log = a.runtime.join("racoon.log");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("opportunistic, cleartext allowed"), "{said}");
    let status = daemons::succeeds(a, &["status"]);
    let shown = status.matches("in clear (opportunistic, cleartext allowed)");
    assert_eq!(shown.count(), 2, "{status}");
    // B has no obol yet, as C in the story.
    for (host, peer) in [(a, b), (b, a)] {
        assert!(
            talks(host, peer, LIMIT).await,
            "{}",
            fs::read_to_string(&log).unwrap()
        );
    }
    let mut stays = Talk::begin(a, b).await;
    stays.exchange(300_000, &bed).await;
    assert!(in_clear(&capture) > 0);

    bed.does(b, "setkey -f ETC/use.conf");
    let other = bed.start(b);
    let deadline = Instant::now() + 3 * LIMIT;
    loop {
        let before = in_clear(&capture);
        stays.exchange(100_000, &bed).await;
        if in_clear(&capture) == before && capture.seen().esp > 0 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{:?}\n{}",
            capture.seen(),
            fs::read_to_string(&log).unwrap()
        );
    }
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks(host, peer, LIMIT).await);
    }
    assert!(bed.sas(a) >= 2, "{}", bed.does(a, "setkey -D"));
    stays.exchange(300_000, &bed).await;
    // The other direction begins in clear, and is in ESP once its SA stands.
    let deadline = Instant::now() + LIMIT;
    while bed.sas(a) < 4 {
        assert!(talks(b, a, LIMIT).await && Instant::now() < deadline);
    }

    // B closes its SAs, and both talk in clear again.
    other.signal(rustix::process::Signal::TERM);
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks(host, peer, LIMIT).await, "{:#?}", words(&bed));
    }
    // The daemon of A is killed: all is as without one.
    racoons[0].signal(rustix::process::Signal::KILL);
    for (host, peer) in [(a, b), (b, a)] {
        assert!(talks(host, peer, LIMIT).await);
    }
    let mut purge = a.command(&["purge"]);
    assert!(a.netns.run(|| purge.status()).unwrap().unwrap().success());
    assert_eq!(Snapshot::of(&a.netns), as_it_was);
}
