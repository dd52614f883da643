//! `psk.txt` where it lies. racoon reads it whenever it needs a secret, so a change of it counts for the
//! next negotiation, without a reload.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use obol_ike::crypto::secret::Secret;
use obol_ike::identity::Identity;
use tracing::{debug, info, warn};

use super::psk::{PskFile, Remark};
use crate::config::files::{Disk, FileProblem, FileSource};

/// A file, and what it held when it was looked at last.
pub(crate) struct PskSource {
    path: PathBuf,
    read: Mutex<Read>,
}

struct Read {
    stamp: Option<Stamp>,
    file: PskFile,
}

/// What differs once a file is another one, or was changed, or may be read by others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl PskSource {
    /// Reads a file, with what is to be said about its lines.
    ///
    /// # Errors
    /// As [`FileSource::psk_txt`].
    pub(crate) fn read(
        files: &dyn FileSource,
        path: PathBuf,
    ) -> Result<(Self, Vec<Remark>), FileProblem> {
        // Before it is read: what changes meanwhile is read once more.
        let stamp = Stamp::of(&path);
        let (file, remarks) = PskFile::read(&files.psk_txt(&path)?);
        let read = Mutex::new(Read { stamp, file });
        Ok((Self { path, read }, remarks))
    }

    /// A file that cannot be used yet, which was said.
    pub(crate) fn late(path: PathBuf) -> Self {
        let read = Mutex::new(Read {
            stamp: Stamp::of(&path),
            file: PskFile::default(),
        });
        Self { path, read }
    }

    /// The secret shared with a peer, as the file is, and whether its line names the peer.
    pub(crate) fn find(&self, peer: &Identity) -> Option<(Secret, bool)> {
        let mut read = self.lock();
        let stamp = Stamp::of(&self.path);
        if stamp != read.stamp {
            *read = Read {
                stamp,
                file: self.read_again(),
            };
        }
        let line = read.file.find(peer)?;
        debug!(%peer, line = line.number, "the secret is from psk.txt");
        Some((Secret::from(line.secret.expose()), line.name != "*"))
    }

    /// How many lines have this secret.
    pub(crate) fn lines_with(&self, secret: &Secret) -> usize {
        self.lock().file.lines_with(secret)
    }

    /// Whether there may be a secret for this peer, `None` being one that nobody knows yet.
    pub(crate) fn may_have(&self, peer: Option<&Identity>) -> bool {
        let read = self.lock();
        match peer {
            Some(peer) => read.file.find(peer).is_some(),
            None => !read.file.is_empty(),
        }
    }

    /// Whom lines name, and the lines.
    pub(crate) fn names(&self) -> Vec<(String, usize)> {
        self.lock().file.names()
    }

    /// What cannot be read holds no secrets: as with racoon, nobody can connect then.
    fn read_again(&self) -> PskFile {
        let path = self.path.display();
        let octets = match Disk.psk_txt(&self.path) {
            Ok(octets) => octets,
            Err(problem) => {
                warn!("{path}: {}; {}", problem.message, problem.fix);
                return PskFile::default();
            }
        };
        info!("{path} has changed");
        let (file, remarks) = PskFile::read(&octets);
        for remark in &remarks {
            warn!("{path}:{}: {}; {}", remark.line, remark.message, remark.fix);
        }
        match remarks.iter().any(|remark| remark.error) {
            true => PskFile::default(),
            false => file,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        let _ = fs::remove_file(path);
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn found(source: &PskSource) -> Option<Vec<u8>> {
        let secret = source.find(&"10.0.1.13".parse().unwrap());
        secret.map(|(secret, _)| secret.expose().to_vec())
    }

    #[test]
    fn r_a6_a_change_counts_for_the_next_negotiation() {
        let name = format!("obol-psk-source-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        write(&path, "* the first secret of all\n", 0o400);
        let (source, _) = PskSource::read(&Disk, path.clone()).unwrap();
        assert_eq!(found(&source).unwrap(), b"the first secret of all");
        write(&path, "10.0.1.13 another\n* the first\n", 0o600);
        assert_eq!(found(&source).unwrap(), b"another");
        assert!(source.may_have(None) && source.names().len() == 1);
        // Open to others, in other words than it may be, or gone: nobody can connect.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(found(&source), None);
        write(&path, "* 0x123\n", 0o600);
        assert_eq!(found(&source), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(found(&source), None);
        let late = PskSource::late(path.clone());
        assert_eq!(found(&late), None);
        write(&path, "* it is there at last\n", 0o600);
        for source in [source, late] {
            assert_eq!(found(&source).unwrap(), b"it is there at last");
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn r_a6_a_link_is_followed_and_the_owner_is_us() {
        let name = format!("obol-psk-link-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        write(&path, "* a secret for this test\n", 0o400);
        let link = path.with_extension("link");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let (source, _) = PskSource::read(&Disk, link.clone()).unwrap();
        assert!(found(&source).is_some());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).unwrap();
            let problem = PskSource::read(&Disk, link.clone())
                .map(|_| ())
                .unwrap_err();
            assert_eq!(problem.message, "has invalid owner uid 1, not 0");
            assert_eq!(found(&source), None);
        }
        fs::remove_file(&link).unwrap();
        fs::remove_file(&path).unwrap();
    }
}
