//! The keys `redirect…` of a connection: who sends whom to another gateway, RFC 5685.

use std::net::IpAddr;

use obol_ike::config::{Connection, Mode, Redirect};

use super::child::ReadChild;
use super::finding::{Place, Report};
use super::reader::{Section, shorten};
use super::values;

/// Redirects that a client may be told to follow within the period.
const LIMITS: std::ops::RangeInclusive<u64> = 1..=100;

/// Reads them all, and says where the connection follows redirects, if it does.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Redirect {
    let mut redirect = Redirect {
        follow: section.boolean("redirect").unwrap_or(false),
        to: read_target(report, section),
        ..Redirect::default()
    };
    let limit = section.integer("redirect_limit", LIMITS);
    if let Some(limit) = &limit {
        redirect.most = u32::try_from(limit.value).unwrap_or(u32::MAX);
    }
    let period = section.quantity("redirect_period", values::duration);
    if let Some(period) = &period {
        redirect.period = period.value;
    }
    let patience = section.quantity("redirect_patience", values::duration);
    if let Some(patience) = &patience {
        redirect.patience = patience.value;
    }
    let limits = limit.map(|l| l.place).or(period.map(|p| p.place));
    if let Some(place) = limits.filter(|_| !redirect.follow) {
        report.error(
            &place,
            "limits of redirects have no use where none is followed",
            "add redirect = true, or remove the line",
        );
    }
    redirect
}

fn read_target(report: &Report<'_>, section: &Section<'_>) -> Option<IpAddr> {
    let text = section.string("redirect_to")?;
    let is_host = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback();
    let address = values::address(text.value).ok().flatten().filter(is_host);
    if address.is_none() {
        let message = format!("redirect_to = \"{}\" is no gateway", shorten(text.value));
        let fix = "write the IPv4 or IPv6 address of the other gateway; names are not looked up";
        report.error(&text.place, message, fix);
    }
    address
}

/// Who follows redirects must know who is to prove itself at the other address.
pub(super) fn check(
    report: &Report<'_>,
    place: &Place,
    connection: &Connection,
    children: &[ReadChild],
) {
    if !connection.redirect.follow {
        return;
    }
    if connection.remote_addrs.is_empty() || connection.remote.id.is_none() {
        report.error(
            place,
            "redirect = true, and it is not said who the gateway is",
            "add remote_addrs, and id = \"…\" to remote: every gateway must prove to be that",
        );
    }
    let mut modes = children.iter().map(|child| child.config.mode);
    if modes.any(|mode| mode == Mode::Transport) {
        report.error(
            place,
            "redirect = true, and a child in transport mode, which is with one host alone",
            "remove redirect, or let the child have mode = \"tunnel\"",
        );
    }
}
