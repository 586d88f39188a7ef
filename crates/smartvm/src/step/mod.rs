//! One effect on the host with its undo.
