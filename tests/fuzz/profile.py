"""A pytest plugin for long runs: more examples, no deadline, and nothing kept between runs but the seed told."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "fuzz",
    max_examples=500,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")
