//! Makes a type a plugin's config: it is read by serde, and described by a JSON Schema.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Fields, LitStr, parenthesized};

/// What the attribute derives; deriving it again would be an error that is hard to read.
const DERIVED: [&str; 2] = ["Deserialize", "JsonSchema"];

/// The type with its derives, and for what `Context` takes the implementation of `Config`.
pub(crate) fn config(arguments: &TokenStream, item: &TokenStream) -> Result<TokenStream, Error> {
    let input: DeriveInput = syn::parse2(item.clone())
        .map_err(|error| Error::new(error.span(), "`#[config]` belongs on a struct or an enum"))?;
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "`#[config]` takes no arguments"));
    }
    if let Data::Union(union) = &input.data {
        let message = "`#[config]` belongs on a struct or an enum";
        return Err(Error::new(union.union_token.span(), message));
    }
    refuse_derived(&input.attrs)?;
    // A misspelt member would otherwise be left out without a word.
    let open = ["flatten", "deny_unknown_fields"].iter().any(|word| mentions(&input, word));
    let strict = (has_members(&input.data) && !open).then(|| quote!(#[serde(deny_unknown_fields)]));
    // What the type is made from is what stands in the config; its own fields need no description.
    let made_from = made_from(&input.attrs)?;
    let made_from = made_from.map(|made_from| quote!(#[schemars(with = #made_from)]));
    let name = &input.ident;
    let (parameters, arguments, bounds) = input.generics.split_for_impl();
    let bounds = bounds.map_or_else(|| quote!(where), |bounds| quote!(#bounds,));
    Ok(quote! {
        #[derive(::hookmill_plugin::serde::Deserialize, ::hookmill_plugin::schemars::JsonSchema)]
        #[serde(crate = "::hookmill_plugin::serde")]
        #[schemars(crate = "::hookmill_plugin::schemars")]
        #strict
        #made_from
        #input

        impl #parameters ::hookmill_plugin::Config for #name #arguments
        #bounds Self: ::hookmill_plugin::schemars::JsonSchema
        {
            fn schema() -> ::core::option::Option<::hookmill_plugin::schemars::Schema> {
                ::core::option::Option::Some(::hookmill_plugin::schema_of::<Self>())
            }
        }
    })
}

/// The type that serde makes this one from.
fn made_from(attributes: &[Attribute]) -> Result<Option<LitStr>, Error> {
    let mut made_from = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("from") || meta.path.is_ident("try_from") {
                made_from = Some(meta.value()?.parse()?);
            } else if meta.input.peek(syn::Token![=]) {
                meta.value()?.parse::<Expr>()?;
            } else if meta.input.peek(syn::token::Paren) {
                let inner;
                parenthesized!(inner in meta.input);
                inner.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    Ok(made_from)
}

fn refuse_derived(attributes: &[Attribute]) -> Result<(), Error> {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        attribute.parse_nested_meta(|meta| {
            let last = meta.path.segments.last().map(|segment| segment.ident.to_string());
            match last.filter(|last| DERIVED.contains(&last.as_str())) {
                Some(derived) => {
                    Err(meta.error(format!("`#[config]` derives `{derived}` itself; leave it out")))
                }
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Whether the type is written with names for its members anywhere.
fn has_members(data: &Data) -> bool {
    match data {
        Data::Struct(data) => matches!(data.fields, Fields::Named(_)),
        Data::Enum(data) => {
            data.variants.iter().any(|variant| matches!(variant.fields, Fields::Named(_)))
        }
        Data::Union(_) => false,
    }
}

/// Whether a serde attribute of the type or of one of its fields has this word.
fn mentions(input: &DeriveInput, word: &str) -> bool {
    let fields: Vec<_> = match &input.data {
        Data::Struct(data) => data.fields.iter().collect(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    };
    let of_fields = fields.into_iter().flat_map(|field| &field.attrs);
    input.attrs.iter().chain(of_fields).any(|attribute| {
        let list = attribute.meta.require_list().ok();
        attribute.path().is_ident("serde")
            && list.is_some_and(|list| {
                let words = list.tokens.clone().into_iter();
                words.into_iter().any(|token| token.to_string() == word)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(item: &TokenStream) -> String {
        config(&TokenStream::new(), item).unwrap().to_string()
    }

    fn refusal(arguments: &TokenStream, item: &TokenStream) -> String {
        config(arguments, item).unwrap_err().to_string()
    }

    #[test]
    fn unknown_members_are_refused_where_there_are_names() {
        let strict = "# [serde (deny_unknown_fields)]";
        for (item, expected) in [
            (
                quote!(
                    struct C {
                        a: u8,
                    }
                ),
                1,
            ),
            (
                quote!(
                    enum C {
                        A { b: u8 },
                        B,
                    }
                ),
                1,
            ),
            (
                quote!(
                    #[serde(default, deny_unknown_fields)]
                    struct C {
                        a: u8,
                    }
                ),
                0,
            ),
            (
                quote!(
                    struct C {
                        #[serde(flatten)]
                        a: A,
                    }
                ),
                0,
            ),
            (
                quote!(
                    struct C(u8);
                ),
                0,
            ),
            (
                quote!(
                    enum C {
                        A,
                        B(u8),
                    }
                ),
                0,
            ),
        ] {
            assert_eq!(expand(&item).matches(strict).count(), expected, "{item}");
        }
    }

    #[test]
    fn what_a_type_is_made_from_describes_it() {
        let item = quote!(
            #[serde(rename(deserialize = "d"), default = "f", try_from = "String")]
            struct C {
                a: NotDescribed,
            }
        );
        assert!(expand(&item).contains("# [schemars (with = \"String\")]"));
    }

    #[test]
    fn what_cannot_be_a_config_is_refused() {
        let none = TokenStream::new();
        let function = quote!(
            fn f() {}
        );
        assert!(refusal(&none, &function).contains("a struct or an enum"));
        let union = quote!(
            union U {
                a: u8,
            }
        );
        assert!(refusal(&none, &union).contains("a struct or an enum"));
        let derived = quote!(
            #[derive(Debug, serde::Deserialize)]
            struct C;
        );
        assert!(refusal(&none, &derived).contains("derives `Deserialize` itself"));
        let unit = quote!(
            struct C;
        );
        assert!(refusal(&quote!(strict), &unit).contains("no arguments"));
    }
}
