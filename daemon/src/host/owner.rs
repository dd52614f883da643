//! Who holds a UDP port, for the message that it is taken.

use std::fs;

/// The process that holds a UDP port, in words; "another process" where it cannot be seen.
pub(crate) fn port_owner(port: u16) -> String {
    let tables = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"];
    tables
        .iter()
        .filter_map(|table| inode_of(&fs::read_to_string(table).ok()?, port))
        .find_map(|inode| process_with(&inode))
        .unwrap_or_else(|| "another process".to_owned())
}

/// The inode of the socket on a port, from a table in the form of /proc/net/udp: the second
/// column is `ADDRESS:PORT` in hex, the tenth the inode.
fn inode_of(table: &str, port: u16) -> Option<String> {
    let port = format!("{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let inode = columns.get(9)?;
        (local_port == port).then(|| (*inode).to_owned())
    })
}

fn process_with(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name();
        let is_process = pid.to_str().is_some_and(|pid| pid.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        let path = process.path();
        let Ok(descriptors) = fs::read_dir(path.join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str())
        });
        if holds {
            let name = fs::read_to_string(path.join("comm")).ok()?;
            return Some(format!("{} (pid {})", name.trim(), pid.display()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_this_process_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let owner = port_owner(socket.local_addr().unwrap().port());
        assert!(
            owner.contains(&format!("(pid {})", std::process::id())),
            "{owner}"
        );
    }

    #[test]
    fn lines_that_are_cut_short_are_passed_over() {
        let table = "header\n 1: 00000000:01F4\n\n 2: 0:01F4 0 0 0 0 0 0 0 4711 2\n";
        assert_eq!(inode_of(table, 500), Some("4711".to_owned()));
        assert_eq!(inode_of(table, 501), None);
    }
}
