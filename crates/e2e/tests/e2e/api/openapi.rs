//! The document, against the one that is committed.

use tokio::process::Command;

#[tokio::test]
async fn the_committed_document_is_the_programs() {
    let output = Command::new(e2e::program()).arg("openapi").output().await.unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let committed = include_str!("../../../../../docs/reference/openapi.json");
    let committed: serde_json::Value = serde_json::from_str(committed).unwrap();
    assert!(printed == committed, "run `cargo xtask gen` and commit docs/reference/openapi.json");
    // OpenAPI 3.1 wants a description for every response.
    for methods in printed["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            for response in operation["responses"].as_object().unwrap().values() {
                assert!(!response["description"].as_str().unwrap().is_empty(), "{operation}");
            }
        }
    }
}
