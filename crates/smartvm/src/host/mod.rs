//! Facts about this host, and what they mean for a spec.

use crate::Result;
use crate::spec::{MicroVmSpec, SmartVmOptions};

/// What a check depends on.
#[derive(Debug, Clone)]
pub struct CheckContext;

impl CheckContext {
    /// From the options.
    pub fn for_options(_options: &SmartVmOptions, _assume_kvm: bool) -> Self {
        Self
    }
}

/// Checks a spec against this host.
pub fn check(_spec: &MicroVmSpec, _context: &CheckContext) -> Result<()> {
    Ok(())
}
