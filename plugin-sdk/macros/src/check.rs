//! Refuses what cannot be a transform, where it stands.

use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, ReturnType, Safety, Signature};

/// The function, if it can be a transform; otherwise every reason why not.
pub(crate) fn check(arguments: &TokenStream, item: &TokenStream) -> Result<ItemFn, Error> {
    let function: ItemFn = syn::parse2(item.clone())
        .map_err(|error| Error::new(error.span(), "`#[transform]` belongs on a function"))?;
    let mut errors = Vec::new();
    if !arguments.is_empty() {
        errors.push(Error::new(arguments.span(), "`#[transform]` takes no arguments yet"));
    }
    check_signature(&function.sig, &mut errors);
    match errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    }) {
        Some(error) => Err(error),
        None => Ok(function),
    }
}

fn check_signature(signature: &Signature, errors: &mut Vec<Error>) {
    let mut refuse = |span, message| errors.push(Error::new(span, message));
    if let Some(keyword) = &signature.asyncness {
        refuse(keyword.span(), "a transform cannot be async: a plugin has nothing to wait for");
    }
    if let Safety::Unsafe(keyword) = &signature.safety {
        refuse(keyword.span(), "a transform cannot be unsafe");
    }
    if let Some(abi) = &signature.abi {
        refuse(abi.span(), "a transform is a plain Rust function");
    }
    let type_parameters = signature.generics.params.iter();
    for parameter in type_parameters.filter(|one| !matches!(one, syn::GenericParam::Lifetime(_))) {
        refuse(
            parameter.span(),
            "a transform cannot be generic: the gateway calls it with one type of payload",
        );
    }
    for parameter in &signature.inputs {
        if let FnArg::Receiver(receiver) = parameter {
            refuse(receiver.span(), "a transform cannot take `self`: make it a free function");
        }
    }
    if signature.inputs.is_empty() {
        refuse(
            signature.ident.span(),
            "a transform takes an `Event<T>`, and a `Context<C>` if it wants one",
        );
    }
    for parameter in signature.inputs.iter().skip(2) {
        refuse(
            parameter.span(),
            "a transform takes two parameters at most: an `Event<T>` and a `Context<C>`",
        );
    }
    if matches!(signature.output, ReturnType::Default) {
        refuse(signature.ident.span(), "a transform returns a `Verdict` or a `Result<Verdict>`");
    }
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    fn refusals(arguments: &TokenStream, item: &TokenStream) -> Vec<String> {
        match check(arguments, item) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
        }
    }

    #[test]
    fn functions_with_one_or_two_parameters_are_accepted() {
        let none = Vec::<String>::new();
        for item in [
            quote!(
                fn f(event: Event<Order>) -> Verdict {
                    todo()
                }
            ),
            quote!(
                pub(crate) fn f(event: Event<&str>, _: Context<C>) -> Result<Verdict> {
                    todo()
                }
            ),
            quote!(
                fn f<'a>(event: Event<Order<'a>>) -> Verdict {
                    todo()
                }
            ),
        ] {
            assert_eq!(refusals(&TokenStream::new(), &item), none);
        }
    }

    /// Each item is refused for one reason, which says this.
    fn check_refusals(rows: &[(TokenStream, &str)]) {
        for (item, reason) in rows {
            let refusals = refusals(&TokenStream::new(), item);
            assert_eq!(refusals.len(), 1, "{item}");
            assert!(refusals[0].contains(reason), "{refusals:?}");
        }
    }

    #[test]
    fn other_kinds_of_items_and_functions_are_refused() {
        check_refusals(&[
            (
                quote!(
                    struct S;
                ),
                "belongs on a function",
            ),
            (
                quote!(
                    async fn f(e: Event) -> Verdict {}
                ),
                "cannot be async",
            ),
            (
                quote!(
                    unsafe fn f(e: Event) -> Verdict {}
                ),
                "cannot be unsafe",
            ),
            (
                quote!(
                    extern "C" fn f(e: Event) -> Verdict {}
                ),
                "plain Rust function",
            ),
            (
                quote!(
                    fn f<T>(e: Event<T>) -> Verdict {}
                ),
                "cannot be generic",
            ),
        ]);
    }

    #[test]
    fn other_parameters_and_results_are_refused() {
        check_refusals(&[
            (
                quote!(
                    fn f(&self) -> Verdict {}
                ),
                "cannot take `self`",
            ),
            (
                quote!(
                    fn f() -> Verdict {}
                ),
                "takes an `Event<T>`",
            ),
            (
                quote!(
                    fn f(e: Event, c: Context, x: u8) -> Verdict {}
                ),
                "two parameters",
            ),
            (
                quote!(
                    fn f(e: Event) {}
                ),
                "returns a `Verdict`",
            ),
        ]);
    }

    #[test]
    fn arguments_are_refused() {
        let item = quote!(
            fn f(e: Event) -> Verdict {}
        );
        assert!(refusals(&quote!(name = "x"), &item)[0].contains("no arguments yet"));
    }

    #[test]
    fn all_reasons_are_given_at_once() {
        let item = quote!(
            async fn f<T>() {}
        );
        assert_eq!(refusals(&TokenStream::new(), &item).len(), 4);
    }
}
