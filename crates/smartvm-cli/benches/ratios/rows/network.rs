//! The network of VMs coming and going.

mod commands;
mod ours;
mod raw;

use std::path::Path;
use std::time::Duration;

use rustix::thread::UnshareFlags;

use crate::corner::Corner;
use crate::figures::{Figures, timed};
use crate::lab::move_in;
use crate::row::Row;
use commands::Commands;
use ours::Ours;
use raw::Raw;

/// So many VMs come, and then go.
const MANY: usize = 200;
/// They take seconds: a tenth of the pairs tells enough.
const FEWER: usize = 10;

pub(crate) const ONE: Row = Row {
    name: "network-one",
    about: "lease, TAP and firewall of one more VM, whose start closes the TAP later / the same by \
            raw netlink and ioctl, the TAP closed",
    target: Some(1.2),
    measure: |corner, pairs| one::<Raw>(corner, pairs),
};

pub(crate) const ONE_BY_COMMANDS: Row = Row {
    name: "network-one-cmd",
    about: "the same / TAP and firewall by the commands ip, sysctl and iptables",
    target: Some(0.2),
    measure: |corner, pairs| one::<Commands>(corner, pairs),
};

pub(crate) const MANY_ROW: Row = Row {
    name: "network-many",
    about: "200 VMs' network up, then down at once / the same by raw netlink and ioctl",
    target: Some(1.2),
    measure: |corner, pairs| many::<Raw>(corner, pairs.div_ceil(FEWER)),
};

pub(crate) const MANY_BY_COMMANDS: Row = Row {
    name: "network-many-cmd",
    about: "200 VMs' network up, then down at once / one after the other by the commands ip, sysctl and iptables",
    target: Some(0.2),
    measure: |corner, pairs| many::<Commands>(corner, pairs.div_ceil(FEWER)),
};

/// A way to connect a VM of this number to the bridge, and to disconnect it.
trait Way: Sync {
    /// How VMs go, if many do.
    const GO: Go;

    fn up(&self, number: usize);
    fn down(&self, number: usize);
}

/// The other side of a row.
trait Floor: Way {
    /// Where it may write, and how the names of guests' devices begin.
    fn new(dir: &Path, names: &str) -> Self;
}

enum Go {
    /// Each by itself, as each VM has a keeper.
    AtOnce,
    /// As a script does it.
    InTurn,
}

fn one<F: Floor>(corner: &Corner, pairs: usize) -> Figures {
    fn once(way: &impl Way) -> Duration {
        let took = timed(|| way.up(0)).0;
        way.down(0);
        took
    }
    in_a_namespace(corner, |ours| {
        let floor = F::new(&corner.file("floor"), &ours.names());
        Figures::pairs(pairs, || once(ours), || once(&floor))
    })
}

fn many<F: Floor>(corner: &Corner, pairs: usize) -> Figures {
    fn all<W: Way>(way: &W) -> Duration {
        let up_and_down = || {
            (0..MANY).for_each(|number| way.up(number));
            match W::GO {
                Go::InTurn => (0..MANY).for_each(|number| way.down(number)),
                Go::AtOnce => std::thread::scope(|scope| {
                    for number in 0..MANY {
                        scope.spawn(move || way.down(number));
                    }
                }),
            }
        };
        timed(up_and_down).0
    }
    in_a_namespace(corner, |ours| {
        let floor = F::new(&corner.file("floor"), &ours.names());
        Figures::pairs(pairs, || all(ours), || all(&floor))
    })
}

/// Measures on a thread with a network of its own, which is up.
fn in_a_namespace(corner: &Corner, measure: impl FnOnce(&Ours) -> Figures + Send) -> Figures {
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            move_in(UnshareFlags::NEWNET);
            commands::run("ip link add up0 type veth peer name away");
            commands::run("ip link set up0 up");
            commands::run("ip address add 192.0.2.2/24 dev up0");
            commands::run("ip route add default via 192.0.2.1 dev up0");
            let ours = Ours::new(corner);
            ours.network.up().unwrap();
            let figures = measure(&ours);
            ours.network.down().unwrap();
            figures
        });
        measured.join().unwrap()
    })
}
