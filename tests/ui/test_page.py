"""The dashboard in a real Chromium, over a real router and simulated backends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ui.stage import TOKEN, Stage

pytestmark = [pytest.mark.live, pytest.mark.slow]

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
NANO = "nemotron-3-nano-30b"
FLOOD = """
const [calls, answer] = await Promise.all([import("/calls.js"), fetch("/api/calls?limit=1")]);
const [call] = await answer.json();
for (let index = 0; index < 10000; index += 1) {
  calls.addCall({...call, request_id: `flood-${index}`, model: `<img src=x onerror="window.hit=1">`});
}"""


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Any, stage: Stage) -> None:
        self.driver = driver
        self.stage = stage

    def open(self) -> None:
        self.driver.get(self.stage.login)
        self.until(lambda: self.count("#fleet tbody tr.backend") >= 4)

    def until(self, condition: Callable[[], Any], limit_s: float = 120.0) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, limit_s, 0.1, (StaleElementReferenceException,))
        return waiting.until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def count(self, selector: str) -> int:
        return len(self.all(selector))

    def text(self, selector: str) -> str:
        return str(
            self.driver.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)
        )

    def click(self, selector: str) -> None:
        self.until(lambda: self.count(selector))
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def key(self, key: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def script(self, text: str, *given: Any) -> Any:
        return self.driver.execute_script(text, *given)

    def answer(self, value: str) -> None:
        """Press a button of the dialog once it is open."""
        self.until(lambda: self.script("return document.querySelector('#dialog').open"))
        self.click(f'#dialog[open] button[value="{value}"]')

    def order(self, label: str, backend: str) -> None:
        self.click(f'button[aria-label="{label} {backend}"]')
        self.answer("do")

    def call(self) -> None:
        assert self.stage.chat(NANO, "hello", 8) == 200


ATTENTION = """
const done = arguments[0];
const well = {health: "healthy", models: [], gpus: [], kernel_matches: null};
const backend = (name, more) => ({name, ...well, ...more});
const fleet = (backends) => ({models: [], history_ok: true, passive: false, backends});
import("/fleet.js").then(({attention}) => done(attention(%s).map(([kind, text]) => `${kind}: ${text}`)));
"""


FOLDED = """
const done = arguments[0];
const lines = Array.from({length: %d}, (_, number) => ["bad", `line ${number}`]);
import("/fleet.js").then(({attentionList}) => {
  const box = document.createElement("div");
  box.append(...[attentionList(lines)].flat());
  const folded = box.querySelectorAll("details li").length;
  done([box.querySelectorAll("li").length - folded, folded, box.querySelector("summary")?.textContent ?? ""]);
});
"""


@pytest.fixture
def page(driver: Any, stage: Stage) -> Iterator[Page]:
    from tests.ui.browser import look, wrongs

    look(driver, width=1440, height=1000, dark=False)
    one = Page(driver, stage)
    one.open()
    wrongs(driver)
    yield one
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_shows_every_backend_without_a_complaint(page: Page) -> None:
    from tests.ui.browser import wrongs

    assert page.text("#fleet tbody").count("spark-") >= 5
    page.until(lambda: "MARLIN" in page.text(".kernel.wrong"))
    page.until(lambda: "declared flashinfer_cutlass" in page.text("#attention"))
    assert page.text("#connection-text") == "live"
    assert wrongs(page.driver) == []


def test_a_call_appears_by_itself_and_is_explained(page: Page) -> None:
    before = page.count("#calls tbody tr")
    page.call()
    page.until(lambda: page.count("#calls tbody tr") > before)
    page.click("#calls tbody button.name")
    page.until(lambda: page.count("#calls .candidates tbody tr") == 3)
    assert "about" in page.text("#calls .decision")


def test_behind_a_name_stands_how_true_predictions_were_and_what_its_gpu_says(page: Page) -> None:
    page.call()
    page.click("#fleet tbody button.name")
    page.until(lambda: "times that, usually off by" in page.text("#fleet .details"))
    details = page.text("#fleet .details")
    assert "predicted TTFT" in details
    assert "prefill rate" in details
    assert "write gpu: ssh://spark-1 to read it" in details
    page.click("#fleet tbody button.name")
    page.until(lambda: page.count("#fleet .details") == 0)


def test_the_fleet_fits_a_desktop_window_with_its_buttons(page: Page) -> None:
    """Some backend is off and says why, some kernel is wrong: nothing of that may push the buttons off the page."""
    page.until(lambda: page.count(".kernel.wrong") == 1)
    assert (
        page.script(
            "const card = document.querySelector('#fleet').parentElement; return card.scrollWidth - card.clientWidth"
        )
        == 0
    )


def test_what_wants_attention_stands_worst_first_and_folds(page: Page) -> None:
    def asked(status: str) -> list[str]:
        return [str(line) for line in page.driver.execute_async_script(ATTENTION % status)]

    assert asked("fleet([])") == [], "an empty fleet is no alarm: its table says what to do"
    assert asked("fleet([backend('a'), backend('b', {health: 'off'})])") == []
    down = asked("fleet([backend('a', {health: 'off'}), backend('b', {health: 'starting'})])")
    assert down == ["bad: No backend answers: every call gets 503 until one does"]
    capped = "gpus: [{host: 's', reading: {capped_by: ['power']}}]"
    wrong = "kernel_matches: false, declared_kernel: 'b12x', observed_kernel: 'marlin'"
    kinds = [line.split(":")[0] for line in asked(f"fleet([backend('a', {{{capped}}}), backend('b', {{{wrong}}})])")]
    assert kinds == ["bad", "warn"]
    assert page.driver.execute_async_script(FOLDED % 5) == [5, 0, ""], "one line more is no reason to fold"
    assert page.driver.execute_async_script(FOLDED % 20) == [4, 16, "and 16 more"]


def test_the_plots_draw_what_was_measured(page: Page) -> None:
    page.call()
    page.until(
        lambda: page.script(
            "return [...document.querySelectorAll('path.series')].some((p) => p.getAttribute('d').length > 20)"
        )
    )
    assert page.count(".plot svg[role=img]") == 4
    assert "last 15 minutes" in page.script("return document.querySelector('.plot svg').getAttribute('aria-label')")


def test_drain_and_resume_by_button(page: Page) -> None:
    page.order("Drain", "spark-1-marlin")
    page.until(lambda: page.count(".fleet .pill.said") == 1)
    assert page.script("return getComputedStyle(document.querySelector('.pill.said')).position") == "static"
    with page.stage.admin() as admin:
        assert admin.get("/api/backends/spark-1-marlin").json()["intent"] == "draining"
    page.order("Resume", "spark-1-marlin")
    page.until(lambda: page.count(".pill.said") == 0)


def test_a_flag_is_shouted_and_cleared_with_its_reason(page: Page) -> None:
    page.click('button[aria-label="Flag spark-1-cutlass"]')
    page.until(lambda: page.script("return document.querySelector('#dialog').open"))
    page.all("#why")[0].send_keys("repeats <b>itself</b>\n")
    page.until(lambda: "repeats <b>itself</b>" in page.text("#attention"))
    page.until(lambda: "flag" in page.text("#marks"))
    page.order("Clear", "spark-1-cutlass")
    page.until(lambda: "repeats" not in page.text("#attention"))


def test_a_reload_shows_its_change_first_and_makes_it_only_then(page: Page) -> None:
    page.stage.write_fleet(without=("spark-4-super",))
    page.key("r")
    page.until(lambda: "- backend spark-4-super" in page.text(".diff"))
    page.answer("")
    assert "spark-4-super" in page.text("#fleet")
    page.key("r")
    page.answer("apply")
    page.until(lambda: "spark-4-super" not in page.text("#fleet"))
    page.stage.write_fleet()
    page.click("#reload")
    page.answer("apply")
    page.until(lambda: "spark-4-super" in page.text("#fleet"))


def test_a_file_that_is_wrong_is_refused_in_words(page: Page) -> None:
    page.stage.write_fleet(extra="timeouts: {queue_s: never}\n")
    page.click("#reload")
    page.until(lambda: "Refused" in page.text("#dialog"))
    assert "queue_s" in page.text("#dialog")
    assert page.count('#dialog button[value="apply"]') == 0
    page.answer("")
    page.stage.write_fleet()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.key("?")
    page.until(lambda: page.script("return document.querySelector('#dialog').open"))
    page.answer("")
    page.key("/")
    assert page.driver.switch_to.active_element.get_attribute("id") == "filter"
    page.key("\ue00c")  # Escape
    before = page.script("return getComputedStyle(document.body).backgroundColor")
    page.key("t")
    assert page.script("return getComputedStyle(document.body).backgroundColor") != before
    page.key("t")


def test_ten_thousand_calls_and_hostile_names_do_no_harm(page: Page) -> None:
    page.call()
    page.until(lambda: page.count("#calls tbody tr"))
    page.driver.execute_script(f"return (async () => {{ {FLOOD} }})()")
    page.until(lambda: page.count("#calls tbody tr") == 200)
    assert "<img src=x" in page.text("#calls tbody")
    assert page.script("return window.hit ?? null") is None
    assert page.count("#calls img") == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 390])
def test_everybody_can_use_it(page: Page, width: int, dark: bool) -> None:
    from tests.ui.browser import look

    look(page.driver, width=width, height=900, dark=dark, mobile=width < 500)
    page.call()
    page.click("#fleet button.name")
    page.until(lambda: page.count("#calls tbody tr"))
    page.click("#calls button.name")
    page.until(lambda: page.count("#calls .decision"))
    page.script(AXE.read_text())
    found = page.driver.execute_async_script("axe.run().then((found) => arguments[0](found))")
    told = [(one["id"], [node["target"] for node in one["nodes"]][:4]) for one in found["violations"]]
    assert told == [], json.dumps(told, indent=1)
    assert page.script("return document.documentElement.scrollWidth") <= width


def test_a_wrong_token_gets_a_page_that_asks_again(page: Page) -> None:
    page.driver.delete_all_cookies()
    page.driver.get(page.stage.url)
    page.all("#token")[0].send_keys("guess\n")
    page.until(lambda: "not this router" in page.text("main"))
    page.all("#token")[0].send_keys(f"{TOKEN}\n")
    page.until(lambda: page.count("#fleet tbody tr.backend"))


def test_a_page_that_expires_says_so(page: Page) -> None:
    page.driver.delete_all_cookies()
    restart(page.stage)
    page.until(lambda: "Sign in again" in page.text("#banner"))


def test_a_router_that_restarts_is_found_again(page: Page) -> None:
    assert page.stage.router is not None
    page.stage.router.stop()
    page.until(lambda: "does not answer" in page.text("#banner"))
    page.stage.start_router()
    page.until(lambda: page.text("#connection-text") == "live")
    page.call()
    page.until(lambda: page.count("#calls tbody tr") == 1)


def restart(stage: Stage) -> None:
    assert stage.router is not None
    stage.router.stop()
    stage.start_router()
