//! The small process that looks after one VM.
