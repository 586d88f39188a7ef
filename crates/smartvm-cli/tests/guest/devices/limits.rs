//! Rate limiters: a limit of L and one of 4L, and none.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::tap::{BYTES, Tap};
use super::{SLOW, update};
use crate::support::Vm;

/// A limit of so many bytes a second. The bucket holds more than any single request or packet
/// has, which Firecracker would let pass early, and little beside what is measured.
pub(super) fn limit(bytes: u64) -> Value {
    json!({ "bandwidth": { "size": bytes / 5, "refillTime": 200 } })
}

/// What is measured: its name here, and the command. Drives are read in blocks of so many KiB,
/// 48 of them; [`BYTES`] go over the network.
fn work(taps: &[Tap; 2], block: u32) -> [(&'static str, String); 6] {
    let blocks = BYTES >> 16;
    // Few and large requests: what the guest itself needs for them is little beside the limits.
    let read = |drive: &str| {
        format!("dd if=/dev/{drive} of=/dev/null bs={block}k count={blocks} iflag=direct")
    };
    let receive = |tap: &Tap| format!("nc {} 1 -e dd of=/dev/null bs=64k", tap.host);
    // What is sent is there when the host has said so.
    let send = |tap: &Tap| {
        let send = format!("dd if=/dev/zero bs=64k count={blocks}; head -c 1");
        format!("nc {} 2 -e sh -c '{send}'", tap.host)
    };
    [
        ("data", read("vdb")),
        ("quick", read("vdc")),
        ("rx0", receive(&taps[0])),
        ("rx1", receive(&taps[1])),
        ("tx0", send(&taps[0])),
        ("tx1", send(&taps[1])),
    ]
}

/// How many seconds each takes in the guest: drives and reception at the same time, since those
/// that wait for their limits don't hinder each other; what is sent after that, since the
/// answers to it would wait behind what is received.
fn seconds_of_all(vm: &Vm, work: &[(&str, String); 6]) -> BTreeMap<String, f64> {
    let (first, then) = work.split_at(4);
    let mut all = seconds(vm, first);
    all.extend(seconds(vm, then));
    all
}

/// How many seconds each takes in the guest, all at the same time.
fn seconds(vm: &Vm, work: &[(&str, String)]) -> BTreeMap<String, f64> {
    let mut script = String::new();
    for (name, command) in work {
        let timed = format!(
            "(read a b < /proc/uptime; {command} > /dev/null 2>&1; read c d < /proc/uptime; \
             echo {name} $a $c > /tmp/{name}) &\n"
        );
        script.push_str(&timed);
    }
    script.push_str("wait\n");
    for (name, _) in work {
        script.push_str(&format!("cat /tmp/{name}\n"));
    }
    let told = vm.said(&script);
    let lines = told.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let time = |word: usize| words[word].parse::<f64>().unwrap();
        (words[0].to_owned(), time(2) - time(1))
    });
    lines.collect()
}

/// Three of slow and quick limits, by the names of what is measured.
type Pairs = [(&'static str, &'static str); 3];

/// How often it is measured until the times are those of the limits: on a busy machine the
/// guest itself may take longer than they let it.
const ATTEMPTS: usize = 6;

/// The limited ones take their time in the ratio of their limits; returns how long that is.
fn assert_ratios(
    when: &str,
    vm: &Vm,
    work: &[(&'static str, String); 6],
    pairs: Pairs,
) -> BTreeMap<String, f64> {
    let mut best: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        for (name, taken) in seconds_of_all(vm, work) {
            let least = best.entry(name).or_insert(f64::MAX);
            *least = least.min(taken);
        }
        let ratio = |(slow, quick): &(&str, &str)| best[*slow] / best[*quick];
        if pairs.iter().all(|pair| (3.0..=5.0).contains(&ratio(pair))) {
            return best;
        }
    }
    panic!("{when}, not in the ratio of 3 to 5: {pairs:?} {best:?}");
}

/// One guest at a time is measured: two would take each other's time.
static MEASURING: Mutex<()> = Mutex::new(());

pub(super) fn from_the_start_and_changed(vm: &Vm, taps: &[Tap; 2]) {
    let _alone = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    for (tap, interface) in taps.iter().zip(["eth0", "eth1"]) {
        tap.serve();
        let guest = &tap.guest;
        vm.said(&format!(
            "ip addr add {guest} dev {interface}; ip link set {interface} up"
        ));
    }
    // More than a page may be more than one operation.
    let (large, pages) = (work(taps, 64), work(taps, 4));
    let pairs = [("data", "quick"), ("rx0", "rx1"), ("tx1", "tx0")];
    assert_ratios("limited from the start", vm, &large, pairs);

    // The other way round, and the drives by operations: in small buckets, since the first one is
    // free, and by multiples of the 100 ms after which Firecracker looks again.
    let bytes = |limit: u64| format!("bandwidth:{}/200", limit / 5);
    let (slow, quick) = (bytes(SLOW), bytes(4 * SLOW));
    update(
        vm,
        &[
            "--limit-drive",
            "data=ops:4/200",
            "--limit-drive",
            "quick=ops:1/200",
        ],
    );
    update(
        vm,
        &[
            "--limit-rx",
            &format!("eth0={quick}"),
            "--limit-rx",
            &format!("eth1={slow}"),
            "--limit-tx",
            &format!("eth0={slow}"),
            "--limit-tx",
            &format!("eth1={quick}"),
        ],
    );
    let swapped = pairs.map(|(slow, quick)| (quick, slow));
    let limited = assert_ratios("limited anew", vm, &pages, swapped);

    // All of them slow, so that what is free is told apart on a busy machine, too; then none.
    for [drive, rx, tx] in [
        [
            "data=ops:1/200",
            &format!("eth0={slow}"),
            &format!("eth1={slow}"),
        ],
        ["data=none", "eth0=none", "eth1=none"],
        ["quick=none", "eth1=none", "eth0=none"],
    ] {
        let change = ["--limit-drive", drive, "--limit-rx", rx, "--limit-tx", tx];
        update(vm, &change);
    }
    for (slow, quick) in swapped {
        let limited = limited[slow];
        for one in large.iter().filter(|one| [slow, quick].contains(&one.0)) {
            let free = |_| seconds(vm, std::slice::from_ref(one))[one.0];
            let free = (0..ATTEMPTS).map(free).find(|free| *free < limited / 2.0);
            assert!(
                free.is_some(),
                "{}: {limited} s limited, and free no less",
                one.0
            );
        }
    }
}
