//! The names of images in registries.

use std::fmt;
use std::str::FromStr;

use super::source::sha256_digest;
use crate::{Error, ErrorKind, Result};

/// The registry where none is named, and the host that answers for it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// The tag where neither a tag nor a digest is given.
const LATEST: &str = "latest";
/// Longest name of a repository, as the distribution specification has it.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The name of an image in a registry, as container engines read it: `alpine`,
/// `registry.example:5000/team/tool:1.2`, `tool@sha256:…`; without a registry, Docker Hub.
/// Displayed in full: `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// The registry, such as `docker.io` or `registry.example:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What of the repository: a digest where there is one, else the tag.
    pub fn version(&self) -> &str {
        let tag = self.tag.as_deref();
        self.digest.as_deref().or(tag).unwrap_or(LATEST)
    }

    /// The digest, where it names one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// A name for the image here: the last part of the repository, and the tag unless it is
    /// the usual one: `alpine`, `tool-1.2`.
    pub fn short_name(&self) -> String {
        let last = self.repository.rsplit('/').next().unwrap_or_default();
        match self.tag.as_deref() {
            None | Some(LATEST) => last.to_owned(),
            Some(tag) => format!("{last}-{tag}"),
        }
    }

    /// The host that answers, perhaps with a port.
    pub fn host(&self) -> &str {
        match self.registry.as_str() {
            DOCKER_HUB => DOCKER_HUB_HOST,
            host => host,
        }
    }

    /// Whether a text with a `/` in it names a registry first, and so is no repository's name
    /// alone.
    pub fn names_registry(text: &str) -> bool {
        let first = text.split_once('/').map_or("", |(first, _)| first);
        text.starts_with("docker://") || (is_registry(first) && is_host(first))
    }

    /// Whether the registry is on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.registry.strip_prefix('[').map_or_else(
            || self.registry.split(':').next(),
            |rest| rest.split(']').next(),
        );
        let host = host.unwrap_or_default();
        let address: Option<std::net::IpAddr> = host.parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |what: &str| {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} can't name an image in a registry: {what}"),
            )
            .hint("write it as [REGISTRY/]REPOSITORY[:TAG][@DIGEST], such as alpine:3.20")
        };
        let rest = text.strip_prefix("docker://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                sha256_digest(digest).map_err(|e| refused(&e.to_string()))?;
                (rest, Some(digest.to_owned()))
            }
            None => (rest, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DOCKER_HUB, rest),
        };
        let registry = match registry {
            "index.docker.io" | DOCKER_HUB_HOST => DOCKER_HUB,
            other => other,
        };
        if !is_host(registry) {
            return Err(refused("the registry is none"));
        }
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
            return Err(refused("the tag is none"));
        }
        let tag = match digest {
            None => tag.or_else(|| Some(LATEST.to_owned())),
            Some(_) => tag,
        };
        let repository = match registry {
            DOCKER_HUB if !repository.contains('/') => format!("library/{repository}"),
            _ => repository.to_owned(),
        };
        if repository.len() > MAX_NAME || !repository.split('/').all(is_part) {
            return Err(refused("the repository is none (it has no upper case)"));
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

/// Whether the first part of a name is a registry's rather than a repository's.
fn is_registry(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':'])
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (
                "v6",
                port.strip_prefix(':')
                    .or(Some(port).filter(|p| !p.is_empty())),
            ),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    host.starts_with(|c: char| c.is_ascii_alphanumeric())
        && host.chars().all(fits)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Part of a repository's name: lower case and digits, with separators between.
fn is_part(part: &str) -> bool {
    let mut words = part.split(['.', '_', '-']).peekable();
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let edges = part.starts_with(fits) && part.ends_with(fits);
    edges
        && words.all(|word| word.chars().all(fits))
        && !part.contains("..")
        && !part.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word)
        && tag.len() <= MAX_TAG
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_container_engines_read_them() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (text, full, short) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine-3.20",
            ),
            ("team/tool", "docker.io/team/tool:latest", "tool"),
            (
                "docker://index.docker.io/a",
                "docker.io/library/a:latest",
                "a",
            ),
            ("localhost/a/b_c", "localhost/a/b_c:latest", "b_c"),
            ("[::1]:5000/a:x", "[::1]:5000/a:x", "a-x"),
            (
                "registry.example:5000/team/tool:1.2",
                "registry.example:5000/team/tool:1.2",
                "tool-1.2",
            ),
            (
                &format!("quay.io/a/b@{digest}"),
                &format!("quay.io/a/b@{digest}"),
                "b",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.short_name(), short);
            assert_eq!(
                reference.to_string().parse::<Reference>().unwrap(),
                reference
            );
        }
        let pinned: Reference = format!("a:1@{digest}").parse().unwrap();
        assert_eq!(pinned.version(), digest);
        let hub: Reference = "alpine".parse().unwrap();
        assert_eq!(
            (hub.host(), hub.version()),
            ("registry-1.docker.io", "latest")
        );
    }

    #[test]
    fn what_names_no_image_is_refused() {
        for text in [
            "",
            "/",
            "Alpine",
            "a b",
            "a:",
            "a:-x",
            "a//b",
            "../a",
            "a/../b",
            "-a",
            "a@sha256:12",
            "a@md5:00",
            "host.example:port/a",
            "host.example:0/a",
            "user@host.example/a",
            "http://host.example/a",
            "[::1/a",
            "a\0b",
            "host.example/",
        ] {
            let refused = text.parse::<Reference>().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{text}");
            assert!(refused.way_out().is_some());
        }
    }

    #[test]
    fn only_loopback_is_this_machine() {
        let local = |text: &str| text.parse::<Reference>().unwrap().is_local();
        assert!(Reference::names_registry("localhost/a") && Reference::names_registry("a.b:1/c"));
        for path in ["./a", "../a", "/a", "a/b", "a"] {
            assert!(!Reference::names_registry(path), "{path}");
        }
        assert!(local("localhost/a") && local("127.0.0.1:5000/a") && local("[::1]:5000/a"));
        assert!(!local("localhost.example/a") && !local("10.0.0.1:5000/a") && !local("a"));
    }
}
