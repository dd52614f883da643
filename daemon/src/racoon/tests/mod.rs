//! What files of racoon mean, with the files of people who use it.

mod conf;
mod setkey;
mod translate;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use obol_ike::proposal::Allowed;

use super::names::Names;
use super::{Kind, Understood, load};

/// What all of a user's MongoDB hosts load with setkey.
const MONGODB: &str = include_str!("mongodb.conf");

/// Their `racoon.conf`.
const RACOON: &str = include_str!("racoon.conf");

/// Their `psk.txt`.
const PSK: &str = "*  /zatck0CNzYad4fGw4ZV9G1R8b93pdBzCc3I7iXh2zzvediol0yBR8F8wCHKryXE\n";

/// A directory with files that goes when it is dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("obol-racoon-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// With the files of a host.
    fn of(racoon: &str, psk: &str, policies: &str) -> Self {
        let files = Self::new();
        files.write("racoon.conf", racoon, 0o644);
        files.write("psk.txt", psk, 0o400);
        files.write("mongodb.conf", policies, 0o644);
        files
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The files of a host, and an empty one of obol's own, to run from.
    fn to_run(&self) -> super::Files {
        if !self.0.join("obol.toml").exists() {
            self.write("obol.toml", "", 0o600);
        }
        super::Files {
            conf: self.0.join("racoon.conf"),
            scripts: vec![self.0.join("mongodb.conf")],
            store: None,
            overrides: super::Overrides::default(),
        }
    }

    fn load(&self) -> Result<Understood, String> {
        self.load_allowing(Allowed::default())
    }

    fn load_allowing(&self, allowed: Allowed) -> Result<Understood, String> {
        let files = [
            (self.0.join("racoon.conf"), Kind::Racoon),
            (self.0.join("psk.txt"), Kind::Psk),
            (self.0.join("mongodb.conf"), Kind::Setkey),
        ];
        load(&files, &Names::for_tests(), allowed)
            .map_err(|errors| self.without_path(&errors.to_string()))
    }

    fn without_path(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.display()), "")
    }

    /// The first line of each notice, without paths.
    fn notices(&self, understood: &Understood) -> Vec<String> {
        let lines = understood.notices.iter().map(|notice| {
            let text = self.without_path(&notice.to_string());
            text.lines().next().unwrap_or_default().to_owned()
        });
        lines.collect()
    }

    /// What it is converted to.
    fn native(&self) -> String {
        let understood = self.load().unwrap_or_else(|e| panic!("{e}"));
        let native = understood.native.expect("there are policies");
        self.without_path(&native.text)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is wrong with a `racoon.conf` that is the story's but for one change.
fn changed(from: &str, to: &str) -> String {
    assert!(RACOON.contains(from), "{from}");
    let files = Files::of(&RACOON.replacen(from, to, 1), PSK, MONGODB);
    files.load().map(|_| ()).expect_err(to)
}
