//! Altered, cut and repeated messages in a whole life. The example `flips` lives one life for
//! each bit; here, protected messages are altered one after the other, and of those in clear
//! some bits get a life.

use obol_ike::testing::flips::{Suite, Tamper, When, flip, messages, probe};

/// A bit of every so many; no multiple of eight, so that it is another one in each octet.
const STRIDE: usize = 61;

fn unaltered_only(suite: Suite) {
    let tally = probe(suite).unwrap_or_else(|what| panic!("{suite}: {what}"));
    assert!(tally.messages >= 22, "{tally:?}");
    assert!(tally.flipped > 20_000 && tally.again > 200, "{tally:?}");
}

#[test]
fn nothing_altered_cut_or_repeated_has_an_effect_with_a_secret() {
    unaltered_only(Suite::ALL[0]);
}

#[test]
fn nothing_altered_cut_or_repeated_has_an_effect_with_a_secret_and_cbc() {
    unaltered_only(Suite::ALL[1]);
}

#[test]
fn nothing_altered_cut_or_repeated_has_an_effect_with_keys() {
    unaltered_only(Suite::ALL[2]);
}

#[test]
fn nothing_altered_cut_or_repeated_has_an_effect_with_keys_and_cbc() {
    unaltered_only(Suite::ALL[3]);
}

//= test security S-40
#[test]
fn an_altered_message_in_clear_ends_in_agreement_all_the_same() {
    let mut lives = 0;
    for suite in Suite::ALL {
        let lens = messages(suite).expect("a life");
        for (message, (clear, len)) in lens.into_iter().enumerate() {
            // Of the others, one bit each.
            let stride = if clear { STRIDE } else { len * 8 };
            for bit in (message % 8..len * 8).step_by(stride) {
                for when in When::ALL {
                    let tamper = Tamper { message, bit, when };
                    let result = flip(suite, tamper);
                    assert!(result.is_ok(), "{suite}: {tamper:?}: {result:?}");
                    lives += 1;
                }
            }
        }
    }
    assert!(lives > 500, "{lives}");
}
