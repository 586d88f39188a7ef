//! What comes from the network, as it comes: bars on a terminal, lines elsewhere, and with
//! `--json` a line of JSON for each event.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use smartvm::storage::oci::registry;
use smartvm::storage::{download, image};

use crate::output;

/// How often the bytes that came are told as JSON.
const PACE: Duration = Duration::from_millis(200);

/// Shows downloads.
pub(crate) fn downloads() -> download::Tell {
    let shown = Mutex::new(Shown::default());
    Arc::new(move |event| tell(&shown, "", event))
}

/// Shows the layers of an image: a bar for each.
pub(crate) fn layers() -> registry::Tell {
    let shown = Mutex::new(Shown::default());
    Arc::new(move |event| {
        if let registry::Event::Layer { digest, event } = event {
            tell(&shown, &digest, event);
        }
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

fn tell(shown: &Mutex<Shown>, layer: &str, event: download::Event) {
    // A panic elsewhere doesn't make a bar unusable.
    let mut shown = shown
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if output::json() {
        return shown.as_json(layer, event);
    }
    shown.show(layer, event);
}

/// What is shown at the moment, each by the layer that it is of; a single file has none.
#[derive(Default)]
struct Shown {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
    told: HashMap<String, Instant>,
}

impl Shown {
    fn show(&mut self, layer: &str, event: download::Event) {
        let bar = self.bars.get(layer);
        match event {
            download::Event::Waiting => {
                self.note("another smartvm fetches it: waiting");
            }
            download::Event::Began {
                url,
                total,
                resumed_at,
            } => {
                if output::quiet() || !std::io::stderr().is_terminal() {
                    return output::note(format_args!("downloading {url}"));
                }
                let new = match self.bars.remove(layer) {
                    Some(bar) => bar,
                    None => self.all.add(ProgressBar::new(0)),
                };
                new.set_style(style(total.is_some()));
                // First, as what follows may be drawn at once.
                new.set_message(short(layer, &url));
                new.set_length(total.unwrap_or(0));
                new.set_position(resumed_at);
                new.reset_eta();
                self.bars.insert(layer.to_owned(), new);
            }
            download::Event::At(bytes) => {
                if let Some(bar) = bar {
                    bar.set_position(bytes);
                }
            }
            download::Event::Retry { why, pause } => {
                self.note(&format!("{why}; again in {:.1} s", pause.as_secs_f32()));
            }
            _ => {
                if let Some(bar) = self.bars.remove(layer) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
        }
    }

    fn note(&self, text: &str) {
        self.all.suspend(|| output::note(text));
    }

    fn as_json(&mut self, layer: &str, event: download::Event) {
        let mut value = match event {
            download::Event::Waiting => json!({ "event": "waiting" }),
            download::Event::Began {
                url,
                total,
                resumed_at,
            } => json!({ "event": "began", "url": url, "total": total, "at": resumed_at }),
            download::Event::At(bytes) => {
                let now = Instant::now();
                let told = self.told.get(layer);
                if told.is_some_and(|told| now.duration_since(*told) < PACE) {
                    return;
                }
                self.told.insert(layer.to_owned(), now);
                json!({ "event": "at", "at": bytes })
            }
            download::Event::Retry { why, pause } => {
                json!({ "event": "retry", "why": why, "pauseMs": pause.as_millis() as u64 })
            }
            download::Event::Done => json!({ "event": "done" }),
            _ => return,
        };
        if let Some(fields) = value.as_object_mut().filter(|_| !layer.is_empty()) {
            fields.insert("layer".into(), json!(layer));
        }
        output::event(&json!({ "progress": value }));
    }
}

/// What stands before a bar.
fn short(layer: &str, url: &str) -> String {
    match layer.strip_prefix("sha256:") {
        Some(hex) => format!("layer {}", hex.get(..12).unwrap_or(hex)),
        None => url.rsplit('/').next().unwrap_or_default().to_owned(),
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
