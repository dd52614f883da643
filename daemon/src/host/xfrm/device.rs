//! The device that packets between two addresses leave by: what may seal and open them.

use std::net::IpAddr;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Refusal;
use super::wire::{Message, address, family, incoming, u32_at};
use crate::host::nft::attr::find;

const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;
const ERROR: u16 = 2;

const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const BY_DEVICE: u16 = 4;
const MARK: u16 = 16;

/// Octets of `struct rtmsg`.
const LEN: usize = 12;

/// A device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Device {
    /// Its number.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
}

/// Which device packets with this mark take.
///
/// # Errors
/// There is no way, or the system does not tell.
pub(super) fn between(source: IpAddr, destination: IpAddr, mark: u32) -> Result<Device, Refusal> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // Routes are protocol 0 of netlink.
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let mut ask = question(source, destination, mark);
    rustix::net::send(&socket, ask.seal(1, 0, false), SendFlags::empty())?;
    let mut buffer = [0; 4096];
    let (len, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let index = answer(&buffer[..len])?;
    let name = rustix::net::netdevice::index_to_name(&socket, index)?;
    Ok(Device { index, name })
}

fn question(source: IpAddr, destination: IpAddr, mark: u32) -> Message {
    let v4 = destination.is_ipv4();
    let (octets, bits) = if v4 { (4, 32) } else { (16, 128) };
    let mut message = Message::new(GET_ROUTE, 0);
    let mut head = [0; LEN];
    head[..3].copy_from_slice(&[family(v4) as u8, bits, bits]);
    message
        .put(&head)
        .attribute(DESTINATION, &address(destination)[..octets])
        .attribute(SOURCE, &address(source)[..octets])
        .attribute(MARK, &mark.to_ne_bytes());
    message
}

fn answer(octets: &[u8]) -> Result<u32, Refusal> {
    let message = incoming(octets).next();
    let number = message.and_then(|message| match message.kind {
        NEW_ROUTE => find(message.body.get(LEN..)?, BY_DEVICE)
            .and_then(|octets| u32_at(octets, 0))
            .map(Ok),
        ERROR => u32_at(message.body, 0).map(Err),
        _ => None,
    });
    number
        .ok_or(std::io::ErrorKind::InvalidData)
        .map_err(std::io::Error::from)?
        .map_err(|number| {
            std::io::Error::from_raw_os_error((number as i32).saturating_neg()).into()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_goes_to_this_host_takes_the_loopback_device() {
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(between(here, here, 0).unwrap().name, "lo");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = answer(&octets);
        }
    }
}
