//! Redirects, RFC 5685, where they concern more than one IKE SA.

use std::net::IpAddr;
use std::time::Instant;

use super::Endpoint;
use crate::config::Path;
use crate::error::{CommandError, Dropped, RedirectRefusal};
use crate::event::IkeSaId;
use crate::exchange::redirect;
use crate::sa::IkeSa;
use crate::sa::childless::FirstChildren;
use crate::sa::payloads::Payloads;
use crate::sa::task::Task;
use crate::wire::Header;

impl Endpoint {
    /// Sends a client elsewhere before there is any state, if whoever it is would have to go
    /// there: where that depends on its identity, it is told in IKE_AUTH.
    pub(super) fn redirect_stranger(
        &mut self,
        path: Path,
        header: &Header,
        payloads: &Payloads<'_>,
    ) -> Result<(), Dropped> {
        let (true, Some(ni)) = (payloads.can_be_redirected(), payloads.nonce) else {
            return Ok(());
        };
        let target = self.target_of_all(path);
        let elsewhere = |to: &IpAddr| *to != path.local.ip() && *to != path.remote.ip();
        let Some(to) = target.filter(elsewhere) else {
            return Ok(());
        };
        // Shorter than the request, which has that nonce, too.
        let notify = redirect::notify(to, ni);
        self.answer_stranger(path, header, header.exchange, [notify]);
        Err(Dropped::Redirected)
    }

    /// Where every connection between these addresses sends its clients.
    fn target_of_all(&self, path: Path) -> Option<IpAddr> {
        let mut targets = self.cx.directory.kinds(path).map(|c| c.redirect.to);
        let to = targets.next()??;
        targets.all(|other| other == Some(to)).then_some(to)
    }

    /// Sends the clients of a connection elsewhere, at an operator's command.
    pub(super) fn redirect(
        &mut self,
        now: Instant,
        name: &str,
        to: IpAddr,
    ) -> Result<(), CommandError> {
        self.connection(name)?;
        let clients = self.sas.of_connection(name).filter(|sa| sa.is_current());
        let clients = clients.filter(|sa| sa.can_be_sent_to(to));
        let ids: Vec<IkeSaId> = clients.map(|sa| sa.id).collect();
        if ids.is_empty() {
            return Err(CommandError::NoClient(name.to_owned()));
        }
        for id in ids {
            self.with(now, id, |sa, _| sa.tasks.push(Task::Redirect(to)));
        }
        Ok(())
    }

    /// As client: a proven gateway sends us to another one.
    pub(super) fn redirected(
        &mut self,
        now: Instant,
        id: IkeSaId,
        path: Path,
        instead: Option<FirstChildren>,
    ) {
        let Some(old) = self.sas.get(id) else {
            return;
        };
        let from = old.path.remote.ip();
        let connection = self.cx.directory.connection(&old.connection.name).cloned();
        let Some(connection) = connection.filter(|_| self.shutdown.is_none()) else {
            return;
        };
        let Some(first) = instead else {
            let begun = self.renew(now, id, connection, path, Some(from));
            self.with(now, id, |sa, cx| {
                let to = path.remote.ip();
                if begun {
                    sa.report_followed(cx, to, true);
                } else {
                    sa.report_redirect_refused(cx, Some(to), RedirectRefusal::Busy);
                }
            });
            return;
        };
        let first = first.within.or(first.after);
        let cx = &mut self.cx;
        let new = IkeSa::initiate_from(cx, now, connection, path, first, Some(from));
        if let Some(new) = new {
            let to = new.id;
            self.put(Box::new(new));
            self.renewal_moves(id, to);
        }
    }
}
