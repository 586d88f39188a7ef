use std::io::Write;

use serde_json::{Value, json};

use super::*;
use crate::spec::Arch;
use crate::storage::checksum::sha256_of;
use crate::storage::download::tests::quick;
use crate::storage::download::tests::server::{Fault, Server};
use crate::storage::oci::{OciImage, Reference};
use crate::storage::store::Store;
use crate::{Error, ErrorKind, Result};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// An image in a registry of the test's own, which can lie.
struct Fake {
    server: Server,
    dir: tempfile::TempDir,
    store: Store,
    manifest: Value,
}

impl Fake {
    /// One with so many layers.
    async fn new(layers: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fake = Self {
            server: Server::start().await,
            store: Store::open(&dir.path().join("store")).unwrap(),
            dir,
            manifest: Value::Null,
        };
        let bodies: Vec<Vec<u8>> = (0..layers).map(|n| vec![n; 2048]).collect();
        let diff_ids: Vec<_> = bodies
            .iter()
            .map(|body| format!("sha256:{}", sha256_of(body)))
            .collect();
        let layers: Vec<_> = bodies.iter().map(|body| fake.blob(LAYER, body)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["hello"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = fake.blob(CONFIG, config.to_string().as_bytes());
        fake.manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        fake.publish();
        fake
    }

    fn blob(&self, media_type: &str, body: &[u8]) -> Value {
        let digest = format!("sha256:{}", sha256_of(body));
        self.server.put(&format!("/v2/tool/blobs/{digest}"), body);
        json!({ "mediaType": media_type, "digest": digest, "size": body.len() })
    }

    fn publish(&self) {
        self.server.put(MANIFEST, self.manifest.to_string());
    }

    fn layer(&self, nth: usize) -> String {
        self.manifest["layers"][nth]["digest"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn blob_path(&self, digest: &str) -> String {
        format!("/v2/tool/blobs/{digest}")
    }

    async fn pull(&self) -> Result<OciImage> {
        self.pull_as(Credentials::default()).await
    }

    async fn pull_as(&self, credentials: Credentials) -> Result<OciImage> {
        let registry = Registry::new(quick(), credentials);
        let reference: Reference = format!("{}/tool:1", self.server.host()).parse().unwrap();
        let found = registry.find(&reference, Arch::X86_64).await?;
        let tell: Tell = Arc::new(|_| {});
        registry.fetch(&found, self.store.layers()?, &tell).await
    }

    async fn refused(&self, kind: ErrorKind, said: &str) -> Error {
        let refused = self.pull().await.unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
        refused
    }

    /// All that is asked of this needs to be known by its token.
    fn guard(&self, path: &str, challenge: &str) {
        let guard = ("Bearer good".to_owned(), challenge.to_owned());
        self.server.file(path, |file| file.guard = Some(guard));
    }
}

const MANIFEST: &str = "/v2/tool/manifests/1";

#[tokio::test]
async fn an_image_comes_with_its_layers_each_of_them_once() {
    let fake = Fake::new(6).await;
    let image = fake.pull().await.unwrap();
    assert_eq!(image.process().argv(), ["hello"]);
    assert_eq!(image.layers().len(), 6);
    for (layer, n) in image.layers().iter().zip(0_u8..) {
        assert_eq!(std::fs::read(&layer.path).unwrap(), vec![n; 2048]);
    }
    // Nobody takes them away while they are needed.
    fake.store.prune(None).unwrap();
    assert!(image.layers()[0].path.exists());
    drop(image);
    let before = fake.server.requests();
    drop(fake.pull().await.unwrap());
    assert_eq!(fake.server.seen(&fake.blob_path(&fake.layer(0))).len(), 1);
    assert_eq!(
        fake.server.requests() - before,
        2,
        "manifest, configuration"
    );
    // A layer that was altered here is fetched again.
    let sha256 = fake.layer(3)["sha256:".len()..].to_owned();
    let path = fake.store.layers().unwrap().path(&sha256);
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    drop(fake.pull().await.unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), vec![3; 2048]);
    fake.store.prune(None).unwrap();
    assert_eq!(fake.store.layer_bytes().unwrap(), 0);
    drop(fake.dir);
}

#[tokio::test]
async fn layers_are_fetched_side_by_side() {
    let fake = Fake::new(4).await;
    let pause = std::time::Duration::from_millis(400);
    for nth in 0..4 {
        let path = fake.blob_path(&fake.layer(nth));
        fake.server.fault(&path, Fault::Slow(pause));
    }
    // All four are asked for before the first of them comes.
    let server = fake.server.clone();
    let paths: Vec<_> = (0..4).map(|nth| fake.blob_path(&fake.layer(nth))).collect();
    let all_asked = async {
        loop {
            let asked = paths.iter().filter(|path| !server.seen(path).is_empty());
            if asked.count() == 4 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let layers = fake.store.layers().unwrap();
    let asked_first = async {
        all_asked.await;
        paths.iter().zip(0..).all(|(_, nth)| {
            let digest = fake.layer(nth);
            !layers.path(&digest["sha256:".len()..]).exists()
        })
    };
    let (image, asked_first) = tokio::join!(fake.pull(), asked_first);
    image.unwrap();
    assert!(asked_first);
}

#[tokio::test]
async fn lies_of_a_registry_are_seen_and_nothing_of_them_is_kept() {
    // Another layer than its digest says.
    let fake = Fake::new(2).await;
    let layer = fake.layer(1);
    fake.server.put(&fake.blob_path(&layer), vec![9; 2048]);
    fake.refused(ErrorKind::Corrupt, "was expected").await;
    let sha256 = &layer["sha256:".len()..];
    let kept = fake.store.layers().unwrap().path(sha256);
    assert!(!kept.exists() && !kept.with_file_name(format!(".{sha256}.part")).exists());
    // Another length.
    fake.server.put(&fake.blob_path(&layer), vec![1; 4096]);
    fake.refused(ErrorKind::Corrupt, "2048 were expected").await;
    fake.server.put(&fake.blob_path(&layer), vec![1; 2048]);
    fake.pull().await.unwrap();

    // Another configuration.
    let config = fake.manifest["config"]["digest"].as_str().unwrap();
    let spoiled = json!({ "architecture": "amd64" }).to_string();
    fake.server.put(&fake.blob_path(config), spoiled);
    fake.refused(ErrorKind::Corrupt, config).await;

    // Another manifest than the registry itself says.
    let fake = Fake::new(1).await;
    let claim = format!("sha256:{}", "0".repeat(64));
    let headers = vec![("docker-content-digest", claim.clone())];
    fake.server.file(MANIFEST, |file| file.headers = headers);
    fake.refused(ErrorKind::Corrupt, &claim).await;
}

#[tokio::test]
async fn what_is_no_image_for_us_is_told_as_that() {
    let mut fake = Fake::new(1).await;
    fake.manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.squashfs".into();
    fake.publish();
    fake.refused(ErrorKind::Invalid, "unknown type").await;
    fake.manifest["layers"][0]["mediaType"] = LAYER.into();
    fake.manifest["config"]["mediaType"] = "application/vnd.example.chart".into();
    fake.publish();
    fake.refused(ErrorKind::Invalid, "chart").await;
    fake.manifest["config"]["mediaType"] = CONFIG.into();
    fake.manifest["config"]["digest"] = "sha256:../../../etc/passwd".into();
    fake.publish();
    fake.refused(ErrorKind::Invalid, "only sha256").await;
    let old = json!({ "schemaVersion": 1, "fsLayers": [], "history": [] });
    fake.server.put(MANIFEST, old.to_string());
    fake.refused(ErrorKind::Invalid, "is no image").await;
    fake.server.put(MANIFEST, "<html>");
    fake.refused(ErrorKind::Invalid, "can't be understood")
        .await;
    fake.server.put(MANIFEST, vec![b' '; 9 << 20]);
    fake.refused(ErrorKind::Invalid, "larger than").await;
    let own = json!({ "mediaType": OCI, "digest": format!("sha256:{}", "a".repeat(64)), "size": 1,
        "platform": { "architecture": "arm64", "os": "linux" } });
    let index = json!({ "schemaVersion": 2, "manifests": [own] });
    fake.server.put(MANIFEST, index.to_string());
    fake.refused(ErrorKind::Invalid, "it has linux/arm64").await;
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says_and_once_more_when_it_is_stale() {
    let fake = Fake::new(2).await;
    let realm = fake.server.url("/token");
    let challenge =
        format!("Bearer realm=\"{realm}\",service=\"it\",scope=\"repository:tool:pull\"");
    let asked = "/token?scope=repository%3Atool%3Apull&service=it";
    fake.guard(MANIFEST, &challenge);
    fake.guard("/v2/", &challenge);
    fake.server.put("/v2/", "{}");
    fake.server
        .put(asked, json!({ "access_token": "good" }).to_string());
    fake.pull().await.unwrap();
    assert_eq!(fake.server.seen(asked).len(), 1);

    // The blobs want another token than the manifest did, as when time has passed.
    fake.store.prune(None).unwrap();
    let layer = fake.blob_path(&fake.layer(0));
    let old = ("Bearer old".to_owned(), challenge.clone());
    fake.server.file(MANIFEST, |file| file.guard = Some(old));
    fake.guard(&layer, &challenge);
    let stale = json!({ "token": "old" }).to_string();
    fake.server.put(asked, stale);
    let denied = fake.pull().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
    assert!(
        denied.way_out().unwrap().contains("docker login"),
        "{denied:?}"
    );

    // Who asks is told to the realm alone.
    let basic = (
        "Basic dXNlcjpzZWNyZXQ=".to_owned(),
        "Basic realm=x".to_owned(),
    );
    fake.guard(MANIFEST, &challenge);
    fake.server.file(asked, |file| {
        file.guard = Some(basic);
        file.body = json!({ "token": "good" }).to_string().into();
    });
    let file = fake.dir.path().join("auth.json");
    let mut config = json!({ "auths": {} });
    config["auths"][fake.server.host()] = json!({ "auth": "dXNlcjpzZWNyZXQ=" });
    std::fs::write(&file, config.to_string()).unwrap();
    let credentials = Credentials::from_files([fake.dir.path().join("none"), file.clone()]);
    fake.pull_as(credentials.clone()).await.unwrap();
    assert!(!format!("{credentials:?}").contains("secret"));
    // A file that can't be understood is named, and not quoted.
    std::fs::write(&file, "{\"auths\": secret").unwrap();
    let unfit = fake.pull_as(credentials).await.unwrap_err();
    assert!(unfit.to_string().contains("auth.json"), "{unfit}");
    assert!(!unfit.to_string().contains("secret"), "{unfit}");
}
