//! The attribute macro of the Hookmill plugin SDK. Use it as `hookmill_plugin::transform`.

mod check;
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
