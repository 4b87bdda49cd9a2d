//! The data folder: created for the gateway's user alone, and locked as long as a gateway uses it.

use std::fs::File;
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use super::super::{Fault, StoreError};

/// 32 bytes that nobody can guess.
pub(super) fn fresh_seed() -> Result<[u8; 32], StoreError> {
    let mut seed = [0; 32];
    match SystemRandom::new().fill(&mut seed) {
        Ok(()) => Ok(seed),
        Err(_) => Err(StoreError::new("the system gives no random numbers")),
    }
}

/// Creates the folder for the gateway's user alone: it holds payloads.
pub(super) fn create(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Claims are only right with one gateway on the file.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("hookmill.lock");
    let file = File::create(&path).map_err(|error| {
        StoreError::new(format!("cannot write in the data folder: {}: {error}", path.display()))
    })?;
    file.try_lock().map_err(|_| {
        let folder = folder.display();
        let message = format!(
            "another gateway uses the data folder {folder}; stop it, or set another `data_dir`"
        );
        StoreError::of(Fault::InUse, message)
    })?;
    Ok(file)
}
