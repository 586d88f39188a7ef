//! What an image says is to be run in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use typed_builder::TypedBuilder;

use crate::spec::{Problem, Problems};

/// The command of an image, and how it is run.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, TypedBuilder,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ImageProcess {
    /// The program, with the arguments that always are its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[builder(default)]
    pub entrypoint: Vec<String>,
    /// Further arguments; without an entrypoint, the program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[builder(default)]
    pub command: Vec<String>,
    /// Environment variables, each as `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[builder(default)]
    pub env: Vec<String>,
    /// The working directory, an absolute path. Default: `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub working_dir: Option<String>,
    /// `USER`, `UID`, `USER:GROUP` or `UID:GID`. Default: root.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[builder(default, setter(into, strip_option))]
    pub user: Option<String>,
}

impl ImageProcess {
    /// Program and arguments; empty where the image names none.
    pub fn argv(&self) -> Vec<String> {
        [self.entrypoint.as_slice(), &self.command].concat()
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        let mut wrong = |field: &str, what: String, allowed: &str| {
            problems.push(Problem::new(format!("process.{field}"), what, allowed));
        };
        let lists = [("entrypoint", &self.entrypoint), ("command", &self.command)];
        for (field, list) in lists {
            for (number, word) in list.iter().enumerate() {
                if word.contains('\0') {
                    let what = "contains a zero byte".to_owned();
                    wrong(&format!("{field}[{number}]"), what, "text without one");
                }
            }
        }
        for (number, variable) in self.env.iter().enumerate() {
            let name = variable.split_once('=').map(|(name, _)| name);
            if name.is_none_or(str::is_empty) || variable.contains('\0') {
                let what = format!("is {variable:?}");
                wrong(&format!("env[{number}]"), what, "NAME=VALUE");
            }
        }
        if let Some(dir) = &self.working_dir
            && (!dir.starts_with('/') || dir.contains('\0'))
        {
            wrong("workingDir", format!("is {dir:?}"), "an absolute path");
        }
        if let Some(user) = &self.user
            && (user.is_empty() || user.chars().any(|c| c.is_control() || c.is_whitespace()))
        {
            wrong(
                "user",
                format!("is {user:?}"),
                "a user, or a user and a group",
            );
        }
    }
}
