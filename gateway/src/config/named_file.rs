//! Files that the configuration names, for secrets and certificates: read, and looked at later for changes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// A file that the configuration names, as it was when it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedFile {
    path: PathBuf,
    max_bytes: u64,
    /// None when it could not be read.
    content: Option<Digest>,
}

/// Without the hash, which could be compared with those of likely secrets.
impl fmt::Debug for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NamedFile").field(&self.path).finish()
    }
}

impl NamedFile {
    /// Reads a file: one byte more than `max_bytes` where it is longer.
    pub(super) fn read(path: PathBuf, max_bytes: u64) -> (Self, io::Result<Vec<u8>>) {
        let bytes = content(&path, max_bytes);
        let digest = bytes.as_ref().ok().map(|bytes| Digest::of(bytes));
        (Self { path, max_bytes, content: digest }, bytes)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was read, as a hash.
    #[must_use]
    pub fn content(&self) -> Option<Digest> {
        self.content
    }

    /// What is in it now, as a hash. A pipe can be read once, and waits for somebody who writes, so of what is no
    /// regular file this is always what was read.
    #[must_use]
    pub fn content_now(&self) -> Option<Digest> {
        if std::fs::metadata(&self.path).is_ok_and(|metadata| !metadata.is_file()) {
            return self.content;
        }
        content(&self.path, self.max_bytes).ok().map(|bytes| Digest::of(&bytes))
    }
}

fn content(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_and_so_do_a_file_that_goes_and_one_that_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let (missing, bytes) = NamedFile::read(path.clone(), 4);
        assert!(bytes.is_err() && missing.content().is_none() && missing.content_now().is_none());
        std::fs::write(&path, "12345678").unwrap();
        let (file, bytes) = NamedFile::read(path.clone(), 4);
        assert_eq!(bytes.unwrap(), b"12345", "enough to see that it is too long");
        assert_ne!(missing.content_now(), None);
        assert_eq!(file.content_now(), file.content());
        std::fs::write(&path, "1234").unwrap();
        assert_ne!(file.content_now(), file.content());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.content_now(), None);
    }

    #[test]
    fn a_pipe_is_not_read_again() {
        let (device, bytes) = NamedFile::read("/dev/zero".into(), 16);
        assert_eq!(bytes.unwrap().len(), 17);
        let device = NamedFile { content: Some(Digest::of(b"as it was")), ..device };
        assert_eq!(device.content_now(), device.content());
    }
}
