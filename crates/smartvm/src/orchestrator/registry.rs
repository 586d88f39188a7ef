//! Images from registries, as the options say.

use super::SmartVm;
use crate::error::Result;
use crate::storage::oci::registry::Registry;

impl SmartVm {
    /// What fetches images from registries.
    pub fn registry(&self) -> Result<Registry> {
        let credentials = self.parts.sources.credentials.clone();
        Ok(Registry::new(self.downloader()?, credentials))
    }
}
