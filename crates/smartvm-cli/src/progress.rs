//! Bars for whoever waits, on a terminal only.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressStyle};
use smartvm::storage::{download, image};

use crate::output;

/// Shows downloads: a bar on a terminal, lines elsewhere.
pub(crate) fn downloads() -> download::Tell {
    let bar: Mutex<Option<ProgressBar>> = Mutex::new(None);
    Arc::new(move |event| {
        // A panic elsewhere doesn't make a bar unusable.
        let mut bar = bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        show(&mut bar, event);
    })
}

/// Shows what happens while an image is made available.
pub(crate) fn images() -> image::Tell {
    let downloads = downloads();
    Arc::new(move |event| {
        if let image::Event::Download(event) = event {
            downloads(event);
        }
    })
}

fn show(bar: &mut Option<ProgressBar>, event: download::Event) {
    match event {
        download::Event::Waiting => output::note("another smartvm fetches it: waiting"),
        download::Event::Began {
            url,
            total,
            resumed_at,
        } => {
            if output::quiet() || !std::io::stderr().is_terminal() {
                return output::note(format_args!("downloading {url}"));
            }
            let new = bar.take().unwrap_or_else(|| ProgressBar::new(0));
            new.set_style(style(total.is_some()));
            new.set_length(total.unwrap_or(0));
            new.set_position(resumed_at);
            new.reset_eta();
            new.set_message(url.rsplit('/').next().unwrap_or_default().to_owned());
            *bar = Some(new);
        }
        download::Event::At(bytes) => {
            if let Some(bar) = bar {
                bar.set_position(bytes);
            }
        }
        download::Event::Retry { why, pause } => {
            let text = format!("{why}; again in {:.1} s", pause.as_secs_f32());
            match bar {
                Some(bar) => bar.suspend(|| output::note(text)),
                None => output::note(text),
            }
        }
        _ => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
        }
    }
}

fn style(with_end: bool) -> ProgressStyle {
    let template = if with_end {
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
