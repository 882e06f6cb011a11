import { sessionEvents } from "../acp/connection.js";
import { Conversation } from "../acp/conversation.js";
import { useHttp } from "../parts/context.js";
import { useLoaded } from "../parts/loading.js";
import { Empty, Endpoint, ProblemNote } from "../parts/page.js";
import { ConversationView } from "./conversation-view.js";

/** A session as the server has stored it, to read. */
export function StoredSession({ id }: { id: string }) {
  const http = useHttp();
  const session = useLoaded(async (signal) => {
    const conversation = new Conversation();
    for (const { sender, payload } of await sessionEvents(http, id, signal)) {
      if (sender === "client") conversation.sent(payload);
      else conversation.received(payload);
    }
    const [first] = [...conversation.sessions.values()].sort((a, b) => b.items.length - a.items.length);
    return first ?? null;
  }, id);
  return (
    <section class="card flush session" aria-label="Stored session">
      <header class="pane-head">
        <div class="grow">
          <h2>{session.value?.title ?? "Stored session"}</h2>
          <Endpoint text={`GET /v1/sessions/${id}/events`} />
        </div>
        <a class="button quiet" href="#/sessions" aria-label="Close session">
          ×
        </a>
      </header>
      <ProblemNote problem={session.problem} />
      {session.value === undefined && session.problem === undefined && <Empty>Loading…</Empty>}
      {session.value === null && <Empty>Nothing was said in it.</Empty>}
      {session.value && <ConversationView session={session.value} drawn={0} />}
    </section>
  );
}
