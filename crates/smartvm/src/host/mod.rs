//! Facts about this host, and what they mean for a spec.
