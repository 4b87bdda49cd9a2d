//! The attribute macros of the Hookmill plugin SDK. Use them as `hookmill_plugin::transform` and
//! `hookmill_plugin::config`.

mod check;
mod config;
mod expand;

use proc_macro::TokenStream;

/// Makes a function the transform of the plugin that this crate is. A crate has one.
///
/// The function takes an `Event<T>`, and a `Context<C>` if it wants one, and returns a `Verdict` or a
/// `Result` of one. It stays as it is written, so a native test can call it; for wasm the exports of the
/// contract are generated beside it.
///
/// The function's doc comment becomes the plugin's description; without one, `description` in
/// `Cargo.toml` does. Name and version are those of `Cargo.toml`. The attribute takes no arguments yet.
#[proc_macro_attribute]
pub fn transform(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = item.into();
    match check::check(&arguments.into(), &item) {
        Ok(function) => expand::expand(&function).into(),
        Err(error) => {
            // The function stays, so that its uses do not fail too and hide the reason.
            let error = error.into_compile_error();
            quote::quote!(#item #error).into()
        }
    }
}

/// Makes a struct or an enum a plugin's config, the `C` of `Context<C>`, or a part of one.
///
/// It derives serde's `Deserialize` and a JSON Schema, by which the gateway checks each webhook's config
/// before it is used. Serde's attributes work as always, and both follow them; doc comments become descriptions, and
/// `#[schemars(…)]` says more, such as `#[schemars(range(min = 1))]`. Members that the type does not have
/// are refused, unless a field is flattened.
///
/// Every type that the config is made of needs the attribute too.
#[proc_macro_attribute]
pub fn config(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let item = item.into();
    match config::config(&arguments.into(), &item) {
        Ok(expanded) => expanded.into(),
        Err(error) => {
            let error = error.into_compile_error();
            quote::quote!(#item #error).into()
        }
    }
}
