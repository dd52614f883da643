use super::*;
use crate::ip::V4_HEADER;
use crate::testing::stream::{Proto, Stream};

const ALL: [(bool, Proto); 4] = [
    (false, Proto::Tcp),
    (true, Proto::Tcp),
    (false, Proto::Udp),
    (true, Proto::Udp),
];

fn cut(frame: &Frame<'_>, skip: usize) -> Vec<Vec<u8>> {
    let write = |index| {
        let mut packet = vec![0xee; frame.len(index) - skip];
        frame.write(index, skip, &mut packet);
        packet
    };
    (0..frame.count()).map(write).collect()
}

#[test]
fn a_frame_is_cut_to_the_packets_that_it_stands_for() {
    for (v6, proto) in ALL {
        for (payload, segment) in [(5000, 1360), (2720, 1360), (1361, 1360), (7, 2), (3, 1)] {
            let stream = Stream::new(v6, proto, payload);
            let octets = stream.frame(segment);
            let frame = Frame::parse(&octets).unwrap();
            let want = stream.packets(segment);
            assert_eq!(frame.count(), want.len());
            assert_eq!(cut(&frame, 0), want, "{v6} {proto:?} {payload} {segment}");
            // In transport mode the IP header stays behind.
            let skip = if v6 { V6_HEADER } else { V4_HEADER };
            let bodies: Vec<Vec<u8>> = want.iter().map(|p| p[skip..].to_vec()).collect();
            assert_eq!(cut(&frame, skip), bodies);
        }
    }
}

#[test]
fn flags_stay_with_the_first_or_the_last_segment() {
    let stream = Stream {
        flags: 0x10 | CWR | FIN_PSH,
        ..Stream::new(false, Proto::Tcp, 3000)
    };
    let octets = stream.frame(1000);
    let flags: Vec<u8> = cut(&Frame::parse(&octets).unwrap(), 0)
        .iter()
        .map(|packet| packet[33])
        .collect();
    assert_eq!(flags, [0x10 | CWR, 0x10, 0x10 | FIN_PSH]);
}

#[test]
fn a_missing_checksum_is_made() {
    for (v6, proto) in ALL {
        for len in [1, 2, 33, 1000] {
            let stream = Stream::new(v6, proto, len);
            let want = stream.packets(len);
            let octets = stream.unfinished();
            let frame = Frame::parse(&octets).unwrap();
            assert_eq!(cut(&frame, 0), want);
            let skip = if v6 { V6_HEADER } else { V4_HEADER };
            assert_eq!(cut(&frame, skip), [want[0][skip..].to_vec()]);
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_its_other_form() {
    // One of these payloads makes the sum come out as zero.
    let zero = (0..=u16::MAX).any(|word| {
        let stream = Stream {
            tail: word.to_be_bytes().to_vec(),
            ..Stream::new(false, Proto::Udp, 10)
        };
        let octets = stream.unfinished();
        let packet = &cut(&Frame::parse(&octets).unwrap(), 0)[0];
        assert_ne!(packet[26..28], [0, 0]);
        packet[26..28] == [0xff, 0xff]
    });
    assert!(zero);
}

#[test]
fn octets_after_the_packet_are_left_out() {
    let stream = Stream::new(false, Proto::Udp, 100);
    let mut octets = stream.frame(40);
    octets.extend([1; 50]);
    assert_eq!(cut(&Frame::parse(&octets).unwrap(), 0), stream.packets(40));
}

#[test]
fn a_header_that_lies_is_refused() {
    let parse = |proto, change: &dyn Fn(&mut Offload, &mut Vec<u8>)| {
        let octets = Stream::new(false, proto, 3000).frame(1000);
        let (header, packet) = octets.split_first_chunk().unwrap();
        let mut offload = Offload::parse(header).unwrap();
        let mut packet = packet.to_vec();
        change(&mut offload, &mut packet);
        Frame::parse(&[&offload.emit()[..], &packet].concat()).map(|frame| frame.count())
    };
    let lie = Err(FrameError::Offload);
    assert_eq!(parse(Proto::Tcp, &|_, _| ()), Ok(3));
    assert_eq!(parse(Proto::Tcp, &|o, _| o.segment = 0), lie);
    assert_eq!(parse(Proto::Tcp, &|o, _| o.segment = 2), lie);
    assert_eq!(parse(Proto::Tcp, &|o, _| o.segment = 3), Ok(1000));
    assert_eq!(parse(Proto::Tcp, &|o, _| o.segment = u16::MAX), Ok(1));
    assert_eq!(parse(Proto::Tcp, &|o, _| o.kind = Kind::TcpV6), lie);
    assert_eq!(parse(Proto::Tcp, &|o, _| o.kind = Kind::Udp), lie);
    assert_eq!(parse(Proto::Udp, &|o, _| o.kind = Kind::TcpV4), lie);
    // Data offset: too small, beyond the end, all of it.
    assert_eq!(parse(Proto::Tcp, &|_, p| p[32] = 0x40), lie);
    assert_eq!(
        parse(Proto::Tcp, &|_, p| {
            p[2..4].copy_from_slice(&[0, 45]);
            p[32] = 0xf0
        }),
        lie
    );
    assert_eq!(
        parse(Proto::Tcp, &|_, p| p[2..4].copy_from_slice(&[0, 40])),
        lie
    );
    assert_eq!(
        parse(Proto::Tcp, &|_, p| p[2..4].copy_from_slice(&[0, 30])),
        lie
    );
    assert_eq!(
        parse(Proto::Udp, &|_, p| p[2..4].copy_from_slice(&[0, 28])),
        lie
    );
    // A fragment.
    assert_eq!(parse(Proto::Tcp, &|_, p| p[6] = 0x20), lie);
    assert_eq!(
        parse(Proto::Tcp, &|_, p| p.truncate(10)),
        Err(FrameError::Packet)
    );
    for checksum in [
        (0, 16),
        (19, 16),
        (20, 3031),
        (3031, 20),
        (u16::MAX, u16::MAX),
    ] {
        let alone = |o: &mut Offload, _: &mut Vec<u8>| {
            o.kind = Kind::Packet;
            o.checksum = Some(checksum);
        };
        assert_eq!(parse(Proto::Tcp, &alone), lie, "{checksum:?}");
    }
    assert_eq!(
        Frame::parse(&[0; 9]).map(|f| f.count()),
        Err(FrameError::Packet)
    );
    assert_eq!(
        Frame::parse(&[0; 10]).map(|f| f.count()),
        Err(FrameError::Packet)
    );
}
