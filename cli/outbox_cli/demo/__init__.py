"""`outbox demo`: the whole path with real receivers, in one command."""
