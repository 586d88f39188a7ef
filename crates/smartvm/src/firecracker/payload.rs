//! The requests that configure a Firecracker, typed as its API has them, for the version
//! that runs.

use serde::Serialize;

use super::Version;
use super::client::{Method, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{
    CacheType, Drive, HugePages, MicroVmSpec, MmdsVersion, RateLimiter, TokenBucket,
};

/// Where Firecracker finds a spec's files, seen from its working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paths {
    /// The kernel image.
    pub kernel: String,
    /// The initramfs, where there is one.
    pub initrd: Option<String>,
    /// The drives' files or sockets, in the spec's order.
    pub drives: Vec<String>,
    /// The vsock device's socket, where there is one.
    pub vsock: Option<String>,
    /// What the serial console's output is written to, where it isn't Firecracker's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

#[derive(Serialize)]
struct BootSourceBody<'a> {
    kernel_image_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_args: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<&'a str>,
}

#[derive(Serialize)]
struct MachineConfigBody<'a> {
    vcpu_count: u8,
    mem_size_mib: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    smt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_template: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    track_dirty_pages: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    huge_pages: Option<HugePages>,
}

#[derive(Serialize)]
struct DriveBody<'a> {
    drive_id: &'a str,
    is_root_device: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_on_host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_read_only: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partuuid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_type: Option<CacheType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiterBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io_engine: Option<&'a str>,
}

#[derive(Serialize)]
struct NetworkInterfaceBody<'a> {
    iface_id: &'a str,
    host_dev_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_mac: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rx_rate_limiter: Option<RateLimiterBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_rate_limiter: Option<RateLimiterBody>,
}

#[derive(Serialize)]
struct RateLimiterBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<TokenBucketBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<TokenBucketBody>,
}

#[derive(Serialize)]
struct TokenBucketBody {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_burst: Option<u64>,
    refill_time: u64,
}

#[derive(Serialize)]
struct VsockBody<'a> {
    guest_cid: u32,
    uds_path: &'a str,
}

#[derive(Serialize)]
struct BalloonBody {
    amount_mib: u64,
    deflate_on_oom: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats_polling_interval_s: Option<u64>,
}

#[derive(Serialize)]
struct MmdsConfigBody<'a> {
    version: MmdsVersion,
    network_interfaces: &'a [String],
}

#[derive(Serialize)]
struct EntropyBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiterBody>,
}

#[derive(Serialize)]
struct SerialBody<'a> {
    serial_out_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<TokenBucketBody>,
}

impl From<&TokenBucket> for TokenBucketBody {
    fn from(bucket: &TokenBucket) -> Self {
        Self {
            size: bucket.size,
            one_time_burst: bucket.one_time_burst,
            refill_time: bucket.refill_time,
        }
    }
}

impl From<&RateLimiter> for RateLimiterBody {
    fn from(limiter: &RateLimiter) -> Self {
        Self {
            bandwidth: limiter.bandwidth.as_ref().map(Into::into),
            ops: limiter.ops.as_ref().map(Into::into),
        }
    }
}

/// What a spec needs that this version of Firecracker doesn't have.
///
/// # Errors
/// [`ErrorKind::Host`], naming the field and the version that has it.
pub fn refuse_unknown_to(version: Version, spec: &MicroVmSpec) -> Result<()> {
    let serial_limited = spec
        .serial
        .as_ref()
        .is_some_and(|s| s.rate_limiter.is_some());
    let needs: [(&str, bool, Version); 3] = [
        ("serial", spec.serial.is_some(), Version::new(1, 14, 0)),
        ("serial.rateLimiter", serial_limited, Version::new(1, 16, 0)),
        ("entropy", spec.entropy.is_some(), Version::new(1, 4, 0)),
    ];
    for (field, asked, since) in needs {
        if asked && version < since {
            return Err(Error::new(
                ErrorKind::Host,
                format!("{field} is unknown to Firecracker {version}"),
            )
            .hint(format!(
                "use Firecracker {since} or newer, or leave {field} out"
            )));
        }
    }
    Ok(())
}

/// Everything to be sent before `InstanceStart`, in order. The interfaces' TAPs must be
/// known by now.
pub fn configuration(spec: &MicroVmSpec, paths: &Paths, version: Version) -> Result<Vec<Request>> {
    refuse_unknown_to(version, spec)?;
    let mut requests = vec![
        machine_config(spec)?,
        put(
            "/boot-source",
            &BootSourceBody {
                kernel_image_path: &paths.kernel,
                boot_args: spec.boot_source.boot_args.as_deref(),
                initrd_path: paths.initrd.as_deref(),
            },
        )?,
    ];
    for (drive, path) in spec.drives.iter().zip(&paths.drives) {
        requests.push(put(
            format!("/drives/{}", drive.drive_id),
            &drive_body(drive, path),
        )?);
    }
    for interface in &spec.network_interfaces {
        let Some(tap) = &interface.host_dev_name else {
            return Err(Error::new(
                ErrorKind::Host,
                format!("network interface {} has no TAP device", interface.iface_id),
            )
            .hint("name an existing TAP device in hostDevName"));
        };
        requests.push(put(
            format!("/network-interfaces/{}", interface.iface_id),
            &NetworkInterfaceBody {
                iface_id: &interface.iface_id,
                host_dev_name: tap,
                guest_mac: interface.guest_mac.as_deref(),
                rx_rate_limiter: interface.rx_rate_limiter.as_ref().map(Into::into),
                tx_rate_limiter: interface.tx_rate_limiter.as_ref().map(Into::into),
            },
        )?);
    }
    if let (Some(vsock), Some(path)) = (&spec.vsock, &paths.vsock) {
        requests.push(put(
            "/vsock",
            &VsockBody {
                guest_cid: vsock.guest_cid,
                uds_path: path,
            },
        )?);
    }
    requests.extend(more_devices(spec, paths)?);
    Ok(requests)
}

fn machine_config(spec: &MicroVmSpec) -> Result<Request> {
    let machine = &spec.machine_config;
    put(
        "/machine-config",
        &MachineConfigBody {
            vcpu_count: machine.vcpu_count,
            mem_size_mib: machine.mem_size_mib,
            smt: machine.smt,
            cpu_template: machine.cpu_template.as_deref(),
            track_dirty_pages: machine.track_dirty_pages,
            huge_pages: machine.huge_pages,
        },
    )
}

fn drive_body<'a>(drive: &'a Drive, path: &'a str) -> DriveBody<'a> {
    let vhost_user = drive.socket.is_some();
    DriveBody {
        drive_id: &drive.drive_id,
        is_root_device: drive.is_root_device,
        path_on_host: (!vhost_user).then_some(path),
        socket: vhost_user.then_some(path),
        // A vhost-user device takes none of the file's settings; elsewhere Firecracker
        // requires this one.
        is_read_only: (!vhost_user).then_some(drive.read_only()),
        partuuid: drive.part_uuid.as_deref(),
        cache_type: drive.cache_type,
        rate_limiter: drive.rate_limiter.as_ref().map(Into::into),
        io_engine: drive.io_engine.as_deref(),
    }
}

fn more_devices(spec: &MicroVmSpec, paths: &Paths) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    if let Some(balloon) = &spec.balloon {
        requests.push(put(
            "/balloon",
            &BalloonBody {
                amount_mib: balloon.amount_mib,
                deflate_on_oom: balloon.deflate_on_oom,
                stats_polling_interval_s: balloon.stats_polling_interval_s,
            },
        )?);
    }
    if let Some(entropy) = &spec.entropy {
        let rate_limiter = entropy.rate_limiter.as_ref().map(Into::into);
        requests.push(put("/entropy", &EntropyBody { rate_limiter })?);
    }
    if let Some(mmds) = &spec.mmds {
        requests.push(put(
            "/mmds/config",
            &MmdsConfigBody {
                // Firecracker's own default is V1, which it deprecates.
                version: mmds.version.unwrap_or_default(),
                network_interfaces: &mmds.network_interfaces,
            },
        )?);
    }
    if let Some(metadata) = &spec.metadata {
        requests.push(put("/mmds", metadata)?);
    }
    if let (Some(serial), Some(path)) = (&spec.serial, &paths.serial) {
        if serial.path.to_str().is_none() {
            let message = "serial.path is not UTF-8";
            return Err(Error::new(ErrorKind::Invalid, message).at(&serial.path));
        }
        requests.push(put(
            "/serial",
            &SerialBody {
                serial_out_path: path,
                rate_limiter: serial.rate_limiter.as_ref().map(Into::into),
            },
        )?);
    }
    Ok(requests)
}

fn put(path: impl Into<String>, body: &impl Serialize) -> Result<Request> {
    Request::new(Method::Put, path, body)
}
