//! Names of services, protocols and hosts, as the system knows them.

use std::net::{IpAddr, ToSocketAddrs};

/// Where names are looked up.
pub(crate) struct Names {
    /// `/etc/services`.
    services: String,
    /// `/etc/protocols`.
    protocols: String,
    /// The addresses of a host.
    hosts: fn(&str) -> Vec<IpAddr>,
}

/// Protocols that have a name also where there is no `/etc/protocols`, or another one than there.
const PROTOCOLS: [(&str, u8); 14] = [
    ("icmp", 1),
    ("ip4", 4),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmp6", 58),
    ("ipv6-icmp", 58),
    ("dccp", 33),
    ("sctp", 132),
    ("udplite", 136),
];

impl Names {
    /// Nobody's: only numbers are known.
    pub(crate) fn none() -> Self {
        Self {
            services: String::new(),
            protocols: String::new(),
            hosts: |_| Vec::new(),
        }
    }

    /// This system's.
    pub(crate) fn of_system() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            services: text("/etc/services"),
            protocols: text("/etc/protocols"),
            hosts: |name| match (name, 0).to_socket_addrs() {
                Ok(addrs) => addrs.map(|addr| addr.ip()).collect(),
                Err(_) => Vec::new(),
            },
        }
    }

    /// The port of a service with this protocol.
    pub(crate) fn service(&self, name: &str, protocol: u8) -> Option<u16> {
        table(&self.services).find_map(|(names, value)| {
            let (port, of) = value.split_once('/')?;
            let fits = names.contains(&name) && self.protocol(of) == Some(protocol);
            fits.then(|| port.parse().ok()).flatten()
        })
    }

    /// The number of a protocol.
    pub(crate) fn protocol(&self, name: &str) -> Option<u8> {
        let own = PROTOCOLS.iter().find(|(known, _)| *known == name);
        own.map(|(_, number)| *number).or_else(|| {
            table(&self.protocols)
                .find_map(|(names, value)| names.contains(&name).then(|| value.parse().ok())?)
        })
    }

    /// The addresses of a host, each once.
    pub(crate) fn host(&self, name: &str) -> Vec<IpAddr> {
        let mut addrs = (self.hosts)(name);
        addrs.sort();
        addrs.dedup();
        addrs
    }

    /// Names that need no system.
    pub(super) fn for_fuzzing() -> Self {
        Self {
            services: "mongodb 27017/tcp\n".into(),
            protocols: "tcp 6 TCP\n".into(),
            hosts: |_| Vec::new(),
        }
    }

    /// Names for tests.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self {
            services: "# c\nmongodb 27017/tcp mongo # x\nmongodb 27018/udp\nbad tcp\n".into(),
            protocols: "ospf 89 OSPFIGP\nbad x\n".into(),
            hosts: |name| match name {
                "dev2" => vec![IpAddr::from([10, 0, 1, 241])],
                "both" => vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])],
                _ => Vec::new(),
            },
        }
    }
}

/// Lines `NAME VALUE ALIAS...` as all names and the value.
fn table(text: &str) -> impl Iterator<Item = (Vec<&str>, &str)> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let value = words.next()?;
        Some((std::iter::once(name).chain(words).collect(), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_a_protocol() {
        let names = Names::for_tests();
        assert_eq!(names.service("mongodb", 6), Some(27017));
        assert_eq!(names.service("mongo", 6), Some(27017));
        assert_eq!(names.service("mongodb", 17), Some(27018));
        assert_eq!(names.service("mongodb", 132), None);
        assert_eq!(names.service("bad", 6), None);
        assert_eq!(names.protocol("OSPFIGP"), Some(89));
        assert_eq!(names.protocol("icmp6"), Some(58));
        assert_eq!(names.protocol("x"), None);
    }
}
