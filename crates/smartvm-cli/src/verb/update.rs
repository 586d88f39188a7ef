use std::path::PathBuf;

use clap::Args;
use smartvm::spec::{RateLimiter, TokenBucket};
use smartvm::vm::{Change, Direction};
use smartvm::{Result, SmartVm};

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm update web --swap data=/srv/new.img
  smartvm update web --grow data=2GiB
  smartvm update web --limit-drive data=bandwidth:10MiB/1000,ops:500/1000
  smartvm update web --limit-drive data=none
  smartvm update web --limit-rx eth0=bandwidth:1MiB/100 --limit-tx eth0=none
  smartvm update web --balloon 128

A limit is BUCKET:SIZE/REFILL_MS[/BURST], BUCKET bandwidth (bytes) or ops (operations). It replaces
all limits of the device. Changes are made in the order of the options above; the first that fails
ends the command, and those before it stay.")]
pub(crate) struct UpdateArgs {
    /// The VM's id, or the beginning of it
    id: String,
    /// Put another file behind a drive
    #[arg(long, value_name = "DRIVE=PATH", value_parser = pair)]
    swap: Vec<(String, String)>,
    /// Make a drive's file larger, and tell the guest
    #[arg(long, value_name = "DRIVE=SIZE", value_parser = pair)]
    grow: Vec<(String, String)>,
    /// Tell the guest of a drive's new size
    #[arg(long, value_name = "DRIVE")]
    refresh: Vec<String>,
    /// Replace a drive's limits
    #[arg(long, value_name = "DRIVE=LIMIT[,LIMIT]|none", value_parser = limit)]
    limit_drive: Vec<(String, Option<RateLimiter>)>,
    /// Replace the limits of what a network interface receives
    #[arg(long, value_name = "IFACE=LIMIT[,LIMIT]|none", value_parser = limit)]
    limit_rx: Vec<(String, Option<RateLimiter>)>,
    /// Replace the limits of what a network interface sends
    #[arg(long, value_name = "IFACE=LIMIT[,LIMIT]|none", value_parser = limit)]
    limit_tx: Vec<(String, Option<RateLimiter>)>,
    /// Give the balloon this size
    #[arg(long, value_name = "MIB")]
    balloon: Option<u64>,
    /// Seconds between two statistics of the balloon
    #[arg(long, value_name = "S")]
    balloon_statistics: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.into(), value.into()))
        }
        _ => Err("write NAME=VALUE".into()),
    }
}

fn limit(text: &str) -> Result<(String, Option<RateLimiter>), String> {
    let (name, limits) = pair(text)?;
    if limits == "none" {
        return Ok((name, None));
    }
    let mut limiter = RateLimiter::default();
    for part in limits.split(',') {
        let (kind, bucket) = part
            .split_once(':')
            .ok_or("write bandwidth:SIZE/REFILL_MS, ops:SIZE/REFILL_MS, or none")?;
        let field = match kind {
            "bandwidth" => &mut limiter.bandwidth,
            "ops" => &mut limiter.ops,
            other => return Err(format!("{other:?} is neither bandwidth nor ops")),
        };
        if field.replace(self::bucket(bucket)?).is_some() {
            return Err(format!("{kind} is given twice"));
        }
    }
    Ok((name, Some(limiter)))
}

fn bucket(text: &str) -> Result<TokenBucket, String> {
    let mut parts = text.split('/');
    let (Some(size), Some(refill), burst, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("{text:?} isn't SIZE/REFILL_MS[/BURST]"));
    };
    let mut bucket = TokenBucket::builder()
        .size(super::image::size(size)?)
        .refill_time(refill.parse().map_err(|e| format!("{refill:?}: {e}"))?)
        .build();
    bucket.one_time_burst = burst.map(super::image::size).transpose()?;
    Ok(bucket)
}

impl UpdateArgs {
    fn changes(&self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for (drive_id, path) in &self.swap {
            changes.push(Change::SwapDrive {
                drive_id: drive_id.clone(),
                path_on_host: PathBuf::from(path),
            });
        }
        for (drive_id, size) in &self.grow {
            changes.push(Change::GrowDrive {
                drive_id: drive_id.clone(),
                size_bytes: super::image::size(size).map_err(invalid)?,
            });
        }
        for drive_id in &self.refresh {
            let drive_id = drive_id.clone();
            changes.push(Change::RefreshDrive { drive_id });
        }
        for (drive_id, limits) in self.limit_drive.iter().cloned() {
            changes.push(Change::LimitDrive { drive_id, limits });
        }
        for (direction, limits) in [
            (Direction::Rx, &self.limit_rx),
            (Direction::Tx, &self.limit_tx),
        ] {
            for (iface_id, limits) in limits.iter().cloned() {
                changes.push(Change::LimitInterface {
                    iface_id,
                    direction,
                    limits,
                });
            }
        }
        changes.extend(
            self.balloon
                .map(|amount_mib| Change::Balloon { amount_mib }),
        );
        let interval = self.balloon_statistics;
        changes.extend(interval.map(|interval_s| Change::BalloonStatistics { interval_s }));
        if changes.is_empty() {
            return Err(invalid("nothing to change is given".into()));
        }
        Ok(changes)
    }
}

fn invalid(what: String) -> smartvm::Error {
    smartvm::Error::new(smartvm::ErrorKind::Invalid, what).hint("see smartvm update --help")
}

pub(crate) async fn run(smartvm: &SmartVm, args: &UpdateArgs) -> Result<u8> {
    let changes = args.changes()?;
    let vm = smartvm.get(&smartvm.runtime().resolve(&args.id)?)?;
    for change in changes {
        vm.update(change).await?;
    }
    if output::json() {
        output::value(&vm.state()?.spec)?;
    }
    Ok(0)
}
