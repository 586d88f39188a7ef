//! Where snapshots are: in the data directory, and where else they were made. So `gc` finds what
//! an interruption or a reboot left, and nothing that a snapshot needs is removed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Manifest, Place, claim};
use crate::durable;
use crate::error::{Error, Result};
use crate::storage::checksum::sha256_of;

const FORMAT: u32 = 1;
/// Notes of the places outside.
const ELSEWHERE: &str = ".elsewhere";

/// The snapshots that belong to one data directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
}

/// A place outside of the data directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    state: PathBuf,
    memory: PathBuf,
    made_parent: bool,
}

impl Shelf {
    /// That of a data directory.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            dir: data_dir.join("snapshots"),
        }
    }

    /// The one whose directory is this.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory of the snapshots that have names; each is a directory in it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes down that a snapshot is about to be made there.
    pub(super) fn note(&self, place: &Place, made_parent: bool) -> Result<()> {
        if self.holds(place) {
            return Ok(());
        }
        let note = Note {
            state: place.state().to_owned(),
            memory: place.memory().to_owned(),
            made_parent,
        };
        let path = self.note_of(place);
        durable::private_dir(&self.dir.join(ELSEWHERE))?;
        durable::write_state(&path, FORMAT, &note)
    }

    /// Forgets a place outside where no snapshot is.
    pub fn forget(&self, place: &Place) -> Result<()> {
        if claim::is_empty(place) {
            remove(&self.note_of(place))?;
        }
        Ok(())
    }

    /// The places of all snapshots, also of those in the making.
    pub fn places(&self) -> Result<Vec<Place>> {
        Ok(self.all()?.into_iter().map(|(place, _)| place).collect())
    }

    /// The first snapshot of which `needs` is true. One that can't be read may be one.
    pub fn first(&self, needs: &dyn Fn(&Manifest) -> bool) -> Result<Option<String>> {
        for place in self.places()? {
            let name = || format!("the snapshot {}", self.name_of(&place));
            match Manifest::read(&place.manifest()) {
                Ok(Some(manifest)) if needs(&manifest) => return Ok(Some(name())),
                Ok(_) => {}
                Err(_) => return Ok(Some(format!("{}, which can't be read", name()))),
            }
        }
        Ok(None)
    }

    /// Removes what snapshots left whose maker is dead, and returns their state files. One that
    /// is whole stays; with `dry_run`, all do.
    pub(crate) fn collect(&self, dry_run: bool) -> Result<Vec<(PathBuf, Result<()>)>> {
        let mut found = Vec::new();
        for (place, made_parent) in self.all()? {
            match claim::collect(&place, made_parent, dry_run) {
                Ok(false) => {}
                Ok(true) => found.push((place.state().to_owned(), Ok(()))),
                Err(e) => found.push((place.state().to_owned(), Err(e))),
            }
            if !dry_run {
                self.forget(&place)?;
            }
        }
        Ok(found)
    }

    /// What people call the snapshot: its name, or the path of its directory.
    fn name_of(&self, place: &Place) -> String {
        let dir = place.parent();
        let inside = self.holds(place).then(|| dir.file_name()).flatten();
        let path = inside.map_or(dir.as_os_str(), |name| name);
        path.to_string_lossy().into_owned()
    }

    /// Whether the place is found without a note.
    fn holds(&self, place: &Place) -> bool {
        let dir = place.parent();
        let ours = Place::in_directory(dir).is_ok_and(|it| it == *place);
        ours && dir
            .parent()
            .is_some_and(|parent| is_same(parent, &self.dir))
    }

    fn note_of(&self, place: &Place) -> PathBuf {
        let key = sha256_of(place.state().as_os_str().as_encoded_bytes());
        self.dir
            .join(ELSEWHERE)
            .join(format!("{}.json", &key[..32]))
    }

    /// The places, and whether their directory was made for them.
    fn all(&self) -> Result<Vec<(Place, bool)>> {
        let mut all = Vec::new();
        for dir in entries(&self.dir)? {
            let hidden = dir
                .file_name()
                .is_none_or(|it| is_hidden(&it.to_string_lossy()));
            if !hidden && dir.is_dir() {
                all.push((Place::in_directory(&dir)?, true));
            }
        }
        for path in entries(&self.dir.join(ELSEWHERE))? {
            let hidden = path.extension().is_none_or(|it| it != "json");
            if hidden {
                continue;
            }
            match durable::read_state::<Note>(&path, FORMAT) {
                Ok(Some(note)) => {
                    all.push((Place::new(&note.state, &note.memory)?, note.made_parent));
                }
                Ok(None) => {}
                // One damaged note doesn't hide the others.
                Err(e) => tracing::warn!("a place of a snapshot: {e}"),
            }
        }
        all.sort_by(|a, b| a.0.state().cmp(b.0.state()));
        Ok(all)
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Error::io("reading", dir, e)),
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path, e)),
        _ => Ok(()),
    }
}
