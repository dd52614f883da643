//! NAT detection, RFC 7296 section 2.23.

use std::net::{IpAddr, SocketAddr};

use sha1::{Digest, Sha1};

use crate::event::IkeSpi;

/// Port of IKE where no NAT is known.
pub(crate) const IKE_PORT: u16 = 500;
/// Port of IKE and of ESP in UDP, RFC 3948.
pub(crate) const NAT_PORT: u16 = 4500;

/// Where NATs were seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Nat {
    /// Before us: our packets arrive with another source than they left with.
    pub(crate) local: bool,
    /// Before the peer.
    pub(crate) remote: bool,
}

impl Nat {
    /// Whether there is one at all.
    pub(crate) fn any(self) -> bool {
        self.local || self.remote
    }
}

/// Data of NAT_DETECTION_SOURCE_IP and NAT_DETECTION_DESTINATION_IP:
/// `SHA-1(SPIi | SPIr | IP | port)`. SHA-1 serves as a fingerprint here, not as protection.
pub(crate) fn hash(spi_i: IkeSpi, spi_r: IkeSpi, address: SocketAddr) -> [u8; 20] {
    let mut sha = Sha1::new();
    sha.update(spi_i.0.to_be_bytes());
    sha.update(spi_r.0.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => sha.update(ip.octets()),
        IpAddr::V6(ip) => sha.update(ip.octets()),
    }
    sha.update(address.port().to_be_bytes());
    sha.finalize().into()
}

//= rfc7296 2.23-8
//= security S-33
/// Compares what the peer says of itself (`sources`, at least one of which must fit) and of us
/// with the addresses that its message came with. A peer that says nothing does no NAT
/// traversal.
pub(crate) fn detect(
    spi_i: IkeSpi,
    spi_r: IkeSpi,
    path: crate::config::Path,
    sources: &[Vec<u8>],
    destination: Option<&[u8]>,
) -> Nat {
    let remote = hash(spi_i, spi_r, path.remote);
    let local = hash(spi_i, spi_r, path.local);
    Nat {
        local: destination.is_some_and(|seen| seen != local),
        remote: !sources.is_empty() && !sources.iter().any(|seen| *seen == remote),
    }
}
