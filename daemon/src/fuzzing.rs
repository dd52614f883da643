//! Doors through which files of other daemons come in, for fuzzing: any octets, and nothing may panic.

use crate::{pluto, racoon};

/// A door by its name: what a fuzz target and its corpus are called.
pub type Door = (&'static str, fn(&[u8]));

/// All of them.
pub const DOORS: [Door; 6] = [
    ("ipsec_conf", |octets| text(octets, pluto::fuzz::conf)),
    ("ipsec_secrets", |octets| text(octets, pluto::fuzz::secrets)),
    ("nss_attribute", pluto::fuzz::nss),
    ("racoon_conf", |octets| text(octets, racoon::fuzz::conf)),
    ("setkey", |octets| text(octets, racoon::fuzz::setkey)),
    ("psk_txt", racoon::fuzz::psk),
];

fn text(octets: &[u8], door: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(octets) {
        door(text);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    /// Numbers that are the same in every run (xorshift64).
    struct Draw(u64);

    impl Draw {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// One from 0 to `n` - 1, or 0.
        fn below(&mut self, n: usize) -> usize {
            (self.next() >> 16) as usize % n.max(1)
        }
    }

    fn corpus(door: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let files = std::fs::read_dir(directory.join(door)).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }

    #[test]
    fn the_corpora_are_survived() {
        for (name, door) in DOORS {
            let seeds = corpus(name);
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| door(seed));
        }
    }

    /// Cut, doubled, exchanged and overwritten, which is what people and crashes do to files. With
    /// `OBOL_FUZZ_SECONDS` for so long at each door.
    #[test]
    fn damaged_files_are_survived() {
        let seconds = std::env::var("OBOL_FUZZ_SECONDS").ok();
        let seconds = seconds.and_then(|text| text.parse().ok());
        for (name, door) in DOORS {
            let seeds = corpus(name);
            let mut draw = Draw(6);
            let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            let mut tried = 0_u64;
            loop {
                let enough = match until {
                    None => tried >= 200,
                    Some(until) => Instant::now() >= until,
                };
                if enough {
                    break;
                }
                let damaged = damaged(&seeds, &mut draw);
                let shown = String::from_utf8_lossy(&damaged).into_owned();
                let survived = std::panic::catch_unwind(|| door(&damaged));
                assert!(survived.is_ok(), "{name} falls over:\n{shown}");
                tried += 1;
            }
            if seconds.is_some() {
                println!("{name}: {tried} inputs");
            }
        }
    }

    fn damaged(seeds: &[Vec<u8>], draw: &mut Draw) -> Vec<u8> {
        let mut octets = seeds[draw.below(seeds.len())].clone();
        for _ in 0..1 + draw.below(6) {
            let at = draw.below(octets.len());
            let length = draw.below(24).min(octets.len() - at);
            match draw.below(7) {
                0 => octets.truncate(at),
                1 => drop(octets.drain(at..at + length)),
                2 => {
                    let part = octets[at..at + length].to_vec();
                    let to = draw.below(octets.len());
                    octets.splice(to..to, part);
                }
                3 => {
                    let other = &seeds[draw.below(seeds.len())];
                    let from = draw.below(other.len());
                    let part = other[from..(from + length).min(other.len())].to_vec();
                    octets.splice(at..at, part);
                }
                4 => {
                    let signs = b"{}[]()\"'#=:;,/*%@!-\n\t 0129azAZ.\0\xff\xc3\xa9";
                    let sign = signs[draw.below(signs.len())];
                    octets.insert(at, sign);
                }
                5 if at < octets.len() => octets[at] ^= 1 << draw.below(8),
                _ => {
                    let number: u64 = draw.next() >> draw.below(64);
                    octets.splice(at..at, number.to_string().into_bytes());
                }
            }
        }
        octets
    }
}
