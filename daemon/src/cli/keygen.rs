//! `obol keygen`: makes keys. What scripts want goes to standard output, advice to standard
//! error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use obol_ike::crypto::ecdsa::Curve;
use obol_ike::crypto::keyfile;
use obol_ike::crypto::private_key::PrivateKey;
use obol_ike::crypto::signature::PublicKey;
use rand_core::{Rng, UnwrapErr};
use zeroize::Zeroizing;

use super::args::{KeyFormat, KeyType, KeygenArgs};
use super::{complain_line, print_text};
use crate::config::files::{Disk, FileSource};
use crate::error::{ExitClass, Failure};

/// Octets of a pre-shared key: as strong as the best PRF.
const PSK_OCTETS: usize = 32;

/// Runs the command.
///
/// # Errors
/// A file that cannot be read or written, or that is there already.
pub(super) fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    if args.psk {
        return make_psk(args);
    }
    if let Some(path) = &args.show {
        let key = read_private(path)?;
        return show_public(args, &key.public());
    }
    let mut rng = UnwrapErr(getrandom::SysRng);
    let key = match args.key_type {
        KeyType::Ed25519 => PrivateKey::generate_ed25519(&mut rng),
        KeyType::P256 => PrivateKey::generate_ecdsa(Curve::P256, &mut rng),
        KeyType::P384 => PrivateKey::generate_ecdsa(Curve::P384, &mut rng),
        KeyType::P521 => PrivateKey::generate_ecdsa(Curve::P521, &mut rng),
        KeyType::Rsa => PrivateKey::generate_rsa(args.bits, &mut rng)
            .map_err(|e| Failure::new(ExitClass::Failed, format!("cannot make the key: {e}")))?,
    };
    // Whatever cannot be written that way must show before a key is left on the disk.
    format(&key.public(), args.format)?;
    let pem = key.to_pkcs8_pem();
    let Some(path) = &args.out else {
        print_text(&pem)?;
        if let Some(public) = &args.public_out {
            write_file(
                public,
                &format(&key.public(), args.format)?,
                0o644,
                args.force,
            )?;
        }
        return Ok(());
    };
    write_file(path, &pem, 0o600, args.force)?;
    show_public(args, &key.public())?;
    advise_key(args, path);
    Ok(())
}

fn make_psk(args: &KeygenArgs) -> Result<(), Failure> {
    let mut octets = Zeroizing::new([0u8; PSK_OCTETS]);
    UnwrapErr(getrandom::SysRng).fill_bytes(octets.as_mut_slice());
    let base64 = Zeroizing::new(Base64::encode_string(octets.as_slice()));
    let text = Zeroizing::new(format!("0s{}\n", base64.as_str()));
    let Some(path) = &args.out else {
        return print_text(&text);
    };
    write_file(path, &text, 0o600, args.force)?;
    complain_line(&format!(
        "wrote {path}; copy it to the peer by a safe way, and write on both hosts:\n\n\
         [secrets.NAME]\n\
         type = \"psk\"\n\
         ids  = [\"@this-host.example.com\", \"@peer.example.com\"]\n\
         file = \"{path}\"",
        path = path.display()
    ));
    Ok(())
}

fn read_private(path: &Path) -> Result<PrivateKey, Failure> {
    let octets = Disk.secret(path).map_err(|problem| {
        Failure::new(
            ExitClass::Failed,
            format!("{}: {}", problem.message, problem.fix),
        )
    })?;
    keyfile::parse_private(&octets)
        .map_err(|e| Failure::new(ExitClass::Failed, format!("{}: {e}", path.display())))
}

/// The public key goes to its file, or to standard output.
fn show_public(args: &KeygenArgs, key: &PublicKey) -> Result<(), Failure> {
    let text = format(key, args.format)?;
    match &args.public_out {
        Some(path) => write_file(path, &text, 0o644, args.force),
        None => print_text(&text),
    }
}

fn format(key: &PublicKey, format: KeyFormat) -> Result<String, Failure> {
    let mut text = match format {
        KeyFormat::Pem => key.to_pem(),
        KeyFormat::Openssh => key.to_openssh("obol"),
        KeyFormat::Dns => key.to_rfc3110().ok_or_else(|| {
            Failure::new(
                ExitClass::Usage,
                "0s is RFC 3110, which is for RSA keys: write --format pem or openssh",
            )
        })?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn advise_key(args: &KeygenArgs, private: &Path) {
    let public = match &args.public_out {
        Some(path) => path.display().to_string(),
        None => "the public key above, or a file with it".into(),
    };
    complain_line(&format!(
        "wrote {private}; write on this host:\n\n\
         [connections.NAME]\n\
         local = {{ auth = \"pubkey\", id = \"@this-host.example.com\" }}\n\
         [secrets.NAME]\n\
         type = \"private-key\"\n\
         file = \"{private}\"\n\n\
         and on the peer:\n\n\
         [connections.NAME]\n\
         remote = {{ auth = \"pubkey\", id = \"@this-host.example.com\", pubkeys = [\"{public}\"] }}",
        private = private.display()
    ));
}

/// Writes a new file with this mode. Without `force`, one that is there stays; with it, it is
/// replaced in one step.
fn write_file(path: &Path, text: &str, mode: u32, force: bool) -> Result<(), Failure> {
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            ExitClass::Failed,
            format!(
                "{} is there already: choose another name, or --force",
                path.display()
            ),
        ),
        _ => Failure::system(format!("cannot write {}", path.display()), &e),
    };
    if !force {
        let mut file = create(path, mode).map_err(failed)?;
        return fill(&mut file, text).map_err(failed);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(name);
    let replaced = create(&new, mode)
        .and_then(|mut file| fill(&mut file, text))
        .and_then(|()| std::fs::rename(&new, path));
    replaced.map_err(|e| {
        // The key in it is of no use to anybody; that it may stay is said by the error.
        let _ = std::fs::remove_file(&new);
        failed(e)
    })
}

fn create(path: &Path, mode: u32) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode).open(path)
}

fn fill(file: &mut File, text: &str) -> std::io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
