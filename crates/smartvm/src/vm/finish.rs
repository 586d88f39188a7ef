//! What was begun is brought to its end: what Firecracker did is to be written down, also where
//! nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Does this work, on the spot. If what this returns is dropped before its end, after it was
/// polled once, the work goes on as a task of its own.
pub(super) fn even_if_dropped<W>(work: W) -> impl Future<Output = W::Output>
where
    W: Future<Output: Send> + Send + 'static,
{
    Finishing {
        work: Some(Box::pin(work)),
        runtime: None,
    }
}

struct Finishing<W: Future<Output: Send> + Send + 'static> {
    /// None once it has ended.
    work: Option<Pin<Box<W>>>,
    /// Where it was begun.
    runtime: Option<Handle>,
}

impl<W: Future<Output: Send> + Send + 'static> Future for Finishing<W> {
    type Output = W::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<W::Output> {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<W: Future<Output: Send> + Send + 'static> Drop for Finishing<W> {
    fn drop(&mut self) {
        if let (Some(work), Some(runtime)) = (self.work.take(), &self.runtime) {
            // Nobody is left to be told how it ended.
            drop(runtime.spawn(work));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Work that waits for a word, and tells that it had it.
    fn work() -> (
        oneshot::Sender<u8>,
        impl Future<Output = ()> + Send,
        oneshot::Receiver<u8>,
    ) {
        let (go, gone) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let work = async move { tell.send(gone.await.unwrap()).unwrap() };
        (go, work, told)
    }

    fn poll_once(future: Pin<&mut impl Future>) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        future.poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn work_that_was_begun_ends_though_it_is_dropped() {
        let (go, work, told) = work();
        let mut begun = Box::pin(even_if_dropped(work));
        assert!(!poll_once(begun.as_mut()));
        drop(begun);
        go.send(7).unwrap();
        assert_eq!(told.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_that_was_not_begun_never_is() {
        let (go, work, told) = work();
        drop(even_if_dropped(work));
        go.send(7).unwrap_err();
        told.await.unwrap_err();
    }

    #[tokio::test]
    async fn work_that_is_waited_for_ends_on_the_spot() {
        let (go, work, told) = work();
        let mut begun = Box::pin(even_if_dropped(work));
        assert!(!poll_once(begun.as_mut()));
        go.send(7).unwrap();
        assert!(poll_once(begun.as_mut()));
        drop(begun);
        assert_eq!(told.await.unwrap(), 7);
    }
}
