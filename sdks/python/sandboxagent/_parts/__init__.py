"""What a client can do, a subject a file; `SandboxAgent` is all of them."""
