//! Which image a word on the command line means: one in the store, a directory, or one in a
//! registry.

use std::path::Path;

use smartvm::storage::Watch;
use smartvm::storage::oci::Reference;
use smartvm::storage::store::is_name;
use smartvm::{Error, ErrorKind, Result, SmartVm};

use crate::image_spec;
use crate::verb::image::pull::{Pull, When};

/// Makes the image available, fetched from a registry where `when` says so; returns the name
/// or path by which it is found here.
pub(crate) async fn resolve(
    vms: &SmartVm,
    image: &str,
    when: When,
    watch: &mut Watch<'_>,
) -> Result<String> {
    let Some(reference) = reference(vms, image, when)? else {
        return Ok(image.to_owned());
    };
    let store = image_spec::store(vms.options())?;
    let known = store.pulled(&reference.to_string())?;
    match (known, when) {
        (Some(known), When::Missing | When::Never) => return Ok(known.name),
        (None, When::Never) => {
            let what = format!("there is no image {reference} here");
            return Err(Error::new(ErrorKind::NotFound, what)
                .hint(format!("fetch it: smartvm image pull {image}")));
        }
        _ => {}
    }
    let pull = Pull {
        reference: &reference,
        force: false,
        insecure: false,
    };
    let bundle = pull.run(vms, Default::default(), watch).await?;
    Ok(bundle.bundle_id().to_owned())
}

/// The name in a registry that is meant, if one is.
fn reference(vms: &SmartVm, image: &str, when: When) -> Result<Option<Reference>> {
    if image.contains('/') {
        // A directory, unless it can only be a registry's name.
        let named = Reference::names_registry(image) && !Path::new(image).exists();
        return named.then(|| image.parse()).transpose();
    }
    if is_name(image) {
        match image_spec::store(vms.options())?.get(image) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Ok(entry) if when == When::Always => {
                let details = entry.record.details.as_ref();
                let known = details.and_then(|it| it.get("reference")?.as_str());
                return known.map(str::parse).transpose();
            }
            // What there is of this name, even if it is damaged.
            _ => return Ok(None),
        }
    }
    // What can't name an image anywhere is looked for in the store, which says so.
    Ok(image.parse().ok())
}
