//! The addresses of hosts, by /etc/hosts and the name servers in /etc/resolv.conf. Where those
//! are missing nobody else is asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::durable;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const MOST_BYTES: u64 = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Looks up names. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Resolver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    resolv_conf: PathBuf,
    /// Made where it is used first: it belongs to that runtime.
    made: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    resolver: TokioResolver,
    /// Why there is no name server, where there is none.
    without: Option<String>,
}

impl Resolver {
    pub(super) fn of_system() -> Self {
        Self::by(Path::new(RESOLV_CONF))
    }

    fn by(resolv_conf: &Path) -> Self {
        Self(Arc::new(Inner {
            resolv_conf: resolv_conf.to_owned(),
            made: OnceLock::new(),
        }))
    }

    async fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, Failure> {
        let made = match self.0.made.get() {
            Some(made) => made,
            None => {
                let new = self.0.make()?;
                self.0.made.get_or_init(|| new)
            }
        };
        match (made.resolver.lookup_ip(name).await, &made.without) {
            (Ok(found), _) => Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect()),
            (Err(_), Some(why)) => Err(format!("no name server is known: {why}").into()),
            (Err(error), None) => Err(error.into()),
        }
    }
}

impl Inner {
    fn make(&self) -> Result<Made, NetError> {
        let (config, options, without) = match self.configured() {
            Ok((config, options)) => (config, options, None),
            // What /etc/hosts knows is known all the same.
            Err(why) => (
                ResolverConfig::default(),
                ResolverOpts::default(),
                Some(why),
            ),
        };
        let provider = TokioRuntimeProvider::default();
        let mut builder =
            TokioResolver::builder_with_config(config, provider).with_options(options);
        // Whichever answers first is connected to.
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        let resolver = builder.build()?;
        Ok(Made { resolver, without })
    }

    fn configured(&self) -> Result<(ResolverConfig, ResolverOpts), String> {
        let path = self.resolv_conf.display();
        let text = durable::read_bounded(&self.resolv_conf, MOST_BYTES)
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("there is no {path}"))?;
        parse_resolv_conf(text).map_err(|e| format!("{path}: {e}"))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.addresses(name.as_str()).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_name_servers_only_hosts_are_known_and_nobody_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let said = async |name: &str| {
            let found = Resolver::by(&path).addresses(name).await;
            found.map_err(|e| e.to_string())
        };
        let missing = said("example.org").await.unwrap_err();
        assert!(missing.contains("there is no"), "{missing}");
        std::fs::write(&path, "# nothing\n").unwrap();
        let empty = said("example.org").await.unwrap_err();
        assert!(empty.contains("no name server is known"), "{empty}");
        let local = said("localhost").await.unwrap();
        assert!(local.iter().all(|address| address.ip().is_loopback()));
        assert!(!local.is_empty());
    }
}
