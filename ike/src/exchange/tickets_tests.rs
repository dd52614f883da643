//! Sealing, opening, using and ageing of tickets.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::exchange::session::tests::session;

const SA: IkeSaId = IkeSaId(1);
const LIFE: Duration = Duration::from_secs(3600);

struct Maker {
    tickets: Tickets,
    rng: ChaCha20Rng,
    now: Instant,
}

impl Maker {
    fn new(seed: u64) -> Self {
        Self {
            tickets: Tickets::default(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            now: Instant::now(),
        }
    }

    /// Keys come from a secret, and this long after 1970.
    fn given(seed: u64, unix_time: u64, secret: &[u8]) -> Self {
        let mut maker = Self::new(seed);
        let time = Duration::from_secs(unix_time);
        maker.tickets.keep(maker.now, time, Secret::from(secret));
        maker
    }

    fn issue(&mut self, life: Duration) -> Option<(TicketId, Vec<u8>)> {
        let session = session(self.now);
        self.tickets
            .issue(self.now, &mut self.rng, SA, &session, life)
    }

    fn ticket(&mut self) -> Vec<u8> {
        self.issue(LIFE).expect("made").1
    }

    fn why(&self, ticket: &[u8]) -> Option<Dropped> {
        self.tickets.open(self.now, ticket).err()
    }

    fn spend(&mut self, ticket: &[u8]) -> Option<Option<IkeSaId>> {
        let presented = self.tickets.open(self.now, ticket).ok()?;
        self.tickets.spend(self.now, &presented)
    }
}

//= test rfc5723 4.3.1-3 6.1-4
#[test]
fn a_ticket_is_good_until_it_is_used() {
    let mut maker = Maker::new(1);
    assert!(!maker.tickets.are_there());
    let (id, ticket) = maker.issue(LIFE).expect("made");
    let other = maker.ticket();
    assert_ne!(ticket[HEAD_LEN..], other[HEAD_LEN..]);
    for _ in 0..2 {
        let presented = maker.tickets.open(maker.now, &ticket).expect("good");
        assert_eq!(presented.id, id);
        assert!(presented.session.sk_d.ct_eq(&session(maker.now).sk_d));
    }
    assert_eq!(maker.spend(&ticket), Some(Some(SA)));
    assert_eq!(maker.why(&ticket), Some(Dropped::TicketVoid));
    assert_eq!(maker.why(&other), None);
}

/// Two that were opened before one was used.
#[test]
fn of_two_that_are_shown_at_once_one_counts() {
    for mut maker in [Maker::new(1), Maker::given(1, 1000, b"secret")] {
        let ticket = maker.ticket();
        if maker.tickets.given.is_some() {
            maker = Maker::given(2, 1000, b"secret");
        }
        let first = maker.tickets.open(maker.now, &ticket).expect("good");
        let second = maker.tickets.open(maker.now, &ticket).expect("good");
        assert!(maker.tickets.spend(maker.now, &first).is_some());
        assert!(maker.tickets.spend(maker.now, &second).is_none());
    }
}

//= test rfc5723 6.1-1 9.1-1 9.10-1
#[test]
fn no_altered_cut_or_lengthened_ticket_is_taken() {
    let mut maker = Maker::new(1);
    let ticket = maker.ticket();
    let secret = session(maker.now).sk_d;
    assert!(!ticket.windows(32).any(|octets| octets == secret.expose()));
    let name = b"hosta.example.com";
    assert!(!ticket.windows(name.len()).any(|octets| octets == name));
    for bit in 0..ticket.len() * 8 {
        let mut altered = ticket.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => Dropped::TicketMalformed,
            1..HEAD_LEN => Dropped::TicketUnknownKey,
            _ => Dropped::TicketForged,
        };
        assert_eq!(maker.why(&altered), Some(expected), "bit {bit}");
    }
    for len in 0..ticket.len() {
        let expected = match len {
            LEAST.. => Dropped::TicketForged,
            _ => Dropped::TicketMalformed,
        };
        assert_eq!(maker.why(&ticket[..len]), Some(expected), "{len} octets");
    }
    let longer = [&ticket[..], &[0]].concat();
    assert_eq!(maker.why(&longer), Some(Dropped::TicketForged));
    let endless = [&ticket[..], &[0; MAX_TICKET]].concat();
    assert_eq!(maker.why(&endless), Some(Dropped::TicketMalformed));
    assert_eq!(Maker::new(2).why(&ticket), Some(Dropped::TicketUnknownKey));
    assert_eq!(maker.why(&ticket), None);
}

//= test rfc5723 6.1-6 6.2-5
#[test]
fn a_ticket_is_good_for_its_time() {
    let mut maker = Maker::new(1);
    assert!(maker.issue(Duration::from_millis(999)).is_none());
    let short = maker.issue(Duration::from_secs(10)).expect("made").1;
    let endless = maker.issue(Duration::MAX).expect("made").1;
    maker.now += Duration::from_secs(9);
    assert_eq!(maker.why(&short), None);
    maker.now += Duration::from_secs(1);
    assert_eq!(maker.why(&short), Some(Dropped::TicketExpired));
    maker.now += Resumption::LONGEST - Duration::from_secs(11);
    assert_eq!(maker.why(&endless), None);
    maker.now += Duration::from_secs(1);
    assert_eq!(maker.why(&endless), Some(Dropped::TicketExpired));
}

#[test]
fn one_of_a_time_that_no_ticket_has_is_not_taken() {
    let mut maker = Maker::given(1, 1_000_000, b"secret");
    let ticket = maker.issue(Duration::from_secs(10)).expect("made").1;
    // The clock was turned back meanwhile.
    let back = Maker::given(2, 900_000, b"secret");
    assert_eq!(back.why(&ticket), Some(Dropped::TicketExpired));
    assert_eq!(Maker::given(3, 1_000_009, b"secret").why(&ticket), None);
}

#[test]
fn a_ticket_goes_with_its_ike_sa() {
    let mut maker = Maker::new(1);
    let (id, ticket) = maker.issue(LIFE).expect("made");
    let kept = maker.ticket();
    maker.tickets.void(id);
    assert_eq!(maker.why(&ticket), Some(Dropped::TicketVoid));
    assert_eq!(maker.why(&kept), None);
}

//= test rfc5723 6.1-7 6.2-6 9.5-1
#[test]
fn keys_change_and_are_honoured_until_their_last_ticket_expires() {
    let mut maker = Maker::new(1);
    let first = maker.ticket();
    maker.now += SEALS - Duration::from_secs(1);
    let last = maker.ticket();
    assert_eq!(first[..HEAD_LEN], last[..HEAD_LEN]);
    maker.now += Duration::from_secs(1);
    let next = maker.ticket();
    assert_ne!(last[..HEAD_LEN], next[..HEAD_LEN]);
    assert_eq!((maker.why(&last), maker.why(&next)), (None, None));
    let over = maker.tickets.deadline().expect("two keys");
    assert_eq!(over, maker.now + LIFE - Duration::from_secs(1));
    maker.now = over;
    maker.tickets.expire(over);
    assert_eq!(maker.tickets.keys.len(), 1);
    assert_eq!(maker.why(&last), Some(Dropped::TicketUnknownKey));
    assert_eq!(maker.why(&next), None);
    maker.now = maker.tickets.deadline().expect("one key");
    maker.tickets.expire(maker.now);
    assert!(!maker.tickets.are_there());
    assert!(maker.tickets.good.by_id.is_empty());
}

#[test]
fn after_a_restart_a_given_secret_opens_what_it_made_once() {
    let mut maker = Maker::given(1, 1000, b"secret");
    let ticket = maker.ticket();
    let mut restarted = Maker::given(2, 1010, b"secret");
    assert!(restarted.tickets.are_there());
    let presented = restarted
        .tickets
        .open(restarted.now, &ticket)
        .expect("good");
    let age = restarted.now - presented.session.proven;
    assert_eq!(age, Duration::from_secs(10));
    assert_eq!(restarted.spend(&ticket), Some(None));
    assert_eq!(restarted.why(&ticket), Some(Dropped::TicketVoid));
    for other in [Maker::given(3, 1010, b"another"), Maker::new(4)] {
        let why = other.why(&ticket);
        assert!(
            matches!(why, Some(Dropped::TicketForged | Dropped::TicketUnknownKey)),
            "{why:?}"
        );
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut maker = Maker::new(1);
    let first = maker.issue(Duration::from_secs(50)).expect("made").1;
    let second = maker.issue(Duration::from_secs(60)).expect("made").1;
    for n in 0..MAX_GOOD as u64 - 1 {
        let id = TicketId(maker.tickets.keys[0].id, 1000 + n);
        maker.tickets.good.add(id, u64::MAX, SA);
    }
    let third = maker.ticket();
    assert_eq!(maker.tickets.good.by_id.len(), MAX_GOOD);
    assert_eq!(maker.why(&first), Some(Dropped::TicketVoid));
    assert_eq!(maker.why(&second), Some(Dropped::TicketVoid));
    assert_eq!(maker.why(&third), None);

    let mut maker = Maker::given(1, 1000, b"secret");
    let old = maker.ticket();
    let mut maker = Maker::given(2, 1000, b"secret");
    for n in 0..MAX_SPENT as u64 {
        maker.tickets.spent.add(TicketId(1, n), 2000, ());
    }
    assert_eq!(maker.why(&old), Some(Dropped::TicketVoid));
    maker.now += Duration::from_secs(1000);
    maker.tickets.expire(maker.now);
    assert_eq!(maker.why(&old), None, "there is room again");
}

#[test]
fn shared_secrets_are_recognised() {
    let mut maker = Maker::new(1);
    let mut tag = |text: &[u8]| maker.tickets.tag(&mut maker.rng, &Secret::from(text));
    assert!(tag(b"one").is(&tag(b"one")));
    assert!(!tag(b"one").is(&tag(b"two")));
    let given = |seed| Maker::given(seed, 1, b"secret");
    let tag = |mut maker: Maker| {
        maker
            .tickets
            .tag(&mut maker.rng, &Secret::from(&b"one"[..]))
    };
    assert!(tag(given(1)).is(&tag(given(2))), "after a restart");
    assert!(!tag(Maker::new(1)).is(&tag(Maker::new(2))));
}
