//! Writes the code that lets the gateway call a transform.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, FnArg, ItemFn, Lit, Meta};

/// The function as it is, a check that it is a transform, and for wasm the exports of the contract.
pub(crate) fn expand(function: &ItemFn) -> TokenStream {
    let name = &function.sig.ident;
    let description = match description(&function.attrs) {
        Some(text) => quote!(#text),
        None => quote!(::core::env!("CARGO_PKG_DESCRIPTION")),
    };
    // Stands where the parameters do, so that a complaint about their types points there.
    let call = quote_spanned!(function.sig.inputs.span()=>
        |event, context| ::hookmill_plugin::__call(#name, event, context)
    );
    let config_schema = config_schema(function);
    quote! {
        #[allow(
            clippy::needless_pass_by_value,
            reason = "a transform owns its event and context, whether it consumes them or not"
        )]
        #function

        const _: () = {
            const TRANSFORM: fn(
                ::hookmill_plugin::Event<&str>,
                ::hookmill_plugin::Context<&str>,
            ) -> ::hookmill_plugin::Result<::hookmill_plugin::Verdict> = #call;

            const CONFIG_SCHEMA: fn() -> ::core::option::Option<::std::string::String> =
                #config_schema;

            // Natively, this is all that is made of it: a check of its types.
            #[cfg(not(target_arch = "wasm32"))]
            const _: () = {
                let _ = TRANSFORM;
                let _ = CONFIG_SCHEMA;
            };

            #[cfg(target_arch = "wasm32")]
            #[allow(unsafe_code, reason = "exports and custom sections are unsafe attributes")]
            const _: () = {
                struct Plugin;

                impl ::hookmill_plugin::__guest::Plugin for Plugin {
                    const NAME: &'static str = ::core::env!("CARGO_PKG_NAME");
                    const VERSION: &'static str = ::core::env!("CARGO_PKG_VERSION");
                    const DESCRIPTION: &'static str = #description;

                    fn config_schema() -> ::core::option::Option<::std::string::String> {
                        CONFIG_SCHEMA()
                    }

                    fn transform(
                        event: ::hookmill_plugin::Event<&str>,
                        context: ::hookmill_plugin::Context<&str>,
                    ) -> ::hookmill_plugin::Result<::hookmill_plugin::Verdict> {
                        TRANSFORM(event, context)
                    }
                }

                type Export = ::hookmill_plugin::__guest::Export<Plugin>;

                ::hookmill_plugin::__guest::bindings::export!(
                    Export with_types_in ::hookmill_plugin::__guest::bindings
                );

                // The version of the contract, for the gateway to read before it compiles anything.
                #[used]
                #[unsafe(link_section = "hookmill:world")]
                static WORLD: [u8; 5] = *b"1.0.0";
            };
        };
    }
}

/// A function that gives the schema of the config, when the transform takes one.
fn config_schema(function: &ItemFn) -> TokenStream {
    let Some(FnArg::Typed(context)) = function.sig.inputs.get(1) else {
        return quote!(|| ::core::option::Option::None);
    };
    let context = &context.ty;
    // The parameter may name lifetimes of the function.
    let generics = &function.sig.generics;
    let bounds = &generics.where_clause;
    // Stands where the type does, so that a complaint about it points there.
    let text_of = quote_spanned!(context.span()=> ::hookmill_plugin::__config_schema::<#context>());
    quote! {
        {
            fn config_schema #generics() -> ::core::option::Option<::std::string::String>
            #bounds
            {
                #text_of
            }
            config_schema
        }
    }
}

/// The doc comment, line by line, without the blank after the slashes.
fn description(attributes: &[Attribute]) -> Option<String> {
    let lines: Vec<String> = attributes.iter().filter_map(doc_line).collect();
    let text = lines.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn doc_line(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else {
        return None;
    };
    let line = text.value();
    pair.path.is_ident("doc").then(|| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn the_doc_comment_is_the_description() {
        let function: ItemFn = parse_quote! {
            /// One line.
            ///
            ///   - and more
            #[inline]
            fn f(event: Event) -> Verdict {}
        };
        let expected = "One line.\n\n  - and more";
        assert_eq!(description(&function.attrs).as_deref(), Some(expected));
        assert!(expand(&function).to_string().contains("One line."));
    }

    #[test]
    fn the_config_of_the_context_is_described() {
        let with: ItemFn = parse_quote!(
            fn f<'a>(event: Event, context: Context<C<'a>>) -> Verdict {}
        );
        let expanded = expand(&with).to_string();
        assert!(expanded.contains("fn config_schema < 'a >"), "{expanded}");
        assert!(expanded.contains("__config_schema :: < Context < C < 'a > > >"), "{expanded}");
        let without: ItemFn = parse_quote!(
            fn f(event: Event) -> Verdict {}
        );
        assert!(!expand(&without).to_string().contains("__config_schema"));
    }

    #[test]
    fn without_a_doc_comment_the_description_is_the_crates() {
        let function: ItemFn = parse_quote!(
            fn f(event: Event) -> Verdict {}
        );
        assert_eq!(description(&function.attrs), None);
        assert!(expand(&function).to_string().contains("CARGO_PKG_DESCRIPTION"));
    }
}
