//! A guest whose parts stand on other ground: its root is a partition, a drive is another
//! process's, its memory is huge pages, and what it prints goes to pipes that nobody empties.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::tap::Tap;
use super::{file, metadata};
use crate::support::{Ground, boot_source, image_file, until};

const MEMORY_MIB: u64 = 128;
const SIGNATURE: u32 = 0x5eed_cafe;
/// Where the partition begins, in sectors of 512 bytes.
const FIRST: u32 = 2048;

const METADATA: metadata::Service = metadata::Service {
    version: metadata::Version::V1,
    address: "169.254.170.2",
};

/// The image's root as the first partition of a disk.
fn partitioned(path: PathBuf) -> PathBuf {
    let root = std::fs::read(image_file("rootfs")).unwrap();
    let sectors = u32::try_from(root.len() / 512).unwrap();
    let mut table = [0; 512];
    table[440..444].copy_from_slice(&SIGNATURE.to_le_bytes());
    table[446 + 4] = 0x83;
    table[446 + 8..446 + 12].copy_from_slice(&FIRST.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut disk = File::create(&path).unwrap();
    disk.write_all(&table).unwrap();
    disk.seek(SeekFrom::Start(512 * u64::from(FIRST))).unwrap();
    disk.write_all(&root).unwrap();
    path
}

/// QEMU's process behind a vhost-user drive; ends with its test.
struct Backend {
    process: Child,
    socket: PathBuf,
}

impl Backend {
    fn start(dir: &Path, content: &[u8]) -> Self {
        let socket = dir.join("backend.sock");
        let disk = file(dir.join("behind"), content, 1 << 20);
        let process = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=disk,filename={}",
                disk.display()
            ))
            .arg("--export")
            .arg(format!(
                "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,\
                 addr.path={}",
                socket.display()
            ))
            .spawn()
            .expect("qemu-storage-daemon is in Debian's qemu-system-common");
        let backend = Self { process, socket };
        until("the backend's socket", || backend.socket.exists());
        // A jailed guest's user, too.
        let everybody = Permissions::from_mode(0o666);
        std::fs::set_permissions(&backend.socket, everybody).unwrap();
        backend
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A pipe as small as can be, with a reader that doesn't read.
fn lagging(path: PathBuf) -> (PathBuf, File) {
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(&path)
        .unwrap();
    rustix::pipe::fcntl_setpipe_size(&reader, 4096).unwrap();
    (path, reader)
}

/// Huge pages of this host's, given back at the end. One test has them at a time.
struct Pool {
    before: String,
    _alone: MutexGuard<'static, ()>,
}

static POOL_IN_USE: Mutex<()> = Mutex::new(());

const POOL: &str = "/proc/sys/vm/nr_hugepages";

impl Pool {
    fn take(pages: u64) -> Self {
        let alone = POOL_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::fs::read_to_string(POOL).unwrap();
        let pages = before.trim().parse::<u64>().unwrap() + pages;
        std::fs::write(POOL, pages.to_string()).unwrap();
        Self {
            before,
            _alone: alone,
        }
    }

    fn free() -> u64 {
        let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        std::fs::read_to_string(pool)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _as_before = std::fs::write(POOL, &self.before);
    }
}

fn spec(
    ground: Ground,
    tap: &Tap,
    disk: &Path,
    socket: &Path,
    [log, metrics, console]: [&Path; 3],
) -> Value {
    json!({
        "id": ground.id("backing"),
        "jail": { "mode": ground.mode() },
        "bootSource": boot_source("smartvm.init=agent"),
        "machineConfig": { "vcpuCount": 1, "memSizeMib": MEMORY_MIB, "hugePages": "2M" },
        "drives": [
            {
                "driveId": "root", "pathOnHost": disk, "isRootDevice": true,
                "partUuid": format!("{SIGNATURE:08x}-01"),
            },
            { "driveId": "behind", "socket": socket, "isRootDevice": false },
        ],
        "networkInterfaces": [
            { "ifaceId": "eth0", "hostDevName": tap.name, "guestMac": tap.mac },
        ],
        "mmds": {
            "version": "V1", "networkInterfaces": ["eth0"], "ipv4Address": METADATA.address,
        },
        "metadata": { "role": "web" },
        "logger": { "logPath": log, "level": "Debug", "showLevel": true },
        "metrics": { "metricsPath": metrics },
        "serial": { "path": console },
    })
}

#[test]
fn a_guest_stands_on_a_partition_a_backend_huge_pages_and_pipes_that_nobody_empties() {
    stands_firmly(Ground::Free);
}

#[test]
fn a_jailed_guest_stands_on_the_same() {
    stands_firmly(Ground::Jailed);
}

fn stands_firmly(ground: Ground) {
    let dir = tempfile::tempdir().unwrap();
    let tap = Tap::make(ground, 2);
    let pool = Pool::take(MEMORY_MIB / 2);
    let free = Pool::free();
    let backend = Backend::start(dir.path(), b"behind the socket");
    let disk = partitioned(dir.path().join("disk"));
    let pipes = ["log", "metrics", "console"].map(|name| lagging(dir.path().join(name)));
    let [log, metrics, console] = &pipes;
    let vm = ground.boot(&spec(
        ground,
        &tap,
        &disk,
        &backend.socket,
        [&log.0, &metrics.0, &console.0],
    ));

    let cmdline = vm.said("cat /proc/cmdline");
    assert!(cmdline.contains("root=PARTUUID=5eedcafe-01"), "{cmdline}");
    assert_eq!(
        vm.said("sed -n 's/^\\(.*\\) \\/ .*/\\1/p' /proc/mounts"),
        "/dev/vda1"
    );

    assert_eq!(vm.said("head -c 17 /dev/vdb"), "behind the socket");
    vm.said("printf 'from the guest' | dd of=/dev/vdb conv=fsync,notrunc 2>&1");
    let behind = std::fs::read(dir.path().join("behind")).unwrap();
    assert!(behind.starts_with(b"from the guest"));

    let used = free - Pool::free();
    assert!(used > 16, "the guest's memory is {used} huge pages");

    vm.said(&format!("ip addr add {} dev eth0", tap.guest));
    metadata::answers_inside(&vm, &METADATA);

    // More than the pipes hold; the guest goes on all the same.
    vm.said("head -c 20000 /dev/zero | tr '\\0' x > /dev/ttyS0");
    for (path, mut reader) in pipes {
        let mut held = [0; 8192];
        let read = reader.read(&mut held).unwrap();
        assert!(
            (1..=4096).contains(&read),
            "{}: {read} bytes",
            path.display()
        );
    }
    assert_eq!(vm.said("echo alive"), "alive");
    drop(vm);
    until("the huge pages' return", || Pool::free() == free);
    drop(pool);
}
