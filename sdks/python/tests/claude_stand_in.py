"""An ACP agent on standard streams with the models and modes that Claude's adapter offers. It says back what it hears,
asks before a tool call if the prompt says ``permission``, counts to N for ``count N`` (``slowly``), and takes as many
seconds as ``wait N`` says."""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

MODES = ["default", "acceptEdits", "plan", "bypassPermissions"]
MODELS = ["default", "sonnet", "opus", "haiku"]
state: dict[str, dict[str, str]] = {}


def send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def options(session: str) -> list[dict[str, Any]]:
    values = [{"value": model, "name": model} for model in MODELS]
    current = state[session]["model"]
    model = {"id": "model", "name": "Model", "category": "model", "type": "select", "currentValue": current}
    return [{**model, "options": values}]


def described(session: str) -> dict[str, Any]:
    modes = {"currentModeId": state[session]["mode"], "availableModes": [{"id": mode, "name": mode} for mode in MODES]}
    return {"sessionId": session, "modes": modes, "configOptions": options(session)}


def ask() -> str:
    choices = [("a", "allow_once"), ("b", "allow_always"), ("r", "reject_once")]
    offered = [{"optionId": option, "name": kind, "kind": kind} for option, kind in choices]
    params = {"sessionId": next(iter(state)), "toolCall": {"toolCallId": "t", "title": "ls"}, "options": offered}
    send({"id": 99, "method": "session/request_permission", "params": params})
    heard: dict[str, Any] = {}
    while "result" not in heard:
        # A notification may come before the answer.
        heard = json.loads(sys.stdin.readline())
    outcome = heard["result"]["outcome"]
    return str(outcome.get("optionId", outcome["outcome"]))


for line in sys.stdin:
    message = json.loads(line)
    method, params, number = message.get("method"), message.get("params") or {}, message.get("id")
    session = params.get("sessionId", "")
    if number is None or method is None:
        continue
    result: dict[str, Any] = {}
    if method == "initialize":
        result = {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}, "authMethods": []}
    elif method in ("session/new", "session/load"):
        session = session or str(uuid.uuid4())
        state.setdefault(session, {"mode": "default", "model": "default"})
        result = described(session)
    elif method == "session/set_mode":
        if params["modeId"] not in MODES:
            send({"id": number, "error": {"code": -32602, "message": "no such mode"}})
            continue
        state[session]["mode"] = params["modeId"]
    elif method == "session/set_config_option":
        state[session][params["configId"]] = params["value"]
        result = {"configOptions": options(session)}
    elif method == "session/prompt":
        text = " ".join(block.get("text", block.get("uri", "")) for block in params["prompt"])
        words = text.split()
        if "wait" in words:
            time.sleep(float(words[words.index("wait") + 1]))
        answer = f"chosen: {ask()}" if "permission" in words else f"You said: {text}"
        if "count" in words:
            answer = " ".join(map(str, range(int(words[words.index("count") + 1]))))
        for piece in answer.split(" "):
            chunk = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": piece + " "}}
            send({"method": "session/update", "params": {"sessionId": session, "update": chunk}})
            time.sleep(0.02 if "slowly" in words else 0)
        result = {"stopReason": "end_turn"}
    else:
        send({"id": number, "error": {"code": -32601, "message": f"no {method}"}})
        continue
    send({"id": number, "result": result})
