//! What further policies add to a plan, without a look at those that it was made of: thousands of them cost
//! no more than few.

use std::collections::HashSet;
use std::net::IpAddr;

use super::{
    MERGED_FROM, Plan, RULES_MAX, condition, cover, lookup_rules, merge, pairs, protected_hosts,
    reverse_path, source_in, tun_route,
};
use crate::dataplane::Policy;
use crate::host::HostSettings;
use crate::host::prefix::Prefix;
use crate::host::rule::{Action, Rule};

impl Plan {
    /// What these policies add, of which none passes anything in clear, where that holds for those that the
    /// plan was made of too. `None`: perhaps what is there does not stay as it is.
    pub(crate) fn more(
        &self,
        settings: &HostSettings,
        policies: &[Policy],
        own: &[IpAddr],
        path_mtu: u32,
    ) -> Option<Self> {
        let mut more = Self::default();
        let mut lookups: HashSet<Rule> = HashSet::new();
        let mut rules = Vec::new();
        let way = (settings.rule_priority + 1, Action::Lookup(settings.table));
        for policy in policies {
            for (local, remote) in pairs(&policy.local_ts, &policy.remote_ts) {
                for rule in lookup_rules(way, &local, &remote, own) {
                    if lookups.insert(rule.clone()) {
                        rules.push(rule);
                    }
                }
                for destination in cover(remote.start, remote.end) {
                    let source = source_in(&local, own);
                    let what = tun_route(policy.mode, source, path_mtu, destination);
                    let known = self.routes.get(&destination).copied();
                    let route = more.routes.entry(destination);
                    merge(route.or_insert(known.unwrap_or(what)), what);
                    more.blackholes.insert(destination);
                }
            }
        }
        let known = self.lookups();
        let merged: HashSet<&Rule> = known
            .iter()
            .filter(|rule| rule.destination.is_none())
            .copied()
            .collect();
        let new_destinations = more.routes.keys();
        let new_destinations = new_destinations.filter(|to| !self.routes.contains_key(*to));
        for destination in new_destinations {
            // A rule without destination has the table lead where these policies do not.
            let leads = |rule: &&Rule| lookups.contains(&rule.to(condition(*destination)));
            let mut others = merged.iter().filter(|rule| rule.v4 == destination.is_v4());
            if !others.all(leads) {
                return None;
            }
        }
        rules.retain(|rule| !merged.contains(&rule.to(None)) && !known.contains(rule));
        let count = known.len() + rules.len();
        let begins_family = |rule: &Rule| !known.iter().any(|known| known.v4 == rule.v4);
        let to_merge = known.len() < MERGED_FROM && count >= MERGED_FROM;
        if count > RULES_MAX || to_merge || rules.iter().any(begins_family) {
            return None;
        }
        let hosts = protected_hosts(policies, own).into_iter();
        let jumps = hosts.flat_map(|own| reverse_path(settings, own));
        more.rules = jumps.filter(|rule| !self.rules.contains(rule)).collect();
        more.rules.append(&mut rules);
        Some(more)
    }

    /// Takes in what was added.
    pub(crate) fn add(&mut self, more: Self) {
        self.rules.extend(more.rules);
        self.routes.extend(more.routes);
        self.blackholes.extend(more.blackholes);
    }

    /// The rules that send packets of policies to the table.
    fn lookups(&self) -> HashSet<&Rule> {
        let of_policy =
            |rule: &&Rule| matches!(rule.action, Action::Lookup(_)) && rule.fwmark.is_none();
        self.rules.iter().filter(of_policy).collect()
    }
}

impl Rule {
    /// The same for packets to elsewhere.
    fn to(&self, destination: Option<Prefix>) -> Self {
        Self {
            destination,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use obol_ike::config::Mode;

    use super::super::plan;
    use super::*;
    use crate::dataplane::KernelOptions;

    const OWN: [&str; 2] = ["172.16.0.1", "192.0.2.1"];

    fn own() -> Vec<IpAddr> {
        OWN.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn policy(local: &str, remote: &str) -> Policy {
        Policy {
            connection: "c".into(),
            child: "d".into(),
            mode: Mode::Tunnel,
            local_ts: vec![local.parse().unwrap()],
            remote_ts: vec![remote.parse().unwrap()],
            trap: true,
            pass: false,
            narrower: false,
            clear: Default::default(),
            kernel: KernelOptions::default(),
        }
    }

    fn peers(count: u32) -> Vec<Policy> {
        let peer = |n: u32| policy("172.16.0.0/16", &format!("10.{}.{}.0/24", n / 250, n % 250));
        (0..count).map(peer).collect()
    }

    fn planned(policies: &[Policy]) -> Plan {
        plan(&HostSettings::for_tests(), policies, &own(), 1500).unwrap()
    }

    fn more(plan: &Plan, policies: &[Policy]) -> Option<Plan> {
        plan.more(&HostSettings::for_tests(), policies, &own(), 1500)
    }

    /// The plan is what it would be, had it been made of all.
    fn assert_same(before: &[Policy], added: &[Policy]) {
        let mut grown = planned(before);
        let more = more(&grown, added).unwrap();
        grown.add(more);
        let mut whole = planned(&[before, added].concat());
        let sorted = |rules: &mut Vec<Rule>| rules.sort_by_key(|rule| format!("{rule:?}"));
        sorted(&mut grown.rules);
        sorted(&mut whole.rules);
        assert_eq!(grown, whole);
    }

    #[test]
    fn a_plan_grows_to_what_it_would_have_been() {
        assert_same(&peers(3), &peers(4)[3..]);
        assert_same(&peers(1000), &peers(1002)[1000..]);
        // Another destination behind a peer that is there already, and our own address alone.
        assert_same(&peers(3), &[policy("192.0.2.1", "192.0.2.9")]);
        assert_same(&peers(3), &[policy("10.200.0.0/24", "10.0.1.0/24")]);
        let apart = |n: u32| policy(&format!("10.{}.0.0/16", 100 + n), &format!("10.{n}.0.0/16"));
        let all: Vec<Policy> = (0..100).map(apart).collect();
        assert_same(&all[..99], &all[99..]);
    }

    #[test]
    fn a_plan_that_would_not_stay_is_made_anew() {
        // A rule of its own for each of them from now on, since the table leads elsewhere too.
        let other = policy("172.17.0.0/16", "10.201.0.0/16");
        assert_eq!(more(&planned(&peers(1000)), &[other]), None);
        let first_of_v6 = policy("fd00::/64", "fd01::/64");
        assert_eq!(more(&planned(&peers(3)), &[first_of_v6]), None);
        // They are many from now on.
        let all = peers(80);
        let few = (1..80).find(|few| more(&planned(&all[..*few]), &all[*few..=*few]).is_none());
        let few = planned(&all[..few.unwrap()]);
        assert!(few.rules.len() >= MERGED_FROM, "{}", few.rules.len());
        assert_eq!(more(&Plan::default(), &peers(1)), None);
    }
}
