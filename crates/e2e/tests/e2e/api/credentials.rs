//! `/v1/credentials`

use e2e::house::{As, House};
use serde_json::json;

#[tokio::test]
async fn a_key_goes_in_is_rotated_and_comes_out_never() {
    let house = House::new().await;
    let put = async |secret: &str| {
        house
            .post(
                As("acme-key"),
                "/v1/credentials",
                json!({ "service": "stripe", "secret": secret }),
            )
            .await
    };
    let (status, first) = put("sk_test_first").await;
    assert_eq!(
        (status, &first["tenant_id"], &first["service"]),
        (200, &json!("acme"), &json!("stripe"))
    );
    let (_, second) = put("sk_test_second").await;
    assert_eq!(first["added_at"], second["added_at"]);
    assert_ne!(first["updated_at"], second["updated_at"]);
    assert_ne!(first["fingerprint"], second["fingerprint"]);
    let (_, again) = put("sk_test_first").await;
    assert_eq!(first["fingerprint"], again["fingerprint"]);
    let (_, list) = house.get(As("acme-key"), "/v1/credentials").await;
    assert_eq!(list, json!([again]));
    assert!(!list.to_string().contains("sk_test"));
    assert_eq!(house.delete(As("acme-key"), "/v1/credentials/stripe").await.0, 204);
    assert_eq!(house.delete(As("acme-key"), "/v1/credentials/stripe").await.0, 404);
    assert_eq!(house.delete(As("acme-key"), "/v1/credentials/nosuch").await.0, 400);
}

#[tokio::test]
async fn an_admin_acts_for_a_tenant_and_sees_all() {
    let house = House::new().await;
    let body = json!({ "service": "openai", "secret": "sk-1" });
    let (_, record) = house.post(As("root-key"), "/v1/credentials?tenant=acme", body).await;
    assert_eq!(record["tenant_id"], "acme");
    assert_eq!(house.get(As("acme-key"), "/v1/credentials").await.1, json!([record]));
    assert_eq!(house.get(As("root-key"), "/v1/credentials").await.1, json!([record]));
    assert_eq!(house.get(As("root-key"), "/v1/credentials?tenant=globex").await.1, json!([]));
    assert_eq!(house.get(As("root-key"), "/v1/credentials?tenant=No%20Tenant").await.0, 400);
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let mut house = House::new().await;
    let session = house.session("openai").await;
    house.end(rustix::process::Signal::TERM).await;
    house.restart().await;
    let (_, again) = house
        .get(As("acme-key"), &format!("/v1/sessions/{}", session["id"].as_str().unwrap()))
        .await;
    assert_eq!(again, session);
    let token = session["env"]["OPENAI_API_KEY"].as_str().unwrap();
    let response = house
        .client
        .get(format!("{}/v1/openai/v1/models", house.proxy))
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}
