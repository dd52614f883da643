//! A pluto that runs on this host: two IKE daemons cannot share UDP 500.

use std::fs;
use std::path::Path;

/// Where pluto has the file with its process ID.
pub(crate) const RUNDIR: &str = "/run/pluto";

/// What to do about one that runs.
pub(crate) const REMEDY: &str = "stop it (systemctl stop ipsec, or ipsec whack --shutdown), or have `obol migrate` take over what it has up";

/// The process of a pluto that runs, by its file in `rundir`. One in another network namespace is
/// none.
pub(crate) fn running_pid(rundir: &Path) -> Option<u32> {
    let text = fs::read_to_string(rundir.join("pluto.pid")).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if name.trim() != "pluto" || is_dead(pid) {
        return None;
    }
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let (own, its) = (namespace("thread-self"), namespace(&pid.to_string()));
    (own.is_none() || its.is_none() || own == its).then_some(pid)
}

/// One that has ended, and that nobody has waited for.
fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::tests::eventually;

    #[test]
    fn only_a_pluto_that_lives_is_one() {
        let directory = std::env::temp_dir().join(format!("obol-pluto-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        assert_eq!(running_pid(&directory), None);
        for text in ["", "nonsense", "4194305", &std::process::id().to_string()] {
            fs::write(directory.join("pluto.pid"), text).unwrap();
            assert_eq!(running_pid(&directory), None, "{text}");
        }
        let program = directory.join("pluto");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut pluto = std::process::Command::new(&program)
            .arg("1000")
            .spawn()
            .unwrap();
        fs::write(directory.join("pluto.pid"), format!("{}\n", pluto.id())).unwrap();
        // It has its name a moment after it was started.
        eventually("pluto is seen", || {
            (running_pid(&directory) == Some(pluto.id())).then_some(())
        });
        pluto.kill().unwrap();
        while running_pid(&directory).is_some() {
            std::thread::yield_now();
        }
        pluto.wait().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
