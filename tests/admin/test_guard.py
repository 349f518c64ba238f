"""Nobody reaches the admin side without its token, from another site's page, or under a name that is not its own."""

import pytest

from tests.admin.conftest import TOKEN, AdminWorld

PATHS = ("/api/status", "/api/calls", "/api/history", "/api/events", "/metrics", "/", "/main.js", "/api/nonsense")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"cookie": "router_admin=wrong"}])
async def test_without_the_token_there_is_nothing(world: AdminWorld, path: str, headers: dict[str, str]) -> None:
    async with await world.admin(headers=headers) as admin:
        answer = await admin.get(path)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "bad_token"


async def test_a_browser_without_the_token_is_asked_for_it(world: AdminWorld) -> None:
    async with await world.admin(headers={"accept": "text/html"}) as admin:
        answer = await admin.get("/")
        again = await admin.get("/", headers={"cookie": "router_admin=old"})
    assert answer.status_code == again.status_code == 401
    assert "Admin token" in answer.text
    assert "not this router" not in answer.text
    assert "not this router" in again.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/style.css", "/icon.svg"])
async def test_some_things_are_for_everybody(world: AdminWorld, path: str) -> None:
    async with await world.admin(headers={}) as admin:
        assert (await admin.get(path)).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "localhost", "[::1]:8081", "10.0.0.7", "router.home:8081"])
async def test_its_own_names_and_addresses_are_served(world: AdminWorld, host: str) -> None:
    async with await world.admin() as admin:
        assert (await admin.get("/api/status", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:8081"])
async def test_a_name_that_is_not_its_own_is_misdirected(world: AdminWorld, host: str) -> None:
    async with await world.admin() as admin:
        answer = await admin.get("/api/status", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json()["error"]["code"] == "bad_host"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
async def test_another_sites_page_gives_no_orders(world: AdminWorld, origin: str) -> None:
    async with await world.admin() as admin:
        answer = await admin.post(
            "/api/backends/marlin/intent", json={"intent": "draining"}, headers={"origin": origin}
        )
    assert answer.status_code == 403
    assert world.app.fleet.backends["marlin"].intent == "active"


async def test_an_order_must_be_json(world: AdminWorld) -> None:
    async with await world.admin() as admin:
        answer = await admin.post("/api/reload", data={"force": "true"})
    assert answer.status_code == 415


@pytest.mark.parametrize("how", ["link", "form"])
async def test_signing_in_sets_a_cookie_that_pages_cannot_read(world: AdminWorld, how: str) -> None:
    async with await world.admin(headers={}) as admin:
        if how == "link":
            answer = await admin.get("/login", params={"token": TOKEN})
        else:
            answer = await admin.post("/login", data={"token": f" {TOKEN} "})
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=strict" in answer.headers["set-cookie"]
        assert (await admin.get("/api/status")).status_code == 200


@pytest.mark.parametrize("given", ["guess-1234", "", "<script>alert(1)</script>", "é" * 50, "x" * 10_000])
async def test_a_wrong_token_is_refused_and_never_repeated(world: AdminWorld, given: str) -> None:
    async with await world.admin(headers={}) as admin:
        answers = [
            await admin.get("/login", params={"token": given}),
            await admin.post("/login", data={"token": given}),
        ]
    for answer in answers:
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert not given or given not in answer.text


@pytest.mark.parametrize("path", ["/", "/api/status", "/livez", "/login", "/api/nonsense"])
async def test_every_answer_carries_the_security_headers(world: AdminWorld, path: str) -> None:
    async with await world.admin() as admin:
        answer = await admin.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
