//! Rules of options and parameters: a document that breaks one, and the place that is named.

use serde_json::{Value, json};
use smartvm::spec::{
    self, Arch, BaseImageManagerOptions, BaseImagePreset, EnsureBaseImageOptions, Format,
    NetworkManagerOptions, SmartVmOptions, SnapshotCreateParams, SnapshotLoadParams,
};
use smartvm::validate::{
    read_options_file, validate_base_image_manager_options, validate_ensure_base_image_options,
    validate_network_options, validate_options, validate_snapshot_create, validate_snapshot_load,
};

const TUNNEL: &str = "[Interface]\nPrivateKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\
    [Peer]\nPublicKey = /////////////////////////////////////////w8=\n";

fn places(options: &Value) -> Vec<String> {
    let options: SmartVmOptions = spec::load(&options.to_string(), Format::Json).unwrap();
    match validate_options(&options) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.into_iter().map(|problem| problem.path).collect(),
    }
}

#[test]
fn every_rule_of_the_options_names_its_place() {
    let wireguard = |tunnel: Value| json!({"wireguard": tunnel});
    #[rustfmt::skip]
    let table = [
        (json!({}), None),
        (json!({"dataDir": ""}), Some("dataDir")),
        (json!({"runtimeDir": "a\0b"}), Some("runtimeDir")),
        (json!({"firecrackerBinaryPath": ""}), Some("firecrackerBinaryPath")),
        (json!({"baseImageCacheDir": ""}), Some("baseImageCacheDir")),
        (json!({"firecrackerVersion": "1.12.1"}), None),
        (json!({"firecrackerVersion": "v1.12.1"}), None),
        (json!({"firecrackerVersion": "1.17.0-dev"}), None),
        (json!({"firecrackerVersion": "latest"}), None),
        (json!({"firecrackerVersion": "1.12"}), Some("firecrackerVersion")),
        (json!({"firecrackerVersion": "1.12.1/../.."}), Some("firecrackerVersion")),
        (json!({"firecrackerVersion": "1.12.1-../x"}), Some("firecrackerVersion")),
        (json!({"firecrackerVersion": ""}), Some("firecrackerVersion")),
        (json!({"bridgeName": "a bridge"}), Some("bridgeName")),
        (json!({"bridgeName": "0123456789abcdef"}), Some("bridgeName")),
        (json!({"subnet": "10.0.0.0/8"}), None),
        (json!({"subnet": "10.0.0.0/30"}), None),
        (json!({"subnet": "10.0.0.0/31"}), Some("subnet")),
        (json!({"subnet": "0.0.0.0/0"}), Some("subnet")),
        (json!({"subnet": "10.0.0.1/24"}), Some("subnet")),
        (json!({"subnet": "10.0.0.0"}), Some("subnet")),
        (json!({"subnet": "fd00::/64"}), Some("subnet")),
        (json!({"subnet": "127.0.0.0/8"}), Some("subnet")),
        (json!({"subnet": "224.0.0.0/8"}), Some("subnet")),
        (json!({"firewall": {"egress": {"rules": [{"action": "deny", "to": "x"}]}}}), Some("firewall.egress.rules[0].to")),
        (wireguard(json!({"config": " \n"})), Some("wireguard.config")),
        (wireguard(json!({"config": TUNNEL})), None),
        (wireguard(json!({"config": format!("{TUNNEL}PostUp = x\n")})), Some("wireguard.config")),
        (wireguard(json!({"config": "x".repeat(65537)})), Some("wireguard.config")),
        (wireguard(json!({"config": TUNNEL, "interfaceName": "wg/0"})), Some("wireguard.interfaceName")),
        (wireguard(json!({"config": TUNNEL, "interfaceName": "svbr0"})), Some("wireguard.interfaceName")),
        (wireguard(json!({"config": TUNNEL, "routeTable": 254})), Some("wireguard.routeTable")),
        (wireguard(json!({"config": TUNNEL, "routeTable": 0})), Some("wireguard.routeTable")),
        (wireguard(json!({"existingInterface": ""})), Some("wireguard.existingInterface")),
        (wireguard(json!({"existingInterface": "wg0"})), None),
        (json!({"maxStoredBaseImages": 0}), Some("maxStoredBaseImages")),
        (json!({"baseImageManifestUrl": "ftp://x/y"}), Some("baseImageManifestUrl")),
        (json!({"baseImageManifestUrl": "https://"}), Some("baseImageManifestUrl")),
        (json!({"baseImageManifestUrl": "https://a b"}), Some("baseImageManifestUrl")),
        (json!({"baseImageManifestPath": ""}), Some("baseImageManifestPath")),
        (json!({"baseImageManifestUrl": "https://a/b", "baseImageManifestPath": "b"}), Some("baseImageManifestPath")),
    ];
    for (options, place) in table {
        let expected: Vec<String> = place.into_iter().map(str::to_owned).collect();
        assert_eq!(places(&options), expected, "{options}");
    }
}

#[test]
fn the_defaults_are_those_of_the_interfaces() {
    let options = SmartVmOptions::default();
    assert_eq!(options.data_dir().to_str(), Some("/tmp/.smartvm"));
    assert_eq!(
        options.runtime_dir(true).to_str(),
        Some("/dev/shm/.smartvm/runtime")
    );
    assert_eq!(
        options.runtime_dir(false).to_str(),
        Some("/tmp/.smartvm/runtime")
    );
    assert_eq!(
        options.base_image_cache_dir().to_str(),
        Some("/tmp/.smartvm/base-images")
    );
    assert_eq!(options.arch(), Arch::X86_64);
    assert_eq!(options.max_stored_base_images(), 2);
    assert!(options.runtime_options().ephemeral_writable_drives());
    let network = NetworkManagerOptions::from(&options);
    assert_eq!(
        (network.bridge_name(), network.subnet()),
        ("svbr0", "172.30.0.0/24")
    );
    let moved = SmartVmOptions::builder().data_dir("/srv").build();
    assert_eq!(
        moved.base_image_cache_dir().to_str(),
        Some("/srv/base-images")
    );
    let tunnel: SmartVmOptions =
        spec::load(r#"{"wireguard": {"config": "c"}}"#, Format::Json).unwrap();
    let tunnel = tunnel.wireguard.unwrap();
    assert_eq!((tunnel.interface(), tunnel.route_table()), ("svwg0", 51820));
    assert!(tunnel.route_all_vm_traffic() && tunnel.fail_closed());
    assert_eq!(BaseImagePreset::default(), BaseImagePreset::Latest);
}

#[test]
fn network_and_image_options_follow_the_same_rules() {
    let network = NetworkManagerOptions::builder()
        .subnet("10.0.0.0/31")
        .build();
    assert_eq!(
        validate_network_options(&network).unwrap_err()[0].path,
        "subnet"
    );
    let store = BaseImageManagerOptions::builder()
        .hosted_manifest_url("https://a/b")
        .hosted_manifest_path("b")
        .max_stored_base_images(0)
        .build();
    assert_eq!(
        validate_base_image_manager_options(&store)
            .unwrap_err()
            .len(),
        2
    );
    let hosted = EnsureBaseImageOptions::builder()
        .preset(BaseImagePreset::Hosted)
        .build();
    assert_eq!(
        validate_ensure_base_image_options(&hosted, false).unwrap_err()[0].path,
        "preset"
    );
    assert!(validate_ensure_base_image_options(&hosted, true).is_ok());
}

#[test]
fn a_snapshot_is_two_files() {
    let create = SnapshotCreateParams::builder()
        .snapshot_path("s")
        .mem_file_path("s")
        .build();
    assert_eq!(
        validate_snapshot_create(&create).unwrap_err()[0].path,
        "memFilePath"
    );
    let load = SnapshotLoadParams::builder()
        .snapshot_path("")
        .mem_file_path("m")
        .build();
    assert_eq!(
        validate_snapshot_load(&load).unwrap_err()[0].path,
        "snapshotPath"
    );
    let load = SnapshotLoadParams::builder()
        .snapshot_path("s")
        .mem_file_path("m")
        .build();
    assert!(validate_snapshot_load(&load).is_ok());
}

#[test]
fn an_options_file_is_read_and_validated_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "subnet = \"10.0.0.1/24\"\nbridge_name = \"br\"\n").unwrap();
    let told = read_options_file(&path).unwrap_err().to_string();
    assert!(
        told.contains("subnet: ") && told.contains("did you mean `bridgeName`?"),
        "{told}"
    );
    std::fs::write(&path, "subnet = \"10.0.0.0/24\"\n").unwrap();
    assert!(read_options_file(&path).is_ok());
}
