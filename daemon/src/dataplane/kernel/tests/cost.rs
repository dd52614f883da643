//! What an SA costs where there are many: requests to the kernel, and processor time.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::host::xfrm::{Device, Message, Refusal, State};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

/// A kernel, real or not, and how often it was asked.
#[derive(Clone)]
struct Counted<X> {
    kernel: X,
    requests: Rc<Cell<usize>>,
}

impl<X> Counted<X> {
    fn new(kernel: X) -> Self {
        Self {
            kernel,
            requests: Rc::default(),
        }
    }

    fn asked(&self) -> &X {
        self.requests.set(self.requests.get() + 1);
        &self.kernel
    }
}

impl<X: Xfrm> Xfrm for Counted<X> {
    fn carry_out(&self, message: Message) -> Result<(), Refusal> {
        self.asked().carry_out(message)
    }

    fn state(&self, id: StateId) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.asked().state(id)
    }

    fn states(&self) -> Result<Vec<State>, Refusal> {
        self.asked().states()
    }

    fn policies(&self) -> Result<Vec<xfrm::Policy>, Refusal> {
        self.asked().policies()
    }

    fn device(&self, source: IpAddr, destination: IpAddr, mark: u32) -> Result<Device, Refusal> {
        self.asked().device(source, destination, mark)
    }
}

/// Sums over some of the SAs.
struct Cost {
    requests: usize,
    time: Duration,
}

impl Cost {
    fn of(requests: &Cell<usize>, what: impl FnOnce()) -> Self {
        let (before, time) = (requests.get(), spent());
        what();
        Self {
            requests: requests.get() - before,
            time: spent() - time,
        }
    }

    fn per(&self, count: usize) -> String {
        let each = self.time / u32::try_from(count).unwrap();
        format!("{:.1} | {each:.1?}", self.requests as f64 / count as f64)
    }
}

/// Processor time of this thread so far, that of the kernel for it included.
fn spent() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn child(n: usize) -> Policy {
    let [_, a, b, c] = u32::try_from(n).unwrap().to_be_bytes();
    policy(&format!("c{n}"), "10.0.0.1", &format!("11.{a}.{b}.{c}"))
}

#[test]
#[ignore = "a measurement: benches/xfrm prints it"]
fn ten_thousand_sas_and_a_counter() {
    let kernel = Fake::default();
    ten_thousand_sas(kernel.clone());
    assert!(kernel.states().is_empty());
    assert!(kernel.policies().is_empty());
}

#[test]
#[ignore = "a measurement in this kernel: benches/xfrm --vm prints it"]
fn ten_thousand_sas_in_this_kernel() {
    ten_thousand_sas(Socket::open().unwrap());
    let kernel = Socket::open().unwrap();
    assert_eq!(kernel.states().unwrap().len(), 0);
    assert_eq!(kernel.policies().unwrap().len(), 0);
}

fn ten_thousand_sas(kernel: impl Xfrm) {
    const ALL: usize = 10_000;
    const TENTH: usize = ALL / 10;
    let now = Instant::now();
    let policies: Vec<Policy> = (0..ALL).map(child).collect();
    let kernel = Counted::new(kernel);
    let asked = Rc::clone(&kernel.requests);
    let mut core = Core::new(kernel, HostSettings::for_tests()).unwrap();
    println!("\n| what | requests for each | processor time for each |\n|---|---|---|");
    let set = Cost::of(&asked, || core.set_policies(policies.clone(), now).unwrap());
    println!("| {ALL} policies set | {} |", set.per(ALL));
    let again = Cost::of(&asked, || core.set_policies(policies.clone(), now).unwrap());
    println!("| the same set again | {} |", again.per(ALL));
    for (tenth, some) in policies.chunks(TENTH).enumerate() {
        let cost = Cost::of(&asked, || {
            for (n, policy) in some.iter().enumerate() {
                up(&mut core, &info((tenth * TENTH + n) as u64, policy), now);
            }
        });
        if tenth % 3 == 0 {
            let there = tenth * TENTH;
            println!("| SAs added to {there} | {} |", cost.per(TENTH));
        }
    }
    let used = Cost::of(&asked, || {
        for n in 0..ALL {
            core.usage(ChildSaId(n as u64)).unwrap();
        }
    });
    println!("| use asked for | {} |", used.per(ALL));
    for tenth in 0..10 {
        let cost = Cost::of(&asked, || {
            for n in tenth * TENTH..(tenth + 1) * TENTH {
                core.remove(ChildSaId(n as u64), now).unwrap();
            }
        });
        if tenth % 3 == 0 {
            let there = ALL - tenth * TENTH;
            println!("| SAs removed of {there} | {} |", cost.per(TENTH));
        }
    }
    let none = Cost::of(&asked, || core.set_policies(Vec::new(), now).unwrap());
    println!("| {ALL} policies removed | {} |", none.per(ALL));
}
