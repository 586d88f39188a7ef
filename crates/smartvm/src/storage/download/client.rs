//! The HTTP client: TLS by rustls, redirects limited and never from https to http.

use std::path::Path;
use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};
use reqwest::{NoProxy, Proxy, Response, Url, redirect};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::retry::Fault;
use super::settings::{Patience, Settings};
use crate::spec::Secret;
use crate::{Error, ErrorKind, Result, durable};

/// Where systems keep the certificates that they trust: Debian and Arch, Fedora, SUSE, Alpine.
const TRUSTED: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const MOST_CERTIFICATE_BYTES: u64 = 16 << 20;
const MOST_REDIRECTS: usize = 10;

/// Fetches files and documents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Downloader {
    client: reqwest::Client,
    patience: Patience,
}

impl Downloader {
    /// Reads the certificates; touches no network.
    ///
    /// # Errors
    /// For a proxy that isn't a URL, and for a certificate file that can't be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        let failed = |e: reqwest::Error| {
            Error::new(ErrorKind::Invalid, "setting up downloads").because(e.without_url())
        };
        let mut headers = HeaderMap::new();
        let agent = concat!("smartvm/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            // Those that the environment names are the caller's business.
            .no_proxy()
            .dns_resolver(super::resolver::Resolver::of_system())
            .referer(false)
            .connect_timeout(settings.patience.connect)
            .read_timeout(settings.patience.idle)
            .redirect(redirect::Policy::custom(follow))
            .tls_backend_preconfigured(tls(&settings.certificates)?);
        let none_for = settings
            .proxies
            .none_for
            .as_deref()
            .and_then(NoProxy::from_string);
        let not_a_url = |_| {
            Error::new(ErrorKind::Invalid, "the proxy isn't a URL")
                .hint("write it as http://HOST:PORT")
        };
        if let Some(url) = &settings.proxies.http {
            let proxy = Proxy::http(url.reveal()).map_err(not_a_url)?;
            builder = builder.proxy(proxy.no_proxy(none_for.clone()));
        }
        if let Some(url) = &settings.proxies.https {
            let proxy = Proxy::https(url.reveal()).map_err(not_a_url)?;
            builder = builder.proxy(proxy.no_proxy(none_for));
        }
        Ok(Self {
            client: builder.build().map_err(failed)?,
            patience: settings.patience.clone(),
        })
    }

    /// The client, for protocols of more than files: with the same proxies, certificates and
    /// rules for redirects.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    pub(super) async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response, Fault> {
        self.client
            .get(parsed(url)?)
            .headers(headers.clone())
            .send()
            .await
            .map_err(|e| Fault::of_client(&shown(url), e))
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt.previous().iter().any(|url| url.scheme() == "https");
    if attempt.previous().len() > MOST_REDIRECTS {
        return attempt.error(format!("more than {MOST_REDIRECTS} redirects"));
    }
    match attempt.url().scheme() {
        "https" => attempt.follow(),
        "http" if !from_https => attempt.follow(),
        "http" => attempt.error("a redirect from https to http is not followed"),
        other => {
            let what = format!("a redirect to {other}: is not followed");
            attempt.error(what)
        }
    }
}

/// The system's certificates and those named; without any, the ones that are built in.
fn tls(named: &[std::path::PathBuf]) -> Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    for path in TRUSTED {
        // What the system has is a matter of luck: some have none, or parts that are damaged.
        if let Ok(Some(pem)) = durable::read_bounded(Path::new(path), MOST_CERTIFICATE_BYTES) {
            let found = CertificateDer::pem_slice_iter(&pem).filter_map(std::result::Result::ok);
            roots.add_parsable_certificates(found);
            break;
        }
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for path in named {
        let unfit = |why: &str| {
            let what = format!("the certificates in {}: {why}", path.display());
            Error::new(ErrorKind::Invalid, what).at(path)
        };
        let pem = durable::read_bounded(path, MOST_CERTIFICATE_BYTES)?
            .ok_or_else(|| unfit("there is no such file"))?;
        let mut any = false;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|e| unfit(&e.to_string()))?;
            roots.add(certificate).map_err(|e| unfit(&e.to_string()))?;
            any = true;
        }
        if !any {
            return Err(unfit("there is none"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Host, "setting up TLS").because(e))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A URL that can be asked.
pub(super) fn parsed(url: &str) -> Result<Url> {
    Url::parse(url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| {
            let what = format!("{:?} isn't an http or https URL", shown(url));
            Error::new(ErrorKind::Invalid, what)
        })
}

/// The value of a header that is in no log.
pub(crate) fn secret_header(value: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value.reveal())
        .map_err(|_| Error::new(ErrorKind::Invalid, "credentials hold what no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A URL as it may be seen: without a password, and without the query, which may be a
/// signature.
pub(crate) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) => {
            // Only URLs that can't have either refuse this.
            let _none = url.set_password(None).and_then(|()| url.set_username(""));
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => url.chars().take(200).collect(),
    }
}

pub(super) fn too_large(url: &str, size: Option<u64>, most: u64) -> Error {
    let most = crate::storage::space::Size(most);
    let what = match size {
        Some(size) => format!(
            "{} is {}, at most {most} is taken",
            shown(url),
            crate::storage::space::Size(size)
        ),
        None => format!("{} is larger than {most}", shown(url)),
    };
    Error::new(ErrorKind::Invalid, what)
}
