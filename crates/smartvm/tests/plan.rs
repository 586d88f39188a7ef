//! From the spec to what is done and sent: nothing of it is lost on the way.

// A helper of a test may fail as loudly as the test itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::{Value, json};
use smartvm::firecracker::Version;
use smartvm::plan::{Context, JailContext, Plan, plan};
use smartvm::spec::{MicroVmSpec, RuntimeOptions, SmartVmOptions};
use smartvm::step::Step;

const FULL: &str = include_str!("fixtures/full.json");
const TABLE: &str = include_str!("leaves.txt");
/// The oldest version that has every field of the spec.
const COMPLETE: Version = Version::new(1, 16, 0);

fn context<'a>(
    spec: &MicroVmSpec,
    version: Version,
    options: &'a RuntimeOptions,
) -> smartvm::Result<Context<'a>> {
    Ok(Context {
        id: spec.id.as_deref().unwrap_or("made-up").parse()?,
        runtime_dir: Path::new("/run/smartvm"),
        firecracker: Path::new("/opt/firecracker"),
        version,
        options,
        base: Path::new("/home/me"),
        network: None,
        jail: Some(JailContext {
            jailer: Path::new("/opt/jailer"),
            chroot_base: Path::new("/var/lib/smartvm/jail"),
        }),
    })
}

fn plan_for(
    spec: &MicroVmSpec,
    version: Version,
    options: &RuntimeOptions,
) -> smartvm::Result<Plan> {
    plan(spec, &context(spec, version, options)?)
}

fn full() -> MicroVmSpec {
    serde_json::from_str(FULL).unwrap()
}

/// The full spec, without its jail.
fn free() -> MicroVmSpec {
    let mut spec = full();
    spec.jail = None;
    spec
}

/// What is done and sent for a spec, without the spec itself.
fn effects(spec: &Value) -> Option<Value> {
    let spec: MicroVmSpec = serde_json::from_value(spec.clone()).ok()?;
    let plan = plan_for(&spec, COMPLETE, &RuntimeOptions::default()).ok()?;
    Some(json!({ "steps": plan.steps, "requests": plan.requests }))
}

/// The places in a value that a leaf of the schema names: `drives[].driveId` has many.
fn places(value: &Value, leaf: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in leaf.split('.') {
        let (name, list) = match part.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (part, false),
        };
        found = found
            .into_iter()
            .map(|place| format!("{place}/{name}"))
            .flat_map(|place| match value.pointer(&place) {
                Some(Value::Array(items)) if list => {
                    (0..items.len()).map(|n| format!("{place}/{n}")).collect()
                }
                _ => vec![place],
            })
            .collect();
    }
    found.retain(|place| value.pointer(place).is_some());
    found
}

/// The spec without what is at this place, and with something else there.
fn mutations(spec: &Value, place: &str) -> Vec<Value> {
    let (parent, name) = place.rsplit_once('/').unwrap();
    let mut without = spec.clone();
    match without.pointer_mut(parent).unwrap() {
        Value::Object(fields) => drop(fields.shift_remove(name)),
        Value::Array(items) => drop(items.remove(name.parse().unwrap())),
        _ => unreachable!("a place has a parent"),
    }
    let mut other = spec.clone();
    let value = other.pointer_mut(place).unwrap();
    *value = match &*value {
        Value::Bool(yes) => json!(!yes),
        Value::Number(n) => match n.as_u64() {
            Some(n) => json!(n + 1),
            None => json!(n.as_f64().unwrap() + 1.0),
        },
        Value::String(text) => json!(format!("{text}x")),
        other => json!([other.clone(), "x"]),
    };
    vec![without, other]
}

/// The leaves that the table ties to a test.
fn leaves_of(test: &str) -> Vec<&'static str> {
    let lines = TABLE
        .lines()
        .filter(|line| line.starts_with("spec ") && line.ends_with(test));
    lines
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect()
}

#[test]
fn every_field_reaches_the_payload() {
    let spec: Value = serde_json::from_str(FULL).unwrap();
    let whole = effects(&spec).expect("the full spec plans");
    let leaves = leaves_of("every_field_reaches_the_payload");
    assert!(
        leaves.len() > 40,
        "only {} leaves are tied to this test",
        leaves.len()
    );
    for leaf in leaves {
        let places = places(&spec, leaf);
        assert!(!places.is_empty(), "{leaf} is not in the full spec");
        for place in places {
            let changed: Vec<_> = mutations(&spec, &place)
                .iter()
                .filter_map(effects)
                .collect();
            assert!(!changed.is_empty(), "{place}: no change of it plans");
            assert!(
                changed.iter().all(|effects| *effects != whole),
                "{place}: with or without it, the same is done and sent"
            );
        }
    }
}

#[test]
fn the_full_spec_is_done_and_sent_as_reviewed() {
    let plan = plan_for(&full(), COMPLETE, &RuntimeOptions::default()).unwrap();
    insta::assert_snapshot!(plan);
}

#[test]
fn the_full_spec_without_its_jail_is_done_and_sent_as_reviewed() {
    let plan = plan_for(&free(), COMPLETE, &RuntimeOptions::default()).unwrap();
    insta::assert_snapshot!(plan);
}

#[test]
fn the_jails_mode_and_root_rights_decide_whether_a_vm_is_jailed() {
    let jailed = |mode: Option<&str>, root_rights: bool| {
        let mut spec: Value = serde_json::from_str(FULL).unwrap();
        match mode {
            Some(mode) => spec["jail"]["mode"] = json!(mode),
            None => drop(spec["jail"].as_object_mut().unwrap().shift_remove("mode")),
        }
        let spec: MicroVmSpec = serde_json::from_value(spec).unwrap();
        let options = RuntimeOptions::default();
        let mut context = context(&spec, COMPLETE, &options).unwrap();
        if !root_rights {
            context.jail = None;
        }
        plan(&spec, &context).map(|plan| plan.root.is_jail()).ok()
    };
    assert_eq!(jailed(None, true), Some(true));
    assert_eq!(jailed(None, false), Some(false));
    assert_eq!(jailed(Some("auto"), true), Some(true));
    assert_eq!(jailed(Some("auto"), false), Some(false));
    assert_eq!(jailed(Some("off"), true), Some(false));
    assert_eq!(jailed(Some("required"), true), Some(true));
    assert_eq!(jailed(Some("required"), false), None, "refused");
    assert!(
        !plan_for(&free(), COMPLETE, &RuntimeOptions::default())
            .unwrap()
            .root
            .is_jail()
    );
}

#[test]
fn the_id_is_the_specs() {
    let plan = plan_for(&free(), COMPLETE, &RuntimeOptions::default()).unwrap();
    assert_eq!(plan.id.as_str(), "web-1");
    assert_eq!(plan.run_dir, Path::new("/run/smartvm/web-1"));
    let Some(Step::SpawnVmm { args, .. }) = plan.steps.last() else {
        panic!("no VMM")
    };
    assert_eq!(args[..2], ["--id", "web-1"]);
}

#[test]
fn metadata_is_put_before_boot() {
    let plan = plan_for(&full(), COMPLETE, &RuntimeOptions::default()).unwrap();
    let position = |path: &str| plan.requests.iter().position(|r| r.path() == path).unwrap();
    assert!(position("/mmds/config") < position("/mmds"));
    let body: Value = serde_json::from_slice(plan.requests[position("/mmds")].body()).unwrap();
    assert_eq!(body, full().metadata.unwrap());
}

#[test]
fn drives_are_staged_where_the_spec_says() {
    let staged = |spec: &MicroVmSpec, options: &RuntimeOptions| -> Vec<String> {
        let plan = plan_for(spec, COMPLETE, options).unwrap();
        let target = |step: &Step| match step {
            Step::StageDrive { target, .. } => Some(target.display().to_string()),
            _ => None,
        };
        plan.steps.iter().filter_map(target).collect()
    };
    let copies = RuntimeOptions::default();
    let links = SmartVmOptions::builder()
        .ephemeral_writable_drives(false)
        .build()
        .runtime_options();
    let mut spec = free();
    // `rootfs` is read-only and says `ephemeral: true`; `data` is writable and says nothing.
    let elsewhere = "/srv/staging/smartvm-web-1";
    assert_eq!(
        staged(&spec, &copies),
        [
            format!("{elsewhere}/rootfs-rootfs.ext4"),
            format!("{elsewhere}/data-data.ext4")
        ]
    );
    assert_eq!(
        staged(&spec, &links),
        [format!("{elsewhere}/rootfs-rootfs.ext4")]
    );
    spec.staging_dir = None;
    spec.drives[0].ephemeral = None;
    assert_eq!(
        staged(&spec, &copies),
        ["/run/smartvm/web-1/drives/data-data.ext4"]
    );
    spec.drives[1].ephemeral = Some(false);
    assert!(staged(&spec, &copies).is_empty());
}

#[test]
fn relative_paths_are_relative_to_the_callers_directory() {
    let mut spec = full();
    spec.boot_source.kernel_image_path = "vmlinux".into();
    let plan = plan_for(&spec, COMPLETE, &RuntimeOptions::default()).unwrap();
    assert_eq!(
        plan.spec.boot_source.kernel_image_path,
        Path::new("/home/me/vmlinux")
    );
}
