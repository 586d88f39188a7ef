//! Images laid out by hand; those of other people's tools are in the host tier.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::storage::checksum::sha256_of;
use crate::storage::progress::Watch;
use crate::{Error, ErrorKind, Result};

/// A directory with an image's pieces.
struct Layout(tempfile::TempDir);

impl Layout {
    fn new() -> Self {
        let layout = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(layout.path("blobs/sha256")).unwrap();
        layout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha256_of(bytes);
        std::fs::write(self.path(&format!("blobs/sha256/{hex}")), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, value.to_string().as_bytes())
    }

    /// An image of one empty layer.
    fn image(&self, architecture: &str, settings: &Value) -> Value {
        let layer = empty_tar();
        let config = self.json(
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "architecture": architecture, "os": "linux", "config": settings,
                "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256_of(&layer))]},
            }),
        );
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &layer);
        self.json(
            "application/vnd.oci.image.manifest.v1+json",
            &json!({"schemaVersion": 2, "config": config, "layers": [layer]}),
        )
    }

    fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        std::fs::write(self.path("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, wanted: &Wanted) -> Result<OciImage> {
        open_at(self.0.path(), wanted)
    }
}

fn empty_tar() -> Vec<u8> {
    vec![0; 1024]
}

fn open_at(path: &Path, wanted: &Wanted) -> Result<OciImage> {
    let work = tempfile::tempdir().unwrap();
    open(
        path,
        wanted,
        work.path(),
        &mut Watch::new(&mut |_| {}, &|| false),
    )
}

fn amd64() -> Wanted {
    Wanted::for_arch(Arch::X86_64)
}

fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

#[test]
fn a_layout_is_read_down_to_its_layers_and_says_what_it_runs() {
    let layout = Layout::new();
    let settings = json!({
        "Entrypoint": ["/entry"], "Cmd": ["serve", "--now"], "Env": ["A=1", "PATH=/bin"],
        "WorkingDir": "/srv", "User": "1000:100", "Labels": {"unknown": "members are passed over"},
    });
    layout.index(&[layout.image("amd64", &settings)]);
    let image = layout.open(&amd64()).unwrap();
    assert_eq!(image.process().argv(), ["/entry", "serve", "--now"]);
    assert_eq!(image.process().env, ["A=1", "PATH=/bin"]);
    assert_eq!(image.process().working_dir.as_deref(), Some("/srv"));
    assert_eq!(image.process().user.as_deref(), Some("1000:100"));
    assert_eq!(image.layers().len(), 1);
    assert_eq!(image.layers()[0].size, 1024);
}

#[test]
fn the_image_for_this_machine_is_chosen_from_an_index_of_several() {
    let layout = Layout::new();
    let platform = |arch: &str| json!({"architecture": arch, "os": "linux"});
    let arm = with(
        layout.image("arm64", &json!({})),
        "platform",
        platform("arm64"),
    );
    let amd = with(
        layout.image("amd64", &json!({"Cmd": ["amd"]})),
        "platform",
        platform("amd64"),
    );
    let inner = layout.json(
        "application/vnd.oci.image.index.v1+json",
        &json!({"schemaVersion": 2, "manifests": [arm, amd]}),
    );
    layout.index(&[inner]);
    assert_eq!(layout.open(&amd64()).unwrap().process().argv(), ["amd"]);
    let arm = layout.open(&Wanted::for_arch(Arch::Aarch64)).unwrap();
    assert_eq!(arm.arch(), Arch::Aarch64);
}

#[test]
fn of_several_images_one_is_chosen_by_name_and_none_by_guessing() {
    let layout = Layout::new();
    let named = |settings, name: &str| {
        let annotations = json!({"org.opencontainers.image.ref.name": name});
        with(layout.image("amd64", &settings), "annotations", annotations)
    };
    layout.index(&[
        named(json!({"Cmd": ["one"]}), "first"),
        named(json!({"Cmd": ["two"]}), "second"),
    ]);
    let chosen = layout.open(&amd64().named("second")).unwrap();
    assert_eq!(
        (chosen.process().argv(), chosen.name()),
        (vec!["two".to_owned()], Some("second"))
    );
    let unsure = layout.open(&amd64()).unwrap_err();
    assert!(
        unsure.way_out().unwrap().contains("first, second"),
        "{unsure}"
    );
    let missing = layout.open(&amd64().named("third")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
}

#[test]
fn an_archive_of_docker_is_read_in_place_packed_or_not() {
    let layer = empty_tar();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["from-docker"]},
        "rootfs": {"type": "layers", "diff_ids": [
            format!("sha256:{}", sha256_of(&layer)), format!("sha256:{}", sha256_of(&layer)),
        ]},
    })
    .to_string();
    let list = json!([{
        "Config": "abc.json", "RepoTags": ["tool:1"], "Layers": ["one/layer.tar", "two/layer.tar"],
    }])
    .to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("abc.json", config.as_bytes());
    add("one/layer.tar", &layer);
    add("manifest.json", list.as_bytes());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder
        .append_link(&mut link, "two/layer.tar", "../one/layer.tar")
        .unwrap();
    let bytes = builder.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("image.tar");
    std::fs::write(&plain, &bytes).unwrap();
    let packed = dir.path().join("image.tar.gz");
    let mut encoder = flate2::write::GzEncoder::new(
        std::fs::File::create(&packed).unwrap(),
        flate2::Compression::fast(),
    );
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    encoder.finish().unwrap();
    for path in [plain, packed] {
        let image = open_at(&path, &amd64()).unwrap();
        assert_eq!(image.process().argv(), ["from-docker"]);
        assert_eq!(image.name(), Some("tool:1"));
        let [one, two] = image.layers() else {
            panic!("{:?}", image.layers())
        };
        assert_eq!((one.offset, one.size), (two.offset, 1024));
    }
}

#[test]
fn what_is_altered_missing_or_foreign_is_refused_with_its_reason() {
    type Spoil = fn(&Layout) -> Value;
    let cases: [(&str, Spoil, ErrorKind, &str); 6] = [
        (
            "altered",
            |layout| {
                let descriptor = layout.image("amd64", &json!({}));
                let hex = descriptor["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
                let path = layout.path(&format!("blobs/sha256/{hex}"));
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(path, text.replace("schemaVersion", "schemaversion")).unwrap();
                descriptor
            },
            ErrorKind::Corrupt,
            "was expected",
        ),
        (
            "missing",
            |layout| {
                let descriptor = layout.image("amd64", &json!({}));
                let hex = sha256_of(&empty_tar());
                std::fs::remove_file(layout.path(&format!("blobs/sha256/{hex}"))).unwrap();
                descriptor
            },
            ErrorKind::NotFound,
            "is missing",
        ),
        (
            "for another machine",
            |layout| layout.image("riscv64", &json!({})),
            ErrorKind::Invalid,
            "linux/riscv64",
        ),
        (
            "of another digest",
            |layout| with(layout.image("amd64", &json!({})), "digest", json!("md5:00")),
            ErrorKind::Invalid,
            "only sha256",
        ),
        (
            "leads out",
            |layout| {
                with(
                    layout.image("amd64", &json!({})),
                    "digest",
                    json!("sha256:../../../etc/passwd"),
                )
            },
            ErrorKind::Invalid,
            "only sha256",
        ),
        (
            "of an unknown layer",
            |layout| {
                let descriptor = layout.image("amd64", &json!({}));
                let hex = descriptor["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
                let text =
                    std::fs::read_to_string(layout.path(&format!("blobs/sha256/{hex}"))).unwrap();
                let text = text.replace("image.layer.v1.tar", "image.layer.v1.squashfs");
                layout.blob(
                    "application/vnd.oci.image.manifest.v1+json",
                    text.as_bytes(),
                )
            },
            ErrorKind::Invalid,
            "unknown type",
        ),
    ];
    for (name, spoil, kind, said) in cases {
        let layout = Layout::new();
        let descriptor = spoil(&layout);
        layout.index(&[descriptor]);
        let refused: Error = layout.open(&amd64()).unwrap_err();
        assert_eq!(refused.kind(), kind, "{name}: {refused}");
        assert!(refused.to_string().contains(said), "{name}: {refused}");
    }
    let empty = tempfile::tempdir().unwrap();
    let refused = open_at(empty.path(), &amd64()).unwrap_err();
    assert!(refused.to_string().contains("isn't an image"), "{refused}");
}
