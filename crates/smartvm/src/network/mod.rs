//! The host's network for microVMs: a bridge with NAT, an address and a TAP device for each
//! guest.
//!
//! The network is shared: its users (VMs, and `network up`) are counted on disk under a lock;
//! the first makes it, the last one gives it back. What was made is in a ledger of its own,
//! so that whoever gets the lock next undoes what a crash left half done. Everything is about
//! the network namespace of the calling thread.

mod conntrack;
mod dns;
mod doctor;
mod drift;
mod ending;
pub mod firewall;
mod foreign;
mod forwarding;
pub mod keeper;
mod lease;
mod link;
mod making;
mod namespace;
mod netfilter;
mod netlink;
mod port;
mod preflight;
mod reach;
mod remembered;
mod route;
mod rules;
mod state;
mod status;
mod step;
mod tunnel;
pub mod wireguard;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use foreign::ForeignChain;
pub use status::Status;
pub use tunnel::{PeerStatus, TunnelStatus};

use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{IfName, VmId};
use crate::rundir::Lock;
use crate::spec::{
    FirewallConfig, HostService, NetworkInterface, NetworkManagerOptions, SmartVmOptions,
};
pub use crate::wiring::{
    GuestTable, Lease, Move, NetworkStep, Subnet, TunnelRoutes, Wired, Wiring, mac_of,
};
use ending::give_back_unused;
use lease::Wanted;
use making::Care;
use namespace::Namespace;
use remembered::Remembered;
use state::{Instance, State, User, Users};
use tunnel::TunnelState;

/// How long others may be at work on the network.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LEDGER: &str = "ledger.jsonl";

/// The network of one runtime directory.
///
/// ```no_run
/// # fn example(smartvm: smartvm::SmartVm) -> smartvm::Result<()> {
/// let network = smartvm.network();
/// // VMs make it by themselves; so it stays when the last of them ends.
/// network.up()?;
/// let status = network.status()?;
/// println!("{} on {}: {} addresses are free", status.subnet, status.bridge, status.free);
/// for problem in &status.drift {
///     println!("not as it should be: {problem}");
/// }
/// network.down()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Network {
    dir: PathBuf,
    data_dir: PathBuf,
    options: NetworkManagerOptions,
    bridge: IfName,
    subnet: Subnet,
    tunnel: Option<wireguard::Tunnel>,
    /// The executable of its keeper; `None`: it is looked for.
    keeper: Option<PathBuf>,
    known: Arc<Known>,
}

/// What need not be read or reckoned again for each VM.
#[derive(Debug, Default)]
struct Known {
    state: Remembered<State>,
    instance: Remembered<Instance>,
    /// The last one.
    lease: Remembered<Lease>,
    /// What tells the options from others.
    options: OnceLock<String>,
    /// That the directory is ours alone.
    private: OnceLock<()>,
}

impl Network {
    /// The network that these options describe. Nothing is touched.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: a bridge name or subnet that isn't one.
    pub fn new(runtime_dir: &Path, options: &SmartVmOptions) -> Result<Self> {
        let data_dir = options.data_dir().to_owned();
        let options = NetworkManagerOptions::from(options);
        Self::assemble(dir_in(runtime_dir), data_dir, options)
    }

    /// The same, kept by this executable: the smartvm command.
    #[must_use]
    pub fn kept_by(mut self, executable: &Path) -> Self {
        self.keeper = Some(executable.to_owned());
        self
    }

    fn assemble(dir: PathBuf, data_dir: PathBuf, options: NetworkManagerOptions) -> Result<Self> {
        Ok(Self {
            dir,
            data_dir,
            bridge: options.bridge_name().parse()?,
            subnet: options.subnet().parse()?,
            tunnel: (options.wireguard.as_ref())
                .map(wireguard::Tunnel::of)
                .transpose()?,
            keeper: None,
            known: Arc::default(),
            options,
        })
    }

    /// Makes the network where it isn't up, mends it where it is, and keeps it until
    /// [`Network::down`]. Returns the other programs' chains that drop the guests' traffic.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`]: it is up with other options, or a device or route of
    /// others is in the way; [`ErrorKind::Host`]: this host can't. Nothing is left behind.
    pub fn up(&self) -> Result<Vec<ForeignChain>> {
        let lock = self.lock()?;
        self.ensure(&lock, Care::Thorough)?;
        Users::in_dir(&self.dir).add(&User::Up)?;
        foreign::find(&self.bridge)
    }

    /// Takes the network down, unless VMs use it: then it goes with the last of them.
    /// Returns these.
    pub fn down(&self) -> Result<Vec<VmId>> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let users = Users::in_dir(&self.dir);
        users.remove(&User::Up)?;
        give_back_unused(&self.dir, &lock)?;
        Ok(vms(users.all()?))
    }

    /// What is known of it, and how it differs from what it should be.
    pub fn status(&self) -> Result<Status> {
        status::of(self)
    }

    /// Other programs' chains that drop what guests send beyond the host.
    pub fn foreign_chains(&self) -> Result<Vec<ForeignChain>> {
        foreign::find(&self.bridge)
    }

    /// What a plan needs to know, with these leases.
    pub fn wiring(&self, leases: Vec<Lease>) -> Result<Wiring> {
        Ok(Wiring {
            dir: self.dir.clone(),
            bridge: self.bridge.clone(),
            isolated: !self.guests_may_talk(),
            subnet: self.subnet,
            mark: self.instance()?.mark(),
            dns: self.name_servers(),
            leases,
        })
    }

    /// What a plan shows before anything is leased: addresses that may be taken by others.
    ///
    /// # Errors
    /// More interfaces than the subnet has room for.
    pub fn preview(&self, vm: &VmId, iface_ids: &[String]) -> Result<Wiring> {
        let lease = |(number, iface_id): (u32, &String)| {
            let ip = self.subnet.guest(number).ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("{} is too small", self.subnet))
            })?;
            Ok(Lease {
                vm: vm.clone(),
                iface_id: iface_id.clone(),
                tap: lease::tap_name("000000", number)?,
                ip,
                mac: mac_of(ip),
                firewall: None,
            })
        };
        Ok(Wiring {
            dir: self.dir.clone(),
            bridge: self.bridge.clone(),
            isolated: !self.guests_may_talk(),
            subnet: self.subnet,
            mark: "smartvm 000000".into(),
            dns: Vec::new(),
            leases: (0..).zip(iface_ids).map(lease).collect::<Result<_>>()?,
        })
    }

    /// The step that leases an address.
    pub(crate) fn lease_step(
        &self,
        vm: &VmId,
        interface: &NetworkInterface,
        firewall: Option<&FirewallConfig>,
        before: Option<Ipv4Addr>,
    ) -> Result<NetworkStep> {
        let mac = interface.guest_mac.as_ref();
        Ok(NetworkStep::LeaseAddress {
            dir: self.dir.clone(),
            vm: vm.clone(),
            iface_id: interface.iface_id.clone(),
            mac: mac.map(|mac| mac.parse()).transpose()?,
            firewall: firewall.and_then(|it| it.egress.clone()),
            before,
        })
    }

    /// Whether guests may reach one another.
    fn guests_may_talk(&self) -> bool {
        self.options.guests_may_talk.unwrap_or(false)
    }

    /// The name servers for guests: the tunnel's, else the host's.
    fn name_servers(&self) -> Vec<Ipv4Addr> {
        let config = self.tunnel.as_ref().and_then(|it| it.config.as_ref());
        match config.map(|config| config.dns.as_slice()) {
            None | Some([]) => dns::servers(),
            Some(servers) => servers.iter().take(dns::MOST).copied().collect(),
        }
    }

    /// The firewall of a network without guests.
    fn rules(&self, instance: &Instance, tunnel: Option<&TunnelState>) -> firewall::Ruleset {
        let (net, gateway) = (self.subnet.net(), self.subnet.gateway());
        let mut rules = firewall::Ruleset::new(self.bridge.clone(), net, gateway);
        rules.egress = self.options.firewall.clone().and_then(|it| it.egress);
        rules.guests_may_talk = self.guests_may_talk();
        let services = self.options.host_services.iter();
        rules.host_services = services
            .filter_map(|text| HostService::parse(text))
            .flatten()
            .collect();
        rules.tunnel = tunnel.map(TunnelState::in_firewall);
        rules.taps = lease::tap_prefixes(&instance.id).into();
        rules
    }

    fn take_lease(&self, wanted: Wanted<'_>) -> Result<Lease> {
        let _lock = self.lock()?;
        if let Some(state) = self.settled()? {
            self.require_same(&state)?;
        }
        let instance = self.instance()?;
        let leases = lease::Leases::in_dir(&self.dir);
        let (lease, file) = leases.take(self.subnet, &instance.id, wanted)?;
        self.known.lease.note(file, &lease);
        Ok(lease)
    }

    /// The state of a network that is whole; see [`ending::settled`].
    fn settled(&self) -> Result<Option<State>> {
        ending::settle(
            &self.dir,
            self.known
                .state
                .read(&State::file(&self.dir), state::FORMAT)?,
            true,
        )
    }

    fn instance(&self) -> Result<Instance> {
        match self
            .known
            .instance
            .read(&Instance::file(&self.dir), state::FORMAT)?
        {
            Some(instance) => Ok(instance),
            None => Instance::of(&self.dir),
        }
    }

    /// Refuses a network that is up with other options, of another data directory or in another
    /// namespace.
    fn require_same(&self, state: &State) -> Result<()> {
        let digest = match self.known.options.get() {
            Some(digest) => digest,
            None => {
                let digest = state::digest(&self.options)?;
                self.known.options.get_or_init(|| digest)
            }
        };
        state.require_same(&self.options, digest, &self.data_dir, Namespace::here()?)
    }

    fn lock(&self) -> Result<Lock> {
        if self.known.private.get().is_some() {
            match lock(&self.dir) {
                // Somebody removed it.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                held => return held,
            }
        }
        durable::private_dir(&self.dir)?;
        self.known.private.get_or_init(|| ());
        lock(&self.dir)
    }
}

/// What the firewall admits for a lease.
fn port(lease: Lease) -> firewall::VmPort {
    firewall::VmPort {
        tap: lease.tap,
        mac: lease.mac,
        ip: lease.ip,
        policy: lease.firewall,
    }
}

/// The network's directory in a runtime directory.
fn dir_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(".network")
}

fn lock(dir: &Path) -> Result<Lock> {
    Lock::shared(&lock_file(dir), "the network", LOCK_PATIENCE)
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

fn vms(users: Vec<User>) -> Vec<VmId> {
    users
        .into_iter()
        .filter_map(|user| match user {
            User::Vm(id) => Some(id),
            User::Up => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
