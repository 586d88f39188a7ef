//! A real registry on loopback: Debian's docker-registry, unpacked by `cargo xtask setup`, and
//! images that umoci makes and skopeo pushes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// The password of `ali` is `open sesame`.
const ALI: &str = "ali:$2b$04$j4PHW7z5I3zOesCsqH4lZuLKaPTPkVhRwy8zHVuarYYEvihSUErRe\n";
/// What the test's user is told as, in Base64: `ali:open sesame`.
pub(crate) const ALI_BASE64: &str = "YWxpOm9wZW4gc2VzYW1l";

pub(crate) struct Registry {
    child: Child,
    address: String,
    dir: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::with(dir, "")
    }

    /// One that wants to know who asks.
    pub(crate) fn guarded(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let users = dir.join("users");
        std::fs::write(&users, ALI).unwrap();
        let auth = format!(
            "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            users.display()
        );
        Self::with(dir, &auth)
    }

    fn with(dir: &Path, more: &str) -> Self {
        let cache = std::env::var("SMARTVM_TEST_CACHE")
            .expect("SMARTVM_TEST_CACHE is not set: run the tests by `cargo xtask test`");
        let program = Path::new(&cache).join("docker-registry/usr/bin/docker-registry");
        let storage = dir.join("storage");
        std::fs::create_dir_all(&storage).unwrap();
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: test}}\n{more}",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(&program)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (found, address) = std::sync::mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let (log, found) = (Arc::clone(&log), found.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some((_, rest)) = line.split_once("listening on ") {
                        let end = rest.find(['"', ',', ' ']).unwrap_or(rest.len());
                        // Nobody may wait for it any more.
                        let _unheard = found.send(rest[..end].to_owned());
                    }
                    log.lock().unwrap().push(line);
                }
            });
        }
        let address = address
            .recv_timeout(std::time::Duration::from_secs(30))
            .unwrap_or_else(|e| panic!("the registry: {e}: {:?}", log.lock().unwrap()));
        Self {
            child,
            address,
            dir: dir.to_owned(),
            log,
        }
    }

    /// An image's name in it.
    pub(crate) fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Pushes an image of a layout.
    pub(crate) fn push(&self, layout: &Path, tag: &str, image: &str) {
        let mut command = Command::new("skopeo");
        command
            .args([
                "copy",
                "--quiet",
                "--insecure-policy",
                "--dest-tls-verify=false",
            ])
            .args(["--dest-creds", "ali:open sesame"])
            .arg(format!("oci:{}:{tag}", layout.display()))
            .arg(format!("docker://{}", self.name(image)));
        run(&mut command);
    }

    /// Puts a manifest as it is.
    pub(crate) fn put(&self, repository: &str, tag: &str, media_type: &str, manifest: &str) {
        let answer = self.ask(&format!(
            "PUT /v2/{repository}/manifests/{tag} HTTP/1.0\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n{manifest}",
            manifest.len()
        ));
        assert!(answer.contains(" 201 "), "{answer}");
    }

    /// A manifest's digest and size, as the registry has it.
    pub(crate) fn manifest(&self, repository: &str, tag: &str) -> (String, usize) {
        let answer = self.ask(&format!(
            "GET /v2/{repository}/manifests/{tag} HTTP/1.0\r\n\
             Accept: application/vnd.oci.image.manifest.v1+json\r\n\r\n"
        ));
        let header = |name: &str| {
            let line = answer.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_once(": ").unwrap().1.trim().to_owned()
        };
        (
            header("Docker-Content-Digest"),
            header("Content-Length").parse().unwrap(),
        )
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Changes a byte of a blob where the registry keeps it: it serves it all the same.
    pub(crate) fn spoil(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let path = self.dir.join(format!(
            "storage/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        ));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }

    /// How often blobs were asked for so far.
    pub(crate) fn blobs_served(&self) -> usize {
        let log = self.log.lock().unwrap();
        let asked = log.iter().filter(|line| line.contains("/blobs/sha256:"));
        asked.filter(|line| line.contains("\"GET /v2/")).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An image of layers that each hold one file; each is named by what is in it.
pub(crate) fn layout(dir: &Path, tag: &str, files: &[(&str, &[u8])]) {
    let made = dir.join("index.json").exists();
    let at = |words: &[&str]| {
        run(Command::new("umoci")
            .args(words)
            .current_dir(dir.parent().unwrap()));
    };
    let image = format!("{}:{tag}", dir.file_name().unwrap().to_str().unwrap());
    if !made {
        at(&["init", "--layout", &dir.display().to_string()]);
    }
    at(&["new", "--image", &image]);
    for (number, (name, content)) in files.iter().enumerate() {
        let work = dir.with_file_name(format!("unpacked-{tag}-{number}"));
        let bundle = work.display().to_string();
        at(&["unpack", "--image", &image, &bundle]);
        std::fs::write(work.join("rootfs").join(name), content).unwrap();
        at(&["repack", "--image", &image, &bundle]);
        std::fs::remove_dir_all(&work).unwrap();
    }
}

/// The digests of an image's layers in a layout.
pub(crate) fn layers(layout: &Path, tag: &str) -> Vec<String> {
    let mut command = Command::new("skopeo");
    command
        .args(["inspect", "--raw"])
        .arg(format!("oci:{}:{tag}", layout.display()));
    let manifest: serde_json::Value = serde_json::from_str(&run(&mut command)).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let digest = |layer: &serde_json::Value| layer["digest"].as_str().unwrap().to_owned();
    layers.iter().map(digest).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
