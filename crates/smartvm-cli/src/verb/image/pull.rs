//! Fetching images.

use clap::{Args, ValueEnum};
use serde_json::json;
use smartvm::spec::{Arch, BaseImagePreset, EnsureBaseImageOptions};
use smartvm::storage::oci::Reference;
use smartvm::storage::store::{Entry, Origin, Record, Store};
use smartvm::storage::{Bundle, Watch};
use smartvm::{Error, ErrorKind, Result, SmartVm};

use super::make::{MakeArgs, make};
use super::store::reference;
use crate::{output, progress};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  smartvm image pull                                     Firecracker's own newest image
  smartvm image pull lts                                 that of Firecracker 1.7
  smartvm image pull --manifest-url https://example.org/m.json
  smartvm image pull alpine:3.20                         from Docker Hub
  smartvm image pull registry.example:5000/team/tool --name tool

Whoever may read a private image logs in by docker login, podman login or skopeo login.")]
pub(crate) struct PullArgs {
    /// Which: latest and lts are Firecracker's own images, hosted is what the options name;
    /// all else names an image in a registry
    #[arg(value_name = "latest|lts|hosted|REFERENCE")]
    image: Option<String>,
    /// A manifest's URL
    #[arg(long, value_name = "URL", conflicts_with_all = ["image", "manifest_path"])]
    manifest_url: Option<String>,
    /// A manifest's path
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    manifest_path: Option<std::path::PathBuf>,
    /// Fetch it although it is there
    #[arg(long)]
    force: bool,
    /// Speak http to a registry that has no https
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    make: MakeArgs,
}

/// When an image is fetched for a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Where it isn't there
    #[default]
    Missing,
    /// Always: where the registry has a newer one of its name
    Always,
    /// Never
    Never,
}

pub(crate) async fn run(vms: &SmartVm, args: PullArgs, watch: &mut Watch<'_>) -> Result<()> {
    let preset = match &args.image {
        None => None,
        Some(image) => match serde_json::from_value::<BaseImagePreset>(json!(image)) {
            Ok(preset) => Some(preset),
            Err(_) => return from_registry(vms, image.parse()?, args, watch).await,
        },
    };
    if !args.make.asks_for_nothing() || args.insecure {
        return Err(Error::new(
            ErrorKind::Invalid,
            "an image that comes with a kernel is taken as it is: these options are for images \
             of registries",
        ));
    }
    let mut options = EnsureBaseImageOptions::default();
    options.preset = preset;
    options.manifest_url = args.manifest_url;
    options.manifest_path = args.manifest_path;
    options.force_download = Some(args.force);
    let held = vms.ensure_base_image(&options, &progress::images()).await?;
    if output::json() {
        return output::value(&held.record().base_image);
    }
    output::line(held.bundle().bundle_id())
}

async fn from_registry(
    vms: &SmartVm,
    reference: Reference,
    args: PullArgs,
    watch: &mut Watch<'_>,
) -> Result<()> {
    let to_store = args.make.output.is_none();
    let pull = Pull {
        reference: &reference,
        force: args.force,
        insecure: args.insecure,
    };
    let bundle = pull.run(vms, args.make, watch).await?;
    if output::json() {
        return output::value(&json!({
            "name": bundle.bundle_id(),
            "reference": reference.to_string(),
            "directory": bundle.dir(),
            "manifest": bundle.manifest(),
        }));
    }
    match to_store {
        true => output::line(bundle.bundle_id()),
        false => output::line(bundle.dir().display()),
    }
}

/// An image of a registry, to be fetched.
pub(crate) struct Pull<'a> {
    pub(crate) reference: &'a Reference,
    /// Although it is there.
    pub(crate) force: bool,
    pub(crate) insecure: bool,
}

impl Pull<'_> {
    /// Fetches it and makes a bundle of it, unless the store has it as it is in the registry.
    pub(crate) async fn run(
        &self,
        vms: &SmartVm,
        mut make_args: MakeArgs,
        watch: &mut Watch<'_>,
    ) -> Result<Bundle> {
        let arch = vms.options().arch.or(Arch::host()).unwrap_or(Arch::X86_64);
        let registry = vms.registry()?.insecure(self.insecure);
        let found = registry.find(self.reference, arch).await?;
        let store = super::store::store(vms)?;
        let known = store.pulled(&self.reference.to_string())?;
        let own = make_args.output.is_some();
        let name = match &make_args.name {
            Some(name) => name.clone(),
            None => self.name(&store, known.as_ref(), found.digest())?,
        };
        // Another process may be fetching it.
        let claim = match own {
            true => None,
            false => Some(store.claim(&name, watch.cancelled())?),
        };
        if let Some(there) = store.get(&name).ok().filter(|_| !own) {
            let same = reference(&there) == Some(&self.reference.to_string());
            if same && digest(&there) == Some(found.digest()) && !self.force {
                return Ok(store.hold(&name)?.bundle().clone());
            }
            make_args.replace |= same;
        }
        let _kernel = self.kernel(vms, &store, &make_args).await?;
        let tell = progress::layers();
        let image = registry.fetch(&found, store.layers()?, &tell).await?;
        let mut record = Record::new(Origin::Pulled);
        record.details = Some(json!({
            "reference": self.reference.to_string(),
            "digest": found.digest(),
        }));
        let claimed = claim.as_ref().map(|claim| (claim, record));
        let bundle = make(vms, &image, claimed, make_args, watch)?;
        drop(image);
        store.drop_stale_layers()?;
        Ok(bundle)
    }

    /// The name in the store: what it has, unless that is in use, or another's.
    fn name(&self, store: &Store, known: Option<&Entry>, digest: &str) -> Result<String> {
        let short = self.reference.short_name();
        let free = match known {
            Some(known) if self.is_up_to_date(known, digest) => return Ok(known.name.clone()),
            Some(known) => match store.user_of(&known.name)? {
                None => return Ok(known.name.clone()),
                Some(_) => false,
            },
            None => store
                .get(&short)
                .is_err_and(|e| e.kind() == ErrorKind::NotFound),
        };
        let unique = digest
            .trim_start_matches("sha256:")
            .get(..8)
            .unwrap_or_default();
        Ok(match free {
            true => short,
            false => format!("{short}-{unique}"),
        })
    }

    fn is_up_to_date(&self, known: &Entry, found: &str) -> bool {
        !self.force && digest(known) == Some(found)
    }

    /// Sees to it that there is a kernel: Firecracker's own where the store has none. It stays
    /// as long as what is returned.
    async fn kernel(
        &self,
        vms: &SmartVm,
        store: &Store,
        args: &MakeArgs,
    ) -> Result<Option<smartvm::storage::store::Held>> {
        let given = args.kernel.is_some() || args.kernel_from.is_some();
        if given || store.list()?.iter().any(|(_, entry)| entry.is_ok()) {
            return Ok(None);
        }
        output::note("note: no image here has a kernel: fetching Firecracker's own");
        let options = EnsureBaseImageOptions::default();
        let held = vms.ensure_base_image(&options, &progress::images()).await;
        held.map(Some).map_err(|e| {
            Error::new(
                e.kind(),
                "an image of a registry needs a kernel, and none can be had",
            )
            .because(e)
            .hint(
                "give --kernel VMLINUZ and --modules DIR, or --kernel-from with the path of \
                     an image that `smartvm image build` made",
            )
        })
    }
}

fn digest(entry: &Entry) -> Option<&str> {
    entry.record.details.as_ref()?.get("digest")?.as_str()
}
