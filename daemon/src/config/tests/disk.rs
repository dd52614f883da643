//! Files on the disk: which are read, and which are refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::HOSTS;
use crate::config::files::{Disk, FileSource};
use crate::config::{load, load_daemon};

/// A directory that goes when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("obol-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn error(path: &Path) -> String {
    load(path)
        .expect_err("the configuration is wrong")
        .to_string()
}

/// The documented file with its secret in a file.
fn with_secret_file() -> String {
    HOSTS.replace(
        "secret = \"0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\"",
        "file = \"hosts.psk\"",
    )
}

#[test]
fn a_file_with_a_secret_must_be_private() {
    let directory = Directory::new("private");
    let path = directory.write("a.toml", HOSTS, 0o600);
    assert_eq!(load(&path).unwrap().files, std::slice::from_ref(&path));
    for mode in [0o640, 0o604] {
        directory.write("a.toml", HOSTS, mode);
        let error = error(&path);
        assert!(error.contains("a.toml:30:10:"), "{error}");
        assert!(
            error.contains("holds a secret, and others may read it"),
            "{error}"
        );
        assert!(error.contains("chmod 600"), "{error}");
    }
    let path = directory.write("b.toml", &with_secret_file(), 0o644);
    directory.write("hosts.psk", "0sZGVtby1zZWNyZXQtZGVtby1zZWNyZXQ=\n", 0o600);
    assert!(load(&path).is_ok(), "a file without a secret may be public");
    directory.write("b.toml", &with_secret_file(), 0o646);
    let error = error(&path);
    assert!(error.contains("anybody may change"), "{error}");
    assert!(error.contains("(mode 0646)"), "{error}");
}

#[test]
fn secret_files_of_another_user_are_refused() {
    let directory = Directory::new("owner");
    let path = directory.write("a.toml", &with_secret_file(), 0o644);
    let secret = directory.write("hosts.psk", "a long enough secret", 0o600);
    assert!(load(&path).is_ok());
    if let Err(error) = std::os::unix::fs::chown(&secret, Some(12_345), None) {
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        println!("skipped: only root can give a file to another user");
        return;
    }
    let error = error(&path);
    assert!(
        error.contains("belongs to another user (uid 12345)"),
        "{error}"
    );
}

#[test]
fn secret_files_must_be_private_regular_files() {
    let directory = Directory::new("secrets");
    let path = directory.write("a.toml", &with_secret_file(), 0o644);
    let missing = error(&path);
    assert!(missing.contains("a.toml:30:8: cannot read"), "{missing}");
    for mode in [0o640, 0o604, 0o610, 0o620] {
        directory.write("hosts.psk", "a long enough secret", mode);
        let error = error(&path);
        assert!(error.contains("is open to others"), "{error}");
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
    }
    fs::remove_file(directory.0.join("hosts.psk")).unwrap();
    let real = directory.write("real.psk", "a long enough secret", 0o600);
    symlink(&real, directory.0.join("hosts.psk")).unwrap();
    let link = error(&path);
    assert!(link.contains("is a symbolic link"), "{link}");
    fs::remove_file(directory.0.join("hosts.psk")).unwrap();
    fs::create_dir(directory.0.join("hosts.psk")).unwrap();
    fs::set_permissions(
        directory.0.join("hosts.psk"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    let no_file = error(&path);
    assert!(no_file.contains("it is no regular file"), "{no_file}");
}

#[test]
fn files_have_a_limit() {
    let directory = Directory::new("limit");
    let path = directory.write("big", &"x".repeat(65_537), 0o600);
    assert!(
        Disk.secret(&path)
            .unwrap_err()
            .message
            .contains("larger than 65536")
    );
    let path = directory.write("fits", &"x".repeat(65_536), 0o600);
    assert_eq!(Disk.secret(&path).unwrap().len(), 65_536);
    assert_eq!(Disk.public(&path).unwrap().len(), 65_536);
}

#[test]
fn conf_d_is_read_beside_obol_toml() {
    let directory = Directory::new("confd");
    let (connections, secrets) = HOSTS.split_at(HOSTS.find("[secrets").unwrap());
    let main = directory.write("obol.toml", "[daemon]\ntun = \"obol7\"\n", 0o644);
    directory.write("conf.d/b.toml", secrets, 0o600);
    directory.write("conf.d/a.toml", connections, 0o644);
    directory.write("conf.d/notes.txt", "not TOML", 0o644);
    let loaded = load(&main).unwrap();
    assert_eq!(loaded.daemon.tun, "obol7");
    assert_eq!(loaded.ike.connections.len(), 1);
    let names: Vec<_> = loaded.files.iter().filter_map(|f| f.file_name()).collect();
    assert_eq!(names, ["obol.toml", "a.toml", "b.toml"]);

    directory.write("conf.d/c.toml", HOSTS, 0o600);
    let twice = error(&main);
    assert!(
        twice.contains("c.toml:3:14: two connections are called hosts"),
        "{twice}"
    );
    assert!(twice.contains("conf.d/a.toml:3:14"), "{twice}");
    assert!(twice.contains("two secrets are called hosts"), "{twice}");

    directory.write("conf.d/c.toml", "[daemon]\n", 0o600);
    let twice = error(&main);
    assert!(
        twice.contains("c.toml:1:1: there are two [daemon] tables"),
        "{twice}"
    );
}

#[test]
fn the_daemons_settings_do_not_need_the_rest() {
    let directory = Directory::new("settings");
    let text = "[connections.x]\nnonsense = 1\n[daemon]\ntable = 77\n";
    let path = directory.write("a.toml", text, 0o644);
    assert_eq!(load_daemon(&path).unwrap().table, 77);
    assert!(load(&path).is_err());
    assert!(load_daemon(&directory.0.join("none.toml")).is_err());
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let directory = Directory::new("binary");
    let path = directory.0.join("a.toml");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let error = error(&path);
    assert!(error.contains("is no text"), "{error}");
    let missing = self::error(&directory.0.join("none.toml"));
    assert!(missing.contains("none.toml: cannot read"), "{missing}");
}
