//! What stands on the wire around ESP: the UDP demultiplexing of RFC 3948 and the SPI.

/// What a datagram on a UDP encapsulation port is, RFC 3948 section 2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UdpKind {
    /// One octet of 0xFF: it kept a NAT mapping alive, nothing more.
    Keepalive,
    /// Four zero octets (the non-ESP marker), then an IKE message.
    Ike,
    /// ESP with this SPI.
    Esp {
        /// SPI, host byte order; never 0.
        spi: u32,
    },
    /// Too short to be anything.
    Short,
}

/// Says what the payload of a UDP datagram on port 4500 is.
pub fn classify_udp(datagram: &[u8]) -> UdpKind {
    match datagram {
        [0xff] => UdpKind::Keepalive,
        _ => match spi_of(datagram) {
            Some(0) => UdpKind::Ike,
            Some(spi) => UdpKind::Esp { spi },
            None => UdpKind::Short,
        },
    }
}

/// The SPI of an ESP packet, host byte order; `None` if it is shorter than an ESP header.
pub fn spi_of(esp: &[u8]) -> Option<u32> {
    let header: &[u8; 8] = esp.first_chunk()?;
    Some(u32::from_be_bytes([
        header[0], header[1], header[2], header[3],
    ]))
}
