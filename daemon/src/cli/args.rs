//! The command line: what may be written, and the texts of `--help`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ipsec_tools::store_path;
use crate::pluto;
use crate::racoon;

/// Where the configuration is unless `--config` says otherwise.
pub(crate) const DEFAULT_CONFIG: &str = "/etc/obol/obol.toml";

/// Where the control socket is unless `--runtime-dir` or the environment says otherwise.
pub(crate) const DEFAULT_RUNTIME_DIR: &str = "/run/obol";

/// Environment variable for the runtime directory.
pub(crate) const RUNTIME_DIR_VARIABLE: &str = "OBOL_RUNTIME_DIR";

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or true
  1  failed
  2  the command line is wrong
  3  the daemon does not run, or what was asked about is not up
  4  the peer refused
  5  the peer did not answer
  6  the configuration of this host is wrong
  7  a right is missing (root, or the capabilities that the message names)
  8  a firewall or the path blocks (not told apart yet: today that is a 5)
  10  a daemon runs already (obol with this runtime directory, or pluto)

Words:
  connection  one peer, and how the two prove who they are: negotiated as an IKE SA
  child       flows to and from that peer that are protected: negotiated as a Child SA

Examples:
  obol check hosts.toml           # what does this file mean, is it right?
  obol run --config hosts.toml    # the daemon, in the foreground
  obol status                     # what is up, with whom, since when";

/// IPsec for Linux: IKEv2, and ESP by the daemon itself.
#[derive(Debug, Parser)]
#[command(name = "obol", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Configuration file, for run, check, down --all and purge; beside one called obol.toml,
    /// conf.d/*.toml is read too
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub(crate) config: PathBuf,
    /// Directory of the control socket: says which daemon is meant [env: OBOL_RUNTIME_DIR] [default:
    /// /run/obol]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground
    ///
    /// Reads the configuration, protects what it names, and negotiates with the peers. What is
    /// configured stays protected when the daemon is killed: packets are dropped until it runs
    /// again. With files of Libreswan's, a new address of this host lets them be read again too. SIGHUP
    /// reloads; SIGTERM closes all SAs and leaves the protection in place. Needs
    /// root or CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.
    #[command(after_help = "\
Examples:
  obol run
  obol run --config ./hosts.toml
  obol run --config ./b.toml --runtime-dir /run/obol-b
      # a second one: its [daemon] table has other ports, tun, table and rule_priority
  obol run --ipsec-conf /etc/ipsec.conf
      # Libreswan's files as they are; [daemon] of obol.toml counts, and its connections are beside them
  obol run --ipsec-conf ./ipsec.conf --ipsec-secrets ./ipsec.secrets --nssdir ./nss
  obol run --racoon-conf /etc/racoon/racoon.conf
      # racoon's files as they are, with the policies that setkey was told
  obol run --racoon-conf /etc/racoon/racoon.conf --setkey /etc/ipsec-tools.d/mongodb.conf
      # racoon's and setkey's files as they are, on all hosts at once")]
    Run(RunArgs),
    /// Bring up a connection or one child of it, and wait until it is up
    #[command(after_help = "\
Examples:
  obol up hosts                  # the IKE SA and every child of it
  obol up hosts/pods             # one child
  obol up hosts --timeout 5s")]
    Up(UpArgs),
    /// Close a connection or one child of it, or everything
    ///
    /// What is closed stays closed until `obol up`; a child with start_action trap goes back to
    /// its trap, and the next packet asks for it. Packets are dropped meanwhile. Only --all lifts
    /// the protection: it ends the daemon and removes its rules, routes and nftables table, and does
    /// the latter for a dead daemon too. `systemctl stop ipsec` does that by --of-unit; `systemctl restart
    /// ipsec`, a shutdown and a crash leave the protection in place.
    #[command(after_help = "\
Examples:
  obol down hosts/pods
  obol down hosts
  obol down --all                # and let everything pass in clear again")]
    Down(DownArgs),
    /// Send the clients of a connection that are up to another gateway (RFC 5685)
    ///
    /// Only those that began, and have said that they go where they are sent. Who is not gone
    /// after redirect_patience is closed. For clients that come later, there is redirect_to in the
    /// configuration.
    #[command(after_help = "\
Examples:
  obol redirect office 192.0.2.7
  obol redirect office 2001:db8::7 --json")]
    Redirect(RedirectArgs),
    /// Show what is up: IKE SAs, Child SAs, counters
    ///
    /// With a NAME, exits with 0 if that connection or child is up, else with 3.
    #[command(after_help = "\
Examples:
  obol status
  obol status hosts/pods && echo protected
  obol status --json | jq '.ike_sas[].children[] | {name, bytes_in, bytes_out}'")]
    Status(StatusArgs),
    /// pluto's commands, with its output and exit codes: also when obol is called `ipsec`
    ///
    /// `obol ipsec help` lists them: `ipsec VERB NAME`, `ipsec auto --VERB NAME` and `ipsec whack`.
    /// Lines are those of Libreswan 5.2, or with OBOL_COMPAT=4 in the environment those of 4.x.
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  obol ipsec up hostA-hostB
  obol ipsec auto --status
  obol ipsec trafficstatus
      # with a symbolic link to obol called ipsec: `ipsec trafficstatus`"
    )]
    Ipsec(IpsecArgs),
    /// racoon's command line: also when obol is called `racoon`
    ///
    /// Runs from racoon.conf, psk.txt and the policies that setkey was told, detached unless -F says
    /// otherwise. [daemon] of obol.toml counts.
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  obol racoon -F -f /etc/racoon/racoon.conf
  obol racoon -d -l /var/log/racoon.log
      # with a symbolic link to obol called `racoon`: `racoon -F`"
    )]
    Racoon(ProgramArgs),
    /// racoonctl's commands, with its output and exit codes: also when obol is called `racoonctl`
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  obol racoonctl show-sa isakmp
  obol racoonctl -l show-sa isakmp
  obol racoonctl establish-sa -w esp inet 10.0.1.13 10.0.1.241/32/27017 tcp
  obol racoonctl reload-config"
    )]
    Racoonctl(ProgramArgs),
    /// setkey's command line: also when obol is called `setkey`
    ///
    /// Policies hold at once, with or without a daemon, until they are flushed or the host is
    /// started anew. A script is done whole, in one step. Keys are never listed.
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  obol setkey -f /etc/ipsec-tools.d/mongodb.conf
  obol setkey -DP                # policies
  obol setkey -D                 # SAs
  obol setkey -FP                # and let everything pass in clear again"
    )]
    Setkey(ProgramArgs),
    /// List what the running daemon has configured, whether it is up or not
    #[command(after_help = "\
Examples:
  obol list
  obol list --json")]
    List(OutputArgs),
    /// Let the running daemon read its configuration again
    ///
    /// It reads the file that it was started with. Everything or nothing: with an error in the
    /// file, all stays as it was. Connections that did not change keep their SAs. The [daemon]
    /// table is only read at start.
    #[command(after_help = "\
Examples:
  obol check && obol reload
  obol reload --json")]
    Reload(OutputArgs),
    /// Check a configuration and print what it means; needs no root and no daemon
    ///
    /// Prints every error with file, line and column. Key files are read, so run it as the user
    /// who may.
    #[command(after_help = "\
Examples:
  obol check
  obol check ./hosts.toml
  obol check ./hosts.toml --json
  obol check /etc/ipsec.conf     # a name that ends in .conf is Libreswan's, unless its text is racoon's or setkey's
  obol check /etc/racoon/racoon.conf /etc/ipsec-tools.d/mongodb.conf    # all that racoon and setkey load")]
    Check(CheckArgs),
    /// Print what files of Libreswan or racoon mean on this host as a configuration of obol's own
    ///
    /// Whatever changes its meaning is told on standard error, with its place.
    #[command(after_help = "\
Examples:
  obol convert /etc/ipsec.conf
  obol convert /etc/ipsec.conf | tee /etc/obol/obol.toml
  obol convert /etc/racoon/racoon.conf /etc/ipsec-tools.conf /etc/ipsec-tools.d/mongodb.conf")]
    Convert(ConvertArgs),
    /// Take over from a pluto (Libreswan) that runs, or plan and verify the move away from racoon
    ///
    /// From pluto: reads its files as `obol check` does, asks it what is up or routed, and refuses if obol
    /// would not have that. Then it stops pluto, starts obol, and waits. In between nothing of it leaves in clear,
    /// and after it if neither comes up again. What is not up in time brings pluto back. By systemd where pluto is a unit's. Needs root.
    ///
    /// From racoon, with --racoon-conf: racoon cannot speak IKEv2, so all nodes move together. It changes
    /// nothing: it prints what becomes of the policies, which nodes are concerned, and what is to be done on
    /// each in which order; with --verify, once obol runs, whether the policies stand and peers are met. Exit
    /// code 5: a peer did not answer by IKEv2; 4: it did, but there is no SA; 1: a policy is missing.
    #[command(after_help = "\
Examples:
  obol migrate --dry-run         # what would be done
  obol migrate
  obol migrate --ipsec-conf /etc/ipsec.conf --timeout 2m
  obol migrate --racoon-conf /etc/racoon/racoon.conf      # the plan
  obol migrate --racoon-conf /etc/racoon/racoon.conf --verify --peer 10.0.1.241 --peer 10.0.2.7")]
    Migrate(MigrateArgs),
    /// Make a private key or a pre-shared key, and print what to write into the configurations
    #[command(after_help = "\
Examples:
  obol keygen --out /etc/obol/host.key            # Ed25519
  obol keygen --type p256 --out /etc/obol/host.key
  obol keygen --type rsa --bits 3072 --out /etc/obol/host.key --public-out host.pub
  obol keygen --show /etc/obol/host.key --format openssh
  obol keygen --psk --out /etc/obol/hosts.psk")]
    Keygen(KeygenArgs),
    /// Show two protected hosts at work in two network namespaces of this machine
    ///
    /// Makes the namespaces, runs two daemons, sends traffic, captures the wire, says what was
    /// seen, and removes everything. Needs root.
    #[command(after_help = "\
Examples:
  obol demo
  obol demo --json
  obol demo --hold               # leave it up to look around; Ctrl-C ends it")]
    Demo(DemoArgs),
    /// Remove what a dead daemon left: nftables table, rules, routes
    ///
    /// What was protected then passes in clear, what a cut short `obol migrate` has blocked included. Refuses
    /// while the daemon runs or begins: `obol down --all` is for that.
    #[command(after_help = "\
Examples:
  obol purge
  obol purge --config ./b.toml --runtime-dir /run/obol-b")]
    Purge,
    /// Print the version
    #[command(after_help = "\
Examples:
  obol version
  obol version --json")]
    Version(OutputArgs),
}

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `obol run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Libreswan's configuration, with all that it includes; obol.toml need not be there then
    #[arg(long, value_name = "FILE")]
    pub(crate) ipsec_conf: Option<PathBuf>,
    /// Its secrets [default: secretsfile= of config setup, else /etc/ipsec.secrets]
    #[arg(long, value_name = "FILE", requires = "ipsec_conf")]
    pub(crate) ipsec_secrets: Option<PathBuf>,
    /// Where the NSS database with the private keys is [default: nssdir= of config setup, else
    /// /var/lib/ipsec/nss, then /etc/ipsec.d]
    #[arg(long, value_name = "DIR", requires = "ipsec_conf")]
    pub(crate) nssdir: Option<PathBuf>,
    /// racoon's configuration, with all that it includes; obol.toml need not be there then
    #[arg(long, value_name = "FILE", conflicts_with = "ipsec_conf")]
    pub(crate) racoon_conf: Option<PathBuf>,
    /// A script of setkey with the policies; may be given several times, as /etc/ipsec-tools.conf and the
    /// files in /etc/ipsec-tools.d are loaded [default: what setkey was told]
    #[arg(long, value_name = "FILE", requires = "racoon_conf")]
    pub(crate) setkey: Vec<PathBuf>,
}

impl RunArgs {
    /// The files of racoon's, if they are to be read.
    pub(crate) fn racoon(&self, runtime_dir: &Path) -> Option<racoon::Files> {
        Some(racoon::Files {
            conf: self.racoon_conf.clone()?,
            scripts: self.setkey.clone(),
            store: self.setkey.is_empty().then(|| store_path(runtime_dir)),
            overrides: Default::default(),
        })
    }

    /// The files of pluto's, if they are to be read.
    pub(crate) fn pluto(&self) -> Option<pluto::Files> {
        Some(pluto::Files {
            secrets: self.ipsec_secrets.clone(),
            nss: self.nssdir.clone(),
            ..pluto::Files::of(self.ipsec_conf.as_deref()?)
        })
    }
}

/// Arguments of `obol up`.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// CONNECTION or CONNECTION/CHILD
    #[arg(value_name = "NAME")]
    pub(crate) target: Target,
    /// How long to wait: 5s, 1m, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = wait)]
    pub(crate) timeout: Duration,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `obol down`.
#[derive(Args, Debug)]
pub(crate) struct DownArgs {
    /// CONNECTION or CONNECTION/CHILD
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) target: Option<Target>,
    /// Close everything, end the daemon, and lift all protection
    #[arg(long, conflicts_with = "target")]
    pub(crate) all: bool,
    /// Only if systemd stops this unit, whose ExecStop this is: not if it restarts it, or the host goes down
    #[arg(long, value_name = "UNIT", requires = "all")]
    pub(crate) of_unit: Option<String>,
    /// How long to wait for the peers: 5s, 1m, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait)]
    pub(crate) timeout: Duration,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `obol redirect`.
#[derive(Args, Debug)]
pub(crate) struct RedirectArgs {
    /// CONNECTION
    #[arg(value_name = "CONNECTION")]
    pub(crate) connection: String,
    /// The address of the other gateway
    #[arg(value_name = "TO")]
    pub(crate) to: IpAddr,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `obol status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Only this: CONNECTION or CONNECTION/CHILD
    #[arg(value_name = "NAME")]
    pub(crate) target: Option<Target>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `obol check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The file, instead of --config; several where they belong together
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Arguments of `obol ipsec`.
#[derive(Args, Debug)]
pub(crate) struct IpsecArgs {
    /// What would be written after `ipsec`
    #[arg(
        value_name = "ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) arguments: Vec<String>,
}

/// Arguments of a program of ipsec-tools.
#[derive(Args, Debug)]
pub(crate) struct ProgramArgs {
    /// What would be written behind its name
    #[arg(
        value_name = "ARGUMENT",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) arguments: Vec<String>,
}

/// Arguments of `obol convert`.
#[derive(Args, Debug)]
pub(crate) struct ConvertArgs {
    /// ipsec.conf, or racoon.conf and scripts of setkey, perhaps with psk.txt; what they include is read as well
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// Arguments of `obol migrate`.
#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    /// Libreswan's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/ipsec.conf")]
    pub(crate) ipsec_conf: PathBuf,
    /// Its secrets, as for obol run
    #[arg(long, value_name = "FILE")]
    pub(crate) ipsec_secrets: Option<PathBuf>,
    /// Where the NSS database with the private keys is, as for obol run
    #[arg(long, value_name = "DIR")]
    pub(crate) nssdir: Option<PathBuf>,
    /// Where pluto has pluto.pid
    #[arg(long, value_name = "DIR", default_value = pluto::RUNDIR)]
    pub(crate) pluto_rundir: PathBuf,
    /// How long each step, or each peer, may take: 30s, 2m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait)]
    pub(crate) timeout: Duration,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// racoon's configuration: the move is from racoon, and planned alone
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ipsec_conf", "ipsec_secrets", "nssdir", "pluto_rundir"])]
    pub(crate) racoon_conf: Option<PathBuf>,
    /// A script of setkey's; several are loaded one after another [default: /etc/ipsec-tools.conf,
    /// then /etc/ipsec-tools.d/*.conf]
    #[arg(long, value_name = "FILE", requires = "racoon_conf")]
    pub(crate) setkey: Vec<PathBuf>,
    /// See whether the move is done: obol runs, its policies are those of the files, peers answer
    #[arg(long, requires = "racoon_conf", conflicts_with = "dry_run")]
    pub(crate) verify: bool,
    /// A peer that is to answer, beside those that the files name
    #[arg(long, value_name = "ADDRESS", requires = "verify")]
    pub(crate) peer: Vec<IpAddr>,
}

/// Arguments of `obol keygen`.
#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// Kind of key
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = KeyType::Ed25519)]
    pub(crate) key_type: KeyType,
    /// Size of an RSA key in bits, 2048 to 8192; goes with --type rsa
    #[arg(long, value_name = "N", default_value_t = 3072, value_parser = clap::value_parser!(u32).range(2048..=8192))]
    pub(crate) bits: u32,
    /// Make a pre-shared key
    #[arg(long, conflicts_with_all = ["key_type", "bits", "show", "public_out", "format"])]
    pub(crate) psk: bool,
    /// Print the public half of an existing private key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key_type", "bits", "out", "force"])]
    pub(crate) show: Option<PathBuf>,
    /// Where the secret goes, with mode 0600 [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Where the public key goes
    #[arg(long, value_name = "FILE")]
    pub(crate) public_out: Option<PathBuf>,
    /// How the public key is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = KeyFormat::Pem)]
    pub(crate) format: KeyFormat,
    /// Overwrite files that exist
    #[arg(long)]
    pub(crate) force: bool,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum KeyType {
    /// Small and fast (RFC 8420)
    Ed25519,
    /// ECDSA on the curve P-256
    P256,
    /// ECDSA on the curve P-384
    P384,
    /// ECDSA on the curve P-521
    P521,
    /// For peers that have nothing better
    Rsa,
}

/// How a public key is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum KeyFormat {
    /// As strongSwan's pubkeys and openssl read it
    Pem,
    /// One line, as in authorized_keys
    Openssh,
    /// One line, 0s and base64, as ipsec.conf's rsasigkey (RFC 3110; RSA only)
    #[value(name = "0s")]
    Dns,
}

/// Arguments of `obol demo`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DemoArgs {
    /// Leave everything up until Ctrl-C
    #[arg(long)]
    pub(crate) hold: bool,
    /// How to print.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `CONNECTION` or `CONNECTION/CHILD`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Target {
    /// Name of the connection.
    pub(crate) connection: String,
    /// Name of the child, if one was named.
    pub(crate) child: Option<String>,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (connection, child) = match text.split_once('/') {
            Some((connection, child)) => (connection, Some(child)),
            None => (text, None),
        };
        if connection.is_empty() || child.is_some_and(|c| c.is_empty() || c.contains('/')) {
            return Err("write CONNECTION or CONNECTION/CHILD".into());
        }
        Ok(Self {
            connection: connection.into(),
            child: child.map(Into::into),
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.child {
            Some(child) => write!(f, "{}/{child}", self.connection),
            None => f.write_str(&self.connection),
        }
    }
}

/// A waiting time: `500ms`, `5s`, `1m`, or seconds; at most a day.
fn wait(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        _ => return Err("write a time like 500ms, 5s or 1m".into()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a time like 500ms, 5s or 1m")?;
    match number.checked_mul(factor) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("a day is the longest wait".into()),
    }
}

impl Cli {
    /// The runtime directory by argument, environment or default.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        let given = self.runtime_dir.clone();
        given.unwrap_or_else(Self::default_runtime_dir)
    }

    /// The runtime directory by environment or default.
    pub(crate) fn default_runtime_dir() -> PathBuf {
        let given = std::env::var_os(RUNTIME_DIR_VARIABLE).filter(|dir| !dir.is_empty());
        given.map_or_else(|| PathBuf::from(DEFAULT_RUNTIME_DIR), PathBuf::from)
    }
}
