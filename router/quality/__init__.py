"""Is it still right? Checks backends in their idle moments, watches live answers, and says what follows.

The decisions are `policy/quality.py` and its neighbours; here is who asks what, when, and what is kept of it.
"""
