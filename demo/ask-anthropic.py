# An agent's script, as its author wrote it: nothing in it knows of jails or phantoms.
import sys

sys.path.insert(0, "/opt/flavors/demo/python")

import anthropic

client = anthropic.Anthropic()
with client.messages.stream(
    model="claude-sonnet-4-5",
    max_tokens=64,
    messages=[{"role": "user", "content": "Say hello."}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
