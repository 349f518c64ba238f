import pytest

from router.errors import ClientFault, MethodNotAllowed
from router.openai.routes import ALL_ROUTES, MODEL, RESPONSES_CANCEL, RESPONSES_GET, match, path_id


@pytest.mark.parametrize("route", ALL_ROUTES, ids=lambda route: route.name)
def test_every_route_is_found_by_each_of_its_methods(route):
    target = route.name.replace("{model}", "org/name").replace("{response_id}", "resp_1")
    for method in route.methods:
        assert match(method, target) is route
        assert match(method, target + "?beta=true") is route


@pytest.mark.parametrize(
    "path",
    [
        "/", "/v1/nope", "/v1/chat/completions/", "/V1/chat/completions", "/v1/chat%2Fcompletions", "//v1/models",
        "/v1/models/", "/v1/responses/", "/v1/responses/a/b", "/v1/responses//cancel", "/v1/../v1/models",
        # what a real vLLM has beside its API key: development, scale-out, LoRA, profiling
        "/server_info", "/sleep", "/wake_up", "/is_sleeping", "/reset_prefix_cache", "/collective_rpc", "/pause",
        "/resume", "/abort_requests", "/update_weights", "/scale_elastic_ep", "/is_scaling_elastic_ep",
        "/inference/v1/generate", "/inference/v1/abort_requests", "/v1/chat/completions/render",
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/start_profile", "/stop_profile", "/docs", "/openapi.json",
        "/kv_event_sources", "/slots", "/props",
    ],
)  # fmt: skip
def test_what_is_not_served_to_clients_matches_nothing(path):
    for method in ("GET", "POST"):
        with pytest.raises(ClientFault) as caught:
            match(method, path)
        assert (caught.value.status, caught.value.code) == (404, "unknown_url")


def test_a_wrong_method_is_told_the_right_ones():
    with pytest.raises(MethodNotAllowed) as caught:
        match("GET", "/v1/chat/completions")
    assert caught.value.status == 405
    assert caught.value.allow == ("POST",)


def test_a_strangers_path_is_shown_bounded_and_printable():
    with pytest.raises(ClientFault) as caught:
        match("GET", "/\x1b[31m" + "a" * 5000)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


def test_ids_in_paths_are_read_and_decoded():
    assert path_id(MODEL, "/v1/models/org%2Fname?x=1") == "org/name"
    assert path_id(MODEL, "/v1/models/org/name") == "org/name"
    assert path_id(RESPONSES_GET, "/v1/responses/resp_7?stream=true") == "resp_7"
    assert path_id(RESPONSES_CANCEL, "/v1/responses/resp_7/cancel") == "resp_7"
    assert path_id(match("GET", "/v1/models"), "/v1/models") == ""
