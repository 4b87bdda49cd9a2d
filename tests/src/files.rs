//! Plugins as files: where they were built, and folders that hold them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The built file of a plugin or guest.
///
/// # Panics
/// When it is not built; `cargo xtask test` builds all of them.
#[must_use]
pub fn wasm(name: &str) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let file = target
        .unwrap_or_else(|| workspace().join("target"))
        .join("wasm32-unknown-unknown/plugin")
        .join(format!("{}.wasm", name.replace('-', "_")));
    fs::read(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; build the plugins with `cargo xtask wasm`", file.display())
    })
}

/// A version of the guest `stamp` that puts these ten characters into what it forwards.
#[must_use]
pub fn stamped(version: &str) -> Vec<u8> {
    const MARK: &[u8] = b"stamp:0000000000";
    assert_eq!(version.len(), 10, "a stamp has ten characters: {version:?}");
    let mut bytes = wasm("stamp");
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).expect("the stamp's mark");
    bytes.splice(at + "stamp:".len()..at + MARK.len(), version.bytes());
    bytes
}

/// A component that is no plugin, and whose functions take a compiler about a second for 60,000 operations.
#[must_use]
pub fn slow_to_compile(functions: usize, operations: u32) -> Vec<u8> {
    // One local, and over and over: multiplied by the parameter, mixed with a constant, rotated by itself.
    let mut body = b"\x01\x01\x7f\x20\x00".to_vec();
    for n in 0..operations {
        body.extend(b"\x20\x00\x6c\x41");
        body.push(u8::try_from(n % 64).unwrap());
        body.extend(b"\x73\x22\x01\x20\x01\x77");
    }
    body.push(0x0b);
    let function = sized(&body);
    let types = b"\x01\x60\x01\x7f\x01\x7f".to_vec();
    let declared = [leb128(functions), vec![0; functions]].concat();
    let code = [leb128(functions), function.repeat(functions)].concat();
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, section) in [(1, types), (3, declared), (10, code)] {
        module.push(id);
        module.extend(sized(&section));
    }
    [b"\0asm\x0d\0\x01\0\x01".to_vec(), sized(&module)].concat()
}

/// Bytes with their number before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [leb128(bytes.len()), bytes.to_vec()].concat()
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// A version of the guest `described` with this config schema, whose `title` it puts into what it forwards.
#[must_use]
pub fn described(schema: &Value) -> Vec<u8> {
    const MARK: &[u8] = b"schema:    ";
    let mut bytes = wasm("described");
    let at =
        bytes.windows(MARK.len()).position(|window| window == MARK).expect("the schema's mark");
    let at = at + "schema:".len();
    let schema = schema.to_string();
    let room = bytes[at..].iter().take_while(|byte| **byte == b' ').count();
    assert!(schema.len() <= room, "a schema has up to {room} bytes: {schema}");
    bytes.splice(at..at + schema.len(), schema.bytes());
    bytes
}

/// A plugins folder.
#[derive(Debug, Clone)]
pub struct Plugins(PathBuf);

impl Plugins {
    /// The folder at this path.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of a plugin's file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.wasm"))
    }

    /// The path of anything in the folder.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a plugin in place, as `cp` does.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Writes a plugin beside and moves it into place, as `mv` does.
    pub fn replace(&self, name: &str, bytes: &[u8]) {
        let aside = self.0.join(format!(".{name}.tmp"));
        fs::write(&aside, bytes).unwrap();
        fs::rename(&aside, self.path(name)).unwrap();
    }
}
