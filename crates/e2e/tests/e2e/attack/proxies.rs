//! The phantom proxy under attack (D07, D09, D10, D13): what holds, and that it does not hold without the
//! protection that is said to hold it; as root and as an ordinary user.

use e2e::house::{CANARY, House, eventually};
use serde_json::{Value, json};

use crate::proxy::HOARD;

/// Runs a shell script in a session's jail; gives what it says.
async fn sh(house: &House, session: &Value, script: &str) -> String {
    let result = house.exec(session, json!({ "cmd": "sh", "args": ["-c", script] })).await;
    result["stdout"].as_str().unwrap().to_owned()
}

/// An attempt that must fail, and must succeed without a protection.
async fn breaks_only_without(protection: &str, attempt: impl AsyncFn(&House) -> bool) {
    for house in House::of_root_and_of_a_user().await {
        assert!(!attempt(&house).await, "{protection} does not hold");
    }
    for house in House::of_both_without(protection).await {
        assert!(attempt(&house).await, "it is not {protection} that holds");
    }
}

/// A client names the key's header as one that speaks of its connection only.
#[tokio::test]
async fn d07_a_key_is_taken_out_of_a_request_only_if_it_goes_in_too_early() {
    breaks_only_without("hop-by-hop", async |house| {
        let session = house.session("anthropic").await;
        let script = "curl -s -o /dev/null -H \"x-api-key: $ANTHROPIC_API_KEY\" \
            -H 'connection: x-api-key' $ANTHROPIC_BASE_URL/v1/models";
        sh(house, &session, script).await;
        let seen = house.upstream.seen();
        assert_eq!(seen.len(), 1, "it arrives, with the key or without");
        !seen[0].headers.contains_key("x-api-key")
    })
    .await;
}

/// A jail has got another session's token, and goes through its own door with it.
#[tokio::test]
async fn d09_a_token_of_another_session_opens_only_a_door_that_does_not_look() {
    breaks_only_without("door", async |house| {
        let (own, others) = (house.session("openai").await, house.session("openai").await);
        let stolen = others["env"]["OPENAI_API_KEY"].as_str().unwrap();
        let script = format!(
            "curl -s -o /dev/null -H 'authorization: Bearer {stolen}' $OPENAI_BASE_URL/models"
        );
        sh(house, &own, &script).await;
        !house.upstream.seen().is_empty()
    })
    .await;
}

#[tokio::test]
async fn d09_a_path_out_of_scope_is_reached_only_where_nobody_looks() {
    breaks_only_without("scopes", async |house| {
        let scoped = json!({ "services": ["openai"], "scopes": { "openai": ["/v1/chat/*"] } });
        let session = house.session_with(scoped).await;
        let script = "curl -s -o /dev/null -H \"authorization: Bearer $OPENAI_API_KEY\" $OPENAI_BASE_URL/files";
        sh(house, &session, script).await;
        !house.upstream.seen().is_empty()
    })
    .await;
}

/// An upstream that answers `TRACE` says what it was sent, the key among it.
#[tokio::test]
async fn d10_the_key_comes_back_only_by_a_method_that_is_refused() {
    breaks_only_without("trace", async |house| {
        let session = house.session("anthropic").await;
        let script =
            "curl -s -X TRACE -H \"x-api-key: $ANTHROPIC_API_KEY\" $ANTHROPIC_BASE_URL/v1/models";
        sh(house, &session, script).await.contains(CANARY)
    })
    .await;
}

#[tokio::test]
async fn d13_a_jail_takes_the_servers_descriptors_only_where_places_are_not_counted() {
    breaks_only_without("places", async |house| {
        let session = house.session("openai").await;
        let descriptors =
            || std::fs::read_dir(format!("/proc/{}/fd", house.pid())).map_or(0, Iterator::count);
        let before = descriptors();
        let mut most = 0;
        let held = house.exec(&session, json!({ "cmd": "python3", "args": ["-c", HOARD] }));
        let watched = async {
            eventually("it holds what it can get", async || descriptors() > before + 100).await;
            for _ in 0..40 {
                most = most.max(descriptors() - before);
                tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            }
        };
        tokio::join!(held, watched);
        // A place for each of 128 connections, and what a jail takes.
        most > 300
    })
    .await;
}
