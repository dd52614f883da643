//! Sends ESP in UDP that a receiver must drop, as fast as it is told: for `benches/junk`.
//!
//! `blast FROM TO SPI RATE SECONDS`: addresses with ports; the SPI of an SA of the receiver, 8 hex
//! digits; packets per second. In turn: an SPI of nobody, a wrong ICV, a sequence number long gone,
//! and a runt. Prints how many it sent.
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// As long as ESP of a full packet.
const LEN: usize = 1_432;
/// No rekey gets so far.
const AHEAD: u32 = 0x7000_0000;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, spi, rate, seconds] = &arguments[..] else {
        return Err(io::Error::other("usage: blast FROM TO SPI RATE SECONDS"));
    };
    let spi = u32::from_str_radix(spi, 16).map_err(io::Error::other)?;
    let rate: u32 = rate.parse().map_err(io::Error::other)?;
    let seconds: u32 = seconds.parse().map_err(io::Error::other)?;
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    let begin = Instant::now();
    for number in 0..rate * seconds {
        // In bursts of a millisecond: no clock is finer under load.
        let due = begin + Duration::from_secs(1) * number / rate;
        let early = due.saturating_duration_since(Instant::now());
        if early > Duration::from_millis(1) {
            std::thread::sleep(early);
        }
        socket.send(&packet(spi, number))?;
    }
    println!("{}", rate * seconds);
    Ok(())
}

fn packet(spi: u32, number: u32) -> Vec<u8> {
    let (spi, sequence, len) = match number % 4 {
        0 => (spi ^ (1 + number), number, LEN),
        1 => (spi, AHEAD + number, LEN),
        2 => (spi, 1, LEN),
        _ => (spi, number, 9),
    };
    let mut packet = vec![number as u8; len];
    packet[..4].copy_from_slice(&spi.to_be_bytes());
    packet[4..8].copy_from_slice(&sequence.to_be_bytes());
    packet
}
