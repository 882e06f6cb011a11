//! Root file systems of the user's own.

use std::path::Path;
use std::process::Stdio;

use e2e::house::{As, House};
use serde_json::json;

const ACME: As<'_> = As("acme-key");

/// Writes an OCI layout with two layers: busybox and what a distribution has, then one that takes something
/// away and leads astray. `argv[1]` is the directory, `argv[2]` what to spoil.
const LAYOUT: &str = r#"
import gzip, hashlib, io, json, os, sys, tarfile
out, spoil = sys.argv[1], sys.argv[2]
os.makedirs(out + '/blobs/sha256')
def blob(data):
    digest = hashlib.sha256(data).hexdigest()
    open(f'{out}/blobs/sha256/{digest}', 'wb').write(data)
    return 'sha256:' + digest
def layer(entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for name, kind, value in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if kind == 'file':
                info.size = len(value); tar.addfile(info, io.BytesIO(value))
            else:
                info.type = {'dir': tarfile.DIRTYPE, 'link': tarfile.SYMTYPE}[kind]
                info.linkname = value or ''
                tar.addfile(info)
    return gzip.compress(buffer.getvalue())
busybox = open('/usr/bin/busybox', 'rb').read()
first = layer([('bin', 'dir', None), ('bin/busybox', 'file', busybox), ('bin/sh', 'link', 'busybox'),
    ('etc', 'dir', None), ('etc/os-release', 'file', b'ID=tiny\n'), ('etc/passwd', 'file', b'root:x:0:0::/:/bin/sh'),
    ('etc/resolv.conf', 'link', '/etc/shadow'), ('old/gone', 'file', b'x'), ('old/stays', 'file', b'x'),
    ('tmp', 'link', '/var/tmp'), ('opt/tiny/bin/greet', 'file', b'#!/bin/sh\necho greetings from $0\n')])
second = layer([('old/.wh.gone', 'file', b''), ('usr/share/note', 'file', b'second\n')])
if spoil == 'dots': second = layer([('.wh...', 'file', b'')])
if spoil == 'outside': second = layer([('../escaped', 'file', b'x')])
layers = [{'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip', 'digest': blob(data), 'size': len(data)} for data in (first, second)]
config = json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {'Env': ['PATH=/opt/tiny/bin:/bin']}}).encode()
manifest = json.dumps({'schemaVersion': 2, 'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'digest': blob(config), 'size': len(config)}, 'layers': layers}).encode()
json.dump({'schemaVersion': 2, 'manifests': [{'mediaType': 'application/vnd.oci.image.manifest.v1+json', 'digest': blob(manifest), 'size': len(manifest)}]}, open(out + '/index.json', 'w'))
json.dump({'imageLayoutVersion': '1.0.0'}, open(out + '/oci-layout', 'w'))
if spoil == 'digest': open(f"{out}/blobs/sha256/{layers[0]['digest'][7:]}", 'r+b').write(b'\x1f\x8b\x08\x01')
if spoil == 'link':
    blob = f"{out}/blobs/sha256/{layers[1]['digest'][7:]}"
    os.remove(blob); os.symlink('/dev/zero', blob)
if spoil == 'missing': os.remove(f"{out}/blobs/sha256/{layers[1]['digest'][7:]}")
"#;

/// Runs a program to its end: whether it went well, and what it said.
async fn ran(program: &str, words: &[&str]) -> (bool, String) {
    let command = tokio::process::Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = command.await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

pub(crate) async fn layout(at: &Path, spoil: &str) {
    let (well, said) = ran("python3", &["-c", LAYOUT, at.to_str().unwrap(), spoil]).await;
    assert!(well, "{said}");
}

#[tokio::test]
async fn a_jail_has_the_root_that_was_brought() {
    let mut house = House::new().await;
    let state = house.state.path().join("state");
    let state = state.to_str().unwrap();
    // As a killed one leaves it.
    std::fs::create_dir_all(format!("{state}/images/.new-left/it/root")).unwrap();
    let from = tempfile::tempdir().unwrap();
    let at = from.path().join("tiny");
    layout(&at, "nothing").await;
    let program = e2e::program();
    let program = program.to_str().unwrap();
    let add = |name: &'static str, from: String| async move {
        ran(program, &["images", "add", name, "--from", &from, "--state-dir", state]).await
    };
    let (well, said) = add("tiny", at.display().to_string()).await;
    assert!(well && said.contains("sha256:"), "{said}");
    let tar = from.path().join("tiny.tar");
    let packed = ["-C", at.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "."];
    assert!(ran("tar", &packed).await.0);
    let (well, said) = add("packed", tar.display().to_string()).await;
    assert!(well, "{said}");
    let (_, images) = house.get(ACME, "/v1/images").await;
    let names: Vec<_> = images.as_array().unwrap().iter().map(|image| &image["name"]).collect();
    assert_eq!(names, ["packed", "tiny"]);

    let code = "greet; cat /etc/os-release /usr/share/note; echo /old/*; id -un; ls -d /usr/bin /root; \
        cat /etc/resolv.conf | head -1; echo x > /tmp/x && echo y > /output/y && cat /tmp/x /output/y; \
        echo z > /etc/z; echo z > /bin/z; ls /dev/null /proc/self/exe";
    let run = |options: serde_json::Value| {
        let mut body = json!({ "language": "bash", "code": code });
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        body
    };
    let (status, refused) = house.post(ACME, "/v1/runs", run(json!({ "image": "none" }))).await;
    assert_eq!((status, &refused["error"]), (400, &json!("bad request: unknown image: \"none\"")));
    for image in ["tiny", "packed"] {
        let body = json!({ "image": image, "network": { "mode": "loopback" } });
        let made = house.workspace(body).await;
        let ended = house.in_workspace(&made, code).await;
        let (stdout, stderr) =
            (ended["stdout"].as_str().unwrap(), ended["stderr"].as_str().unwrap());
        let lines: Vec<&str> = stdout.lines().collect();
        let wanted = [
            "greetings from /opt/tiny/bin/greet",
            "ID=tiny",
            "second",
            "/old/stays",
            "agent",
            "nameserver 127.0.0.1",
            "x",
            "y",
            "/dev/null",
            "/proc/self/exe",
        ];
        assert_eq!(lines, wanted, "{ended}");
        assert_eq!(stderr.matches("Read-only file system").count(), 2, "{stderr}");
        // The walls are those of every jail.
        let tried = house
            .in_workspace(
                &made,
                "busybox mount -t tmpfs none /tmp && echo broken; busybox unshare -r true && echo broken; \
                 echo 1 > /proc/sys/kernel/panic && echo broken; busybox chroot / true && echo broken; \
                 busybox umount /proc/cmdline && echo broken; busybox umount / && echo broken; \
                 busybox touch /workspace/../x && echo broken; ls /host /jail /new; ls -A /opt/flavors; \
                 cat /proc/1/environ; cat /proc/cmdline; echo done",
            )
            .await;
        assert_eq!(tried["stdout"], "done\n", "{tried}");
        // It stays over its snapshots and forks, and what is written is the workspace's alone.
        assert_eq!(
            house.says(&made, "echo kept > kept; greet").await,
            "greetings from /opt/tiny/bin/greet\n"
        );
        let fork = house.restored(&house.snapshot(&made, "s").await).await;
        assert_eq!(house.says(&fork, "cat kept /etc/os-release").await, "kept\nID=tiny\n");
    }
    let (well, said) = ran(program, &["images", "remove", "tiny", "--state-dir", state]).await;
    assert!(well, "{said}");
    let (_, list) = house.get(ACME, "/v1/images").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    let names = || {
        let entries = std::fs::read_dir(format!("{state}/images")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert!(!names().contains(&".new-left".to_owned()), "{:?}", names());
    assert_eq!(names().len(), 2, "what was put away stays for those who have it: {:?}", names());
    house.end(rustix::process::Signal::KILL).await;
    house.restart().await;
    assert_eq!(names(), ["packed"], "nobody has it any more");
}

#[tokio::test]
async fn an_image_that_is_not_what_it_says_is_not_taken() {
    let state = tempfile::tempdir().unwrap();
    let program = e2e::program();
    for (spoil, says) in [
        ("digest", "is not what it says"),
        ("missing", "is missing"),
        ("outside", "../escaped"),
        ("link", "or no file"),
        ("dots", "leads out"),
    ] {
        let from = tempfile::tempdir().unwrap();
        layout(&from.path().join("it"), spoil).await;
        let path = from.path().join("it").display().to_string();
        let state_dir = state.path().to_str().unwrap();
        let words = ["images", "add", "bad", "--from", &path, "--state-dir", state_dir];
        let (well, said) = ran(program.to_str().unwrap(), &words).await;
        assert!(!well && said.contains(says), "{spoil}: {said}");
        let left: Vec<_> = std::fs::read_dir(state.path().join("images")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
