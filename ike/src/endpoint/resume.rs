//! IKE_SESSION_RESUME requests, RFC 5723 section 4.3.2: strangers with a ticket. As with
//! IKE_SA_INIT, nothing is kept of them as long as that is possible, and a ticket is looked at
//! only after everything that costs less.

use std::sync::Arc;
use std::time::Instant;

use super::Endpoint;
use super::init::MAX_REQUEST;
use crate::config::{Connection, Path};
use crate::error::Dropped;
use crate::exchange::half_open;
use crate::exchange::tickets::Presented;
use crate::sa::IkeSa;
use crate::sa::payloads::Payloads;
use crate::sa::resume_responder::connection_of;
use crate::wire::{Header, Message, Notify, NotifyType};

impl Endpoint {
    /// Whether this host has to do with tickets; else it answers like one that knows of none.
    pub(super) fn takes_tickets(&self) -> bool {
        self.cx.tickets.are_there() || self.cx.directory.resumes()
    }

    //= rfc5723 4.3.2-3
    /// Takes a request to resume an IKE SA.
    pub(super) fn on_resume_request(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let header = &message.header;
        if message.octets.len() > MAX_REQUEST {
            return Err(Dropped::TooLong);
        }
        if !header.flags.initiator || header.message_id != 0 || header.spi_i.0 == 0 {
            return Err(Dropped::Malformed);
        }
        let request = half_open::key(path.remote, message.octets);
        self.repeat_init(path, message, &request)?;
        let payloads = Payloads::sort(&message.payloads).map_err(|_| Dropped::Malformed)?;
        if let Err(fault) = payloads.check_critical() {
            self.refuse_stranger(now, path, header, fault.notify());
            return Err(Dropped::Critical);
        }
        let ticket = payloads.notify(NotifyType::TICKET_OPAQUE);
        let (Some(ticket), true) = (ticket, payloads.nonce.is_some()) else {
            return Err(Dropped::Incomplete);
        };
        if self.shutdown.is_some() || self.cx.directory.kinds(path).next().is_none() {
            return Err(Dropped::NoConnection);
        }
        self.redirect_stranger(path, header, &payloads)?;
        self.check_load(now, path, header, &payloads)?;
        let (ticket, connection) = self.check_ticket(now, path, header, &ticket.data)?;
        let cx = &mut self.cx;
        let sa = IkeSa::respond_resumed(cx, now, path, message, &payloads, connection, ticket)?;
        self.half_open.add(request, sa.id);
        self.put(Box::new(sa));
        Ok(())
    }

    /// Opens a ticket, and finds its connection. If it is not good, the peer hears that and no
    /// more.
    fn check_ticket(
        &mut self,
        now: Instant,
        path: Path,
        header: &Header,
        ticket: &[u8],
    ) -> Result<(Presented, Arc<Connection>), Dropped> {
        let opened = self.cx.tickets.open(now, ticket).and_then(|ticket| {
            let connection = connection_of(&self.cx, path, &ticket.session);
            Ok((ticket, connection.ok_or(Dropped::TicketPolicy)?))
        });
        if opened.is_err() {
            let nack = Notify::bare(NotifyType::TICKET_NACK);
            self.refuse_stranger(now, path, header, nack);
        }
        opened
    }
}
