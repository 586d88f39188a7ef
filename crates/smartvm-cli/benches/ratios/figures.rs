//! What was measured: pairs in turn, their medians and their spread.

use std::time::{Duration, Instant};

/// The longest tick of a kernel's timer.
const TICK: Duration = Duration::from_millis(10);
/// Its multiples' fractions are spread evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Median and quartiles of what was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Summary {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * (values.len() - 1) as f64;
            let (below, above) = (
                values[place.floor() as usize],
                values[place.ceil() as usize],
            );
            below + (above - below) * place.fract()
        };
        Self {
            lower: at(0.25),
            median: at(0.5),
            upper: at(0.75),
        }
    }
}

/// The figures of a row.
#[derive(Debug)]
pub(crate) enum Figures {
    /// Ours (A) against the floor (B), in milliseconds, and the pairs' ratios.
    Ratio {
        ours: Summary,
        floor: Summary,
        ratio: Summary,
    },
    /// One quantity.
    Amount { amount: Summary, unit: &'static str },
}

impl Figures {
    /// Measures both sides in turn. Each returns what it took, so that what isn't to be
    /// measured (preparing, cleaning up) can be left out. The first pair only warms up.
    ///
    /// KVM waits for the kernel's grace periods, which end at ticks of its timer: whoever
    /// begins at the same moment of a tick each time measures the tick. So each begins at
    /// another.
    pub(crate) fn pairs(
        pairs: usize,
        mut ours: impl FnMut() -> Duration,
        mut floor: impl FnMut() -> Duration,
    ) -> Self {
        let mut measured = Vec::with_capacity(pairs);
        for pair in 0..=pairs {
            let moment = TICK.mul_f64((pair as f64 * GOLDEN).fract());
            let mut ours = || {
                std::thread::sleep(moment);
                ours()
            };
            let mut floor = || {
                std::thread::sleep(moment);
                floor()
            };
            // Whoever goes first may find warmer or colder caches: in turn, too.
            let (a, b) = if pair % 2 == 0 {
                let a = ours();
                (a, floor())
            } else {
                let b = floor();
                (ours(), b)
            };
            if pair > 0 {
                measured.push((milliseconds(a), milliseconds(b)));
            }
        }
        let column = |of: fn(&(f64, f64)) -> f64| Summary::of(measured.iter().map(of).collect());
        Self::Ratio {
            ours: column(|pair| pair.0),
            floor: column(|pair| pair.1),
            ratio: column(|pair| pair.0 / pair.1),
        }
    }

    /// Measures one quantity so many times, after one time that only warms up.
    pub(crate) fn amounts(times: usize, unit: &'static str, mut one: impl FnMut() -> f64) -> Self {
        one();
        Self::Amount {
            amount: Summary::of((0..times).map(|_| one()).collect()),
            unit,
        }
    }

    /// What is compared with the target: the median.
    pub(crate) fn judged(&self) -> f64 {
        match self {
            Self::Ratio { ratio, .. } => ratio.median,
            Self::Amount { amount, .. } => amount.median,
        }
    }
}

/// What a piece of work takes, and what it returns.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = Instant::now();
    let done = work();
    (begin.elapsed(), done)
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
