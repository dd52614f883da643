//! The key `dataplane`, of the daemon and of a connection: what carries ESP.

use super::connection::ReadConnection;
use super::finding::{Located, Report};
use super::reader::Section;

/// What carries ESP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DataPlaneChoice {
    /// The kernel if it can, else the daemon itself.
    Auto,
    /// The kernel.
    Kernel,
    /// The daemon itself, over a TUN.
    Userspace,
}

/// What is to carry a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ConnectionChoice {
    /// Its own choice, or the daemon's.
    pub(crate) choice: DataPlaneChoice,
    /// A child of it has what only the kernel's data plane does.
    pub(crate) needs_kernel: bool,
    /// Where to complain, if the kernel must carry it: file, line and column.
    pub(crate) place: String,
}

impl ConnectionChoice {
    /// Whether nothing else than the kernel can carry it.
    pub(crate) fn is_kernel(&self) -> bool {
        self.choice == DataPlaneChoice::Kernel || self.needs_kernel
    }
}

/// Reads the key.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Option<Located<DataPlaneChoice>> {
    let text = section.string("dataplane")?;
    let choice = match text.value {
        "auto" => DataPlaneChoice::Auto,
        "userspace" => DataPlaneChoice::Userspace,
        "kernel" => DataPlaneChoice::Kernel,
        _ => {
            report.error(
                &text.place,
                "dataplane is none that obol knows",
                "write \"userspace\", \"kernel\" or \"auto\"",
            );
            return None;
        }
    };
    Some(text.with(choice))
}

/// The choice for each connection, where it has none `default`. A child with several queues cannot be
/// the kernel's.
pub(super) fn choices(
    report: &Report<'_>,
    default: DataPlaneChoice,
    connections: &[ReadConnection],
) -> Vec<ConnectionChoice> {
    let choice = |connection: &ReadConnection| {
        let own = connection.data_plane.as_ref();
        let place = own.map_or(&connection.place, |own| &own.place);
        let choice = own.map_or(default, |own| own.value);
        let mut children = connection.children.iter();
        let needs_kernel = children.any(|child| child.kernel.options.any());
        for child in &connection.children {
            if choice == DataPlaneChoice::Kernel && child.config.queues > 1 {
                report.clash(
                    &child.place,
                    place,
                    format!(
                        "child {} has several queues, and the kernel's data plane has one SA for a child",
                        child.config.name
                    ),
                    "remove `queues`, or give the connection dataplane = \"userspace\"",
                );
            }
        }
        ConnectionChoice {
            choice,
            needs_kernel,
            place: match choice == DataPlaneChoice::Kernel || needs_kernel {
                true => report.location(place),
                false => String::new(),
            },
        }
    };
    connections.iter().map(choice).collect()
}
