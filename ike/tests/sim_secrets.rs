//! Nothing that an endpoint says, of which any log may be made, holds a secret.

use std::fmt::Write as _;
use std::time::Duration;

use obol_ike::config::StartAction;
use obol_ike::event::Command;
use obol_ike::proposal::EspProposal;
use obol_ike::testing::net::Packet;
use obol_ike::testing::pair::{End, Pair, Transcript};
use obol_ike::testing::setup::{HOSTS, PODS, Setup, pods};

const PSK: &[u8] = b"correct horse battery staple";

/// So many octets are enough to recognise a secret by, and too many to be there by chance.
const TELLING: usize = 8;

/// The beginning of a secret in every way that octets are printed.
fn forms(secret: &[u8]) -> Vec<String> {
    let octets = &secret[..TELLING];
    let as_bytes = format!("{:?}", bytes::Bytes::copy_from_slice(octets));
    let inner = |list: String| list[1..list.len() - 1].to_owned();
    let mut forms = vec![
        hex::encode(octets),
        hex::encode_upper(octets),
        inner(format!("{octets:?}")),
        inner(format!("{octets:x?}")),
        inner(format!("{octets:02x?}")),
        octets.escape_ascii().to_string(),
        as_bytes[2..as_bytes.len() - 1].to_owned(),
    ];
    forms.extend(std::str::from_utf8(octets).map(str::to_owned));
    forms
}

fn holds(text: &str, secret: &[u8]) -> bool {
    forms(secret).iter().any(|form| text.contains(form))
}

fn setup(esp: &str) -> Setup {
    let mut child = pods(StartAction::Start);
    child.esp_proposals = EspProposal::parse(esp).expect("sound").into();
    let mut setup = Setup::started(1).children(vec![child]);
    setup.secret_a = PSK;
    setup.secret_b = PSK;
    setup
}

fn begun(setup: Setup) -> Pair {
    let mut pair = setup.pair(1);
    pair.a.transcript = Some(Transcript::default());
    pair.b.transcript = Some(Transcript::default());
    pair.start();
    pair.run_until_idle();
    pair
}

/// Rekeys both SAs from both ends, with the state of each end after each.
fn rekey(pair: &mut Pair, log: &mut String) {
    for end in [End::A, End::B] {
        let child = Command::RekeyChild {
            connection: HOSTS.to_owned(),
            child: PODS.to_owned(),
        };
        let ike = Command::RekeyIke {
            connection: HOSTS.to_owned(),
        };
        for command in [child, ike] {
            pair.command(end, command).expect("it is up");
            pair.run_until_idle();
            log_status(pair, log);
            pair.run_for(Duration::from_secs(90));
            pair.run_until_idle();
        }
    }
    pair.assert_up(1);
}

fn log_status(pair: &Pair, log: &mut String) {
    for node in [&pair.a, &pair.b] {
        let status = node.endpoint.status(pair.now);
        writeln!(log, "{status:?}\n{status:#?}").expect("memory");
    }
}

/// Datagrams and commands that are refused.
fn misuse(pair: &mut Pair, log: &mut String) {
    let replayed = pair.net.sent.clone();
    let forged = replayed.iter().cloned().map(|mut packet| {
        let last = packet.datagram.last_mut().expect("a message");
        *last ^= 1;
        packet
    });
    let packets: Vec<Packet> = forged.chain(replayed.iter().cloned()).collect();
    for packet in packets {
        pair.net.inject(pair.now, packet);
    }
    pair.run_until_idle();
    for node in [&pair.a, &pair.b] {
        assert!(!node.dropped.is_empty());
        writeln!(log, "{:?}", node.dropped).expect("memory");
    }
    let command = Command::RekeyIke {
        connection: "other".to_owned(),
    };
    let error = pair
        .command(End::A, command)
        .expect_err("there is no such connection");
    writeln!(log, "{error:?} {error}").expect("memory");
}

/// What both ends said and heard, and the Child SA keys of both.
fn told(pair: &Pair) -> (String, Vec<Vec<u8>>) {
    let (mut text, mut keys) = (String::new(), Vec::new());
    for node in [&pair.a, &pair.b] {
        let transcript = node.transcript.clone().expect("kept since the start");
        text.push_str(&transcript.text);
        keys.extend(transcript.keys);
    }
    (text, keys)
}

fn assert_silent(text: &str, keys: &[Vec<u8>]) {
    assert!(
        text.contains("Secret(..)"),
        "secrets went by, and were hidden"
    );
    for secret in keys.iter().map(Vec::as_slice).chain([PSK]) {
        assert!(!holds(text, secret), "a secret is printed");
    }
}

#[test]
fn a_whole_life_tells_no_secret() {
    for (esp, keys_per_sa) in [("aes256gcm16-x25519", 1), ("aes256-sha256-ecp256", 2)] {
        let mut pair = begun(setup(esp));
        pair.assert_up(1);
        let mut log = String::new();
        rekey(&mut pair, &mut log);
        misuse(&mut pair, &mut log);
        pair.command(End::A, Command::Shutdown).expect("always");
        pair.run_until_idle();
        let (text, keys) = told(&pair);
        // Three SAs, two directions, at both ends.
        assert!(keys.len() >= 3 * 2 * 2 * keys_per_sa, "{}", keys.len());
        assert_silent(&(text + &log), &keys);
    }
}

#[test]
fn a_wrong_secret_is_not_told_either() {
    let mut setup = setup("aes256gcm16");
    setup.secret_b = b"incorrect donkey";
    let pair = begun(setup);
    let (text, keys) = told(&pair);
    assert!(text.contains("the shared secrets differ"));
    assert!(!holds(&text, b"incorrect donkey"));
    assert_silent(&text, &keys);
}

#[test]
fn a_secret_is_found_in_whatever_form() {
    let key = [0, 255, 10, 39, 7, 92, 200, 34, 1];
    for secret in [PSK, &key] {
        for printed in [
            format!("{secret:?}"),
            format!("key: {secret:02x?}"),
            hex::encode(secret),
            hex::encode_upper(secret),
            format!("b\"{}\"", secret.escape_ascii()),
            format!("{:?}", bytes::Bytes::copy_from_slice(secret)),
        ] {
            assert!(holds(&printed, secret), "{printed}");
            assert!(!holds(&printed, b"another secret"), "{printed}");
        }
    }
    assert!(holds("correct horse battery staple", PSK));
}
