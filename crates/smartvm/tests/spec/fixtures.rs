//! Files that use every field: they load, they round-trip, and nothing else is accepted.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use smartvm::spec::{self, Format, MicroVmSpec, Problems, SmartVmOptions, schema};
use smartvm::validate::{ValidateContext, validate, validate_options};

use crate::schema_leaves;

pub(crate) const FULL: &str = include_str!("../fixtures/full.json");
const TOML: &str = include_str!("../fixtures/full.toml");
const YAML: &str = include_str!("../fixtures/full.yaml");
const INTERFACES: &str = include_str!("../fixtures/interfaces.json");
const OPTIONS: &str = include_str!("../fixtures/options.json");
const EXISTING: &str = include_str!("../fixtures/options-existing.json");

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn load(text: &str, format: Format) -> MicroVmSpec {
    spec::load(text, format).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn a_file_using_every_field_round_trips() {
    for text in [FULL, INTERFACES] {
        let written = serde_json::to_value(load(text, Format::Json)).unwrap();
        assert_eq!(written, document(text));
    }
    for text in [OPTIONS, EXISTING] {
        let options: SmartVmOptions = spec::load(text, Format::Json).unwrap();
        assert_eq!(serde_json::to_value(options).unwrap(), document(text));
    }
}

#[test]
fn the_same_spec_in_three_formats_is_the_same_spec() {
    let json = load(FULL, Format::Json);
    assert_eq!(load(TOML, Format::Toml), json);
    assert_eq!(load(YAML, Format::Yaml), json);
}

#[test]
fn a_file_is_told_by_its_extension_or_else_by_its_text() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.json", FULL),
        ("a.toml", TOML),
        ("a.yaml", YAML),
        ("a.YML", YAML),
        ("json", FULL),
        ("toml", TOML),
        ("yaml", YAML),
        ("a.conf", TOML),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let spec: MicroVmSpec = spec::load_file(&path).unwrap();
        assert_eq!(spec, load(FULL, Format::Json), "{name}");
    }
}

#[test]
fn the_files_that_use_every_field_are_valid() {
    for text in [FULL, INTERFACES] {
        let spec = load(text, Format::Json);
        validate(&spec, &ValidateContext::default()).unwrap_or_else(|them| panic!("{them}"));
    }
    for text in [OPTIONS, EXISTING] {
        let options = spec::load(text, Format::Json).unwrap();
        validate_options(&options).unwrap_or_else(|problems| panic!("{problems}"));
    }
}

#[test]
fn every_leaf_of_the_schemas_is_in_the_files() {
    let used = used_leaves(&document(FULL), &["labels"], &["metadata"]);
    let mut used_options = used_leaves(&document(OPTIONS), &[], &[]);
    used_options.extend(used_leaves(&document(EXISTING), &[], &[]));
    for (used, schema) in [(used, schema::spec()), (used_options, schema::options())] {
        let known = schema_leaves::of_schema(&schema);
        // `metadata` holds anything, so its leaf is itself.
        let used = used.into_iter().collect();
        let missing: Vec<_> = known.difference(&used).collect();
        let extra: Vec<_> = used
            .difference(&known)
            .filter(|it| *it != "metadata")
            .collect();
        assert!(missing.is_empty(), "leaves without a use: {missing:#?}");
        assert!(extra.is_empty(), "uses without a leaf: {extra:#?}");
    }
}

/// The paths of all values of a document that aren't objects or lists, written as those of a
/// schema: list indices left out, the keys of `maps` replaced by `*`, and what lies below
/// `opaque` left alone.
fn used_leaves(document: &Value, maps: &[&str], opaque: &[&str]) -> BTreeSet<String> {
    let mut leaves = BTreeSet::new();
    collect(document, "", maps, opaque, &mut leaves);
    leaves
}

fn collect(
    value: &Value,
    path: &str,
    maps: &[&str],
    opaque: &[&str],
    leaves: &mut BTreeSet<String>,
) {
    match value {
        Value::Object(fields) if !opaque.contains(&path) => {
            for (name, field) in fields {
                let name = if maps.contains(&path) { "*" } else { name };
                let inside = match path {
                    "" => name.to_owned(),
                    path => format!("{path}.{name}"),
                };
                collect(field, &inside, maps, opaque, leaves);
            }
        }
        Value::Array(items) => {
            for item in items {
                collect(item, &format!("{path}[]"), maps, opaque, leaves);
            }
        }
        _ => {
            leaves.insert(path.to_owned());
        }
    }
}

/// Every place of the document, as the loader writes it, with its JSON pointer.
fn places(value: &Value, path: String, pointer: String, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let plain = !name.contains(['.', '/']);
                let inside = match (path.as_str(), plain) {
                    (path, false) => format!("{path}[{name:?}]"),
                    ("", true) => name.clone(),
                    (path, true) => format!("{path}.{name}"),
                };
                let pointer = format!("{pointer}/{}", name.replace('/', "~1"));
                places(field, inside, pointer, all);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(
                    item,
                    format!("{path}[{index}]"),
                    format!("{pointer}/{index}"),
                    all,
                );
            }
        }
        _ => {}
    }
    all.push((path, pointer));
}

fn refused<T>(document: &Value) -> Problems
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema + std::fmt::Debug,
{
    spec::load::<T>(&document.to_string(), Format::Json).unwrap_err()
}

fn each_place<T>(text: &str)
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema + std::fmt::Debug,
{
    let full = document(text);
    let mut all = Vec::new();
    places(&full, String::new(), String::new(), &mut all);
    let own = all
        .iter()
        .filter(|(path, _)| !path.starts_with("metadata") && !path.starts_with("labels"));
    for (path, pointer) in own {
        let mut changed = full.clone();
        let place = changed.pointer_mut(pointer).unwrap();
        let expected = match place {
            Value::Object(fields) => {
                fields.insert("noSuchField".into(), json!(1));
                match path.as_str() {
                    "" => "noSuchField".to_owned(),
                    path => format!("{path}.noSuchField"),
                }
            }
            // No field of ours takes a list of lists.
            other => {
                *other = json!([[]]);
                match other.is_array() && full.pointer(pointer).unwrap().is_array() {
                    true => format!("{path}[0]"),
                    false => path.clone(),
                }
            }
        };
        let problems = refused::<T>(&changed);
        assert_eq!(problems.len(), 1, "{path}: {problems}");
        let found = &problems[0].path;
        // A choice (`ports`) is refused as a whole or at its item.
        assert!(
            [expected.clone(), path.clone(), format!("{path}[0]")].contains(found),
            "{expected}: {problems}"
        );
    }
}

#[test]
fn unknown_fields_and_wrong_types_are_refused_everywhere() {
    each_place::<MicroVmSpec>(FULL);
    each_place::<SmartVmOptions>(OPTIONS);
    each_place::<SmartVmOptions>(EXISTING);
}

#[test]
fn required_fields_are_required() {
    let required = [
        "/bootSource",
        "/machineConfig",
        "/bootSource/kernelImagePath",
        "/machineConfig/vcpuCount",
        "/machineConfig/memSizeMib",
        "/drives/0/driveId",
        "/drives/0/isRootDevice",
        "/drives/0/rateLimiter/ops/size",
        "/drives/0/rateLimiter/ops/refillTime",
        "/networkInterfaces/0/ifaceId",
        "/vsock/guestCid",
        "/vsock/udsPath",
        "/balloon/amountMib",
        "/balloon/deflateOnOom",
        "/mmds/networkInterfaces",
        "/logger/logPath",
        "/metrics/metricsPath",
        "/firewall/egress/rules/0/action",
        "/serial/path",
    ];
    for pointer in required {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut changed = document(FULL);
        let parent = changed
            .pointer_mut(parent)
            .unwrap()
            .as_object_mut()
            .unwrap();
        parent.shift_remove(name).unwrap();
        let problems = refused::<MicroVmSpec>(&changed);
        assert_eq!(problems.len(), 1, "{pointer}: {problems}");
        assert_eq!(problems[0].problem, "is missing");
        assert!(problems[0].path.ends_with(name), "{pointer}: {problems}");
    }
}

#[test]
fn null_is_absent_where_a_field_is_optional() {
    let text = r#"{"bootSource": {"kernelImagePath": "k", "bootArgs": null},
                   "machineConfig": {"vcpuCount": 1, "memSizeMib": 1}, "vsock": null}"#;
    let spec = load(text, Format::Json);
    assert_eq!(spec.boot_source.boot_args, None);
    assert!(!serde_json::to_string(&spec).unwrap().contains("null"));
    let problems = refused::<MicroVmSpec>(&json!({"bootSource": null, "machineConfig": null}));
    assert_eq!(problems.len(), 2, "{problems}");
}
