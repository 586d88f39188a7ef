//! The spec: loading, validating, checking against a host.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check_rules;
mod docs;
mod fixtures;
mod loading;
mod options_rules;
mod properties;
mod schema_leaves;
mod validate_cases;
mod validate_rules;
