//! What is sent to each version of Firecracker, kept as golden files, and what is refused.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use smartvm::firecracker::Version;
use smartvm::firecracker::model::{self, Paths};
use smartvm::spec::MicroVmSpec;
use smartvm::{ErrorKind, Result};

const FULL: &str = include_str!("fixtures/full.json");

/// What came with each version: JSON pointers into the full spec, and the fields' paths.
const ARRIVALS: [(Version, &[(&str, &str)]); 5] = [
    (Version::new(1, 12, 1), &[]),
    (
        Version::new(1, 13, 0),
        &[("/mmds/imdsCompat", "mmds.imdsCompat")],
    ),
    (
        Version::new(1, 14, 0),
        &[
            ("/balloon/freePageHinting", "balloon.freePageHinting"),
            ("/balloon/freePageReporting", "balloon.freePageReporting"),
        ],
    ),
    (Version::new(1, 15, 0), &[]),
    (
        Version::new(1, 16, 0),
        &[
            ("/networkInterfaces/0/mtu", "networkInterfaces[0].mtu"),
            ("/serial/rateLimiter", "serial.rateLimiter"),
        ],
    ),
];

fn payload(spec: &Value, version: Version) -> Result<String> {
    let spec: MicroVmSpec = serde_json::from_value(spec.clone()).unwrap();
    let paths = Paths {
        kernel: "kernel".into(),
        initrd: Some("initrd".into()),
        drives: (0..spec.drives.len())
            .map(|n| format!("drives/{n}"))
            .collect(),
        vsock: Some("vsock.sock".into()),
    };
    let requests = model::configuration(&spec, &paths, version)?;
    let line = |request: &smartvm::firecracker::client::Request| {
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        format!("{:?} {} {body}\n", request.method(), request.path())
    };
    Ok(requests.iter().map(line).collect())
}

fn without(mut spec: Value, pointer: &str) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap();
    assert!(
        parent.as_object_mut().unwrap().shift_remove(name).is_some(),
        "{pointer}"
    );
    spec
}

#[test]
fn each_version_is_sent_what_it_has_and_the_rest_is_refused_naming_who_has_it() {
    let full: Value = serde_json::from_str(FULL).unwrap();
    for (version, _) in ARRIVALS {
        let mut spec = full.clone();
        let later: Vec<_> = ARRIVALS
            .iter()
            .filter(|(since, _)| *since > version)
            .collect();
        for (since, fields) in &later {
            for (pointer, field) in *fields {
                let refused = payload(&spec, version).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Host);
                let told = format!(
                    "{field}: is unknown to Firecracker {version} (allowed: Firecracker {since} \
                     or newer has it)"
                );
                assert!(refused.to_string().contains(&told), "{refused}");
                assert!(refused.way_out().unwrap().contains(field), "{refused:?}");
                spec = without(spec, pointer);
            }
        }
        let name = format!("firecracker-{version}");
        insta::with_settings!({snapshot_path => "payloads", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(name, payload(&spec, version).unwrap());
        });
    }
}
