//! Stamps: whether files are still those that were read, told without reading them.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Changes whenever a plugin's files change: written in place, replaced, or led elsewhere by a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) wasm: Stamp,
    pub(super) manifest: Option<Stamp>,
}

impl FileState {
    /// The state of a plugin's files now.
    pub(super) fn of(wasm: &Path, manifest: &Path) -> Self {
        let manifest = match fs::metadata(manifest) {
            // A link that leads nowhere is a manifest that cannot be read, not one that is not there.
            Err(error) if is_missing(&error) && fs::symlink_metadata(manifest).is_err() => None,
            looked => Some(Stamp::of(looked)),
        };
        Self { wasm: Stamp::of(fs::metadata(wasm)), manifest }
    }

    /// Whether the files last changed at least so long ago, as far as the clocks can tell.
    pub(super) fn is_older_than(&self, age: Duration) -> bool {
        let changed = |stamp: &Stamp| match stamp {
            Stamp::File { changed, .. } => changed.elapsed().is_ok_and(|elapsed| elapsed >= age),
            Stamp::Other(_) => false,
        };
        changed(&self.wasm) && self.manifest.as_ref().is_none_or(changed)
    }
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stamp {
    /// A file.
    File {
        /// Its size, in bytes.
        len: u64,
        /// When its content or its inode last changed.
        changed: SystemTime,
        modified: SystemTime,
        device: u64,
        inode: u64,
    },
    /// Nothing that can be read, and what it is instead.
    Other(String),
}

impl Stamp {
    /// The stamp of what was found under a name, links followed.
    fn of(looked: io::Result<Metadata>) -> Self {
        match looked {
            Ok(metadata) if metadata.is_file() => {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                Self::File {
                    len: metadata.len(),
                    changed: changed(&metadata).max(modified),
                    modified,
                    device: metadata.dev(),
                    inode: metadata.ino(),
                }
            }
            Ok(metadata) if metadata.is_dir() => Self::Other("is a folder".to_owned()),
            Ok(_) => Self::Other("is no regular file".to_owned()),
            Err(error) if is_missing(&error) => {
                Self::Other("is a link that leads nowhere".to_owned())
            }
            Err(error) => Self::Other(format!("cannot be read: {error}")),
        }
    }

    /// The size of the file, in bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File { len, .. } => *len,
            Self::Other(_) => 0,
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The time of the last change to the inode.
fn changed(metadata: &Metadata) -> SystemTime {
    let (seconds, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    let since_epoch = u64::try_from(seconds).ok().zip(u32::try_from(nanos).ok());
    since_epoch.map_or(SystemTime::UNIX_EPOCH, |(seconds, nanos)| {
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
    })
}
