//! docs/cli.md is what `--help` prints, of every verb.
//!
//! After a change of the command line: `SMARTVM_UPDATE_DOCS=1 cargo test -p smartvm-cli --test
//! reference` writes it anew.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Stdio};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");

const HEAD: &str = "\
# The command line

What `smartvm --help` and `smartvm VERB --help` print. Options of the group \"Everywhere\" stand at
the first one only, and may be given to every verb, before or after its name.
";

/// What `--help` of this verb prints, on a terminal of 100 columns.
fn help(verb: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smartvm"));
    command.args(verb).arg("--help");
    // The values of the reader's own environment would be shown.
    let ours =
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SMARTVM"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    let told = command
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(told.status.success(), "{verb:?}");
    String::from_utf8(told.stdout).unwrap()
}

/// The verbs that a help names.
fn verbs(help: &str) -> Vec<&str> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  "))
        // What is further in goes on with the line before.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect()
}

/// A help without the options that all have.
fn own(help: &str) -> String {
    let parts = help.trim_end().split("\n\n");
    let own: Vec<_> = parts
        .filter(|part| !part.starts_with("Everywhere:"))
        .collect();
    own.join("\n\n")
}

/// Adds a verb and those below it.
fn describe(verb: &[&str], page: &mut String) {
    let told = help(verb);
    let text = if verb.is_empty() {
        told.trim_end().to_owned()
    } else {
        own(&told)
    };
    let heading =
        "#".repeat(verb.len().min(2) + 1)
            .replacen('#', "##", usize::from(verb.is_empty()));
    let name = ["smartvm"].iter().chain(verb).copied().collect::<Vec<_>>();
    let name = name.join(" ");
    page.push_str(&format!("\n{heading} {name}\n```text\n{text}\n```\n"));
    for next in verbs(&told) {
        let verb: Vec<_> = verb.iter().copied().chain([next]).collect();
        describe(&verb, page);
    }
}

#[test]
fn the_reference_is_what_help_prints() {
    let mut page = HEAD.to_owned();
    describe(&[], &mut page);
    if std::env::var_os("SMARTVM_UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let differs = written
        .lines()
        .zip(page.lines())
        .find(|(written, printed)| written != printed);
    assert!(
        written == page,
        "docs/cli.md isn't what --help prints: {differs:?}\n\
         write it anew: SMARTVM_UPDATE_DOCS=1 cargo test -p smartvm-cli --test reference"
    );
}

#[test]
fn every_verb_shows_examples() {
    let top = help(&[]);
    for verb in verbs(&top) {
        let told = help(&[verb]);
        let examples = |told: &str| told.contains("Example");
        let below = verbs(&told);
        let shown = examples(&told)
            || !below.is_empty() && below.iter().all(|next| examples(&help(&[verb, next])));
        assert!(shown, "smartvm {verb} --help shows no example");
    }
}
