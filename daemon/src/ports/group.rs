//! Port 4500 for several receivers: the workers of our own data plane, and the kernel's ESP.
//!
//! ```text
//!  all sockets of the port -> a filter looks at the SPI:
//!    none: IKE   -> the first socket
//!    lower half  -> the socket of the worker whose it is
//!    upper half  -> one more socket, if the kernel opens those
//! ```
//!
//! On a socket with `UDP_ENCAP` the kernel takes all ESP off, whether it knows the SPI or not. So it
//! has the first one where nobody else wants ESP, and else one of its own.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use socket2::{Domain, Socket};

use super::{Encapsulation, Ports, RawEsp, Role, by_worker, udp};
use crate::dataplane::DataPlaneError;
use crate::host::HostSettings;
use crate::host::xfrm::{Direction, socket_bypass};
use crate::sys::{msg, sockopt, steer};

/// The policy of one socket.
const IPV6_XFRM_POLICY: i32 = 35;

/// `UDP_ENCAP` and its value for RFC 3948.
const UDP_ENCAP: i32 = 100;
const ESP_IN_UDP: i32 = 2;

/// Has the kernel take ESP off a socket, and open it packet by packet; or no longer.
///
/// # Errors
/// The kernel cannot.
pub(crate) fn encapsulate(socket: impl AsFd, by_kernel: bool) -> io::Result<()> {
    let socket = socket.as_fd();
    if !by_kernel {
        sockopt::set(socket, libc::SOL_UDP, UDP_ENCAP, 0)?;
        msg::receive_rows(socket);
        return Ok(());
    }
    sockopt::set(socket, libc::SOL_UDP, libc::UDP_GRO, 0)?;
    sockopt::set(socket, libc::SOL_UDP, UDP_ENCAP, ESP_IN_UDP)
}

impl Ports {
    /// The sockets of port 4500 for each of so many workers. Of ESP, each gets the SPIs of its worker;
    /// the first gets all else. Where the kernel takes ESP off, it does so on all of them, until
    /// [`Ports::apart`]. To be called once.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn share(
        &self,
        settings: &HostSettings,
        workers: usize,
        by_kernel: bool,
    ) -> Result<Vec<Encapsulation>, DataPlaneError> {
        let open = |first, domain| share(first, domain, settings, workers, by_kernel);
        let v4 = open(&self.natt.v4, Domain::IPV4)?;
        let v6 = self.natt.v6.as_ref();
        let v6 = v6.map(|first| open(first, Domain::IPV6)).transpose()?;
        let all = by_worker(v4, v6).map(|(v4, v6)| Encapsulation {
            v4,
            v6,
            port: self.natt_port,
        });
        Ok(all.collect())
    }

    /// The sockets of port 4500 for the kernel's ESP, beside those of the workers: it gets the upper
    /// half of the SPIs, and takes no ESP off any other. To be called once, after
    /// [`Ports::share`].
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn apart(
        &self,
        settings: &HostSettings,
        workers: &[Encapsulation],
    ) -> Result<Encapsulation, DataPlaneError> {
        let open = |first: &Arc<Socket>, domain| {
            let socket = join(first, domain, settings, true)?;
            steer::share_port(&socket, workers.len(), true).map_err(|source| {
                let what = "cannot tell the kernel's ESP in UDP from our own (BPF filters of SO_REUSEPORT): use one data plane for all connections";
                DataPlaneError::system(what, source)
            })?;
            Ok(Arc::new(socket))
        };
        let v6 = self.natt.v6.as_ref();
        let apart = Encapsulation {
            v4: open(&self.natt.v4, Domain::IPV4)?,
            v6: v6.map(|first| open(first, Domain::IPV6)).transpose()?,
            port: self.natt_port,
        };
        let sockets = workers.iter().flat_map(Encapsulation::sockets);
        for (socket, _) in sockets {
            encapsulate(&**socket, false).map_err(cannot_share)?;
        }
        Ok(apart)
    }

    /// Lets all that these sockets send and receive pass policies of the kernel: IKE makes the SAs,
    /// and cannot wait for them; and ESP in UDP is asked about before it is opened.
    ///
    /// # Errors
    /// The kernel has no XFRM, or a right is missing.
    pub(crate) fn bypass_policies(&self) -> Result<(), DataPlaneError> {
        bypass(&self.ike_v4, true)?;
        if let Some(ike_v6) = &self.ike_v6 {
            bypass(ike_v6, false)?;
        }
        self.natt.bypass_policies()
    }
}

impl Encapsulation {
    /// The sockets, and whether each is of IPv4.
    fn sockets(&self) -> impl Iterator<Item = (&Arc<Socket>, bool)> {
        let v6 = self.v6.iter().map(|socket| (socket, false));
        std::iter::once((&self.v4, true)).chain(v6)
    }

    /// As [`Ports::bypass_policies`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn bypass_policies(&self) -> Result<(), DataPlaneError> {
        let mut sockets = self.sockets();
        sockets.try_for_each(|(socket, v4)| bypass(&**socket, v4))
    }
}

impl RawEsp {
    /// Leaves the upper half of the SPIs to the kernel, and lets ESP of ours pass its policies.
    /// `own`: which worker this is, of how many.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn leave_to_kernel(&self, own: (usize, usize)) -> Result<(), DataPlaneError> {
        for v4 in [true, false] {
            let Some(socket) = self.by_family(v4) else {
                continue;
            };
            bypass(&**socket, v4)?;
            steer::take_only(&**socket, v4, own, true).map_err(|source| {
                DataPlaneError::system("cannot tell the kernel's ESP from our own", source)
            })?;
        }
        Ok(())
    }
}

/// Lets what a socket sends and receives pass policies of the kernel.
pub(super) fn bypass(socket: impl AsFd, v4: bool) -> Result<(), DataPlaneError> {
    let (level, name) = match v4 {
        true => (libc::IPPROTO_IP, libc::IP_XFRM_POLICY),
        false => (libc::IPPROTO_IPV6, IPV6_XFRM_POLICY),
    };
    for direction in [Direction::In, Direction::Out] {
        let policy = socket_bypass(v4, direction);
        sockopt::set_octets(socket.as_fd(), level, name, &policy).map_err(|source| {
            DataPlaneError::system("cannot exempt IKE from IPsec policies", source)
        })?;
    }
    Ok(())
}

/// The sockets of a port that several workers share, the first of which is open.
fn share(
    first: &Arc<Socket>,
    domain: Domain,
    settings: &HostSettings,
    workers: usize,
    by_kernel: bool,
) -> Result<Vec<Arc<Socket>>, DataPlaneError> {
    let mut sockets = vec![Arc::clone(first)];
    if workers <= 1 {
        return Ok(sockets);
    }
    for _ in 1..workers {
        let socket = join(first, domain, settings, by_kernel)?;
        if !by_kernel {
            msg::receive_rows(&socket);
        }
        sockets.push(Arc::new(socket));
    }
    if let Err(error) = steer::share_port(&**first, workers, false) {
        tracing::warn!(%error, "packets have to be passed on between workers");
    }
    Ok(sockets)
}

/// One more socket of the port.
fn join(
    first: &Socket,
    domain: Domain,
    settings: &HostSettings,
    by_kernel: bool,
) -> Result<Socket, DataPlaneError> {
    // Only now, so that a port of somebody else's was refused.
    first.set_reuse_port(true).map_err(cannot_share)?;
    let role = match by_kernel {
        true => Role::JoinsForKernel,
        false => Role::Joins,
    };
    udp(domain, settings.natt_port, settings.fwmark, role)
}

fn cannot_share(source: io::Error) -> DataPlaneError {
    DataPlaneError::system("cannot share a UDP port", source)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use socket2::{Protocol, Type};

    use super::*;
    use crate::host::netns::Netns;

    /// What a socket has received.
    fn all(socket: &Socket, skip: usize) -> Vec<Vec<u8>> {
        let (mut buffer, mut got) = ([0; 64], Vec::new());
        while let Ok(received) = msg::receive(socket, &mut buffer) {
            got.push(buffer[skip..received.len].to_vec());
        }
        got
    }

    #[test]
    fn the_kernel_has_a_socket_of_its_own_for_the_upper_half() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: marks and low ports need root");
            return;
        }
        let receive = async || {
            let settings = HostSettings::for_tests();
            for workers in [1, 3] {
                let ports = Ports::open(&settings).unwrap();
                let raw = RawEsp::open(&settings, workers).unwrap();
                let udp = ports.share(&settings, workers, false).unwrap();
                let apart = ports.apart(&settings, &udp).unwrap();
                for (own, raw) in raw.iter().enumerate() {
                    raw.leave_to_kernel((own, workers)).unwrap();
                }
                // It is of no consequence here that the kernel takes none of it.
                encapsulate(&*apart.v4, false).unwrap();
                let sender = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
                let bare = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(50))).unwrap();
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
                let mut expected = vec![Vec::new(); workers + 1];
                for spi in [0x100_u32, 0x101, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
                    let octets = [&spi.to_be_bytes()[..], b"rest"].concat();
                    sender.send_to(&octets, "127.0.0.1:4500").unwrap();
                    bare.send_to(&octets, &to).unwrap();
                    let upper = spi >> 31 == 1;
                    let owner = if upper {
                        workers
                    } else {
                        steer::worker_of(spi, workers)
                    };
                    expected[owner].push(octets);
                }
                for other in [&b"\xff"[..], b"\0\0\0\0IKE"] {
                    sender.send_to(other, "127.0.0.1:4500").unwrap();
                    expected[0].push(other.to_vec());
                }
                assert_eq!(all(&apart.v4, 0), expected[workers]);
                for (worker, mut expected) in expected[..workers].iter().cloned().enumerate() {
                    assert_eq!(all(&udp[worker].v4, 0), expected);
                    expected.retain(|octets| octets.ends_with(b"rest"));
                    assert_eq!(all(&raw[worker].v4, 20), expected);
                }
            }
        };
        Netns::anonymous().unwrap().block_on(receive).unwrap();
    }
}
