"""One module a peer: the same small job, as that peer's users would write it."""
