//! The octets of states, as the kernel has them.

use super::super::selector::tests::service;
use super::*;
use proptest::prelude::*;

fn state(algorithm: Algorithm<'_>) -> NewState<'_> {
    NewState {
        id: StateId {
            destination: IpAddr::from([192, 0, 2, 2]),
            spi: 0xc0ff_ee01,
        },
        source: IpAddr::from([192, 0, 2, 1]),
        reqid: 0x6f01_0002,
        mode: Mode::Tunnel,
        selector: None,
        algorithm,
        esn: true,
        window: 4096,
        encap: Some(Encap {
            source: 4500,
            destination: 32_000,
        }),
        limits: Limits {
            hard_packets: Some(7),
            ..Limits::default()
        },
        mark: Some(Mark {
            value: 0x0b01,
            mask: 0xffff,
        }),
        if_id: 42,
        offload: None,
    }
}

const GCM: Algorithm<'static> = Algorithm::Aead {
    name: "rfc4106(gcm(aes))",
    key: &[0xaa; 36],
    icv_bits: 128,
};

#[test]
fn an_aead_state_is_as_the_kernel_has_it() {
    let message = state(GCM).add();
    let (kind, body) = message.parts();
    assert_eq!(kind, 0x10);
    assert_eq!(body[..56], [0; 56], "no selector");
    assert_eq!(body[56..60], [192, 0, 2, 2]);
    assert_eq!(body[72..80], [0xc0, 0xff, 0xee, 1, 50, 0, 0, 0]);
    assert_eq!(body[80..84], [192, 0, 2, 1]);
    assert_eq!(body[96..120], [0xff; 24]);
    assert_eq!(body[120..128], 7_u64.to_ne_bytes());
    assert_eq!(body[128..208], [0; 80]);
    assert_eq!(body[208..212], 0x6f01_0002_u32.to_ne_bytes());
    assert_eq!(body[212..214], 2_u16.to_ne_bytes());
    assert_eq!(body[214..224], [1, 0, 32 | 128, 0, 0, 0, 0, 0, 0, 0]);
    let list = &body[LEN..];
    let aead = find(list, 18).unwrap();
    assert_eq!(&aead[..18], b"rfc4106(gcm(aes))\0");
    assert_eq!(aead[64..68], 288_u32.to_ne_bytes());
    assert_eq!(aead[68..72], 128_u32.to_ne_bytes());
    assert_eq!(aead[72..], [0xaa; 36]);
    let replay = find(list, 23).unwrap();
    assert_eq!(replay.len(), 24 + 512);
    assert_eq!(replay[..4], 128_u32.to_ne_bytes());
    assert_eq!(replay[20..24], 4096_u32.to_ne_bytes());
    let encap = find(list, 4).unwrap();
    assert_eq!(encap[..2], 2_u16.to_ne_bytes());
    assert_eq!(encap[2..6], [0x11, 0x94, 0x7d, 0]);
    for (kind, number) in [(29, 0x0b01_u32), (30, 0xffff), (31, 42)] {
        assert_eq!(find(list, kind), Some(&number.to_ne_bytes()[..]));
    }
    let read = State::read(body).unwrap();
    assert_eq!((read.id, read.offloaded), (state(GCM).id, false));
    assert_eq!((read.reqid, read.last_used), (0x6f01_0002, None));
}

#[test]
fn a_cipher_with_an_hmac_has_two_algorithms() {
    let mut new = state(Algorithm::Pair {
        encr: "cbc(aes)",
        encr_key: &[1; 16],
        integ: "hmac(sha256)",
        integ_key: &[2; 32],
        icv_bits: 128,
    });
    new.mode = Mode::Transport;
    new.selector = Some(service());
    new.encap = None;
    (new.esn, new.window) = (false, 0);
    let message = new.add();
    let (_, body) = message.parts();
    assert_eq!(Selector::read(body), Some(service()));
    assert_eq!(body[214..217], [0, 0, 0]);
    let list = &body[LEN..];
    let crypt = find(list, 2).unwrap();
    assert_eq!((&crypt[..9], crypt.len()), (&b"cbc(aes)\0"[..], 68 + 16));
    let auth = find(list, 20).unwrap();
    assert_eq!(auth[64..72], [256_u32, 128].map(u32::to_ne_bytes).concat());
    assert_eq!(auth[72..], [2; 32]);
    // So that the kernel tells the number that is next, and it can be passed on.
    let replay = find(list, 23).unwrap();
    assert_eq!((&replay[..4], replay.len()), (&1_u32.to_ne_bytes()[..], 28));
    assert_eq!(replay[20..24], 32_u32.to_ne_bytes());
    assert_eq!((find(list, 4), find(list, 32)), (None, None));
}

#[test]
fn numbers_of_the_old_kind_go_on_too() {
    let mut new = state(GCM);
    new.esn = false;
    let whole = new.add();
    let whole = whole.parts().1;
    // Without attribute 23 the kernel tells `struct xfrm_replay_state`.
    let mut body = whole[..LEN].to_vec();
    for (kind, value) in attributes(&whole[LEN..]) {
        let value: &[u8] = match kind {
            23 => &[1000, 7, 3].map(u32::to_ne_bytes).concat(),
            _ => value,
        };
        let kind = if kind == 23 { 10 } else { kind };
        body.extend(
            [value.len() as u16 + 4, kind]
                .map(u16::to_ne_bytes)
                .concat(),
        );
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let to = Move {
        source: [192, 0, 2, 1].into(),
        destination: [192, 0, 2, 3].into(),
        encap: None,
    };
    let copied = Copied::new(&body).unwrap();
    for (message, oseq) in [
        (copied.add(&to, None, None), 1000 + HEADWAY),
        (copied.update(&to, None), 1000),
    ] {
        let list = &message.parts().1[LEN..];
        let told = [oseq, 7, 3].map(u32::to_ne_bytes).concat();
        assert_eq!(find(list, 10), Some(&told[..]));
        assert_eq!(find(list, 23), None);
    }
}

#[test]
fn what_is_moved_keeps_its_keys_and_counts_on() {
    let message = state(GCM).add();
    let mut body = message.parts().1.to_vec();
    body[160..176].copy_from_slice(&[1000_u64, 10].map(u64::to_ne_bytes).concat());
    let at = body
        .windows(4)
        .rposition(|w| w == 4096_u32.to_ne_bytes())
        .unwrap()
        - 20;
    body[at + 4..at + 8].copy_from_slice(&(u32::MAX - 1).to_ne_bytes());
    let to = Move {
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8::2".parse().unwrap(),
        encap: None,
    };
    let copied = Copied::new(&body).unwrap();
    let moved = copied.add(&to, None, None);
    let (kind, moved) = moved.parts();
    let read = State::read(moved).unwrap();
    assert_eq!(
        (kind, read.id.spi, read.reqid),
        (0x10, 0xc0ff_ee01, 0x6f01_0002)
    );
    assert_eq!(
        (read.id.destination, read.source),
        (to.destination, to.source)
    );
    assert_eq!((moved.len() - LEN) % 4, 0);
    assert_eq!(moved[212..214], 10_u16.to_ne_bytes());
    assert_eq!(moved[214..217], body[214..217]);
    let list = &moved[LEN..];
    assert_eq!(find(list, 18), find(&body[LEN..], 18));
    assert_eq!(find(list, 9).unwrap()[..8], 1000_u64.to_ne_bytes());
    let replay = find(list, 23).unwrap();
    assert_eq!(u32_at(replay, 4), Some(HEADWAY - 2));
    assert_eq!(u32_at(replay, 12), Some(1), "it carried");
    assert_eq!(
        (find(list, 4), find(list, 32)),
        (None, None),
        "no UDP any more"
    );
    let message = copied.update(&to, None);
    let replay = find(&message.parts().1[LEN..], 23).unwrap();
    assert_eq!(u32_at(replay, 4), Some(u32::MAX - 1));
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = State::read(&octets);
        let _ = StateId::read(&octets);
        let to = Move { source: [1, 2, 3, 4].into(), destination: [1, 2, 3, 5].into(), encap: None };
        if let Some(copied) = Copied::new(&octets) {
            let _ = copied.add(&to, None, None);
        }
    }
}
