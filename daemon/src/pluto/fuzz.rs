//! Any octets in the place of pluto's files. Nothing may panic, and what is wrong has words.

use std::net::IpAddr;
use std::path::Path;

use obol_ike::identity::Identity;

use super::files::Texts;
use super::{HostView, convert, native, nss, orient, refuse, secrets, understand};
use crate::config::files::NoFiles;
use crate::config::parse_str;

/// `ipsec.conf`, to the configuration that it becomes.
pub(crate) fn conf(text: &str) {
    let mut understood = match understand(Texts::of_text(text), None) {
        Ok(understood) => understood,
        Err(errors) => return assert!(!errors.to_string().is_empty(), "errors have words"),
    };
    let addrs = ["192.0.2.1", "10.0.0.1", "192.168.0.1", "2001:db8::1"];
    let addr = |text: &str| text.parse::<IpAddr>().ok();
    let view = HostView {
        addrs: addrs
            .iter()
            .filter_map(|text| Some(("eth0".to_owned(), addr(text)?)))
            .collect(),
        source: |_| None,
        names: Vec::new(),
    };
    refuse(&mut understood, &view);
    for (name, errors) in &understood.refused {
        assert!(!errors.is_empty(), "{name} is refused without a reason");
    }
    let conns = understood.conns.iter();
    let conns: Vec<_> = conns.filter_map(|conn| orient(conn, &view).ok()).collect();
    let printed = convert(&understood.setup, &conns, &[]);
    assert!(toml::from_str::<toml::Table>(&printed).is_ok(), "{printed}");
    let run = native::translate(&understood.setup, &conns);
    if let Err(errors) = parse_str("fuzz.toml", &run.text, &NoFiles) {
        assert!(!errors.to_string().is_empty(), "errors have words");
    }
}

/// `ipsec.secrets`, and a look-up in it.
pub(crate) fn secrets(text: &str) {
    let read = secrets::of_text(Path::new("/nonexistent/ipsec.secrets"), text);
    let id = |text: &str| text.parse::<Identity>().ok();
    if let (Some(local), Some(peer)) = (id("@a"), id("192.0.2.1")) {
        read.psks.psk(&local, &peer);
        read.psks.place(&local, None);
    }
    for notice in read.notices {
        assert!(!notice.message.is_empty(), "notices have words");
    }
}

/// An attribute of an NSS database, which is encrypted, and the name of a curve.
pub(crate) fn nss(octets: &[u8]) {
    nss::fuzz_attribute(octets);
}
