//! Reading documents: what the problems say, and what they never say.

use smartvm::ErrorKind;
use smartvm::spec::{
    self, FirewallRule, Format, MachineConfig, MicroVmSpec, Problems, SmartVmOptions,
};
use smartvm::validate::{self, ValidateContext};

fn problems<T>(text: &str, format: Format) -> Problems
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema + std::fmt::Debug,
{
    spec::load::<T>(text, format).unwrap_err()
}

fn told<T>(text: &str) -> String
where
    T: serde::de::DeserializeOwned + schemars::JsonSchema + std::fmt::Debug,
{
    problems::<T>(text, Format::Json).to_string()
}

#[test]
fn each_problem_tells_place_fault_and_what_is_allowed() {
    assert_eq!(
        told::<MachineConfig>(r#"{"vcpu_count": 1, "memSizeMib": "1", "smt": 1}"#),
        "vcpuCount: is missing (allowed: a whole number from 1 to 32)\n\
         vcpu_count: isn't a known field; did you mean `vcpuCount`? (allowed: vcpuCount, \
         memSizeMib, smt, cpuTemplate, trackDirtyPages, hugePages)\n\
         memSizeMib: is text (allowed: a whole number from 1 to 18446744073709551615)\n\
         smt: is a number (allowed: true or false)"
    );
    assert_eq!(
        told::<MachineConfig>(r#"{"vcpuCount": 300, "memSizeMib": -1, "hugePages": "2m"}"#),
        "vcpuCount: 300 is out of range (allowed: a whole number from 1 to 32)\n\
         memSizeMib: -1 is out of range (allowed: a whole number from 1 to 18446744073709551615)\n\
         hugePages: \"2m\" is unknown; did you mean \"2M\"? (allowed: None, 2M)"
    );
    assert_eq!(
        told::<FirewallRule>(r#"{"action": "drop", "ports": "80"}"#),
        "action: \"drop\" is unknown (allowed: allow, deny)\n\
         ports: is text (allowed: a whole number from 0 to 4294967295, or a list, each item a \
         whole number from 0 to 4294967295)"
    );
    assert_eq!(
        told::<MachineConfig>(r#"{"vcpuCount": 1.0, "memSizeMib": 128}"#),
        "vcpuCount: is a number with a fraction (allowed: a whole number from 1 to 32)"
    );
}

#[test]
fn the_two_forms_of_a_tunnel_are_told_apart() {
    let of = |tunnel: &str| told::<SmartVmOptions>(&format!(r#"{{"wireguard": {tunnel}}}"#));
    assert_eq!(
        of("{}"),
        "wireguard: neither `config` nor `existingInterface` is given (allowed: exactly one of \
         `config` and `existingInterface`)"
    );
    assert_eq!(
        of(r#"{"config": "c", "existingInterface": "wg0"}"#),
        "wireguard: `config` and `existingInterface` exclude each other (allowed: exactly one \
         of `config` and `existingInterface`)"
    );
    assert!(
        of(r#"{"existingInterface": "wg0", "interfaceName": "wg1"}"#)
            .starts_with("wireguard.interfaceName: isn't a known field")
    );
    assert_eq!(
        of("7"),
        "wireguard: is a number (allowed: an object with at least config, or an object with at \
         least existingInterface)"
    );
}

#[test]
fn a_field_given_twice_is_refused_in_every_format() {
    for (text, format) in [
        (
            r#"{"vcpuCount": 1, "memSizeMib": 1, "vcpuCount": 2}"#,
            Format::Json,
        ),
        (
            "vcpuCount = 1\nmemSizeMib = 1\nvcpuCount = 2\n",
            Format::Toml,
        ),
        ("vcpuCount: 1\nmemSizeMib: 1\nvcpuCount: 2\n", Format::Yaml),
    ] {
        let found = problems::<MachineConfig>(text, format);
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.contains("valid"), "{found}");
    }
}

#[test]
fn what_is_not_a_document_is_refused_with_its_line() {
    for (text, format) in [
        ("{\n\"vcpuCount\": ,\n}", Format::Json),
        ("{}\n{}", Format::Json),
        ("vcpuCount = 1\nmemSizeMib = \n", Format::Toml),
        ("vcpuCount: 1\n  memSizeMib: [1\n", Format::Yaml),
    ] {
        let found = problems::<MachineConfig>(text, format);
        let told = found.to_string();
        assert!(
            told.contains("line 2") || told.contains("2:"),
            "{format}: {told}"
        );
    }
    for (text, format) in [
        ("", Format::Json),
        ("", Format::Yaml),
        ("a: 1\n---\nb: 2", Format::Yaml),
    ] {
        assert!(!problems::<MachineConfig>(text, format).is_empty());
    }
    let deep = "[".repeat(100_000);
    for format in [Format::Json, Format::Toml, Format::Yaml] {
        assert!(!problems::<MicroVmSpec>(&deep, format).is_empty());
    }
}

#[test]
fn yaml_that_unfolds_without_end_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let last = format!("*a{}", level - 1);
        let items = [last.as_str(); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(
        problems::<MicroVmSpec>(&text, Format::Yaml)[0]
            .problem
            .contains("valid")
    );
}

#[test]
fn infinity_and_nan_are_no_numbers() {
    for (text, format) in [
        ("jail = { cgroup = { cpus = inf } }", Format::Toml),
        ("jail: {cgroup: {cpus: .nan}}", Format::Yaml),
    ] {
        let told = problems::<MicroVmSpec>(text, format).to_string();
        assert!(
            told.contains("infinity and NaN") || told.contains("non-finite"),
            "{told}"
        );
    }
}

#[test]
fn no_problem_ever_quotes_a_secret() {
    let key = "c2VjcmV0IGtleSBvZiBhIHR1bm5lbA==";
    let texts = [
        (
            format!(r#"{{"wireguard": {{"config": "PrivateKey = {key}", "config": 1}}}}"#),
            Format::Json,
        ),
        (
            format!(r#"{{"wireguard": {{"config": ["{key}"], "x": 1}}}}"#),
            Format::Json,
        ),
        (format!(r#"{{"wireguard": "{key}"}}"#), Format::Json),
        (
            format!("{{\"wireguard\": {{\"config\": \"{key}\n\"}}}}"),
            Format::Json,
        ),
        (
            format!("[wireguard]\nconfig = \"PrivateKey = {key}\n"),
            Format::Toml,
        ),
        (format!("[wireguard]\nconfig = {key}\n"), Format::Toml),
        (
            format!("wireguard:\n  config: \"PrivateKey = {key}\n"),
            Format::Yaml,
        ),
        (format!("wireguard:\n  config: [{key}\n"), Format::Yaml),
        (format!("wireguard:\n  config: a: {key}\n"), Format::Yaml),
    ];
    for (text, format) in texts {
        let found = problems::<SmartVmOptions>(&text, format);
        assert!(
            !format!("{found} {found:?}").contains(key),
            "{format}: {found}"
        );
    }
    let text = format!(r#"{{"wireguard": {{"config": "{key}"}}}}"#);
    let options: SmartVmOptions = spec::load(&text, Format::Json).unwrap();
    let shown = format!("{options:?}");
    assert!(
        shown.contains("[redacted]") && !shown.contains(key),
        "{shown}"
    );
    assert!(serde_json::to_string(&options).unwrap().contains(key));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| spec::load_file::<MicroVmSpec>(dir.path().join(name)).unwrap_err();
    assert_eq!(load("missing.json").kind(), ErrorKind::NotFound);
    std::fs::write(dir.path().join("binary.json"), [0xff, 0xfe, 0x00]).unwrap();
    assert_eq!(load("binary.json").kind(), ErrorKind::Invalid);
    std::fs::write(
        dir.path().join("big.json"),
        vec![b' '; spec::MAX_DOCUMENT_BYTES + 1],
    )
    .unwrap();
    assert!(load("big.json").to_string().contains("longer than 8 MiB"));
    std::fs::write(dir.path().join("bad.json"), "{}").unwrap();
    let bad = load("bad.json");
    assert_eq!(bad.kind(), ErrorKind::Invalid);
    assert!(bad.path().unwrap().ends_with("bad.json"));
    let source = std::error::Error::source(&bad).unwrap();
    assert_eq!(source.downcast_ref::<Problems>().unwrap().len(), 2);
}

#[test]
fn problems_of_shape_and_of_content_are_told_together() {
    let text = r#"{
        "id": "a_b",
        "bootSource": {"kernelImagePath": 7},
        "machineConfig": {"vcpuCount": 300, "memSizeMib": 128},
        "drives": [{"driveId": "a-b", "isRootDevice": "yes", "pathOnHost": ""}],
        "vsock": {"guestCid": 2, "udsPath": "v.sock"},
        "balloons": {}
    }"#;
    let found = validate::read(text, Format::Json, &ValidateContext::default()).unwrap_err();
    let mut places: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "balloons",
            "bootSource.kernelImagePath",
            "drives[0].driveId",
            "drives[0].isRootDevice",
            "drives[0].pathOnHost",
            "id",
            "machineConfig.vcpuCount",
            "vsock.guestCid",
        ]
    );
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_document() {
    let text = "\u{feff}{\"vcpuCount\": 1, \"memSizeMib\": 1}";
    assert!(spec::load::<MachineConfig>(text, Format::Json).is_ok());
}
