//! Hosts that run from pluto's files, and the files of the story.

use obol_daemon::demo::lab::Host;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The file of the story, which is the same on all hosts. The keys go where the dots are.
pub(crate) const STORY: &str = "\
conn hostA-hostB-subnet
  also=hostA-hostB
  leftsubnet=172.16.1.0/24
  rightsubnet=172.16.2.0/24

conn hostA-hostB
  type=tunnel
  leftid=@hostA.example.com
  left=192.168.0.1
  leftrsasigkey=[...]
  rightid=@hostB.example.com
  right=192.168.0.2
  rightrsasigkey=[...]
  authby=rsasig
  auto=start
";

/// The databases of hosts A, B and C.
pub(crate) const DATABASES: [&str; 3] = ["libreswan-4.10", "libreswan-5.2", "password"];

/// The directory of a database.
pub(crate) fn nss(database: &str) -> String {
    format!("{}/testdata/nss/{database}", env!("CARGO_MANIFEST_DIR"))
}

/// The public key of a database, as `ipsec showhostkey` prints it.
pub(crate) fn public_key(database: &str) -> String {
    let text = fs::read_to_string(Path::new(&nss(database)).join("leftrsasigkey")).unwrap();
    let value = |line: &str| Some(line[line.find("0s")?..].trim().to_owned());
    text.lines().find_map(value).unwrap()
}

/// The story with the keys of hosts A and B.
pub(crate) fn story() -> String {
    let [a, b, _] = DATABASES.map(public_key);
    STORY.replacen("[...]", &a, 1).replacen("[...]", &b, 1)
}

/// A file with this text, and what others may do with it.
pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Has the host's daemon run from `ipsec.conf` and `ipsec.secrets` of a directory, and nothing else.
pub(crate) fn run_from(host: &mut Host, directory: &Path) {
    fs::write(&host.config, "").unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    host.arguments = vec![
        "--ipsec-conf".into(),
        path("ipsec.conf"),
        "--ipsec-secrets".into(),
        path("ipsec.secrets"),
    ];
}

/// What the host's daemon has logged.
pub(crate) fn log(host: &Host) -> String {
    fs::read_to_string(&host.log).unwrap_or_default()
}

/// `ipsec` with these words on a host, with the lines of version 4 or 5: exit code and what was printed.
pub(crate) fn ipsec_of(host: &Host, line: &str, compat: &str) -> (i32, String) {
    let mut command = Command::new(super::support::obol());
    command
        .arg("ipsec")
        .args(line.split_whitespace())
        .env("OBOL_RUNTIME_DIR", &host.runtime)
        .env("OBOL_COMPAT", compat);
    let output = host.netns.run(|| command.output()).unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

/// The same with the lines of version 5.
pub(crate) fn ipsec(host: &Host, line: &str) -> (i32, String) {
    ipsec_of(host, line, "5")
}
