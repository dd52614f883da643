//! What scripts of updown are told: see [`crate::updown`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use obol_ike::config::{Child, Connection, LocalAuthMethod, StartAction};
use obol_ike::event::ChildSaInfo;
use obol_ike::identity::Identity;

use super::Driver;
use crate::dataplane::DataPlane;
use crate::pluto;
use crate::updown::{Facts, Name, Wanted};

impl<D: DataPlane> Driver<D> {
    /// Tells scripts what a configuration that was taken over says.
    pub(super) async fn configure_scripts(&mut self) {
        if self.loaded.updown.is_empty() {
            return self.scripts.set(BTreeMap::new());
        }
        self.devices = pluto::addresses().await.unwrap_or_default();
        let mut wanted = BTreeMap::new();
        for connection in &self.loaded.ike.connections {
            for child in &connection.children {
                let name: Name = (connection.name.clone(), child.name.clone());
                if let Some(command) = self.loaded.updown.get(&name) {
                    let facts = self.facts(connection, child);
                    let routed = child.start_action == StartAction::Trap;
                    let command = command.clone();
                    let script = Wanted {
                        command,
                        facts,
                        routed,
                    };
                    wanted.insert(name, script);
                }
            }
        }
        self.scripts.set(wanted);
    }

    fn facts(&self, connection: &Connection, child: &Child) -> Facts {
        let local = connection.local_addrs.first().copied();
        let local = local.or(connection.source);
        let remote = connection.remote_addrs.first().copied();
        let (carrier, _) = self.plane.carrier(&connection.name);
        Facts {
            name: self.operators_name(&connection.name, &child.name),
            mode: child.mode,
            local,
            remote,
            local_id: written(connection.local.id.as_ref(), local),
            remote_id: written(connection.remote.id.as_ref(), remote),
            local_ts: child.local_ts.clone(),
            remote_ts: child.remote_ts.clone(),
            secret: connection.local.method == LocalAuthMethod::Psk,
            template: connection.remote_addrs.is_empty(),
            device: self.device_of(local),
            stack: if carrier == "kernel" { "xfrm" } else { carrier },
            sa: None,
        }
    }

    /// The name that pluto's files have for a child, or its own.
    fn operators_name(&self, connection: &str, child: &str) -> String {
        let is_it = |(of, own): &(String, String)| of == connection && own == child;
        let names = self.loaded.pluto.names.iter();
        // An alias is no name of it.
        let mut names =
            names.filter(|(name, places)| pluto::clean(name) == child && places.iter().any(is_it));
        names
            .next()
            .map_or_else(|| child.to_owned(), |(name, _)| name.clone())
    }

    fn device_of(&self, local: Option<IpAddr>) -> Option<String> {
        let mut all = self.devices.iter();
        let (device, _) = all.find(|(_, address)| Some(*address) == local)?;
        Some(device.clone())
    }

    /// A Child SA is up.
    pub(super) fn script_up(&mut self, info: &ChildSaInfo) {
        let name: Name = (info.connection.clone(), info.child.clone());
        if !self.scripts.has(&name) {
            return;
        }
        let connection = self.endpoint.configured(&info.connection);
        let child = connection.and_then(|c| c.children.iter().find(|c| c.name == info.child));
        let (Some(connection), Some(child)) = (connection, child) else {
            return;
        };
        let sa = self.endpoint.status_of(info.ike, self.clock.now());
        let mut facts = self.facts(connection, child);
        if let Some(id) = sa.and_then(|sa| sa.remote_id) {
            facts.remote_id = written(Some(&id), None);
        }
        let (local, remote) = (info.path.local.ip(), info.path.remote.ip());
        facts.local = Some(local);
        facts.remote = Some(remote);
        facts.device = self.device_of(Some(local));
        facts.local_ts.clone_from(&info.local_ts);
        facts.remote_ts.clone_from(&info.remote_ts);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().as_secs();
        facts.sa = Some((info.spi_in.0, info.spi_out.0, since));
        self.scripts.up(&name, remote, info.id, facts);
    }
}

/// An identity as pluto writes it, or an address in its place.
fn written(id: Option<&Identity>, address: Option<IpAddr>) -> String {
    match (id, address) {
        (Some(Identity::Fqdn(name)), _) => format!("@{name}"),
        (Some(id), _) => id.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "%any".to_owned(),
    }
}
