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
pub mod firewall;
mod foreign;
mod forwarding;
pub mod keeper;
mod lease;
mod link;
mod netfilter;
mod netlink;
mod preflight;
mod reach;
mod route;
mod rules;
mod state;
mod status;
mod step;
mod subnet;
mod tunnel;
pub mod wireguard;
mod wiring;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use foreign::ForeignChain;
pub use lease::Lease;
pub use route::{GuestTable, TunnelRoutes};
pub use status::Status;
pub use step::NetworkStep;
pub use subnet::{Subnet, mac_of};
pub use tunnel::{PeerStatus, TunnelStatus};
pub(crate) use wiring::address_before;
pub use wiring::{Move, Wired, Wiring};

use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{self, Ledger};
use crate::name::{IfName, MacAddress, VmId};
use crate::process::boot_id;
use crate::rundir::Lock;
use crate::spec::{
    FirewallConfig, HostService, NetworkInterface, NetworkManagerOptions, SmartVmOptions,
};
use crate::step::Step;
use lease::Wanted;
use link::Links;
use state::{Instance, Phase, State, User, Users, digest};
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
        durable::private_dir(&self.dir)?;
        Ok(Wiring {
            dir: self.dir.clone(),
            bridge: self.bridge.clone(),
            isolated: !self.guests_may_talk(),
            subnet: self.subnet,
            mark: Instance::of(&self.dir)?.mark(),
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

    /// Gives back what dead users left: users and leases of VMs that have no run dir, and a
    /// network that nobody uses or whose making was interrupted. Returns what was found.
    pub(crate) fn collect(
        &self,
        is_there: &dyn Fn(&VmId) -> bool,
        dry: bool,
    ) -> Result<Vec<String>> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        let lock = self.lock()?;
        let mut found = Vec::new();
        let users = Users::in_dir(&self.dir);
        for vm in vms(users.all()?).iter().filter(|vm| !is_there(vm)) {
            found.push(format!("VM {vm}, which is gone, still used it"));
            if !dry {
                users.remove(&User::Vm(vm.clone()))?;
            }
        }
        let leases = lease::Leases::in_dir(&self.dir);
        for lease in leases.all()?.into_iter().flatten() {
            if !is_there(&lease.vm) {
                found.push(format!("VM {}, which is gone, had {}", lease.vm, lease.ip));
                if !dry {
                    leases.give_back(&lease.vm, &lease.iface_id, Some(lease.ip))?;
                }
            }
        }
        let state = State::read(&self.dir)?;
        let stale = match &state {
            Some(state) => state.phase != Phase::Up || !state.is_of_this_boot()?,
            None => self.dir.join(LEDGER).exists(),
        };
        if stale || (state.is_some() && users.all()?.is_empty()) {
            found.push("the network was up, and nobody used it".to_owned());
            if !dry {
                give_back_unused(&self.dir, &lock)?;
            }
        }
        Ok(found)
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
    fn rules(&self, tunnel: Option<&TunnelState>) -> firewall::Ruleset {
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
        rules
    }

    fn take_lease(&self, wanted: Wanted<'_>) -> Result<Lease> {
        let _lock = self.lock()?;
        if let Some(state) = settled(&self.dir, true)? {
            state.require_same(&self.options, &self.data_dir, state::namespace()?)?;
        }
        let instance = Instance::of(&self.dir)?;
        lease::Leases::in_dir(&self.dir).take(self.subnet, &instance.id, wanted)
    }

    /// What the firewall admits at a TAP device, with the policy that its lease says.
    fn port(&self, tap: &IfName, mac: MacAddress, ip: Ipv4Addr) -> Result<firewall::VmPort> {
        let lease = lease::Leases::in_dir(&self.dir).of(ip)?;
        let lease = lease.filter(|lease| lease.tap == *tap).ok_or_else(|| {
            let message = format!("the address {ip} of {tap} isn't leased any more");
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok(firewall::VmPort { mac, ..port(lease) })
    }

    fn join(&self, vm: &VmId) -> Result<()> {
        let lock = self.lock()?;
        self.ensure(&lock, Care::Quick)?;
        Users::in_dir(&self.dir).add(&User::Vm(vm.clone()))
    }

    fn lock(&self) -> Result<Lock> {
        durable::private_dir(&self.dir)?;
        lock(&self.dir)
    }

    /// Makes the network, or mends the one that is there.
    fn ensure(&self, _lock: &Lock, care: Care) -> Result<()> {
        if let Some(state) = settled(&self.dir, true)? {
            state.require_same(&self.options, &self.data_dir, state::namespace()?)?;
            return self.mend(state, care);
        }
        let instance = Instance::of(&self.dir)?;
        let plan = preflight::plan(self, &instance)?;
        let mut state = State {
            phase: Phase::Changing,
            bridge: self.bridge.clone(),
            subnet: self.subnet,
            data_dir: self.data_dir.clone(),
            options: digest(&self.options)?,
            boot_id: boot_id()?.to_owned(),
            namespace: state::namespace()?,
            nat_interface: Some(plan.nat_interface),
            tunnel: plan.tunnel,
            firewall: None,
            rules: None,
        };
        state.write(&self.dir)?;
        let made = (|| {
            let mut ledger = Ledger::create(&self.dir.join(LEDGER))?;
            for step in plan.steps {
                ledger.run(&Step::Network(step), |step| match step {
                    Step::Network(step) => step.apply(self, None),
                    _ => Ok(crate::step::Outcome::default()),
                })?;
            }
            state.rules = firewall::fingerprint(&self.bridge)?;
            state.phase = Phase::Up;
            state.write(&self.dir)
        })();
        made.map_err(|e| e.with_cleanup(give_back(&self.dir).err()))
    }

    /// Puts right what others changed, and follows the default route where it leads out of
    /// another interface than before.
    fn mend(&self, mut state: State, care: Care) -> Result<()> {
        // What closes the guests' way out comes before all that opens it.
        let mut links = Links::open()?;
        let found = match care {
            Care::Thorough => drift::of(self, &state, &mut links)?,
            Care::Quick => drift::at_a_glance(self, &state)?,
        };
        if found.firewall {
            self.make_firewall(&mut state)?;
        }
        state.tunnel.as_ref().map_or(Ok(()), tunnel::mend_closed)?;
        let instance = Instance::of(&self.dir)?;
        let bridge = links.find(self.bridge.as_str())?;
        if let Some(device) = &bridge
            && !device.is_ours(&instance.mark(), Some(instance.bridge_mac()))
        {
            return Err(preflight::taken(&self.bridge, device.alias.as_deref()));
        }
        if bridge.is_none() {
            preflight::bridge_step(self, &instance).apply(self, None)?;
            let leases = lease::Leases::in_dir(&self.dir).all()?;
            for lease in leases.into_iter().flatten() {
                links.attach(&lease.tap, &self.bridge, !self.guests_may_talk())?;
            }
        } else {
            links.set_address(&self.bridge, self.subnet)?;
            links.set_up(&self.bridge)?;
        }
        if let Some(tunnel) = &state.tunnel {
            tunnel::mend(self, &instance, tunnel)?;
        }
        let uplink = preflight::uplink(self, &mut links, state.tunnel.as_ref())?;
        self.mend_forwarding(&state, uplink.as_deref())?;
        for lease in found.astray {
            links.attach(&lease.tap, &self.bridge, !self.guests_may_talk())?;
        }
        if uplink.is_some() && uplink != state.nat_interface {
            state.nat_interface = uplink;
            state.write(&self.dir)?;
        }
        match keeper::alive(&self.dir)? {
            Some(_) => Ok(()),
            None => preflight::keeper_step(self)?.apply(self, None).map(drop),
        }
    }

    /// Has the interfaces forward that have to, and the one no more that traffic left by before.
    fn mend_forwarding(&self, state: &State, uplink: Option<&str>) -> Result<()> {
        let Some(mut ledger) = Ledger::open(&self.dir.join(LEDGER))? else {
            return Ok(());
        };
        let before = state.nat_interface.as_deref();
        if uplink.is_some() && uplink != before {
            let is_that = |_, entry: &ledger::Entry| {
                matches!(&entry.step, Step::Network(NetworkStep::Forward { interface, .. })
                    if Some(interface.as_str()) == before)
            };
            let mut failures = ledger
                .undo_some(is_that, |entry| entry.step.undo(entry.outcome.as_ref()))
                .into_iter();
            if let Some(first) = failures.next() {
                return Err(first.with_cleanup(failures));
            }
        }
        let tunnel = state.tunnel.as_ref().map(|it| &it.routes.interface);
        let uplink = uplink.map(str::parse::<IfName>).transpose()?;
        for (interface, also) in [
            (Some(&self.bridge), None),
            (tunnel, uplink.as_ref()),
            (uplink.as_ref(), tunnel),
        ] {
            let Some(interface) = interface else { continue };
            let also: Vec<IfName> = also.into_iter().cloned().collect();
            if let Some(step) = preflight::forward_step(interface, &self.bridge, &also)? {
                ledger.run(&Step::Network(step.clone()), |_| step.apply(self, None))?;
            }
        }
        Ok(())
    }
}

/// How closely is looked at what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// At all there is.
    Thorough,
    /// At what lets no guest pass that shouldn't: for each VM that joins.
    Quick,
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
    Lock::shared(&dir.join("lock"), "the network", LOCK_PATIENCE)
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

/// Undo of a lease: any process can, knowing the directory alone.
fn give_back_lease(dir: &Path, vm: &VmId, iface_id: &str, known: Option<Ipv4Addr>) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock(dir)?;
    lease::Leases::in_dir(dir).give_back(vm, iface_id, known)
}

/// Undo of joining: the last user gives the network back.
fn leave(dir: &Path, vm: &VmId) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let lock = lock(dir)?;
    Users::in_dir(dir).remove(&User::Vm(vm.clone()))?;
    give_back_unused(dir, &lock)
}

fn give_back_unused(dir: &Path, _lock: &Lock) -> Result<()> {
    settled(dir, false)?;
    if Users::in_dir(dir).all()?.is_empty() {
        give_back(dir)?;
    }
    Ok(())
}

/// The state of a network that is whole. What was interrupted is given back first; what a
/// restart of the host took is forgotten.
fn settled(dir: &Path, forget_users: bool) -> Result<Option<State>> {
    let Some(state) = State::read(dir)? else {
        give_back(dir)?;
        return Ok(None);
    };
    if !state.is_of_this_boot()? {
        remove_ledger(dir)?;
        State::remove(dir)?;
        if forget_users {
            Users::in_dir(dir).remove(&User::Up)?;
        }
        return Ok(None);
    }
    if state.phase == Phase::Up {
        return Ok(Some(state));
    }
    give_back(dir)?;
    Ok(None)
}

/// Plays the network's ledger backwards.
fn give_back(dir: &Path) -> Result<()> {
    if let Some(state) = State::read(dir)?
        && state.phase == Phase::Up
    {
        let namespace = state::namespace()?;
        if state.namespace != namespace && state.is_of_this_boot()? {
            return Err(Error::new(
                ErrorKind::WrongState,
                "the network belongs to another network namespace than this process's",
            )
            .hint("take it down from there"));
        }
        let state = State {
            phase: Phase::Changing,
            ..state
        };
        state.write(dir)?;
    }
    if let Some(mut ledger) = Ledger::open(&dir.join(LEDGER))? {
        let mut failures = ledger
            .undo_all(|entry| entry.step.undo(entry.outcome.as_ref()))
            .into_iter();
        if let Some(first) = failures.next() {
            return Err(first.with_cleanup(failures));
        }
        remove_ledger(dir)?;
    }
    State::remove(dir)
}

fn remove_ledger(dir: &Path) -> Result<()> {
    let path = dir.join(LEDGER);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", &path, e)),
        _ => Ok(()),
    }
}
