//! A JSON-RPC envelope, taken apart no further than is needed: what we do not know passes through.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

/// Codes of JSON-RPC and ACP.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const INTERNAL: i64 = -32603;
pub(super) const NO_SUCH_RESOURCE: i64 = -32002;

/// One message.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    members: BTreeMap<String, Box<RawValue>>,
    /// Its share of what may be on its way to an agent.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Notification,
    /// An answer, or something without meaning.
    Response,
}

impl Envelope {
    pub(super) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { members: serde_json::from_str(text)?, room: None })
    }

    pub(super) fn holding(mut self, room: Option<OwnedSemaphorePermit>) -> Self {
        self.room = room.map(Arc::new);
        self
    }

    /// Its share of room, to be kept until it is on its way.
    pub(super) fn take_room(&mut self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.room.take()
    }

    pub(super) fn kind(&self) -> Kind {
        match (self.members.contains_key("method"), self.members.contains_key("id")) {
            (true, true) => Kind::Request,
            (true, false) => Kind::Notification,
            (false, _) => Kind::Response,
        }
    }

    pub(super) fn method(&self) -> Option<String> {
        serde_json::from_str(self.members.get("method")?.get()).ok()
    }

    pub(super) fn id(&self) -> Option<&RawValue> {
        self.members.get("id").map(AsRef::as_ref)
    }

    /// The id as text, whether it was sent as text or as a number.
    pub(super) fn id_text(&self) -> Option<String> {
        let raw = self.id()?.get();
        Some(serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned()))
    }

    pub(super) fn with_id(mut self, id: Box<RawValue>) -> Self {
        self.members.insert("id".to_owned(), id);
        self
    }

    pub(super) fn params(&self) -> Value {
        self.member("params")
    }

    pub(super) fn member(&self, name: &str) -> Value {
        let raw = self.members.get(name).map_or("null", |raw| raw.get());
        serde_json::from_str(raw).unwrap_or_default()
    }

    /// Whether its parameters hold some text, at a glance.
    pub(super) fn mentions(&self, text: &str) -> bool {
        self.members.get("params").is_some_and(|params| params.get().contains(text))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(super) fn with(mut self, name: &str, value: &Value) -> Self {
        self.members.insert(name.to_owned(), raw(value));
        self
    }

    /// The session that a message is of.
    pub(super) fn session(&self) -> Option<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Of {
            session_id: String,
        }
        let params = self.members.get("params")?;
        serde_json::from_str::<Of>(params.get()).ok().map(|of| of.session_id)
    }

    /// The message on one line: members are as they were written, and between their parts there may have been line
    /// ends. (In a string there is none: it would not have been JSON.)
    pub(super) fn text(&self) -> String {
        let text = serde_json::to_string(&self.members).unwrap_or_default();
        if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text }
    }

    /// Why this is no JSON-RPC message, if it is none.
    pub(super) fn complaint(&self) -> Option<&'static str> {
        if self.members.contains_key("method") {
            return self.method().is_none().then_some("`method` must be a string");
        }
        let answers = self.has("result") || self.has("error");
        (!answers || !self.has("id"))
            .then_some("a message has a `method`, or an `id` with a `result` or an `error`")
    }

    /// A request of ours.
    pub(super) fn request(method: &str, params: &Value) -> Self {
        Self::of(json!({ "jsonrpc": "2.0", "id": 0, "method": method, "params": params }))
    }

    pub(super) fn notification(method: &str, params: &Value) -> Self {
        Self::of(json!({ "jsonrpc": "2.0", "method": method, "params": params }))
    }

    /// An answer.
    pub(super) fn result(id: &RawValue, result: &Value) -> Self {
        Self::of(json!({ "jsonrpc": "2.0", "result": result })).with_id(id.to_owned())
    }

    /// A failure. Never an HTTP error: that would end a client's whole connection.
    pub(super) fn error(id: &RawValue, code: i64, message: &str, data: Value) -> Self {
        let mut error = json!({ "code": code, "message": message });
        if !data.is_null() {
            error["data"] = data;
        }
        Self::of(json!({ "jsonrpc": "2.0", "error": error })).with_id(id.to_owned())
    }

    fn of(value: Value) -> Self {
        let Value::Object(members) = value else {
            return Self { members: BTreeMap::new(), room: None };
        };
        let members = members.into_iter().map(|(name, value)| (name, raw(&value))).collect();
        Self { members, room: None }
    }
}

/// A value as it is written.
pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_passes_through() {
        let text = r#"{"jsonrpc":"2.0","id":"x","method":"m","params":{"n":1.10,"_meta":{"a":1}},"later":[1]}"#;
        let envelope = Envelope::parse(text).unwrap().with_id(raw(&json!(7)));
        let told = envelope.text();
        assert!(
            told.contains("1.10") && told.contains(r#""later":[1]"#) && told.contains(r#""id":7"#)
        );
    }

    #[test]
    fn a_message_is_one_line_however_it_was_written() {
        let text = "{\n  \"method\": \"m\",\r\n  \"params\": [1,\n {\"id\": 777}\r]\n}";
        let told = Envelope::parse(text).unwrap().text();
        assert!(!told.contains(['\n', '\r']) && told.contains("777"), "{told}");
        assert!(Envelope::parse("{\"method\":\"a\nb\"}").is_err());
    }

    #[test]
    fn what_is_no_message_is_told() {
        let fine = |text| Envelope::parse(text).unwrap().complaint().is_none();
        assert!(fine(r#"{"method":"m"}"#) && fine(r#"{"id":1,"result":null}"#));
        for wrong in ["{}", r#"{"id":1}"#, r#"{"id":1,"method":5}"#, r#"{"result":1}"#] {
            assert!(!fine(wrong), "{wrong}");
        }
    }

    #[test]
    fn kinds_are_told_apart_by_their_members() {
        let kind = |text| Envelope::parse(text).unwrap().kind();
        assert_eq!(kind(r#"{"id":null,"method":"m"}"#), Kind::Request);
        assert_eq!(kind(r#"{"method":"m"}"#), Kind::Notification);
        assert_eq!(kind(r#"{"id":1,"result":{}}"#), Kind::Response);
        assert_eq!(kind("{}"), Kind::Response);
        assert!(Envelope::parse("[1]").is_err());
    }
}
