//! The session that the README shows: run again, line by line.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{image, smartvm};

const README: &str = include_str!("../../../../README.md");

/// What was typed, and what was printed then.
struct Typed<'a> {
    line: &'a str,
    printed: Vec<&'a str>,
}

/// The first session in the README.
fn session() -> Vec<Typed<'static>> {
    let (_, after) = README.split_once("```console\n").expect("a session");
    let (session, _) = after.split_once("```").expect("the session's end");
    let mut typed: Vec<Typed<'_>> = Vec::new();
    for line in session.lines().filter(|line| !line.is_empty()) {
        match (line.strip_prefix("$ "), typed.last_mut()) {
            (Some(line), _) => typed.push(Typed {
                line,
                printed: Vec::new(),
            }),
            (None, Some(last)) => last.printed.push(line),
            (None, None) => panic!("the session begins with output: {line}"),
        }
    }
    typed
}

/// A line without what differs from one time to the next: numbers, and how columns are padded.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for word in line.split_whitespace() {
        let mut digit = false;
        for letter in word.chars() {
            if !(digit && letter.is_ascii_digit()) {
                shape.push(if letter.is_ascii_digit() { '0' } else { letter });
            }
            digit = letter.is_ascii_digit();
        }
        shape.push(' ');
    }
    shape
}

/// Runs a line of the session as a shell would, with `smartvm` on its PATH.
fn run(line: &str, directory: &Path) -> String {
    let template = smartvm();
    let mut shell = Command::new("sh");
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let program = Path::new(template.get_program()).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let ran = shell
        .args(["-c", line])
        .env("PATH", format!("{}:{path}", program.display()))
        // `smartvm ps` is to list only what the session started.
        .env("SMARTVM_RUNTIME_DIR", directory.join("runtime"))
        .current_dir(directory)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "$ {line}\n{errors}");
    String::from_utf8(ran.stdout).unwrap()
}

#[test]
fn the_readmes_session_runs_as_it_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    symlink(image(), directory.path().join("image")).unwrap();
    std::fs::write(directory.path().join("some.bin"), [0, 255, 10, 13, 0]).unwrap();
    let session = session();
    assert!(session.len() > 3, "{} lines are typed", session.len());
    for Typed { line, printed } in session {
        let out = run(line, directory.path());
        let shapes = |lines: &mut dyn Iterator<Item = &str>| lines.map(shape).collect::<Vec<_>>();
        assert_eq!(
            shapes(&mut out.lines()),
            shapes(&mut printed.into_iter()),
            "$ {line}\n{out}"
        );
    }
    let copy = std::fs::read(directory.path().join("copy.bin")).unwrap();
    assert_eq!(copy, [0, 255, 10, 13, 0]);
    let left = std::fs::read_dir(directory.path().join("runtime")).unwrap();
    let left: Vec<_> = left
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
