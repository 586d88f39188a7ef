//! What a tunnel's text says, on the device that comes of it.

use smartvm::spec::WireGuardConfig;

use crate::tunnel::{Way, run};

#[test]
fn every_line_of_a_tunnels_text_reaches_its_device() {
    let way = Way::new();
    let shared = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let interface = "ListenPort = 51777\nFwMark = 0x10\nMTU = 1380\nAddress = 10.8.0.7/32";
    let peer = format!("PresharedKey = {shared}\nPersistentKeepalive = 25\nEndpoint");
    let text = way.text(interface).replace("Endpoint", &peer);
    let network = way.network(WireGuardConfig::Managed(way.managed(text)));
    let before = way.picture();
    network.up().unwrap();
    let name = &way.interface;
    let set = run(&format!("wg showconf {name}"));
    let device = run(&format!("ip address show dev {name}"));
    for line in [
        format!("PrivateKey = {}", way.keys.private),
        "ListenPort = 51777".into(),
        "FwMark = 0x10".into(),
        format!("PublicKey = {}", way.peer.keys.public),
        format!("PresharedKey = {shared}"),
        "AllowedIPs = 0.0.0.0/0".into(),
        "Endpoint = 198.18.0.1:51820".into(),
        "PersistentKeepalive = 25".into(),
    ] {
        assert!(set.contains(&line), "{line}: {set}");
    }
    for part in ["mtu 1380 ", "inet 10.9.0.2/24 ", "inet 10.8.0.7/32 "] {
        assert!(device.contains(part), "{part}: {device}");
    }
    assert_eq!(network.status().unwrap().drift, [""; 0]);
    let from = |address: &str| format!("from {address} lookup 51820");
    let rules = run("ip rule").replace("[detached] ", "");
    for address in ["10.9.0.2", "10.8.0.7"] {
        assert!(rules.contains(&from(address)), "{address}: {rules}");
    }
    network.down().unwrap();
    assert_eq!(way.picture(), before);
}
