//! A file system without room: what is refused, that nothing acknowledged is lost, and that it goes on by itself.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use hookmill_tests::{Answer, Gateway, Receiver, Running, eventually};
use serde_json::json;

/// The size of the file system, and what is left in it when the test begins.
const SIZE: &str = "size=64m";
const LEFT: u64 = 2 << 20;

/// What ends the room: a file system of its own, where this process may mount one; otherwise a limit on the size of
/// the gateway's files, which the system keeps as strictly.
enum Disk {
    Mounted(PathBuf),
    Limited,
}

impl Disk {
    fn mount(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(folder)
            .output()
            .is_ok_and(|mount| mount.status.success());
        match mounted {
            true => Self::Mounted(folder.to_owned()),
            false => {
                println!(
                    "no file system can be mounted here; the size of files is limited instead"
                );
                Self::Limited
            }
        }
    }

    fn fill(&self, gateway: &Running) {
        match self {
            Self::Mounted(folder) => {
                let space = rustix::fs::statvfs(folder).unwrap();
                let fill = space.f_bavail * space.f_frsize - LEFT;
                let mut file = File::create(folder.join("ballast")).unwrap();
                file.write_all(&vec![0; usize::try_from(fill).unwrap()]).unwrap();
            }
            Self::Limited => gateway.limit_files(Some(LEFT)),
        }
    }

    fn make_room(&self, gateway: &Running) {
        match self {
            Self::Mounted(folder) => fs::remove_file(folder.join("ballast")).unwrap(),
            Self::Limited => gateway.limit_files(None),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(folder) = self {
            // Lazily: the gateway may not be gone yet.
            drop(Command::new("umount").arg("-l").arg(folder).status());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_room_loses_nothing_and_is_got_over_without_a_restart() {
    let receiver = Receiver::start().await;
    let gateway =
        Gateway::new().setting("store.min_free_bytes = 0").webhook(receiver.webhook("all"));
    let disk = Disk::mount(&gateway.folder().join("data"));
    let gateway = gateway.start().await;
    let body = json!({ "type": "load", "data": "x".repeat(20_000) }).to_string();
    let send = async || gateway.request(body.clone(), &[]).await.unwrap();
    let id = |answer: &Answer| answer.body["events"][0]["id"].as_str().unwrap().to_owned();
    disk.fill(&gateway);
    let mut acknowledged = BTreeSet::new();
    let mut refused = 0;
    while refused < 20 {
        let answer = send().await;
        match answer.status {
            202 => drop(acknowledged.insert(id(&answer))),
            _ => {
                refused += 1;
                assert_eq!(answer.status, 503, "{}", answer.body);
                assert_eq!(answer.body["code"], "store_unavailable");
                assert_eq!(answer.headers["retry-after"], "10");
            }
        }
        assert!(acknowledged.len() < 5_000, "no limit");
    }
    assert!(!acknowledged.is_empty());
    disk.make_room(&gateway);
    for _ in 0..20 {
        let answer = send().await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        acknowledged.insert(id(&answer));
    }
    eventually("all to arrive", || async { receiver.ids().len() >= acknowledged.len() }).await;
    for id in &acknowledged {
        assert_eq!(gateway.settled(id).await[0]["state"], "delivered");
    }
    // What was refused was not kept, and nothing came twice.
    assert_eq!(receiver.ids(), acknowledged);
    assert_eq!(receiver.received().len(), acknowledged.len());

    // A process that finds no room at its start says so, and loses nothing either.
    disk.fill(&gateway);
    gateway.stop().await;
}
