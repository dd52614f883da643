//! Reading files, and refusing those that others can read or swap.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

/// Largest key file in octets. An RSA key of 8192 bits takes 7 KiB as PEM.
const KEY_LIMIT: u64 = 64 * 1024;

/// Largest configuration file in octets: some ten thousand connections.
const TEXT_LIMIT: u64 = 16 * 1024 * 1024;

/// Mode bits of the group and of others.
const FOREIGN_BITS: u32 = 0o077;

/// The mode bit that lets anybody write.
const ANYBODY_WRITES: u32 = 0o002;

/// Mode bits that let the group or others read.
const FOREIGN_READ_BITS: u32 = 0o044;

/// Why a file cannot be used, and what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FileProblem {
    /// What is wrong.
    pub(crate) message: String,
    /// What to change.
    pub(crate) fix: String,
}

/// Where key and secret files come from: the disk, or a table in tests.
pub(crate) trait FileSource {
    /// The content of a file that may be public.
    ///
    /// # Errors
    /// It cannot be read.
    fn public(&self, path: &Path) -> Result<Vec<u8>, FileProblem>;

    /// The content of a file that holds a secret.
    ///
    /// # Errors
    /// It cannot be read, or is not private to its owner: has mode bits for the group or for
    /// others, is a symbolic link, is no regular file.
    fn secret(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem>;

    /// The content of a `psk.txt`, which racoon finds by links too, and takes from its own user alone.
    ///
    /// # Errors
    /// In racoon's words: it cannot be read, or is not private to its owner, or the owner is somebody else.
    fn psk_txt(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        self.secret(path)
    }
}

/// The file system.
pub(crate) struct Disk;

/// No files at all.
pub(crate) struct NoFiles;

impl FileSource for Disk {
    fn public(&self, path: &Path) -> Result<Vec<u8>, FileProblem> {
        let file = open(path, OFlags::empty())?;
        regular(&file, path)?;
        read(file, path, KEY_LIMIT).map(|octets| octets.to_vec())
    }

    fn secret(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        let file = open(path, OFlags::NOFOLLOW)?;
        let mode = regular(&file, path)?;
        if mode & FOREIGN_BITS != 0 {
            return Err(FileProblem {
                message: format!("{} is open to others (mode {mode:04o})", path.display()),
                fix: format!("chmod 600 {}", path.display()),
            });
        }
        let owner = owner(&file, path)?;
        let own = rustix::process::geteuid().as_raw();
        if owner != own && owner != 0 {
            return Err(FileProblem {
                message: format!("{} belongs to another user (uid {owner})", path.display()),
                fix: format!("chown {own} {}", path.display()),
            });
        }
        read(file, path, KEY_LIMIT)
    }

    fn psk_txt(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        let file = open(path, OFlags::empty())?;
        let mode = regular(&file, path)?;
        if mode & FOREIGN_BITS != 0 {
            return Err(FileProblem {
                message: format!("has weak file permission: others may open it (mode {mode:04o})"),
                fix: format!("chmod 600 {}", path.display()),
            });
        }
        let owner = owner(&file, path)?;
        let own = rustix::process::geteuid().as_raw();
        if owner != own {
            return Err(FileProblem {
                message: format!("has invalid owner uid {owner}, not {own}"),
                fix: format!("chown {own} {}", path.display()),
            });
        }
        read(file, path, TEXT_LIMIT)
    }
}

impl FileSource for NoFiles {
    fn public(&self, path: &Path) -> Result<Vec<u8>, FileProblem> {
        Err(unreadable(path, "there are no files here"))
    }

    fn secret(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
        Err(unreadable(path, "there are no files here"))
    }
}

/// A configuration text, and whether others than its owner may read it.
///
/// # Errors
/// It cannot be read, or is no UTF-8; or anybody may write it, and have us run what they like.
pub(crate) fn read_text(path: &Path) -> Result<(String, bool), FileProblem> {
    let file = open(path, OFlags::empty())?;
    let mode = regular(&file, path)?;
    if mode & ANYBODY_WRITES != 0 {
        return Err(FileProblem {
            message: format!("anybody may change {} (mode {mode:04o})", path.display()),
            fix: format!("chmod o-w {}", path.display()),
        });
    }
    let octets = read(file, path, TEXT_LIMIT)?;
    let text = std::str::from_utf8(&octets).map_err(|e| FileProblem {
        message: format!("{} is no text: {e}", path.display()),
        fix: "save it as UTF-8".into(),
    })?;
    Ok((text.to_owned(), mode & FOREIGN_READ_BITS != 0))
}

fn open(path: &Path, flags: OFlags) -> Result<File, FileProblem> {
    // NONBLOCK: opening a pipe must not wait for its writer.
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::LOOP) if flags.contains(OFlags::NOFOLLOW) => Err(FileProblem {
            message: format!("{} is a symbolic link", path.display()),
            fix: "name the file itself: whoever can move a link can swap the secret".into(),
        }),
        Err(e) => Err(unreadable(path, &std::io::Error::from(e).to_string())),
    }
}

fn owner(file: &File, path: &Path) -> Result<u32, FileProblem> {
    let metadata = file.metadata();
    let metadata = metadata.map_err(|e| unreadable(path, &e.to_string()))?;
    Ok(metadata.uid())
}

/// The mode of an open file, which must be a regular one.
fn regular(file: &File, path: &Path) -> Result<u32, FileProblem> {
    let metadata = file
        .metadata()
        .map_err(|e| unreadable(path, &e.to_string()))?;
    if !metadata.is_file() {
        return Err(unreadable(path, "it is no regular file"));
    }
    Ok(metadata.mode() & 0o7777)
}

fn read(file: File, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileProblem> {
    let mut octets = Zeroizing::new(Vec::new());
    file.take(limit + 1)
        .read_to_end(&mut octets)
        .map_err(|e| unreadable(path, &e.to_string()))?;
    if octets.len() as u64 > limit {
        return Err(unreadable(
            path,
            &format!("it is larger than {limit} bytes"),
        ));
    }
    Ok(octets)
}

fn unreadable(path: &Path, why: &str) -> FileProblem {
    FileProblem {
        message: format!("cannot read {}: {why}", path.display()),
        fix: "check the path and who may read it; paths start from this file's directory".into(),
    }
}
