//! Images of registries, by a real one.

use std::path::Path;

use assert_cmd::assert::Assert;
use serde_json::{Value, json};

use crate::docker_registry::{ALI_BASE64, Registry, layers, layout};
use crate::images::offer;
use crate::mirror::{Mirror, bucket};
use crate::support::Corner;

/// A corner with an image whose kernel serves others, and what is run in it.
struct Bench {
    corner: Corner,
}

impl Bench {
    fn new() -> Self {
        let corner = Corner::new();
        let manifest = offer(&corner, "base");
        let bench = Self { corner };
        bench
            .run(&["image", "pull", "--manifest-path", &manifest])
            .success();
        bench
    }

    /// Without any image.
    fn empty() -> Self {
        Self {
            corner: Corner::new(),
        }
    }

    fn command(&self, args: &[&str]) -> assert_cmd::Command {
        let mut command = self.corner.command();
        command
            // Any static program will do for a guest that runs none.
            .env("SMARTVM_AGENT", "/bin/busybox")
            .env("HOME", self.corner.path())
            .env_remove("REGISTRY_AUTH_FILE")
            .env_remove("XDG_RUNTIME_DIR")
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Assert {
        self.command(args).assert()
    }

    fn json(&self, args: &[&str]) -> Value {
        let done = self.command(&["--json"]).args(args).assert().success();
        serde_json::from_slice(&done.get_output().stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let listed = self.json(&["image", "ls"]);
        let all = listed.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn layout(&self) -> std::path::PathBuf {
        self.corner.file("layout")
    }

    /// What is in the store besides images and its own directories, and unfinished layers.
    fn leftovers(&self) -> Vec<String> {
        let store = self.corner.file("data/base-images");
        let names = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect()
        };
        let mut left: Vec<_> = names(&store);
        left.retain(|name| name.starts_with(".new-"));
        left.extend(names(&store.join(".layers")));
        left.retain(|name| name != ".lock");
        left.sort();
        left
    }
}

fn told(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

#[test]
fn an_image_is_pulled_once_run_by_its_name_and_renewed_when_asked() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.corner.file("registry"));
    let shared: &[(&str, &[u8])] = &[("shared", b"1")];
    layout(&bench.layout(), "one", shared);
    registry.push(&bench.layout(), "one", "team/tool:1");
    let name = registry.name("team/tool:1");

    bench
        .run(&["run", "--pull", "never", "--image", &name])
        .code(3);
    bench
        .run(&["image", "pull", &name])
        .success()
        .stdout("tool-1\n");
    let record = bench.json(&["image", "inspect", "tool-1"]);
    assert_eq!(record["record"]["origin"], "pulled");
    assert_eq!(record["record"]["details"]["reference"], name);
    let digest = registry.manifest("team/tool", "1").0;
    assert_eq!(record["record"]["details"]["digest"], digest);

    // What is there isn't fetched again, and layers are kept when the image goes.
    let served = registry.blobs_served();
    assert_eq!(served, 2, "configuration and layer");
    bench
        .run(&["image", "pull", &name])
        .success()
        .stdout("tool-1\n");
    assert_eq!(registry.blobs_served(), served);
    bench.run(&["image", "rm", "tool-1"]).success();
    let by_digest = registry.name(&format!("team/tool@{digest}"));
    bench
        .run(&["image", "pull", &by_digest])
        .success()
        .stdout("tool\n");
    assert_eq!(
        registry.blobs_served(),
        served + 1,
        "only the configuration"
    );
    bench.run(&["image", "verify", "tool"]).success();

    let start = |id: &str, words: &[&str]| {
        let mut run = bench.command(&["run", "--assume-kvm", "-d", "--id", id]);
        run.args(words).assert().success();
    };
    let kernel_of = |id: &str| {
        let vm = &bench.json(&["inspect", id])[0];
        vm["spec"]["bootSource"]["kernelImagePath"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    start("a", &["--image", &name]);
    assert!(
        kernel_of("a").ends_with("tool-1/vmlinux"),
        "{}",
        kernel_of("a")
    );
    layout(&bench.layout(), "two", &[("shared", b"1"), ("more", b"2")]);
    registry.push(&bench.layout(), "two", "team/tool:1");
    start("b", &["--image", &name]);
    assert_eq!(kernel_of("b"), kernel_of("a"));
    // The new one comes, beside the one that is in use.
    start("c", &["--image", &name, "--pull", "always"]);
    assert_ne!(kernel_of("c"), kernel_of("a"));
    start("d", &["--image", &name, "--pull", "missing"]);
    assert_eq!(kernel_of("d"), kernel_of("c"));
    for id in ["a", "b", "c", "d"] {
        bench.run(&["rm", "--force", id]).success();
    }
    let refused = bench.run(&["run", "--image", "./team/tool"]).code(3);
    assert!(told(&refused).contains("./team/tool"), "{}", told(&refused));
    bench.run(&["image", "prune"]).success();
    assert_eq!((bench.names().len(), bench.leftovers().len()), (0, 0));
}

#[test]
fn who_asks_is_told_where_the_registry_wants_to_know_and_nowhere_else() {
    let bench = Bench::new();
    let registry = Registry::guarded(&bench.corner.file("registry"));
    layout(&bench.layout(), "one", &[("file", b"1")]);
    registry.push(&bench.layout(), "one", "private/tool:1");
    let name = registry.name("private/tool:1");
    let host = name.split('/').next().unwrap();
    let file = bench.corner.file("auth.json");
    let pull = |config: Value| {
        std::fs::write(&file, config.to_string()).unwrap();
        let mut pull = bench.command(&["--json", "image", "pull", "--force", &name]);
        pull.env("REGISTRY_AUTH_FILE", &file).env(
            "PATH",
            format!("{}:/usr/bin:/bin", bench.corner.path().display()),
        );
        pull.assert()
    };
    let denied = |assert: Assert| {
        let said = told(&assert.code(1));
        let error: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(error["error"]["kind"], "denied", "{said}");
        let hint = error["error"]["hint"].as_str().unwrap();
        assert!(
            hint.contains("log in") && hint.contains("auth.json"),
            "{said}"
        );
        assert!(
            !said.contains("sesame") && !said.contains(ALI_BASE64),
            "{said}"
        );
    };
    denied(pull(json!({})));
    denied(pull(
        json!({ "auths": { "other.example": { "auth": ALI_BASE64 } } }),
    ));
    let mut wrong = json!({ "auths": {} });
    wrong["auths"][host] = json!({ "username": "ali", "password": "close sesame" });
    denied(pull(wrong));
    let mut by_repository = json!({ "auths": {} });
    by_repository["auths"][format!("{host}/private")] = json!({ "auth": ALI_BASE64 });
    pull(by_repository).success();
    let mut by_url = json!({ "auths": {} });
    by_url["auths"][format!("https://{host}/v1/")] = json!({ "auth": ALI_BASE64 });
    pull(by_url).success();

    let helper = bench.corner.file("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = \"get {host}\" ] || exit 1\n\
         echo '{{\"Username\":\"ali\",\"Secret\":\"open sesame\"}}'\n"
    );
    std::fs::write(&helper, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&helper, executable).unwrap();
    let mut by_helper = json!({ "credHelpers": {} });
    by_helper["credHelpers"][host] = "test".into();
    pull(by_helper).success();
    pull(json!({ "credsStore": "test" })).success();
}

#[test]
fn what_a_registry_lies_about_or_is_not_for_us_is_refused_and_leaves_nothing() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.corner.file("registry"));
    layout(&bench.layout(), "good", &[("file", b"good")]);
    layout(
        &bench.layout(),
        "bad",
        &[("file", b"bad"), ("more", b"good as well")],
    );
    for tag in ["good", "bad"] {
        registry.push(&bench.layout(), tag, &format!("tool:{tag}"));
    }
    let refused = |image: &str, code: i32, said: &str| {
        let refused = bench
            .run(&["image", "pull", &registry.name(image)])
            .code(code);
        let told = told(&refused);
        assert!(told.contains(said), "{image}: {told}");
        assert_eq!(bench.names(), ["base"], "{image}");
    };
    refused("tool:none", 3, "there is no 127.0.0.1");
    refused("none:1", 3, "there is no 127.0.0.1");

    let (good, bad) = (
        registry.manifest("tool", "good"),
        registry.manifest("tool", "bad"),
    );
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let for_machine = |digest: &(String, usize), machine: &str| {
        json!({
            "mediaType": oci, "digest": digest.0, "size": digest.1,
            "platform": { "architecture": machine, "os": "linux" },
        })
    };
    let index = |manifests: Value| {
        json!({
            "schemaVersion": 2, "manifests": manifests,
            "mediaType": "application/vnd.oci.image.index.v1+json",
        })
        .to_string()
    };
    let put = |tag: &str, manifests: Value| {
        let text = index(manifests);
        registry.put(
            "tool",
            tag,
            "application/vnd.oci.image.index.v1+json",
            &text,
        );
    };
    put(
        "foreign",
        json!([for_machine(&bad, "riscv64"), for_machine(&bad, "s390x")]),
    );
    refused("tool:foreign", 2, "it has linux/riscv64, linux/s390x");
    put(
        "many",
        json!([for_machine(&bad, "riscv64"), for_machine(&good, "amd64")]),
    );
    let good_layer = &layers(&bench.layout(), "good")[0];
    let layer = json!({ "mediaType": oci, "digest": good_layer, "size": 1 });
    let artifact = json!({
        "schemaVersion": 2, "mediaType": oci, "layers": [],
        "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json",
                    "digest": good_layer, "size": layer["size"] },
    });
    registry.put("tool", "chart", oci, &artifact.to_string());
    refused("tool:chart", 2, "helm");

    let altered = &layers(&bench.layout(), "bad")[0];
    registry.spoil(altered);
    refused("tool:bad", 1, altered.strip_prefix("sha256:").unwrap());
    let left = bench.leftovers();
    assert!(
        !left.iter().any(|name| altered.contains(name.as_str())),
        "{left:?}"
    );
    registry.spoil(&bad.0);
    refused("tool:bad", 1, "digest");

    let many = registry.name("tool:many");
    bench
        .run(&["image", "pull", &many])
        .success()
        .stdout("tool-many\n");
    bench.run(&["image", "verify", "tool-many"]).success();
}

#[test]
fn firecrackers_own_image_lends_its_kernel_where_there_is_no_other() {
    let bench = Bench::empty();
    let registry = Registry::start(&bench.corner.file("registry"));
    layout(&bench.layout(), "one", &[("file", b"1")]);
    registry.push(&bench.layout(), "one", "tool:1");
    let name = registry.name("tool:1");
    let kernel = std::fs::read(bench.corner.file("tiny")).unwrap();
    let mirror = Mirror::start(bucket(&kernel, b"root"));
    let url = mirror.url("/bucket");
    let pulled = bench
        .run(&["image", "pull", "--bucket", &url, &name])
        .success()
        .stdout("tool-1\n");
    assert!(told(&pulled).contains("fetching Firecracker's own"));
    let ci = "firecracker-ci-v1.12-x86_64";
    assert_eq!(bench.names(), [ci, "tool-1"]);
    let kernel_of = |name: &str| {
        let image = bench.json(&["image", "inspect", name]);
        let dir = image["directory"].as_str().unwrap().to_owned();
        let path = &image["manifest"]["kernel"]["path"];
        std::fs::read(Path::new(&dir).join(path.as_str().unwrap())).unwrap()
    };
    assert!(kernel_of("tool-1") == kernel && kernel_of(ci) == kernel);
    // By its name as well.
    let named = ["image", "pull", "--name", "again", "--kernel-from", ci];
    bench.run(&[&named[..], &[&name]].concat()).success();
    assert!(kernel_of("again") == kernel);
    let run = ["run", "--assume-kvm", "-d", "--id", "a", "--image", "again"];
    bench.run(&run).success();
    bench.run(&["rm", "--force", "a"]).success();
}

#[test]
fn what_layers_take_is_told_and_given_back() {
    let bench = Bench::new();
    let registry = Registry::start(&bench.corner.file("registry"));
    // What no compression makes smaller.
    let mut noise = vec![0; 1 << 20];
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut random, &mut noise).unwrap();
    layout(&bench.layout(), "one", &[("noise", &noise)]);
    registry.push(&bench.layout(), "one", "tool:1");
    let before = bench.json(&["image", "usage"]);
    assert_eq!(before["layerBytes"], 0);
    let ls = || {
        let listed = bench.run(&["image", "ls"]).success();
        String::from_utf8(listed.get_output().stdout.clone()).unwrap()
    };
    assert!(!ls().contains("layers kept"));
    bench
        .run(&["image", "pull", &registry.name("tool:1")])
        .success();
    let usage = bench.json(&["image", "usage"]);
    let bytes = usage["layerBytes"].as_u64().unwrap();
    assert!(bytes >= 1 << 20, "{usage}");
    let images = |usage: &Value| usage["imageBytes"].as_u64().unwrap();
    assert!(images(&usage) > images(&before), "{usage}");
    assert!(ls().contains("layers kept beside them: 1.0"), "{}", ls());
    // Layers go before images do.
    let most = images(&usage).to_string();
    let pruned = bench.json(&["image", "prune", "--max-size", &most]);
    assert_eq!(
        (&pruned["layerBytes"], &pruned["images"]),
        (&bytes.into(), &json!([]))
    );
    assert_eq!(bench.json(&["image", "usage"])["layerBytes"], 0);
    assert_eq!(bench.names(), ["base", "tool-1"]);
}
