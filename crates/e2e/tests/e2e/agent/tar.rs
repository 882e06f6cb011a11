//! Checklist C06: archives that try to leave, and those that do not.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use e2e::sandbox::Sandbox;
use reqwest::Method;
use serde_json::Value;
use tar::{Builder, EntryType, Header};

/// An entry: kind, name, what it links to or holds, mode.
type Entry<'a> = (EntryType, &'a str, &'a str, u32);

/// An archive whose names are written as they are, whatever they say.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content, mode) in entries {
        let mut header = Header::new_gnu();
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if is_link {
            header.as_gnu_mut().unwrap().linkname[..content.len()]
                .copy_from_slice(content.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_mtime(1_000_000);
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        header.set_cksum();
        builder.append(&header, if is_link { &[][..] } else { content.as_bytes() }).unwrap();
    }
    builder.into_inner().unwrap()
}

async fn upload(sandbox: &Sandbox, path: &str, tar: Vec<u8>) -> (u16, Value) {
    let request = sandbox.request(Method::POST, &format!("/v1/fs/upload-batch?path={path}"));
    sandbox.ask(request.header("content-type", "application/x-tar").body(tar)).await
}

#[tokio::test]
async fn c06_an_archive_that_leaves_is_refused_before_anything_is_written() {
    let sandbox = Sandbox::new().await;
    let file = EntryType::Regular;
    let cases: Vec<Vec<Entry<'_>>> = vec![
        vec![(file, "first", "x", 0o644), (file, "../out", "x", 0o644)],
        vec![(file, "first", "x", 0o644), (file, "/tmp/agentjail-absolute", "x", 0o644)],
        vec![(file, "first", "x", 0o644), (file, "a/../../out", "x", 0o644)],
        vec![
            (file, "first", "x", 0o644),
            (EntryType::Symlink, "l", "/etc", 0o777),
            (file, "l/x", "x", 0o644),
        ],
        vec![(file, "first", "x", 0o644), (EntryType::Symlink, "l", "../..", 0o777)],
        vec![(file, "first", "x", 0o644), (EntryType::Link, "h", "/etc/hostname", 0o644)],
        vec![(file, "first", "x", 0o644), (EntryType::Link, "h", "../out", 0o644)],
        vec![(EntryType::Symlink, "d/l", "../../x", 0o777)],
    ];
    for (number, entries) in cases.iter().enumerate() {
        let (status, answer) = upload(&sandbox, &format!("case{number}"), archive(entries)).await;
        assert_eq!(status, 400, "{entries:?}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("leaves"), "{answer}");
        let made = std::fs::read_dir(sandbox.path(&format!("case{number}"))).unwrap().count();
        assert_eq!(made, 0, "{entries:?}");
    }
    assert!(!std::fs::exists(sandbox.path("out")).unwrap());
}

#[tokio::test]
async fn c06_nothing_is_written_through_a_link_that_is_there_already() {
    let sandbox = Sandbox::new().await;
    std::fs::create_dir_all(sandbox.path("box")).unwrap();
    std::fs::create_dir_all(sandbox.path("outside")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("outside"), sandbox.path("box/way")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("outside/victim"), sandbox.path("box/leaf")).unwrap();
    let through = archive(&[(EntryType::Regular, "way/file", "evil", 0o644)]);
    assert_eq!(upload(&sandbox, "box", through).await.0, 400);
    let onto = archive(&[(EntryType::Regular, "leaf", "new", 0o644)]);
    assert_eq!(upload(&sandbox, "box", onto).await.0, 200);
    assert_eq!(std::fs::read_dir(sandbox.path("outside")).unwrap().count(), 0);
    assert_eq!(std::fs::read(sandbox.path("box/leaf")).unwrap(), b"new");
    assert!(!std::fs::symlink_metadata(sandbox.path("box/leaf")).unwrap().is_symlink());
}

/// A link through a link that the archive makes itself.
#[tokio::test]
async fn c06_no_link_leaves_by_way_of_another() {
    let sandbox = Sandbox::new().await;
    std::fs::create_dir_all(sandbox.path("outside")).unwrap();
    let links = archive(&[
        (EntryType::Directory, "deep", "", 0o755),
        (EntryType::Symlink, "deep/k", "..", 0o777),
        (EntryType::Symlink, "m", "deep/k/../outside", 0o777),
    ]);
    assert_eq!(upload(&sandbox, "box", links).await.0, 400);
    assert!(std::fs::canonicalize(sandbox.path("box/m")).is_err());
}

#[tokio::test]
async fn c06_legal_links_modes_and_times_are_kept_and_devices_and_setuid_are_not() {
    let sandbox = Sandbox::new().await;
    let tar = archive(&[
        (EntryType::Directory, "d", "", 0o755),
        (EntryType::Regular, "d/run", "#!/bin/sh\n", 0o4755),
        (EntryType::Symlink, "inner", "d/run", 0o777),
        (EntryType::Symlink, "d/up", "../inner", 0o777),
        (EntryType::Link, "hard", "d/run", 0o755),
        (EntryType::Char, "device", "", 0o666),
        (EntryType::Fifo, "fifo", "", 0o666),
        (EntryType::Regular, "twice", "first", 0o644),
        (EntryType::Regular, "twice", "second", 0o600),
        (EntryType::Regular, "Case", "A", 0o644),
        (EntryType::Regular, "case", "B", 0o644),
        (EntryType::Regular, "./dot/./name", "x", 0o644),
    ]);
    let (status, answer) = upload(&sandbox, "t", tar).await;
    assert_eq!(status, 200, "{answer}");
    let about = |name: &str| std::fs::symlink_metadata(sandbox.path(&format!("t/{name}"))).unwrap();
    assert_eq!(about("d/run").permissions().mode() & 0o7777, 0o755);
    assert_eq!((about("d/run").mtime(), about("d/run").nlink()), (1_000_000, 2));
    assert!(about("inner").is_symlink() && about("d/up").is_symlink());
    assert_eq!(std::fs::read_to_string(sandbox.path("t/d/up")).unwrap(), "#!/bin/sh\n");
    assert!(!std::fs::exists(sandbox.path("t/device")).unwrap());
    assert!(!std::fs::exists(sandbox.path("t/fifo")).unwrap());
    assert_eq!(std::fs::read(sandbox.path("t/twice")).unwrap(), b"second");
    assert_eq!(std::fs::read(sandbox.path("t/Case")).unwrap(), b"A");
    assert_eq!(std::fs::read(sandbox.path("t/dot/name")).unwrap(), b"x");
    // And it comes back as it went in.
    let bytes = sandbox.get("/v1/fs/archive?path=t").send().await.unwrap().bytes().await.unwrap();
    let back = tempfile::tempdir().unwrap();
    tar::Archive::new(&bytes[..]).unpack(back.path()).unwrap();
    assert_eq!(std::fs::read(back.path().join("d/up")).unwrap(), b"#!/bin/sh\n");
}

#[tokio::test]
async fn c06_long_names_many_entries_and_what_is_no_archive() {
    let sandbox = Sandbox::new().await;
    // A name of 64 KiB, by GNU's extension.
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    let long = vec!["x".repeat(200); 320].join("/");
    builder.append_data(&mut header, long, &b"x"[..]).unwrap();
    assert_eq!(upload(&sandbox, "long", builder.into_inner().unwrap()).await.0, 400);
    // An extension of many mebibytes would be taken into memory to be refused.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.as_gnu_mut().unwrap().name[..3].copy_from_slice(b"@@@");
    header.set_size(64 << 20);
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(512 + (64 << 20), b'n');
    let before = super::files::memory(&sandbox);
    assert_eq!(upload(&sandbox, "extension", tar).await.0, 400);
    assert!(super::files::memory(&sandbox).saturating_sub(before) < 16 * 1024);
    // A length that is not there: the archive breaks off.
    let mut cut = archive(&[(EntryType::Regular, "cut", &"x".repeat(5000), 0o644)]);
    cut.truncate(2000);
    assert_eq!(upload(&sandbox, "cut", cut).await.0, 400);
    assert_eq!(std::fs::read_dir(sandbox.path("cut")).unwrap().count(), 0);
    let (status, answer) = upload(&sandbox, "zip", vec![0x1f, 0x8b, 8, 0]).await;
    assert!(status == 400 && answer["detail"].as_str().unwrap().contains("compressed"), "{answer}");
    assert_eq!(upload(&sandbox, "empty", Vec::new()).await.0, 200);
    let (status, _) = sandbox
        .ask(
            sandbox
                .request(Method::POST, "/v1/fs/upload-batch?path=x")
                .header("content-type", "text/plain"),
        )
        .await;
    assert_eq!(status, 400);
    // Many: the answer lists some, and says that there are more.
    let names: Vec<String> = (0..2000).map(|number| format!("f{number}")).collect();
    let entries: Vec<Entry<'_>> =
        names.iter().map(|name| (EntryType::Regular, name.as_str(), "x", 0o644)).collect();
    let (status, answer) = upload(&sandbox, "many", archive(&entries)).await;
    assert_eq!((status, answer["paths"].as_array().unwrap().len()), (200, 1024));
    assert_eq!(
        (answer["truncated"].as_bool(), answer["uploaded"].as_u64()),
        (Some(true), Some(2000))
    );
}
