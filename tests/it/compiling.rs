//! Compiling: bounded, kept, and no delay for others.

use std::fs;

use hookmill_tests::{Receiver, Running, binary, eventually, slow_to_compile, stamped, wasm};

use crate::reload::{gateway, logs, runs, version};

#[tokio::test]
async fn what_takes_too_long_to_compile_is_refused() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).setting("plugins.compile_time = \"1s\"").start().await;
    gateway.plugins().replace("slow", &slow_to_compile(60, 10_000));
    logs(&gateway, "compiling it took longer than 1s (`plugins.compile_time`)").await;
    runs(&gateway, &receiver, "version-00").await;
}

#[tokio::test]
async fn what_takes_too_much_memory_to_compile_is_refused() {
    let receiver = Receiver::start().await;
    let gateway =
        gateway(&receiver).setting("plugins.compile_memory_bytes = \"100 MiB\"").start().await;
    gateway.plugins().replace("large", &slow_to_compile(1, 90_000));
    logs(&gateway, "compiling it needs more memory than 104857600 bytes").await;
    runs(&gateway, &receiver, "version-00").await;
}

#[tokio::test]
async fn a_slow_compilation_delays_no_other_plugin_and_not_its_own_successor() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    gateway.plugins().replace("slow", &slow_to_compile(80, 10_000));
    gateway.plugins().replace("stamp", &slow_to_compile(81, 10_000));
    let compilers = || compilers_of(&gateway).len();
    eventually("two compilers", || async { compilers() == 2 }).await;
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    // What was called off comes to nothing, ever; the other one still runs or has ended.
    assert!(compilers() <= 1);
    let log = gateway.log();
    assert!(!log.lines().any(|line| line.contains("rejected") && line.contains("stamp")), "{log}");
}

/// The processes that the gateway has started.
fn compilers_of(gateway: &Running) -> Vec<String> {
    let children = format!("/proc/{0}/task", gateway.id());
    let threads = fs::read_dir(children).unwrap();
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children"));
    let children: Vec<String> = threads.filter_map(|thread| of(thread.unwrap()).ok()).collect();
    children.join(" ").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_start_waits_for_slow_plugins_no_longer_than_it_is_told_to() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).setting("plugins.start_wait = \"1ms\"");
    gateway.plugins().write("slow", &slow_to_compile(4, 10_000));
    let gateway = gateway.start().await;
    let log = gateway.log();
    let said = log.lines().find(|line| line.contains("these plugins take long to load"));
    assert!(said.unwrap().contains("slow"), "{log}");
    logs(&gateway, "plugin loaded").await;
    runs(&gateway, &receiver, "version-00").await;
    // It goes on afterwards, and the file is no plugin.
    logs(&gateway, "it does not export").await;
}

#[tokio::test]
async fn compiling_goes_on_after_the_binary_was_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("hookmill");
    fs::copy(binary(), &copy).unwrap();
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).run_from(copy.clone()).start().await;
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, "another version").unwrap();
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn what_was_compiled_once_is_loaded_from_the_cache() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver);
    let cache = gateway.folder().join("data/plugin-cache");
    let running = gateway.start().await;
    assert_eq!(version(&running, &receiver).await, "version-00");
    let stopped = running.stop().await;
    let files: Vec<_> = fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    // The same file is there afterwards, not another one of the same content.
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).unwrap());
    let kept = inode();
    let stopped = stopped.start().await.stop().await;
    assert_eq!(inode(), kept);
    // Damage shows, and is mended by compiling again.
    fs::write(file, b"damaged").unwrap();
    let gateway = stopped.start().await;
    assert_eq!(version(&gateway, &receiver).await, "version-00");
    assert!(fs::read(file).unwrap().len() > 1000);
}

#[tokio::test]
async fn the_cache_is_bounded_and_keeps_what_is_in_use() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).setting("plugins.cache_bytes = 0");
    let cache = gateway.folder().join("data/plugin-cache");
    let gateway = gateway.plugin("redact").start().await;
    for n in 1..=3 {
        let stamp = format!("version-{n:02}");
        gateway.plugins().replace("stamp", &stamped(&stamp));
        runs(&gateway, &receiver, &stamp).await;
    }
    // Those of both plugins as they are now, and of what was replaced last, which was in use until then.
    let kept: Vec<_> = fs::read_dir(&cache).unwrap().collect();
    assert!((2..=3).contains(&kept.len()), "{kept:?}");
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_only_costs_time() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver);
    fs::create_dir_all(gateway.folder().join("data")).unwrap();
    fs::write(gateway.folder().join("data/plugin-cache"), "in the way").unwrap();
    let gateway = gateway.start().await;
    logs(&gateway, "compiled plugins cannot be kept").await;
    runs(&gateway, &receiver, "version-00").await;
    let log = gateway.stop().await.start().await.log();
    assert_eq!(log.matches("compiled plugins cannot be kept").count(), 2, "{log}");
}

#[tokio::test]
async fn an_unloadable_file_costs_the_gateway_nothing_but_a_message() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let mut damaged = wasm("stamp");
    // Behind the headers, so that the compiler is the one to find out.
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    gateway.plugins().replace("damaged", &damaged);
    logs(&gateway, "plugin rejected").await;
    runs(&gateway, &receiver, "version-00").await;
}
