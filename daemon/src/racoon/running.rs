//! `obol run --racoon-conf`: files of racoon and setkey as a configuration that runs.

use std::path::{Path, PathBuf};

use super::names::Names;
use super::{Draft, Kind, PskSource, Purpose, Store, Terms, read};
use crate::config::{self, ConfigErrors, Finding, Loaded};
use crate::pluto::Translated;

/// What the text that the files are translated to is called.
const TRANSLATION: &str = "racoon.conf in obol's words";

/// The files, as far as the command line says.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// `racoon.conf`.
    pub(crate) conf: PathBuf,
    /// Scripts of setkey, in the order in which they are loaded.
    pub(crate) scripts: Vec<PathBuf>,
    /// The store of setkey's policies, which come before those of the scripts.
    pub(crate) store: Option<PathBuf>,
    /// What the command line says about the daemon.
    pub(crate) overrides: Overrides,
}

/// What goes before the files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    /// The log level, in obol's word.
    pub(crate) log: Option<&'static str>,
    /// Port of IKE.
    pub(crate) port: Option<u16>,
    /// Port that IKE shares with ESP in UDP.
    pub(crate) natt_port: Option<u16>,
}

/// Reads the files, and obol's own file at `own` for its `[daemon]` table.
///
/// Secrets that cannot be had do not keep the daemon from starting: then nobody can connect, and
/// what the policies name is dropped.
///
/// # Errors
/// Everything that is wrong with the files: nothing of them is used then.
pub(crate) fn load_to_run(files: &Files, own: &Path) -> Result<Loaded, ConfigErrors> {
    let draft = draft(files, own)?;
    let Some(text) = draft.text else {
        let name = files.conf.display().to_string();
        let message = "the scripts of setkey leave no policy, so nothing would be protected";
        let fix = "name those with spdadd lines: --setkey FILE";
        return Err(ConfigErrors(vec![Finding::of_file(&name, message, fix)]));
    };
    let translated = Translated::of_text(TRANSLATION, text, draft.late_psk.is_some());
    let mut loaded = config::load_with(own, translated)?;
    let late = draft.late_psk.map(PskSource::late);
    loaded.credentials.psk_files.extend(late);
    // Of psk.txt it was said with the place in that file.
    let is_said = |again: &Finding| {
        let mut said = draft.notices.iter();
        again.location.starts_with(TRANSLATION)
            && said.any(|notice| again.message.ends_with(&notice.message))
    };
    loaded.warnings.retain(|warning| !is_said(warning));
    loaded.warnings.splice(0..0, draft.notices);
    let overrides = &files.overrides;
    if let Some(log) = overrides.log {
        loaded.daemon.log = log.to_owned();
    }
    if let Some(port) = overrides.port {
        loaded.daemon.port = port;
    }
    if let Some(port) = overrides.natt_port {
        loaded.daemon.natt_port = port;
    }
    Ok(loaded)
}

/// The files in obol's words.
///
/// # Errors
/// As [`load_to_run`].
pub(crate) fn translated(files: &Files, own: &Path) -> Result<String, ConfigErrors> {
    Ok(draft(files, own)?.text.unwrap_or_default())
}

fn draft(files: &Files, own: &Path) -> Result<Draft, ConfigErrors> {
    let scripts = files
        .scripts
        .iter()
        .map(|path| (path.clone(), Kind::Setkey));
    let all: Vec<_> = std::iter::once((files.conf.clone(), Kind::Racoon))
        .chain(scripts)
        .collect();
    let store = files.store.as_deref().map(load_store).transpose()?;
    let terms = Terms {
        names: &Names::of_system(),
        allowed: config::allowed(own)?,
        purpose: Purpose::Run,
    };
    read(&all, store.as_ref(), terms)
}

fn load_store(path: &Path) -> Result<Store, ConfigErrors> {
    Store::load(path).map_err(|e| {
        let name = path.display().to_string();
        ConfigErrors(vec![Finding::of_file(&name, e.to_string(), "")])
    })
}
