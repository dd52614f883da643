//! Why something was refused: small, `Copy`, with a stable name for counters.

/// Why an SA cannot be made from its parameters.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// SPIs 0 to 255 are reserved, RFC 4303 section 2.1.
    #[error("SPI {0} is reserved")]
    ReservedSpi(u32),
    /// No such key length in this suite.
    #[error("the cipher has no key of {0} bits")]
    KeyBits(u16),
    /// The encryption key is not as long as the suite wants it, salt included.
    #[error("the encryption key has {have} octets, the suite wants {want}")]
    EncrLength {
        /// Octets given.
        have: usize,
        /// Octets wanted, with the salt.
        want: usize,
    },
    /// The integrity key is not as long as the suite wants it.
    #[error("the integrity key has {have} octets, the suite wants {want}")]
    IntegLength {
        /// Octets given.
        have: usize,
        /// Octets wanted; 0 with an AEAD.
        want: usize,
    },
    /// The replay window is smaller than 1024 or larger than 65536 packets.
    #[error("a replay window of {0} packets is not between 1024 and 65536")]
    ReplayWindow(u32),
    /// Transport addresses of two families, or given in tunnel mode.
    #[error("the transport addresses do not fit the mode or each other")]
    TransportAddresses,
}

/// Why a selector cannot be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SelectorError {
    /// Addresses of both families in one selector.
    #[error("a selector holds addresses of both families")]
    MixedFamilies,
    /// A range that ends before it starts.
    #[error("an address range ends before it starts")]
    AddressOrder,
    /// A port range that ends before it starts and is not OPAQUE (65535 to 0).
    #[error("a port range ends before it starts and is not OPAQUE")]
    PortOrder,
}

/// Names each value of an enum for counters, logs and `Display`.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// A name that stays the same from version to version.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::error::Error for $name {}
    };
}

named! {
    /// Why octets are not an IP packet that this crate can place.
    PacketError {
        /// Shorter than its own headers say.
        Truncated = "truncated",
        /// Neither version 4 nor 6.
        Version = "version",
        /// A header length or an option that contradicts itself.
        Malformed = "malformed",
        /// More IPv6 extension headers than the walk follows.
        TooManyHeaders = "too-many-headers",
    }
}

named! {
    /// Why a frame of a TUN device was not cut.
    FrameError {
        /// Not an IP packet, or cut short.
        Packet = "not-ip",
        /// What is said of the frame contradicts the packet in it.
        Offload = "offload",
    }
}

named! {
    /// Why a packet was not sealed.
    SealError {
        /// Not an IP packet, or shorter or longer than its header says.
        Malformed = "malformed",
        /// Outside of the selectors of the SA.
        Selector = "selector",
        /// A fragment in transport mode, RFC 4303 section 3.3.4.
        Fragment = "fragment",
        /// Transport mode cannot carry what stands before the ESP header: IPv4 options, or IPv6
        /// hop-by-hop options or a routing header.
        ExtensionHeader = "extension-header",
        /// The hard limit of the SA is met.
        HardLimit = "hard-limit",
        /// The sequence number would cycle, RFC 4303 section 3.3.3.
        CounterExhausted = "counter-exhausted",
        /// The buffer has too little room around the packet.
        NoRoom = "no-room",
        /// The packet is longer than an ESP packet can carry.
        TooLong = "too-long",
        /// The cipher refused.
        Cipher = "cipher",
    }
}

named! {
    /// Why a datagram was not opened. Only what follows `Integrity` in this list can be said of
    /// an authenticated datagram.
    OpenError {
        /// Shorter than an empty ESP packet of this SA, or not a whole number of blocks.
        Short = "short",
        /// Of another SPI.
        Spi = "spi",
        /// The buffer has too little room before the datagram.
        NoRoom = "no-room",
        /// Seen before, or too old to know.
        Replay = "replay",
        /// The hard limit of the SA is met.
        HardLimit = "hard-limit",
        /// The ICV does not verify.
        Integrity = "integrity",
        /// The padding does not fit, or is not 1, 2, 3, ...
        Padding = "padding",
        /// A dummy packet (next header 59): to be dropped, RFC 4303 section 2.6.
        Dummy = "dummy",
        /// The next header is not one that the mode carries.
        NextHeader = "next-header",
        /// The inner packet is not a valid IP packet.
        Malformed = "malformed",
        /// Outside of the selectors of the SA.
        Selector = "selector",
        /// Outer CE on an inner packet that is not ECN-capable, RFC 6040 section 4.2.
        Ecn = "ecn",
        /// The addresses to restore are of two families.
        Family = "family",
        /// The payload is longer than an IP header can say.
        TooLong = "too-long",
        /// A TCP or UDP header too short to hold the checksum that is to be repaired.
        Checksum = "checksum",
    }
}
