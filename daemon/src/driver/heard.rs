//! What pluto's files are read for takes names, and a resolver may take seconds for these: whoever asked waits,
//! and the loop does not.

use std::time::Instant;

use futures_util::FutureExt as _;
use tracing::{debug, error};

use super::Driver;
use crate::config::changes::ChildChange;
use crate::control::Call;
use crate::control::protocol::Reply;
use crate::dataplane::DataPlane;
use crate::pluto::{self, NamesFound};

/// What is to be done then.
pub(super) enum Held {
    /// Read all of it; for who waits for that, if it is not a signal.
    Reload(Option<Call>),
    /// Do this about what a name means.
    Change(Call, String, ChildChange),
}

impl<D: DataPlane> Driver<D> {
    /// Does it at once, or once the names are looked up that it takes.
    pub(super) async fn when_heard(&mut self, now: Instant, held: Held) {
        let only = match &held {
            Held::Reload(_) => Some(None),
            Held::Change(_, name, ChildChange::Load | ChildChange::Trap) => Some(Some(&**name)),
            // What it is about is there.
            Held::Change(..) => None,
        };
        let asked = self.origin.pluto.as_ref().zip(only);
        let names = asked.map(|(files, only)| pluto::names_asked(files, only));
        let names = names.unwrap_or_default();
        if names.is_empty() {
            return self.go_on(now, held, &NamesFound::new()).await;
        }
        debug!(?names, "names are looked up");
        let asked = async move {
            let found = pluto::look_up(names.iter().map(String::as_str)).await;
            (held, found)
        };
        self.held.push(asked.boxed());
    }

    /// Does it, with what was heard.
    pub(super) async fn go_on(&mut self, now: Instant, held: Held, heard: &NamesFound) {
        match held {
            Held::Reload(call) => {
                let before = self.loaded.ike.clone();
                let done = self.reload(now, Some(heard)).await;
                match (call, done) {
                    (Some(call), Ok(())) => {
                        call.reply(Reply::done(&self.reload_report(&before)));
                    }
                    (Some(call), Err(failure)) => call.reply(failure.into()),
                    (None, Err(failure)) => error!("{}", failure.message),
                    (None, Ok(())) => {}
                }
            }
            Held::Change(call, name, to) => {
                let reply = self.change(now, (&name, to), heard).await;
                call.reply(reply.unwrap_or_else(Into::into));
            }
        }
    }
}
