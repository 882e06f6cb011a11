//! The canary: a real key, looked for everywhere after a day's work.

use std::path::Path;

use e2e::house::{As, CANARY, House};
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn d10_the_real_key_is_found_nowhere_but_at_the_upstream() {
    for mut house in House::of_root_and_of_a_user().await {
        let session = house
            .session_with(json!({ "services": ["openai", "anthropic", "github", "stripe"] }))
            .await;
        let look = "env; cat /proc/self/environ /proc/1/environ 2>/dev/null; \
        for pid in /proc/[0-9]*; do cat $pid/cmdline $pid/environ 2>/dev/null; done; \
        find / -xdev -type f -readable -size -64k -not -path '/usr/*' -not -path '/proc/*' -not -path '/dev/*' -exec cat {} + 2>/dev/null; \
        curl -s -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/models; \
        curl -s -H \"x-api-key: $ANTHROPIC_API_KEY\" $ANTHROPIC_BASE_URL/redirect -i; \
        curl -s -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/../../../etc/passwd";
        let result = house.exec(&session, json!({ "cmd": "sh", "args": ["-c", look] })).await;
        assert!(!house.upstream.seen().is_empty(), "{result}");
        assert!(
            house.upstream.seen().iter().all(|seen| format!("{:?}", seen.headers).contains(CANARY))
        );
        let mut heard = result.to_string();
        for path in [
            "/v1/sessions",
            "/v1/credentials",
            "/v1/jails",
            "/v1/audit",
            "/v1/config",
            "/metrics",
            "/openapi.json",
        ] {
            heard.push_str(&house.get(As("root-key"), path).await.1.to_string());
        }
        assert!(!heard.contains(CANARY));
        // A wrong body that holds a key must not come back in the error, nor go to the log.
        let (_, answer) = house
            .post(
                As("acme-key"),
                "/v1/credentials",
                json!({ "service": "openai", "secret": { "key": CANARY } }),
            )
            .await;
        assert!(!answer.to_string().contains(CANARY));
        let (_, answer) = house
            .post(As("acme-key"), "/v1/credentials", json!({ "service": CANARY, "secret": "x" }))
            .await;
        assert!(answer["error"].is_string());
        let environ = std::fs::read(format!("/proc/{}/environ", launcher(&house))).unwrap();
        assert!(environ.is_empty(), "the launcher has an environment");
        house.end(Signal::TERM).await;
        assert_eq!(holding(house.state.path(), CANARY.as_bytes()), Vec::<String>::new());
        // Nor are phantom tokens on disk in the clear.
        let token = session["env"]["OPENAI_API_KEY"].as_str().unwrap();
        assert_eq!(holding(house.state.path(), token.as_bytes()), Vec::<String>::new());
    }
}

fn launcher(house: &House) -> String {
    let children =
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", house.pid())).unwrap();
    children.split_whitespace().next().unwrap().to_owned()
}

/// Files below a directory that hold some bytes.
fn holding(directory: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else if std::fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle)
        {
            found.push(path.display().to_string());
        }
    }
    found
}
