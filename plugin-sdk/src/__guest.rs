//! What the generated code of a plugin calls inside the sandbox. No part of the public interface.

pub(crate) mod host;

use std::marker::PhantomData;
use std::panic::PanicHookInfo;

use bindings::exports::hookmill::plugin::transformer::Guest;
use bindings::hookmill::plugin::{log as gateway_log, types};

use crate::event::{Context, Event};
use crate::failure::{Failure, Result};
use crate::log::Level;
use crate::transform::fill_in;
use crate::verdict::{Body, HeaderChange, Outgoing, Verdict};

#[expect(missing_docs, reason = "generated from the contract")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit/since-v1.0",
        world: "plugin-with-capabilities",
        pub_export_macro: true,
        default_bindings_module: "hookmill_plugin::__guest::bindings",
        disable_run_ctors_once_workaround: true,
    });
}

/// A plugin, as the attribute macro describes it.
pub trait Plugin {
    /// The name of the plugin's crate.
    const NAME: &'static str;
    /// The version of the plugin's crate.
    const VERSION: &'static str;
    /// What the plugin does, for people.
    const DESCRIPTION: &'static str;

    /// The schema of its config; none when any JSON will do.
    fn config_schema() -> Option<String>;

    /// Calls the annotated function.
    fn transform(event: Event<&str>, context: Context<&str>) -> Result<Verdict>;
}

/// Lets the gateway call a [`Plugin`].
#[derive(Debug)]
pub struct Export<P>(PhantomData<P>);

impl<P: Plugin> Guest for Export<P> {
    fn describe() -> types::Description {
        std::panic::set_hook(Box::new(report_panic));
        types::Description {
            name: P::NAME.to_owned(),
            version: P::VERSION.to_owned(),
            description: P::DESCRIPTION.to_owned(),
            config_schema: P::config_schema(),
            capabilities: Vec::new(),
            extensions: Vec::new(),
        }
    }

    fn transform(
        event: types::Event,
        context: types::Context,
    ) -> Result<types::Verdict, types::Failure> {
        std::panic::set_hook(Box::new(report_panic));
        let (payload, event) = lift_event(event);
        let (config, context) = lift_context(context);
        let event = event.replace_payload(payload.as_str()).1;
        let context = context.replace_config(config.as_str()).1;
        match P::transform(event, context) {
            Ok(verdict) => Ok(lower_verdict(fill_in(verdict, payload))),
            Err(failure) => Err(lower_failure(failure)),
        }
    }
}

/// Sends a message to the gateway's log.
pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Trace => gateway_log::Level::Trace,
        Level::Debug => gateway_log::Level::Debug,
        Level::Info => gateway_log::Level::Info,
        Level::Warn => gateway_log::Level::Warn,
        Level::Error => gateway_log::Level::Error,
    };
    gateway_log::log(level, message);
}

/// Sends a panic's message to the gateway's log: std would lose it here. The trap follows by itself.
fn report_panic(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("(no message)");
    let text = match info.location() {
        Some(place) => format!("panicked at {place}: {message}"),
        None => format!("panicked: {message}"),
    };
    log(Level::Error, &text);
}

fn lift_event(event: types::Event) -> (String, Event<()>) {
    let types::Event { id, type_, tenant, timestamp, payload, attributes, extensions } = event;
    let event =
        Event { id, event_type: type_, tenant, timestamp, payload: (), attributes, extensions };
    (payload, event)
}

fn lift_context(context: types::Context) -> (String, Context<()>) {
    let types::Context {
        webhook_id,
        webhook_name,
        webhook_metadata,
        delivery_id,
        config,
        extensions,
    } = context;
    let context =
        Context { webhook_id, webhook_name, webhook_metadata, delivery_id, config: (), extensions };
    (config, context)
}

fn lower_verdict(verdict: Verdict) -> types::Verdict {
    match verdict {
        Verdict::Forward(parts) => {
            types::Verdict::Forward(parts.into_iter().map(lower_outgoing).collect())
        }
        Verdict::Drop(reason) => types::Verdict::Drop(reason),
    }
}

fn lower_outgoing(outgoing: Outgoing) -> types::Outgoing {
    let Outgoing { body, content_type, headers, method, path_suffix, query, extensions } = outgoing;
    types::Outgoing {
        body: match body {
            Body::Text(text) => types::Body::Text(text),
            Body::Bytes(bytes) => types::Body::Bytes(bytes),
            Body::Payload => types::Body::Text(String::new()),
        },
        content_type,
        headers: headers.into_iter().map(lower_header).collect(),
        method,
        path_suffix,
        query,
        extensions,
    }
}

fn lower_header(change: HeaderChange) -> types::HeaderChange {
    match change {
        HeaderChange::Set(name, value) => types::HeaderChange::Set((name, value)),
        HeaderChange::Remove(name) => types::HeaderChange::Remove(name),
    }
}

fn lower_failure(failure: Failure) -> types::Failure {
    match failure {
        Failure::Invalid(message) => types::Failure::Invalid(message),
        Failure::Retry(message) => types::Failure::Retry(message),
    }
}
