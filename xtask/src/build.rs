//! Building with cargo, and finding what it built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};

/// The programs that belong together, beside each other.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) smartvm: PathBuf,
    pub(crate) agent: PathBuf,
}

/// What cargo built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Executables, with the name and the kind of their targets.
    executables: Vec<(String, String, PathBuf)>,
}

/// Cargo, as this task itself was started by it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Runs `cargo build` with these arguments. Cargo shows its progress itself.
///
/// # Errors
/// If it can't be run, or fails.
pub(crate) fn build(arguments: &[&str]) -> Result<Built> {
    let output = cargo()
        .arg("build")
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|cause| Failure::new(format!("running cargo build: {cause}")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "cargo build {}: {}",
            arguments.join(" "),
            output.status
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Built {
        executables: text.lines().filter_map(executable).collect(),
    })
}

impl Built {
    /// The test executable of that name.
    pub(crate) fn test(&self, name: &str) -> Option<&Path> {
        self.find(name, "test")
    }

    /// The example of that name: a program that tests use.
    pub(crate) fn example(&self, name: &str) -> Option<&Path> {
        self.find(name, "example")
    }

    /// The programs that make up smartvm.
    ///
    /// # Errors
    /// If they aren't among what was built.
    pub(crate) fn programs(&self) -> Result<Programs> {
        let find = |name| {
            let missing = || Failure::new(format!("cargo build didn't say where {name} is"));
            self.find(name, "bin")
                .map(Path::to_owned)
                .ok_or_else(missing)
        };
        Ok(Programs {
            smartvm: find("smartvm")?,
            agent: find("smartvm-agent")?,
        })
    }

    fn find(&self, name: &str, kind: &str) -> Option<&Path> {
        self.executables
            .iter()
            .find(|(n, k, _)| n == name && k == kind)
            .map(|(_, _, path)| &**path)
    }
}

/// Name, kind and path of the executable that a line of cargo's messages tells of. Only this
/// much of JSON is understood: the first string after a key. Cargo writes no space between.
fn executable(message: &str) -> Option<(String, String, PathBuf)> {
    let string_after = |key: &str, text: &str| -> Option<String> {
        let rest = &text[text.find(key)? + key.len()..];
        let end = rest.find('"')?;
        // An escaped character, which no path of a build needs.
        (!rest[..end].contains('\\')).then(|| rest[..end].to_owned())
    };
    if !message.starts_with(r#"{"reason":"compiler-artifact""#) {
        return None;
    }
    let path = string_after(r#""executable":""#, message)?;
    let target = &message[message.find(r#""target":{"#)?..];
    let kind = string_after(r#""kind":[""#, target)?;
    let name = string_after(r#""name":""#, target)?;
    Some((name, kind, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_the_messages() {
        let bin = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/c#smartvm-cli@0.1.0","manifest_path":"/w/c/Cargo.toml","target":{"kind":["bin"],"crate_types":["bin"],"name":"smartvm","src_path":"/w/c/src/main.rs","test":true},"profile":{"opt_level":"3","test":false},"features":[],"filenames":["/t/smartvm"],"executable":"/t/smartvm","fresh":true}"#;
        let expected = (
            "smartvm".to_owned(),
            "bin".to_owned(),
            PathBuf::from("/t/smartvm"),
        );
        assert_eq!(executable(bin), Some(expected));
        let library = bin.replace(r#""executable":"/t/smartvm""#, r#""executable":null"#);
        assert_eq!(executable(&library), None);
        assert_eq!(
            executable(r#"{"reason":"build-finished","success":true}"#),
            None
        );
        assert_eq!(executable(""), None);
    }
}
