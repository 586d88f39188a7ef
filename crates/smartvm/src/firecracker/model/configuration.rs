//! A whole microVM before its start.

use super::{
    BalloonBody, BootSourceBody, DriveBody, EntropyBody, METADATA, MachineConfigBody,
    MmdsConfigBody, NetworkInterfaceBody, Paths, SerialBody, VsockBody, gate,
};
use crate::error::Result;
use crate::firecracker::Version;
use crate::firecracker::client::{Method, Request};
use crate::spec::MicroVmSpec;

/// Everything to be sent before `InstanceStart`, in order. The interfaces' TAPs must be
/// known by now.
///
/// # Errors
/// What this version doesn't have, and an interface without a TAP.
pub fn configuration(spec: &MicroVmSpec, paths: &Paths, version: Version) -> Result<Vec<Request>> {
    gate::refuse_unknown_to(version, spec)?;
    let mut requests = vec![
        MachineConfigBody::from(&spec.machine_config).request()?,
        BootSourceBody::new(&spec.boot_source, paths).request()?,
    ];
    for (drive, path) in spec.drives.iter().zip(&paths.drives) {
        requests.push(DriveBody::new(drive, path).request()?);
    }
    for interface in &spec.network_interfaces {
        requests.push(NetworkInterfaceBody::new(interface)?.request()?);
    }
    if let (Some(vsock), Some(uds_path)) = (&spec.vsock, &paths.vsock) {
        let guest_cid = vsock.guest_cid;
        requests.push(
            VsockBody {
                guest_cid,
                uds_path,
            }
            .request()?,
        );
    }
    if let Some(balloon) = &spec.balloon {
        requests.push(BalloonBody::from(balloon).request()?);
    }
    if let Some(entropy) = &spec.entropy {
        requests.push(EntropyBody::from(entropy).request()?);
    }
    // After the interfaces that it names.
    if let Some(mmds) = &spec.mmds {
        requests.push(MmdsConfigBody::from(mmds).request()?);
    }
    if let Some(metadata) = &spec.metadata {
        requests.push(Request::new(Method::Put, METADATA, metadata)?);
    }
    if let Some(bucket) = spec
        .serial
        .as_ref()
        .and_then(|serial| serial.rate_limiter.as_ref())
    {
        let rate_limiter = bucket.into();
        requests.push(SerialBody { rate_limiter }.request()?);
    }
    Ok(requests)
}
