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

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = include_str!("../../../../../docs/reference/openapi.json");
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let mut names: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert!(count > 15 && names.len() == count, "{names:?}");
}
