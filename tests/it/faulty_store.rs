//! A store that fails, answers late, or does what it says it could not: the pipeline keeps its promises over it, with
//! real producers and a real receiver.

use std::sync::Arc;
use std::time::Duration;

use hookmill::config::{Config, Environment};
use hookmill::deliver::Client;
use hookmill::pipeline::{self, Pipeline};
use hookmill::record::{SqliteStore, Store};
use hookmill::reload::Reloader;
use hookmill::shutdown::{self, Trigger};
use hookmill::snapshot::{Current, PluginSet, Snapshot};
use hookmill::transform::Runtime;
use hookmill::{admin, ingest, server};
use hookmill_tests::{
    Api, Dice, Faults, Faulty, Gateway, Ledger, Load, Receiver, Reckoning, Reply, Shape, eventually,
};
use serde_json::json;
use tokio::net::TcpListener;

/// Events that are accepted while things go wrong.
const EVENTS: usize = 150;

/// How long what is under way may take at the end.
const GRACE: Duration = Duration::from_secs(30);

/// A gateway inside this process, with a store of the test's choice.
struct Inside {
    url: String,
    trigger: Trigger,
}

impl Inside {
    /// Starts a gateway as it is configured. What its API tells comes from `sound`.
    async fn start(gateway: &Gateway, store: Arc<dyn Store>, sound: Arc<dyn Store>) -> Self {
        let config = configured(gateway);
        let (trigger, drain) = shutdown::channel();
        let client = Client::new(&config.deliver).unwrap();
        let services = pipeline::services(Arc::clone(&store), client.clone()).await.unwrap();
        let runtime = Runtime::new(config.transform).unwrap().with_services(services);
        let current = Current::new(Snapshot::new(config.tenants, PluginSet::default()));
        let mut reloader = Reloader::new(config.reload, runtime);
        reloader.scan(&current).await;
        let pipeline =
            Pipeline::start(&config.pipeline, store, current.clone(), client, drain.clone());
        let pipeline = pipeline.await.unwrap();
        let routes = ingest::routes(config.ingest, current.clone(), pipeline.clone())
            .merge(admin::routes(current, sound, pipeline, drain.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(server::run(listener, routes, drain));
        Self { url, trigger }
    }
}

fn configured(gateway: &Gateway) -> Config {
    let environment = Environment::default();
    Config::parse(&gateway.configuration(), gateway.folder(), &environment).unwrap()
}

/// Three webhooks, one of which gets each event in three parts, and one that keeps the order. The receiver fails now and then.
async fn set_up() -> (Receiver, Gateway) {
    let receiver = Receiver::answering(|request, before| {
        let unlucky = request.id().bytes().map(usize::from).sum::<usize>() % 5 == 0;
        Reply::status(if unlucky && before == 0 { 500 } else { 200 })
    })
    .await;
    let retry = json!(["50ms", "200ms", "1s", "3s"]);
    let three = json!({ "do": "many_parts", "count": 3 });
    let split = receiver.webhook("split").plugins(&[("misbehave", three)]);
    let gateway = Gateway::new()
        .plugin("misbehave")
        .webhook(receiver.webhook("plain").set("retry", &retry))
        .webhook(split.set("retry", &retry))
        .webhook(receiver.webhook("fifo").set("retry", &retry).set("ordering", &json!("fifo")));
    // Plugins are compiled by the gateway's own binary, and this process is another.
    let gateway = gateway.start().await.stop().await;
    (receiver, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_is_torn_heals_without_a_restart() {
    let faults = Faults { fail: 10, tear: 10, delay: 20, tear_claims: false };
    let (receiver, gateway) = set_up().await;
    let sound = Arc::new(SqliteStore::open(&configured(&gateway).record).unwrap());
    let dice = Dice::fresh();
    println!("seed {}", dice.seed);
    let faulty = Arc::new(Faulty::new(sound.clone(), faults, dice));
    let inside = Inside::start(&gateway, faulty.clone(), sound).await;
    let (api, ledger) = (Api::at(&inside.url), Ledger::default());
    let load = Load::start(&Shape::small("it"), &api, &ledger);
    load.progress(EVENTS).await;
    let (failed, torn) = faulty.heal();
    assert!(failed > 10 && torn > 10, "{failed} operations failed, {torn} were torn");
    load.progress(1).await;
    load.end().await;
    let reckoning = Reckoning::of(&ledger, &api, &receiver, 5).await;
    println!("{failed} operations failed, {torn} were torn; {reckoning}");
    reckoning.assert_kept(torn, 1);
    assert_eq!(reckoning.delivered, reckoning.deliveries, "{reckoning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_out_and_not_told_is_found_at_the_next_start() {
    let faults = Faults { fail: 5, tear: 20, delay: 10, tear_claims: true };
    let (receiver, gateway) = set_up().await;
    let config = configured(&gateway).record;
    let sound = Arc::new(SqliteStore::open(&config).unwrap());
    let dice = Dice::fresh();
    println!("seed {}", dice.seed);
    let faulty = Arc::new(Faulty::new(sound.clone(), faults, dice));
    let inside = Inside::start(&gateway, faulty.clone(), sound.clone()).await;
    let ledger = Ledger::default();
    let load = Load::start(&Shape::small("it"), &Api::at(&inside.url), &ledger);
    load.progress(EVENTS).await;
    let (_, torn) = faulty.heal();
    assert!(torn > 10, "{torn} operations were torn");
    load.end().await;
    assert!(inside.trigger.drain(GRACE).await, "something does not end");
    // Its lock goes with the last who knows it.
    drop(faulty);
    eventually("the store's last owner", || async { Arc::strong_count(&sound) == 1 }).await;
    drop(sound);

    let sound = Arc::new(SqliteStore::open(&config).unwrap());
    let inside = Inside::start(&gateway, sound.clone(), sound).await;
    let api = Api::at(&inside.url);
    let reckoning = Reckoning::of(&ledger, &api, &receiver, 5).await;
    println!("{torn} were torn; {reckoning}");
    reckoning.assert_kept(torn, 1);
    assert_eq!(reckoning.delivered, reckoning.deliveries, "{reckoning}");
}
