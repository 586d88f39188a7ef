//! Images on this machine: OCI layouts and what `docker save` writes, as directories or
//! archives.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::model::{
    Descriptor, DockerImage, ImageConfig, MAX_DEPTH, Manifest, is_config, is_tar_layer, oci_name,
};
use super::source::{Source, sha256_digest};
use super::{OciImage, Wanted};
use crate::storage::process::ImageProcess;
use crate::storage::progress::Watch;
use crate::storage::rootfs::LayerFile;
use crate::{Error, ErrorKind, Result};

/// The annotations by which an index names its images, the more telling one first.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];
/// Most layers of an image: what overlay file systems take, with room.
const MAX_LAYERS: usize = 512;

/// Opens an image: an OCI layout, or what `docker save` writes; a directory or an archive. A
/// compressed archive is uncompressed into `work` first.
///
/// # Errors
/// [`ErrorKind::Invalid`] for what isn't an image, for several images of which none was
/// chosen, and for another architecture; [`ErrorKind::NotFound`] for a piece that is missing;
/// [`ErrorKind::Corrupt`] for one that isn't what its digest says.
pub fn open(path: &Path, wanted: &Wanted, work: &Path, watch: &mut Watch<'_>) -> Result<OciImage> {
    let source = Source::open(path, work, watch)?;
    let about = |error: Error| match error.path() {
        Some(_) => error,
        None => error.at(path),
    };
    let found = if let Some(index) = source.read("index.json").map_err(about)? {
        from_layout(&source, &parsed(&index, "index.json")?, wanted)
    } else if let Some(list) = source.read("manifest.json").map_err(about)? {
        let images: Vec<DockerImage> = parsed(&list, "manifest.json")?;
        from_docker(&source, &images, wanted)
    } else {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} isn't an image: it has neither index.json (an OCI layout) nor manifest.json \
                 (what docker save writes)",
                path.display()
            ),
        )
        .at(path)
        .hint("a plain root file system becomes an image by `smartvm image build --rootfs`"));
    };
    Ok(found.map_err(about)?.held_by(source))
}

fn from_layout(source: &Source, index: &Manifest, wanted: &Wanted) -> Result<OciImage> {
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let named = NAMES
            .iter()
            .filter_map(|key| descriptor.annotations.get(*key));
        named.cloned().collect()
    };
    let chosen: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|descriptor| {
            wanted
                .name
                .as_ref()
                .is_none_or(|name| names(descriptor).contains(name))
        })
        .collect();
    if chosen.is_empty() {
        let all: Vec<_> = index.manifests.iter().flat_map(names).collect();
        return Err(none_such(wanted, &all));
    }
    let mut all: Vec<_> = chosen
        .iter()
        .flat_map(|descriptor| names(descriptor))
        .collect();
    all.sort();
    all.dedup();
    let mut images = Vec::new();
    for descriptor in chosen {
        follow(source, descriptor, wanted, 0, &mut images)?;
    }
    images.dedup_by(|one, other| one.0 == other.0);
    let (digest, manifest) = match images.len() {
        1 => images.remove(0),
        0 => {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the image has nothing for linux/{}", oci_name(wanted.arch)),
            )
            .hint("choose an image for this architecture"));
        }
        _ => return Err(several(&all)),
    };
    let mut image = image_of(
        &manifest,
        &digest,
        wanted,
        |digest| source.read_blob(digest),
        |layer| {
            let part = source.blob(&layer.digest)?;
            Ok((part.path, part.offset, part.size))
        },
    )?;
    image.name = match all.as_slice() {
        [] => None,
        names => names.last().cloned(),
    };
    Ok(image)
}

/// Collects the manifests of images that this machine can run.
fn follow(
    source: &Source,
    descriptor: &Descriptor,
    wanted: &Wanted,
    depth: usize,
    images: &mut Vec<(String, Manifest)>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::Invalid,
            "the image's indexes are nested too deep",
        ));
    }
    if descriptor
        .platform
        .as_ref()
        .is_some_and(|platform| !platform.is(wanted.arch))
    {
        return Ok(());
    }
    let manifest: Manifest = parsed(&source.read_blob(&descriptor.digest)?, &descriptor.digest)?;
    if manifest.config.is_some() {
        images.push((descriptor.digest.clone(), manifest));
        return Ok(());
    }
    for inner in &manifest.manifests {
        follow(source, inner, wanted, depth + 1, images)?;
    }
    Ok(())
}

/// The image that a manifest describes; `config` gets its configuration by digest, `layer`
/// finds the file, offset and size of a layer.
pub(super) fn image_of(
    manifest: &Manifest,
    digest: &str,
    wanted: &Wanted,
    config: impl FnOnce(&str) -> Result<Vec<u8>>,
    layer: impl Fn(&Descriptor) -> Result<(std::path::PathBuf, u64, u64)>,
) -> Result<OciImage> {
    let Some(descriptor) = &manifest.config else {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{digest} is an index, not an image"),
        ));
    };
    if !is_config(&descriptor.media_type) {
        let what = format!(
            "{digest} is no image to run, but of the type {:?}",
            descriptor.media_type
        );
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    if let Some(odd) = manifest
        .layers
        .iter()
        .find(|l| !is_tar_layer(&l.media_type))
    {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the layer {} is of the unknown type {:?}",
                odd.digest, odd.media_type
            ),
        )
        .hint("only images made of tar layers can be run"));
    }
    let config: ImageConfig = parsed(&config(&descriptor.digest)?, &descriptor.digest)?;
    let parts = manifest.layers.iter().map(|descriptor| {
        let (path, offset, size) = layer(descriptor)?;
        if size == descriptor.size {
            return Ok((path, offset, size));
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "the layer {} has {size} bytes, {} were expected",
                descriptor.digest, descriptor.size
            ),
        ))
    });
    assembled(&config, digest, parts.collect::<Result<_>>()?, wanted)
}

fn from_docker(source: &Source, images: &[DockerImage], wanted: &Wanted) -> Result<OciImage> {
    let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let all: Vec<String> = images.iter().flat_map(tags).collect();
    let mut chosen = images.iter().filter(|image| {
        wanted
            .name
            .as_ref()
            .is_none_or(|name| tags(image).contains(name))
    });
    let image = match (chosen.next(), chosen.next()) {
        (Some(image), None) => image,
        (None, _) => return Err(none_such(wanted, &all)),
        _ => return Err(several(&all)),
    };
    let bytes = source
        .read(&image.config)?
        .ok_or_else(|| missing(&image.config))?;
    let config: ImageConfig = parsed(&bytes, &image.config)?;
    let parts = image.layers.iter().map(|name| {
        let part = source.part(name)?.ok_or_else(|| missing(name))?;
        Ok((part.path, part.offset, part.size))
    });
    let digest = format!("sha256:{}", crate::storage::checksum::sha256_of(&bytes));
    let mut found = assembled(&config, &digest, parts.collect::<Result<_>>()?, wanted)?;
    found.name = tags(image).into_iter().next();
    Ok(found)
}

fn missing(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("the image isn't whole: its file {name} is missing"),
    )
}

/// Configuration and layers, checked against each other.
fn assembled(
    config: &ImageConfig,
    digest: &str,
    parts: Vec<(std::path::PathBuf, u64, u64)>,
    wanted: &Wanted,
) -> Result<OciImage> {
    if config.os != "linux" || config.architecture != oci_name(wanted.arch) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the image is for {}/{}, linux/{} is needed",
                config.os,
                config.architecture,
                oci_name(wanted.arch)
            ),
        )
        .hint("choose an image for this architecture"));
    }
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != parts.len() || parts.len() > MAX_LAYERS {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the image has {} layers and {} digests of layers; up to {MAX_LAYERS} are taken",
                parts.len(),
                diff_ids.len()
            ),
        ));
    }
    let layers = parts
        .into_iter()
        .zip(diff_ids)
        .map(|((path, offset, size), diff_id)| {
            Ok(LayerFile::part(path, offset, size, sha256_digest(diff_id)?))
        });
    let settings = config.config.as_ref();
    let text = |of: fn(&super::model::Settings) -> &Option<String>| {
        settings
            .and_then(|s| of(s).clone())
            .filter(|text| !text.is_empty())
    };
    let list = |of: fn(&super::model::Settings) -> &Option<Vec<String>>| {
        settings.and_then(|s| of(s).clone()).unwrap_or_default()
    };
    let mut process = ImageProcess::builder()
        .entrypoint(list(|s| &s.entrypoint))
        .command(list(|s| &s.cmd))
        .env(list(|s| &s.env))
        .build();
    process.working_dir = text(|s| &s.working_dir);
    process.user = text(|s| &s.user);
    Ok(OciImage {
        arch: wanted.arch,
        digest: digest.to_owned(),
        name: None,
        layers: layers.collect::<Result<_>>()?,
        process,
        holder: None,
    })
}

fn none_such(wanted: &Wanted, all: &[String]) -> Error {
    let name = wanted.name.as_deref().unwrap_or_default();
    let there = match all {
        [] => "it names none".to_owned(),
        all => format!("it has {}", all.join(", ")),
    };
    match wanted.name {
        Some(_) => Error::new(
            ErrorKind::NotFound,
            format!("there is no image {name:?}: {there}"),
        ),
        None => Error::new(ErrorKind::Invalid, "there is no image in it"),
    }
}

fn several(all: &[String]) -> Error {
    Error::new(ErrorKind::Invalid, "there are several images in it")
        .hint(format!("choose one by name: {}", all.join(", ")))
}

/// JSON of an image.
pub(super) fn parsed<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| {
        Error::new(
            ErrorKind::Invalid,
            format!("{what} of the image can't be understood"),
        )
        .because(cause)
    })
}
