//! Plugin files as people, editors and systems write, replace and break them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use hookmill_tests::{Gateway, Receiver, Running, eventually, stamped, wasm};
use serde_json::json;

use crate::reload::{gateway, logs, runs, version};

fn count(gateway: &Running, what: &str) -> usize {
    gateway.log().matches(what).count()
}

#[tokio::test]
async fn the_ways_of_editors() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let plugins = gateway.plugins();
    let (file, backup) = (plugins.path("stamp"), plugins.join("stamp.wasm~"));

    // The old file moved away, and a new one made in its place.
    fs::rename(&file, &backup).unwrap();
    fs::write(&file, stamped("version-01")).unwrap();
    runs(&gateway, &receiver, "version-01").await;
    // A swap file, then the new content over the old one.
    fs::write(plugins.join(".stamp.wasm.swp"), "swap").unwrap();
    let mut open = File::options().write(true).truncate(true).open(&file).unwrap();
    open.write_all(&stamped("version-02")).unwrap();
    runs(&gateway, &receiver, "version-02").await;
    // Removed and put back at once: nobody is told that it was gone.
    fs::remove_file(&file).unwrap();
    fs::write(&file, stamped("version-03")).unwrap();
    runs(&gateway, &receiver, "version-03").await;
    // A link that is turned to another file.
    for stamp in ["version-04", "version-05"] {
        fs::write(plugins.join(stamp), stamped(stamp)).unwrap();
        symlink(stamp, plugins.join("aside")).unwrap();
        fs::rename(plugins.join("aside"), &file).unwrap();
        runs(&gateway, &receiver, stamp).await;
    }
    assert_eq!(count(&gateway, "plugin rejected"), 0, "{}", gateway.log());
}

#[tokio::test]
async fn a_manifest_that_changes_alone_takes_effect() {
    let receiver = Receiver::start().await;
    let webhook = receiver.webhook("it").plugins(&[("misbehave", json!({}))]);
    let gateway = Gateway::new().plugin("misbehave").webhook(webhook).start().await;
    let manifest = gateway.plugins().join("misbehave.toml");
    for (text, parts) in [
        ("[limits]\nparts = 2\n", 2),
        // Of the same length, so that only the times and the content tell.
        ("[limits]\nparts = 3\n", 3),
    ] {
        fs::write(&manifest, text).unwrap();
        let expected = format!("its limit is {parts}");
        eventually(&expected, || async {
            let id = gateway.send("a", json!({ "do": "many_parts", "count": 4 })).await;
            let deliveries = gateway.settled(&id).await;
            deliveries[0]["attempts"][0]["failure"]["message"].to_string().contains(&expected)
        })
        .await;
    }
    fs::remove_file(&manifest).unwrap();
    eventually("the default limit", || async {
        let id = gateway.send("a", json!({ "do": "many_parts", "count": 4 })).await;
        gateway.settled(&id).await.len() == 4
    })
    .await;
}

#[tokio::test]
async fn changes_show_without_notifications_too() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver)
        .setting("plugins.watch = false")
        .setting("plugins.poll = \"100ms\"")
        .start()
        .await;
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    // In place, of the same length, and with the old time of modification.
    let file = gateway.plugins().path("stamp");
    let modified = fs::metadata(&file).unwrap().modified().unwrap();
    gateway.plugins().write("stamp", &stamped("version-02"));
    File::options().append(true).open(&file).unwrap().set_modified(modified).unwrap();
    runs(&gateway, &receiver, "version-02").await;
}

#[tokio::test]
async fn a_folder_that_vanishes_and_returns() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).setting("plugins.poll = \"200ms\"").start().await;
    let folder = gateway.plugins().join("");
    for (round, stamp) in ["version-01", "version-02", "version-03"].into_iter().enumerate() {
        match round {
            // Gone for a while.
            0 => fs::remove_dir_all(&folder).unwrap(),
            // Another folder in its place.
            1 => fs::rename(&folder, folder.with_file_name("old")).unwrap(),
            // Gone and back at once, perhaps as the same inode.
            _ => {
                fs::remove_dir_all(&folder).unwrap();
                fs::create_dir(&folder).unwrap();
            }
        }
        if round < 2 {
            eventually("the complaint", || async { count(&gateway, "cannot be read") > round })
                .await;
        }
        assert_eq!(version(&gateway, &receiver).await, format!("version-0{round}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("stamp.wasm"), stamped(stamp)).unwrap();
        runs(&gateway, &receiver, stamp).await;
    }
    // The last time is too short to be seen for certain.
    let complaints = count(&gateway, "cannot be read");
    assert!((2..=3).contains(&complaints), "each time once: {}", gateway.log());
}

#[tokio::test]
async fn a_folder_that_is_not_there_yet() {
    let receiver = Receiver::start().await;
    let gateway = Gateway::new().webhook(receiver.webhook("it").plugins(&[("stamp", json!({}))]));
    let inside = gateway.folder().join("blocked");
    fs::write(&inside, "a file in the way").unwrap();
    let gateway = gateway
        .setting("plugins_dir = \"blocked/plugins\"")
        .setting("plugins.poll = \"200ms\"")
        .start()
        .await;
    logs(&gateway, "the plugin `stamp` is not loaded").await;
    fs::remove_file(&inside).unwrap();
    fs::create_dir_all(inside.join("plugins")).unwrap();
    fs::write(inside.join("plugins/stamp.wasm"), stamped("version-01")).unwrap();
    logs(&gateway, "plugin loaded").await;
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver);
    let folder = gateway.plugins().join("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(gateway.plugins().path("stamp"), fs::Permissions::from_mode(0o444))
        .unwrap();
    let gateway = gateway.start().await;
    assert_eq!(version(&gateway, &receiver).await, "version-00");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn thousands_of_files() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver);
    let plugins = gateway.plugins();
    for n in 0..2_000 {
        fs::write(plugins.join(&format!("note-{n}.txt")), "no plugin").unwrap();
    }
    for n in 0..300 {
        plugins.write(&format!("copy-{n}"), &stamped("version-00"));
    }
    let gateway = gateway.start().await;
    assert_eq!(count(&gateway, "plugin loaded"), 301);
    plugins.replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    for n in 0..300 {
        fs::remove_file(plugins.path(&format!("copy-{n}"))).unwrap();
    }
    eventually("their end", || async { count(&gateway, "plugin removed") == 300 }).await;
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn what_is_no_plugin_is_named_once_and_holds_up_nothing() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).setting("plugins.poll = \"100ms\"");
    let plugins = gateway.plugins();
    fs::create_dir(plugins.join("folder.wasm")).unwrap();
    symlink("nowhere", plugins.join("dangling.wasm")).unwrap();
    symlink("loop.wasm", plugins.join("loop.wasm")).unwrap();
    pipe(&plugins.join("pipe.wasm"));
    plugins.write("piped", &wasm("stamp"));
    pipe(&plugins.join("piped.toml"));
    plugins.write("texts", &wasm("stamp"));
    fs::write(plugins.join("texts.toml"), b"\xff\xfe").unwrap();
    plugins.write("empty", b"");
    plugins.write("two words", &wasm("stamp"));
    fs::write(plugins.join("").join(OsStr::from_bytes(b"caf\xe9.wasm")), wasm("stamp")).unwrap();
    fs::create_dir(plugins.join("No Tenant")).unwrap();
    fs::write(plugins.join("No Tenant/stamp.wasm"), wasm("stamp")).unwrap();
    fs::create_dir(plugins.join("Some Notes")).unwrap();
    fs::write(plugins.join("Some Notes/readme.txt"), "not about plugins").unwrap();
    let gateway = gateway.start().await;
    let expected = [
        "it is a folder",
        "it is a link that leads nowhere",
        "it cannot be read: ",
        "it is no regular file",
        "its piped.toml is no regular file",
        "its texts.toml is not UTF-8 text",
        "it is an empty file",
        "no plugin can have that name: it has the character ' '",
        "no plugin can have that name: it is not UTF-8",
        "no tenant can have that name: it has the character 'N'",
    ];
    for what in expected {
        logs(&gateway, what).await;
    }
    assert!(!gateway.log().contains("Some Notes"), "{}", gateway.log());
    plugins.replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    // Many looks later, nothing has been said again.
    for what in expected {
        assert_eq!(count(&gateway, what), 1, "{what}: {}", gateway.log());
    }
    // A plugin takes the place of a pipe.
    fs::remove_file(plugins.join("pipe.wasm")).unwrap();
    plugins.replace("pipe", &stamped("version-02"));
    let loaded = |log: &str| {
        log.lines().any(|line| line.contains("plugin loaded") && line.contains("plugin=pipe"))
    };
    eventually("the plugin", || async { loaded(&gateway.log()) }).await;
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_loaded_once_it_can() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let plugins = gateway.plugins();
    let aside = plugins.join("aside");
    fs::write(&aside, stamped("version-01")).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser reads everything.
    let readable = File::open(&aside).is_ok();
    fs::rename(&aside, plugins.path("stamp")).unwrap();
    if !readable {
        logs(&gateway, "it cannot be read: Permission denied").await;
        assert_eq!(version(&gateway, &receiver).await, "version-00");
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(plugins.path("stamp"), mode).unwrap();
    }
    runs(&gateway, &receiver, "version-01").await;
}

#[tokio::test]
async fn a_file_that_keeps_growing_holds_up_nothing() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver);
    let growing = gateway.plugins().path("growing");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut file = File::create(growing).unwrap();
            while !stop.load(Ordering::SeqCst) {
                file.write_all(b"\0asm and on and on").unwrap();
                file.sync_data().unwrap();
            }
        }
    });
    let gateway = gateway.start().await;
    gateway.plugins().replace("stamp", &stamped("version-01"));
    runs(&gateway, &receiver, "version-01").await;
    logs(&gateway, "the file keeps changing").await;
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    logs(&gateway, "plugin rejected").await;
    assert_eq!(count(&gateway, "the file keeps changing"), 1, "{}", gateway.log());
}

#[tokio::test]
async fn a_refused_file_is_reported_once_and_again_when_its_content_changes() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver)
        .setting("plugins.poll = \"100ms\"")
        .setting("log.filter = \"info,hookmill::reload=debug\"")
        .start()
        .await;
    let plugins = gateway.plugins();
    plugins.replace("bad", b"no wasm");
    logs(&gateway, "plugin rejected").await;
    // Written again, touched, and long enough for it to be compared once more.
    plugins.replace("bad", b"no wasm");
    let file = File::options().append(true).open(plugins.path("bad")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
    eventually("the comparison", || async {
        let same = "the files hold what they held before";
        gateway.log().lines().any(|line| line.contains(same) && line.contains("plugin=bad"))
    })
    .await;
    assert_eq!(count(&gateway, "plugin rejected"), 1, "{}", gateway.log());
    plugins.replace("bad", b"no wasm either");
    eventually("a second report", || async { count(&gateway, "plugin rejected") == 2 }).await;
}

#[tokio::test]
async fn a_tenants_folder_comes_and_goes() {
    let receiver = Receiver::start().await;
    let gateway = gateway(&receiver).start().await;
    let own = gateway.plugins().join("acme");
    for (folder, stamp) in [("one", "version-01"), ("two", "version-02")] {
        // Moved into place with the plugin in it already.
        let aside = gateway.folder().join(folder);
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("stamp.wasm"), stamped(stamp)).unwrap();
        if own.exists() {
            fs::rename(&own, gateway.folder().join("away")).unwrap();
        }
        fs::rename(&aside, &own).unwrap();
        runs(&gateway, &receiver, stamp).await;
        // And watched from then on.
        let stamp = stamp.replace("-0", "-1");
        fs::write(own.join("stamp.wasm"), stamped(&stamp)).unwrap();
        runs(&gateway, &receiver, &stamp).await;
    }
}
