//! Requests for one image: by http where that is allowed, and with whatever the registry
//! wants to know of who asks.

use std::time::Duration;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE,
};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use super::Registry;
use super::credentials::Who;
use crate::spec::Secret;
use crate::storage::download::{Document, secret_header};
use crate::storage::oci::Reference;
use crate::vm::blocking;
use crate::{Error, ErrorKind, Result};

/// How long it may take to see whether a registry speaks https.
const KNOCK_PATIENCE: Duration = Duration::from_secs(10);
const MOST_TOKEN_BYTES: u64 = 1 << 20;

/// The conversation about one image.
pub(super) struct Session<'a> {
    pub(super) registry: &'a Registry,
    pub(super) reference: &'a Reference,
    base: Url,
    /// What the registry is told of who asks.
    who: Option<Secret>,
}

/// Where tokens come from.
struct Challenge {
    realm: Url,
    service: Option<String>,
    scope: String,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: Secret,
}

impl<'a> Session<'a> {
    pub(super) async fn open(registry: &'a Registry, reference: &'a Reference) -> Result<Self> {
        let url = |scheme: &str| {
            let text = format!("{scheme}://{}/v2/", reference.host());
            Url::parse(&text).map_err(|cause| {
                let what = format!("{} is no registry", reference.registry());
                Error::new(ErrorKind::Invalid, what).because(cause)
            })
        };
        let mut base = url("https")?;
        if registry.insecure || reference.is_local() {
            let client = registry.downloader.client();
            let knock = client.get(base.clone()).timeout(KNOCK_PATIENCE).send();
            if knock.await.is_err() {
                base = url("http")?;
            }
        }
        Ok(Self {
            registry,
            reference,
            base,
            who: None,
        })
    }

    /// What the registry is told of who asks, for a download.
    pub(super) fn who(&self) -> Option<Secret> {
        self.who.clone()
    }

    /// The URL of something of the repository.
    pub(super) fn url(&self, what: &str) -> String {
        format!("{}{}/{what}", self.base, self.reference.repository())
    }

    /// Fetches a document of the repository.
    pub(super) async fn document(
        &mut self,
        what: &str,
        accept: &str,
        most_bytes: u64,
    ) -> Result<Document> {
        let url = self.url(what);
        let mut asked = false;
        loop {
            let client = self.registry.downloader.client();
            let mut request = client.get(&url);
            if !accept.is_empty() {
                request = request.header(ACCEPT, accept);
            }
            if let Some(who) = &self.who {
                request = request.header(AUTHORIZATION, secret_header(who)?);
            }
            let document = self.send(&url, request, most_bytes).await?;
            let unknown = document.status == StatusCode::UNAUTHORIZED;
            if !unknown || asked {
                return document.success().map_err(|e| self.told(e));
            }
            self.introduce(&document.headers).await?;
            asked = true;
        }
    }

    /// Renews what the registry is told of who asks: tokens don't last.
    pub(super) async fn renew(&mut self) -> Result<()> {
        let url = self.base.to_string();
        let request = self.registry.downloader.client().get(self.base.clone());
        let answer = self.send(&url, request, MOST_TOKEN_BYTES).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.introduce(&answer.headers).await?;
        }
        Ok(())
    }

    async fn send(&self, url: &str, request: RequestBuilder, most: u64) -> Result<Document> {
        self.registry.downloader.document(url, request, most).await
    }

    /// Does what the registry asks for before it answers.
    async fn introduce(&mut self, headers: &HeaderMap) -> Result<()> {
        let (credentials, reference) = (self.registry.credentials.clone(), self.reference.clone());
        let known = blocking(move || credentials.find(&reference)).await?;
        let mut basic = false;
        let values = headers.get_all(WWW_AUTHENTICATE).iter();
        for value in values.filter_map(|value| value.to_str().ok()) {
            for challenge in http_auth::parse_challenges(value).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let challenge = self.challenge(&challenge)?;
                    self.who = Some(self.token(&challenge, known.as_ref()).await?);
                    return Ok(());
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        self.who = match known {
            Some(Who::Password { user, password }) if basic => Some(basic_auth(&user, &password)),
            _ => {
                let what = format!(
                    "the registry {} wants to know who asks",
                    self.reference.registry()
                );
                return Err(self.told(Error::new(ErrorKind::Denied, what)));
            }
        };
        Ok(())
    }

    fn challenge(&self, challenge: &http_auth::ChallengeRef<'_>) -> Result<Challenge> {
        let parameter = |name: &str| {
            let mut found = challenge.params.iter();
            let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").and_then(|realm| Url::parse(&realm).ok());
        // Never from a registry that is spoken to safely to one that isn't.
        let fits = |url: &Url| match url.scheme() {
            "https" => true,
            "http" => self.base.scheme() == "http",
            _ => false,
        };
        let Some(realm) = realm.filter(fits) else {
            let what = format!(
                "the registry {} names no usable place to get a token from",
                self.reference.registry()
            );
            return Err(Error::new(ErrorKind::Denied, what));
        };
        let own = || format!("repository:{}:pull", self.reference.repository());
        Ok(Challenge {
            realm,
            service: parameter("service"),
            scope: parameter("scope")
                .filter(|it| !it.is_empty())
                .unwrap_or_else(own),
        })
    }

    async fn token(&self, challenge: &Challenge, who: Option<&Who>) -> Result<Secret> {
        let client = self.registry.downloader.client();
        let mut words = vec![("scope", challenge.scope.as_str())];
        if let Some(service) = &challenge.service {
            words.push(("service", service));
        }
        let request = match who {
            Some(Who::Token(token)) => {
                words.push(("grant_type", "refresh_token"));
                words.push(("client_id", "smartvm"));
                words.push(("refresh_token", token.reveal()));
                let body = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(words)
                    .finish();
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                let post = client.post(challenge.realm.clone());
                post.header(CONTENT_TYPE, form).body(body)
            }
            who => {
                let mut url = challenge.realm.clone();
                url.query_pairs_mut().extend_pairs(words);
                let request = client.get(url);
                match who {
                    Some(Who::Password { user, password }) => {
                        let who = secret_header(&basic_auth(user, password))?;
                        request.header(AUTHORIZATION, who)
                    }
                    _ => request,
                }
            }
        };
        let url = challenge.realm.as_str();
        let answer = self.send(url, request, MOST_TOKEN_BYTES).await?;
        let answer = answer.success().map_err(|e| self.told(e))?;
        let token: Token = serde_json::from_slice(&answer.bytes).map_err(|_| {
            let what = format!(
                "the registry {} answers something else than a token",
                self.reference.registry()
            );
            Error::new(ErrorKind::Corrupt, what)
        })?;
        Ok(format!("Bearer {}", token.token.reveal()).into())
    }

    /// The error with the image's name, and with the way out.
    pub(super) fn told(&self, error: Error) -> Error {
        let (registry, reference) = (self.reference.registry(), self.reference);
        match error.kind() {
            ErrorKind::Denied => {
                let files = &self.registry.credentials.files;
                let files: Vec<_> = files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect();
                let looked = match files.as_slice() {
                    [] => "no credentials are known".to_owned(),
                    files => format!("credentials were looked up in {}", files.join(", ")),
                };
                Error::new(ErrorKind::Denied, format!("{reference} can't be had"))
                    .because(error)
                    .hint(format!(
                        "is its name right, and does one have to log in (docker login {registry})? \
                         {looked}"
                    ))
            }
            ErrorKind::NotFound => {
                let what = format!("there is no {reference}");
                Error::new(ErrorKind::NotFound, what)
                    .because(error)
                    .hint("is its name right, with its tag?")
            }
            _ => error,
        }
    }
}

fn basic_auth(user: &str, password: &Secret) -> Secret {
    use base64::Engine;
    let text = format!("{user}:{}", password.reveal());
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(text)
    )
    .into()
}
