//! Hostile guests made by hand: text in `tests/hostile/NAME.wat`, each with what must come of it.
//!
//! A file begins with comments: what the guest does, then `;; expect: …` and, where it needs other limits than
//! the default, `;; manifest: …` with lines of its `NAME.toml`. What follows is either a whole `(component`
//! or `(module`, or the body of a module. A body need only have what is hostile about it: memory, allocator,
//! `describe` and `transform` of a plugin that forwards `{}` are added where it has none of its own.

use std::fs;
use std::path::Path;

use wasmparser::{Parser, Payload};

use crate::files::{wasm, workspace};

/// The name under which a plugin's functions are exported by a core module.
const INTERFACE: &str = "hookmill:plugin/transformer@1.0.0";

/// What every body begins with: the log, and results that are laid out already. The description stands at 256,
/// the verdict at 512 and the only part at 600, as the canonical ABI lays them out.
const HEAD: &str = r#"
  (data (i32.const 256)
    "\00\04\00\00" "\05\00\00\00"   ;; name
    "\00\04\00\00" "\05\00\00\00"   ;; version
    "\00\04\00\00" "\05\00\00\00")  ;; description
  (data (i32.const 520) "\58\02\00\00" "\01\00\00\00")
  (data (i32.const 604) "\10\04\00\00" "\02\00\00\00")
  (data (i32.const 1024) "guest")
  (data (i32.const 1040) "{}")
"#;

/// What a body gets where it does not define it: by the start of the definition.
const DEFAULTS: [(&str, &str); 4] = [
    ("(memory $memory ", "(memory $memory 1)"),
    (
        "(func $realloc ",
        r"(global $free (mut i32) (i32.const 4096))
          (func $realloc (param i32 i32 i32 i32) (result i32)
            (global.set $free
              (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.get $free)
            (global.set $free (i32.add (global.get $free) (local.get 3))))",
    ),
    ("(func $describe ", "(func $describe (result i32) (i32.const 256))"),
    ("(func $transform ", "(func $transform (param i32) (result i32) (i32.const 512))"),
];

/// What must come of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It is not loaded, and the reason has this in it.
    Rejected(String),
    /// Its call fails: the failure's kind, and a part of its message.
    Failure(String, String),
    /// What it returns is delivered.
    Delivered,
    /// It drops the event.
    Dropped,
}

/// A hostile guest.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its file's name.
    pub name: String,
    /// Its bytes.
    pub wasm: Vec<u8>,
    /// The manifest that it is installed with.
    pub manifest: String,
    /// What must come of it.
    pub expected: Expected,
}

impl Guest {
    /// All of `tests/hostile`.
    ///
    /// # Panics
    /// When a file does not say what to expect, or is no WebAssembly text.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let files = fs::read_dir(workspace().join("tests/hostile")).unwrap();
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let said = |what: &str| text.lines().find_map(|line| line.strip_prefix(what));
        let expected = said(";; expect: ").unwrap_or_else(|| panic!("{name} expects nothing"));
        let expected = match expected.split_once(": ") {
            Some(("rejected", reason)) => Expected::Rejected(reason.to_owned()),
            Some((kind, message)) => Expected::Failure(kind.to_owned(), message.to_owned()),
            None if expected == "delivered" => Expected::Delivered,
            None if expected == "dropped" => Expected::Dropped,
            None => panic!("{name} expects {expected:?}, which is nothing that is known"),
        };
        let mut manifest = said(";; manifest: ").unwrap_or_default().to_owned();
        if !text.contains("plugin_timeout") {
            // What is not about time must not depend on how busy the machine is.
            manifest.push_str("\nlimits.time = \"10s\"\n");
        }
        Self { wasm: assembled(&name, &text), manifest, expected, name }
    }
}

/// The bytes of a guest's text.
fn assembled(name: &str, text: &str) -> Vec<u8> {
    let parse = |text: &str| wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let code: String =
        text.lines().filter(|line| !line.starts_with(";;")).collect::<Vec<_>>().join("\n");
    if code.starts_with("(component") {
        return parse(&code);
    }
    if code.starts_with("(module") {
        return with_metadata(parse(&code));
    }
    with_metadata(parse(&module(&code)))
}

/// A whole module of a body.
#[must_use]
pub fn module(body: &str) -> String {
    let defaults = DEFAULTS.iter().filter(|(begins, _)| !body.contains(begins));
    let defaults: Vec<_> = defaults.map(|(_, default)| *default).collect();
    let post_return = match body.contains("(func $post-return ") {
        true => format!("(export \"cabi_post_{INTERFACE}#transform\" (func $post-return))"),
        false => String::new(),
    };
    format!(
        r#"(module
  (import "hookmill:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
  {HEAD}
  {body}
  {}
  (export "memory" (memory $memory))
  (export "cabi_realloc" (func $realloc))
  (export "{INTERFACE}#describe" (func $describe))
  (export "{INTERFACE}#transform" (func $transform))
  {post_return})"#,
        defaults.join("\n")
    )
}

/// A core module as `wit-bindgen` leaves it: with a section that says what its exports mean. It is that of a
/// guest that was built with the SDK.
///
/// # Panics
/// When that guest is not built.
#[must_use]
pub fn with_metadata(mut module: Vec<u8>) -> Vec<u8> {
    let built = wasm("stamp");
    let mut found = false;
    for payload in Parser::new(0).parse_all(&built) {
        if let Payload::CustomSection(section) = payload.unwrap()
            && section.name().starts_with("component-type")
        {
            append_custom(&mut module, section.name(), section.data());
            found = true;
        }
    }
    assert!(found, "a guest built with the SDK says what its exports mean");
    module
}

/// Appends a custom section.
pub fn append_custom(module: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = leb128(name.len());
    content.extend(name.bytes());
    content.extend(data);
    module.push(0);
    module.extend(leb128(content.len()));
    module.extend(content);
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = (number & 0x7f).to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
