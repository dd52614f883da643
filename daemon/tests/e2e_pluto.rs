//! Two daemons with files of pluto's, as they stand on hosts that run it: `ipsec.conf` with what it
//! includes, `ipsec.secrets`, private keys in NSS databases. As root; in namespaces.
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
use std::time::Instant;

use daemons::{LIMIT, PATIENCE, assert_only_protected, ike_sas, installed, run, succeeds};
use obol_daemon::demo::capture::Capture;
use obol_daemon::demo::lab::{Host, Lab, OVERLAY_PORT, WIRE};
use obol_daemon::demo::protected;
use obol_daemon::demo::traffic::ping;
use pluto::{DATABASES, log, nss, run_from, story, write};
use support::{is_root, obol};

/// The main file of every host.
const MAIN: &str = "config setup\n\ninclude ipsec.d/*.conf\n";

/// A lab whose daemons run with these files and nothing else; `[]` is for host A, then host B.
fn lab_with(conf: [&str; 2], secrets: &str) -> Lab {
    let mut lab = Lab::new(obol(), None).unwrap();
    let directory = lab.directory().to_owned();
    for ((host, conf), database) in [&mut lab.a, &mut lab.b]
        .into_iter()
        .zip(conf)
        .zip(DATABASES)
    {
        let own = directory.join(format!("{}-etc", host.side.name));
        fs::create_dir_all(own.join("ipsec.d")).unwrap();
        fs::write(own.join("ipsec.conf"), MAIN).unwrap();
        fs::write(own.join("ipsec.d/hostA-hostB.conf"), conf).unwrap();
        write(&own.join("ipsec.secrets"), secrets, 0o600);
        run_from(host, &own);
        host.arguments.extend(["--nssdir".into(), nss(database)]);
    }
    lab
}

/// Starts both daemons, and waits until these children are up on both.
async fn start(lab: &mut Lab, children: &[&str]) {
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut up = true;
        for host in [&lab.a, &lab.b] {
            let status = host.status().await;
            up &= status
                .is_ok_and(|status| ike_sas(&status).len() == 1 && installed(&status) == children);
        }
        if up {
            return;
        }
        if Instant::now() >= deadline || !lab.a.runs() || !lab.b.runs() {
            panic!("not up:\n{}\n{}", log(&lab.a), log(&lab.b));
        }
        tokio::task::yield_now().await;
    }
}

async fn wait_until(what: &str, host: &mut Host, wanted: impl Fn(&Host) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !wanted(host) {
        assert!(
            Instant::now() < deadline && host.runs(),
            "{what}: {}",
            log(host)
        );
        tokio::task::yield_now().await;
    }
}

/// Echo requests from each host to the other.
async fn pings(lab: &Lab, of: impl Fn(&Host) -> Ipv4Addr) {
    for (host, peer) in [(&lab.a, &lab.b), (&lab.b, &lab.a)] {
        let deadline = Instant::now() + LIMIT;
        ping(&host.netns, of(host), of(peer), PATIENCE, deadline)
            .await
            .unwrap();
    }
}

/// Sends a datagram to the port of VXLAN of the peer, until it has come.
fn vxlan(from: &Host, to: &Host) {
    let bind = |host: &Host, port| {
        let address = SocketAddrV4::new(host.side.address, port);
        host.netns
            .run(|| UdpSocket::bind(address))
            .unwrap()
            .unwrap()
    };
    let (sender, receiver) = (bind(from, 0), bind(to, OVERLAY_PORT));
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let deadline = Instant::now() + LIMIT;
    let peer = SocketAddrV4::new(to.side.address, OVERLAY_PORT);
    loop {
        sender.send_to(b"frame", peer).unwrap();
        let mut octets = [0; 16];
        if let Ok((length, source)) = receiver.recv_from(&mut octets) {
            assert_eq!(&octets[..length], b"frame");
            assert_eq!(source.ip(), from.side.address);
            return;
        }
        assert!(Instant::now() < deadline, "nothing comes");
    }
}

const BOTH: [&str; 2] = ["hostA-hostB", "hostA-hostB-subnet"];

#[tokio::test]
async fn the_story_as_it_is() {
    if !is_root() {
        return;
    }
    let story = story();
    let mut lab = lab_with([&story, &story], "");
    let capture = Capture::start(&lab.a.netns, WIRE, protected()).unwrap();
    start(&mut lab, &BOTH).await;
    pings(&lab, |host| host.side.pod).await;
    pings(&lab, |host| host.side.address).await;
    vxlan(&lab.a, &lab.b);
    vxlan(&lab.b, &lab.a);
    for (host, [own, peer]) in [
        (&lab.a, ["hostA.example.com", "hostB.example.com"]),
        (&lab.b, ["hostB.example.com", "hostA.example.com"]),
    ] {
        let status = host.status().await.unwrap();
        let ike = ike_sas(&status)[0];
        assert_eq!(ike["local"]["id"], own, "{status:#}");
        assert_eq!(ike["remote"]["id"], peer, "{status:#}");
        assert!(!log(host).contains("WARN"), "{}", log(host));
    }
    assert_only_protected(&capture).await;
    for host in [&mut lab.a, &mut lab.b] {
        assert!(host.stop(LIMIT).await.unwrap().success());
    }
}

#[tokio::test]
async fn left_and_right_exchanged_on_one_host_and_commands_by_the_names_of_connections() {
    if !is_root() {
        return;
    }
    let story = story();
    let exchanged = story
        .replace("left", "\0")
        .replace("right", "left")
        .replace('\0', "right");
    // Each host may also be told to find its address by itself.
    let by_device = story.replace("left=192.168.0.1", "left=%wire0");
    let by_route = exchanged.replace("left=192.168.0.2", "left=%defaultroute");
    assert!(by_device != story && by_route != exchanged);
    let mut lab = lab_with([&by_device, &by_route], "");
    start(&mut lab, &BOTH).await;
    pings(&lab, |host| host.side.pod).await;

    // One connection goes, and the IKE SA stays for the other.
    succeeds(&lab.a, &["down", "hostA-hostB"]);
    succeeds(&lab.a, &["status", "hostA-hostB-subnet"]);
    assert_eq!(
        run(&lab.a, &["status", "hostA-hostB"]).status.code(),
        Some(3)
    );
    let up = succeeds(&lab.a, &["up", "hostA-hostB"]);
    assert!(up.contains("hostA-hostB: up"), "{up}");
    succeeds(&lab.a, &["status", "hostA-hostB"]);
    let list = succeeds(&lab.a, &["list"]);
    assert!(list.contains("hostA-hostB-subnet"), "{list}");
    assert_eq!(run(&lab.a, &["up", "nobody"]).status.code(), Some(2));

    // The same files: nothing changes. Without one of the connections, it goes.
    let reloaded = succeeds(&lab.a, &["reload"]);
    assert_eq!(reloaded, "unchanged: hostA-hostB\n");
    let file = lab.directory().join("a-etc/ipsec.d/hostA-hostB.conf");
    fs::write(&file, format!("{by_device}\n  lefsubnet=10.0.0.0/8\n")).unwrap();
    let refused = run(&lab.a, &["reload"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(6), "{text}");
    assert!(text.contains("hostA-hostB.conf:17:3"), "{text}");
    assert!(text.contains("did you mean leftsubnet?"), "{text}");
    pings(&lab, |host| host.side.pod).await;
    for host in [&mut lab.a, &mut lab.b] {
        assert!(host.stop(LIMIT).await.unwrap().success());
    }
}

#[tokio::test]
async fn a_host_that_gets_the_address_later_takes_part_then() {
    if !is_root() {
        return;
    }
    let story = story().replace("192.168.0.1", "192.168.0.11");
    let mut lab = lab_with([&story, &story], "");
    lab.a.start().unwrap();
    lab.b.start().unwrap();
    wait_until("ready", &mut lab.a, |host| log(host).contains("ready")).await;
    let up = run(&lab.a, &["up", "hostA-hostB"]);
    let text = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(
        text.contains("neither left=192.168.0.11 nor right=192.168.0.2 match an interface"),
        "{text}"
    );
    let address = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 11));
    lab.a
        .netns
        .configure(async |links| links.address(WIRE, address, 24).await)
        .unwrap();
    for host in [&mut lab.a, &mut lab.b] {
        wait_until("up", host, |host| {
            run(host, &["status", "hostA-hostB-subnet"])
                .status
                .success()
        })
        .await;
    }
    pings(&lab, |host| host.side.pod).await;
}

#[tokio::test]
async fn secrets_are_found_by_the_ranks_and_what_is_missing_is_said() {
    if !is_root() {
        return;
    }
    let conf = "\
conn %default
  left=192.168.0.1
  right=192.168.0.2
  authby=secret
conn psk
  leftid=@west
  rightid=@east
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24
  auto=start
conn none
  leftid=@north
  rightid=@south
  leftprotoport=tcp/7
  rightprotoport=tcp
  auto=add
";
    let secrets = "\
@nobody @east : PSK \"not this one\"
@west : PSK \"nor this one, which fits less\"
@west @east: PSK \"the secret of the two\"
192.168.0.1 192.168.0.2 : PSK \"for those without a name\"
";
    let mut lab = lab_with([conf, conf], secrets);
    // What host B would take if the best did not come first.
    let other = lab.directory().join("b-etc/ipsec.secrets");
    fs::write(
        &other,
        format!("%any : PSK \"of everybody\"\n{secrets}").replace("nor this", "and not this"),
    )
    .unwrap();
    start(&mut lab, &["psk"]).await;
    pings(&lab, |host| host.side.pod).await;
    let log = log(&lab.a);
    let expected = "none cannot come up: no PSK for @north → @south in ";
    assert!(log.contains(expected), "{log}");
    assert!(log.contains("(there is one for 192.168.0.1; "), "{log}");
    assert!(!log.contains("secret of the two"), "{log}");
}

#[tokio::test]
async fn without_its_private_key_a_host_protects_and_says_which_key_it_looks_for() {
    if !is_root() {
        return;
    }
    let story = story();
    let mut lab = lab_with([&story, &story], "");
    // The databases exchanged: neither host has its own key.
    let [a, b] = [&mut lab.a, &mut lab.b];
    std::mem::swap(&mut a.arguments[5], &mut b.arguments[5]);
    a.start().unwrap();
    wait_until("ready", a, |host| log(host).contains("ready")).await;
    let log = log(a);
    let expected = "hostA-hostB cannot come up: private key matching CKAID 6a4d0d1efb18011de7a576b0280149650d924852 not found in ";
    assert!(log.contains(expected), "{log}");
    let status = a.status().await.unwrap();
    assert_eq!(
        status["policies"].as_array().unwrap().len(),
        2,
        "{status:#}"
    );
}

/// `ipsec add` looks at no other connection than the one that it names: what else has changed in the
/// files waits until all is read again.
#[tokio::test]
async fn one_connection_more_is_added_while_all_others_stay_as_they_are() {
    if !is_root() {
        return;
    }
    let others = "\
conn %default
  left=192.168.0.1
  authby=secret
  auto=add
conn other
  right=192.168.0.9
  leftsubnet=172.16.1.0/24
  rightsubnet=10.9.0.0/16
";
    let more = "\
conn pods
  right=192.168.0.2
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24
conn narrow
  right=192.168.0.9
  rightid=@narrow
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.128/25
";
    let whole = format!("{others}{more}");
    let mut lab = lab_with([others, &whole], ": PSK \"the secret of everybody\"\n");
    for host in [&mut lab.a, &mut lab.b] {
        host.start().unwrap();
        wait_until("ready", host, |host| log(host).contains("ready")).await;
    }
    let a = &lab.a;
    let ipsec = |line: &str| {
        let rundir = a.runtime.display().to_string();
        let mut words = vec!["ipsec"];
        words.extend(line.split(' '));
        words.extend(["--rundir", &rundir]);
        let output = run(a, &words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let file = lab.directory().join("a-etc/ipsec.d/hostA-hostB.conf");
    fs::write(&file, whole.replace("10.9.0.0", "10.8.0.0")).unwrap();
    let (code, text) = ipsec("add pods");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"pods\": added IKEv2 connection"), "{text}");
    let list = succeeds(a, &["list"]);
    assert!(
        list.contains("10.9.0.0/16") && list.contains("pods"),
        "{list}"
    );
    assert!(!list.contains("narrow"), "{list}");
    // In clear it does not pass, and by an SA it does.
    let deadline = Instant::now() + PATIENCE;
    let clear = ping(&a.netns, a.side.pod, lab.b.side.pod, PATIENCE, deadline).await;
    assert!(clear.is_err(), "there is no SA");
    assert_eq!(ipsec("up pods").0, Some(0));
    pings(&lab, |host| host.side.pod).await;
    assert_eq!(installed(&a.status().await.unwrap()), ["pods"]);

    // What is about some packets of another one leaves that as it is, too.
    let (code, text) = ipsec("add narrow");
    assert_eq!(code, Some(0), "{text}");
    let list = succeeds(a, &["list"]);
    assert!(
        list.contains("narrow") && list.contains("10.9.0.0/16"),
        "{list}"
    );
    assert!(!list.contains("10.8.0.0/16"), "{list}");
    let reloaded = succeeds(a, &["reload"]);
    assert_eq!(reloaded, "changed: other\nunchanged: pods, narrow\n");
    let list = succeeds(a, &["list"]);
    assert!(
        list.contains("10.8.0.0/16") && !list.contains("10.9.0.0/16"),
        "{list}"
    );
    pings(&lab, |host| host.side.pod).await;
}

/// What is protected stays so, whatever the files, names and addresses are by the time that something
/// has the daemon look at them again.
#[tokio::test]
async fn a_connection_that_cannot_be_had_any_more_stays_as_it_was() {
    if !is_root() {
        return;
    }
    let whole = "\
conn pods
  left=192.168.0.1
  right=192.168.0.2
  authby=secret
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24
  auto=start
conn other
  left=192.168.0.1
  right=192.168.0.9
  authby=secret
  leftsubnet=172.16.1.0/24
  rightsubnet=10.9.0.0/16
  auto=start
conn later
  left=192.168.0.21
  right=192.168.0.9
  authby=secret
  leftsubnet=172.16.1.0/24
  rightsubnet=10.8.0.0/16
  auto=start
";
    let mut lab = lab_with([whole, whole], ": PSK \"the secret of everybody\"\n");
    start(&mut lab, &["pods"]).await;
    let a = &lab.a;
    let ipsec = |line: &str| {
        let rundir = a.runtime.display().to_string();
        let mut words = vec!["ipsec"];
        words.extend(line.split(' '));
        words.extend(["--rundir", &rundir]);
        let output = run(a, &words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let file = lab.directory().join("a-etc/ipsec.d/hostA-hostB.conf");
    let lists = |what: &[&str]| {
        let list = succeeds(a, &["list"]);
        for what in what {
            assert!(list.contains(what), "{what}: {list}\n{}", log(a));
        }
    };
    // One that is out of the files by now: neither addresses nor another conn ask for that.
    let (before, rest) = whole.split_once("conn other").unwrap();
    let (_, after) = rest.split_once("conn later").unwrap();
    let without = format!("{before}conn later{after}");
    let nowhere = "
conn nowhere
  left=192.168.0.1
  right=nowhere.invalid
  authby=secret
  auto=start
";
    fs::write(&file, format!("{without}{nowhere}")).unwrap();
    assert_eq!(ipsec("listen").0, Some(0));
    lists(&["pods", "other"]);
    ipsec("add nowhere");
    lists(&["pods", "other"]);
    ipsec("delete nowhere");
    lists(&["pods", "other"]);
    // A bad value, then whatever reads the files.
    let typo = whole.replacen("auto=start", "auto=start\n  esp=aess", 1);
    fs::write(&file, &typo).unwrap();
    for command in ["listen", "rereadall", "replace other"] {
        ipsec(command);
        lists(&["pods", "other"]);
        assert_eq!(
            installed(&a.status().await.unwrap()),
            ["pods"],
            "{command}: {}",
            log(a)
        );
    }
    let reloaded = run(a, &["reload"]);
    let said = String::from_utf8_lossy(&reloaded.stdout);
    assert!(said.contains("unchanged: pods, other"), "{said}");
    let said = String::from_utf8_lossy(&reloaded.stderr);
    assert!(
        said.contains("pods stays as it was") && said.contains("aess"),
        "{said}"
    );
    assert_ne!(ipsec("replace pods").0, Some(0), "it cannot be replaced");
    lists(&["pods", "other"]);

    // A new address: what is loaded does not hang on what the files say by now.
    fs::write(&file, typo.replace("conn other", "conn another")).unwrap();
    let address = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 21));
    a.netns
        .configure(async |links| links.address(WIRE, address, 24).await)
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    while !succeeds(a, &["list"]).contains("later") {
        assert!(Instant::now() < deadline, "{}", log(a));
        tokio::task::yield_now().await;
    }
    lists(&["pods", "other", "10.9.0.0/16", "later"]);
    assert!(!succeeds(a, &["list"]).contains("another"));
    assert_eq!(installed(&a.status().await.unwrap()), ["pods"]);

    // Who takes it out of the files takes it away.
    let start = whole.find("conn other").unwrap();
    fs::write(&file, &whole[start..]).unwrap();
    let reloaded = succeeds(a, &["reload"]);
    assert!(reloaded.contains("removed: pods"), "{reloaded}");
}
