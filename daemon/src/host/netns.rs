//! Network namespaces and what is in them, by system calls and netlink alone: the demo and the
//! tests build their hosts with it, on machines that have no `ip` program.
//!
//! A namespace belongs to a thread, so everything that must happen inside one runs on a thread of
//! its own ([`Netns::run`]); sockets made and processes spawned there stay in the namespace.

use super::links::Links;
use rtnetlink::new_connection;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::LinkNameSpaceType;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

/// One network namespace. It lives as long as this value, a clone of it, or a process in it; a
/// named one also loses its name when the value that made it is dropped.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    name: Option<Arc<Name>>,
}

impl Netns {
    /// A new namespace that only this process can find. Its loopback device is up.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn anonymous() -> io::Result<Self> {
        let fd = on_thread(|| {
            crate::sys::netns::unshare_network().map_err(naming("make a network namespace"))?;
            open_current()
        })??;
        let netns = Self {
            fd: Arc::new(fd),
            name: None,
        };
        netns.configure(async |links| links.up("lo").await)?;
        Ok(netns)
    }

    /// A new namespace that `ip netns exec NAME` and [`Netns::open`] find by its name: a file in
    /// /run/netns to which the namespace is bound.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken, `PermissionDenied` without CAP_SYS_ADMIN.
    pub fn named(name: &str) -> io::Result<Self> {
        let mut netns = Self::anonymous()?;
        let path = path_of(name);
        std::fs::create_dir_all(DIRECTORY).map_err(naming(DIRECTORY))?;
        let what = path.display().to_string();
        File::create_new(&path).map_err(naming(&what))?;
        let bound = netns.run(|| rustix::mount::mount_bind(CURRENT, &path));
        let bound = bound.and_then(|mounted| mounted.map_err(io::Error::from));
        if let Err(error) = bound {
            // The file was made three lines up, and nothing is bound to it.
            let _ = std::fs::remove_file(&path);
            return Err(naming(&what)(error));
        }
        netns.name = Some(Arc::new(Name(name.to_owned())));
        Ok(netns)
    }

    /// The namespace that bears this name; it keeps the name when the value is dropped.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn open(name: &str) -> io::Result<Self> {
        let path = path_of(name);
        let fd = open(&path).map_err(naming(&path.display().to_string()))?;
        Ok(Self {
            fd: Arc::new(fd),
            name: None,
        })
    }

    /// Takes the name from a namespace; says whether there was one of this name.
    ///
    /// # Errors
    /// What the system says if the file cannot be removed.
    pub fn delete_named(name: &str) -> io::Result<bool> {
        let path = path_of(name);
        // A file to which nothing is bound is the trace of a crash: it goes as well.
        let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(naming(&path.display().to_string())(error)),
        }
    }

    /// Runs `f` on a thread inside the namespace, and waits for it.
    ///
    /// # Errors
    /// If the thread cannot be started or cannot enter the namespace.
    ///
    /// # Panics
    /// If `f` panics.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            self.enter()?;
            Ok(f())
        })?
    }

    /// Runs `f` on a thread inside the namespace, and does not wait.
    ///
    /// # Errors
    /// If the thread cannot be started. One that cannot enter the namespace says so when joined.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<thread::JoinHandle<io::Result<T>>> {
        let netns = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            netns.enter()?;
            Ok(f())
        })
    }

    /// Runs `f` on a thread inside the namespace, in a runtime of its own.
    ///
    /// # Errors
    /// As [`Netns::run`], and if no runtime can be made.
    pub fn block_on<T: Send>(&self, f: impl AsyncFnOnce() -> T + Send) -> io::Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(f()))
        })?
    }

    /// Runs `f` inside the namespace, with what changes its devices, addresses and routes.
    ///
    /// # Errors
    /// As [`Netns::block_on`], and what `f` returns.
    pub fn configure<T: Send>(
        &self,
        f: impl AsyncFnOnce(&Links) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        self.block_on(async || {
            let (connection, handle, _) = new_connection()?;
            let connection = tokio::spawn(connection);
            let done = f(&Links { handle }).await;
            connection.abort();
            done
        })?
    }

    /// Joins two namespaces by a pair of virtual Ethernet devices, both up. An end is the name of
    /// its device, its address and prefix length.
    ///
    /// # Errors
    /// As [`Netns::configure`]; `AlreadyExists` if a device of that name exists.
    pub fn join(
        &self,
        (name, address, prefix): (&str, IpAddr, u8),
        other: &Self,
        (other_name, other_address, other_prefix): (&str, IpAddr, u8),
    ) -> io::Result<()> {
        self.configure(async |links| {
            links.veth_to(name, other, other_name).await?;
            links.address(name, address, prefix).await?;
            links.up(name).await
        })?;
        other.configure(async |links| {
            links
                .address(other_name, other_address, other_prefix)
                .await?;
            links.up(other_name).await
        })
    }

    /// Sets a value below /proc/sys, for instance `net/ipv4/ip_forward`, in the namespace.
    ///
    /// # Errors
    /// What the system says, with the name of the value.
    pub fn sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{key}"), value).map_err(naming(key)))?
    }

    /// The processes whose main thread is in the namespace.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let wanted = rustix::fs::fstat(&self.fd)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process that ended since the directory was read is not in the namespace.
            let namespace = rustix::fs::stat(format!("/proc/{pid}/ns/net"));
            if namespace.is_ok_and(|n| (n.st_dev, n.st_ino) == (wanted.st_dev, wanted.st_ino)) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn enter(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| naming("enter the network namespace")(error.into()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The name of a namespace, given back when the last value that holds it is dropped.
#[derive(Debug)]
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        // Whoever wants to know calls `delete_named` itself.
        let _ = Netns::delete_named(&self.0);
    }
}

/// Where `ip netns` keeps names.
const DIRECTORY: &str = "/run/netns";
/// The network namespace of the calling thread. (/proc/self would be that of the main thread.)
const CURRENT: &str = "/proc/thread-self/ns/net";

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(name)
}

fn open_current() -> io::Result<OwnedFd> {
    open(CURRENT).map_err(naming(CURRENT))
}

fn open(path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
}

/// Runs `f` on a new thread, so that the namespace of the caller stays as it is.
fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        Ok(handle
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

pub(super) fn naming(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    let what = what.to_owned();
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::time::Duration;

    fn root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            println!("skipped: namespaces need root");
        }
        root
    }

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn datagrams_cross_between_two_namespaces_and_not_outside() {
        if !root() {
            return;
        }
        let (a, b) = (Netns::anonymous().unwrap(), Netns::anonymous().unwrap());
        a.join(("left", A, 24), &b, ("right", B, 24)).unwrap();
        let receiver = b.run(|| UdpSocket::bind((B, 4444))).unwrap().unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let sent = a.run(|| UdpSocket::bind((A, 0))?.send_to(b"over the wire", (B, 4444)));
        assert_eq!(sent.unwrap().unwrap(), 13);
        let mut buffer = [0; 64];
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"over the wire"[..], A));
        UdpSocket::bind((A, 0)).expect_err("the address is in the namespace only");
    }

    #[test]
    fn a_name_finds_the_namespace_until_it_is_dropped() {
        if !root() {
            return;
        }
        let name = format!("obol-test-{}", std::process::id());
        let first = Netns::named(&name).unwrap();
        let taken = Netns::named(&name).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        first
            .configure(async |links| {
                links.veth("mark0", "mark1").await?;
                links.up("mark0").await
            })
            .unwrap();
        let again = Netns::open(&name).unwrap();
        assert!(
            again
                .configure(async |links| Ok(links.is_up("mark0").await))
                .unwrap()
        );
        drop(first);
        assert_eq!(
            Netns::open(&name).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert!(!Netns::delete_named(&name).unwrap());
    }

    #[test]
    fn devices_addresses_routes_and_settings() {
        if !root() {
            return;
        }
        let netns = Netns::anonymous().unwrap();
        let (local, remote) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let network = (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24);
        netns
            .configure(async |links| {
                links.veth("d0", "d1").await?;
                links.up("d0").await?;
                links.up("d1").await?;
                links.mtu("d0", 1400).await?;
                links.address("d0", A, 24).await?;
                links.route(network, "d0", Some(B)).await?;
                links.vxlan("v0", 1, 8472, local, remote, "d0").await?;
                let mut names = links.names().await?;
                names.sort();
                assert_eq!(names, ["d0", "d1", "lo", "v0"]);
                links.delete("v0").await?;
                let missing = links.index("v0").await.unwrap_err();
                assert_eq!(missing.kind(), io::ErrorKind::NotFound);
                Ok(())
            })
            .unwrap();
        netns.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let forward = netns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
        assert_eq!(forward.unwrap().unwrap().trim(), "1");
        assert!(netns.processes().unwrap().is_empty());
    }
}
