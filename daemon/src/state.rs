//! What outlives the daemon: the secret that makes tokens of quick crash detection (RFC 6290
//! section 5.1), and the one that makes the keys of tickets (RFC 5723), if it is to be kept. Nothing
//! else that a session is protected with is ever written down.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use obol_ike::crypto::secret::Secret;
use zeroize::Zeroizing;

use crate::config::files::{Disk, FileSource as _};
use crate::error::{ExitClass, Failure};

/// Where it is unless the configuration says otherwise.
pub(crate) const DEFAULT_DIR: &str = "/var/lib/obol";

/// The file of the secret for crash tokens.
pub(crate) const CRASH: &str = "crash.key";
/// The file of the secret for tickets.
pub(crate) const TICKETS: &str = "tickets.key";

/// Octets of a secret, RFC 6290 section 5.1.
const SECRET_LEN: usize = 32;

/// Reads a secret of this host, and makes it if there is none.
///
/// # Errors
/// The file cannot be made or read, is open to others, or holds something else.
pub(crate) fn secret(dir: &Path, file: &str) -> Result<Secret, Failure> {
    let path = dir.join(file);
    if !path.exists() {
        make(dir, &path)
            .map_err(|e| Failure::system(format!("cannot make {}", path.display()), &e))?;
    }
    let octets = Disk.secret(&path).map_err(|problem| {
        let text = format!("{}: {}", problem.message, problem.fix);
        Failure::new(ExitClass::Config, text)
    })?;
    if octets.len() != SECRET_LEN {
        let text = format!(
            "{} does not hold {SECRET_LEN} octets: remove it, and a new one is made",
            path.display()
        );
        return Err(Failure::new(ExitClass::Config, text));
    }
    Ok(Secret::new(octets.to_vec()))
}

/// Writes a new secret in one step: there is never half of one under its name.
fn make(dir: &Path, path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    getrandom::fill(&mut *secret).map_err(std::io::Error::other)?;
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&*secret)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_nobody_elses_to_read() {
        let dir = std::env::temp_dir().join(format!("obol-state-{}", std::process::id()));
        let inner = dir.join("var/lib/obol");
        let first = secret(&inner, CRASH).expect("made");
        let again = secret(&inner, CRASH).expect("read");
        assert!(first.ct_eq(&again));
        assert_eq!(first.len(), SECRET_LEN);
        let file = inner.join(CRASH);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&inner)), (0o600, 0o700));

        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&file, open).unwrap();
        let failure = secret(&inner, CRASH).expect_err("open to others");
        assert!(failure.message.contains("chmod 600"), "{failure}");
        std::fs::remove_file(&file).unwrap();
        let fresh = secret(&inner, CRASH).expect("made anew");
        assert!(!fresh.ct_eq(&first));
        let other = secret(&inner, TICKETS).expect("made");
        assert!(!other.ct_eq(&fresh));
        std::fs::write(&file, b"short").unwrap();
        assert!(secret(&inner, CRASH).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
