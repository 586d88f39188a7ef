//! The leaf table: for every leaf of the schemas of what people write, the test that turns red
//! when that field is dropped on the way to its effect.
//!
//! `leaves.txt` has a line for each: schema and path, then either the name of a test or
//! `issue: <title>` for a leaf that a later issue brings to life. A leaf without a line, a line
//! without a leaf, and a name without a test are failures.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "spec/schema_leaves.rs"]
mod schema_leaves;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use smartvm::spec::{SnapshotCreateParams, SnapshotLoadParams, schema};
use smartvm::storage::BundleManifest;

const TABLE: &str = include_str!("leaves.txt");

/// What a line says of its leaf.
#[derive(Debug)]
enum Proof<'a> {
    Test(&'a str),
    Issue,
}

fn schemas() -> [(&'static str, Value); 5] {
    [
        ("spec", schema::spec()),
        ("options", schema::options()),
        ("manifest", schema::of::<BundleManifest>()),
        ("snapshot-create", schema::of::<SnapshotCreateParams>()),
        ("snapshot-load", schema::of::<SnapshotLoadParams>()),
    ]
}

fn table() -> BTreeMap<(&'static str, &'static str), Proof<'static>> {
    let mut table = BTreeMap::new();
    let lines = TABLE
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let mut words = line.splitn(3, char::is_whitespace);
        let (Some(schema), Some(leaf), Some(proof)) = (words.next(), words.next(), words.next())
        else {
            panic!("not a line of the table: {line}");
        };
        let proof = proof.trim();
        let proof = match proof.strip_prefix("issue: ") {
            Some(title) => {
                assert!(!title.trim().is_empty(), "no title: {line}");
                Proof::Issue
            }
            None => {
                let name = |it: char| it.is_ascii_alphanumeric() || it == '_';
                assert!(proof.chars().all(name), "not the name of a test: {line}");
                Proof::Test(proof)
            }
        };
        let known = table.insert((schema, leaf), proof);
        assert!(known.is_none(), "listed twice: {line}");
    }
    table
}

#[test]
fn every_leaf_is_listed_and_every_line_is_a_leaf() {
    let table = table();
    let listed: BTreeSet<(String, String)> = table
        .keys()
        .map(|(schema, leaf)| ((*schema).to_owned(), (*leaf).to_owned()))
        .collect();
    let known: BTreeSet<(String, String)> = schemas()
        .iter()
        .flat_map(|(name, schema)| {
            schema_leaves::of_schema(schema)
                .into_iter()
                .map(|leaf| ((*name).to_owned(), leaf))
        })
        .collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&known).collect();
    assert!(missing.is_empty(), "leaves without a line: {missing:#?}");
    assert!(stale.is_empty(), "lines without a leaf: {stale:#?}");
}

#[test]
fn every_named_test_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    for house in ["crates", "xtask"] {
        collect(&root.join(house), &mut sources);
    }
    let exists = |name: &str| sources.contains(&format!("fn {name}("));
    for (leaf, proof) in table() {
        if let Proof::Test(name) = proof {
            assert!(exists(name), "{leaf:?}: no test {name}");
        }
    }
}

/// The text of all Rust files below a directory.
fn collect(dir: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, sources);
        } else if path.extension().is_some_and(|it| it == "rs") {
            sources.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
