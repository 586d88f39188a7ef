//! The verbs on what is in the store.

use clap::Args;
use comfy_table::{Table, presets};
use serde_json::json;
use smartvm::storage::space::Size;
use smartvm::storage::store::{Entry, Store};
use smartvm::{Result, SmartVm};

use super::size;
use crate::{image_spec, output};

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// The images' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  smartvm image prune --max-size 4GiB")]
pub(crate) struct PruneArgs {
    /// Images may take so much, such as 4GiB: those used longest ago go [default: nothing]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
}

pub(crate) fn list(store: &Store) -> Result<()> {
    let all = store.list()?;
    if output::json() {
        let values: Vec<_> = all
            .iter()
            .map(|(name, entry)| match entry {
                Ok(entry) => as_json(store, entry),
                Err(e) => json!({ "name": name, "error": e.to_string() }),
            })
            .collect();
        return output::value(&values);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "ORIGIN", "SIZE", "CREATED", "LAST USED", "NOTE"]);
    for (name, entry) in all {
        match entry {
            Ok(entry) => {
                let user = store.user_of(&name)?;
                table.add_row([
                    name,
                    origin(&entry),
                    Size(entry.disk_bytes).to_string(),
                    entry.record.created_at.clone(),
                    time(&entry),
                    user.map(|user| format!("used by {user}"))
                        .or_else(|| reference(&entry).map(str::to_owned))
                        .unwrap_or_default(),
                ]);
            }
            Err(e) => {
                table.add_row([name.as_str(), "", "", "", "", &e.to_string()]);
            }
        }
    }
    output::line(table)?;
    // Layers are no images, and take room all the same.
    match store.usage()?.layer_bytes {
        0 => Ok(()),
        bytes => output::line(format_args!("layers kept beside them: {}", Size(bytes))),
    }
}

/// What the store takes on disk.
pub(crate) fn usage(store: &Store) -> Result<()> {
    let usage = store.usage()?;
    if output::json() {
        return output::value(&usage);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (what, bytes) in [
        ("images", usage.image_bytes),
        ("layers", usage.layer_bytes),
        ("downloads", usage.download_bytes),
    ] {
        table.add_row([what.to_owned(), Size(bytes).to_string()]);
    }
    output::line(table)
}

/// What is known of an image in the store, with its manifest.
pub(crate) fn inspect(store: &Store, name: &str) -> Result<()> {
    let entry = store.get(name)?;
    let mut value = as_json(store, &entry);
    if let Some(fields) = value.as_object_mut() {
        let bundle = smartvm::storage::Bundle::load(&entry.dir)?;
        fields.insert("manifest".into(), json!(bundle.manifest()));
    }
    output::value(&value)
}

fn as_json(store: &Store, entry: &Entry) -> serde_json::Value {
    let mut record = json!(entry.record);
    if let Some(image) = record
        .get_mut("baseImage")
        .and_then(|it| it.as_object_mut())
    {
        image.insert("lastAccessedAt".into(), json!(time(entry)));
    }
    json!({
        "name": entry.name,
        "directory": entry.dir,
        "diskBytes": entry.disk_bytes,
        "lastUsedAt": time(entry),
        "usedBy": store.user_of(&entry.name).ok().flatten(),
        "record": record,
    })
}

fn origin(entry: &Entry) -> String {
    let name = json!(entry.record.origin);
    name.as_str().unwrap_or_default().to_owned()
}

/// By which name it was pulled.
pub(super) fn reference(entry: &Entry) -> Option<&str> {
    entry.record.details.as_ref()?.get("reference")?.as_str()
}

fn time(entry: &Entry) -> String {
    humantime::format_rfc3339_millis(entry.last_used).to_string()
}

pub(crate) fn remove(store: &Store, images: &Images) -> Result<()> {
    images.names.iter().try_for_each(|name| store.remove(name))
}

pub(crate) fn prune(store: &Store, args: &PruneArgs) -> Result<()> {
    let pruned = store.prune(args.max_size)?;
    if output::json() {
        let images = pruned.images.iter();
        let images: Vec<_> = images
            .map(|one| json!({ "name": one.name, "diskBytes": one.disk_bytes }))
            .collect();
        return output::value(&json!({
            "images": images,
            "layerBytes": pruned.layer_bytes,
            "downloadBytes": pruned.download_bytes,
        }));
    }
    for one in pruned.images {
        output::line(format_args!("{}: {}", one.name, Size(one.disk_bytes)))?;
    }
    for (what, bytes) in [
        ("layers", pruned.layer_bytes),
        ("downloads", pruned.download_bytes),
    ] {
        if bytes > 0 {
            output::line(format_args!("({what}): {}", Size(bytes)))?;
        }
    }
    Ok(())
}

pub(crate) fn store(smartvm: &SmartVm) -> Result<Store> {
    let store = image_spec::store(smartvm.options())?;
    store.serve(smartvm.runtime().path(), &smartvm.shelf())?;
    Ok(store)
}
