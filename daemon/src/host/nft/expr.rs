//! nf_tables expressions: what a rule compares and what it then does.
//!
//! The numbers are those of the kernel's `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr};

use super::attr::Attributes;
use crate::host::xfrm::Mark;

/// Registers: the verdict, and the first of 16 octets.
const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;

/// A rule under construction: each condition must hold for the next to be looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rule(Attributes);

/// Which packets: by what they carry or by where they come and go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Meta {
    /// The mark, host byte order.
    Mark = 3,
    /// Name of the device it came by, 16 octets.
    IifName = 6,
    /// Name of the device it leaves by, 16 octets.
    OifName = 7,
    /// 2: IPv4, 10: IPv6; one octet.
    Nfproto = 15,
    /// IP protocol behind extension headers; one octet.
    L4Proto = 16,
    /// 1: the kernel's ESP opened it; one octet.
    SecPath = 25,
}

/// Which header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Base {
    /// IP.
    Network = 1,
    /// What follows it. A fragment that is not the first has none: the rule does not match.
    Transport = 2,
}

/// How to compare, octet by octet from the left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    /// Equal.
    Eq = 0,
    /// Not equal.
    Neq = 1,
    /// Less or equal.
    Lte = 3,
    /// Greater or equal.
    Gte = 5,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict<'a> {
    /// It is gone.
    Drop,
    /// It has passed this hook.
    Accept,
    /// On to another chain, and back after its end.
    Jump(&'a str),
    /// On to another chain.
    Goto(&'a str),
}

impl Rule {
    /// The list of its expressions.
    pub(super) fn expressions(&self) -> &Attributes {
        &self.0
    }

    /// The packet is of this family.
    pub(crate) fn family(self, v4: bool) -> Self {
        self.meta(Meta::Nfproto)
            .cmp(Op::Eq, &[if v4 { 2 } else { 10 }])
    }

    /// The packet carries this protocol.
    pub(crate) fn protocol(self, protocol: u8) -> Self {
        self.meta(Meta::L4Proto).cmp(Op::Eq, &[protocol])
    }

    /// The packet bears this mark.
    pub(crate) fn mark(self, mark: u32) -> Self {
        self.meta(Meta::Mark).cmp(Op::Eq, &mark.to_ne_bytes())
    }

    /// The packet's mark has this value in the bits that count; with none, any packet's has.
    pub(crate) fn marked(self, mark: Mark) -> Self {
        if mark.mask == 0 {
            return self;
        }
        let loaded = self.meta(Meta::Mark).masked(&mark.mask.to_ne_bytes());
        loaded.cmp(Op::Eq, &mark.value.to_ne_bytes())
    }

    /// The packet came or leaves by the device of this name.
    pub(crate) fn device(self, which: Meta, name: &str) -> Self {
        let mut octets = [0; 16];
        for (place, octet) in octets.iter_mut().zip(name.bytes()) {
            *place = octet;
        }
        self.meta(which).cmp(Op::Eq, &octets)
    }

    /// The kernel's ESP opened the packet.
    pub(crate) fn was_protected(self) -> Self {
        self.meta(Meta::SecPath).cmp(Op::Eq, &[1])
    }

    /// The kernel's ESP will seal the packet.
    pub(crate) fn will_be_protected(self) -> Self {
        let mut data = Attributes::default();
        // Key 4: whether the route leads through XFRM; one octet.
        data.put_u32(1, REG_1).put_u32(2, 4);
        self.push("rt", &data).cmp(Op::Eq, &[1])
    }

    /// The source or the destination address lies between these; the family must be settled.
    pub(crate) fn address(self, source: bool, first: IpAddr, last: IpAddr) -> Self {
        let (offset, len) = address_place(first.is_ipv4(), source);
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let loaded = self.payload(Base::Network, offset, len);
        loaded.between(&octets(first), &octets(last))
    }

    /// The source or the destination address is in this set; the family must be settled.
    pub(crate) fn within(self, source: bool, v4: bool, set: &str) -> Self {
        let (offset, len) = address_place(v4, source);
        let mut data = Attributes::default();
        data.put_name(1, set).put_u32(2, REG_1);
        let loaded = self.payload(Base::Network, offset, len);
        loaded.push("lookup", &data)
    }

    /// A big-endian number at `offset` in the header lies between these.
    pub(crate) fn number(self, base: Base, offset: u32, first: u16, last: u16) -> Self {
        let loaded = self.payload(base, offset, 2);
        loaded.between(&first.to_be_bytes(), &last.to_be_bytes())
    }

    /// An octet at `offset` in the header lies between these.
    pub(crate) fn octet(self, base: Base, offset: u32, first: u8, last: u8) -> Self {
        self.payload(base, offset, 1).between(&[first], &[last])
    }

    /// The packet is a fragment, and not the first; the family must be settled.
    pub(crate) fn later_fragment(self, v4: bool) -> Self {
        let (loaded, mask) = if v4 {
            (self.payload(Base::Network, 6, 2), [0x1f, 0xff])
        } else {
            (self.fragment_header(), [0xff, 0xf8])
        };
        loaded.masked(&mask).cmp(Op::Neq, &[0, 0])
    }

    /// The destination is an address of this host.
    pub(crate) fn for_this_host(self) -> Self {
        let mut data = Attributes::default();
        // Register, result: type of address, of: destination.
        data.put_u32(1, REG_1).put_u32(2, 3).put_u32(3, 2);
        const RTN_LOCAL: u32 = 2;
        self.push("fib", &data)
            .cmp(Op::Eq, &RTN_LOCAL.to_ne_bytes())
    }

    /// Gives the packet this mark.
    pub(crate) fn set_mark(self, mark: u32) -> Self {
        let mut value = Attributes::default();
        value.put(1, &mark.to_ne_bytes());
        let mut load = Attributes::default();
        load.put_u32(1, REG_1).put_list(2, &value);
        let mut data = Attributes::default();
        // Key, source register.
        data.put_u32(2, Meta::Mark as u32).put_u32(3, REG_1);
        self.push("immediate", &load).push("meta", &data)
    }

    /// Counts the packet, from these numbers on.
    pub(crate) fn counter(self, packets: u64, bytes: u64) -> Self {
        let mut data = Attributes::default();
        data.put_u64(1, bytes).put_u64(2, packets);
        self.push("counter", &data)
    }

    /// Settles what becomes of the packet.
    pub(crate) fn verdict(self, verdict: Verdict<'_>) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3_i32, Some(chain)),
            Verdict::Goto(chain) => (-4_i32, Some(chain)),
        };
        let mut what = Attributes::default();
        what.put(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            what.put_name(2, chain);
        }
        let mut value = Attributes::default();
        value.put_list(2, &what);
        let mut data = Attributes::default();
        data.put_u32(1, REG_VERDICT).put_list(2, &value);
        self.push("immediate", &data)
    }

    /// Gives the flow of this packet the source address that it has, so that no later NAT gives
    /// it another; the family must be settled.
    pub(crate) fn keep_source(self, v4: bool) -> Self {
        let (offset, len, family) = if v4 { (12, 4, 2) } else { (8, 16, 10) };
        let mut data = Attributes::default();
        // Type: source, family, register with the address.
        data.put_u32(1, 0).put_u32(2, family).put_u32(3, REG_1);
        let loaded = self.payload(Base::Network, offset, len);
        loaded.push("nat", &data)
    }

    /// Gives the flow of this packet the address of the device that it leaves by as its source:
    /// what Docker does, and tests must hold against.
    pub(crate) fn masquerade(self) -> Self {
        // NF_NAT_RANGE_PROTO_RANDOM_FULLY: any port, as NATs of others give them.
        let mut data = Attributes::default();
        data.put_u32(1, 1 << 4);
        self.push("masq", &data)
    }

    /// Has the flow of this packet go to another address: what Docker does for a published port, and tests
    /// must hold against.
    pub(crate) fn redirect(self, to: Ipv4Addr) -> Self {
        let mut address = Attributes::default();
        address.put(1, &to.octets());
        let mut data = Attributes::default();
        data.put_u32(1, REG_1).put_list(2, &address);
        let loaded = self.push("immediate", &data);
        let mut data = Attributes::default();
        // Type: destination, family, register with the address.
        data.put_u32(1, 1).put_u32(2, 2).put_u32(3, REG_1);
        loaded.push("nat", &data)
    }

    fn meta(self, key: Meta) -> Self {
        let mut data = Attributes::default();
        data.put_u32(1, REG_1).put_u32(2, key as u32);
        self.push("meta", &data)
    }

    fn payload(self, base: Base, offset: u32, len: u32) -> Self {
        let mut data = Attributes::default();
        data.put_u32(1, REG_1)
            .put_u32(2, base as u32)
            .put_u32(3, offset)
            .put_u32(4, len);
        self.push("payload", &data)
    }

    /// Offset and flags of an IPv6 fragment header (44).
    fn fragment_header(self) -> Self {
        let mut data = Attributes::default();
        data.put_u32(1, REG_1)
            .put(2, &[44])
            .put_u32(3, 2)
            .put_u32(4, 2);
        self.push("exthdr", &data)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let value = |octets: &[u8]| {
            let mut value = Attributes::default();
            value.put(1, octets);
            value
        };
        let mut data = Attributes::default();
        data.put_u32(1, REG_1)
            .put_u32(2, REG_1)
            .put_u32(3, mask.len() as u32)
            .put_list(4, &value(mask))
            .put_list(5, &value(&vec![0; mask.len()]));
        self.push("bitwise", &data)
    }

    fn between(self, first: &[u8], last: &[u8]) -> Self {
        if first == last {
            return self.cmp(Op::Eq, first);
        }
        self.cmp(Op::Gte, first).cmp(Op::Lte, last)
    }

    fn cmp(self, op: Op, octets: &[u8]) -> Self {
        let mut value = Attributes::default();
        value.put(1, octets);
        let mut data = Attributes::default();
        data.put_u32(1, REG_1)
            .put_u32(2, op as u32)
            .put_list(3, &value);
        self.push("cmp", &data)
    }

    fn push(mut self, name: &str, data: &Attributes) -> Self {
        let mut expression = Attributes::default();
        expression.put_name(1, name).put_list(2, data);
        self.0.put_list(1, &expression);
        self
    }
}

/// Where in the header the source or the destination address is, and how long it is.
fn address_place(v4: bool, source: bool) -> (u32, u32) {
    match (v4, source) {
        (true, true) => (12, 4),
        (true, false) => (16, 4),
        (false, true) => (8, 16),
        (false, false) => (24, 16),
    }
}
