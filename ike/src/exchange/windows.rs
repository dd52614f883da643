//! Message IDs in both directions, RFC 7296 sections 2.2 and 2.3. Both windows have size one.

use super::datagrams::Datagrams;
use super::retransmit::Retransmit;

/// What we asked: at most one request is open at a time.
#[derive(Debug)]
pub(crate) struct RequestWindow<T> {
    next: u32,
    open: Option<OpenRequest<T>>,
}

//= rfc7296 2.1-3 2.3-6
/// A request without answer.
#[derive(Debug)]
pub(crate) struct OpenRequest<T> {
    /// Its Message ID.
    pub(crate) message_id: u32,
    /// Its octets; a retransmission repeats them.
    pub(crate) datagrams: Datagrams,
    /// When it goes out again.
    pub(crate) retransmit: Retransmit,
    /// What it asks.
    pub(crate) what: T,
}

impl<T> RequestWindow<T> {
    /// The next Message ID will be `next`.
    pub(crate) fn new(next: u32) -> Self {
        Self { next, open: None }
    }

    //= rfc7296 2.3-2
    //= security S-4
    /// The Message ID for a new request; `None` while one is open, or once the numbers are used
    /// up (RFC 7296 section 2.2: they never wrap).
    pub(crate) fn next_id(&self) -> Option<u32> {
        (self.open.is_none() && self.next < u32::MAX).then_some(self.next)
    }

    /// Whether all Message IDs were used.
    pub(crate) fn is_used_up(&self) -> bool {
        self.open.is_none() && self.next == u32::MAX
    }

    /// As if so many requests had been sent.
    #[cfg(feature = "testing")]
    pub(crate) fn skip_to(&mut self, next: u32) {
        self.next = next;
    }

    /// Opens a request with the Message ID that [`next_id`](Self::next_id) gave.
    pub(crate) fn begin(&mut self, datagrams: Datagrams, retransmit: Retransmit, what: T) {
        debug_assert!(self.open.is_none());
        self.open = Some(OpenRequest {
            message_id: self.next,
            datagrams,
            retransmit,
            what,
        });
        self.next += 1;
    }

    /// The open request.
    pub(crate) fn open(&self) -> Option<&OpenRequest<T>> {
        self.open.as_ref()
    }

    /// The open request.
    pub(crate) fn open_mut(&mut self) -> Option<&mut OpenRequest<T>> {
        self.open.as_mut()
    }

    /// Whether a reply with this Message ID answers the open request.
    pub(crate) fn awaits(&self, message_id: u32) -> bool {
        self.open
            .as_ref()
            .is_some_and(|o| o.message_id == message_id)
    }

    /// Closes the open request: it was answered, or is given up.
    pub(crate) fn close(&mut self) -> Option<OpenRequest<T>> {
        self.open.take()
    }
}

/// What the peer asked: the last request and our reply to it.
#[derive(Debug)]
pub(crate) struct ReplyWindow {
    next: u32,
    in_work: bool,
    last_reply: Option<Datagrams>,
}

/// What a request's Message ID says about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Incoming<'a> {
    /// The next in order.
    New,
    /// A repetition of the last one: send this again.
    Repeated(&'a Datagrams),
    /// A repetition of the one that is in work.
    InWork,
    /// Any other: RFC 7296 section 2.3 forbids to act on it.
    Outside,
}

impl ReplyWindow {
    /// The next request to take has Message ID `next`.
    pub(crate) fn new(next: u32) -> Self {
        Self {
            next,
            in_work: false,
            last_reply: None,
        }
    }

    //= rfc7296 2.1-5 2.3-8
    //= security S-5
    /// Classifies a request.
    pub(crate) fn check(&self, message_id: u32) -> Incoming<'_> {
        if message_id == self.next && self.next < u32::MAX {
            if self.in_work {
                Incoming::InWork
            } else {
                Incoming::New
            }
        } else if Some(message_id) == self.next.checked_sub(1) {
            match &self.last_reply {
                Some(reply) => Incoming::Repeated(reply),
                None => Incoming::Outside,
            }
        } else {
            Incoming::Outside
        }
    }

    /// The Message ID of the request in work, which the reply repeats.
    pub(crate) fn current(&self) -> u32 {
        self.next
    }

    /// The new request is authenticated and being worked on.
    pub(crate) fn begin(&mut self) {
        self.in_work = true;
    }

    //= rfc7296 2.1-4 2.3-7
    /// The request in work is answered with these octets, kept until the next request shows
    /// that they arrived.
    pub(crate) fn answer(&mut self, reply: Datagrams) {
        self.in_work = false;
        self.last_reply = Some(reply);
        self.next += 1;
    }

    /// The last answer is repeated in this form from here on.
    pub(crate) fn reshape(&mut self, reply: Datagrams) {
        self.last_reply = Some(reply);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test rfc7296 2.1-4 2.3-7
    #[test]
    fn a_request_is_new_once_then_in_work_then_repeated() {
        let mut window = ReplyWindow::new(1);
        assert_eq!(window.check(1), Incoming::New);
        window.begin();
        assert_eq!(window.check(1), Incoming::InWork);
        window.answer(vec![7].into());
        assert_eq!(window.check(1), Incoming::Repeated(&vec![7].into()));
        assert_eq!(window.check(2), Incoming::New);
        assert_eq!(window.check(0), Incoming::Outside);
        assert_eq!(window.check(3), Incoming::Outside);
    }

    //= test security S-4
    #[test]
    fn message_ids_never_wrap() {
        let window = RequestWindow::<()>::new(u32::MAX);
        assert_eq!(window.next_id(), None);
        let window = ReplyWindow::new(u32::MAX);
        assert_eq!(window.check(u32::MAX), Incoming::Outside);
        assert_eq!(ReplyWindow::new(0).check(u32::MAX), Incoming::Outside);
    }
}
