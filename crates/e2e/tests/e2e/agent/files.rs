//! Files: streamed, whole or not at all, and nowhere but below the root.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use e2e::sandbox::{Events, Sandbox};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_file_is_written_and_read_whole_and_in_parts() {
    let sandbox = Sandbox::new().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let put = sandbox.request(Method::PUT, "/v1/fs/file?path=a/b/c.bin").body(content.clone());
    let (status, answer) = sandbox.ask(put).await;
    assert_eq!((status, answer["bytesWritten"].as_u64()), (200, Some(3_000_000)), "{answer}");
    assert_eq!(answer["path"], sandbox.path("a/b/c.bin"));
    let response = sandbox.get("/v1/fs/file?path=a/b/c.bin").send().await.unwrap();
    assert_eq!(response.headers()["content-length"], "3000000");
    let etag = response.headers()["etag"].clone();
    assert_eq!(response.bytes().await.unwrap(), content);
    let range = async |range: &str| {
        let response =
            sandbox.get("/v1/fs/file?path=a/b/c.bin").header("range", range).send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    };
    assert_eq!(range("bytes=10-19").await, (206, content[10..20].to_vec()));
    assert_eq!(range("bytes=-5").await, (206, content[2_999_995..].to_vec()));
    assert_eq!(
        range("bytes=1000000-2500000").await,
        (206, content[1_000_000..=2_500_000].to_vec())
    );
    assert_eq!(range("bytes=3000000-").await.0, 416);
    let known = sandbox.get("/v1/fs/file?path=a/b/c.bin").header("if-none-match", &etag);
    assert_eq!(known.send().await.unwrap().status().as_u16(), 304);
    // Only if it is still what the writer has seen.
    let write = async |condition: &str, value: &str| {
        let put =
            sandbox.request(Method::PUT, "/v1/fs/file?path=a/b/c.bin").header(condition, value);
        put.body("new").send().await.unwrap().status().as_u16()
    };
    assert_eq!(write("if-match", "\"other\"").await, 412);
    assert_eq!(write("if-none-match", "*").await, 412);
    assert_eq!(write("if-match", etag.to_str().unwrap()).await, 200);
    assert_eq!(std::fs::read(sandbox.path("a/b/c.bin")).unwrap(), b"new");
    assert_eq!(std::fs::read_dir(sandbox.path("a/b")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_its_mode_and_a_link_stays_a_link() {
    let sandbox = Sandbox::new().await;
    std::fs::write(sandbox.path("run.sh"), "old").unwrap();
    std::fs::set_permissions(sandbox.path("run.sh"), std::fs::Permissions::from_mode(0o750))
        .unwrap();
    symlink("run.sh", sandbox.path("link")).unwrap();
    let put = sandbox.request(Method::PUT, "/v1/fs/file?path=link").body("new");
    assert_eq!(sandbox.ask(put).await.0, 200);
    assert_eq!(std::fs::read(sandbox.path("run.sh")).unwrap(), b"new");
    assert_eq!(std::fs::metadata(sandbox.path("run.sh")).unwrap().mode() & 0o777, 0o750);
    assert!(std::fs::symlink_metadata(sandbox.path("link")).unwrap().is_symlink());
}

#[tokio::test]
async fn an_upload_that_breaks_off_changes_nothing() {
    let sandbox = Sandbox::new().await;
    std::fs::write(sandbox.path("kept"), "kept").unwrap();
    let pieces = futures_util::stream::iter([
        Ok(vec![b'x'; 600_000]),
        Err(std::io::Error::other("the client breaks off")),
    ]);
    let put = sandbox
        .request(Method::PUT, "/v1/fs/file?path=kept")
        .body(reqwest::Body::wrap_stream(pieces));
    assert!(put.send().await.is_err());
    e2e::house::eventually("the half file is gone", async || {
        let left: Vec<_> = std::fs::read_dir(sandbox.path("")).unwrap().flatten().collect();
        left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("partial"))
    })
    .await;
    assert_eq!(std::fs::read(sandbox.path("kept")).unwrap(), b"kept");
}

/// What the original loses data on: onto itself, from nowhere, over something.
#[tokio::test]
async fn a_move_loses_nothing() {
    let sandbox = Sandbox::new().await;
    let write = |name: &str, text: &str| std::fs::write(sandbox.path(name), text).unwrap();
    let read = |name: &str| std::fs::read_to_string(sandbox.path(name)).unwrap();
    let go = async |from: &str, to: &str, overwrite: bool| {
        let body = json!({ "from": from, "to": to, "overwrite": overwrite });
        sandbox.post("/v1/fs/move", body).await.0
    };
    write("a", "A");
    write("b", "B");
    assert_eq!(go("a", "a", true).await, 200);
    assert_eq!(read("a"), "A");
    assert_eq!(go("missing", "b", true).await, 400);
    assert_eq!(read("b"), "B");
    assert_eq!(go("a", "b", false).await, 400);
    assert_eq!((read("a"), read("b")), ("A".to_owned(), "B".to_owned()));
    assert_eq!(go("a", "b", true).await, 200);
    assert_eq!(read("b"), "A");
    std::fs::create_dir_all(sandbox.path("full/inside")).unwrap();
    assert_eq!(go("b", "full", true).await, 200);
    assert_eq!(read("full"), "A");
    std::fs::create_dir_all(sandbox.path("d/e")).unwrap();
    assert_eq!(go("d", "d/e/f", false).await, 400);
    assert!(std::fs::metadata(sandbox.path("d/e")).unwrap().is_dir());
    // To another file system.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    write("d/e/x", "X");
    let target = elsewhere.path().join("moved").display().to_string();
    assert_eq!(go("d", &target, false).await, 200);
    assert_eq!(std::fs::read_to_string(format!("{target}/e/x")).unwrap(), "X");
    assert!(!std::fs::exists(sandbox.path("d")).unwrap());
}

#[tokio::test]
async fn each_way_to_fail_says_which_by_its_errno() {
    let sandbox = Sandbox::new().await;
    std::fs::create_dir_all(sandbox.path("full/inside")).unwrap();
    std::fs::write(sandbox.path("file"), "x").unwrap();
    symlink("nowhere", sandbox.path("broken")).unwrap();
    symlink("loop", sandbox.path("loop")).unwrap();
    let cases = [
        (Method::GET, "file?path=none", 400, "ENOENT"),
        (Method::GET, "file?path=full", 400, "EISDIR"),
        (Method::GET, "entries?path=file", 400, "ENOTDIR"),
        (Method::GET, "file?path=file/below", 400, "ENOTDIR"),
        (Method::GET, "file?path=loop", 400, "EINVAL"),
        (Method::PUT, "file?path=full", 400, "EISDIR"),
        (Method::PUT, "file?path=file/below", 400, "ENOTDIR"),
        (Method::DELETE, "entry?path=full", 409, "ENOTEMPTY"),
        (Method::DELETE, "entry?path=none", 400, "ENOENT"),
        (Method::GET, "file?path=/dev/null", 400, "EISDIR"),
        (Method::GET, "file?path=/proc/self/environ", 403, "EACCES"),
        (Method::GET, "file?path=/proc/kmsg", 403, "EACCES"),
        (Method::GET, "file?path=/proc/self/root/etc/passwd", 400, "EINVAL"),
        (Method::POST, "mkdir?path=file", 400, "ENOTDIR"),
        (Method::GET, "file?path=a%00b", 400, "EINVAL"),
        (Method::GET, "file?path=../x", 400, "EINVAL"),
    ];
    for (method, path, status, errno) in cases {
        let (was, answer) = sandbox.ask(sandbox.request(method, &format!("/v1/fs/{path}"))).await;
        assert_eq!((was, answer["errno"].as_str()), (status, Some(errno)), "{path}: {answer}");
    }
    // A broken link can be seen for what it is, and deleted.
    let (_, entries) = sandbox.ask(sandbox.get("/v1/fs/entries")).await;
    let broken =
        entries.as_array().unwrap().iter().find(|entry| entry["name"] == "broken").unwrap();
    assert_eq!(
        (broken["entryType"].as_str(), broken["target"].as_str()),
        (Some("file"), Some("nowhere"))
    );
    assert_eq!(
        sandbox.ask(sandbox.request(Method::DELETE, "/v1/fs/entry?path=broken")).await.0,
        200
    );
    let deleted = sandbox.request(Method::DELETE, "/v1/fs/entry?path=full&recursive=True");
    assert_eq!(sandbox.ask(deleted).await.0, 200);
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_the_old_file() {
    let sandbox = Sandbox::new().await;
    let small = tempfile::tempdir().unwrap();
    rustix::mount::mount(
        "tmpfs",
        small.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=1m"),
    )
    .unwrap();
    let path = small.path().join("f").display().to_string();
    let write = async |bytes: usize| {
        let put = sandbox
            .request(Method::PUT, &format!("/v1/fs/file?path={path}"))
            .body(vec![b'x'; bytes]);
        sandbox.ask(put).await
    };
    assert_eq!(write(1000).await.0, 200);
    let (status, answer) = write(4 * 1024 * 1024).await;
    let left = std::fs::read_dir(small.path()).unwrap().count();
    let kept = std::fs::metadata(&path).unwrap().len();
    rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    assert_eq!((status, answer["errno"].as_str()), (502, Some("ENOSPC")), "{answer}");
    assert_eq!((left, kept), (1, 1000));
}

/// Checklist C04: what is no file does not block a worker.
#[tokio::test]
async fn c04_fifos_and_sockets_are_no_files() {
    let sandbox = Sandbox::new().await;
    let fifo = sandbox.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(sandbox.path("socket")).unwrap();
    for name in ["fifo", "socket"] {
        for method in [Method::GET, Method::PUT] {
            let ask =
                sandbox.ask(sandbox.request(method.clone(), &format!("/v1/fs/file?path={name}")));
            let (status, answer) =
                tokio::time::timeout(std::time::Duration::from_secs(5), ask).await.unwrap();
            assert_eq!(status, 400, "{method} {name}: {answer}");
        }
    }
    // Nor does an archive or a search of the directory.
    let tar = sandbox.get("/v1/fs/archive").send().await.unwrap().bytes().await.unwrap();
    assert!(tar.len() >= 1024);
    assert_eq!(sandbox.ask(sandbox.get("/v1/fs/search?content=x")).await.0, 200);
}

/// Checklist C05: no spelling of a path leads out of the root.
#[tokio::test]
async fn c05_no_spelling_of_a_path_leaves_the_root() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let root = outside.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let sandbox = Sandbox::with(&["--root", root.to_str().unwrap()], &[]).await;
    let base = root.display().to_string();
    let secret = outside.path().join("secret");
    symlink(&secret, root.join("leaf")).unwrap();
    symlink(outside.path(), root.join("parent")).unwrap();
    symlink("../secret", root.join("relative")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let spellings = [
        "/etc/passwd".to_owned(),
        secret.display().to_string(),
        format!("{base}/../secret"),
        format!("{base}//..//secret"),
        format!("{base}/%2e%2e/secret"),
        format!("{base}/./../secret"),
        format!("{base}/leaf"),
        format!("{base}/parent/secret"),
        format!("{base}/relative"),
        format!("{base}/magic/etc/passwd"),
        format!("{base}x/../secret"),
    ];
    for path in spellings {
        for (method, route) in [(Method::GET, "file"), (Method::GET, "stat"), (Method::PUT, "file")]
        {
            let request = sandbox.request(method.clone(), &format!("/v1/fs/{route}?path={path}"));
            let response = request.body("overwritten").send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            assert!(status >= 400, "{method} {route} {path}: {text}");
            assert!(!text.contains("\"secret\"") && text != "secret");
        }
        let body = json!({ "from": path, "to": format!("{base}/stolen") });
        let stolen = sandbox.post("/v1/fs/move", body).await.0;
        // A link itself may be moved: it is in the root.
        assert!(stolen >= 400 || path.ends_with("leaf") || path.ends_with("relative"), "{path}");
        drop(std::fs::remove_file(root.join("stolen")));
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    let (_, entries) = sandbox.ask(sandbox.get(&format!("/v1/fs/entries?path={base}"))).await;
    assert!(entries.is_array(), "{entries}");
    assert!(sandbox.ask(sandbox.get(&format!("/v1/fs/entries?path={base}/parent"))).await.0 >= 400);
    assert!(sandbox.ask(sandbox.get(&format!("/v1/fs/watch?path={base}/parent"))).await.0 >= 400);
    assert!(sandbox.ask(sandbox.get(&format!("/v1/fs/archive?path={base}/parent"))).await.0 >= 400);
}

#[tokio::test]
async fn a_directory_of_a_hundred_thousand_is_listed_and_paged() {
    let sandbox = Sandbox::new().await;
    let directory = sandbox.path("many");
    std::fs::create_dir(&directory).unwrap();
    for number in 0..100_000 {
        std::fs::File::create(format!("{directory}/{number:06}")).unwrap();
    }
    let before = memory(&sandbox);
    let (status, entries) = sandbox.ask(sandbox.get("/v1/fs/entries?path=many")).await;
    assert_eq!((status, entries.as_array().unwrap().len()), (200, 100_000));
    let grown = memory(&sandbox).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    let (mut after, mut seen) = (String::new(), 0);
    loop {
        let page = format!("/v1/fs/entries?path=many&limit=10000&after={after}");
        let (_, page) = sandbox.ask(sandbox.get(&page)).await;
        let page = page.as_array().unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.windows(2).all(|two| two[0]["name"].as_str() < two[1]["name"].as_str()));
        seen += page.len();
        last["name"].as_str().unwrap().clone_into(&mut after);
    }
    assert_eq!(seen, 100_000);
}

/// A file of 10 GiB passes through a server that never holds it: sparse here, so that it takes no disk.
#[tokio::test]
async fn ten_gibibytes_leave_memory_flat() {
    let sandbox = Sandbox::new().await;
    let file = std::fs::File::create(sandbox.path("large")).unwrap();
    file.set_len(10 << 30).unwrap();
    let before = memory(&sandbox);
    let mut response = sandbox.get("/v1/fs/file?path=large").send().await.unwrap();
    assert_eq!(response.headers()["content-length"], (10_u64 << 30).to_string());
    let mut read = 0_u64;
    while read < 1 << 30 {
        read += response.chunk().await.unwrap().unwrap().len() as u64;
    }
    // Three who do not read on, and the server answers others meanwhile.
    let slow = [
        sandbox.get("/v1/fs/file?path=large").send().await.unwrap(),
        sandbox.get("/v1/fs/file?path=large").send().await.unwrap(),
        sandbox.get("/v1/fs/file?path=large").send().await.unwrap(),
    ];
    let health =
        tokio::time::timeout(std::time::Duration::from_secs(2), sandbox.get("/v1/health").send());
    assert_eq!(health.await.unwrap().unwrap().status().as_u16(), 200);
    let grown = memory(&sandbox).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    drop(slow);
    // The end of it is there as well.
    let last =
        sandbox.get("/v1/fs/file?path=large").header("range", "bytes=-4").send().await.unwrap();
    assert_eq!(last.bytes().await.unwrap(), vec![0; 4]);
}

#[tokio::test]
async fn changes_in_a_directory_are_told_as_they_happen() {
    let sandbox = Sandbox::new().await;
    std::fs::create_dir(sandbox.path("w")).unwrap();
    let mut events = Events::open(sandbox.get("/v1/fs/watch?path=w&recursive=true")).await;
    assert_eq!(events.next().await.unwrap().name, "ready");
    std::fs::create_dir(sandbox.path("w/new")).unwrap();
    let made = events.until(|event| event.data["kind"] == "created").await;
    assert_eq!(made.last().unwrap().data["path"], sandbox.path("w/new"));
    // What appeared is watched, too.
    std::fs::write(sandbox.path("w/new/file"), "x").unwrap();
    events.until(|event| event.data["path"] == sandbox.path("w/new/file")).await;
    std::fs::remove_dir_all(sandbox.path("w")).unwrap();
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn names_and_text_are_found() {
    let sandbox = Sandbox::new().await;
    std::fs::create_dir_all(sandbox.path("s/deep")).unwrap();
    std::fs::write(sandbox.path("s/deep/Main.rs"), "fn main() {\n    needle();\n}\n").unwrap();
    std::fs::write(sandbox.path("s/other.txt"), "hay").unwrap();
    let find = async |query: &str| {
        let (status, found) =
            sandbox.ask(sandbox.get(&format!("/v1/fs/search?path=s&{query}"))).await;
        assert_eq!(status, 200, "{found}");
        let matches = found["matches"].as_array().unwrap().clone();
        let told = |one: &serde_json::Value| {
            let path = one["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            (path, one["line"].as_u64())
        };
        matches.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(find("q=main").await, [("Main.rs".to_owned(), None)]);
    assert_eq!(find("q=*.txt").await, [("other.txt".to_owned(), None)]);
    assert_eq!(find("content=needle").await, [("Main.rs".to_owned(), Some(2))]);
    assert_eq!(find("q=*.txt&content=needle").await, []);
    assert_eq!(sandbox.ask(sandbox.get("/v1/fs/search?path=s")).await.0, 400);
}

#[tokio::test]
async fn several_files_are_written_in_one_request() {
    let sandbox = Sandbox::new().await;
    let files = json!({ "files": [
        { "path": "one/a.txt", "content": "A" },
        { "path": "two/b.bin", "content": "AAE=", "encoding": "base64" },
    ] });
    let (status, answer) = sandbox.post("/v1/fs/batch", files).await;
    assert_eq!((status, answer["uploaded"].as_u64()), (200, Some(2)), "{answer}");
    assert_eq!(std::fs::read(sandbox.path("two/b.bin")).unwrap(), [0, 1]);
    // One that is wrong: none is written.
    let files = json!({ "files": [
        { "path": "three", "content": "A" }, { "path": "four", "content": "!", "encoding": "base64" },
    ] });
    let (status, answer) = sandbox.post("/v1/fs/batch", files).await;
    assert!(
        status == 400 && answer["detail"].as_str().unwrap().contains("files[1].content"),
        "{answer}"
    );
    assert!(!std::fs::exists(sandbox.path("three")).unwrap());
    // The Python client sends the path in the body.
    assert_eq!(sandbox.post("/v1/fs/mkdir", json!({ "path": "made/deep" })).await.0, 200);
    assert!(std::fs::metadata(sandbox.path("made/deep")).unwrap().is_dir());
}

/// Resident memory of the server, in KiB.
pub(super) fn memory(sandbox: &Sandbox) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", sandbox.server().as_raw_nonzero()))
            .unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Two who have seen the same: the second to finish is told that it has changed.
#[tokio::test]
async fn no_update_is_lost_between_two_who_say_what_they_have_seen() {
    let sandbox = Sandbox::new().await;
    std::fs::write(sandbox.path("f"), "old").unwrap();
    let etag = sandbox.get("/v1/fs/file?path=f").send().await.unwrap().headers()["etag"].clone();
    for (condition, value, path) in
        [("if-match", etag.to_str().unwrap(), "f"), ("if-none-match", "*", "new")]
    {
        let url = format!("/v1/fs/file?path={path}");
        let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
        let pieces = futures_util::stream::once(async { Ok(vec![b'a'; 400_000]) });
        let rest = futures_util::stream::once(async {
            drop(wait.await);
            Ok::<_, std::io::Error>(vec![b'a'; 10])
        });
        let body = reqwest::Body::wrap_stream(futures_util::StreamExt::chain(pieces, rest));
        let slow = sandbox.request(Method::PUT, &url).header(condition, value).body(body).send();
        let quick = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let put = sandbox.request(Method::PUT, &url).header(condition, value).body("quick");
            let status = put.send().await.unwrap().status().as_u16();
            go_on.send(()).unwrap();
            status
        };
        let (slow, quick) = tokio::join!(slow, quick);
        assert_eq!((quick, slow.unwrap().status().as_u16()), (200, 412), "{condition}");
        assert_eq!(std::fs::read(sandbox.path(path)).unwrap(), b"quick");
    }
}
