//! The keys `fragmentation` and `fragment_size` of a connection: IKE fragmentation, RFC 7383.

use obol_ike::config::{Fragmentation, FragmentationMode};

use super::finding::Report;
use super::reader::{Section, shorten};

/// Octets of an IP packet that holds an IKE fragment. Below, headers and checksum would leave
/// next to nothing for content; above, UDP could not carry it.
const SIZES: std::ops::RangeInclusive<u64> = 256..=65_535;

/// Reads both.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Fragmentation {
    let mut fragmentation = Fragmentation::default();
    if let Some(mode) = section.string("fragmentation") {
        match mode.value {
            "yes" => fragmentation.mode = FragmentationMode::Yes,
            "no" => fragmentation.mode = FragmentationMode::No,
            "force" => fragmentation.mode = FragmentationMode::Force,
            other => report.error(
                &mode.place,
                format!(
                    "fragmentation = \"{}\" is none that obol knows",
                    shorten(other)
                ),
                "write \"yes\" (long messages), \"no\", or \"force\" (short ones, too)",
            ),
        }
    }
    if let Some(size) = section.integer("fragment_size", SIZES) {
        fragmentation.size = u16::try_from(size.value).unwrap_or(u16::MAX);
        if fragmentation.mode == FragmentationMode::No {
            report.error(
                &size.place,
                "fragment_size has no use where fragmentation is \"no\"",
                "remove one of the two lines",
            );
        }
    }
    fragmentation
}
