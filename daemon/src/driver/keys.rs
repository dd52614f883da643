//! Keys of Child SAs for an operator who has to read what was captured, where `show_keys` has them kept:
//! the data planes take theirs, and give none back. They leave by the control socket alone.

use std::collections::HashMap;
use std::fmt::Write as _;

use obol_ike::crypto::secret::Secret;
use obol_ike::event::{ChildSaId, EspKeys};
use tracing::warn;

use super::Driver;
use crate::control::protocol::{Reply, SecretJson};
use crate::dataplane::DataPlane;
use crate::error::{ExitClass, Failure};

/// Those that are kept; `None`: none are.
pub(super) struct Keys(Option<HashMap<ChildSaId, Both>>);

/// Of both directions.
#[derive(Default)]
struct Both {
    inbound: Option<EspKeys>,
    outbound: Option<EspKeys>,
}

impl Keys {
    /// Begins to keep them, if that is what the operator wants.
    pub(super) fn new(shown: bool) -> Self {
        if shown {
            warn!(
                "show_keys: the keys of Child SAs are kept, and told to root by the control socket"
            );
        }
        Self(shown.then(HashMap::new))
    }

    /// Packets to us come under these.
    pub(super) fn inbound(&mut self, id: ChildSaId, keys: &EspKeys) {
        if let Some(kept) = &mut self.0 {
            kept.entry(id).or_default().inbound = Some(copy(keys));
        }
    }

    /// Packets to the peer leave under these.
    pub(super) fn outbound(&mut self, id: ChildSaId, keys: &EspKeys) {
        if let Some(kept) = &mut self.0 {
            kept.entry(id).or_default().outbound = Some(copy(keys));
        }
    }

    /// The SA is no more.
    pub(super) fn forget(&mut self, id: ChildSaId) {
        if let Some(kept) = &mut self.0 {
            kept.remove(&id);
        }
    }

    /// As a [`KeysReport`](crate::control::protocol::KeysReport): written into one buffer that is long
    /// enough, so that no part of it stays behind.
    fn json(&self) -> Option<SecretJson> {
        let kept = self.0.as_ref()?;
        let len = |keys: &Option<EspKeys>| {
            let octets = keys.as_ref().map(|keys| keys.encr.len() + keys.integ.len());
            2 * octets.unwrap_or_default() + 64
        };
        let all = kept
            .values()
            .map(|both| len(&both.inbound) + len(&both.outbound) + 64);
        let mut json = SecretJson::with_capacity(all.sum::<usize>() + 64);
        let text = json.text();
        text.push_str("{\"children\":[");
        for (at, (id, both)) in kept.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{{\"id\":{}", id.0);
            for (name, keys) in [("inbound", &both.inbound), ("outbound", &both.outbound)] {
                let Some(keys) = keys else { continue };
                let _ = write!(text, ",\"{name}\":{{\"encr\":\"");
                hex(text, &keys.encr);
                text.push_str("\",\"integ\":\"");
                hex(text, &keys.integ);
                text.push_str("\"}");
            }
            text.push('}');
        }
        text.push_str("]}");
        Some(json)
    }
}

fn copy(keys: &EspKeys) -> EspKeys {
    EspKeys {
        encr: Secret::from(keys.encr.expose()),
        integ: Secret::from(keys.integ.expose()),
    }
}

fn hex(text: &mut String, secret: &Secret) {
    for octet in secret.expose() {
        let _ = write!(text, "{octet:02x}");
    }
}

impl<D: DataPlane> Driver<D> {
    /// The answer to who asks for keys.
    pub(super) fn keys_reply(&self) -> Reply {
        match self.keys.json() {
            Some(json) => {
                warn!("the keys of all Child SAs were asked for, by the control socket");
                Reply::Secret(json)
            }
            None => Failure::new(
                ExitClass::Refused,
                "this daemon keeps no keys to show: write show_keys = true into [daemon], and start it anew",
            )
            .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::KeysReport;

    #[test]
    fn keys_are_kept_where_that_is_wanted_until_their_sa_ends() {
        let keys = |seed: u8| EspKeys {
            encr: Secret::new(vec![seed; 36]),
            integ: Secret::new(vec![seed; 2]),
        };
        let mut none = Keys::new(false);
        none.inbound(ChildSaId(1), &keys(1));
        assert!(none.json().is_none());

        let mut kept = Keys::new(true);
        kept.inbound(ChildSaId(1), &keys(1));
        kept.outbound(ChildSaId(1), &keys(2));
        kept.inbound(ChildSaId(7), &keys(7));
        let json = kept.json().unwrap();
        assert!(!format!("{:?}", Reply::Secret(json.clone())).contains("0101"));
        let line = Reply::Secret(json).to_line();
        let Ok(Reply::Done(data)) = Reply::from_line(line.as_bytes()) else {
            panic!("no answer");
        };
        let mut report: KeysReport = data.read().unwrap();
        report.children.sort_by_key(|child| child.id);
        let [one, seven] = &report.children[..] else {
            panic!("two");
        };
        assert_eq!((one.id, seven.id), (1, 7));
        let both = [&one.inbound, &one.outbound].map(|keys| keys.as_ref().unwrap());
        assert_eq!(
            both.map(|keys| keys.encr.clone()),
            ["01".repeat(36), "02".repeat(36)]
        );
        assert_eq!(both.map(|keys| keys.integ.clone()), ["0101", "0202"]);
        assert!(seven.outbound.is_none());
        kept.forget(ChildSaId(1));
        kept.forget(ChildSaId(7));
        assert!(
            kept.json()
                .is_some_and(|json| json.clone().text() == "{\"children\":[]}")
        );
    }
}
