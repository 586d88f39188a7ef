//! One request of Firecracker's API.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// What Firecracker accepts at most as a request's body, in bytes.
pub const MAX_REQUEST_BYTES: usize = 51_200;

/// An HTTP method of Firecracker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Method {
    /// Asks.
    Get,
    /// Makes or replaces.
    Put,
    /// Changes.
    Patch,
}

/// One request, its body encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    method: Method,
    path: String,
    body: Vec<u8>,
}

impl Request {
    /// A request with `body` as JSON.
    pub fn new(method: Method, path: impl Into<String>, body: &impl Serialize) -> Result<Self> {
        let path = path.into();
        let body = serde_json::to_vec(body).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("encoding the request {path}")).because(e)
        })?;
        if body.len() > MAX_REQUEST_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the request {path} has {} bytes, Firecracker takes {MAX_REQUEST_BYTES}",
                    body.len()
                ),
            ));
        }
        Ok(Self { method, path, body })
    }

    /// A question.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            path: path.into(),
            body: Vec::new(),
        }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path, from `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The JSON that is sent.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Serialize for Request {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeMap};
        let body: serde_json::Value =
            serde_json::from_slice(self.body()).map_err(S::Error::custom)?;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("method", &self.method())?;
        map.serialize_entry("path", self.path())?;
        map.serialize_entry("body", &body)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_over_the_limit_is_refused_before_it_is_sent() {
        let body = "x".repeat(MAX_REQUEST_BYTES);
        let refused = Request::new(Method::Put, "/mmds", &body).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}
