//! The command line as it is documented.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::args::{Cli, Command, DEFAULT_CONFIG, KeyFormat, KeyType, Target};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn clap_finds_no_contradiction() {
    Cli::command().debug_assert();
}

/// Every line of every help text that shows a command, up to its comment, pipe or `&&`.
fn examples() -> Vec<String> {
    let mut texts = Vec::new();
    let top = Cli::command();
    for command in std::iter::once(&top).chain(top.get_subcommands()) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_else(|| panic!("{} has no examples", command.get_name()));
        let lines: Vec<String> = help
            .lines()
            .flat_map(|line| line.split(['#', '|']).next())
            .flat_map(|line| line.split("&&"))
            .map(|line| line.trim().to_owned())
            .filter(|line| line.starts_with("obol "))
            .collect();
        assert!(lines.len() >= 2, "{} has few examples", command.get_name());
        texts.extend(lines);
    }
    texts
}

#[test]
fn every_example_in_the_help_is_understood() {
    let examples = examples();
    assert!(examples.len() > 25, "{examples:?}");
    for example in examples {
        if let Err(e) = parse(&example) {
            panic!("{example}: {e}");
        }
    }
}

#[test]
fn every_exit_code_is_in_the_help() {
    let help = Cli::command().render_long_help().to_string();
    for class in crate::error::ExitClass::ALL {
        let line = format!("\n  {}  ", class.code());
        assert!(help.contains(&line), "{class:?}");
    }
}

#[test]
fn names_are_connections_or_children() {
    let target = |text: &str| text.parse::<Target>();
    let pods = target("hosts/pods").unwrap();
    assert_eq!(pods.child.as_deref(), Some("pods"));
    assert_eq!(pods.to_string(), "hosts/pods");
    assert_eq!(target("hosts").unwrap().child, None);
    for bad in ["", "/", "a/", "/a", "a/b/c"] {
        assert!(target(bad).is_err(), "{bad}");
    }
}

#[test]
fn arguments_mean_what_they_say() {
    let cli = parse("obol up hosts/pods --timeout 1m --runtime-dir /run/x").unwrap();
    assert_eq!(cli.runtime_dir(), Path::new("/run/x"));
    assert_eq!(cli.config, Path::new(DEFAULT_CONFIG));
    let Command::Up(up) = cli.command else {
        panic!("up");
    };
    assert_eq!(up.timeout, Duration::from_secs(60));
    assert_eq!(up.target, "hosts/pods".parse().unwrap());

    let cli = parse("obol keygen --type rsa --bits 4096 --format 0s").unwrap();
    let Command::Keygen(keygen) = cli.command else {
        panic!("keygen");
    };
    assert_eq!((keygen.key_type, keygen.bits), (KeyType::Rsa, 4096));
    assert_eq!(keygen.format, KeyFormat::Dns);
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "obol",
        "obol fly",
        "obol up",
        "obol up a/b/c",
        "obol up hosts --timeout 5x",
        "obol up hosts --timeout 2000m",
        "obol down",
        "obol down hosts --all",
        "obol keygen --bits 1024",
        "obol keygen --psk --bits 2048",
        "obol keygen --show a --out b",
        "obol keygen --type dsa",
        "obol run extra",
    ] {
        let error = parse(line).map(|_| ()).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}
