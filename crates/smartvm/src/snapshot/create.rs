//! Making a snapshot, in two parts: with the VM's lock until the VM runs on (see `capture`), then
//! without it: checksums, manifest, names.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::capture::Captured;
use super::manifest::Parent;
use super::options::{Moment, SnapshotOptions};
use super::place::Place;
use super::{Snapshot, claim};
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::spec::{SnapshotCreateParams, SnapshotType};
use crate::validate::validate_snapshot_create;
use crate::vm::{CancelOnDrop, MicroVm, blocking};

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the snapshot was cancelled")
}

impl MicroVm {
    /// Makes a snapshot of it, at the paths given. A running VM is paused while its state, its
    /// memory and its drives are written; while checksums are computed, it runs on and may be
    /// worked with, or end. If anything fails, or this future is dropped, what was made is
    /// removed and the VM runs on.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] for a VM that neither runs nor is paused, files that are there
    /// already, and a diff without something to build on.
    pub async fn snapshot(
        &self,
        params: &SnapshotCreateParams,
        options: &SnapshotOptions,
    ) -> Result<Snapshot> {
        validate_snapshot_create(params).map_err(Error::from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&stop));
        let making = Making {
            vm: self.another(),
            id: random::uuid()?.to_string(),
            place: Place::new(&params.snapshot_path, &params.mem_file_path)?,
            kind: params.snapshot_type.unwrap_or_default(),
            options: options.clone(),
            stop,
        };
        // A task of its own: if this future is dropped, that one still cleans up.
        match tokio::spawn(making.run()).await {
            Ok(done) => done,
            Err(e) => Err(Error::new(ErrorKind::Io, "making a snapshot failed").because(e)),
        }
    }
}

/// A snapshot in the making.
pub(super) struct Making {
    pub(super) vm: MicroVm,
    pub(super) id: String,
    pub(super) place: Place,
    pub(super) kind: SnapshotType,
    pub(super) options: SnapshotOptions,
    pub(super) stop: Arc<AtomicBool>,
}

impl Making {
    async fn run(self) -> Result<Snapshot> {
        let captured = self.capture().await;
        let made = match captured {
            Ok(captured) => self.finish(captured).await,
            Err(failure) => Err(failure),
        };
        let (place, shelf) = (self.place.clone(), self.vm.shelf.clone());
        let failure = match made {
            Ok(()) => return blocking(move || Snapshot::open(&place)).await,
            Err(failure) => failure,
        };
        let forgotten = blocking(move || shelf.forget(&place)).await;
        Err(failure.with_cleanup(forgotten.err()))
    }

    /// From what was captured to a snapshot that is whole. Its VM is none of its business any
    /// more: if this process is killed, `gc` finds the rest by its place.
    async fn finish(&self, captured: Captured) -> Result<()> {
        let place = self.place.clone();
        match self.complete(&captured).await {
            Ok(()) => blocking(move || claim::settle(&place)).await,
            Err(failure) => {
                let undone = blocking(move || {
                    claim::give_back(&place, captured.made_parent, &captured.owner)
                });
                Err(failure.with_cleanup(undone.await.err()))
            }
        }
    }

    async fn complete(&self, captured: &Captured) -> Result<()> {
        if captured.woken && captured.state.agent.is_some() {
            // The snapshot doesn't depend on it.
            if let Err(e) = self.vm.wake_guest(&[]).await {
                tracing::warn!(vm = %self.vm.id(), "after the pause: {e}");
            }
        }
        self.tell(Moment::Resumed)?;
        self.describe(captured).await?;
        self.tell(Moment::Whole)?;
        let place = self.place.clone();
        blocking(move || claim::publish(&place)).await?;
        self.tell(Moment::Published)
    }

    /// The snapshot, as the next diff will name it.
    pub(super) fn as_parent(&self) -> Parent {
        Parent {
            id: self.id.clone(),
            snapshot_path: self.place.state().to_owned(),
            mem_file_path: self.place.memory().to_owned(),
        }
    }

    pub(super) fn tell(&self, moment: Moment) -> Result<()> {
        let stopped = self.stop.load(Ordering::Relaxed);
        let told = self.options.watch.as_ref().map(|watch| watch(moment));
        // Once it is published it is there to stay.
        match (stopped, told) {
            _ if moment == Moment::Published => Ok(()),
            (true, _) | (_, Some(ControlFlow::Break(()))) => Err(cancelled()),
            _ => Ok(()),
        }
    }
}
