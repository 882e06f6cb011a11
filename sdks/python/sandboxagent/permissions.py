"""From what people say (`once`, `always`, `reject`) to the options that an agent offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .exceptions import UnsupportedPermissionReplyError

#: What a word means, the first kind that is offered.
_KINDS: dict[str, tuple[str, ...]] = {
    "once": ("allow_once", "allow_always"),
    "allow": ("allow_once", "allow_always"),
    "allowed": ("allow_once", "allow_always"),
    "allow_once": ("allow_once", "allow_always"),
    "approve": ("allow_once", "allow_always"),
    "always": ("allow_always",),
    "allow_always": ("allow_always",),
    "reject": ("reject_once", "reject_always"),
    "rejected": ("reject_once", "reject_always"),
    "deny": ("reject_once", "reject_always"),
    "denied": ("reject_once", "reject_always"),
    "reject_once": ("reject_once", "reject_always"),
    "reject_always": ("reject_always",),
}

CANCELLED = {"outcome": "cancelled"}


def answer_of(reply: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """ACP's outcome of a reply: a word, an option's id, a `PermissionResponse`, or an outcome."""
    if isinstance(reply, Mapping):
        if "optionId" in reply:
            return {"outcome": "selected", "optionId": reply["optionId"]}
        inner = reply.get("outcome")
        if inner == "selected":
            raise UnsupportedPermissionReplyError(str(asked["id"]), "selected", _offered(asked))
        return answer_of(inner, asked)
    if reply in ("cancelled", "canceled", "cancel"):
        return dict(CANCELLED)
    options = asked["permission"]["options"]
    for kind in _KINDS.get(str(reply), ()):
        for option in options:
            if option.get("kind") == kind:
                return {"outcome": "selected", "optionId": option["optionId"]}
    for option in options:
        if option.get("optionId") == reply:
            return {"outcome": "selected", "optionId": reply}
    raise UnsupportedPermissionReplyError(str(asked["id"]), str(reply), _offered(asked))


def denied(asked: Mapping[str, Any]) -> dict[str, Any]:
    """No, in the words that the agent offers."""
    try:
        return answer_of("reject", asked)
    except UnsupportedPermissionReplyError:
        return dict(CANCELLED)


def _offered(asked: Mapping[str, Any]) -> list[str]:
    return [str(option.get("optionId")) for option in asked["permission"]["options"]]
