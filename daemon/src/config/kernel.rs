//! Keys of a child that only the kernel's data plane knows: `if_id`, `interface`, `mark_in`, `mark_out`,
//! `hw_offload`.

use super::child::ReadChild;
use super::connection::ReadConnection;
use super::daemon;
use super::finding::{Located, Place, Report};
use super::planes::{ConnectionChoice, DataPlaneChoice};
use super::reader::{Section, shorten};
use crate::dataplane::{HwOffload, KernelOptions};
use crate::host::xfrm::Mark;

/// The options of a child, and where the first of them was written.
#[derive(Default)]
pub(super) struct ReadOptions {
    pub(super) options: KernelOptions,
    /// With its key.
    first: Option<Located<&'static str>>,
    /// Where the interface is.
    interface: Option<Place>,
}

impl ReadOptions {
    fn note(&mut self, key: &'static str, place: &Place) {
        let (value, place) = (key, place.clone());
        self.first.get_or_insert(Located { value, place });
    }
}

/// Reads them. `None`: something is wrong.
pub(super) fn read(report: &Report<'_>, section: &Section<'_>) -> Option<ReadOptions> {
    let mut read = ReadOptions::default();
    let if_id = section.integer("if_id", 1..=u64::from(u32::MAX));
    if let Some(if_id) = &if_id {
        read.options.if_id = u32::try_from(if_id.value).unwrap_or(u32::MAX);
        read.note("if_id", &if_id.place);
    }
    let interface = section.string("interface");
    if let Some(interface) = &interface {
        read_interface(report, &mut read, interface, section.has("if_id"))?;
    }
    let marks = ["mark_in", "mark_out"].map(|key| {
        let mark = section.quantity(key, mark);
        if let Some(mark) = &mark {
            read.note(key, &mark.place);
        }
        mark.map(|mark| mark.value)
    });
    let keys = [
        ("if_id", if_id.is_some()),
        ("interface", interface.is_some()),
        ("mark_in", marks[0].is_some()),
        ("mark_out", marks[1].is_some()),
    ];
    if keys.iter().any(|(key, read)| section.has(key) && !read) {
        return None;
    }
    read.options.hw_offload = read_offload(report, section, &mut read)?;
    (read.options.mark_in, read.options.mark_out) = {
        let [mark_in, mark_out] = marks.map(Option::unwrap_or_default);
        (mark_in, mark_out)
    };
    Some(read)
}

fn read_offload(
    report: &Report<'_>,
    section: &Section<'_>,
    read: &mut ReadOptions,
) -> Option<HwOffload> {
    let Some(text) = section.string("hw_offload") else {
        return (!section.has("hw_offload")).then_some(HwOffload::No);
    };
    let wish = match text.value {
        "no" => return Some(HwOffload::No),
        "auto" => HwOffload::Auto,
        "crypto" => HwOffload::Crypto,
        other => {
            report.error(
                &text.place,
                format!("hw_offload = \"{}\" is none that obol knows", shorten(other)),
                "write \"no\", \"crypto\" (a device must seal and open) or \"auto\" (one that can does); whole packets are never left to a device",
            );
            return None;
        }
    };
    read.note("hw_offload", &text.place);
    Some(wish)
}

fn read_interface(
    report: &Report<'_>,
    read: &mut ReadOptions,
    interface: &Located<&str>,
    has_id: bool,
) -> Option<()> {
    if !daemon::is_device_name(interface.value) {
        report.error(
            &interface.place,
            format!(
                "interface = \"{}\" is no name for a network device",
                shorten(interface.value)
            ),
            "use 1 to 15 letters, digits, '-', '_' and '.'",
        );
        return None;
    }
    if !has_id {
        report.error(
            &interface.place,
            "interface without if_id: nothing ties the child to it",
            "add if_id = 1, or another number that no other xfrm interface of this host has",
        );
        return None;
    }
    read.options.interface = Some(interface.value.to_owned());
    read.interface = Some(interface.place.clone());
    read.note("interface", &interface.place);
    Some(())
}

/// A mark: a number, and behind a slash the bits of it that count.
fn mark(text: &str) -> Result<Mark, String> {
    let number = |text: &str| match text.trim().strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.trim().parse().ok(),
    };
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (number(value), number(mask)),
        None => (number(text), Some(u32::MAX)),
    };
    let fix =
        "write a number, or a string like \"0x10/0xff\": the mark, and which of its bits count";
    let (value, mask) = value.zip(mask).ok_or(fix)?;
    if mask == 0 || value & !mask != 0 {
        return Err("the bits behind the slash are those that count: all of the mark must be among them, and one at least".into());
    }
    Ok(Mark { value, mask })
}

/// What needs the kernel's data plane must be able to get it, and an interface has one number.
pub(super) fn check(
    report: &Report<'_>,
    connections: &[ReadConnection],
    data_planes: &[ConnectionChoice],
) {
    let mut interfaces: Vec<&ReadChild> = Vec::new();
    let connections = connections.iter().zip(data_planes);
    let children = connections.flat_map(|(own, chosen)| {
        let children = own.children.iter();
        children.map(|child| (child, chosen.choice))
    });
    for (child, choice) in children {
        let kernel = &child.kernel;
        if let Some(first) = kernel.first.as_ref()
            && choice == DataPlaneChoice::Userspace
        {
            report.error(
                &first.place,
                format!(
                    "{} needs the kernel's data plane, and dataplane is \"userspace\"",
                    first.value
                ),
                "write dataplane = \"kernel\" into the connection or into [daemon], or remove the line",
            );
        }
        let Some(place) = &kernel.interface else {
            continue;
        };
        let meets = |other: &&&ReadChild| {
            let (one, two) = (&kernel.options, &other.kernel.options);
            (one.if_id == two.if_id) != (one.interface == two.interface)
        };
        match interfaces.iter().find(meets) {
            Some(other) => report.clash(
                place,
                other.kernel.interface.as_ref().unwrap_or(place),
                "two children have one interface with two numbers, or one number with two interfaces",
                "give each interface an if_id of its own",
            ),
            None => interfaces.push(child),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_number_and_the_bits_of_it_that_count() {
        let read = |text| mark(text).map(|mark| (mark.value, mark.mask));
        assert_eq!(read("5"), Ok((5, u32::MAX)));
        assert_eq!(read("0x10/0xf0"), Ok((16, 0xf0)));
        assert_eq!(read("16 / 240"), Ok((16, 0xf0)));
        for bad in [
            "",
            "x",
            "5/",
            "/5",
            "0x1ff/0xff",
            "0/0",
            "4294967296",
            "5/0x1ffffffff",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
