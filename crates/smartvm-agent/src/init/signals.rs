//! The signals of process 1, taken one by one instead of interrupting it.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// A set of blocked signals that can be waited for.
pub(crate) struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks these signals, for programs started later too, unless they unblock them.
    pub(crate) fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set; the others are given an initialised
        // set and no place for the old one.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in signals {
                if libc::sigaddset(&mut set, *signal) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(set))
        }
    }

    /// The next of these signals, or None after `patience`.
    pub(crate) fn wait(&self, patience: Duration) -> Option<i32> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(patience.subsec_nanos() as i32),
        };
        // SAFETY: the set and the time live as long as the call, and no details are asked for.
        let signal = unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &timeout) };
        (signal > 0).then_some(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_taken_and_its_absence_times_out() {
        let signals = Signals::block(&[libc::SIGUSR2]).expect("blocked");
        assert_eq!(signals.wait(Duration::from_millis(1)), None);
        // SAFETY: raises a signal that this thread has blocked.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!(signals.wait(Duration::from_secs(10)), Some(libc::SIGUSR2));
    }
}
