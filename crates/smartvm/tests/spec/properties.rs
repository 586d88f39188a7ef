//! Whatever a document says, loading and validating end with an answer.

use proptest::prelude::*;
use serde_json::{Value, json};
use smartvm::name::{DeviceId, VmId};
use smartvm::spec::{Format, MicroVmSpec};
use smartvm::validate::{ValidateContext, read, validate};

use crate::fixtures::FULL;

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<String>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        prop::sample::select(vec![
            0_u64,
            1,
            2,
            3,
            32,
            33,
            65_535,
            65_536,
            1 << 32,
            u64::MAX
        ])
        .prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "..",
            "/",
            "a-b",
            "a_b",
            "10.0.0.0/0",
            "::1",
            "T2",
            "\0"
        ])
        .prop_map(Value::from),
    ]
}

/// Every place below `value` that can be exchanged.
fn pointers(value: &Value, pointer: &str, all: &mut Vec<String>) {
    all.push(pointer.to_owned());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.replace('/', "~1");
                pointers(field, &format!("{pointer}/{name}"), all);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{pointer}/{index}"), all);
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // What was found is told in the output; no files in the tree.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn validate_never_panics_and_accepts_only_ids_in_the_alphabet(
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 1..4)
    ) {
        let mut document: Value = serde_json::from_str(FULL).unwrap();
        for (index, value) in changes {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            *document.pointer_mut(index.get(&all).as_str()).unwrap() = value;
        }
        let context = ValidateContext::default();
        match read(&document.to_string(), Format::Json, &context) {
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(!problem.problem.is_empty());
                }
            }
            Ok(spec) => {
                if let Some(id) = &spec.as_ref().id {
                    prop_assert!(id.parse::<VmId>().is_ok());
                }
                for drive in &spec.drives {
                    prop_assert!(drive.drive_id.parse::<DeviceId>().is_ok());
                }
                for interface in &spec.network_interfaces {
                    prop_assert!(interface.iface_id.parse::<DeviceId>().is_ok());
                }
                // A valid spec stays one when it is written and read again.
                let text = serde_json::to_string(spec.as_ref()).unwrap();
                let again: MicroVmSpec = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&again, spec.as_ref());
                prop_assert!(validate(&again, &context).is_ok());
            }
        }
    }

    #[test]
    fn reading_never_panics(text in any::<String>()) {
        for format in [Format::Json, Format::Toml, Format::Yaml, Format::of_text(&text)] {
            prop_assert!(read(&text, format, &ValidateContext::default()).is_err());
        }
    }
}
