//! `racoon.conf`: from text to what it means for IKEv2.
//!
//! ```text
//! files ─ text ─► statements ─ here, remote, proposal, sainfo, algorithms ─► Conf
//! ```

mod algorithms;
mod args;
mod files;
mod proposal;
mod remote;
mod sainfo;
mod text;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use args::{Args, Read, Reported};
pub(crate) use files::Texts;
pub(crate) use remote::{Fragments, Nat, Remote, Whom};
pub(crate) use sainfo::Sainfo;
use text::{Node, TokenKind};

use obol_ike::proposal::Allowed;

use super::names::Names;
use crate::config::{Located, Report, nearest};

/// All that `racoon.conf` says.
#[derive(Debug, Default)]
pub(crate) struct Conf {
    /// `path pre_shared_key`.
    pub(crate) psk: Option<Located<PathBuf>>,
    /// Where to listen for IKE; none: everywhere.
    pub(crate) listen: Vec<Located<(IpAddr, Option<u16>)>>,
    /// Where to listen for IKE and ESP behind a NAT.
    pub(crate) natt: Vec<Located<(IpAddr, Option<u16>)>>,
    /// The level, in obol's word.
    pub(crate) log: Option<&'static str>,
    /// Repetitions of a request, and how long the first waits.
    pub(crate) counter: Option<u64>,
    /// See `counter`.
    pub(crate) interval: Option<Duration>,
    /// How long a half-open IKE SA is kept.
    pub(crate) phase1: Option<Duration>,
    /// In the order of the text.
    pub(crate) remotes: Vec<Remote>,
    /// In the order of the text.
    pub(crate) sainfos: Vec<Sainfo>,
    /// Something is wrong, which was reported: what lacks is perhaps there.
    pub(crate) broken: bool,
}

const STATEMENTS: [&str; 16] = [
    "path",
    "include",
    "log",
    "listen",
    "timer",
    "padding",
    "privsep",
    "remote",
    "sainfo",
    "complex_bundle",
    "pfkey_buffer",
    "gss_id_enc",
    "ldapcfg",
    "radiuscfg",
    "mode_cfg",
    "strict_address",
];

/// Whether a statement may begin with this word.
pub(super) fn is_statement(word: &str) -> bool {
    STATEMENTS.contains(&word)
}

/// Understands the statements; what is wrong or has no effect is reported. Weak algorithms are used
/// if they are `allowed`.
pub(crate) fn read(report: &Report<'_>, names: &Names, allowed: Allowed, texts: &Texts) -> Conf {
    texts.report(report);
    let mut conf = Conf {
        broken: report.has_errors(),
        ..Conf::default()
    };
    for (source, node) in &texts.nodes {
        let mut args = Args::new(report, *source, allowed, node);
        // What is wrong was reported, and the rest is looked at all the same.
        conf.broken |= conf.statement(&mut args, names).is_err();
    }
    conf
}

impl Conf {
    fn statement(&mut self, args: &mut Args<'_, '_>, names: &Names) -> Read<()> {
        match args.keyword() {
            "path" => return self.path(args),
            "log" => {
                let levels = [
                    ("error", "error"),
                    ("warning", "warn"),
                    ("notify", "info"),
                    ("info", "info"),
                    ("debug", "debug"),
                    ("debug2", "trace"),
                ];
                self.log = Some(args.one_of(&levels)?.value);
            }
            "remote" => {
                let remote = remote::read(args, &self.remotes)?;
                self.remotes.push(remote);
                return Ok(());
            }
            "sainfo" => {
                let sainfo = sainfo::read(args, names, &self.sainfos)?;
                self.sainfos.push(sainfo);
                return Ok(());
            }
            "listen" => return each(args, |args| self.listen(args)),
            "timer" => return each(args, |args| self.timer(args)),
            "complex_bundle" => {
                args.switch()?;
            }
            "padding" | "privsep" | "ldapcfg" | "radiuscfg" => {
                args.block()?;
                args.idle(match args.keyword() {
                    "padding" => "obol pads ESP by the RFC",
                    "privsep" => "limit obol by its unit of systemd",
                    _ => "obol has no XAUTH",
                });
                return Ok(());
            }
            "pfkey_buffer" => {
                args.number(u64::from(u32::MAX))?;
                args.idle("obol does not use PF_KEY");
            }
            "gss_id_enc" => {
                args.next("write a word")?;
                args.idle("obol has no GSSAPI");
            }
            "mode_cfg" => {
                args.refuse(
                    "IKEv1 Mode-Config has no equivalent here",
                    "remove the block",
                );
                return Err(Reported);
            }
            "include" => {
                args.quoted("write the pattern of files in quotes")?;
            }
            other => {
                let near = nearest(other, STATEMENTS.iter().copied());
                let fix = near.map_or("remove the line".to_owned(), |near| {
                    format!("did you mean {near}?")
                });
                return remote::unknown(args, &fix);
            }
        }
        args.end()
    }

    fn path(&mut self, args: &mut Args<'_, '_>) -> Read<()> {
        #[derive(Clone, Copy)]
        enum What {
            Psk,
            Certificate,
            Idle(&'static str),
        }
        let what = args.one_of(&[
            ("pre_shared_key", What::Psk),
            ("certificate", What::Certificate),
            ("include", What::Idle("nothing is included")),
            ("script", What::Idle("obol runs no scripts")),
            (
                "pidfile",
                What::Idle(
                    "the process ID is in /var/run/racoon.pid where racoon is run by that name",
                ),
            ),
            ("backupsa", What::Idle("SAs are negotiated anew")),
        ])?;
        let path = args.path(Path::new(""))?;
        match what.value {
            What::Psk => self.psk = Some(path),
            // Where certificates are used, that is refused.
            What::Certificate => {}
            What::Idle(why) => args.idle(why),
        }
        args.end()
    }

    fn listen(&mut self, args: &mut Args<'_, '_>) -> Read<()> {
        match args.keyword() {
            "isakmp" => self.listen.push(args.address()?),
            "isakmp_natt" => self.natt.push(args.address()?),
            // An address that this host does not have is always an error.
            "strict_address" => {}
            "adminsock" => {
                if !args.take_if("disabled") {
                    args.quoted("write the path of the socket in quotes")?;
                    if args.take_kind(TokenKind::Quoted).is_some() {
                        args.quoted("write the group of the socket in quotes")?;
                        args.number(0o7777)?;
                    }
                }
            }
            other => {
                let words = ["isakmp", "isakmp_natt", "strict_address", "adminsock"];
                let near = nearest(other, words.iter().copied());
                let fix = near.map_or("remove the line".to_owned(), |near| {
                    format!("did you mean {near}?")
                });
                return remote::unknown(args, &fix);
            }
        }
        args.end()
    }

    fn timer(&mut self, args: &mut Args<'_, '_>) -> Read<()> {
        match args.keyword() {
            "counter" => self.counter = Some(args.number(20)?),
            "interval" => self.interval = Some(args.duration(false)?),
            "phase1" => self.phase1 = Some(args.duration(false)?),
            "phase2" => {
                args.duration(false)?;
                args.idle("a request that nobody answers is given up after its repetitions");
            }
            "persend" => {
                args.number(u64::from(u32::MAX))?;
                args.idle("each message is sent once");
            }
            "natt_keepalive" => {
                args.duration(false)?;
                args.idle("obol sends keepalives as RFC 3948 says");
            }
            other => {
                let words = [
                    "counter",
                    "interval",
                    "persend",
                    "phase1",
                    "phase2",
                    "natt_keepalive",
                ];
                let near = nearest(other, words.iter().copied());
                let fix = near.map_or("remove the line".to_owned(), |near| {
                    format!("did you mean {near}?")
                });
                return remote::unknown(args, &fix);
            }
        }
        args.end()
    }

    /// The block for a peer: its own, or the one for all others.
    pub(crate) fn remote_for(&self, peer: IpAddr) -> Option<&Remote> {
        let own = self
            .remotes
            .iter()
            .find(|remote| remote.peer() == Some(peer));
        own.or_else(|| self.anonymous())
    }

    /// The block for all peers that have none.
    pub(crate) fn anonymous(&self) -> Option<&Remote> {
        self.remotes
            .iter()
            .find(|remote| remote.whom == Whom::Anonymous)
    }
}

/// The statements of a block; the first that is wrong does not hide the others.
fn each(args: &Args<'_, '_>, mut one: impl FnMut(&mut Args<'_, '_>) -> Read<()>) -> Read<()> {
    for node in args.block()? {
        let node: &Node = node;
        let _ = one(&mut args.of(node));
    }
    Ok(())
}
