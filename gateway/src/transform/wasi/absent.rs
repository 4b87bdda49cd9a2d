//! The rest of WASI, sockets above all: there for runtimes to import, and a trap when it is called.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};

use super::super::state::State;
use super::is_known;

/// The packages that are linked as they are.
const PRESENT: &[&str] =
    &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];

/// A handle that nothing ever makes.
struct Nothing;

/// Links everything of WASI that a component imports and that is not there.
pub(super) fn add_to_linker(
    linker: &mut Linker<State>,
    component: &Component,
) -> wasmtime::Result<()> {
    let engine = component.engine();
    let mut root = linker.root();
    // An interface names the handles of others that it uses. Only where one is seen first is it defined.
    let mut seen: Vec<ResourceType> = Vec::new();
    for (interface, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            continue;
        };
        let is_absent = is_known(interface) && !PRESENT.iter().any(|of| interface.starts_with(of));
        let mut absent = is_absent.then(|| root.instance(interface)).transpose()?;
        for (name, item) in instance.exports(engine) {
            match (item.ty, &mut absent) {
                (ComponentItem::Resource(handle), absent) if !seen.contains(&handle) => {
                    seen.push(handle);
                    if let Some(absent) = absent {
                        absent.resource(name, ResourceType::host::<Nothing>(), |_, _| Ok(()))?;
                    }
                }
                (ComponentItem::ComponentFunc(_), Some(absent)) => {
                    let function = format!("{interface}#{name}");
                    absent.func_new(name, move |_, _, _, _| {
                        wasmtime::bail!("calls `{function}`, which plugins do not have")
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}
