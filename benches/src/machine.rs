//! Where and of what a result is.

use std::process::Command;

/// Commit, processor, cores and kernel in words.
pub fn describe() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "\"{model}\", {cores} cores, Linux {}, load {load} at the end, commit {}",
        kernel.trim(),
        commit()
    )
}

fn commit() -> String {
    let said = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output();
    said.ok()
        .filter(|said| said.status.success())
        .and_then(|said| String::from_utf8(said.stdout).ok())
        .map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
