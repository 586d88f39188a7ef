//! Interfaces and routes by the kernel's ioctls: the least code for one address.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A socket to configure interfaces with.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// Opens it.
    ///
    /// # Errors
    /// Those of `socket(2)`; the others' are those of the kernel's requests.
    pub fn new() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self(socket))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn up(&self, name: &str) -> io::Result<()> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has filled in this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let up = libc::c_short::try_from(libc::IFF_UP).map_err(io::Error::other)?;
        request.ifr_ifru.ifru_flags = flags | up;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Gives an interface an address, in place of the one that it has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_address(&self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(libc::SIOCSIFADDR, &mut request)
    }

    /// Sets the netmask of an interface that has an address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_netmask(&self, name: &str, netmask: Ipv4Addr) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_netmask = socket_address(netmask);
        self.call(libc::SIOCSIFNETMASK, &mut request)
    }

    /// A route to one host, or to everything, directly or through a gateway. That it exists
    /// already is fine.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_route(
        &self,
        name: &str,
        host: Option<Ipv4Addr>,
        gateway: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        let name = CString::new(name)?;
        // SAFETY: all bytes zero is a valid value of this plain C structure.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        let everything = Ipv4Addr::UNSPECIFIED;
        route.rt_dst = socket_address(host.unwrap_or(everything));
        route.rt_gateway = socket_address(gateway.unwrap_or(everything));
        route.rt_genmask = socket_address(host.map_or(everything, |_| Ipv4Addr::BROADCAST));
        route.rt_flags = libc::RTF_UP;
        if host.is_some() {
            route.rt_flags |= libc::RTF_HOST;
        }
        if gateway.is_some() {
            route.rt_flags |= libc::RTF_GATEWAY;
        }
        route.rt_dev = name.as_ptr().cast_mut();
        match self.call(libc::SIOCADDRT, &mut route) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// The interface's address, if it has one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self, name: &str) -> io::Result<Option<Ipv4Addr>> {
        let mut request = request(name)?;
        match self.call(libc::SIOCGIFADDR, &mut request) {
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(None),
            done => done?,
        }
        // SAFETY: SIOCGIFADDR has filled in this member of the union.
        let address = unsafe { request.ifr_ifru.ifru_addr };
        let byte = |at: usize| address.sa_data[at + 2].to_ne_bytes()[0];
        Ok(Some(Ipv4Addr::new(byte(0), byte(1), byte(2), byte(3))))
    }

    /// Sets an interface's MAC address.
    ///
    /// # Errors
    /// The kernel's: not every device can while it is up.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut request = request(name)?;
        // SAFETY: all bytes zero is a valid value of this plain C structure.
        let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
        address.sa_family = libc::ARPHRD_ETHER;
        for (place, byte) in address.sa_data.iter_mut().zip(mac) {
            *place = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.call(libc::SIOCSIFHWADDR, &mut request)
    }

    /// Gives an interface its address, and a way to all others.
    ///
    /// # Errors
    /// The kernel's.
    pub fn configure(
        &self,
        name: &str,
        address: Ipv4Addr,
        netmask: Ipv4Addr,
        gateway: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        self.set_address(name, address)?;
        self.set_netmask(name, netmask)?;
        self.up(name)?;
        if let Some(gateway) = gateway {
            if address & netmask != gateway & netmask {
                self.add_route(name, Some(gateway), None)?;
            }
            self.add_route(name, None, Some(gateway))?;
        }
        Ok(())
    }

    fn call<T>(&self, operation: libc::Ioctl, argument: &mut T) -> io::Result<()> {
        // SAFETY: the callers pair each operation with the structure that it reads and writes,
        // which is borrowed for the time of the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), operation, argument) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all bytes zero is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is too long for an interface's name"),
        ));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all bytes zero is a valid value of this plain C structure.
    let mut result: libc::sockaddr = unsafe { std::mem::zeroed() };
    result.sa_family = libc::AF_INET as libc::sa_family_t;
    // As in sockaddr_in: two bytes of port, then the address in network order.
    for (place, byte) in result.sa_data[2..].iter_mut().zip(address.octets()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    result
}
