//! `/network-interfaces/{id}`: PUT before boot, PATCH after it.

use serde::Serialize;

use super::RateLimiterBody;
use crate::error::{Error, ErrorKind, Result};
use crate::firecracker::client::{Method, Request};
use crate::spec::NetworkInterface;

/// A network interface.
#[derive(Debug, Serialize)]
pub struct NetworkInterfaceBody<'a> {
    iface_id: &'a str,
    host_dev_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_mac: Option<&'a str>,
    // Since 1.16.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_rate_limiter: Option<RateLimiterBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_rate_limiter: Option<RateLimiterBody>,
}

impl<'a> NetworkInterfaceBody<'a> {
    /// The interface, whose TAP must be known by now.
    pub(super) fn new(interface: &'a NetworkInterface) -> Result<Self> {
        let tap = interface.host_dev_name.as_deref().ok_or_else(|| {
            let message = format!("network interface {} has no TAP device", interface.iface_id);
            Error::new(ErrorKind::Host, message).hint("name an existing TAP device in hostDevName")
        })?;
        Ok(Self {
            iface_id: &interface.iface_id,
            host_dev_name: tap,
            guest_mac: interface.guest_mac.as_deref(),
            mtu: interface.mtu,
            rx_rate_limiter: interface.rx_rate_limiter.as_ref().map(Into::into),
            tx_rate_limiter: interface.tx_rate_limiter.as_ref().map(Into::into),
        })
    }

    pub(super) fn request(&self) -> Result<Request> {
        let path = format!("/network-interfaces/{}", self.iface_id);
        Request::new(Method::Put, path, self)
    }
}

/// A change of a network interface's limits while its guest runs.
#[derive(Debug, Serialize)]
pub struct NetworkInterfaceUpdate<'a> {
    /// The interface.
    pub iface_id: &'a str,
    /// On what the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiterBody>,
    /// On what the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiterBody>,
}

impl NetworkInterfaceUpdate<'_> {
    /// The request.
    pub fn request(&self) -> Result<Request> {
        let path = format!("/network-interfaces/{}", self.iface_id);
        Request::new(Method::Patch, path, self)
    }
}
