//! Names in pluto's files, and a resolver that says nothing: who asks for a look at the files waits, and nobody
//! else does. As root; in namespaces.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy knows tests by their attribute, and helpers of tests have none"
)]

#[path = "support/daemons.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod daemons;
#[path = "support/pluto.rs"]
#[allow(dead_code, reason = "each test uses its part of it")]
mod pluto;
#[allow(dead_code, reason = "each test uses its part of it")]
mod support;

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::Instant;

use daemons::LIMIT;
use obol_daemon::demo::lab::Lab;
use pluto::{ipsec_of, log, run_from, write};
use support::{is_root, obol};

/// A program that is obol with the name server 127.0.0.1, and a directory that goes with it.
struct Program(PathBuf);

impl Program {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("obol-names-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let resolver = directory.join("resolv.conf");
        write(&resolver, "nameserver 127.0.0.1\n", 0o644);
        let script = format!(
            "#!/bin/sh\nexec unshare -m sh -c 'mount --bind {} /etc/resolv.conf && exec {} \"$@\"' sh \"$@\"\n",
            resolver.display(),
            obol().display()
        );
        write(&directory.join("obol"), &script, 0o755);
        Self(directory)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn conf(peer: &str) -> String {
    format!(
        "config setup\n\n\
         conn nets\n\tleft=192.168.0.1\n\tleftid=@a\n\tright=192.168.0.2\n\trightid=@b\n\tauthby=secret\n\
         \tleftsubnet=172.16.1.0/24\n\trightsubnet=172.16.2.0/24\n\tauto=add\n\n\
         conn named\n\tleft=192.168.0.1\n\tleftid=@a\n\tright={peer}\n\trightid=@c\n\tauthby=secret\n\
         \tleftsubnet=172.16.1.0/24\n\trightsubnet=172.16.9.0/24\n\tauto=add\n"
    )
}

#[tokio::test]
async fn nobody_waits_for_a_resolver_but_who_asked() {
    if !is_root() {
        return;
    }
    let program = Program::new();
    let mut lab = Lab::new(&program.0.join("obol"), None).unwrap();
    let directory = lab.directory().to_owned();
    let file = directory.join("ipsec.conf");
    write(&file, &conf("192.168.0.3"), 0o644);
    let secrets = directory.join("ipsec.secrets");
    write(&secrets, "@a : PSK \"a secret for a and all\"\n", 0o600);
    let silent = lab.a.netns.run(|| UdpSocket::bind("127.0.0.1:53")).unwrap();
    let silent = silent.unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    run_from(&mut lab.a, &directory);
    lab.a.start().unwrap();
    let a = &lab.a;
    let deadline = Instant::now() + LIMIT;
    while ipsec_of(a, "status", "5").0 != 0 {
        assert!(Instant::now() < deadline, "{}", log(a));
        tokio::task::yield_now().await;
    }
    write(&file, &conf("peer.example.org"), 0o644);
    std::thread::scope(|threads| {
        let asked = threads.spawn(|| ipsec_of(a, "rereadall", "5"));
        let mut query = [0; 512];
        let (length, _) = silent.recv_from(&mut query).unwrap();
        assert!(query[..length].windows(4).any(|octets| octets == b"peer"));
        // The daemon waits for the answer to that, and tells others meanwhile what they want to know.
        let (code, text) = ipsec_of(a, "status", "5");
        assert_eq!(code, 0, "{text}");
        assert!(!asked.is_finished(), "the resolver has said nothing");
        let (code, text) = asked.join().unwrap();
        assert_eq!(code, 0, "{text}");
    });
    // The conn stays as it was, since its name says nothing.
    let (_, text) = ipsec_of(a, "connectionstatus named", "5");
    assert!(text.contains("...192.168.0.3[@c]"), "{text}");
    assert!(
        log(a).contains("peer.example.org has no address now"),
        "{}",
        log(a)
    );
    a_conn_that_waits_for_a_name_is_taken_out(&lab, &file);
}

/// One that has had no address yet has its packets dropped; once it is taken out, it has not, and it is there
/// again for who wants it.
fn a_conn_that_waits_for_a_name_is_taken_out(lab: &Lab, file: &std::path::Path) {
    let a = &lab.a;
    write(file, &conf("second.example.org"), 0o644);
    let dropped = || {
        let (code, text) = ipsec_of(a, "shuntstatus", "5");
        assert_eq!(code, 0, "{text}");
        text.contains("172.16.1.0/24 -0-> 172.16.9.0/24 => %drop")
    };
    assert_eq!(ipsec_of(a, "delete named", "5").0, 0);
    assert!(!dropped());
    let (code, text) = ipsec_of(a, "add named", "5");
    assert_eq!(code, 0, "{text}");
    assert!(dropped(), "{}", ipsec_of(a, "shuntstatus", "5").1);
    let (code, text) = ipsec_of(a, "up named", "5");
    assert_eq!(code, 29, "{text}");
    let (code, text) = ipsec_of(a, "delete named", "5");
    assert_eq!(code, 0, "{text}");
    assert!(!dropped(), "{}", ipsec_of(a, "shuntstatus", "5").1);
    let (code, text) = ipsec_of(a, "up named", "5");
    assert_eq!(code, 21, "{text}");
    // A look at the files does not bring it back, and who asks for it does.
    assert_eq!(ipsec_of(a, "rereadall", "5").0, 0);
    assert!(!dropped());
    assert_eq!(ipsec_of(a, "add named", "5").0, 0);
    assert!(dropped());
}
