//! Any octets in the place of the files of racoon and setkey. Nothing may panic, and what is wrong has
//! words.

use std::path::{Path, PathBuf};

use obol_ike::identity::Identity;
use obol_ike::proposal::Allowed;

use super::names::Names;
use super::psk::PskFile;
use super::{conf, flows, native, plan, setkey};
use crate::config::Report;

/// A policy for which `racoon.conf` may have a peer.
const POLICY: &str = "spdadd 10.0.1.1[any] 10.0.1.2[27017] tcp -P out ipsec esp/transport//require;\n\
                      spdadd 10.0.1.2[27017] 10.0.1.1[any] tcp -P in ipsec esp/transport//require;\n";

/// `racoon.conf` beside a policy, to the configuration that both become; what it includes is not read.
pub(crate) fn conf(text: &str) {
    both(text, POLICY);
}

/// A script of setkey, beside a `racoon.conf` that has one peer for all.
pub(crate) fn setkey(text: &str) {
    const CONF: &str = include_str!("tests/racoon.conf");
    both(CONF, text);
}

fn both(conf: &str, script: &str) {
    /// As deep as nothing is included.
    const DEEP: usize = 100;
    let mut sources = Vec::new();
    let mut texts = conf::Texts::new();
    let directory = Path::new("");
    texts.add(
        &mut sources,
        "racoon.conf".into(),
        directory,
        conf.to_owned(),
        DEEP,
    );
    let source = sources.len();
    sources.push(setkey::source("setkey.conf".into(), PathBuf::new(), script));
    let report = Report::new(&sources);
    let names = Names::for_fuzzing();
    let mut table = setkey::Table::default();
    table.run(&report, &setkey::read(&report, &names, source, script));
    let flows = flows::pair(&report, &table);
    let conf = conf::read(&report, &names, Allowed::default(), &texts);
    let plan = plan::plan(&report, &conf, &flows);
    match report.finish() {
        Err(errors) => assert!(!errors.to_string().is_empty(), "errors have words"),
        Ok(_) => {
            let text = native::convert(&conf, &plan, None, Allowed::default());
            assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
        }
    }
}

/// `psk.txt`, and a look-up in it.
pub(crate) fn psk(octets: &[u8]) {
    let (file, _) = PskFile::read(octets);
    if let Ok(peer) = "192.0.2.1".parse::<Identity>() {
        file.find(&peer);
    }
}
