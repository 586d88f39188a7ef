//! Who asks: what `docker login`, `podman login` and their like have left in files.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::spec::Secret;
use crate::storage::oci::Reference;
use crate::storage::program;
use crate::{Error, ErrorKind, Result, durable};

const MOST_BYTES: u64 = 1 << 20;
/// A helper may ask a key ring, which may ask its owner.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);
/// What Docker Hub goes by in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Where credentials for registries are looked up: files in the form of Docker's
/// `config.json`, which is also that of `containers-auth.json`. The first that knows a
/// registry tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The files; those that are missing are passed over.
    pub files: Vec<PathBuf>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Password {
        user: String,
        password: Secret,
    },
    /// Exchanged for a token of the registry's.
    Token(Secret),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

impl Credentials {
    /// Those of these files.
    pub fn from_files(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            files: files.into_iter().collect(),
        }
    }

    /// Looks up who asks for this image. Reads files and may run a helper.
    pub(super) fn find(&self, reference: &Reference) -> Result<Option<Who>> {
        for file in &self.files {
            let Some(bytes) = durable::read_bounded(file, MOST_BYTES)? else {
                continue;
            };
            // Serde's words would quote what is there.
            let config: Config = serde_json::from_slice(&bytes).map_err(|cause| {
                Error::new(
                    ErrorKind::Invalid,
                    format!(
                        "the credentials in {} can't be understood (line {})",
                        file.display(),
                        cause.line()
                    ),
                )
                .at(file)
            })?;
            if let Some(who) = config.find(reference, file)? {
                return Ok(Some(who));
            }
        }
        Ok(None)
    }
}

impl Config {
    fn find(&self, reference: &Reference, file: &Path) -> Result<Option<Who>> {
        let keys = keys(reference);
        let server = keys.last().map_or("", String::as_str);
        let helper = keys.iter().find_map(|key| self.cred_helpers.get(key));
        if let Some(helper) = helper {
            return ask(helper, server);
        }
        let entry = keys.iter().find_map(|key| {
            let of_key = |(name, _): &(&String, &Entry)| plain(name) == plain(key);
            self.auths.iter().find(of_key).map(|(_, entry)| entry)
        });
        if let Some(who) = entry.map(|entry| entry.who(file)).transpose()?.flatten() {
            return Ok(Some(who));
        }
        let Some(store) = &self.creds_store else {
            return Ok(None);
        };
        // Most images can be had by anybody: a store that is out of order is no reason to stop.
        Ok(ask(store, server).unwrap_or_else(|e| {
            tracing::warn!("the credentials of {}: {e}", file.display());
            None
        }))
    }
}

impl Entry {
    fn who(&self, file: &Path) -> Result<Option<Who>> {
        if let Some(token) = self
            .identitytoken
            .as_ref()
            .filter(|t| !t.reveal().is_empty())
        {
            return Ok(Some(Who::Token(token.clone())));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.reveal().is_empty()) {
            let unfit = || {
                let what = format!(
                    "an `auth` in {} isn't USER:PASSWORD in Base64",
                    file.display()
                );
                Error::new(ErrorKind::Invalid, what).at(file)
            };
            let lenient = GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient)
                .decode(auth.reveal())
                .map_err(|_| unfit())?;
            let text = String::from_utf8(bytes).map_err(|_| unfit())?;
            let (user, password) = text.split_once(':').ok_or_else(unfit)?;
            return Ok(Some(Who::Password {
                user: user.to_owned(),
                // Docker pads with zero bytes.
                password: password.trim_end_matches('\0').into(),
            }));
        }
        Ok(match (&self.username, &self.password) {
            (Some(user), Some(password)) if !user.is_empty() => Some(Who::Password {
                user: user.clone(),
                password: password.clone(),
            }),
            _ => None,
        })
    }
}

/// By what a file may name the image's registry, the most telling first: it may have
/// credentials for parts of a registry.
fn keys(reference: &Reference) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = format!("{}/{}", reference.registry(), reference.repository());
    loop {
        keys.push(path.clone());
        match path.rfind('/') {
            Some(end) => path.truncate(end),
            None => break,
        }
    }
    if reference.registry() == "docker.io" {
        keys.push(DOCKER_HUB.to_owned());
    }
    keys
}

/// A key without what Docker and others put around it.
fn plain(key: &str) -> &str {
    let bare = ["https://", "http://"]
        .iter()
        .find_map(|scheme| key.strip_prefix(scheme));
    match bare {
        // Of a URL only the host counts.
        Some(bare) => bare.split('/').next().unwrap_or(bare),
        None => key,
    }
}

/// Asks a helper, a program named `docker-credential-NAME`; `None` if it doesn't know.
fn ask(helper: &str, server: &str) -> Result<Option<Who>> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if helper.is_empty() || !helper.chars().all(fits) {
        let what = format!("{helper:?} can't name a credential helper");
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    let name = format!("docker-credential-{helper}");
    let program = program::find(&name, &name)?;
    let failed = |e| Error::io("asking", &program, e);
    let mut question = tempfile::tempfile().map_err(failed)?;
    question
        .write_all(server.as_bytes())
        .and_then(|()| question.rewind())
        .map_err(failed)?;
    let answer = tempfile::tempfile().map_err(failed)?;
    let mut command = Command::new(&program);
    command.arg("get");
    let mut said = answer.try_clone().map_err(failed)?;
    let ended = program::run_with(
        command,
        Stdio::from(question),
        answer,
        HELPER_PATIENCE,
        &|| false,
    )?;
    if ended.status != Some(0) {
        // By these words helpers say that they don't know; they say it on either stream.
        let said = [&ended.stdout, &ended.stderr];
        if said.iter().any(|text| text.contains("not found")) {
            return Ok(None);
        }
        return Err(program::refused(
            &program,
            "asking for credentials",
            &ended,
            &ended.stderr,
        ));
    }
    let mut bytes = Vec::new();
    said.rewind()
        .and_then(|()| said.take(MOST_BYTES).read_to_end(&mut bytes))
        .map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| {
        let what = format!("{name} answers something else than credentials");
        Error::new(ErrorKind::Invalid, what)
    })?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Who::Token(answer.secret),
        _ => Who::Password {
            user: answer.username,
            password: answer.secret,
        },
    }))
}
