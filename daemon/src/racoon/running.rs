//! `obol run --racoon-conf`: files of racoon and setkey as a configuration that runs.

use std::path::{Path, PathBuf};

use super::names::Names;
use super::{Kind, Purpose, read};
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
}

/// Reads the files, and obol's own file at `own` for its `[daemon]` table.
///
/// Secrets that cannot be had do not keep the daemon from starting: then nobody can connect, and
/// what the policies name is dropped.
///
/// # Errors
/// Everything that is wrong with the files: nothing of them is used then.
pub(crate) fn load_to_run(files: &Files, own: &Path) -> Result<Loaded, ConfigErrors> {
    let scripts = files
        .scripts
        .iter()
        .map(|path| (path.clone(), Kind::Setkey));
    let all: Vec<_> = std::iter::once((files.conf.clone(), Kind::Racoon))
        .chain(scripts)
        .collect();
    let draft = read(&all, &Names::of_system(), Purpose::Run)?;
    let Some(text) = draft.text else {
        let name = files.conf.display().to_string();
        let message = "the scripts of setkey leave no policy, so nothing would be protected";
        let fix = "name those with spdadd lines: --setkey FILE";
        return Err(ConfigErrors(vec![Finding::of_file(&name, message, fix)]));
    };
    let translated = Translated::of_text(TRANSLATION, text, draft.lacks_psk);
    let mut loaded = config::load_with(own, &translated)?;
    loaded.warnings.splice(0..0, draft.notices);
    Ok(loaded)
}
