use super::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "/////////////////////////////////////////w8=";

fn text(interface: &str, peer: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {KEY}\n{interface}\n[Peer]\nPublicKey = {OTHER_KEY}\n{peer}\n"
    )
}

#[test]
fn every_field_is_read() {
    let config = Config::parse(&text(
        "Address = 10.9.0.2/24, 10.8.0.1 # ours\nListenPort=51820\nFwMark = 0x10\nMTU = 1380\nDNS = 10.9.0.1",
        "PresharedKey = AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nAllowedIPs = 0.0.0.0/0\nEndpoint = vpn.example:51820\nPersistentKeepalive = 25",
    ))
    .unwrap();
    let counting: [u8; 32] = std::array::from_fn(|index| index as u8);
    assert_eq!(config.private_key.reveal(), &counting);
    let addresses: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.9.0.2/24", "10.8.0.1/32"]);
    assert_eq!(config.listen_port, Some(51820));
    assert_eq!((config.fw_mark, config.mtu), (16, Some(1380)));
    assert_eq!(config.dns, [Ipv4Addr::new(10, 9, 0, 1)]);
    let peer = &config.peers[0];
    assert_eq!(peer.public_key[31], 0x0f);
    assert_eq!(peer.preshared_key.as_ref().unwrap().reveal(), &counting);
    assert_eq!(peer.allowed_ips, [Ipv4Net::default()]);
    assert_eq!(peer.endpoint.as_ref().unwrap().host, "vpn.example");
    assert_eq!(peer.keepalive, Some(25));
    assert!(!format!("{config:?}").contains("17, 18"), "{config:?}");
}

#[test]
fn what_is_wrong_is_told_by_name_and_line_and_never_by_value() {
    for (interface, peer, line, named) in [
        ("PostUp = rm -rf /", "", 3, "PostUp"),
        ("predown=x", "", 3, "predown"),
        ("Table = off", "", 3, "Table"),
        ("SaveConfig = true", "", 3, "SaveConfig"),
        ("Address = fd00::1/64", "", 3, "IPv6"),
        ("DNS = fd00::1", "", 3, "IPv6"),
        ("MTU = 70000", "", 3, "MTU"),
        ("ListenPort = -1", "", 3, "ListenPort"),
        ("Adress = 10.0.0.1", "", 3, "Adress"),
        ("AllowedIPs = 0.0.0.0/0", "", 3, "AllowedIPs"),
        ("nonsense", "", 3, "Name = value"),
        ("PrivateKey = AA==", "", 3, "wrong length"),
        ("", "AllowedIPs = ::/0", 6, "IPv6"),
        ("", "AllowedIPs = 10.0.0.1/8", 6, "beyond"),
        ("", "Endpoint = [::1]:1", 6, "IPv6"),
        ("", "Endpoint = example:0", 6, "Endpoint"),
        ("", "Endpoint = a b:1", 6, "Endpoint"),
        ("", "PresharedKey = secret", 6, "wrong length"),
        (
            "",
            "PublicKey = /////////////////////////////////////////w8=",
            6,
            "twice",
        ),
        (
            "",
            "[Peer]\nPublicKey = /////////////////////////////////////////w8=",
            6,
            "earlier",
        ),
        ("", "[Peer]", 6, "no PublicKey"),
        ("", "[Server]", 6, "section"),
        ("", "[Interface]", 6, "second"),
    ] {
        let error = Config::parse(&text(interface, peer)).unwrap_err();
        assert_eq!(error.line, line, "{interface}{peer}: {error}");
        assert!(
            error.to_string().contains(named),
            "{interface}{peer}: {error}"
        );
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(Config::parse("").is_err());
    assert!(Config::parse("PrivateKey = x").is_err());
    assert!(Config::parse(&format!("[Interface]\nPrivateKey = {KEY}")).is_err());
}

#[test]
fn a_key_is_printed_as_it_was_written() {
    for text in [KEY, OTHER_KEY] {
        assert_eq!(base64(&key("PublicKey", text).unwrap()), text);
    }
}
