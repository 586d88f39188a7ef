//! The handle of one microVM.
