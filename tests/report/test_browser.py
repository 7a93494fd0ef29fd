"""The page in a real Chromium: what a reader sees, points at, filters and copies."""

import shutil
from collections.abc import Iterator

import pytest

from peft_autoconfig.report import write_report
from peft_autoconfig.search import Search

from .report_cases import SPACE, make_run

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; the page is tested in a real one")
    with api.sync_playwright() as playwright:
        # The sandbox does not start for root, as in containers; the page is our own.
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


class Visit:
    """An open page and everything that it complained of or asked for."""

    def __init__(self, browser, file, **options) -> None:
        self.context = browser.new_context(**(DESKTOP | options))
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.url = file.as_uri()

    def traces(self, figure: str = "front") -> list[dict]:
        """What Plotly shows: the visible traces with their points."""
        return self.page.evaluate(
            """name => document.getElementById(name).data.filter(t => t.visible !== false).map(
                t => ({group: t.meta?.group, view: t.meta?.view, ids: t.ids, x: t.x, y: t.y}))""",
            figure,
        )

    def group(self, name: str) -> list[dict]:
        return [trace for trace in self.traces() if trace["group"] == name]

    def drawn(self) -> int:
        """The number of points that are really on the screen."""
        return self.page.locator("#front .scatterlayer path.point").count()

    def set(self, name: str, value: str, checked: bool = True) -> None:
        selector = f"#controls input[name={name}]" + (f"[value='{value}']" if value else "")
        self.page.locator(selector).set_checked(checked, force=True)


@pytest.fixture
def visit(browser, whole_page):
    visit = Visit(browser, whole_page)
    yield visit
    assert visit.complaints == []
    assert visit.requests == [visit.url]  # nothing but the file itself
    visit.context.close()


def test_the_front_has_its_points(visit, findings):
    line, members = visit.group("front")
    assert members["ids"] == [str(member.number) for member in findings.front]
    assert members["x"] == line["x"] == [member.num_params for member in findings.front]
    assert members["y"] == [member.score for member in findings.front]
    (dominated,) = visit.group("dominated")
    assert len(dominated["x"]) == len(findings.dominated)
    baselines = [r for r in findings.repeats if r.trial is None and r.num_params]
    shown = len(findings.complete) + len(findings.front) + len(baselines)
    assert visit.drawn() == shown


def test_every_figure_is_drawn(visit):
    sizes = visit.page.evaluate(
        """[...document.querySelectorAll(".figure")].map(
            f => [f.id, f.querySelector(".main-svg")?.getBoundingClientRect().width ?? 0])"""
    )
    assert len(sizes) >= 9
    assert all(width > 100 for _, width in sizes), sizes


def point_at(visit: Visit, trace: int, point: int) -> str:
    """Moves the mouse to a point of the front's figure; returns what is shown there."""
    located = visit.page.locator("#front .trace").nth(trace).locator("path.point").nth(point)
    located.scroll_into_view_if_needed()
    box = located.bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    return visit.page.locator("#front .hoverlayer .hovertext").text_content(timeout=5000)


def test_hovering_shows_the_configuration(visit, findings):
    member = findings.front[-1]
    text = point_at(visit, 2, -1)
    assert f"trial {member.number}" in text
    assert f"{member.num_params:,} parameters" in text


def test_groups_can_be_hidden(visit, findings):
    everything = visit.drawn()
    visit.set("group", "dominated", False)
    assert visit.group("dominated") == []
    assert visit.drawn() == everything - len(findings.dominated)
    visit.set("group", "baselines", False)
    visit.set("group", "repeats", False)
    assert visit.drawn() == len(findings.front)
    visit.set("group", "dominated", True)
    assert visit.drawn() == len(findings.complete)


def test_parts_filter_the_points(visit, findings):
    visit.set("part", "prefix")
    (dominated,) = visit.group("dominated")
    with_prefix = [r for r in findings.complete if r.config.prefix_length]
    shown = set(dominated["ids"]) | set(visit.group("front")[1]["ids"])
    assert shown == {str(record.number) for record in with_prefix}
    visit.set("part", "serial")
    (dominated,) = visit.group("dominated")
    shown = set(dominated["ids"]) | set(visit.group("front")[1]["ids"])
    both = {str(r.number) for r in with_prefix if r.config.serial_bottleneck_size}
    assert shown == both
    assert 0 < len(both) < len(with_prefix)
    note = visit.page.locator("#shown").inner_text()
    assert note == f"{len(both)} of {len(findings.complete)} configurations shown."


def test_the_test_split_shows_means_over_seeds(visit, findings):
    visit.set("view", "test")
    assert visit.group("dominated") == [] == visit.group("front")
    (repeats,) = visit.group("repeats")
    tested = [r for r in findings.repeats if r.trial is not None]
    assert repeats["y"] == pytest.approx([r.test.mean for r in tested])
    assert not visit.page.locator("label[data-views=dev]").first.is_visible()
    assert "report-test" in visit.page.locator("#front .ytitle").text_content()


def test_the_scale_can_be_narrowed(visit, findings):
    before = visit.page.evaluate("document.getElementById('front').layout.yaxis.range")
    visit.set("zoom", "")
    after = visit.page.evaluate("document.getElementById('front').layout.yaxis.range")
    assert before[0] < after[0] < findings.front[-1].score < after[1]


def test_a_click_on_the_front_opens_the_winner(visit, findings):
    number = findings.front[-1].number
    winner = visit.page.locator(f"#trial-{number}")
    assert winner.get_attribute("open") is None
    point_at(visit, 2, -1)
    visit.page.mouse.down()
    visit.page.mouse.up()
    visit.page.wait_for_selector(f"#trial-{number}[open]")
    assert winner.locator(".code").first.is_visible()


def test_code_is_copied(visit, findings):
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    winner = visit.page.locator(f"#trial-{findings.front[0].number}")
    winner.locator("summary").click()
    code = winner.locator(".code").first
    code.locator(".copy").click()
    visit.page.wait_for_function(
        "[...document.querySelectorAll('.copy')].some(b => b.textContent === 'Copied')"
    )
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == code.locator("code").text_content()
    assert "from_pretrained" in copied


def test_the_table_of_trials_is_sorted(visit, findings):
    visit.page.locator("details.more", has=visit.page.locator(".sortable")).locator(
        "summary"
    ).click()
    header = visit.page.locator(".sortable thead th").nth(2)
    header.click()
    header.click()
    scores = visit.page.locator(".sortable tbody tr td:nth-child(3)").all_inner_texts()
    complete = [float(text) for text in scores if text]
    assert complete == sorted(complete, reverse=True)
    assert len(complete) == len(findings.complete)
    assert scores[: len(complete)] == [text for text in scores if text]
    assert header.get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("options", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", ["whole_page", "hostile_page"])
def test_nothing_is_too_wide_and_nothing_of_the_run_runs(browser, name, options, request):
    visit = Visit(browser, request.getfixturevalue(name), **options)
    visit.page.wait_for_selector("#front .main-svg")
    for details in visit.page.locator("details").all():
        details.evaluate("element => element.open = true")
    wide = visit.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= options["viewport"]["width"]
    assert visit.page.evaluate("window.hit") is None
    assert visit.page.locator("img").count() == 0
    assert visit.complaints == []
    assert visit.requests == [visit.url]
    visit.context.close()


def test_a_dark_page_has_dark_figures(browser, whole_page):
    def colors(scheme: str) -> tuple[str, str]:
        visit = Visit(browser, whole_page, color_scheme=scheme)
        visit.page.wait_for_selector("#front .main-svg")
        found = visit.page.evaluate(
            """[getComputedStyle(document.body).backgroundColor,
                document.getElementById("front").layout.xaxis.gridcolor]"""
        )
        visit.context.close()
        return tuple(found)

    light, dark = colors("light"), colors("dark")
    assert light == ("rgb(255, 255, 255)", "#e8ebef")
    assert dark == ("rgb(21, 26, 33)", "#27303b")


def test_runs_that_have_just_begun_have_a_page_without_errors(browser, tmp_path):
    Search(SPACE, tmp_path / "none")
    make_run(tmp_path / "few", n=2)
    for name, figures in (("none", 0), ("few", 5)):
        visit = Visit(browser, write_report(tmp_path / name))
        assert visit.page.locator(".figure .main-svg >> nth=0").count() == (figures > 0)
        assert visit.page.locator(".figure").count() == figures
        assert visit.complaints == []
        visit.context.close()
