//! What an SA costs where there are many: requests to the kernel, and our own processor time.

use super::*;
use rustix::time::{ClockId, clock_gettime};

/// Sums over a tenth of the SAs.
#[derive(Default)]
struct Cost {
    requests: usize,
    time: Duration,
}

impl Cost {
    fn of(kernel: &Fake, what: impl FnOnce()) -> Self {
        let (requests, time) = (kernel.requests(), spent());
        what();
        Self {
            requests: kernel.requests() - requests,
            time: spent() - time,
        }
    }

    fn per(&self, count: usize) -> String {
        let each = self.time / u32::try_from(count).unwrap();
        format!("{} | {each:.1?}", self.requests as f64 / count as f64)
    }
}

/// Processor time of this thread so far.
fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn child(n: usize) -> Policy {
    let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
    policy(&format!("c{n}"), "10.0.0.1", &format!("11.{a}.{b}.{c}"))
}

#[test]
#[ignore = "a measurement: benches/xfrm prints it"]
fn ten_thousand_sas() {
    const ALL: usize = 10_000;
    const TENTH: usize = ALL / 10;
    let kernel = Fake::default();
    let now = Instant::now();
    let policies: Vec<Policy> = (0..ALL).map(child).collect();
    let mut core = core(&kernel);
    println!("\n| what | requests for each | processor time for each |\n|---|---|---|");
    let set = Cost::of(&kernel, || {
        core.set_policies(policies.clone(), now).unwrap()
    });
    println!("| {ALL} policies set | {} |", set.per(ALL));
    let again = Cost::of(&kernel, || {
        core.set_policies(policies.clone(), now).unwrap()
    });
    println!("| the same set again | {} |", again.per(ALL));
    for (tenth, some) in policies.chunks(TENTH).enumerate() {
        let cost = Cost::of(&kernel, || {
            for (n, policy) in some.iter().enumerate() {
                up(&mut core, &info((tenth * TENTH + n) as u64, policy), now);
            }
        });
        if tenth % 3 == 0 {
            let there = tenth * TENTH;
            println!("| SAs added to {there} | {} |", cost.per(TENTH));
        }
    }
    let used = Cost::of(&kernel, || {
        for n in 0..ALL {
            core.usage(ChildSaId(n as u64)).unwrap();
        }
    });
    println!("| use asked for | {} |", used.per(ALL));
    for tenth in 0..10 {
        let cost = Cost::of(&kernel, || {
            for n in tenth * TENTH..(tenth + 1) * TENTH {
                core.remove(ChildSaId(n as u64), now).unwrap();
            }
        });
        if tenth % 3 == 0 {
            let there = ALL - tenth * TENTH;
            println!("| SAs removed of {there} | {} |", cost.per(TENTH));
        }
    }
    assert!(kernel.states().is_empty());
    let none = Cost::of(&kernel, || core.set_policies(Vec::new(), now).unwrap());
    println!("| {ALL} policies removed | {} |", none.per(ALL));
    assert!(kernel.policies().is_empty());
}
