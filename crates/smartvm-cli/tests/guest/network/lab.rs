//! A host with an uplink, and guests on it.

use std::path::PathBuf;
use std::thread;

use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::forger;
use crate::lab::{Internet, end_all_of, move_in};
use crate::support::{forge, image, smartvm};

/// The calling thread's own host. What it starts is in there.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    pub(crate) internet: Internet,
}

impl Lab {
    pub(crate) fn enter() -> Self {
        move_in(UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS);
        let dir = tempfile::tempdir().unwrap();
        let private = rustix::mount::MountPropagationFlags::PRIVATE;
        let recursive = rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private | recursive).unwrap();
        // The host's name server is one on the Internet.
        let resolv = dir.path().join("resolv.conf");
        let text = format!("nameserver 127.0.0.53\nnameserver {}\n", Internet::DNS);
        std::fs::write(&resolv, text).unwrap();
        rustix::mount::mount_bind(&resolv, "/etc/resolv.conf").unwrap();
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        Self {
            dir,
            internet: Internet::connect(),
        }
    }

    pub(crate) fn command(&self) -> assert_cmd::Command {
        let mut command = smartvm();
        command.env("SMARTVM_RUNTIME_DIR", self.dir.path().join("run"));
        let options = self.options();
        if options.exists() {
            command.arg("--config").arg(options);
        }
        command
    }

    fn options(&self) -> PathBuf {
        self.dir.path().join("options.json")
    }

    /// What the network is made with from now on, where it isn't up.
    pub(crate) fn set_options(&self, options: &Value) {
        std::fs::write(self.options(), options.to_string()).unwrap();
    }

    /// What smartvm prints.
    pub(crate) fn smartvm(&self, words: &[&str]) -> String {
        let done = self.command().args(words).assert().success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    }

    /// Puts other rules in force.
    pub(crate) fn set_rules(&self, egress: &Value, flags: &[&str]) {
        let file = self.dir.path().join("rules.json");
        std::fs::write(&file, serde_json::json!({ "egress": egress }).to_string()).unwrap();
        let file = file.to_str().unwrap();
        self.smartvm(&[&["firewall", "set", "-f", file], flags].concat());
    }

    /// Starts guests, connected as these flags say, all at once, and tells who they are.
    pub(crate) fn start<const N: usize>(
        &self,
        guests: [(&'static str, &[&str]); N],
    ) -> [Guest<'_>; N] {
        let mut guests = thread::scope(|scope| {
            let start = |(id, network)| scope.spawn(move || self.start_with(id, network));
            guests.map(start).map(|started| started.join().unwrap())
        });
        // Whoever came first has the first address.
        guests.sort_by_key(|guest| guest.ip);
        guests
    }

    fn start_with(&self, id: &'static str, network: &[&str]) -> Guest<'_> {
        let image = image();
        let flags = [
            "run",
            "--detach",
            "--id",
            id,
            "--image",
            image.to_str().unwrap(),
        ];
        self.smartvm(&[&flags, network].concat());
        let status = self.smartvm(&["network", "status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        let leases = status["leases"].as_array().unwrap();
        let lease = leases.iter().find(|lease| lease["vm"] == id).unwrap();
        let ip: std::net::Ipv4Addr = lease["ip"].as_str().unwrap().parse().unwrap();
        Guest {
            lab: self,
            id,
            mac: mac(lease["mac"].as_str().unwrap()),
            ip: ip.octets(),
        }
    }

    /// The MAC address of a device of the host's.
    pub(crate) fn mac(&self, device: &str) -> [u8; 6] {
        let shown = std::process::Command::new("ip")
            .args(["-j", "link", "show", device])
            .output()
            .unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        mac(shown[0]["address"].as_str().unwrap())
    }
}

fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// A guest on the network, removed at the end.
pub(crate) struct Guest<'a> {
    lab: &'a Lab,
    pub(crate) id: &'static str,
    pub(crate) mac: [u8; 6],
    pub(crate) ip: [u8; 4],
}

impl Guest<'_> {
    /// What a script in it prints.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.lab
            .smartvm(&["exec", self.id, "--", "sh", "-c", script])
    }

    /// Has it send these frames as they are.
    pub(crate) fn send(&self, frames: &[Vec<u8>]) {
        let to = format!("{}:/dev/shm/forge", self.id);
        self.lab.smartvm(&["cp", forge().to_str().unwrap(), &to]);
        let mut exec = self.lab.command();
        exec.args(["exec", "-i", self.id, "--", "/dev/shm/forge"]);
        exec.write_stdin(forger::packed(frames)).assert().success();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        end_all_of(self.dir.path());
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let _gone = self.lab.command().args(["rm", "--force", self.id]).output();
    }
}
