//! What stands on the wire: the ESP header and trailer (RFC 4303 section 2) and what else comes
//! on a UDP encapsulation port (RFC 3948 section 2).

/// Octets of SPI and sequence number.
pub(crate) const ESP_HEADER: usize = 8;
/// Octets of Pad Length and Next Header.
pub(crate) const ESP_TRAILER: usize = 2;

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

//= security S-33 S-65
/// Says what the payload of a UDP datagram on port 4500 is.
pub fn classify_udp(datagram: &[u8]) -> UdpKind {
    match (datagram, spi_of(datagram)) {
        ([0xff], _) => UdpKind::Keepalive,
        (_, Some(0)) => UdpKind::Ike,
        (_, Some(spi)) => UdpKind::Esp { spi },
        (_, None) => UdpKind::Short,
    }
}

/// The SPI of an ESP packet, host byte order; `None` if it is shorter than an ESP header.
pub fn spi_of(esp: &[u8]) -> Option<u32> {
    esp.first_chunk::<ESP_HEADER>()
        .map(|header| header_fields(header).0)
}

/// SPI and the low half of the sequence number, both in host byte order.
pub(crate) fn header_fields(header: &[u8; ESP_HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *header;
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

//= rfc4303 2.2-2
/// Writes SPI and the low half of the sequence number to the first octets of `esp`.
pub(crate) fn write_header(esp: &mut [u8], spi: u32, sequence: u64) {
    esp[..4].copy_from_slice(&spi.to_be_bytes());
    esp[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
}

/// Octets of padding that bring `payload` octets and the trailer to a multiple of `align`, a power of two.
pub(crate) fn padding(payload: usize, align: usize) -> usize {
    (payload + ESP_TRAILER).wrapping_neg() & (align - 1)
}

//= rfc4303 2.4-1 2.4-2
/// Fills `space` with padding 1, 2, 3, ... (RFC 4303 section 2.4), Pad Length and Next Header.
/// It is at most 257 octets long and at least 2.
pub(crate) fn write_trailer(space: &mut [u8], next_header: u8) {
    let pad = space.len() - ESP_TRAILER;
    for (value, octet) in (1..=u8::MAX).zip(&mut space[..pad]) {
        *octet = value;
    }
    space[pad] = pad as u8;
    space[pad + 1] = next_header;
}

//= rfc4303 2.4-1 2.4-3
/// Takes the trailer off a decrypted body: octets before the padding, and Next Header. `None` if
/// the padding is longer than the body or not 1, 2, 3, ...
pub(crate) fn read_trailer(body: &[u8]) -> Option<(usize, u8)> {
    let (rest, &[pad, next_header]) = body.split_last_chunk::<ESP_TRAILER>()?;
    let payload = rest.len().checked_sub(usize::from(pad))?;
    let right = (1..=pad)
        .zip(&rest[payload..])
        .all(|(value, octet)| value == *octet);
    right.then_some((payload, next_header))
}

#[cfg(test)]
mod tests {
    use super::*;

    //= test security S-33 S-65
    #[test]
    fn a_port_4500_datagram_is_told_by_its_first_octets() {
        let rows: &[(&[u8], UdpKind)] = &[
            (&[], UdpKind::Short),
            (&[0xff], UdpKind::Keepalive),
            (&[0xfe], UdpKind::Short),
            (&[0xff, 0xff], UdpKind::Short),
            (&[0, 0, 0, 0, 0, 0, 0], UdpKind::Short),
            (&[0, 0, 0, 0, 0, 0, 0, 1], UdpKind::Ike),
            (&[0, 0, 1, 0, 0, 0, 0, 1], UdpKind::Esp { spi: 0x100 }),
            (&[0xff; 8], UdpKind::Esp { spi: u32::MAX }),
        ];
        for (datagram, kind) in rows {
            assert_eq!(classify_udp(datagram), *kind, "{datagram:02x?}");
        }
    }

    //= test rfc4303 2.4-1 2.4-2
    #[test]
    fn every_trailer_written_is_read_back() {
        for pad in 0..=255 {
            let mut body = vec![0xaa; 7 + pad + ESP_TRAILER];
            write_trailer(&mut body[7..], 17);
            assert_eq!(read_trailer(&body), Some((7, 17)));
            for at in 7..7 + pad {
                body[at] ^= 0x80;
                assert_eq!(read_trailer(&body), None, "{pad} octets, {at}");
                body[at] ^= 0x80;
            }
        }
    }

    //= test rfc4303 2.4-1
    #[test]
    fn padding_reaches_the_next_multiple() {
        for align in [4, 16] {
            for payload in 0..64 {
                let pad = padding(payload, align);
                assert!(pad < align);
                assert_eq!((payload + pad + ESP_TRAILER) % align, 0);
            }
        }
    }

    //= test rfc4303 2.4-3
    #[test]
    fn padding_that_does_not_fit_or_count_is_refused() {
        let rows: &[(&[u8], &str)] = &[
            (&[], "nothing"),
            (&[4], "half a trailer"),
            (&[1, 4], "more padding than body"),
            (&[1, 2, 3, 4, 4][..4], "more padding than body, by one"),
            (&[0, 1, 4], "first is not 1"),
            (&[1, 2, 4, 3, 4], "does not count"),
        ];
        for (body, name) in rows {
            assert_eq!(read_trailer(body), None, "{name}");
        }
        assert_eq!(read_trailer(&[1, 2, 3, 3, 4]), Some((0, 4)));
        assert_eq!(read_trailer(&[0, 4]), Some((0, 4)));
    }
}
