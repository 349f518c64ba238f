"""HTTP/1.1 over asyncio protocols and llhttp, both sides; knows nothing of models or backends."""
