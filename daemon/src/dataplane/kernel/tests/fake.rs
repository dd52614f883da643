//! A kernel that keeps states and policies as the real one does, by the octets of the messages.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;

use zeroize::Zeroizing;

use crate::host::xfrm::{
    Device, Key, Message, Policy, Refusal, Rule, State, StateId, Xfrm, find_attribute,
};

/// Clones are the same kernel.
#[derive(Clone, Default)]
pub(super) struct Fake(Rc<Inner>);

#[derive(Default)]
struct Inner {
    states: RefCell<BTreeMap<StateId, Vec<u8>>>,
    policies: RefCell<BTreeMap<Key, Rule>>,
    /// States that are gone, as they were at last.
    removed: RefCell<Vec<Vec<u8>>>,
    requests: Cell<usize>,
    device: Cell<Taken>,
    lists: Cell<usize>,
    refuses: Cell<Option<(usize, i32)>>,
}

/// What the one device does with states.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Taken {
    /// It takes them.
    #[default]
    Yes,
    /// It says no.
    No,
    /// It can do nothing of the kind, and says nothing.
    Silent,
}

/// Everything in it.
pub(super) type Contents = (BTreeMap<StateId, Vec<u8>>, BTreeMap<Key, Rule>);

impl Fake {
    /// Refuses this request, counted from 1, with this number.
    pub(super) fn refuse(&self, request: usize, number: i32) {
        self.0.refuses.set(Some((request, number)));
    }

    /// Has the device do this with states.
    pub(super) fn device_takes(&self, taken: Taken) {
        self.0.device.set(taken);
    }

    /// Requests until now.
    pub(super) fn requests(&self) -> usize {
        self.0.requests.get()
    }

    /// Times that all states were asked for.
    pub(super) fn lists(&self) -> usize {
        self.0.lists.get()
    }

    pub(super) fn contents(&self) -> Contents {
        (self.0.states.borrow().clone(), self.policies())
    }

    pub(super) fn policies(&self) -> BTreeMap<Key, Rule> {
        self.0.policies.borrow().clone()
    }

    pub(super) fn states(&self) -> Vec<State> {
        let states = self.0.states.borrow();
        states
            .values()
            .map(|body| State::read(body).unwrap())
            .collect()
    }

    pub(super) fn flush_policies(&self) {
        self.0.policies.borrow_mut().clear();
    }

    pub(super) fn flush_states(&self) {
        self.0.states.borrow_mut().clear();
    }

    /// The soft limit of a state.
    pub(super) fn soft_packets(&self, id: StateId) -> u64 {
        let states = self.0.states.borrow();
        u64::from_ne_bytes(states[&id][112..120].try_into().unwrap())
    }

    /// The hard limits of the states that are gone.
    pub(super) fn limits_of_removed(&self) -> Vec<u64> {
        let removed = self.0.removed.borrow();
        removed.iter().map(|body| hard_packets(body)).collect()
    }

    /// The hard limit of a state, and the last sequence number that it has used.
    pub(super) fn limit_and_number(&self, id: StateId) -> (u64, u32) {
        let states = self.0.states.borrow();
        let body = &states[&id];
        let number = number_of(body);
        (
            hard_packets(body),
            u32::from_ne_bytes(body[number].try_into().unwrap()),
        )
    }

    /// A state has carried so many packets, with as many sequence numbers.
    pub(super) fn carry(&self, id: StateId, packets: u64) {
        let mut states = self.0.states.borrow_mut();
        let body = states.get_mut(&id).expect("a state that was added");
        body[168..176].copy_from_slice(&packets.to_ne_bytes());
        let number = number_of(body);
        body[number].copy_from_slice(&(packets as u32).to_ne_bytes());
    }

    fn count(&self) -> Result<(), i32> {
        let request = self.requests() + 1;
        self.0.requests.set(request);
        match self.0.refuses.get() {
            Some((at, number)) if at == request => Err(number),
            _ => Ok(()),
        }
    }

    fn obey(&self, kind: u16, body: &[u8]) -> Result<(), i32> {
        self.count()?;
        let mut states = self.0.states.borrow_mut();
        let mut policies = self.0.policies.borrow_mut();
        match kind {
            0x10 | 0x1a => {
                let id = State::read(body).ok_or(libc::EINVAL)?.id;
                match (kind, states.contains_key(&id)) {
                    (0x10, true) => return Err(libc::EEXIST),
                    (0x1a, false) => return Err(libc::ESRCH),
                    _ => {}
                }
                let mut body = body.to_vec();
                if find_attribute(&body[224..], OFFLOAD).is_some() {
                    match self.0.device.get() {
                        Taken::Yes => {}
                        Taken::No => return Err(libc::EINVAL),
                        Taken::Silent => forget_device(&mut body),
                    }
                }
                let told = |kind| find_attribute(&body[224..], kind).is_some();
                if !told(WINDOW) && !told(NUMBERS) {
                    // Then it counts all the same, and tells it otherwise.
                    body.extend([16_u16, NUMBERS].map(u16::to_ne_bytes).concat());
                    body.extend([0; 12]);
                }
                if let Some(before) = states.get(&id) {
                    // It counts on.
                    body[160..192].copy_from_slice(&before[160..192]);
                }
                states.insert(id, body);
            }
            0x11 => {
                let id = StateId::read(body).ok_or(libc::EINVAL)?;
                let gone = states.remove(&id).ok_or(libc::ESRCH)?;
                self.0.removed.borrow_mut().push(gone);
            }
            0x13 | 0x19 => {
                let policy = Policy::read(body).ok_or(libc::EINVAL)?;
                if kind == 0x13 && policies.contains_key(&policy.key) {
                    return Err(libc::EEXIST);
                }
                policies.insert(policy.key, policy.rule);
            }
            0x14 => {
                let key = Key::read(body).ok_or(libc::EINVAL)?;
                policies.remove(&key).ok_or(libc::ENOENT)?;
            }
            _ => return Err(libc::EINVAL),
        }
        Ok(())
    }
}

const NUMBERS: u16 = 10;
const WINDOW: u16 = 23;
const OFFLOAD: u16 = 28;

/// Where a state has the last sequence number that it has used.
fn number_of(body: &[u8]) -> Range<usize> {
    let list = &body[224..];
    let (value, at) = match find_attribute(list, WINDOW) {
        Some(window) => (window, 4),
        None => (find_attribute(list, NUMBERS).expect("it counts"), 0),
    };
    let at = at + value.as_ptr().addr() - body.as_ptr().addr();
    at..at + 4
}

/// Without a device's number, there is none.
fn forget_device(body: &mut [u8]) {
    let header = [12_u16, OFFLOAD].map(u16::to_ne_bytes).concat();
    let at = body.windows(4).rposition(|octets| octets == header);
    let at = at.expect("it is there") + 4;
    body[at..at + 4].fill(0);
}

fn hard_packets(body: &[u8]) -> u64 {
    u64::from_ne_bytes(body[120..128].try_into().unwrap())
}

fn refusal(number: i32) -> Refusal {
    io::Error::from_raw_os_error(number).into()
}

impl Xfrm for Fake {
    fn carry_out(&self, message: Message) -> Result<(), Refusal> {
        let (kind, body) = message.parts();
        self.obey(kind, body).map_err(refusal)
    }

    fn state(&self, id: StateId) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.count().map_err(refusal)?;
        let states = self.0.states.borrow();
        let body = states.get(&id).ok_or_else(|| refusal(libc::ESRCH))?;
        Ok(Zeroizing::new(body.clone()))
    }

    fn states(&self) -> Result<Vec<State>, Refusal> {
        self.0.lists.set(self.lists() + 1);
        Ok(Fake::states(self))
    }

    fn device(&self, _: IpAddr, _: IpAddr, _: u32) -> Result<Device, Refusal> {
        let name = "eth7".to_owned();
        Ok(Device { index: 7, name })
    }

    fn policies(&self) -> Result<Vec<Policy>, Refusal> {
        let policies = self.0.policies.borrow();
        Ok(policies
            .iter()
            .map(|(key, rule)| Policy {
                key: *key,
                rule: *rule,
            })
            .collect())
    }
}
