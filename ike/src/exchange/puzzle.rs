//! Client puzzles, RFC 8019: under attack, a responder serves those first that have spent work on
//! their request. A puzzle is to find keys under which the PRF of a given string ends in zeros.

use crate::crypto::prf::Prf;
use crate::wire::{Notify, NotifyType, PrfId};

/// Keys in a solution, RFC 8019 section 7.1.3.
const KEYS: usize = 4;
/// Octets of each key that we find.
const KEY_LEN: usize = 4;
/// What we solve where the responder leaves it to us (difficulty 0).
const OWN_CHOICE: u8 = 12;
/// Tries for each key, as a multiple of those expected. With 16 times as many, one puzzle in
/// millions is given up.
const PATIENCE: u64 = 16;

/// What is asked of an initiator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Puzzle {
    /// The PRF.
    pub prf: PrfId,
    /// Zero bits at the end of each result; 0: as many as one likes.
    pub difficulty: u8,
}

impl Puzzle {
    /// PUZZLE, RFC 8019 section 8.1.
    pub(crate) fn notify(self) -> Notify<'static> {
        let [high, low] = self.prf.0.to_be_bytes();
        Notify::with_data(NotifyType::PUZZLE, vec![high, low, self.difficulty])
    }

    /// The puzzle of a PUZZLE notify.
    pub(crate) fn of(notify: &Notify<'_>) -> Option<Self> {
        let &[high, low, difficulty] = &*notify.data else {
            return None;
        };
        (notify.ty == NotifyType::PUZZLE).then_some(Self {
            prf: PrfId(u16::from_be_bytes([high, low])),
            difficulty,
        })
    }

    /// Zero bits to find.
    pub(crate) fn bits(self) -> u8 {
        match self.difficulty {
            0 => OWN_CHOICE,
            difficulty => difficulty,
        }
    }

    /// Looks for a solution for the string `s`; `None` if the PRF is not known, or if it takes
    /// too long. The work doubles with each bit: 2^`difficulty` computations for each key.
    pub fn solve(self, s: &[u8]) -> Option<Vec<u8>> {
        let prf = Prf::new(self.prf)?;
        let bits = u32::from(self.bits()).min(32);
        let most = (1u64 << bits).saturating_mul(PATIENCE * KEYS as u64);
        let found = (0..=u32::MAX)
            .take(usize::try_from(most).unwrap_or(usize::MAX))
            .map(u32::to_be_bytes)
            .filter(|key| zero_bits(prf, key, s) >= bits);
        let solution: Vec<u8> = found.take(KEYS).flatten().collect();
        (solution.len() == KEYS * KEY_LEN).then_some(solution)
    }

    /// Whether this is a solution for the string `s`: four keys of one length that differ, and
    /// each with enough zeros (RFC 8019 sections 7.1.4 and 8.2).
    pub(crate) fn is_solved(self, s: &[u8], solution: &[u8]) -> bool {
        let Some(prf) = Prf::new(self.prf) else {
            return false;
        };
        let len = solution.len() / KEYS;
        if len * KEYS != solution.len() || !(1..=prf.len()).contains(&len) {
            return false;
        }
        let keys: Vec<&[u8]> = solution.chunks(len).collect();
        let differ = (1..KEYS).all(|n| !keys[..n].contains(&keys[n]));
        let enough = |key: &&[u8]| zero_bits(prf, key, s) >= u32::from(self.difficulty);
        differ && keys.iter().all(enough)
    }
}

/// Zero bits at the end of `prf(key, s)`.
fn zero_bits(prf: Prf, key: &[u8], s: &[u8]) -> u32 {
    let result = prf.compute(key, &[s]);
    let mut bits = 0;
    for octet in result.expose().iter().rev() {
        bits += octet.trailing_zeros().min(8);
        if *octet != 0 {
            break;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: &[u8] = b"a cookie";

    fn puzzle(difficulty: u8) -> Puzzle {
        Puzzle {
            prf: PrfId::HMAC_SHA2_256,
            difficulty,
        }
    }

    #[test]
    fn a_solution_is_for_its_string_and_difficulty() {
        let solution = puzzle(8).solve(S).expect("256 tries for each");
        assert_eq!(solution.len(), 16);
        assert!(puzzle(8).is_solved(S, &solution));
        assert!(puzzle(1).is_solved(S, &solution));
        assert!(!puzzle(8).is_solved(b"another cookie", &solution));
        assert!(!puzzle(30).is_solved(S, &solution));
        assert!(puzzle(0).is_solved(S, &solution));
        let other = Puzzle {
            prf: PrfId::HMAC_SHA2_512,
            ..puzzle(8)
        };
        assert!(!other.is_solved(S, &solution));
        let easy = puzzle(0).solve(S).expect("of our own choice");
        assert!(puzzle(OWN_CHOICE).is_solved(S, &easy));
    }

    #[test]
    fn keys_differ_and_have_one_length() {
        let solution = puzzle(4).solve(S).expect("16 tries for each");
        let one = &solution[..4];
        assert!(
            !puzzle(4).is_solved(S, &one.repeat(4)),
            "one key four times"
        );
        for len in 0..16 {
            assert!(
                !puzzle(4).is_solved(S, &solution[..len]) || len == 16,
                "{len}"
            );
        }
        assert!(!puzzle(0).is_solved(S, &[]));
        let longest: Vec<u8> = (0..4 * 32).collect();
        assert!(puzzle(0).is_solved(S, &longest));
        let longer: Vec<u8> = (0..4 * 33).collect();
        assert!(!puzzle(0).is_solved(S, &longer));
        let mut altered = solution.clone();
        altered[15] ^= 1;
        assert!(!puzzle(4).is_solved(S, &altered) || puzzle(5).is_solved(S, &altered));
    }

    #[test]
    fn zeros_are_counted_from_the_end() {
        let prf = Prf::new(PrfId::HMAC_SHA2_256).expect("obol has it");
        for key in 0..2000u32 {
            let key = key.to_be_bytes();
            let result = prf.compute(&key, &[S]);
            let last: [u8; 16] = result.expose()[16..].try_into().expect("16 octets");
            let bits = u128::from_be_bytes(last).trailing_zeros();
            assert_eq!(zero_bits(prf, &key, S), bits);
        }
    }

    #[test]
    fn a_puzzle_is_read_as_it_was_written() {
        let puzzle = puzzle(17);
        assert_eq!(Puzzle::of(&puzzle.notify()), Some(puzzle));
        assert_eq!(*puzzle.notify().data, [0, 5, 17]);
        for data in [&[][..], &[0, 5], &[0, 5, 17, 0]] {
            let notify = Notify::with_data(NotifyType::PUZZLE, data);
            assert_eq!(Puzzle::of(&notify), None);
        }
    }
}
