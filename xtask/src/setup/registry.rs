//! A registry for images, unpacked from Debian's package but not installed: its service is not
//! to run.

use std::path::PathBuf;

use super::debian;
use crate::cache::Cache;
use crate::failure::{Failure, Result};

const PACKAGE: &str = "docker-registry";
/// To be raised with every change of how it is unpacked.
const RECIPE: &str = "1";

/// Unpacks it; its program is `usr/bin/docker-registry` in there.
///
/// # Errors
/// If it can't be downloaded or unpacked.
pub(super) fn unpack(cache: &Cache) -> Result<PathBuf> {
    cache.directory(PACKAGE, RECIPE, |part| {
        if !debian::is_here() {
            let hint = format!(
                "unpack Debian's {PACKAGE} into {} by other means",
                cache.path(PACKAGE).display()
            );
            let what = format!("there is no apt-get to get {PACKAGE} with");
            return Err(Failure::new(what).hint(hint));
        }
        debian::unpack(PACKAGE, part)
    })
}
