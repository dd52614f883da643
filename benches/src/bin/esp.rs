//! What ESP costs on top of its cipher.
//!
//! For each suite and packet size: nanoseconds to seal and to open one packet in tunnel mode, and
//! the ratio to the bare cipher of the same back end over the same octets, in the same run. A
//! ratio of 1 would mean that headers, windows, selectors and counters cost nothing.
//!
//! `cargo run --release -p obol-benches --bin esp [-- --json]`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use aes_gcm::AeadInOut;
use aes_gcm::aead::consts::{U12, U16};
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit,
    KeyInit,
};
use hmac::{Hmac, Mac};
use obol_esp::{
    Backend, HEADROOM, Hash, Inbound, Limits, Mode, Outbound, Outer, SaParams, Selector, Selectors,
    Suite, TAILROOM,
};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

const SIZES: [usize; 4] = [64, 256, 1400, 8900];
/// Packets per timed batch: few enough to stay in the second level cache.
const BATCH: usize = 32;
/// Time per suite and size. The fastest batch counts: what slows others down is not ours.
const BUDGET: Duration = Duration::from_millis(400);

const SUITES: [(&str, Suite, usize, usize); 4] = [
    ("aes128gcm16", Suite::AesGcm16 { key_bits: 128 }, 20, 0),
    ("aes256gcm16", Suite::AesGcm16 { key_bits: 256 }, 36, 0),
    ("chacha20poly1305", Suite::ChaCha20Poly1305, 36, 0),
    (
        "aes256-sha2_256",
        Suite::AesCbcHmac {
            key_bits: 256,
            hash: Hash::Sha256,
        },
        32,
        32,
    ),
];

fn main() {
    let rows: Vec<Row> = SUITES
        .iter()
        .flat_map(|suite| SIZES.map(|size| Row::measure(suite, size)))
        .collect();
    if std::env::args().any(|argument| argument == "--json") {
        let rows: Vec<String> = rows.iter().map(Row::json).collect();
        println!("[\n  {}\n]", rows.join(",\n  "));
        return;
    }
    println!("AEADs by: {}", Backend::best().name());
    println!("{:<17}{:>6} {:>27} {:>27}", "", "", "seal", "open");
    println!(
        "{:<17}{:>6} {:>9}{:>9}{:>9} {:>9}{:>9}{:>9}",
        "suite", "octets", "ns", "ratio", "Gbit/s", "ns", "ratio", "Gbit/s"
    );
    for row in rows {
        println!("{}", row.text());
    }
}

/// Nanoseconds per packet.
struct Row {
    suite: &'static str,
    size: usize,
    seal: f64,
    open: f64,
    raw_seal: f64,
    raw_open: f64,
}

impl Row {
    fn measure(
        &(name, suite, encr, integ): &(&'static str, Suite, usize, usize),
        size: usize,
    ) -> Self {
        let params = || params(suite, encr, integ);
        let mut outbound = Outbound::new(params()).expect("fixed parameters");
        let mut inbound = Inbound::new(params()).expect("fixed parameters");
        let raw = Raw::new(suite);
        let mut packets = vec![buffer(size); BATCH];
        let range = HEADROOM..HEADROOM + size;
        let mut sealed = vec![0..0; BATCH];
        let mut best = [Duration::MAX; 4];
        let end = Instant::now() + BUDGET;
        while Instant::now() < end {
            // Opening puts the packets back where they were, for the next round to seal.
            let times = [
                time(|| seal_all(&mut outbound, &mut packets, &range, &mut sealed)),
                time(|| open_all(&mut inbound, &mut packets, &sealed)),
                time(|| {
                    packets
                        .iter_mut()
                        .for_each(|p| (raw.seal)(&mut p[sealed[0].clone()]))
                }),
                time(|| {
                    packets
                        .iter_mut()
                        .for_each(|p| (raw.open)(&mut p[sealed[0].clone()]))
                }),
            ];
            for (best, time) in best.iter_mut().zip(times) {
                *best = time.min(*best);
            }
        }
        let [seal, open, raw_seal, raw_open] =
            best.map(|time| time.as_nanos() as f64 / BATCH as f64);
        Self {
            suite: name,
            size,
            seal,
            open,
            raw_seal,
            raw_open,
        }
    }

    fn text(&self) -> String {
        let gbits = |ns: f64| self.size as f64 * 8.0 / ns;
        format!(
            "{:<17}{:>6} {:>9.0}{:>9.2}{:>9.2} {:>9.0}{:>9.2}{:>9.2}",
            self.suite,
            self.size,
            self.seal,
            self.seal / self.raw_seal,
            gbits(self.seal),
            self.open,
            self.open / self.raw_open,
            gbits(self.open),
        )
    }

    fn json(&self) -> String {
        format!(
            "{{\"suite\": \"{}\", \"octets\": {}, \"seal_ns\": {:.1}, \"seal_ratio\": {:.3}, \
             \"open_ns\": {:.1}, \"open_ratio\": {:.3}}}",
            self.suite,
            self.size,
            self.seal,
            self.seal / self.raw_seal,
            self.open,
            self.open / self.raw_open,
        )
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn seal_all(
    sa: &mut Outbound,
    packets: &mut [Vec<u8>],
    range: &Range<usize>,
    sealed: &mut [Range<usize>],
) {
    for (packet, place) in packets.iter_mut().zip(sealed) {
        *place = sa.seal(packet, range.clone()).expect("within limits").range;
        black_box(packet);
    }
}

fn open_all(sa: &mut Inbound, packets: &mut [Vec<u8>], sealed: &[Range<usize>]) {
    let outer = Outer {
        source: HOST,
        destination: HOST,
        tos: 0,
        ttl: 64,
    };
    for (packet, place) in packets.iter_mut().zip(sealed) {
        sa.open(packet, place.clone(), outer)
            .expect("sealed just before");
        black_box(packet);
    }
}

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// An IPv4 packet with room around it.
fn buffer(size: usize) -> Vec<u8> {
    let mut buffer = vec![0x5a; HEADROOM + size + TAILROOM];
    let [high, low] = (size as u16).to_be_bytes();
    let header = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 1,
    ];
    buffer[HEADROOM..HEADROOM + 20].copy_from_slice(&header);
    buffer
}

fn params(suite: Suite, encr: usize, integ: usize) -> SaParams {
    let only = (HOST, HOST);
    let selector = Selector::new(0, only, Selector::ANY_PORT, only, Selector::ANY_PORT);
    SaParams {
        spi: 0x1234_5678,
        suite,
        encr_key: Zeroizing::new(vec![7; encr]),
        integ_key: Zeroizing::new(vec![8; integ]),
        mode: Mode::Tunnel,
        esn: true,
        selectors: Selectors::new(vec![selector.expect("one address")]),
        limits: Limits::default(),
        replay_window: SaParams::REPLAY_WINDOW,
        repair_checksums: false,
        transport_addresses: None,
    }
}

/// The same for each packet, since nobody will see them.
const NONCE: [u8; 12] = [9; 12];

/// A bare cipher over a packet from the SPI to the ICV.
type Work = Box<dyn Fn(&mut [u8])>;

/// The cipher without ESP: the same octets encrypted and covered, with a constant nonce.
struct Raw {
    seal: Work,
    open: Work,
}

impl Raw {
    fn new(suite: Suite) -> Self {
        let portable = Backend::best() == Backend::Portable;
        match suite {
            Suite::AesCbcHmac { .. } => Self::cbc(),
            Suite::AesGcm16 { key_bits } if !portable => {
                let cipher = || graviola::aead::AesGcm::new(&[7; 32][..usize::from(key_bits / 8)]);
                let (sealer, opener) = (cipher(), cipher());
                Self::of(
                    move |data, body, tag| sealer.encrypt(&NONCE, data, body, tag),
                    move |data, body, tag| opener.decrypt(&NONCE, data, body, tag).is_ok(),
                )
            }
            Suite::ChaCha20Poly1305 if !portable => {
                let cipher = || graviola::aead::ChaCha20Poly1305::new([7; 32]);
                let (sealer, opener) = (cipher(), cipher());
                Self::of(
                    move |data, body, tag| sealer.encrypt(&NONCE, data, body, tag),
                    move |data, body, tag| opener.decrypt(&NONCE, data, body, tag).is_ok(),
                )
            }
            Suite::AesGcm16 { key_bits: 128 } => Self::aead::<aes_gcm::Aes128Gcm>(&[7; 16]),
            Suite::AesGcm16 { .. } => Self::aead::<aes_gcm::Aes256Gcm>(&[7; 32]),
            Suite::ChaCha20Poly1305 => Self::aead::<chacha20poly1305::ChaCha20Poly1305>(&[7; 32]),
        }
    }

    /// From an AEAD: additional data, body, tag.
    fn of(
        seal: impl Fn(&[u8], &mut [u8], &mut [u8; 16]) + 'static,
        open: impl Fn(&[u8], &mut [u8], &[u8; 16]) -> bool + 'static,
    ) -> Self {
        let seal = move |esp: &mut [u8]| {
            let (front, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let (header, body) = front.split_at_mut(16);
            seal(&header[..12], body, icv);
        };
        let open = move |esp: &mut [u8]| {
            let (front, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let (header, body) = front.split_at_mut(16);
            assert!(open(&header[..12], body, icv), "sealed just before");
        };
        Self {
            seal: Box::new(seal),
            open: Box::new(open),
        }
    }

    fn aead<A>(key: &[u8]) -> Self
    where
        A: AeadInOut<NonceSize = U12, TagSize = U16> + KeyInit + Clone + 'static,
    {
        let sealer = A::new_from_slice(key).expect("a key of the right length");
        let opener = sealer.clone();
        Self::of(
            move |data, body, tag| {
                let made = sealer.encrypt_inout_detached(&NONCE.into(), data, body.into());
                *tag = made.expect("short").into();
            },
            move |data, body, tag| {
                opener
                    .decrypt_inout_detached(&NONCE.into(), data, body.into(), tag.into())
                    .is_ok()
            },
        )
    }

    fn cbc() -> Self {
        let cipher = || aes::Aes256::new(&Array([7; 32]));
        let hmac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&[8; 32]).expect("any length");
        let iv = Array([9; 16]);
        let (sealer, sealing) = (cipher(), hmac.clone());
        let seal = move |esp: &mut [u8]| {
            let (covered, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let (blocks, _) = Array::slice_as_chunks_mut(&mut covered[24..]);
            encrypt(&sealer, &iv, blocks);
            icv.copy_from_slice(
                &sealing
                    .clone()
                    .chain_update(covered)
                    .finalize()
                    .into_bytes()[..16],
            );
        };
        let opener = cipher();
        let open = move |esp: &mut [u8]| {
            let (covered, icv) = esp.split_last_chunk_mut::<16>().expect("has an ICV");
            let verified = hmac
                .clone()
                .chain_update(&*covered)
                .verify_truncated_left(icv);
            verified.expect("sealed just before");
            let (blocks, _) = Array::slice_as_chunks_mut(&mut covered[24..]);
            decrypt(&opener, &iv, blocks);
        };
        Self {
            seal: Box::new(seal),
            open: Box::new(open),
        }
    }
}

fn encrypt<C>(cipher: &C, iv: &Array<u8, U16>, blocks: &mut [Array<u8, U16>])
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
}

fn decrypt<C>(cipher: &C, iv: &Array<u8, U16>, blocks: &mut [Array<u8, U16>])
where
    C: BlockCipherDecrypt<BlockSize = U16>,
{
    cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
}
