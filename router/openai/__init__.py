"""What the bytes mean: routes, request edits, events of a stream, usage."""
