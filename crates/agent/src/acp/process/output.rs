//! What an agent prints, and where it goes.

use serde_json::json;

use super::{Answer, Asked, Pending, Publish, Shared};
use crate::acp::envelope::{Envelope, Kind, raw};
use crate::acp::feed::{Feed, Told};
use crate::acp::lines::Line;
use crate::acp::sessions::Tracker;

/// Requests of the agent's that may wait for a client at once.
const OPEN_REQUESTS: usize = 1000;

/// Text of an answer that is gathered for a client that wants it in one piece.
const GATHERED: usize = 16 * 1024 * 1024;

/// What an agent printed: told, and answers given to who waits for them, once they are kept.
pub(super) async fn take(shared: &Shared, feed: &Feed, tracker: &Tracker, lines: Vec<Line>) {
    let (mut told, mut answers) = (Vec::with_capacity(lines.len()), Vec::new());
    for line in lines {
        match read(&line) {
            Ok(envelope) => match envelope.kind() {
                Kind::Response => answer(shared, envelope, &mut told, &mut answers),
                Kind::Request => told.extend(request(shared, &envelope)),
                Kind::Notification => told.extend(notification(shared, tracker, &envelope).await),
            },
            Err((error, start)) => {
                tracing::warn!(error, "an agent printed something that is no message");
                let params = json!({ "error": error, "raw": start });
                told.push(Told::of(&Envelope::notification("_adapter/invalid_stdout", &params)));
            }
        }
    }
    feed.tell(told).await;
    for (pending, envelope) in answers {
        tracker
            .answered(&pending.method, &pending.params, pending.session.as_deref(), &envelope)
            .await;
        if matches!(pending.method.as_str(), "session/new" | "session/load" | "session/resume")
            && envelope.has("result")
        {
            let session = pending
                .session
                .clone()
                .or_else(|| envelope.member("result")["sessionId"].as_str().map(str::to_owned));
            shared.state().open.extend(session);
        }
        let said = pending.said.unwrap_or_default();
        // Nobody who waits any more: it is in the feed.
        drop(pending.tell.send(Answer::Came { envelope, said }));
    }
}

fn read(line: &Line) -> Result<Envelope, (String, String)> {
    let text = match line {
        Line::TooLong(bytes) => return Err((format!("a line of {bytes} bytes"), String::new())),
        Line::Text(text) => text,
    };
    let start = || String::from_utf8_lossy(text).chars().take(200).collect();
    let text = std::str::from_utf8(text).map_err(|error| (error.to_string(), start()))?;
    Envelope::parse(text).map_err(|error| (error.to_string(), start()))
}

fn answer(
    shared: &Shared,
    envelope: Envelope,
    told: &mut Vec<Told>,
    answers: &mut Vec<(Pending, Envelope)>,
) {
    let number = envelope.id().and_then(|id| id.get().parse::<u64>().ok());
    let pending = number.and_then(|number| shared.state().pending.remove(&number));
    let Some(pending) = pending else {
        // To nothing we asked: told as it is.
        told.push(Told::of(&envelope));
        return;
    };
    let envelope = envelope.with_id(pending.client_id.clone());
    if pending.publish == Publish::Feed {
        told.push(Told { session: pending.session.clone(), text: envelope.text() });
    }
    answers.push((pending, envelope));
}

/// A request of the agent's goes to clients under an id that no other has, or has had.
fn request(shared: &Shared, envelope: &Envelope) -> Option<Told> {
    let id = envelope.id()?.to_owned();
    let mut state = shared.state();
    state.last += 1;
    let shown = format!("agent-{}-{}", shared.number, state.last);
    let params = envelope.params();
    state.asked.insert(shown.clone(), Asked { id, options: params["options"].clone() });
    state.asked_order.push_back(shown.clone());
    if state.asked_order.len() > OPEN_REQUESTS
        && let Some(oldest) = state.asked_order.pop_front()
    {
        state.asked.remove(&oldest);
    }
    drop(state);
    let mut envelope = envelope.clone().with_id(raw(&shown.into()));
    if envelope.method().as_deref() == Some("session/request_permission") {
        envelope = crate::acp::dialect::with_permission(envelope, params);
    }
    Some(Told::of(&envelope))
}

async fn notification(shared: &Shared, tracker: &Tracker, envelope: &Envelope) -> Option<Told> {
    let session = envelope.session();
    if envelope.method().as_deref() == Some("session/update")
        && let Some(session) = &session
    {
        let muted = shared.state().muted.contains(session);
        if muted {
            return None;
        }
        gather(shared, session, envelope);
        tracker.updated(session, envelope).await;
    }
    Some(Told { session, text: envelope.text() })
}

/// Adds what the agent says to the answer that a client wants in one piece.
fn gather(shared: &Shared, session: &str, envelope: &Envelope) {
    let mut state = shared.state();
    let mut wanting = state
        .pending
        .values_mut()
        .filter(|pending| pending.session.as_deref() == Some(session))
        .filter_map(|pending| pending.said.as_mut());
    let Some(said) = wanting.next() else { return };
    let update = envelope.params()["update"].take();
    if update["sessionUpdate"] == "agent_message_chunk"
        && let Some(text) = update["content"]["text"].as_str()
    {
        // Once it is full it stays so: no hole in the middle.
        said.truncated |= said.text.len() + text.len() > GATHERED;
        if !said.truncated {
            said.text.push_str(text);
        }
    }
}
