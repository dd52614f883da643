//! Everything that the data plane decides, apart from sockets and clocks: what the kernel is told,
//! and what its notices mean.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use obol_ike::config::Mode;
use obol_ike::event::ChildSaId;

use super::foreign::Foreign;
use super::leftovers::Leftovers;
use super::reqids::Reqids;
use super::sas::Sa;
use super::selectors::pieces;
use super::spd::Spd;
use crate::dataplane::flow::Flows;
use crate::dataplane::{DataPlaneError, DataPlaneEvent, Policy};
use crate::host::HostSettings;
use crate::host::prefix::Prefix;
use crate::host::xfrm::{Direction, Key, Ports, Refusal, Rule, Selector, StateId, Template, Xfrm};

/// Time until a packet without SA asks for one again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Priority of what IPv6 cannot do without; no other policy of ours has it.
pub(super) const NEIGHBOURS: u32 = 111;
/// Neighbour and router discovery, RFC 4861: ICMPv6 types 133 to 137.
const NDP: std::ops::RangeInclusive<u16> = 133..=137;
const ICMPV6: u8 = 58;

/// The data plane without its sockets.
pub(super) struct Core<K> {
    pub(super) kernel: K,
    pub(super) settings: HostSettings,
    pub(super) reqids: Reqids,
    pub(super) spd: Spd,
    bases: Vec<Base>,
    /// The policies that ask again after a while.
    pub(super) asked: Vec<(Instant, u32)>,
    pub(super) flows: Flows<ChildSaId>,
    pub(super) sas: HashMap<ChildSaId, Sa>,
    /// Whose each state is.
    pub(super) states: HashMap<StateId, ChildSaId>,
    /// Inbound states that were replaced, until when they are kept.
    pub(super) waning: VecDeque<(Instant, StateId)>,
    pub(super) leftovers: Leftovers,
    /// Policies of others that were told.
    pub(super) foreign: BTreeSet<Foreign>,
    /// When to compare the kernel with what it should be.
    pub(super) compare_at: Option<Instant>,
    pub(super) events: VecDeque<DataPlaneEvent>,
}

/// A policy of the configuration, in the kernel's terms.
#[derive(Clone)]
struct Base {
    policy: Policy,
    /// In its templates. No state has it: packets have nothing to pass by, and ask.
    reqid: u32,
    rules: Vec<(Key, Rule)>,
}

impl<K: Xfrm> Core<K> {
    /// Takes over what an earlier run left.
    ///
    /// # Errors
    /// The kernel does not tell it.
    pub(super) fn new(kernel: K, settings: HostSettings) -> Result<Self, DataPlaneError> {
        let mut core = Self {
            reqids: Reqids::new(&settings),
            kernel,
            settings,
            spd: Spd::default(),
            bases: Vec::new(),
            asked: Vec::new(),
            flows: Flows::default(),
            sas: HashMap::new(),
            states: HashMap::new(),
            waning: VecDeque::new(),
            leftovers: Leftovers::default(),
            foreign: BTreeSet::new(),
            compare_at: None,
            events: VecDeque::new(),
        };
        core.adopt()?;
        Ok(core)
    }

    /// Replaces the set of policies.
    ///
    /// # Errors
    /// The kernel refuses one: then all is as before.
    pub(super) fn set_policies(
        &mut self,
        policies: Vec<Policy>,
        now: Instant,
    ) -> Result<(), DataPlaneError> {
        let before = self.bases.clone();
        let mut old: HashMap<_, Vec<Base>> = HashMap::new();
        for base in std::mem::take(&mut self.bases) {
            let policy = &base.policy;
            let name = (policy.connection.clone(), policy.child.clone());
            old.entry(name).or_default().push(base);
        }
        let mut refused = None;
        for policy in policies {
            let name = (policy.connection.clone(), policy.child.clone());
            let same = old.get_mut(&name).and_then(|namesakes| {
                let same = namesakes.iter().position(|base| base.policy == policy)?;
                Some(namesakes.swap_remove(same))
            });
            let base = match same {
                Some(same) => Ok(same),
                None => self.base(policy),
            };
            match base {
                Ok(base) => self.bases.push(base),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if refused.is_none() {
            let forgotten = self.sort_leftovers(now);
            refused = self.sync_base(forgotten).err();
        }
        let Some(error) = refused else {
            let rules = old.values().flatten().flat_map(|gone| &gone.rules);
            for template in rules.filter_map(|(_, rule)| rule.template) {
                self.reqids.free(template.reqid);
            }
            self.look_for_foreign();
            return Ok(());
        };
        self.bases = before;
        if let Err(again) = self.sync_base(BTreeSet::new()) {
            tracing::error!(error = %again, "policies are not as they were");
        }
        Err(error)
    }

    fn sync_base(&mut self, mut keys: BTreeSet<Key>) -> Result<(), DataPlaneError> {
        let mut rules = self.neighbours();
        rules.extend(
            self.bases
                .iter()
                .flat_map(|base| base.rules.iter().copied()),
        );
        keys.extend(self.spd.set_base(&rules));
        self.sync(&keys)
    }

    /// Makes the kernel have these policies as they should be.
    pub(super) fn sync(&mut self, keys: &BTreeSet<Key>) -> Result<(), DataPlaneError> {
        let done = self.spd.sync(&self.kernel, keys);
        done.map_err(|(key, refusal)| policy_refused(&key, &refusal))
    }

    fn base(&mut self, policy: Policy) -> Result<Base, DataPlaneError> {
        let reqid = self.reqids.take().ok_or_else(no_reqid)?;
        let rules = both_ways(
            &policy.local_ts,
            &policy.remote_ts,
            policy.mode,
            |key, at| {
                let template = Template {
                    reqid,
                    mode: policy.mode,
                    ends: placeholder(&key, policy.mode),
                };
                Rule {
                    priority: at + 1,
                    block: !policy.trap,
                    template: Some(template),
                }
            },
        )
        .inspect_err(|_| self.reqids.free(reqid))?;
        Ok(Base {
            policy,
            reqid,
            rules,
        })
    }

    /// The child whose policy has this request ID.
    pub(super) fn asked_by(&self, reqid: u32) -> Option<(String, String)> {
        let base = self.bases.iter().find(|base| base.reqid == reqid)?;
        Some((base.policy.connection.clone(), base.policy.child.clone()))
    }

    /// Lets the next packet without SA ask again: the kernel asks once for each request ID and
    /// pair of hosts, so the policy gets another one.
    pub(super) fn ask_again(&mut self, reqid: u32) -> Result<(), DataPlaneError> {
        let Some(base) = self.bases.iter_mut().find(|base| base.reqid == reqid) else {
            return Ok(());
        };
        let Some(new) = self.reqids.take() else {
            return Err(no_reqid());
        };
        base.reqid = new;
        let mut keys = BTreeSet::new();
        for (key, rule) in &mut base.rules {
            let outbound = key.direction == Direction::Out;
            let Some(template) = rule.template.as_mut().filter(|_| outbound) else {
                continue;
            };
            template.reqid = new;
            if let Some(wanted) = self.spd.base_mut(key) {
                *wanted = *rule;
            }
            keys.insert(*key);
        }
        let inbound = base.rules.iter().any(|(_, rule)| {
            let template = rule.template.as_ref();
            template.is_some_and(|template| template.reqid == reqid)
        });
        if !inbound {
            self.reqids.free(reqid);
        }
        self.sync(&keys)
    }

    /// The policies of the configuration in the kernel's terms, with the name of the child.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&str, &Key, &Rule)> {
        self.bases.iter().flat_map(|base| {
            let child = base.policy.child.as_str();
            base.rules.iter().map(move |(key, rule)| (child, key, rule))
        })
    }

    /// Whether any policy of the configuration is about packets of this policy.
    pub(super) fn covers(&self, key: &Key) -> bool {
        let rules = self.bases.iter().flat_map(|base| &base.rules);
        let mut same = rules.filter(|(base, _)| base.direction == key.direction);
        same.any(|(base, _)| base.selector.contains(&key.selector))
    }

    /// Rules that let neighbour discovery pass, where a policy would catch it: it does not leave
    /// the link.
    fn neighbours(&self) -> Vec<(Key, Rule)> {
        let caught = |key: &Key| {
            !key.selector.source.is_v4() && [0, ICMPV6].contains(&key.selector.protocol)
        };
        let mut rules = self.bases.iter().flat_map(|base| &base.rules);
        if !rules.any(|(key, _)| caught(key)) {
            return Vec::new();
        }
        let all = Prefix {
            address: IpAddr::from([0_u16; 8]),
            len: 0,
        };
        let rule = Rule {
            priority: NEIGHBOURS,
            block: false,
            template: None,
        };
        let directions = [Direction::In, Direction::Out].into_iter();
        let keys = directions.flat_map(|direction| {
            NDP.map(move |kind| Key {
                direction,
                selector: Selector {
                    source: all,
                    destination: all,
                    protocol: ICMPV6,
                    source_port: Ports::one(kind),
                    destination_port: Ports::default(),
                },
            })
        });
        keys.map(|key| (key, rule)).collect()
    }
}

/// The rules for packets in all directions, each from its key and priority.
pub(super) fn both_ways(
    local: &[obol_ike::ts::TrafficSelector],
    remote: &[obol_ike::ts::TrafficSelector],
    mode: Mode,
    rule: impl Fn(Key, u32) -> Rule,
) -> Result<Vec<(Key, Rule)>, DataPlaneError> {
    let mut rules = outwards(local, remote, &rule)?;
    rules.extend(inwards(local, remote, mode, &rule)?);
    Ok(rules)
}

/// The rules for packets that leave.
pub(super) fn outwards(
    local: &[obol_ike::ts::TrafficSelector],
    remote: &[obol_ike::ts::TrafficSelector],
    rule: impl Fn(Key, u32) -> Rule,
) -> Result<Vec<(Key, Rule)>, DataPlaneError> {
    let pieces = pieces(local, remote)?.into_iter();
    let keyed = pieces.map(|piece| {
        let key = Key {
            direction: Direction::Out,
            selector: piece.selector,
        };
        (key, rule(key, piece.priority))
    });
    Ok(keyed.collect())
}

/// The rules for packets that come in, for this host and, in tunnel mode, for others.
pub(super) fn inwards(
    local: &[obol_ike::ts::TrafficSelector],
    remote: &[obol_ike::ts::TrafficSelector],
    mode: Mode,
    rule: impl Fn(Key, u32) -> Rule,
) -> Result<Vec<(Key, Rule)>, DataPlaneError> {
    let directions: &[Direction] = match mode {
        Mode::Tunnel => &[Direction::In, Direction::Forward],
        Mode::Transport => &[Direction::In],
    };
    let mut rules = Vec::new();
    for piece in pieces(remote, local)? {
        rules.extend(directions.iter().map(|direction| {
            let key = Key {
                direction: *direction,
                selector: piece.selector,
            };
            (key, rule(key, piece.priority))
        }));
    }
    Ok(rules)
}

/// Ends of a tunnel that is not there. Some have to be named, else the system looks for a way to
/// them before it asks for an SA.
fn placeholder(key: &Key, mode: Mode) -> Option<(IpAddr, IpAddr)> {
    let outbound = key.direction == Direction::Out && mode == Mode::Tunnel;
    let nobody = match key.selector.source.is_v4() {
        true => IpAddr::from([127, 0, 0, 1]),
        false => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    outbound.then_some((nobody, nobody))
}

/// The packets of a policy, in words.
pub(super) fn packets(key: &Key) -> String {
    let Selector {
        source,
        destination,
        protocol,
        ..
    } = key.selector;
    format!(
        "from {}/{} to {}/{} (IP protocol {protocol})",
        source.address, source.len, destination.address, destination.len
    )
}

fn policy_refused(key: &Key, refusal: &Refusal) -> DataPlaneError {
    let packets = packets(key);
    if refusal.is(libc::EEXIST) {
        return DataPlaneError::Refused(format!(
            "another program has an IPsec policy for packets {packets}: `ip xfrm policy` shows it; remove it, or leave these packets to that program"
        ));
    }
    DataPlaneError::Refused(format!(
        "the kernel refuses a policy for packets {packets}: {refusal}"
    ))
}

/// More SAs and policies than there are request IDs.
pub(super) fn no_reqid() -> DataPlaneError {
    DataPlaneError::Refused("more than 65535 policies and SAs".to_owned())
}
