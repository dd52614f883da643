//! `proposals` and `esp_proposals`. Thousands of connections have few different ones, so each list is
//! read once and shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use obol_ike::proposal::{Allowed, EspProposal, IkeProposal, ProposalError};

use super::finding::{Located, Report};
use super::reader::Section;

/// The lists that were read so far, by what was written.
pub(crate) struct Proposals {
    ike: Lists<IkeProposal>,
    esp: Lists<EspProposal>,
    /// Weak algorithms that may be named.
    allowed: Allowed,
}

/// Lists of one kind.
struct Lists<T> {
    defaults: Arc<[T]>,
    known: RefCell<HashMap<Vec<String>, Arc<[T]>>>,
}

impl Proposals {
    /// Nothing read yet.
    pub(super) fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            ike: Lists::new(IkeProposal::defaults()),
            esp: Lists::new(EspProposal::defaults()),
        }
    }

    /// Those of an IKE SA.
    pub(super) fn of_ike(
        &self,
        report: &Report<'_>,
        section: &Section<'_>,
    ) -> Option<Arc<[IkeProposal]>> {
        const FIX: &str =
            "as in \"aes256gcm16-prfsha384-x25519\", or remove the line for strong defaults";
        let parse = |text: &str| match text {
            "default" => Ok(IkeProposal::defaults()),
            text => IkeProposal::parse_allowing(text, self.allowed),
        };
        self.ike.read(report, section, ("proposals", FIX), parse)
    }

    /// Those of a child.
    pub(super) fn of_esp(
        &self,
        report: &Report<'_>,
        section: &Section<'_>,
    ) -> Option<Arc<[EspProposal]>> {
        const FIX: &str = "as in \"aes256gcm16-x25519\", or remove the line for strong defaults";
        let key = ("esp_proposals", FIX);
        let parse = |text: &str| EspProposal::parse_allowing(text, self.allowed);
        self.esp.read(report, section, key, parse)
    }
}

impl<T> Lists<T> {
    fn new(defaults: Vec<T>) -> Self {
        Self {
            defaults: defaults.into(),
            known: RefCell::default(),
        }
    }

    /// The list of a key, or the defaults where the key is not there.
    fn read(
        &self,
        report: &Report<'_>,
        section: &Section<'_>,
        (key, fix): (&'static str, &str),
        parse: impl Fn(&str) -> Result<Vec<T>, ProposalError>,
    ) -> Option<Arc<[T]>> {
        let Some(texts) = section.strings(key) else {
            return (!section.has(key)).then(|| Arc::clone(&self.defaults));
        };
        let written: Vec<String> = texts.iter().map(|text| text.value.to_owned()).collect();
        if let Some(list) = self.known.borrow().get(&written) {
            return Some(Arc::clone(list));
        }
        let list: Arc<[T]> = parse_all(report, &texts, fix, parse)?.into();
        let mut known = self.known.borrow_mut();
        known.insert(written, Arc::clone(&list));
        Some(list)
    }
}

/// What all of these stand for; what is none is reported.
fn parse_all<T>(
    report: &Report<'_>,
    texts: &[Located<&str>],
    fix: &str,
    parse: impl Fn(&str) -> Result<Vec<T>, ProposalError>,
) -> Option<Vec<T>> {
    let mut proposals = Vec::new();
    let mut complete = true;
    for text in texts {
        match parse(text.value) {
            Ok(parsed) => proposals.extend(parsed),
            Err(e) => {
                report.error(&text.place, e.to_string(), fix);
                complete = false;
            }
        }
    }
    complete.then_some(proposals)
}
