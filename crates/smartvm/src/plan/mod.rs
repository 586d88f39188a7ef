//! What will be done for a VM, as data.
