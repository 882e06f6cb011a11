//! The clone-jail: what is cloned, how failures are told, and what a repository cannot do.

use e2e::git::GitServer;
use e2e::house::{As, House, id};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

const ACME: As<'_> = As("acme-key");

/// A server that clones from a git server of ours.
async fn house(git: &GitServer, more: &[&str]) -> (House, NamedTempFile) {
    let authority = NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), &git.authority).unwrap();
    let resolve = format!("git.test={}", git.address.ip());
    let ca = authority.path().display().to_string();
    let flags =
        ["--egress-resolve", &resolve, "--egress-allow-private", "127.85.0.0/16", "--git-ca", &ca];
    (House::with(&[&flags[..], more].concat()).await, authority)
}

async fn refused(house: &House, git: Value) -> String {
    let (status, error) = house.post(ACME, "/v1/workspaces", json!({ "git": git })).await;
    assert_eq!(status, 400, "{error}");
    error["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn branches_tags_and_commits_are_cloned() {
    let git = GitServer::tls("127.85.0.1:443").await;
    let script = "echo one > f; git add f; git commit -qm one; git tag v1; git branch old\n\
        echo two > f; ln -s f link; git add .; git commit -qm two";
    let head = git.repository("team/app.git", script).await;
    let (house, _authority) = house(&git, &[]).await;
    let url = "https://git.test/team/app.git";
    let first = house.workspace(json!({ "git": { "repo": url } })).await;
    assert_eq!((&first["git_repo"], &first["git_ref"]), (&json!(url), &Value::Null));
    let tell = "cat f; git log --oneline | wc -l; git status --porcelain; stat -c %U .git f; git rev-parse HEAD";
    let told = house.says(&first, tell).await;
    assert_eq!(told, format!("two\n1\nagent\nagent\n{head}\n"));
    for (reference, says) in
        [("v1", "one\n"), ("old", "one\n"), ("main", "two\n"), (head.as_str(), "two\n")]
    {
        let made = house.workspace(json!({ "git": { "repo": url, "ref": reference } })).await;
        assert_eq!(house.says(&made, "cat f").await, says, "{reference}");
        assert_eq!(made["git_ref"], reference);
    }
    let deep = house.workspace(json!({ "git": { "repo": url, "depth": 0 } })).await;
    assert_eq!(house.says(&deep, "git log --oneline | wc -l").await, "2\n");
    // What was written stays; what was cloned is a layer like any other.
    let snapshot = house.snapshot(&first, "s").await;
    house
        .says(&first, "echo three > f; git -c user.name=x -c user.email=x@y commit -qam three")
        .await;
    assert_eq!(
        house.says(&house.restored(&snapshot).await, "git status --porcelain; cat f").await,
        "two\n"
    );
    // The jail may reach the host it clones from, and no command of the workspace may.
    let result = house.in_workspace(&first, "git fetch -q origin").await;
    assert_ne!(result["exit_code"], 0);
}

#[tokio::test]
async fn several_repositories_and_runs_over_them() {
    let git = GitServer::tls("127.85.0.2:443").await;
    git.repository(
        "a/app.git",
        "echo app > name; ln -s /etc/passwd main.sh; git add .; git commit -qm x",
    )
    .await;
    git.repository("a/lib.git", "echo lib > name; git add .; git commit -qm x").await;
    let (house, _authority) = house(&git, &[]).await;
    let both = json!({ "repos": [{ "repo": "https://git.test/a/app.git" }, { "repo": "https://git.test/a/lib.git", "dir": "deps" }] });
    let made = house.workspace(json!({ "git": both })).await;
    assert_eq!(house.says(&made, "cat app/name deps/name").await, "app\nlib\n");
    assert_eq!(made["git_repo"], "https://git.test/a/app.git");
    // The link of the repository stands where the code goes: it is covered, not followed.
    let one = json!({ "repo": "https://git.test/a/app.git" });
    let before = std::fs::read("/etc/passwd").unwrap();
    let body = json!({ "language": "bash", "git": one, "code": "cat name; touch x; echo o > /output/o && cat /output/o; head -c 9 main.sh" });
    let (status, result) = house.post(ACME, "/v1/runs", body).await;
    assert_eq!((status, &result["stdout"]), (201, &json!("app\no\ncat name;")), "{result}");
    assert!(result["stderr"].as_str().unwrap().contains("Read-only file system"));
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
    let body = json!({ "language": "bash", "git": one, "parent_code": "cat name > /output/n; sleep 1", "child_code": "cat name /output/n", "fork_after_ms": 300 });
    let (_, forked) = house.post(ACME, "/v1/runs/fork", body).await;
    assert_eq!(forked["child"]["stdout"], "app\napp\n", "{forked}");
    let body = json!({ "language": "bash", "git": one, "code": "cat name" });
    let request = house.request(ACME, reqwest::Method::POST, "/v1/runs/stream").json(&body);
    let stream = request.send().await.unwrap().text().await.unwrap();
    assert!(stream.contains("data: app\n"), "{stream}");
    let (_, jails) = house.get(ACME, "/v1/jails?limit=100").await;
    let labels: Vec<_> =
        jails["rows"].as_array().unwrap().iter().map(|row| &row["label"]).collect();
    assert!(!labels.iter().any(|label| label.as_str().unwrap().contains("clone")), "{labels:?}");
    house.delete(ACME, &format!("/v1/workspaces/{}", id(&made))).await;
    e2e::house::eventually("nothing is left", async || house.trees().is_empty()).await;
}

#[tokio::test]
async fn failures_are_told_by_cause_and_leave_nothing() {
    let git = GitServer::tls("127.85.0.3:443").await;
    git.repository("a/app.git", "echo x > f; git add .; git commit -qm x").await;
    let (house, _authority) = house(
        &git,
        &["--egress-resolve", "other.test=127.85.0.3", "--egress-resolve", "dead.test=127.85.0.99"],
    )
    .await;
    let app = "https://git.test/a/app.git";
    for (spec, says) in [
        (json!({ "repo": app, "ref": "nosuch" }), "(ref: "),
        (json!({ "repo": app, "ref": "0123456789012345678901234567890123456789" }), "(ref: "),
        (json!({ "repo": "https://git.test/a/nosuch.git" }), "(not_found: "),
        (json!({ "repo": "https://dead.test/a/app.git" }), "(network: "),
        (json!({ "repo": "https://nowhere.test/a/app.git" }), "(network: "),
        (
            json!({ "repo": app, "credential": "github" }),
            "github is no service whose upstream is git.test",
        ),
        (
            json!({ "repo": "https://github.com/a/b", "credential": "github" }),
            "no credential configured for service github",
        ),
    ] {
        let error = refused(&house, spec.clone()).await;
        assert!(error.starts_with("bad request: git") && error.contains(says), "{spec}: {error}");
    }
    assert_eq!(house.get(ACME, "/v1/workspaces").await.1["total"], 0);
    e2e::house::eventually("nothing is left", async || house.trees().is_empty()).await;
}

#[tokio::test]
async fn a_private_repository_is_cloned_with_a_key_that_stays_out() {
    let key = "real-git-key-9d1f";
    // `Basic deploy:<key>`
    let basic = format!("Basic {}", base64(&format!("deploy:{key}")));
    let git = GitServer::plain(&basic).await;
    git.repository("private/app.git", "echo secret > f; git add .; git commit -qm x").await;
    git.repository("private/other.git", "echo other > f; git add .; git commit -qm x").await;
    let provider = format!("corp=http://localhost:{},basic:deploy", git.address.port());
    let house = House::with(&["--provider", &provider]).await;
    let spec = json!({ "repo": "https://localhost/private/app.git", "credential": "corp" });
    assert!(
        refused(&house, spec.clone()).await.contains("no credential configured for service corp")
    );
    let credential = json!({ "service": "corp", "secret": key });
    assert_eq!(house.post(ACME, "/v1/credentials", credential).await.0, 200);
    let made = house.workspace(json!({ "git": spec })).await;
    assert_eq!(house.says(&made, "cat f").await, "secret\n");
    assert_eq!(
        house.says(&made, "git remote get-url origin").await,
        "https://localhost/private/app.git\n"
    );
    let found = house
        .in_workspace(&made, &format!("grep -ra -e {key} -e phm_ . /output || echo nothing"))
        .await;
    assert_eq!(found["stdout"], "nothing\n", "{found}");
    assert!(git.seen().iter().all(|line| line.ends_with(&basic)), "{:?}", git.seen());
    let (_, audit) = house.get(ACME, "/v1/audit?service=corp").await;
    assert_eq!(audit["rows"][0]["path"], "/private/app.git/git-upload-pack", "{audit}");
    // Another tenant has no key; a wrong one is told as such.
    let (status, _) = house
        .post(
            As("globex-key"),
            "/v1/workspaces",
            json!({ "git": { "repo": "https://localhost/private/app.git", "credential": "corp" } }),
        )
        .await;
    assert_eq!(status, 400);
    house.post(ACME, "/v1/credentials", json!({ "service": "corp", "secret": "wrong" })).await;
    let error = refused(
        &house,
        json!({ "repo": "https://localhost/private/app.git", "credential": "corp" }),
    )
    .await;
    assert!(error.contains("(auth: "), "{error}");
}

fn base64(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for n in 0..4 {
            let digit = alphabet[(bits >> (18 - 6 * n)) as usize & 63];
            encoded.push(if n > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    encoded
}

/// C09: what a repository brings must not run, neither in the clone-jail nor anywhere else.
#[tokio::test]
async fn nothing_of_a_repository_runs_while_it_is_cloned() {
    let git = GitServer::tls("127.85.0.4:443").await;
    let mark = "mark-of-the-beast-4471";
    let touch = format!("echo ran > /tmp/{mark}; echo ran > /output/{mark}");
    let script = format!(
        "mkdir -p hooks .githooks\n\
         for hook in post-checkout post-merge reference-transaction fsmonitor; do printf '#!/bin/sh\\n{touch}\\n' > hooks/$hook; chmod 755 hooks/$hook; cp hooks/$hook .githooks/; done\n\
         printf '[core]\\n\\thooksPath = hooks\\n\\tfsmonitor = hooks/fsmonitor\\n\\tsshCommand = hooks/fsmonitor\\n\\tpager = hooks/fsmonitor\\n' > .gitconfig\n\
         printf '* filter=evil diff=evil merge=evil\\n' > .gitattributes\n\
         printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = ext::sh -c hooks/post-checkout\\n[submodule \"f\"]\\n\\tpath = f\\n\\turl = file:///etc\\n' > .gitmodules\n\
         printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:00\\nsize 1\\n' > big.bin\n\
         printf 'gitdir: /etc\\n' > fake\n\
         git add -f .; git commit -qm x"
    );
    git.repository("evil/repo.git", &script).await;
    let update = "printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = https://x.test/y\\n\\tupdate = !id\\n' > .gitmodules; git add .; git commit -qm x";
    git.repository("evil/update.git", update).await;
    // What a server's side may hold, too.
    std::fs::write(git.path("evil/repo.git/hooks/post-checkout"), "#!/bin/sh\nexit 1\n").unwrap();
    let (house, _authority) = house(&git, &[]).await;
    let made =
        house.workspace(json!({ "git": { "repo": "https://git.test/evil/repo.git" } })).await;
    let result = house.says(&made, &format!("ls /output; ls -d .git/hooks 2>&1; ls s f 2>&1; git config --get core.hooksPath; cat big.bin | head -1; test -e /output/{mark} || echo clean")).await;
    assert!(result.contains("clean") && !result.contains(mark), "{result}");
    assert!(result.contains("version https://git-lfs"), "no LFS ran: {result}");
    assert!(!std::path::Path::new("/tmp").join(mark).exists());
    let error = refused(&house, json!({ "repo": "https://git.test/evil/update.git" })).await;
    assert!(error.contains("(refused: "), "{error}");
    for repo in [
        "https://git.test/evil/repo.git --upload-pack=x",
        "https://-oProxyCommand=x/a",
        "ext::sh -c id",
        "file:///etc",
        "ssh://git.test/a",
        "https://git.test/../../etc?x",
    ] {
        let (status, error) =
            house.post(ACME, "/v1/workspaces", json!({ "git": { "repo": repo } })).await;
        assert_eq!(status, 400, "{repo}: {error}");
    }
}

/// No git of the host looks at what a tenant wrote: not at a clone, not at a snapshot, not at a fork.
#[tokio::test]
async fn no_git_of_the_host_looks_at_a_workspace() {
    let house = House::new().await;
    let made = house.workspace(json!({})).await;
    let script = "git init -q .; printf '#!/bin/sh\\necho ran > /output/ran\\n' > evil; chmod 755 evil; git config core.fsmonitor /workspace/evil; git config core.hooksPath /workspace; git config core.pager /workspace/evil";
    house.says(&made, script).await;
    let snapshot = house.snapshot(&made, "s").await;
    let path = format!("/v1/workspaces/{}/fork", id(&made));
    house.post(ACME, &path, json!({ "count": 2 })).await;
    for tail in ["manifest", "tar"] {
        let path = format!("/v1/snapshots/{}/{tail}", id(&snapshot));
        house
            .request(ACME, reqwest::Method::GET, &path)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
    }
    assert_eq!(house.says(&made, "ls /output").await, "");
}
