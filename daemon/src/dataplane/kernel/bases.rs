//! The policies of the configuration in the kernel's terms, in force where no SA has taken their place.

use std::collections::HashMap;
use std::net::IpAddr;

use obol_ike::config::Mode;
use obol_ike::ts::TrafficSelector;

use super::selectors::pieces;
use crate::dataplane::{DataPlaneError, KernelOptions, Policy};
use crate::host::prefix::Prefix;
use crate::host::xfrm::{Direction, Key, Ports, Rule, Scope, Selector, Template};

/// Priority of what IPv6 cannot do without; no other policy of ours has it.
pub(super) const NEIGHBOURS: u32 = 111;
/// Neighbour and router discovery, RFC 4861: ICMPv6 types 133 to 137.
const NDP: std::ops::RangeInclusive<u16> = 133..=137;
const ICMPV6: u8 = 58;

/// A policy of the configuration.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) policy: Policy,
    /// In its templates. No state has it: packets have nothing to pass by, and ask.
    reqid: u32,
    rules: Vec<(Key, Rule)>,
}

/// Request IDs of what passes: each rule of a direction has one of its own.
pub(super) type Numbers<'n> = &'n mut dyn FnMut() -> Option<u32>;

impl Base {
    /// Puts a policy into the kernel's terms. Where packets pass in clear now, the template is one that
    /// they can do without: they ask for an SA all the same.
    ///
    /// # Errors
    /// It needs too many policies of the kernel.
    pub(super) fn new(policy: Policy, reqid: u32) -> Result<Self, DataPlaneError> {
        let rule = |key: Key, priority| {
            // The kernel takes no tunnel that packets could do without. No state has this request ID, so
            // that the mode makes no difference.
            let does_without = policy.clear.now && key.direction == Direction::Out;
            let mode = match does_without {
                true => Mode::Transport,
                false => policy.mode,
            };
            let template = Template {
                reqid,
                mode,
                ends: placeholder(&key, mode),
                optional: policy.clear.now,
            };
            Rule {
                priority: priority + 1,
                block: !policy.trap && !policy.clear.now,
                template: Some(template),
                pass: None,
            }
        };
        let (local, remote, options) = (&policy.local_ts, &policy.remote_ts, &policy.kernel);
        let mut rules = outwards(local, remote, options, rule)?;
        rules.extend(inwards(local, remote, policy.mode, options, rule)?);
        Ok(Self {
            policy,
            reqid,
            rules,
        })
    }

    /// Puts one whose packets pass into the kernel's terms.
    ///
    /// # Errors
    /// It needs too many policies of the kernel, or there are no numbers for them.
    pub(super) fn passing(
        policy: Policy,
        reqid: u32,
        more: Numbers<'_>,
    ) -> Result<Self, DataPlaneError> {
        let mut base = Self::new(policy, reqid)?;
        let mut numbers: HashMap<Direction, Vec<u32>> = HashMap::new();
        let mut all = vec![reqid];
        for (key, rule) in &mut base.rules {
            let own = numbers.entry(key.direction).or_default();
            if own.len() == all.len() {
                let number = more();
                all.extend(number);
                if number.is_none() {
                    let text = "there are no request IDs left";
                    return Err(DataPlaneError::Refused(text.to_owned()));
                }
            }
            let number = all[own.len()];
            own.push(number);
            *rule = Rule {
                block: false,
                template: None,
                pass: Some(number),
                ..*rule
            };
        }
        Ok(base)
    }

    /// Its policies of the kernel.
    pub(super) fn rules(&self) -> &[(Key, Rule)] {
        &self.rules
    }

    /// The request IDs in its templates.
    pub(super) fn reqids(&self) -> impl Iterator<Item = u32> {
        self.rules.iter().filter_map(|(_, rule)| {
            let template = rule.template.map(|template| template.reqid);
            template.or(rule.pass)
        })
    }
}

/// Names of a connection and of a child.
type Name = (String, String);

/// All of them.
#[derive(Clone, Default)]
pub(super) struct Bases {
    list: Vec<Base>,
    /// Where the first of a child is, by the names of its connection and its own.
    names: HashMap<String, HashMap<String, usize>>,
    /// Where the one with a request ID is.
    asking: HashMap<u32, usize>,
    /// Some would catch neighbour discovery.
    catch_neighbours: bool,
}

/// Whether a policy would catch neighbour discovery.
pub(super) fn is_caught(key: &Key) -> bool {
    key.scope == Scope::default()
        && !key.selector.source.is_v4()
        && [0, ICMPV6].contains(&key.selector.protocol)
}

impl Bases {
    pub(super) fn new(list: Vec<Base>) -> Self {
        let mut bases = Self::default();
        list.into_iter().for_each(|base| bases.push(base));
        bases
    }

    /// Adds one behind those that are there.
    pub(super) fn push(&mut self, base: Base) {
        let (place, policy) = (self.list.len(), &base.policy);
        let children = self.names.entry(policy.connection.clone()).or_default();
        children.entry(policy.child.clone()).or_insert(place);
        self.asking.insert(base.reqid, place);
        self.catch_neighbours |= base.rules.iter().any(|(key, _)| is_caught(key));
        self.list.push(base);
    }

    /// Whether some would catch neighbour discovery.
    pub(super) fn catch_neighbours(&self) -> bool {
        self.catch_neighbours
    }

    /// By the child that they are of.
    pub(super) fn by_name(self) -> HashMap<Name, Vec<Base>> {
        let mut named: HashMap<Name, Vec<Base>> = HashMap::new();
        for base in self.list {
            let policy = &base.policy;
            let name = (policy.connection.clone(), policy.child.clone());
            named.entry(name).or_default().push(base);
        }
        named
    }

    /// The options of a child; `None`: it is not configured.
    pub(super) fn options(&self, connection: &str, child: &str) -> Option<&KernelOptions> {
        Some(&self.policy(connection, child)?.kernel)
    }

    /// The policy of a child; `None`: it is not configured.
    pub(super) fn policy(&self, connection: &str, child: &str) -> Option<&Policy> {
        let place = *self.names.get(connection)?.get(child)?;
        Some(&self.list.get(place)?.policy)
    }

    /// The one that has this request ID.
    pub(super) fn asked_by(&self, reqid: u32) -> Option<&Policy> {
        let place = *self.asking.get(&reqid)?;
        Some(&self.list.get(place)?.policy)
    }

    /// Gives outbound rules another request ID: those, and whether the old one is still in use.
    pub(super) fn rename(&mut self, reqid: u32, new: u32) -> (Vec<(Key, Rule)>, bool) {
        let place = self.asking.remove(&reqid);
        let Some((place, base)) = place.and_then(|place| Some((place, self.list.get_mut(place)?)))
        else {
            return (Vec::new(), false);
        };
        self.asking.insert(new, place);
        base.reqid = new;
        let mut changed = Vec::new();
        for (key, rule) in &mut base.rules {
            let outbound = key.direction == Direction::Out;
            if let Some(template) = rule.template.as_mut().filter(|_| outbound) {
                template.reqid = new;
                changed.push((*key, *rule));
            }
        }
        let in_use = base.reqids().any(|own| own == reqid);
        (changed, in_use)
    }

    /// All request IDs.
    pub(super) fn reqids(&self) -> impl Iterator<Item = u32> {
        self.list.iter().flat_map(Base::reqids)
    }

    /// All rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &(Key, Rule)> {
        self.list.iter().flat_map(|base| &base.rules)
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Base] {
        &self.list
    }

    /// Rules that let neighbour discovery pass, where a policy would catch it: it does not leave
    /// the link.
    pub(super) fn neighbours(&self) -> Vec<(Key, Rule)> {
        if !self.catch_neighbours {
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
            pass: None,
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
                scope: Scope::default(),
            })
        });
        keys.map(|key| (key, rule)).collect()
    }
}

/// The rules for packets that leave.
pub(super) fn outwards(
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    options: &KernelOptions,
    rule: impl Fn(Key, u32) -> Rule,
) -> Result<Vec<(Key, Rule)>, DataPlaneError> {
    let pieces = pieces(local, remote)?.into_iter();
    let keyed = pieces.map(|piece| {
        let key = Key {
            direction: Direction::Out,
            selector: piece.selector,
            scope: options.scope(Direction::Out),
        };
        (key, rule(key, piece.priority))
    });
    Ok(keyed.collect())
}

/// The rules for packets that come in, for this host and, in tunnel mode, for others.
pub(super) fn inwards(
    local: &[TrafficSelector],
    remote: &[TrafficSelector],
    mode: Mode,
    options: &KernelOptions,
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
                scope: options.scope(*direction),
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
